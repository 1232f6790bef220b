//! A connection's task that others may poll where they are, instead of waking it: whoever has just brought it a message.
//!
//! The task is a task as any other, and its own waker is the only one that its session ever sees. So a session that waits
//! for something else goes on by itself, in its own task.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, fence};
use std::sync::{Arc, OnceLock, TryLockError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::core::{caught, discard};
use crate::limits::micros;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// A poll that takes longer than this is nothing to hold others up for.
const SLOW: Duration = Duration::from_micros(100);
/// A session that was slow is left to its own task for so many times as long, within these bounds.
const PENALTY: u32 = 100;
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(10);

/// A task's future, until it is through.
type Slot = Option<Pin<Box<dyn Future<Output = ()> + Send>>>;

/// Where the future of a task is, for whoever may poll it.
pub(crate) struct Place {
    /// The task's.
    waker: OnceLock<Waker>,
    /// The task was polled while somebody else was at it.
    missed: AtomicBool,
    made: Instant,
    /// Until when it is left to its own task: microseconds since it was made.
    slow_until: AtomicU64,
    future: Mutex<Slot>,
}

/// What came of a poll by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Polled {
    /// It was polled, until then.
    Here(Instant),
    /// Its task was woken.
    Woken,
}

/// The future of a task that can be polled elsewhere as well. When the task is dropped, so is what it was made of.
pub(crate) struct Resident(Arc<Place>);

/// A task's future, and where to find it while that task lives.
pub(crate) fn lodge(future: impl Future<Output = ()> + Send + 'static) -> (Weak<Place>, Resident) {
    let place = Arc::new(Place {
        waker: OnceLock::new(),
        missed: AtomicBool::new(false),
        made: Instant::now(),
        slow_until: AtomicU64::new(0),
        future: Mutex::new(Some(Box::pin(future))),
    });
    (Arc::downgrade(&place), Resident(place))
}

impl Place {
    fn try_lock(&self) -> Option<MutexGuard<'_, Slot>> {
        match self.future.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Polls the task's future here and now, if it is the task's own waker that it waits with; else that is woken. As the
    /// task is, if the future is somewhere else, or has lately been slow.
    pub(crate) fn poll(&self, waits_with: &Waker, now: Instant) -> Polled {
        let Some(own) = self.waker.get().filter(|own| own.will_wake(waits_with)) else {
            waits_with.wake_by_ref();
            return Polled::Woken;
        };
        let slow = micros(now.saturating_duration_since(self.made)) < self.slow_until.load(Ordering::Relaxed);
        let Some(mut guard) = self.try_lock().filter(|_| !slow) else {
            own.wake_by_ref();
            return Polled::Woken;
        };
        let Some(future) = guard.as_mut() else { return Polled::Woken };
        // it has its share of the budget of whoever polls it, and where that is spent it goes on in its task
        let polled = caught(|| pin!(future).poll(&mut Context::from_waker(own)));
        // a panic is not the session's, which catches its own; it must not be that of all others either
        let gone = if matches!(polled, Ok(Poll::Pending)) { None } else { guard.take() };
        drop(guard);
        if gone.is_some() {
            discard(gone);
            own.wake_by_ref();
        }
        // either we see that the task was there, or it sees that we have gone
        fence(Ordering::SeqCst);
        if self.missed.load(Ordering::Relaxed) && self.missed.swap(false, Ordering::Relaxed) {
            own.wake_by_ref();
        }
        let end = Instant::now();
        self.took(now, end);
        Polled::Here(end)
    }

    /// Remembers how long a poll took.
    fn took(&self, began: Instant, end: Instant) {
        let took = end.saturating_duration_since(began);
        if took > SLOW {
            let penalty = took.saturating_mul(PENALTY).clamp(SHORTEST, LONGEST);
            let until = micros(end.saturating_duration_since(self.made)).saturating_add(micros(penalty));
            self.slow_until.store(until, Ordering::Relaxed);
        }
    }
}

impl Future for Resident {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let place = &*self.0;
        let _ = place.waker.get_or_init(|| cx.waker().clone());
        let mut guard = match place.try_lock() {
            Some(guard) => guard,
            None => {
                place.missed.store(true, Ordering::Relaxed);
                fence(Ordering::SeqCst);
                match place.try_lock() {
                    Some(guard) => guard,
                    None => return Poll::Pending,
                }
            }
        };
        let Some(future) = guard.as_mut() else { return Poll::Ready(()) };
        let began = Instant::now();
        let poll = future.as_mut().poll(cx);
        let gone = if poll.is_ready() { guard.take() } else { None };
        drop(guard);
        drop(gone);
        place.took(began, Instant::now());
        poll
    }
}

