//! Which UDP peers have a session.
//!
//! A peer is *validated* once it has sent again after we had answered. Until then it gets at most [`AMPLIFICATION`] times
//! the bytes that came from it, and its session is the first to go when there are too many. That keeps out floods of
//! single datagrams from addresses that others wrote into them; who forges two in a row, with our answer between them, is
//! only found out by a protocol that asks for something out of its answer.

use std::collections::{HashMap, VecDeque, hash_map};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};
use std::time::Instant;
use std::{io, mem};

use bytes::BytesMut;
use futures::task::AtomicWaker;

use super::gate::Entry;
use super::socket::{UdpCounters, UdpShared};
use super::write::UdpWrite;
use crate::connection::{CloseReason, Core, MessageSource, Place as TaskPlace, Polled};
use crate::limits::{Live, Place};
use crate::sync::{Mutex, lock};

/// RFC 9000, section 8.1, has found this to be enough for a handshake and too little for an attack.
pub(crate) const AMPLIFICATION: u64 = 3;

/// What a waiting datagram is charged beyond its bytes: empty ones are not free.
const OVERHEAD: usize = 256;

/// What a datagram of a known peer met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    Queued,
    /// There is no room for it: in the session's queue, or in those of all.
    Full,
    /// The session has ended, and nobody will take it.
    Gone,
}

/// What a datagram met.
pub(crate) enum Arrival {
    /// It waits for its session.
    #[cfg(any(test, fuzzing))]
    Queued,
    /// The session's queue is full, or there are too many sessions.
    Dropped,
    /// It is the first of a new session.
    New(UdpSource, UdpWrite),
}

/// The sessions of one socket.
pub(crate) struct Sessions {
    shared: Arc<UdpShared>,
    limits: Arc<Live>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    peers: HashMap<SocketAddr, (Arc<Session>, Room)>,
    /// In the order of their arrival; some may be validated or gone.
    unvalidated: VecDeque<Arc<Session>>,
}

/// A session's room among those of its endpoint, which may have several sockets.
struct Room {
    _place: Place,
    counters: Arc<UdpCounters>,
}

impl Room {
    fn take(counters: &Arc<UdpCounters>, place: Place, cap: usize) -> Result<Self, Place> {
        let take = |sessions| (sessions < cap).then_some(sessions + 1);
        match counters.sessions.fetch_update(Relaxed, Relaxed, take) {
            Ok(_) => Ok(Self { _place: place, counters: Arc::clone(counters) }),
            Err(_) => Err(place),
        }
    }

    /// Another session of another address has it.
    fn given_to(mut self, place: Place) -> Self {
        self._place = place;
        self
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.counters.sessions.fetch_sub(1, Relaxed);
    }
}

/// One peer.
pub(crate) struct Session {
    pub(super) addr: SocketAddr,
    queue: Mutex<VecDeque<BytesMut>>,
    reader: AtomicWaker,
    /// Whoever has more to send than the peer may get so far.
    pub(super) writer: AtomicWaker,
    received: AtomicU64,
    pub(super) sent: AtomicU64,
    validated: AtomicBool,
    gone: AtomicBool,
    /// Weak, as the connection holds its source, and with it the session.
    core: OnceLock<Weak<Core>>,
    /// Where its task can be polled.
    place: OnceLock<Weak<TaskPlace>>,
    /// Its task was woken, or has just begun, and has taken nothing since.
    roused: AtomicBool,
    /// It is on the list of those that got something.
    listed: AtomicBool,
}

impl Session {
    fn is_evictable(&self) -> bool {
        !self.validated.load(Relaxed) && !self.gone.load(Relaxed)
    }

