//! What everybody who has to do with one connection shares: its task, its owner, its senders, the server.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::{fmt, mem};

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::closed::{CloseReason, Closed, Failure};
use super::deadlines::{Deadlines, Silence};
use super::outlet::Totals;
use super::rare::Maybe;
use super::timing::Timing;
use super::traffic::Traffic;
use crate::limits::Live;
use crate::log::{Limiter, suppressed};
use crate::peer::Peer;
use crate::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use crate::sync::{Mutex, lock};

/// Names a connection within this process; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

impl ConnectionId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Relaxed))
    }

    /// Never 0.
    pub(super) fn number(self) -> u64 {
        self.0
    }

    pub(super) fn from_number(number: u64) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// What a group, or whoever else holds a connection's sender, wants to do when the connection is over.
pub(crate) trait Leave: Send + Sync {
    fn leave(&self, id: ConnectionId);
}

/// The read side after the session is through with it: only its end is of interest.
pub(crate) trait Remainder: Send {
    /// Reads and throws away until the peer's end, an error, or a bound on what a peer may make us read.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// Whether the peer's end has been seen.
    fn ended(&self) -> bool;
}

pub(crate) struct Core {
    pub(crate) id: ConnectionId,
    peer: Peer,
    pub(crate) limits: Arc<Live>,
    pub(crate) deadlines: Deadlines,
    /// The task that drives the connection: always the same one.
    driver: Mutex<Option<Waker>>,
    /// The outbox is open and empty, as far as is known without its lock.
    pub(crate) quiet: AtomicBool,
    flags: AtomicU16,
    pub(crate) traffic: Traffic,
    pub(crate) timing: Timing,
    /// Bytes of its buffers that are charged to the memory of all.
    pub(super) held: AtomicUsize,
    pub(super) rare: Maybe,
}

/// See [`Core::watermark`].
const WATERMARK: usize = 64 << 10;

/// The connection's owner closed it: nothing more is received, and what was sent is flushed.
const CLOSING: u16 = 1;
/// The peer has ended its side.
const PEER_ENDED: u16 = 2;
/// To be closed at the next message boundary without a message.
const FINISHING: u16 = 4;
/// The idle deadline passed, and the session has not been told yet.
const IDLE_DUE: u16 = 8;
/// The session is to be dropped as it is.
const CUT: u16 = 16;
/// The connection's owner let go of it.
const RELEASED: u16 = 32;
/// The session is told of silence, and decides.
const IDLE_AWARE: u16 = 64;
/// It has failed, or is to drain.
const NEWS: u16 = 128;
/// Nothing can be sent any more, whatever the reason for the end.
const BROKEN: u16 = 256;
/// It is told when there is memory again.
pub(super) const AWAITS_MEMORY: u16 = 512;
/// What went over it is in the totals of all closed connections.
const COUNTED: u16 = 1024;

/// No task of ours drives it.
const UNDRIVEN: u16 = 2048;
/// What goes over it is shown.
pub(super) const SHOWN: u16 = 4096;

impl Core {
    pub(crate) fn new(peer: Peer, limits: Arc<Live>, silence: Silence, runtime: Option<Handle>) -> Self {
        let rare = Maybe::default();
        let mut flags = 0;
        if let Some(runtime) = runtime {
            let _ = rare.make().runtime.set(runtime);
            flags = UNDRIVEN;
        }
        Self {
            id: ConnectionId::next(),
            peer,
            limits,
            deadlines: Deadlines::new(Instant::now(), silence),
            driver: Mutex::new(None),
            quiet: AtomicBool::new(false),
            flags: AtomicU16::new(flags),
            traffic: Traffic::default(),
            timing: Timing::default(),
            held: AtomicUsize::new(0),
            rare,
        }
    }

    /// The other end.
    pub(crate) fn peer(&self) -> &Peer {
        #[cfg(feature = "tls")]
        if let Some(upgraded) = self.rare.get().and_then(|rare| rare.upgraded.get()) {
            return upgraded;
        }
        &self.peer
    }

    /// The connection has been encrypted.
    #[cfg(feature = "tls")]
    pub(crate) fn upgrade(&self, info: crate::tls::TlsInfo) {
        let _ = self.rare.make().upgraded.set(self.peer.clone().with_tls(info));
    }

    /// Whether a task of ours drives the connection.
    pub(crate) fn has_driver(&self) -> bool {
        !self.has(UNDRIVEN)
    }

    pub(super) fn has(&self, flag: u16) -> bool {
        self.flags.load(Ordering::Acquire) & flag != 0
    }