#[cfg(test)]
#[cfg(not(hythe_model))]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures::task::AtomicWaker;

    use super::*;

    /// Counts its polls, and waits for whoever has its waker.
    struct Waits {
        polls: Arc<AtomicUsize>,
        reader: Arc<AtomicWaker>,
        ends_at: usize,
        takes: Duration,
    }

    impl Future for Waits {
        type Output = ();

        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            self.reader.register(cx.waker());
            std::thread::sleep(self.takes);
            match self.polls.fetch_add(1, Ordering::SeqCst) + 1 {
                polls if polls == self.ends_at => Poll::Ready(()),
                usize::MAX => panic!(),
                _ => Poll::Pending,
            }
        }
    }

    struct Test {
        polls: Arc<AtomicUsize>,
        reader: Arc<AtomicWaker>,
        place: Weak<Place>,
        task: tokio::task::JoinHandle<()>,
    }

    async fn test(ends_at: usize, takes: Duration) -> Test {
        let (polls, reader): (Arc<AtomicUsize>, Arc<AtomicWaker>) = Default::default();
        let (place, resident) = lodge(Waits { polls: Arc::clone(&polls), reader: Arc::clone(&reader), ends_at, takes });
        let test = Test { polls, reader, place, task: tokio::spawn(resident) };
        while test.polls.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        test
    }

    impl Test {
        fn poll(&self) -> Polled {
            let waker = self.reader.take().unwrap();
            self.place.upgrade().unwrap().poll(&waker, Instant::now())
        }
    }

    #[tokio::test]
    async fn it_is_polled_in_place_and_its_task_ends_when_it_is_through() {
        // on a machine that is busy a poll may take long enough to be thought slow, but not each
        for _ in 0..1000 {
            let test = test(3, Duration::ZERO).await;
            if !matches!(test.poll(), Polled::Here(_)) || !matches!(test.poll(), Polled::Here(_)) {
                test.task.abort();
                continue;
            }
            assert_eq!(test.polls.load(Ordering::SeqCst), 3);
            test.task.await.unwrap();
            assert!(test.place.upgrade().is_none());
            return;
        }
        panic!("it was never polled in place");
    }

    #[tokio::test]
    async fn who_waits_with_another_waker_is_woken() {
        let test = test(2, Duration::ZERO).await;
        let waker = futures::task::noop_waker();
        assert_eq!(test.place.upgrade().unwrap().poll(&waker, Instant::now()), Polled::Woken);
        assert_eq!(test.polls.load(Ordering::SeqCst), 1);
        test.task.abort();
    }

    #[tokio::test]
    async fn who_was_slow_is_left_to_its_own_task() {
        let test = test(2, Duration::from_millis(20)).await;
        assert_eq!(test.poll(), Polled::Woken);
        test.task.await.unwrap();
    }

    #[tokio::test]
    async fn a_task_that_is_dropped_drops_its_future() {
        let test = test(usize::MAX, Duration::ZERO).await;
        test.task.abort();
        assert!(test.task.await.unwrap_err().is_cancelled());
        assert!(test.place.upgrade().is_none());
        assert_eq!(Arc::strong_count(&test.polls), 1);
    }

    #[test]
    fn a_wake_while_another_polls_is_not_lost() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        for _ in 0..2000 {
            runtime.block_on(async {
                let test = test(usize::MAX, Duration::ZERO).await;
                let waker = test.reader.take().unwrap();
                // one poll is in its task, one is here, in either order, or the task comes while we are at it
                waker.wake_by_ref();
                let before = test.polls.load(Ordering::SeqCst);
                let polled = test.place.upgrade().unwrap().poll(&waker, Instant::now());
                // two wakes may be one poll, as everywhere, if none has come in between
                let wanted = if matches!(polled, Polled::Here(_)) { 3 } else { before + 1 };
                let enough = async {
                    while test.polls.load(Ordering::SeqCst) < wanted {
                        tokio::task::yield_now().await;
                    }
                };
                let enough = tokio::time::timeout(Duration::from_secs(20), enough).await;
                enough.unwrap_or_else(|_| panic!("a wake was lost"));
                test.task.abort();
            });
        }
    }
}