    fn arrived(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Relaxed);
        if !self.validated.load(Relaxed) {
            if self.sent.load(Relaxed) > 0 {
                self.validated.store(true, Relaxed);
            }
            self.writer.wake();
        }
    }

    /// Whether it is still the peer's.
    pub(crate) fn is_of(&self, addr: SocketAddr) -> bool {
        self.addr == addr && !self.gone.load(Relaxed)
    }

    /// Puts it on a list, unless it is there.
    pub(crate) fn list(self: &Arc<Self>, list: &mut Vec<Arc<Self>>) {
        if !self.listed.load(Relaxed) {
            self.listed.store(true, Relaxed);
            list.push(Arc::clone(self));
        }
    }

    /// It was taken off its list.
    pub(crate) fn unlist(&self) {
        self.listed.store(false, Relaxed);
    }

    /// Has the session look at what came, if it waits for that: here, where its task can be polled, or in its task.
    pub(crate) fn handle(&self, here: Option<Instant>) -> Option<Polled> {
        let waker = self.reader.take()?;
        let polled = match (here, self.place.get().and_then(Weak::upgrade)) {
            (Some(now), Some(place)) => place.poll(&waker, now),
            _ => {
                waker.wake();
                Polled::Woken
            }
        };
        if polled == Polled::Woken {
            self.roused.store(true, Relaxed);
        }
        Some(polled)
    }

    /// Whether its task had no time yet to look at what came.
    pub(crate) fn is_roused(&self) -> bool {
        self.roused.load(Relaxed)
    }

    /// Where the session's task can be polled.
    pub(crate) fn lives_at(&self, place: Weak<TaskPlace>) {
        let _ = self.place.set(place);
    }

    pub(super) fn may_send(&self, bytes: usize) -> bool {
        self.validated.load(Relaxed)
            || self.sent.load(Relaxed) + bytes as u64 <= self.received.load(Relaxed).saturating_mul(AMPLIFICATION)
    }
}

impl Sessions {
    pub(crate) fn new(shared: Arc<UdpShared>, limits: Arc<Live>) -> Arc<Self> {
        Arc::new(Self { shared, limits, table: Mutex::default() })
    }

    /// Whether one more datagram may wait.
    fn fits(&self, bytes: usize) -> bool {
        self.shared.counters.waiting.load(Relaxed) + bytes + OVERHEAD <= self.limits.udp_buffer()
            && !self.limits.memory.is_exhausted()
    }

    fn charge(&self, bytes: usize) {
        self.shared.counters.waiting.fetch_add(bytes + OVERHEAD, Relaxed);
        self.limits.memory.take(bytes + OVERHEAD);
    }

    fn discharge(&self, bytes: usize) {
        self.shared.counters.waiting.fetch_sub(bytes + OVERHEAD, Relaxed);
        self.limits.memory.give(bytes + OVERHEAD);
    }

    /// The session of `addr`.
    pub(crate) fn find(&self, addr: SocketAddr) -> Option<Arc<Session>> {
        lock(&self.table).peers.get(&addr).map(|(session, _)| Arc::clone(session))
    }

    /// Puts a datagram into the queue of its session, which is not told. What does not fit can be offered `again`.
    pub(crate) fn offer(&self, session: &Session, bytes: &[u8], again: bool) -> Offer {
        if !again {
            session.arrived(bytes.len());
        }
        let mut queue = lock(&session.queue);
        // set before the queue is emptied for the last time, under this lock
        if session.gone.load(Relaxed) {
            return Offer::Gone;
        }
        if queue.len() >= self.limits.udp_queue() || !self.fits(bytes.len()) {
            return Offer::Full;
        }
        self.charge(bytes.len());
        queue.push_back(BytesMut::from(bytes));
        Offer::Queued
    }

    /// A datagram of a known peer found no room.
    pub(crate) fn dropped(&self) {
        self.shared.counters.dropped.fetch_add(1, Relaxed);
    }

