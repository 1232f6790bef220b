//! One worker's thread: its runtime, from the first to the last.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Weak;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::crew::Member;
use super::pin;
use crate::server::hub::Hub;
use crate::server::running::LAST_WORDS;

/// Blocking tasks that handlers have begun get so long to end when the worker does.
const BLOCKING: Duration = Duration::from_millis(250);
/// Between two tries to build a runtime in place of another.
const PAUSE: Duration = Duration::from_millis(100);

/// What all workers are to do.
pub(super) enum Orders {
    Stay,
    /// To leave when the hub has no connections any more, or in a moment.
    LeaveAfter(Weak<Hub>),
    Leave,
}

/// Works until it is told to leave. First it tells whether it can.
pub(super) fn work(
    number: usize,
    pinned: bool,
    member: &Member,
    mut orders: watch::Receiver<Orders>,
    ready: oneshot::Sender<io::Result<()>>,
) {
    let place = if pinned { pin::current(number) } else { None };
    let build = || {
        let place = place.clone();
        Builder::new_current_thread()
            .enable_all()
            .thread_name(format!("hythe-worker-{number}-blocking"))
            .on_thread_start(move || {
                // those for blocking calls, which may be many, are not pinned
                if let Some(place) = &place {
                    place.leave();
                }
            })
            .build()
    };
    let mut runtime = match build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(error))),
    };
    member.arrives(runtime.handle());
    if ready.send(Ok(())).is_err() {
        return;
    }
    loop {
        let worked = catch_unwind(AssertUnwindSafe(|| runtime.block_on(until_told(&mut orders))));
        let Err(panic) = worked else { break };
        member.departs();
        tracing::error!(worker = number, panic = said(&*panic), "a worker is lost, with its connections");
        end(runtime);
        let Some(next) = replace(&build, &orders) else { return };
        runtime = next;
        let inside = runtime.enter();
        member.arrives(runtime.handle());
        member.resume_posts();
        drop(inside);
        tracing::info!(worker = number, "a worker goes on, with its listeners");
    }
    end(runtime);
}

/// Waits for the order to leave, and then for the connections.
async fn until_told(orders: &mut watch::Receiver<Orders>) {
    let told = orders.wait_for(|orders| !matches!(orders, Orders::Stay)).await;
    let hub = match told.as_deref() {
        Ok(Orders::LeaveAfter(hub)) => hub.upgrade(),
        // or whoever could have told has gone
        _ => None,
    };
    drop(told);
    if let Some(hub) = hub {
        let _ = timeout(LAST_WORDS, hub.emptied()).await;
    }
}

/// A new runtime; none, if the workers are to leave before there is one.
fn replace(build: &impl Fn() -> io::Result<Runtime>, orders: &watch::Receiver<Orders>) -> Option<Runtime> {
    loop {
        if !matches!(*orders.borrow(), Orders::Stay) {
            return None;
        }
        match build() {
            Ok(runtime) => return Some(runtime),
            Err(error) => tracing::error!(%error, "a worker finds no new runtime; it tries again"),
        }
        std::thread::sleep(PAUSE);
    }
}

/// Drops what is left of the tasks. A panic of theirs must not keep the thread from ending.
fn end(runtime: Runtime) {
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.shutdown_timeout(BLOCKING)));
    if let Err(panic) = ended {
        tracing::error!(panic = said(&*panic), "a worker's tasks panicked at their end");
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("not a text")
}
