//! The table of UDP sessions against a simple one: never more sessions than the caps, the memory of what waits is what
//! waits, no answer beyond three times the question, and who has answered is never ended for a stranger.
#![no_main]

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Wake;

use arbitrary::Arbitrary;
use hythe::Limits;
use hythe::fuzzing::{Arrival, UdpPeer, UdpTable};
use hythe::udp::Entry;
use hythe_fuzz::limits;
use libfuzzer_sys::fuzz_target;

/// What a waiting datagram is charged beyond its bytes.
const OVERHEAD: usize = 256;

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Caps {
    sessions: u8,
    per_address: Option<u8>,
    queue: u8,
    buffer: u16,
    memory: u16,
}

impl Caps {
    fn limits(self) -> Limits {
        let least = |value: u8| usize::from(value % 16).max(1);
        let mut limits = limits()
            .with_udp_sessions(least(self.sessions))
            .with_udp_per_address(self.per_address.map(least))
            .with_udp_queue(least(self.queue))
            .with_udp_buffer(usize::from(self.buffer))
            .with_memory(usize::from(self.memory).max(1));
        // both can be the lower one
        limits.udp_buffer = limits.udp_buffer.max(OVERHEAD);
        limits
    }
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    Arrives { from: u8, bytes: u8, entry: u8 },
    Receives { session: u8 },
    Sends { session: u8, bytes: u16 },
    Drops { session: u8 },
    Limits(Caps),
}

/// A session as it ought to be.
struct Model {
    from: SocketAddr,
    queue: VecDeque<usize>,
    received: u64,
    sent: u64,
    validated: bool,
    evicted: bool,
    peer: UdpPeer,
    /// Unset while it waits for a datagram, and for leave to send.
    reader: Arc<Flag>,
    writer: Arc<Flag>,
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

struct Check {
    table: UdpTable,
    limits: Limits,
    /// In the order of their arrival.
    sessions: Vec<Model>,
    /// Dropped, refused, evicted.
    counters: [u64; 3],
}

/// Four IPv4 addresses, and four IPv6 ones in two networks, with four ports each.
fn address(from: u8) -> SocketAddr {
    let (ip, port) = (from >> 2 & 3, 1000 + u16::from(from & 3));
    match from & 16 {
        0 => ([192, 0, 2, ip], port).into(),
        _ => SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, (ip & 1).into(), 0, 0, 0, ip.into())), port),
    }
}

/// What counts as one address.
fn network(from: SocketAddr) -> u128 {
    match from.ip() {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits() >> 64 << 64,
    }
}

impl Check {
    fn waiting(&self) -> usize {
        self.sessions.iter().flat_map(|session| &session.queue).map(|bytes| bytes + OVERHEAD).sum()
    }

    fn fits(&self, bytes: usize) -> bool {
        self.waiting() + bytes + OVERHEAD <= self.limits.udp_buffer && self.waiting() < self.limits.memory
    }

    fn live(&self) -> impl Iterator<Item = &Model> {
        self.sessions.iter().filter(|session| !session.evicted)
    }

