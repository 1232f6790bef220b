//! What most connections do without until their end: it is made when it is first needed, so that one that idles takes no
//! room for it.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::sync::{OnceLock, Weak};
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep};

use super::closed::{Closed, Failure};
use super::core::{Core, Leave, Remainder, SHOWN};
use super::outlet::Outlet;
#[cfg(feature = "tls")]
use crate::peer::Peer;
use crate::sync::{AtomicWaker, Mutex, Notify, lock};

#[derive(Default)]
pub(super) struct Rare {
    pub(super) failure: OnceLock<Failure>,
    pub(super) drain: OnceLock<Instant>,
    pub(super) closed: OnceLock<Closed>,
    pub(super) remainder: Mutex<Option<Box<dyn Remainder>>>,
    pub(super) on_close: Mutex<Vec<Weak<dyn Leave>>>,
    /// The runtime to send from where no task of ours drives the connection.
    pub(super) runtime: OnceLock<Handle>,
    /// The next deadline of such a connection.
    pub(super) timer: Mutex<Option<Pin<Box<Sleep>>>>,
    /// The outbox of such a connection, for a task that is to write it.
    pub(super) outlet: OnceLock<Weak<dyn Outlet>>,
    /// How many bytes of each read and write are shown.
    pub(super) shown: AtomicUsize,
    /// When the connection's task waits no longer for what there is to come after the end, as a mark of the clocks; 0 is
    /// "not set".
    pub(super) end: AtomicU64,
    /// Bytes that were in the outbox when it was given up.
    pub(super) lost: AtomicU64,
    /// The peer as it is known since the connection was encrypted.
    #[cfg(feature = "tls")]
    pub(super) upgraded: OnceLock<Peer>,
    /// Who waits for a message: not always the task that drives the connection, and not always as the whole of its task.
    pub(super) reader: AtomicWaker,
    /// Who waits for the outbox.
    pub(super) writer: AtomicWaker,
    /// Told when the outbox has room again.
    pub(super) room: Notify,
}

/// A [`Rare`], or none yet.
#[derive(Default)]
pub(super) struct Maybe(OnceLock<Box<Rare>>);

impl Maybe {
    /// It, as it is for whoever has just changed something else and now looks who waits for that.
    pub(super) fn get_after_change(&self) -> Option<&Rare> {
        // either they see the change, or we see them
        fence(SeqCst);
        self.get()
    }

    /// It, as it is for whoever is going to wait, and looks at everything again before it does.
    pub(super) fn make_to_wait(&self) -> &Rare {
        let rare = self.make();
        fence(SeqCst);
        rare
    }

    #[inline]
    pub(super) fn get(&self) -> Option<&Rare> {
        self.0.get().map(|rare| &**rare)
    }

    pub(super) fn make(&self) -> &Rare {
        self.0.get_or_init(Box::default)
    }
}

impl Core {
    /// The runtime to send from where no task of ours drives the connection.
    pub(crate) fn runtime(&self) -> Option<&Handle> {
        self.rare.get()?.runtime.get()
    }

    /// Has so many bytes of each read and write shown in the log.
    pub(crate) fn show_bytes(&self, most: usize) {
        if most > 0 {
            self.rare.make().shown.store(most, Relaxed);
            self.set(SHOWN);
        }
    }

    /// How many bytes of each read and write are shown.
    #[inline]
    pub(super) fn shown(&self) -> usize {
        if self.has(SHOWN) { self.rare.get().map_or(0, |rare| rare.shown.load(Relaxed)) } else { 0 }
    }

    /// The next deadline where no task of ours drives the connection.
    pub(super) fn timer(&self) -> &Mutex<Option<Pin<Box<Sleep>>>> {
        &self.rare.make().timer
    }

    /// The outbox where no task of ours drives the connection.
    pub(super) fn outlet(&self) -> &OnceLock<Weak<dyn Outlet>> {
        &self.rare.make().outlet
    }

    /// For whoever waits for a message, other than the connection's own task as a whole.
    pub(crate) fn reader(&self) -> &AtomicWaker {
        &self.rare.make_to_wait().reader
    }

    pub(super) fn wake_reader(&self) {
        if let Some(rare) = self.rare.get_after_change() {
            rare.reader.wake();
        }
    }

    /// For the owner, where it waits for the outbox.
    pub(crate) fn writer(&self) -> &AtomicWaker {
        &self.rare.make_to_wait().writer
    }

    /// For whoever waits for room in the outbox, or for the end.
    pub(crate) fn room(&self) -> &Notify {
        &self.rare.make_to_wait().room
    }

    /// The outbox has room again, or never will.
    pub(crate) fn tell_room(&self) {
        if let Some(rare) = self.rare.get_after_change() {
            rare.room.notify_waiters();
        }
    }

    /// The outbox is given up, with so many bytes in it.
    pub(super) fn loses(&self, bytes: usize) {
        if bytes > 0 {
            self.rare.make().lost.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// Bytes that were in the outbox when it was given up.
    pub(super) fn lost(&self) -> u64 {
        self.rare.get().map_or(0, |rare| rare.lost.load(Relaxed))
    }

    /// Waits for the peer's end, if there is somebody to look for it.
    pub(super) fn poll_remainder(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(rare) = self.rare.get() else { return Poll::Ready(()) };
        match &mut *lock(&rare.remainder) {
            Some(remainder) if !remainder.ended() => remainder.poll_discard(cx),
            _ => Poll::Ready(()),
        }
    }

    /// Whether the peer has ended and the owner is through: the transport is closed as soon as everything is written.
    pub(super) fn has_read_all(&self) -> bool {
        let Some(rare) = self.rare.get().filter(|_| self.has_driver() && self.is_released()) else { return false };
        lock(&rare.remainder).as_ref().is_some_and(|remainder| remainder.ended())
    }

    /// When the connection's task waits no longer for what there is to come after the end, as a mark of
    /// [`Deadlines`]; 0 is "not set".
    pub(super) fn end(&self) -> u64 {
        self.rare.get().map_or(0, |rare| rare.end.load(Relaxed))
    }

    pub(super) fn ends_at(&self, end: u64) {
        self.rare.make().end.store(end, Relaxed);
    }
}