    /// Whether there is something to know before the next message.
    pub(crate) fn is_disturbed(&self) -> bool {
        self.has(CLOSING | NEWS)
    }

    /// Sets a flag; whether it was unset before.
    pub(super) fn set(&self, flag: u16) -> bool {
        self.flags.fetch_or(flag, Ordering::AcqRel) & flag == 0
    }

    pub(super) fn unset(&self, flag: u16) -> bool {
        self.has(flag) && self.flags.fetch_and(!flag, Ordering::AcqRel) & flag != 0
    }

    /// With so much waiting, whoever adds to it writes instead of waiting for the session to wait, in bytes.
    #[inline]
    pub(crate) fn watermark(&self) -> usize {
        WATERMARK.min(self.limits.outbox())
    }

    /// Names the task that drives the connection, or, at its end, none.
    pub(crate) fn set_driver(&self, driver: Option<Waker>) {
        *lock(&self.driver) = driver;
    }

    pub(crate) fn wake_driver(&self) {
        if let Some(driver) = &*lock(&self.driver) {
            driver.wake_by_ref();
        }
    }

    pub(crate) fn wake(&self) {
        self.wake_driver();
        if let Some(rare) = self.rare.get_after_change() {
            rare.reader.wake();
            rare.writer.wake();
            rare.room.notify_waiters();
        }
    }

