//! Which connection each thread is polling, for whoever watches whether it ever comes to an end.

use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Arc, Mutex, Weak};

use super::core::ConnectionId;
use crate::sync::lock;

/// What one thread does. It is alone in its cache lines, as the thread writes it at each poll.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Thread {
    /// 0 is none.
    connection: AtomicU64,
    poll: AtomicU64,
    name: String,
}

/// One poll of a connection's task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Poll {
    pub(crate) connection: ConnectionId,
    /// Its number among those of its thread.
    number: u64,
}

static THREADS: Mutex<Vec<Weak<Thread>>> = Mutex::new(Vec::new());

thread_local! {
    static HERE: Arc<Thread> = Thread::new();
}

impl Thread {
    fn new() -> Arc<Self> {
        let thread = std::thread::current();
        let name = thread.name().map_or_else(|| format!("{:?}", thread.id()), str::to_owned);
        let new = Arc::new(Self { connection: AtomicU64::new(0), poll: AtomicU64::new(0), name });
        let mut threads = lock(&THREADS);
        threads.retain(|thread| thread.strong_count() > 0);
        threads.push(Arc::downgrade(&new));
        new
    }

    /// Those that have polled a connection, and live.
    pub(crate) fn all() -> Vec<Arc<Self>> {
        lock(&THREADS).iter().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The poll that is under way.
    pub(crate) fn poll(&self) -> Option<Poll> {
        let number = self.poll.load(Acquire);
        let connection = ConnectionId::from_number(self.connection.load(Acquire))?;
        // of a poll that has just begun there may be one half
        (self.poll.load(Acquire) == number).then_some(Poll { connection, number })
    }
}

/// A poll under way. At its end the thread is back at what it did before: one task may be polled inside another, by
/// somebody's `block_on`.
#[must_use]
pub(crate) struct Under {
    outer: u64,
}

/// The current thread begins to poll the task of a connection.
#[inline]
pub(crate) fn begin(connection: ConnectionId) -> Under {
    // a thread that is about to end is not looked at any more
    let outer = HERE.try_with(|thread| {
        let outer = thread.connection.load(Relaxed);
        thread.poll.store(thread.poll.load(Relaxed).wrapping_add(1), Release);
        thread.connection.store(connection.number(), Release);
        outer
    });
    Under { outer: outer.unwrap_or(0) }
}

impl Drop for Under {
    #[inline]
    fn drop(&mut self) {
        let _ = HERE.try_with(|thread| thread.connection.store(self.outer, Release));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Option<Poll> {
        HERE.with(|thread| thread.poll())
    }

    #[test]
    fn each_poll_is_another_and_an_inner_one_gives_way_to_the_outer() {
        let (first, second) = (ConnectionId::from_number(1).unwrap(), ConnectionId::from_number(2).unwrap());
        assert_eq!(here(), None);
        let outer = begin(first);
        let seen = here().unwrap();
        assert_eq!(seen.connection, first);
        let inner = begin(second);
        assert_eq!(here().unwrap().connection, second);
        drop(inner);
        assert_eq!(here().unwrap().connection, first);
        drop(outer);
        assert_eq!(here(), None);
        let again = begin(first);
        assert_ne!(here().unwrap(), seen);
        drop(again);
        let name = std::thread::current().name().map(str::to_owned);
        assert!(Thread::all().iter().any(|thread| Some(thread.name().to_owned()) == name));
    }
}
