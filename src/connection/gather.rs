//! What a thread sends over shared sockets while it does several things at once: it goes out when they are done, with as
//! few system calls as that takes.

use std::cell::{Cell, RefCell};
use std::mem;
use std::sync::Arc;

/// A socket that several connections share.
pub(crate) trait Gathers: Send + Sync {
    /// Sends what was gathered.
    fn send_gathered(&self);
}

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static SOCKETS: RefCell<Vec<Arc<dyn Gathers>>> = const { RefCell::new(Vec::new()) };
}

/// Runs `f`; what shared sockets gather meanwhile is sent at its end, or at that of the outermost.
pub(crate) fn gather<R>(f: impl FnOnce() -> R) -> R {
    DEPTH.set(DEPTH.get() + 1);
    let _end = End;
    f()
}

/// Whether there will be an end of a [`gather`] in this thread.
#[inline]
pub(crate) fn is_gathering() -> bool {
    DEPTH.get() > 0
}

/// Has `socket` send what it has gathered at the end.
#[inline]
pub(crate) fn add<S: Gathers + 'static>(socket: &Arc<S>) {
    SOCKETS.with_borrow_mut(|sockets| {
        let same = |other: &Arc<dyn Gathers>| std::ptr::addr_eq(Arc::as_ptr(other), Arc::as_ptr(socket));
        if !sockets.iter().any(same) {
            sockets.push(Arc::clone(socket) as _);
        }
    });
}

/// On the way out, also by a panic: what the others sent is theirs.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        let depth = DEPTH.get() - 1;
        DEPTH.set(depth);
        if depth == 0 {
            let mut sockets = SOCKETS.with_borrow_mut(mem::take);
            for socket in sockets.drain(..) {
                socket.send_gathered();
            }
            SOCKETS.set(sockets);
        }
    }
}
