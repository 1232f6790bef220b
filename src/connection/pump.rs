//! Writes what is left in the outbox of a connection that no task of ours drives: one that a client made.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::closed::CloseReason;
use super::core::Remainder;
use super::driver::LINGER;
use super::outlet::Outlet;

/// Starts a task that ends when the outbox is empty, or the connection is.
pub(crate) fn start(outlet: Arc<dyn Outlet>) {
    if let Some(runtime) = outlet.core().runtime().cloned() {
        runtime.spawn(async move { run(&outlet, false).await });
    }
}

/// As [`start`], then ends the connection in order: its owner has gone. What the peer still sends goes to `remainder`.
pub(crate) fn start_last(outlet: Arc<dyn Outlet>, mut remainder: Box<dyn Remainder>) {
    let Some(runtime) = outlet.core().runtime().cloned() else { return };
    runtime.spawn(async move {
        run(&outlet, true).await;
        if !outlet.core().is_broken() {
            // to close before the peer's end would throw away what it has not read yet
            let linger = Duration::from_micros(outlet.core().limits.half_close()).min(LINGER);
            let _ = tokio::time::timeout(linger, poll_fn(|cx| remainder.poll_discard(cx))).await;
        }
        finish(&*outlet);
    });
}

/// Lets go of the transport, and says so.
pub(crate) fn finish(outlet: &dyn Outlet) {
    let core = outlet.core();
    outlet.release(core.is_broken());
    core.close(core.sum_up(outlet.totals()));
}

/// Writes until the outbox is empty, and, where this is the last of it, our end; a peer that takes nothing in time is cut.
async fn run(outlet: &Arc<dyn Outlet>, last: bool) {
    let core = outlet.core();
    let mut timer = pin!(tokio::time::sleep(Duration::from_micros(core.limits.write_stall())));
    let mut changes = pin!(core.room().notified());
    poll_fn(|cx| {
        loop {
            if core.is_broken() || (if last { outlet.poll_shutdown(cx) } else { outlet.poll_flush(cx) }).is_ready() {
                return Poll::Ready(());
            }
            if changes.as_mut().poll(cx).is_ready() {
                changes.set(core.room().notified());
                continue;
            }
            let Some(deadline) = core.deadlines.next_write(&core.limits) else { return Poll::Pending };
            let deadline = core.deadlines.instant(deadline);
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            core.break_off(CloseReason::WriteStalled);
        }
    })
    .await;
}
