//! Waits that fail with a message, under a clock that does not pass by itself.

use std::collections::HashMap;
use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::{Instant, sleep, timeout};

use crate::sync::{Mutex, lock};

/// Where in a test something was asked for.
pub(super) type Place = &'static Location<'static>;

/// More of the paused clock's time than any deadline is long.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// More of our own time than any wait takes; under a clock that stands still while a task spins.
const REAL_PATIENCE: Duration = Duration::from_secs(60);

/// Lets everything run that can run. The clock moves on by a millisecond.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # use std::sync::{Arc, atomic::{AtomicBool, Ordering}};
/// # tokio::time::pause();
/// let done = Arc::new(AtomicBool::new(false));
/// let flag = Arc::clone(&done);
/// tokio::spawn(async move { flag.store(true, Ordering::Relaxed) });
/// hythe::testing::settle().await;
/// assert!(done.load(Ordering::Relaxed));
/// # }
/// ```
pub async fn settle() {
    // a paused clock moves only when nobody can do anything without it
    sleep(Duration::from_millis(1)).await;
}

/// Pauses the clock, if it is not paused yet.
pub(super) fn pause_clock(place: Place) {
    let runtime = Handle::try_current();
    if !runtime.is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::CurrentThread) {
        panic!("{place}: hythe::testing needs tokio's single-threaded runtime, as #[tokio::test] makes it");
    }
    let (before, since) = (Instant::now(), std::time::Instant::now());
    while since.elapsed() < Duration::from_micros(5) {
        std::hint::spin_loop();
    }
    if Instant::now() != before {
        tokio::time::pause();
    }
}

/// Waits for `future`. Where that takes too long, the test fails with what did not come and what is known instead.
pub(super) async fn patiently<T>(
    place: Place,
    what: impl Display,
    known: impl Fn() -> String,
    future: impl Future<Output = T>,
) -> T {
    let result = wait(future, REAL_PATIENCE).await;
    result.unwrap_or_else(|when| panic!("{place}: {what} did not come {when}; {}", known()))
}

/// Waits for `future`, or tells for how long that was.
async fn wait<T>(future: impl Future<Output = T>, real: Duration) -> Result<T, String> {
    let since = std::time::Instant::now();
    let alarm = Alarm::new();
    let mut future = pin!(timeout(PATIENCE, future));
    let result = poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(result.map_err(|_| "within a day of the paused clock".to_owned())),
        Poll::Pending if since.elapsed() > real => Poll::Ready(Err(format!(
            "within {real:?} of real time, in which the paused clock hardly moved: does some task spin, or wait \
             for the world outside?"
        ))),
        Poll::Pending => {
            alarm.set(cx.waker());
            Poll::Pending
        }
    });
    result.await
}

/// Wakes whoever waits, every second of real time: a clock that stands still wakes nobody.
struct Alarm(u64);

static WAITING: LazyLock<Mutex<(u64, HashMap<u64, Waker>)>> = LazyLock::new(|| {
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let wakers: Vec<_> = lock(&WAITING).1.values().cloned().collect();
            wakers.into_iter().for_each(Waker::wake);
        }
    });
    Mutex::default()
});

impl Alarm {
    fn new() -> Self {
        let mut waiting = lock(&WAITING);
        waiting.0 += 1;
        Self(waiting.0)
    }

    fn set(&self, waker: &Waker) {
        let replaced = lock(&WAITING).1.insert(self.0, waker.clone());
        drop(replaced);
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let waker = lock(&WAITING).1.remove(&self.0);
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_stands_still_is_noticed() {
        let spins = tokio::spawn(async {
            loop {
                tokio::task::yield_now().await;
            }
        });
        let never = std::future::pending::<()>();
        let when = wait(never, Duration::from_millis(100)).await.expect_err("it never comes");
        assert!(when.starts_with("within 100ms of real time"), "{when}");
        spins.abort();
        let _ = spins.await;
        let when = wait(std::future::pending::<()>(), REAL_PATIENCE).await.expect_err("it never comes");
        assert_eq!(when, "within a day of the paused clock");
        assert_eq!(lock(&WAITING).1.len(), 0);
    }
}
