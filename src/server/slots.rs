//! How many connections are open: exactly, over all listeners.

use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::workers::Taken;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Mutex, lock};

pub(crate) struct Slots {
    limit: AtomicUsize,
    used: AtomicUsize,
    /// Listeners that wait for a slot; there are few.
    waiting: Mutex<Vec<Waker>>,
}

impl Slots {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: AtomicUsize::new(limit), used: AtomicUsize::new(0), waiting: Mutex::new(Vec::new()) })
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Those above a lower limit stay.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Release);
        self.wake();
    }

    pub(crate) fn try_take(self: &Arc<Self>) -> Option<Slot> {
        let take = |used: usize| (used < self.limit.load(Ordering::Acquire)).then_some(used + 1);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).ok()?;
        Some(Slot { slots: Some(Arc::clone(self)), place: None })
    }

    /// Takes a slot, to be given back by dropping it.
    pub(crate) fn poll_take(self: &Arc<Self>, cx: &Context<'_>) -> Poll<Slot> {
        if let Some(slot) = self.try_take() {
            return Poll::Ready(slot);
        }
        self.watch(cx);
        // one may have come free in between
        self.try_take().map_or(Poll::Pending, Poll::Ready)
    }

    /// Gives a slot back that was [kept](Slot::keep).
    pub(crate) fn give(&self) {
        self.used.fetch_sub(1, Ordering::AcqRel);
        self.wake();
    }

    fn wake(&self) {
        let waiting = mem::take(&mut *lock(&self.waiting));
        for waker in waiting {
            waker.wake();
        }
    }

    /// Wakes the task when a slot comes free.
    pub(crate) fn watch(&self, cx: &Context<'_>) {
        let mut waiting = lock(&self.waiting);
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
    }
}

/// One open connection.
pub(crate) struct Slot {
    slots: Option<Arc<Slots>>,
    /// Where it lives.
    place: Option<Taken>,
}

impl Slot {
    /// The connection lives at a worker's.
    pub(crate) fn at(mut self, place: Taken) -> Self {
        self.place = Some(place);
        self
    }

    /// Somebody else gives it back, by [`Slots::give`], and holds the place.
    pub(crate) fn keep(mut self) -> Option<Taken> {
        self.slots = None;
        self.place.take()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(slots) = self.slots.take() {
            slots.give();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_the_limit_and_all_come_back() {
        let slots = Slots::new(2);
        let cx = Context::from_waker(Waker::noop());
        let first = slots.try_take().unwrap();
        let second = slots.try_take().unwrap();
        assert!(slots.poll_take(&cx).is_pending());
        assert_eq!(slots.used(), 2);
        drop(first);
        assert!(slots.poll_take(&cx).is_ready());
        drop(second);
        assert_eq!(slots.used(), 0);
    }

    #[test]
    fn a_lower_limit_throws_nobody_out_and_a_higher_one_wakes_those_who_wait() {
        let slots = Slots::new(2);
        let held = [slots.try_take().unwrap(), slots.try_take().unwrap()];
        slots.set_limit(1);
        let [first, _second] = held;
        drop(first);
        assert!(slots.try_take().is_none(), "one is still there");
        let (waker, count) = counting_waker();
        assert!(slots.poll_take(&Context::from_waker(&waker)).is_pending());
        slots.set_limit(2);
        assert_eq!(count.load(Ordering::SeqCst), 1);
        assert!(slots.try_take().is_some());
    }

    fn counting_waker() -> (Waker, Arc<AtomicUsize>) {
        struct Count(Arc<AtomicUsize>);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let count = Arc::new(AtomicUsize::new(0));
        (Arc::new(Count(Arc::clone(&count))).into(), count)
    }
}
