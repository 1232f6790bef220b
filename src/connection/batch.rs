//! Which outboxes the current thread has put messages into and not written yet.
//!
//! A connection's task opens a scope around each poll of its session. Messages to other connections are only appended
//! while it is open; when the session waits, each of those outboxes is written once, straight to its socket: a fan-out
//! costs no wake-up, and a burst of messages to one member one write.

use std::cell::{Cell, RefCell};
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::outbox::Outlet;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static DIRTY: RefCell<Vec<Arc<dyn Outlet>>> = const { RefCell::new(Vec::new()) };
    /// The connection whose task is being polled, as the address of its core.
    static DRIVEN: Cell<usize> = const { Cell::new(0) };
}

/// Runs `poll` as the task of the connection that `driven` names; the outboxes it filled are written afterwards.
pub(crate) fn driving<R>(driven: usize, poll: impl FnOnce() -> R) -> R {
    let outer = DRIVEN.replace(driven);
    let _restore = Restore(outer);
    scope(poll)
}

/// Whether the current thread polls the task of this connection.
pub(crate) fn is_driving(driven: usize) -> bool {
    DRIVEN.get() == driven
}

struct Restore(usize);

impl Drop for Restore {
    fn drop(&mut self) {
        DRIVEN.set(self.0);
    }
}

/// Runs `f`; what it sends on connections of this process is written at its end, a write for each connection.
///
/// Inside a session this happens by itself, whenever the session waits. Elsewhere, such as in a game's tick, each
/// [`Sender::push`](crate::Sender::push) and each [`Group::send`](crate::Group::send) writes for itself; in a batch
/// they wait for its end.
///
/// ```
/// # use hythe::{Bytes, Group};
/// fn tick(players: &Group<Bytes>, events: Vec<Bytes>) {
///     hythe::batch(|| {
///         for event in events {
///             players.send(event);
///         }
///     });
/// }
/// ```
pub fn batch<R>(f: impl FnOnce() -> R) -> R {
    scope(f)
}

fn scope<R>(f: impl FnOnce() -> R) -> R {
    DEPTH.set(DEPTH.get() + 1);
    let _flush = Flush;
    f()
}

/// On the way out, also by a panic: what the others got is theirs.
struct Flush;

impl Drop for Flush {
    fn drop(&mut self) {
        let depth = DEPTH.get() - 1;
        DEPTH.set(depth);
        if depth == 0 {
            flush_dirty();
        }
    }
}

fn flush_dirty() {
    // taken out, as a write may end a connection, and that may send again
    let mut dirty = DIRTY.with_borrow_mut(mem::take);
    for outlet in dirty.drain(..) {
        unlimited(|| outlet.flush_for_owner());
    }
    DIRTY.with_borrow_mut(|list| {
        if list.is_empty() {
            *list = dirty;
        }
    });
}

/// Has `outlet` written when the scope ends, or at once where there is none.
pub(crate) fn add(outlet: Arc<dyn Outlet>) {
    if DEPTH.get() > 0 {
        DIRTY.with_borrow_mut(|list| list.push(outlet));
    } else {
        unlimited(|| outlet.flush_for_owner());
    }
}

/// Writes to other connections are not held up by the current task's share of tokio's cooperative budget.
fn unlimited(f: impl FnOnce()) {
    let mut f = Some(f);
    let run = std::future::poll_fn(move |_| {
        if let Some(f) = f.take() {
            f();
        }
        Poll::Ready(())
    });
    let mut run = std::pin::pin!(tokio::task::unconstrained(run));
    let _ = run.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop()));
}