    /// Takes a datagram from `addr`. A new session is made as `entry` says.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn arrive(self: &Arc<Self>, addr: SocketAddr, bytes: &[u8], entry: Entry) -> Arrival {
        let Some(session) = self.find(addr) else { return self.open(addr, bytes, entry) };
        if self.offer(&session, bytes, false) == Offer::Full {
            self.dropped();
            return Arrival::Dropped;
        }
        session.handle(None);
        Arrival::Queued
    }

    /// Takes a datagram from `addr`, which has no session. One is made as `entry` says.
    pub(crate) fn open(self: &Arc<Self>, addr: SocketAddr, bytes: &[u8], entry: Entry) -> Arrival {
        let counters = &self.shared.counters;
        let mut table = lock(&self.table);
        let cap = self.limits.udp_sessions();
        let take_room = |table: &mut Table| {
            let place = counters.addresses.take(addr.ip(), self.limits.get().udp_per_address)?;
            match Room::take(counters, place, cap) {
                // it goes from one to the other: nobody gets it in between, and a lower cap throws out nobody for nothing
                Err(place) => self.evict_one(table).map(|room| room.given_to(place)),
                Ok(room) => Some(room),
            }
        };
        let open = matches!(entry, Entry::Open | Entry::Proven);
        let room = if open && self.fits(bytes.len()) { take_room(&mut table) } else { None };
        let Some(room) = room else {
            counters.refused.fetch_add(1, Relaxed);
            return Arrival::Dropped;
        };
        self.charge(bytes.len());
        let session = Arc::new(Session {
            addr,
            queue: Mutex::new(VecDeque::from([BytesMut::from(bytes)])),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
            received: AtomicU64::new(bytes.len() as u64),
            sent: AtomicU64::new(0),
            validated: AtomicBool::new(entry == Entry::Proven),
            gone: AtomicBool::new(false),
            core: OnceLock::new(),
            place: OnceLock::new(),
            roused: AtomicBool::new(true),
            listed: AtomicBool::new(false),
        });
        table.peers.insert(addr, (Arc::clone(&session), room));
        if table.unvalidated.len() / 2 >= cap {
            table.unvalidated.retain(|session| session.is_evictable());
        }
        table.unvalidated.push_back(Arc::clone(&session));
        let source = UdpSource { session: Arc::clone(&session), sessions: Arc::clone(self) };
        Arrival::New(source, UdpWrite::new(session, Arc::clone(&self.shared)))
    }

    /// Makes room by ending the session that has been unvalidated for longest.
    fn evict_one(&self, table: &mut Table) -> Option<Room> {
        while let Some(session) = table.unvalidated.pop_front() {
            if session.is_evictable() {
                session.gone.store(true, Relaxed);
                let Some((_, room)) = table.peers.remove(&session.addr) else { continue };
                self.shared.counters.evicted.fetch_add(1, Relaxed);
                if let Some(core) = session.core.get().and_then(Weak::upgrade) {
                    core.fail(CloseReason::Evicted);
                }
                return Some(room);
            }
        }
        None
    }

    fn remove(&self, session: &Arc<Session>) {
        session.gone.store(true, Relaxed);
        let mut table = lock(&self.table);
        if let hash_map::Entry::Occupied(entry) = table.peers.entry(session.addr) {
            if Arc::ptr_eq(&entry.get().0, session) {
                entry.remove();
            }
        }
        drop(table);
        // `unvalidated` may remember the session for long, but nobody will read what waits
        for datagram in mem::take(&mut *lock(&session.queue)) {
            self.discharge(datagram.len());
        }
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn len(&self) -> usize {
        lock(&self.table).peers.len()
    }

    #[cfg(fuzzing)]
    pub(crate) fn waiting(&self) -> usize {
        self.shared.counters.waiting.load(Relaxed)
    }
}

/// Where a session's datagrams wait. The peer's session ends when it is dropped.
pub(crate) struct UdpSource {
    session: Arc<Session>,
    sessions: Arc<Sessions>,
}

impl UdpSource {
    pub(crate) fn session(&self) -> Arc<Session> {
        Arc::clone(&self.session)
    }

    /// Names the connection that the session is, so that it can be ended.
    pub(crate) fn belongs_to(&self, core: &Arc<Core>) {
        let _ = self.session.core.set(Arc::downgrade(core));
        if self.session.gone.load(Relaxed) {
            core.fail(CloseReason::Evicted);
        }
    }
}

