//! The UDP sessions of a socket that is closed: what is sent goes nowhere.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use crate::connection::{CloseReason, Core, MessageSource, Silence, WriteHalf};
use crate::limits::{Limits, Live};
use crate::peer::{Peer, PeerAddress};
use crate::transport::BindOptions;
use crate::transport::udp::{self, Entry, Sessions, UdpShared, UdpSource, UdpWrite};

pub struct UdpTable {
    live: Arc<Live>,
    shared: Arc<UdpShared>,
    sessions: Arc<Sessions>,
    endpoint: Arc<crate::Endpoint>,
}

pub enum Arrival {
    Queued,
    Dropped,
    New(UdpPeer),
}

/// A session, as its connection holds it.
pub struct UdpPeer {
    core: Arc<Core>,
    source: UdpSource,
    write: UdpWrite,
}

impl UdpTable {
    pub fn new(limits: Limits) -> Self {
        static SHARED: OnceLock<(Arc<UdpShared>, Arc<crate::Endpoint>)> = OnceLock::new();
        let (shared, endpoint) = SHARED.get_or_init(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
            let _context = runtime.enter();
            let any = ([127, 0, 0, 1], 0).into();
            let (shared, addr) = UdpShared::bind(any, &BindOptions::new(), Arc::default()).expect("a socket");
            shared.close();
            (shared, Arc::new(crate::Endpoint::udp(addr)))
        });
        let live = Live::new(limits);
        let sessions = Sessions::new(Arc::clone(shared), Arc::clone(&live));
        Self { live, shared: Arc::clone(shared), sessions, endpoint: Arc::clone(endpoint) }
    }

    pub fn set_limits(&self, limits: Limits) {
        self.live.set(limits);
    }

    pub fn knows(&self, from: SocketAddr) -> bool {
        self.sessions.find(from).is_some()
    }

    pub fn arrive(&self, from: SocketAddr, bytes: &[u8], entry: Entry) -> Arrival {
        match self.sessions.arrive(from, bytes, entry) {
            udp::Arrival::Queued => Arrival::Queued,
            udp::Arrival::Dropped => Arrival::Dropped,
            udp::Arrival::New(source, write) => {
                let peer = Peer::new(Arc::clone(&self.endpoint), PeerAddress::Ip(from));
                let core = Arc::new(Core::new(peer, Arc::clone(&self.live), Silence::Datagrams, None));
                source.belongs_to(&core);
                Arrival::New(UdpPeer { core, source, write })
            }
        }
    }

    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What waits, in bytes: as the table has it, and as the memory of all has it.
    pub fn waiting(&self) -> (usize, usize) {
        (self.sessions.waiting(), self.live.memory.used())
    }

    /// Datagrams dropped and refused and sessions evicted, of all tables.
    pub fn counters(&self) -> [u64; 3] {
        let counters = &self.shared.counters;
        [&counters.dropped, &counters.refused, &counters.evicted].map(|counter| counter.load(Relaxed))
    }
}

impl UdpPeer {
    /// The next datagram that waits.
    pub fn receive(&mut self, waker: &Waker) -> Option<Vec<u8>> {
        match self.source.poll_next(&mut Context::from_waker(waker)) {
            Poll::Ready(Some(Ok(datagram))) => Some(datagram.to_vec()),
            _ => None,
        }
    }

    /// Whether the peer may get so many bytes now.
    pub fn send(&mut self, bytes: &[u8], waker: &Waker) -> bool {
        self.write.poll_write(&mut Context::from_waker(waker), bytes).is_ready()
    }

    pub fn is_evicted(&self) -> bool {
        self.core.failure().is_some_and(|failure| failure.reason == CloseReason::Evicted)
    }
}
