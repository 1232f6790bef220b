//! Locks, atomics, thread locals and tasks of whatever is used by several threads at once.
//!
//! They are std's, tokio's and futures'. Under `--cfg hythe_model` they are shuttle's, which tries out the orders in which
//! threads may take their steps: `.ci/models` runs the tests that are made for it.

#[cfg(all(test, hythe_model))]
pub(crate) mod model;

#[cfg(not(all(test, hythe_model)))]
pub(crate) use futures::task::AtomicWaker;
#[cfg(not(all(test, hythe_model)))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};
#[cfg(not(all(test, hythe_model)))]
pub(crate) use std::thread_local;
#[cfg(not(all(test, hythe_model)))]
pub(crate) use tokio::{spawn, sync::Notify};

#[cfg(all(test, hythe_model))]
pub(crate) use model::{AtomicWaker, Notify, thread_local};
#[cfg(all(test, hythe_model))]
pub(crate) use shuttle::future::spawn;
#[cfg(all(test, hythe_model))]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, atomic};

#[cfg(all(test, hythe_model))]
pub(crate) use model::lock;

/// A lock that a panic elsewhere does not spoil: what it guards is valid at every step.
#[cfg(not(all(test, hythe_model)))]
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
