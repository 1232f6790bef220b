//! Sessions that take too long over one message, and those that keep their thread.
//!
//! No session reads a clock for this, or writes what others read: whoever looks sees the same message, or the same poll,
//! again and again, and adds up the time in between.

use std::collections::HashMap;
use std::ptr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::connection::{ConnectionId, Core, Poll, Thread};

/// A thread that has polled one connection for so long is blocked.
const BLOCKED: Duration = Duration::from_secs(1);

/// The sessions of a server that handled a message when somebody last looked.
#[derive(Default)]
pub(crate) struct Busy(HashMap<ConnectionId, Handled>);

struct Handled {
    message: u64,
    seen_for: Duration,
    reported: bool,
}

impl Busy {
    /// Looks at the sessions, so long after the last time, and reports each message that has been handled for longer than
    /// `stall`, once.
    pub(crate) fn look(
        &mut self,
        cores: &[Arc<Core>],
        passed: Duration,
        stall: Duration,
        mut report: impl FnMut(&Core, Duration),
    ) {
        let before = std::mem::take(&mut self.0);
        for core in cores {
            let Some(message) = core.handled() else { continue };
            let mut handled = Handled { message, seen_for: Duration::ZERO, reported: false };
            if let Some(before) = before.get(&core.id).filter(|before| before.message == message) {
                handled.seen_for = before.seen_for.saturating_add(passed);
                handled.reported = before.reported;
            }
            if handled.seen_for >= stall && !handled.reported {
                handled.reported = true;
                report(core, handled.seen_for);
            }
            self.0.insert(core.id, handled);
        }
    }
}

/// What each thread did when somebody last looked.
#[derive(Default)]
pub(crate) struct Threads(Vec<Watched>);

struct Watched {
    /// Weak, so that it is seen when the thread has ended.
    thread: Weak<Thread>,
    poll: Option<Poll>,
    seen_for: Duration,
    reported: bool,
}

/// What is to be said of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blockage {
    /// It is blocked, for so long at least.
    Begins(Duration),
    /// It was, for so long at least.
    Ended(Duration),
}

impl Threads {
    /// Looks at the threads, so long after the last time.
    pub(crate) fn look(&mut self, passed: Duration, mut report: impl FnMut(ConnectionId, &Thread, Blockage)) {
        let mut watched: Vec<Watched> = Vec::new();
        for thread in Thread::all() {
            let known = self.0.iter().position(|known| ptr::eq(known.thread.as_ptr(), Arc::as_ptr(&thread)));
            let mut known = known.map_or_else(|| Watched::new(&thread), |place| self.0.swap_remove(place));
            known.look(&thread, passed, &mut report);
            watched.push(known);
        }
        self.0 = watched;
    }
}

impl Watched {
    fn new(thread: &Arc<Thread>) -> Self {
        Self { thread: Arc::downgrade(thread), poll: None, seen_for: Duration::ZERO, reported: false }
    }

    fn look(&mut self, thread: &Thread, passed: Duration, mut report: impl FnMut(ConnectionId, &Thread, Blockage)) {
        let poll = thread.poll();
        if poll == self.poll {
            self.seen_for = self.seen_for.saturating_add(passed);
        } else {
            if let (Some(before), true) = (self.poll, self.reported) {
                report(before.connection, thread, Blockage::Ended(self.seen_for));
            }
            (self.poll, self.seen_for, self.reported) = (poll, Duration::ZERO, false);
        }
        if let (Some(poll), true, false) = (poll, self.seen_for >= BLOCKED, self.reported) {
            self.reported = true;
            report(poll.connection, thread, Blockage::Begins(self.seen_for));
        }
    }
}