    fn arrives(&mut self, from: SocketAddr, bytes: usize, entry: u8) {
        assert_eq!(self.table.knows(from), self.live().any(|session| session.from == from));
        let (proven, open) = (entry % 4 == 0, entry % 4 != 1);
        let entry = match entry % 4 {
            0 => Entry::Proven,
            1 => Entry::Drop,
            _ => Entry::Open,
        };
        let arrival = self.table.arrive(from, &vec![7; bytes], entry);
        let fits = self.fits(bytes);
        if let Some(session) = self.sessions.iter_mut().find(|session| session.from == from && !session.evicted) {
            session.received += bytes as u64;
            session.validated |= session.sent > 0;
            assert!(session.writer.0.load(Relaxed), "it waits for leave to send, and is not told");
            if session.queue.len() < self.limits.udp_queue && fits {
                session.queue.push_back(bytes);
                assert!(matches!(arrival, Arrival::Queued));
                assert!(session.reader.0.load(Relaxed), "nobody reads what has come");
            } else {
                self.counters[0] += 1;
                assert!(matches!(arrival, Arrival::Dropped));
            }
            return;
        }
        let of_address = self.live().filter(|session| network(session.from) == network(from)).count();
        let mut place = open && fits && self.limits.udp_per_address.is_none_or(|limit| of_address < limit);
        if place && self.live().count() >= self.limits.udp_sessions {
            let oldest = self.sessions.iter_mut().find(|session| !session.evicted && !session.validated);
            place = oldest.is_some();
            if let Some(oldest) = oldest {
                oldest.evicted = true;
                self.counters[2] += 1;
            }
        }
        match arrival {
            Arrival::New(peer) if place => {
                let busy = || Arc::new(Flag(AtomicBool::new(true)));
                self.sessions.push(Model {
                    from,
                    queue: VecDeque::from([bytes]),
                    received: bytes as u64,
                    sent: 0,
                    validated: proven,
                    evicted: false,
                    peer,
                    reader: busy(),
                    writer: busy(),
                });
            }
            Arrival::Dropped if !place => self.counters[1] += 1,
            _ => panic!("a place: {place}, and it is not what has come of it"),
        }
    }

    fn step(&mut self, step: Step) {
        let among = |session: u8, sessions: usize| usize::from(session).checked_rem(sessions);
        match step {
            Step::Arrives { from, bytes, entry } => self.arrives(address(from), bytes.into(), entry),
            Step::Receives { session } => {
                let Some(session) = among(session, self.sessions.len()) else { return };
                let session = &mut self.sessions[session];
                let received = session.peer.receive(&Arc::clone(&session.reader).into());
                session.reader.0.store(received.is_some(), Relaxed);
                assert_eq!(received.map(|bytes| bytes.len()), session.queue.pop_front());
            }
            Step::Sends { session, bytes } => {
                let Some(session) = among(session, self.sessions.len()) else { return };
                let session = &mut self.sessions[session];
                let may = session.validated || session.sent + u64::from(bytes) <= 3 * session.received;
                let bytes = vec![7; bytes.into()];
                assert_eq!(session.peer.send(&bytes, &Arc::clone(&session.writer).into()), may);
                session.writer.0.store(may, Relaxed);
                if may {
                    session.sent += bytes.len().max(1) as u64;
                }
            }
            Step::Drops { session } => {
                if let Some(session) = among(session, self.sessions.len()) {
                    self.sessions.remove(session);
                }
            }
            Step::Limits(caps) => {
                self.limits = caps.limits();
                self.table.set_limits(self.limits.clone());
            }
        }
    }

    /// What holds after every step.
    fn holds(&self, before: usize, counters: [u64; 3]) {
        let live = self.live().count();
        assert_eq!(self.table.len(), live);
        assert!(live <= before.max(self.limits.udp_sessions));
        assert_eq!(self.table.waiting(), (self.waiting(), self.waiting()));
        let counted = self.table.counters();
        assert_eq!([0, 1, 2].map(|i| counted[i] - counters[i]), self.counters);
        for session in &self.sessions {
            assert_eq!(session.peer.is_evicted(), session.evicted);
        }
    }
}

fuzz_target!(|input: (Caps, Vec<Step>)| {
    let (caps, steps) = input;
    let limits = caps.limits();
    let table = UdpTable::new(limits.clone());
    let counters = table.counters();
    let mut check = Check { table, limits, sessions: Vec::new(), counters: [0; 3] };
    for step in steps {
        let before = check.table.len();
        check.step(step);
        check.holds(before, counters);
    }
    check.sessions.clear();
    assert_eq!((check.table.len(), check.table.waiting()), (0, (0, 0)), "all of it comes back");
});
