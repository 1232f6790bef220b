//! The signals that ask a server to go.

#[cfg(unix)]
use std::{future::poll_fn, task::Poll};

use crate::error::Error;

#[cfg(unix)]
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// From here on the signals do not end the process by themselves.
    pub(crate) fn new() -> Result<Self, Error> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    pub(crate) async fn next(&mut self) {
        poll_fn(|cx| {
            // both are looked at, so that both wake the task
            let (interrupt, terminate) = (self.interrupt.poll_recv(cx), self.terminate.poll_recv(cx));
            if interrupt.is_ready() || terminate.is_ready() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        tracing::info!("asked to stop by a signal");
    }
}

#[cfg(not(unix))]
pub(crate) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self)
    }

    pub(crate) async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
