//! When a connection has been quiet, slow or stuck for too long: the clocks, without any timer.
//!
//! The task that drives the connection asks for the next deadline and keeps one timer for it. The marks are atomics
//! only so that they can be shared; one task writes each of them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::AcqRel, Ordering::Relaxed, Ordering::Release};
use std::time::Duration;

use tokio::time::Instant;

use super::closed::CloseReason;
use crate::limits::{Live, micros};

/// What a peer has to say its first word when a drain comes between its connect and that, since its opening.
const FRESH: Duration = Duration::from_secs(1);

/// The [`Deadlines::first_word`] that has passed.
const OVER: u64 = u64::MAX;

/// In [`Deadlines::session`]: the rest is since when it handles a message.
const HANDLES: u64 = 1 << 63;

/// How long a peer may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// As long as it likes: it is the one that was connected to.
    Allowed,
    /// As [`Limits::first_byte`](crate::Limits::first_byte) and [`Limits::idle`](crate::Limits::idle) say.
    Stream,
    /// As [`Limits::udp_idle`](crate::Limits::udp_idle) says.
    Datagrams,
}

/// The clocks of one connection. A mark is in microseconds after `opened`, plus one; 0 is "not set".
#[derive(Debug)]
pub(crate) struct Deadlines {
    opened: Instant,
    silence: Silence,
    last_in: AtomicU64,
    /// Since when an incomplete message is held.
    partial: AtomicU64,
    /// Since when the session waits for a message; or, with [`HANDLES`], since when it handles one, where there is a limit to
    /// that.
    session: AtomicU64,
    /// The session gave up the thread while it handled a message, and nothing has come in since.
    suspended: AtomicBool,
    /// Since when the transport takes no byte.
    stalled: AtomicU64,
    /// Since when one side has ended, and the other has made no progress in sending.
    half_closed: AtomicU64,
    /// Until when a drain awaits a first byte.
    first_word: AtomicU64,
    /// There may be an earlier deadline than there was when somebody last asked.
    earlier: AtomicBool,
}

impl Deadlines {
    pub(crate) fn new(opened: Instant, silence: Silence) -> Self {
        Self {
            opened,
            silence,
            last_in: AtomicU64::new(0),
            partial: AtomicU64::new(0),
            session: AtomicU64::new(0),
            suspended: AtomicBool::new(false),
            stalled: AtomicU64::new(0),
            half_closed: AtomicU64::new(0),
            first_word: AtomicU64::new(0),
            earlier: AtomicBool::new(false),
        }
    }

    pub(crate) fn opened(&self) -> Instant {
        self.opened
    }

    /// The time, as a mark.
    pub(crate) fn now(&self) -> u64 {
        micros(Instant::now().saturating_duration_since(self.opened)).saturating_add(1)
    }

    /// The time of a mark.
    pub(crate) fn instant(&self, mark: u64) -> Instant {
        self.opened + Duration::from_micros(mark.saturating_sub(1))
    }

    /// Bytes came in.
    pub(crate) fn bytes_in(&self) {
        if self.last_in.load(Relaxed) == 0 || self.suspended.load(Relaxed) {
            self.suspended.store(false, Relaxed);
            self.comes_nearer();
        }
        self.last_in.store(self.now(), Relaxed);
    }

    /// A deadline may be earlier than it was. Said after the mark is set, which is not always in the task that asks.
    fn comes_nearer(&self) {
        self.earlier.store(true, Release);
    }

    /// The limits are others.
    pub(crate) fn changed(&self) {
        self.comes_nearer();
    }

    /// The transport took bytes, after it had refused some: what is left is a stall that begins anew.
    pub(crate) fn progress(&self) {
        let now = self.now();
        for since in [&self.stalled, &self.half_closed] {
            if since.load(Relaxed) != 0 {
                since.store(now, Relaxed);
            }
        }
    }

