//! What most connections do without until their end: it is made when it is first needed, so that one that idles takes no
//! room for it.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst, fence};
use std::sync::{OnceLock, Weak};

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep};

use super::closed::{Closed, Failure};
use super::core::{Leave, Remainder};
use super::outlet::Outlet;
#[cfg(feature = "tls")]
use crate::peer::Peer;
use crate::sync::{AtomicWaker, Mutex, Notify};

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
