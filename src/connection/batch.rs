//! What the current thread has been given to send and has not written yet.
//!
//! A connection's task opens a scope around each of its polls. What the session sends on its own connection is collected
//! in the thread's *stage*, without a lock, and put into the outbox when the session waits. Messages to other connections
//! are appended to their outboxes; at the end of the scope each of these is written once, straight to its socket: a
//! fan-out costs no wake-up, and a burst of messages to one member one write.

use std::cell::{Cell, RefCell};
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};

use super::core::{Core, caught};
use super::outlet::Outlet;
use super::pool;
use super::roll::{Rolls, Shared};
use super::stage::{Stage, Staged};
use crate::sync::thread_local;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static DIRTY: RefCell<Vec<Arc<dyn Outlet>>> = const { RefCell::new(Vec::new()) };
    /// The connection whose task is being polled, as the address of its core.
    static DRIVEN: Cell<usize> = const { Cell::new(0) };
    /// What tells that task's waker from others.
    static WAKER: Cell<usize> = const { Cell::new(0) };
    static STAGE: RefCell<Option<Stage>> = const { RefCell::new(None) };
    static ROLLS: RefCell<Option<Rolls>> = const { RefCell::new(None) };
}

/// Encodes a message onto the stage, all of it or but its last part, and tells how many bytes are there. The message is
/// given back where there are `limit` bytes already.
#[inline]
pub(crate) fn stage<M, E>(
    limit: usize,
    message: M,
    encode: impl FnOnce(M, &mut BytesMut) -> Result<Option<Bytes>, E>,
) -> Result<Result<usize, E>, M> {
    STAGE.with(|stage| match stage.try_borrow_mut() {
        Ok(mut stage) => {
            let stage = stage.get_or_insert_default();
            if stage.len() >= limit {
                return Err(message);
            }
            Ok(stage.add(|bytes| encode(message, bytes)))
        }
        // a codec of the session that sends on its own connection while it encodes
        Err(_) => Err(message),
    })
}

/// Hands over the buffer of the stage, where all that waits there is in it: bytes, how many messages they are, and the
/// largest of them. Else what waits is lent out.
#[inline]
pub(crate) fn unstage(take: impl FnOnce(BytesMut, u64, usize), lend: impl FnOnce(Staged<'_>)) {
    with_stage(|stage| match stage.hand_over() {
        Some((bytes, messages, largest)) => take(bytes, messages, largest),
        None => stage.lend(lend),
    });
}

/// As [`unstage`], but only lends out: the buffer stays.
#[inline]
pub(crate) fn unstage_with(take: impl FnOnce(Staged<'_>)) {
    with_stage(|stage| stage.lend(take));
}

/// Where there is something on the stage.
#[inline]
fn with_stage(f: impl FnOnce(&mut Stage)) {
    STAGE.with(|stage| {
        // a codec of the session that sends on its own connection while it encodes finds the stage in use
        let Ok(mut stage) = stage.try_borrow_mut() else { return };
        if let Some(stage) = stage.as_mut().filter(|stage| !stage.is_empty()) {
            f(stage);
        }
    });
}

/// Gives back a buffer of outgoing messages, which are all written.
#[inline]
pub(crate) fn give_back(mut buffer: BytesMut) {
    buffer.clear();
    let left = STAGE.with(|stage| match stage.try_borrow_mut().as_deref_mut() {
        Ok(Some(stage)) => stage.give_back(buffer),
        _ => Some(buffer),
    });
    if let Some(buffer) = left {
        pool::give_write(buffer);
    }
}

/// Runs `poll` as the task that drives a connection; the outboxes it filled are written afterwards.
pub(crate) fn driving<R>(driven: usize, cx: &mut Context<'_>, poll: impl FnOnce(&mut Context<'_>) -> R) -> R {
    let driven_before = DRIVEN.replace(driven);
    // a task polled inside another, by somebody's block_on: each has its own stage
    let stage = if driven_before == 0 { None } else { STAGE.take() };
    // and what it sends to others is written when it waits, however long the outer one goes on
    let (depth, waker) = (DEPTH.replace(0), WAKER.replace(cx.waker().data() as usize));
    let _outer = Outer { driven: driven_before, depth, waker, stage };
    scope(|| poll(cx))
}

/// Whether the current thread runs the task that drives a connection.
#[inline]
pub(crate) fn is_driving(core: &Arc<Core>) -> bool {
    DRIVEN.get() == address(core)
}

/// Whether the current thread runs the task that drives a connection, and `cx` is that task's own: nothing between the
/// two decides whether we are polled when the task is.
#[inline]
pub(crate) fn is_polled_by_driver(core: &Arc<Core>, cx: &Context<'_>) -> bool {
    is_driving(core) && WAKER.get() == cx.waker().data() as usize
}

/// What names a connection while it lives.
pub(crate) fn address(core: &Arc<Core>) -> usize {
    Arc::as_ptr(core) as usize
}

/// What was driven before, where one task is polled inside another.
struct Outer {
    driven: usize,
    depth: u32,
    waker: usize,
    stage: Option<Stage>,
}

impl Drop for Outer {
    fn drop(&mut self) {
        DRIVEN.set(self.driven);
        DEPTH.set(self.depth);
        WAKER.set(self.waker);
        // a panic of our own may leave messages there, which must not become the next connection's
        if self.driven != 0 || std::thread::panicking() {
            STAGE.set(self.stage.take());
        }
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
    #[inline]
    fn drop(&mut self) {
        let depth = DEPTH.get() - 1;
        DEPTH.set(depth);
        if depth == 0 {
            flush_dirty();
        }
    }
}

#[inline]
fn flush_dirty() {
    if DIRTY.with_borrow(Vec::is_empty) {
        return;
    }
    // taken out, as a write may end a connection, and that may send again
    let mut dirty = DIRTY.with_borrow_mut(mem::take);
    let write = |outlets: std::vec::Drain<'_, Arc<dyn Outlet>>| {
        for outlet in outlets {
            // a panic on the way, as in somebody's waker, must not keep the others from being written
            if let Err(panic) = caught(|| unlimited(|| outlet.flush_for_owner())) {
                outlet.core().fail(panic);
            }
        }
    };
    // members that share a UDP socket get theirs with one system call
    #[cfg(feature = "udp")]
    super::gather::gather(|| write(dirty.drain(..)));
    #[cfg(not(feature = "udp"))]
    write(dirty.drain(..));
    DIRTY.with_borrow_mut(|list| {
        if list.is_empty() {
            *list = dirty;
        }
    });
    ROLLS.with_borrow_mut(|rolls| {
        if let Some(rolls) = rolls {
            rolls.clear();
        }
    });
}

/// Puts a message, encoded with `codec`, on a roll for all who get it in the current batch.
pub(crate) fn share(codec: u64, bytes: Bytes) -> Shared {
    let span = ROLLS.with_borrow_mut(|rolls| rolls.get_or_insert_default().add(codec, &bytes));
    Shared { bytes, span }
}

/// What [`here`] never is.
pub(crate) const NOBODY: usize = 0;

/// What tells this thread from others.
pub(crate) fn here() -> usize {
    DEPTH.with(|depth| std::ptr::from_ref(depth) as usize)
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
pub(crate) fn unlimited(f: impl FnOnce()) {
    let mut f = Some(f);
    let run = std::future::poll_fn(move |_| {
        if let Some(f) = f.take() {
            f();
        }
        Poll::Ready(())
    });
    let mut run = std::pin::pin!(tokio::task::unconstrained(run));
    let _ = run.as_mut().poll(&mut Context::from_waker(Waker::noop()));
}