    /// Ends the connection for a reason that leaves no choice. The first one counts.
    pub(crate) fn fail(&self, failure: impl Into<Failure>) {
        if self.rare.make().failure.set(failure.into()).is_ok() {
            self.set(NEWS);
            self.quiet.store(false, Relaxed);
            self.wake();
        }
    }

    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.rare.get()?.failure.get()
    }

    /// Whether nothing can be sent to the peer any more.
    pub(crate) fn is_broken(&self) -> bool {
        self.failure().is_some_and(|failure| !failure.reason.flushes()) || self.has(BROKEN)
    }

    /// Ends the connection for a reason after which nothing can be sent; another one stands, where there is one.
    pub(crate) fn break_off(&self, reason: CloseReason) {
        self.set(BROKEN);
        self.quiet.store(false, Relaxed);
        self.fail(reason);
        self.wake();
    }

    /// Why an operation on the connection cannot be done any more.
    pub(crate) fn reason(&self) -> CloseReason {
        match (self.closed(), self.failure()) {
            (Some(closed), _) => closed.reason,
            (None, Some(failure)) => failure.reason,
            (None, None) => self.orderly_reason(),
        }
    }

    /// Why the connection ends, if nothing breaks it.
    pub(crate) fn orderly_reason(&self) -> CloseReason {
        if self.is_peer_ended() && !self.is_closing() {
            CloseReason::PeerClosed
        } else if self.drain_deadline().is_some() {
            CloseReason::Drained
        } else {
            CloseReason::Local
        }
    }

    pub(crate) fn start_closing(&self) {
        self.set(CLOSING);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.has(CLOSING)
    }

    pub(crate) fn peer_ended(&self) {
        if self.set(PEER_ENDED) {
            self.deadlines.half_closes();
        }
    }

    pub(crate) fn is_peer_ended(&self) -> bool {
        self.has(PEER_ENDED)
    }

    pub(crate) fn finish_when_idle(&self) {
        self.set(FINISHING);
    }

    pub(crate) fn is_finishing(&self) -> bool {
        self.has(FINISHING)
    }

    pub(crate) fn start_drain(&self, deadline: Instant) {
        if self.rare.make().drain.set(deadline).is_ok() {
            self.set(NEWS);
            self.wake();
        }
    }

    pub(crate) fn drain_deadline(&self) -> Option<Instant> {
        self.rare.get()?.drain.get().copied()
    }

    /// Whether a drain has come between the peer's connect and its first byte, which still has time.
    pub(crate) fn is_fresh(&self) -> bool {
        self.drain_deadline().is_some_and(|deadline| self.deadlines.is_fresh(deadline))
    }

    /// The peer had its time for a first byte.
    pub(crate) fn ends_freshness(&self) {
        self.deadlines.ends_freshness();
        self.wake_reader();
    }

    /// Ends the connection and its session at once.
    pub(crate) fn cut(&self, reason: CloseReason) {
        self.fail(reason);
        self.set(CUT);
        self.wake();
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.has(CUT)
    }

    pub(crate) fn watch_idle(&self) {
        self.set(IDLE_AWARE);
    }

    /// The idle deadline has passed: the session hears of it if it listens, else that is the end.
    pub(crate) fn idle(&self) {
        if self.has(IDLE_AWARE) {
            self.deadlines.forgives_silence();
            self.set(IDLE_DUE);
            self.wake_reader();
        } else {
            self.fail(CloseReason::Idle);
        }
    }

    /// The idle clock starts again: the session was told, and goes on.
    pub(crate) fn forgive_silence(&self) {
        self.deadlines.forgives_silence();
        self.unset(IDLE_DUE);
    }

    pub(crate) fn take_idle(&self) -> bool {
        self.unset(IDLE_DUE)
    }

    pub(crate) fn count_in(&self, bytes: usize) {
        self.traffic.count_in(bytes);
        self.deadlines.bytes_in();
    }

    /// Said before what went over it is added to the totals of closed connections.
    pub(crate) fn counts(&self) {
        self.set(COUNTED);
    }

    pub(crate) fn is_counted(&self) -> bool {
        self.has(COUNTED)
    }

    /// Which message the session handles, by its number; 0 while its handler opens. None where it waits, for a message or
    /// for the peer to take what was sent, and where none will come any more.
    pub(crate) fn handled(&self) -> Option<u64> {
        let waits = self.deadlines.is_waiting() || self.deadlines.is_stalled();
        if waits || self.has(RELEASED | PEER_ENDED) || self.is_counted() || self.failure().is_some() {
            return None;
        }
        // a session without a handler may send all its life and never ask for a message
        Some(self.traffic.messages_in()).filter(|message| *message > 0 || self.has(IDLE_AWARE))
    }

    /// The owner is through with the connection; the driver ends it.
    pub(crate) fn release(&self, remainder: Option<Box<dyn Remainder>>) {
        if remainder.is_some() {
            *lock(&self.rare.make().remainder) = remainder;
        }
        self.set(RELEASED);
        if self.closed().is_some() {
            // nobody else looks any more
            discard(self.take_remainder());
        }
        self.wake();
    }

    pub(crate) fn is_released(&self) -> bool {
        self.has(RELEASED)
    }

    pub(crate) fn take_remainder(&self) -> Option<Box<dyn Remainder>> {
        lock(&self.rare.get()?.remainder).take()
    }

    /// To be told when the connection is over. At once, where it is already.
    pub(crate) fn on_close(&self, who: Weak<dyn Leave>) {
        let rare = self.rare.make();
        let mut list = lock(&rare.on_close);
        if rare.closed.get().is_none() {
            // whoever leaves and comes back is told once, and those that are gone are not kept
            list.retain(|other| other.strong_count() > 0 && !other.ptr_eq(&who));
            list.push(who);
            return;
        }
        drop(list);
        if let Some(who) = who.upgrade() {
            who.leave(self.id);
        }
    }

    /// What is known of the connection at its end.
    pub(crate) fn sum_up(&self, totals: Totals) -> Closed {
        Closed {
            id: self.id,
            peer: self.peer().clone(),
            reason: self.reason(),
            duration: self.deadlines.opened().elapsed(),
            bytes_in: self.traffic.bytes_in(),
            bytes_out: totals.bytes,
            messages_in: self.traffic.messages_in(),
            messages_out: totals.messages,
            unsent_bytes: totals.unsent,
            cause: self.failure().and_then(|failure| failure.cause.clone()),
        }
    }

    /// The connection is over: nothing of it is open any more.
    pub(crate) fn close(&self, closed: Closed) {
        let list = {
            let rare = self.rare.make();
            let mut list = lock(&rare.on_close);
            if rare.closed.set(closed).is_err() {
                return;
            }
            mem::take(&mut *list)
        };
        // whoever still has the connection receives nothing more
        self.start_closing();
        discard(self.take_remainder());
        self.discharge();
        for who in list.iter().filter_map(Weak::upgrade) {
            who.leave(self.id);
        }
        self.wake();
    }

    pub(crate) fn closed(&self) -> Option<&Closed> {
        self.rare.get()?.closed.get()
    }
}

/// Drops what is, or holds, the user's: a panic in its `Drop` must not keep us from what comes next.
pub(crate) fn discard<T>(value: T) {
    static SAID: Limiter = Limiter::new(10);
    if caught(|| drop(value)).is_err() {
        if let Some(times) = SAID.admit() {
            tracing::warn!(suppressed = suppressed(times), "a panic in the drop of a codec");
        }
    }
}

/// Runs what is the user's. Its panic becomes the reason for an end.
pub(crate) fn caught<T>(f: impl FnOnce() -> T) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic without a text".into());
        // what a panic carries is the user's as well, and its drop may panic: that ends here
        if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
            mem::forget(another);
        }
        Failure::new(CloseReason::Panic, text)
    })
}