    /// The transport takes no more bytes.
    pub(crate) fn stalls(&self) {
        if self.stalled.load(Relaxed) == 0 {
            self.stalled.store(self.now(), Relaxed);
            self.comes_nearer();
        }
    }

    /// Everything has been written.
    pub(crate) fn drained(&self) {
        if self.stalled.load(Relaxed) != 0 {
            self.stalled.store(0, Relaxed);
        }
    }

    /// The session asked for a message and there is none; `partial` says whether there is a part of one. True if a
    /// clock begins to run.
    pub(crate) fn waits(&self, partial: bool) -> bool {
        let mut starts = false;
        if !self.is_waiting() {
            starts = true;
            // without a suspension no time has passed since the last read that would be worth a look at the clock
            let last_in = self.last_in.load(Relaxed);
            let since = if last_in == 0 || self.suspended.load(Relaxed) { self.now() } else { last_in };
            self.session.store(since, Relaxed);
            // while it was suspended there was no such deadline
            if self.suspended.load(Relaxed) {
                self.suspended.store(false, Relaxed);
                self.comes_nearer();
            }
        }
        let known = self.partial.load(Relaxed);
        if partial && known == 0 {
            self.partial.store(self.last_in.load(Relaxed).max(self.session.load(Relaxed)), Relaxed);
            self.comes_nearer();
            starts = true;
        } else if !partial && known != 0 {
            // the codec took it, and it was no message
            self.partial.store(0, Relaxed);
            self.comes_nearer();
        }
        starts
    }

    /// Whether the session waits for a message.
    pub(crate) fn is_waiting(&self) -> bool {
        !matches!(self.session.load(Relaxed), 0 | HANDLES..)
    }

