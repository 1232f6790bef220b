//! The receive loop of a UDP endpoint: each peer's datagrams go to its session, which is a connection as any other.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::ReadBuf;

use super::accept::Control;
use super::open::Origin;
use crate::codec::Codec;
use crate::connection::{MessageIn, Silence, caught};
use crate::handler::Session;
use crate::peer::{Peer, PeerAddress};
use crate::transport::BindOptions;
use crate::transport::udp::{AMPLIFICATION, Arrival, Entry, Sessions, UdpShared};

/// After so many datagrams other tasks get their turn.
const TURN: u32 = 64;
/// After so many errors in a row the socket is left alone for a moment.
const ERRORS: u32 = 64;

/// A UDP endpoint, as the server controls it.
pub(crate) struct UdpControl {
    shared: Arc<UdpShared>,
    options: BindOptions,
    stopped: AtomicBool,
}

impl UdpControl {
    pub(crate) fn new(shared: Arc<UdpShared>, options: BindOptions) -> Arc<Self> {
        Arc::new(Self { shared, options, stopped: AtomicBool::new(false) })
    }

    /// What is to become of a datagram that would open a session.
    fn entry(&self, from: SocketAddr, datagram: &[u8]) -> Entry {
        if from.port() < self.options.min_source_port {
            return Entry::Drop;
        }
        match &self.options.gate {
            None => Entry::Open,
            Some(gate) => caught(|| gate.ask(from, datagram)).unwrap_or(Entry::Drop),
        }
    }
}

impl Control for UdpControl {
    fn stop(&self) {
        // those who have a session still need the socket
        self.stopped.store(true, Relaxed);
    }

    fn close(&self) {
        self.shared.close();
    }

    fn wake(&self) {}

    #[cfg(feature = "handover")]
    fn duplicate(&self) -> std::io::Result<Option<crate::transport::Duplicate>> {
        self.shared.duplicate()
    }

    #[cfg(feature = "handover")]
    fn hand_over(&self) {
        self.stop();
        self.shared.stop_receiving();
    }
}

/// Receives until the socket is closed.
pub(crate) async fn receive<S, C>(control: Arc<UdpControl>, origin: Arc<Origin<S, C>>)
where
    S: Session,
    C: Codec<S::In, S::Out>,
{
    let UdpControl { shared, stopped, .. } = &*control;
    let limits = &origin.hub.limits;
    let sessions = Sessions::new(Arc::clone(shared), Arc::clone(limits));
    // one byte more than is taken, to tell a datagram that was cut
    let mut bytes = Vec::new();
    let (mut turn, mut errors) = (0, 0);
    loop {
        turn += 1;
        if turn == TURN {
            turn = 0;
            tokio::task::yield_now().await;
        }
        let limit = limits.max_datagram();
        bytes.resize(limit + 1, 0);
        let mut buffer = ReadBuf::new(&mut bytes);
        let from = match poll_fn(|cx| shared.poll_receive(cx, &mut buffer)).await {
            None => return,
            Some(Ok(from)) => from,
            Some(Err(error)) => {
                // such as the refusal of an earlier answer: some peer's, never the socket's end
                shared.counters.receive_errors.fetch_add(1, Relaxed);
                origin.hub.log.receiving_failed(&origin.endpoint, &error);
                errors += 1;
                if errors >= ERRORS {
                    errors = 0;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                continue;
            }
        };
        errors = 0;
        if buffer.filled().len() > limit {
            shared.counters.truncated.fetch_add(1, Relaxed);
            continue;
        }
        let datagram = buffer.filled();
        let entry = match () {
            () if sessions.knows(from) => Entry::Open,
            () if stopped.load(Relaxed) || origin.hub.paused.load(Relaxed) => Entry::Drop,
            () => control.entry(from, datagram),
        };
        if let Entry::Answer(answer) = &entry {
            // whoever forges an address must not have us send more to it than may be sent to a stranger
            if answer.len() as u64 <= AMPLIFICATION * datagram.len() as u64 {
                shared.try_send(answer, from);
                continue;
            }
        }
        if let Arrival::New(source, write) = sessions.arrive(from, datagram, entry) {
            let peer = Peer::new(Arc::clone(&origin.endpoint), PeerAddress::Ip(from));
            origin.open(peer, Silence::Datagrams, write, |codec, core| {
                source.belongs_to(core);
                Box::new(MessageIn::new(source, codec))
            });
        }
    }
}