impl MessageSource for UdpSource {
    fn outlives_invalid(&mut self) -> bool {
        // anybody can have sent it in the peer's name
        self.sessions.shared.counters.invalid.fetch_add(1, Relaxed);
        true
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<BytesMut>>> {
        let next = || lock(&self.session.queue).pop_front();
        let datagram = next().or_else(|| {
            self.session.reader.register(cx.waker());
            // one may have come in between
            next()
        });
        self.session.roused.store(false, Relaxed);
        match datagram {
            Some(datagram) => {
                self.sessions.discharge(datagram.len());
                Poll::Ready(Some(Ok(datagram)))
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for UdpSource {
    fn drop(&mut self) {
        self.sessions.remove(&self.session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::transport::BindOptions;

    fn sessions(cap: usize) -> Arc<Sessions> {
        let any = "127.0.0.1:0".parse().unwrap();
        let (shared, _) = UdpShared::bind(any, &BindOptions::new(), Arc::default()).unwrap();
        let limits = Limits::edge().with_udp_sessions(cap).with_udp_queue(2).with_udp_buffer(10_000);
        Sessions::new(shared, Live::new(limits))
    }

    fn addr(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn open(sessions: &Arc<Sessions>, port: u16) -> (UdpSource, UdpWrite) {
        match sessions.arrive(addr(port), b"hello", Entry::Open) {
            Arrival::New(source, write) => (source, write),
            _ => panic!("no new session"),
        }
    }

    #[tokio::test]
    async fn the_unvalidated_go_first_and_the_validated_stay() {
        let sessions = sessions(3);
        let held: Vec<_> = (1..=3).map(|port| open(&sessions, port)).collect();
        held[0].1.session.sent.fetch_add(5, Relaxed);
        assert!(matches!(sessions.arrive(addr(1), b"again", Entry::Open), Arrival::Queued));

        let _fourth = open(&sessions, 4);
        assert!(held[1].0.session.gone.load(Relaxed), "the oldest unvalidated one makes room");
        assert!(!held[0].0.session.gone.load(Relaxed));
        assert_eq!(sessions.len(), 3);
        drop(held);
        assert_eq!(sessions.len(), 1, "a session is gone with its source");
    }

    #[tokio::test]
    async fn a_full_table_of_validated_peers_refuses() {
        let sessions = sessions(1);
        let held = open(&sessions, 1);
        held.1.session.sent.fetch_add(5, Relaxed);
        assert!(matches!(sessions.arrive(addr(1), b"again", Entry::Open), Arrival::Queued));
        assert!(matches!(sessions.arrive(addr(2), b"hello", Entry::Open), Arrival::Dropped));
        assert_eq!(sessions.shared.counters.refused.load(Relaxed), 1);
    }

    #[tokio::test]
    async fn an_address_has_its_share_of_the_sessions() {
        let any = "127.0.0.1:0".parse().unwrap();
        let (shared, _) = UdpShared::bind(any, &BindOptions::new(), Arc::default()).unwrap();
        let limits = Limits::edge().with_udp_sessions(10).with_udp_per_address(Some(2));
        let sessions = Sessions::new(shared, Live::new(limits));
        let held = [open(&sessions, 1), open(&sessions, 2)];
        assert!(matches!(sessions.arrive(addr(3), b"hello", Entry::Proven), Arrival::Dropped));
        let elsewhere = ([127, 0, 0, 2], 3).into();
        let other = sessions.arrive(elsewhere, b"hello", Entry::Open);
        assert!(matches!(other, Arrival::New(..)));
        drop(held);
        let _again = open(&sessions, 3);
    }

    #[tokio::test]
    async fn a_full_queue_drops_and_counts() {
        let sessions = sessions(1);
        let _held = open(&sessions, 1);
        assert!(matches!(sessions.arrive(addr(1), b"2", Entry::Open), Arrival::Queued));
        assert!(matches!(sessions.arrive(addr(1), b"3", Entry::Open), Arrival::Dropped));
        assert_eq!(sessions.shared.counters.dropped.load(Relaxed), 1);
    }

    #[tokio::test]
    async fn what_comes_for_a_session_that_has_ended_is_not_charged() {
        let sessions = sessions(10);
        let (source, _write) = open(&sessions, 1);
        let session = sessions.find(addr(1)).unwrap();
        assert_eq!(sessions.offer(&session, b"in time", false), Offer::Queued);
        drop(source);
        assert_eq!(sessions.offer(&session, b"too late", false), Offer::Gone);
        assert_eq!(sessions.shared.counters.waiting.load(Relaxed), 0);
    }

    #[tokio::test]
    async fn what_waits_is_bounded_over_all_sessions() {
        let sessions = sessions(100);
        let (mut source, _write) = open(&sessions, 1);
        let mut others = Vec::new();
        while let Arrival::New(source, _) = sessions.arrive(addr(2 + others.len() as u16), &[0; 1000], Entry::Open) {
            others.push(source);
        }
        assert_eq!(others.len(), 7, "of 1,256 bytes each, beside the one of 261");
        let mut cx = Context::from_waker(std::task::Waker::noop());
        while source.poll_next(&mut cx).is_ready() {}
        drop(others);
        assert_eq!(sessions.shared.counters.waiting.load(Relaxed), 0, "all of it is given back");
    }

    #[tokio::test]
    async fn before_validation_an_answer_is_at_most_three_times_the_question() {
        let sessions = sessions(1);
        let (_source, write) = open(&sessions, 1);
        assert!(write.session.may_send(15));
        assert!(!write.session.may_send(16));
        write.session.sent.fetch_add(1, Relaxed);
        write.session.arrived(0);
        assert!(write.session.may_send(60_000));
    }

    #[tokio::test]
    async fn a_long_life_without_evictions_keeps_no_dead_sessions() {
        let sessions = sessions(10);
        let _first = open(&sessions, 1);
        for port in 2..1000 {
            drop(open(&sessions, port));
        }
        assert!(lock(&sessions.table).unvalidated.len() <= 20);
    }
}