    /// Whether the transport takes no more bytes.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Relaxed) != 0
    }

    /// A message was handed to the session.
    pub(crate) fn handles(&self) {
        self.session.store(0, Relaxed);
        if self.partial.load(Relaxed) != 0 {
            self.partial.store(0, Relaxed);
            // the silence after it may be allowed to last less long than the message was
            self.comes_nearer();
        }
    }

    /// As [`handles`](Self::handles), with a limit to the time that the session may take.
    pub(crate) fn handles_for_limited_time(&self) {
        self.session.store(self.now() | HANDLES, Relaxed);
        self.comes_nearer();
    }

    /// The session gave up the thread.
    pub(crate) fn suspends(&self) {
        if !self.is_waiting() {
            self.suspended.store(true, Relaxed);
        }
    }

    /// The idle clock starts again: the session was told, and goes on.
    pub(crate) fn forgives_silence(&self) {
        self.session.store(self.now(), Relaxed);
        self.comes_nearer();
    }

    /// One of the sides has ended.
    pub(crate) fn half_closes(&self) {
        if self.half_closed.load(Relaxed) == 0 {
            self.half_closed.store(self.now(), Relaxed);
            if self.is_waiting() {
                self.session.store(0, Relaxed);
            }
            self.comes_nearer();
        }
    }

    /// Whether a drain that ends at `drain` waits for the peer, as its connection is too young for its first byte to be
    /// here: until [`FRESH`], or for half of the drain where that is less.
    pub(crate) fn is_fresh(&self, drain: Instant) -> bool {
        if self.silence != Silence::Stream || self.last_in.load(Relaxed) != 0 {
            return false;
        }
        let now = self.now();
        if self.first_word.load(Relaxed) == 0 {
            let half = micros(drain.saturating_duration_since(self.instant(now))) / 2;
            self.first_word.store(now.saturating_add(half).min(micros(FRESH) + 1), Relaxed);
            self.comes_nearer();
        }
        match self.first_word.load(Relaxed) {
            OVER => false,
            until => now < until,
        }
    }

    /// The peer had its time for a first byte.
    pub(crate) fn ends_freshness(&self) {
        self.first_word.store(OVER, Relaxed);
    }

    /// Whether [`next`](Self::next) may be earlier than when it was last asked for. A deadline that moves on, or goes,
    /// does not count.
    pub(crate) fn take_earlier(&self) -> bool {
        // a look at the marks that comes after this sees all that were set before it was said
        self.earlier.load(Relaxed) && self.earlier.swap(false, AcqRel)
    }

    /// When the transport must have taken a byte, where it takes none.
    pub(crate) fn next_write(&self, limits: &Live) -> Option<u64> {
        match self.stalled.load(Relaxed) {
            0 => None,
            mark => Some(mark.saturating_add(limits.write_stall())),
        }
    }

    /// The earliest deadline in force, and what it means.
    pub(crate) fn next(&self, limits: &Live) -> Option<(u64, CloseReason)> {
        [self.next_in(limits), self.next_out(limits)].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// As [`next`](Self::next), of those alone that watch what comes in.
    pub(crate) fn next_in(&self, limits: &Live) -> Option<(u64, CloseReason)> {
        let load = |mark: &AtomicU64| mark.load(Relaxed);
        let (session, partial, last_in) = (load(&self.session), load(&self.partial), load(&self.last_in));
        let (waiting, handling) = if session < HANDLES { (session, 0) } else { (0, session - HANDLES) };
        if waiting == 0 {
            let limit = limits.handling().filter(|_| handling != 0);
            limit.map(|limit| (handling.saturating_add(limit), CloseReason::Overrun))
        } else if partial != 0 {
            Some((partial.saturating_add(limits.message()), CloseReason::MessageTimeout))
        } else if self.silence == Silence::Allowed {
            None
        } else if last_in == 0 {
            let first_byte = waiting.saturating_add(limits.first_byte());
            match load(&self.first_word) {
                until if until != 0 && until < first_byte => Some((until, CloseReason::Drained)),
                _ => Some((first_byte, CloseReason::FirstByteTimeout)),
            }
        } else {
            let idle = if self.silence == Silence::Datagrams { limits.udp_idle() } else { limits.idle() };
            Some((waiting.max(last_in).saturating_add(idle), CloseReason::Idle))
        }
    }

    /// As [`next`](Self::next), of those alone that watch what goes out, and the end.
    pub(crate) fn next_out(&self, limits: &Live) -> Option<(u64, CloseReason)> {
        let stalled = self.next_write(limits).map(|at| (at, CloseReason::WriteStalled));
        let half_closed = match self.half_closed.load(Relaxed) {
            0 => None,
            mark => {
                let since = mark.max(self.last_in.load(Relaxed));
                Some((since.saturating_add(limits.half_close()), CloseReason::HalfCloseTimeout))
            }
        };
        [stalled, half_closed].into_iter().flatten().min_by_key(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::limits::Limits;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> Arc<Live> {
        let limits = Limits::edge()
            .with_first_byte(5 * SECOND)
            .with_message(3 * SECOND)
            .with_idle(10 * SECOND)
            .with_write_stall(4 * SECOND)
            .with_half_close(2 * SECOND);
        Live::new(limits)
    }

    fn next(clock: &Deadlines) -> Option<(u64, CloseReason)> {
        clock.next(&limits()).map(|(at, reason)| ((clock.instant(at) - clock.opened()).as_secs(), reason))
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_do_not_extend_a_message_and_sending_does_not_extend_idle() {
        let clock = Deadlines::new(Instant::now(), Silence::Stream);
        assert_eq!(next(&clock), None);
        clock.waits(false);
        assert_eq!(next(&clock), Some((5, CloseReason::FirstByteTimeout)));

        tokio::time::advance(SECOND).await;
        clock.bytes_in();
        clock.waits(true);
        assert_eq!(next(&clock), Some((4, CloseReason::MessageTimeout)));
        tokio::time::advance(SECOND).await;
        clock.bytes_in();
        clock.waits(true);
        assert_eq!(next(&clock), Some((4, CloseReason::MessageTimeout)));

        clock.handles();
        assert_eq!(next(&clock), None, "no clock runs while a message is handled");
        clock.waits(false);
        assert_eq!(next(&clock), Some((12, CloseReason::Idle)));
        tokio::time::advance(SECOND).await;
        clock.progress();
        clock.waits(false);
        assert_eq!(next(&clock), Some((12, CloseReason::Idle)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_a_handler_takes_is_not_the_peers() {
        let clock = Deadlines::new(Instant::now(), Silence::Stream);
        clock.bytes_in();
        clock.handles();
        clock.suspends();
        tokio::time::advance(20 * SECOND).await;
        clock.waits(false);
        assert_eq!(next(&clock), Some((30, CloseReason::Idle)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_has_its_time_only_where_that_is_limited() {
        let clock = Deadlines::new(Instant::now(), Silence::Stream);
        clock.bytes_in();
        clock.handles();
        clock.handles_for_limited_time();
        assert_eq!(next(&clock), None, "there was a limit, and is none any more");
        let limited = Live::new(Limits::edge().with_handling(Some(3 * SECOND)));
        let due = |clock: &Deadlines| clock.next(&limited).map(|(at, why)| ((clock.instant(at) - clock.opened), why));
        assert_eq!(due(&clock), Some((3 * SECOND, CloseReason::Overrun)));
        clock.waits(false);
        assert_eq!(due(&clock), Some((60 * SECOND, CloseReason::Idle)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_is_without_progress() {
        let clock = Deadlines::new(Instant::now(), Silence::Stream);
        clock.stalls();
        assert_eq!(next(&clock), Some((4, CloseReason::WriteStalled)));
        tokio::time::advance(3 * SECOND).await;
        clock.stalls();
        assert_eq!(next(&clock), Some((4, CloseReason::WriteStalled)));
        clock.progress();
        assert_eq!(next(&clock), Some((7, CloseReason::WriteStalled)));
        clock.drained();
        assert_eq!(next(&clock), None);
    }

    #[tokio::test(start_paused = true)]
    async fn half_closed_is_since_the_last_progress() {
        let clock = Deadlines::new(Instant::now(), Silence::Allowed);
        clock.half_closes();
        assert_eq!(next(&clock), Some((2, CloseReason::HalfCloseTimeout)));
        tokio::time::advance(SECOND).await;
        clock.progress();
        assert_eq!(next(&clock), Some((3, CloseReason::HalfCloseTimeout)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_a_second_for_a_first_byte_or_half_of_its_time() {
        let clock = Deadlines::new(Instant::now(), Silence::Stream);
        tokio::time::advance(SECOND / 10).await;
        clock.waits(false);
        assert!(clock.is_fresh(Instant::now() + 5 * SECOND));
        assert_eq!(next(&clock), Some((1, CloseReason::Drained)));
        tokio::time::advance(SECOND * 8 / 10).await;
        assert!(clock.is_fresh(Instant::now() + 5 * SECOND));
        tokio::time::advance(SECOND / 10).await;
        assert!(!clock.is_fresh(Instant::now() + 5 * SECOND), "it counts from the opening");
        clock.ends_freshness();
        assert_eq!(next(&clock), Some((5, CloseReason::FirstByteTimeout)));

        let hurried = Deadlines::new(Instant::now(), Silence::Stream);
        let drain = Instant::now() + SECOND / 2;
        assert!(hurried.is_fresh(drain));
        tokio::time::advance(SECOND / 4).await;
        assert!(!hurried.is_fresh(drain));

        let spoken = Deadlines::new(Instant::now(), Silence::Stream);
        spoken.bytes_in();
        assert!(!spoken.is_fresh(Instant::now() + SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clients_peer_may_be_silent() {
        let clock = Deadlines::new(Instant::now(), Silence::Allowed);
        clock.waits(false);
        assert_eq!(next(&clock), None);
        clock.bytes_in();
        clock.waits(true);
        assert_eq!(next(&clock), Some((3, CloseReason::MessageTimeout)));
    }
}
