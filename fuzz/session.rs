//! A connection whose transport gives and takes as the fuzzer says, and whose session gives up waiting as it says.

use std::future::{Future, poll_fn};
use std::mem::discriminant;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake};

use hythe::codec::CodecError;
use hythe::{CloseReason, Connection};

/// How much, how often: a number for each step, over and over.
#[derive(Clone, Debug)]
pub struct Script {
    steps: Vec<u8>,
    at: usize,
    stalled: bool,
}

impl Script {
    pub fn new(steps: Vec<u8>) -> Self {
        Self { steps, at: 0, stalled: false }
    }

    /// The next number; `None` is "not now", and never comes twice.
    pub fn next(&mut self) -> Option<usize> {
        let Some(step) = self.steps.get(self.at) else { return Some(usize::MAX) };
        self.at = (self.at + 1) % self.steps.len();
        self.stalled = step % 8 == 0 && !self.stalled;
        (!self.stalled).then_some(usize::from(*step).max(1))
    }
}

/// What a session has seen.
#[derive(Debug)]
pub struct Told<T> {
    pub messages: Vec<T>,
    /// Of these, those that were sent back.
    pub sent: Vec<T>,
    pub end: Option<CloseReason>,
}

/// Sends back what comes, and gives up waiting again and again.
pub async fn echo<T: Clone + Send + 'static>(
    mut conn: Connection<T>,
    mut patience: Script,
    told: Arc<Mutex<Told<T>>>,
) -> anyhow::Result<()> {
    loop {
        let message = loop {
            if let Some(received) = wait(conn.recv(), &mut patience).await {
                break received;
            }
        };
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(()),
            Err(error) => {
                told.lock().unwrap().end = error.close_reason();
                return Ok(());
            }
        };
        told.lock().unwrap().messages.push(message.clone());
        loop {
            match wait(conn.send(message.clone()), &mut patience).await {
                Some(Ok(())) => told.lock().unwrap().sent.push(message),
                Some(Err(error)) => assert!(error.close_reason().is_none(), "{error}"),
                None => continue,
            }
            break;
        }
    }
}

/// Polls `future` a few times; then it is dropped.
async fn wait<F: Future>(future: F, patience: &mut Script) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut polls = patience.next().unwrap_or(1);
    poll_fn(|cx| {
        if polls == 0 {
            return Poll::Ready(None);
        }
        polls -= 1;
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

/// Runs a connection's task to its end. Whenever it waits, somebody must wake it: nothing else will happen.
pub fn run<T>(mut task: Pin<Box<dyn Future<Output = T> + Send>>) -> T {
    struct Woken(AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Relaxed);
        }
    }
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Arc::clone(&woken).into();
    loop {
        if let Poll::Ready(output) = task.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        assert!(woken.0.swap(false, Relaxed), "it waits, and nobody will wake it");
    }
}

/// Why a connection ends whose codec fails like that.
pub fn reason(error: std::mem::Discriminant<CodecError>) -> CloseReason {
    if error == discriminant(&CodecError::Truncated { have: 0, need: None }) {
        CloseReason::Truncated
    } else if error == discriminant(&CodecError::TooLong { limit: 0, seen: 0 }) {
        CloseReason::TooLarge
    } else {
        CloseReason::Protocol
    }
}
