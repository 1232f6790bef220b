//! What the models need: thread locals with std's methods, and how many orders are tried.
//!
//! A model's threads are shuttle's. What they share goes through [`Mutex`](super::Mutex) and [`atomic`](super::atomic),
//! and before each step there another thread may go on. [`AtomicWaker`] and [`Notify`] are one step as a whole, though they
//! are more inside: that is for futures' and tokio's own models. std's `OnceLock` and `RwLock` and the clocks are part of
//! the step in which they are used. What weaker orderings of atomics allow is not tried.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, LazyLock, PoisonError};
use std::task::Waker;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::thread::LocalKey;
use shuttle::{Config, Runner};
use tokio::sync::futures::Notified;

use super::atomic::{AtomicBool, Ordering};

/// As the real one, of both kinds of mutex: where one of std's is held, no thread may take a step that others can come
/// before.
pub(crate) fn lock<M: Lock>(mutex: &M) -> M::Guard<'_> {
    mutex.take()
}

pub(crate) trait Lock {
    type Guard<'a>
    where
        Self: 'a;

    fn take(&self) -> Self::Guard<'_>;
}

impl<T> Lock for shuttle::sync::Mutex<T> {
    type Guard<'a>
        = shuttle::sync::MutexGuard<'a, T>
    where
        T: 'a;

    fn take(&self) -> Self::Guard<'_> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Lock for std::sync::Mutex<T> {
    type Guard<'a>
        = std::sync::MutexGuard<'a, T>
    where
        T: 'a;

    fn take(&self) -> Self::Guard<'_> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Lock> Lock for Arc<M> {
    type Guard<'a>
        = M::Guard<'a>
    where
        Self: 'a;

    fn take(&self) -> Self::Guard<'_> {
        M::take(self)
    }
}

impl<M: Lock> Lock for LazyLock<M> {
    type Guard<'a>
        = M::Guard<'a>
    where
        Self: 'a;

    fn take(&self) -> Self::Guard<'_> {
        M::take(self)
    }
}

/// That of futures, with a step before each call.
#[derive(Debug, Default)]
pub(crate) struct AtomicWaker {
    waker: futures::task::AtomicWaker,
    step: Step,
}

impl AtomicWaker {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn register(&self, waker: &Waker) {
        self.step.take();
        self.waker.register(waker);
    }

    pub(crate) fn wake(&self) {
        self.step.take();
        self.waker.wake();
    }
}

/// That of tokio, with a step before each call.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    notify: tokio::sync::Notify,
    step: Step,
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn notified(&self) -> Notified<'_> {
        self.step.take();
        self.notify.notified()
    }

    pub(crate) fn notify_waiters(&self) {
        self.step.take();
        self.notify.notify_waiters();
    }
}

#[derive(Debug, Default)]
struct Step(AtomicBool);

impl Step {
    fn take(&self) {
        self.0.load(Ordering::Relaxed);
    }
}

/// Declares thread locals as std's macro does.
macro_rules! thread_locals {
    ($($(#[$attr:meta])* static $name:ident: $type:ty = const { $value:expr };)*) => {$(
        $(#[$attr])*
        static $name: $crate::sync::model::Local<$type> = {
            ::shuttle::thread_local! { static KEY: $type = const { $value } }
            $crate::sync::model::Local::new(&KEY)
        };
    )*};
}
pub(crate) use thread_locals as thread_local;

/// A thread local with those of std's methods that are used here.
pub(crate) struct Local<T: 'static>(&'static LocalKey<T>);

impl<T> Local<T> {
    pub(crate) const fn new(key: &'static LocalKey<T>) -> Self {
        Self(key)
    }

    pub(crate) fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        self.0.with(f)
    }
}

impl<T> Local<Cell<T>> {
    pub(crate) fn get(&'static self) -> T
    where
        T: Copy,
    {
        self.with(Cell::get)
    }

    pub(crate) fn set(&'static self, value: T) {
        self.with(|cell| cell.set(value));
    }

    pub(crate) fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T> Local<RefCell<T>> {
    pub(crate) fn with_borrow<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        self.with(|cell| f(&cell.borrow()))
    }

    pub(crate) fn with_borrow_mut<R>(&'static self, f: impl FnOnce(&mut T) -> R) -> R {
        self.with(|cell| f(&mut cell.borrow_mut()))
    }

    pub(crate) fn set(&'static self, value: T) {
        self.with(|cell| cell.replace(value));
    }

    pub(crate) fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(RefCell::take)
    }
}

/// Tries `model` in `times` orders picked at random, and in as many with few switches between threads, each at a point
/// picked at random ("A Randomized Scheduler with Probabilistic Guarantees of Finding Bugs", ASPLOS 2010). What is
/// picked is the same in each run.
pub(crate) fn check(times: usize, model: impl Fn() + Send + Sync + Clone + 'static) {
    const SEED: u64 = 0x6879_7468_65;
    const SWITCHES: usize = 3;
    let mut config = Config::new();
    config.stack_size = 512 << 10;
    // for what looks at a clock; time stands still
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let _context = runtime.enter();
    Runner::new(RandomScheduler::new_from_seed(SEED, times), config.clone()).run(model.clone());
    Runner::new(PctScheduler::new_from_seed(SEED, SWITCHES, times), config).run(model);
}
