//! A session that is watched: which connections it had, how they ended, and whether it has ended itself.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use crate::connection::{CloseReason, Closed, Connection, ConnectionId, Core};
use crate::handler::Session;
use crate::peer::PeerAddress;
use crate::sync::{Mutex, lock};

/// The connections of a server, in the order of their opening.
#[derive(Default)]
pub(super) struct Visits {
    list: Mutex<Vec<Arc<Visit>>>,
    changed: Notify,
}

/// One connection.
pub(super) struct Visit {
    core: Arc<Core>,
    /// The session's future is gone.
    over: AtomicBool,
}

impl Visit {
    pub(super) fn id(&self) -> ConnectionId {
        self.core.id
    }

    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    pub(super) fn closed(&self) -> Option<&Closed> {
        self.core.closed()
    }

    /// Whether its end is awaited for the peer's sake alone: that has sent a part of a message, or reads nothing.
    pub(super) fn waits_for_peer(&self) -> bool {
        let (deadlines, limits) = (&self.core.deadlines, &self.core.limits);
        let partial = matches!(deadlines.next_in(limits), Some((_, CloseReason::MessageTimeout)));
        partial || deadlines.next_write(limits).is_some()
    }

    pub(super) fn was_cut(&self) -> bool {
        self.closed().is_some_and(|closed| closed.reason == CloseReason::Shutdown)
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// What is known of it, for a message.
    pub(super) fn describe(&self) -> String {
        let (id, bytes, messages) = (self.id(), self.core.traffic.bytes_in(), self.core.traffic.messages_in());
        match self.closed() {
            None => format!("connection {id} is open: {bytes} bytes and {messages} messages came in"),
            Some(closed) => format!("connection {id} is closed: {}", describe(closed)),
        }
    }
}

/// How a connection ended, in words.
pub(super) fn describe(closed: &Closed) -> String {
    let Closed { reason, duration, messages_in, messages_out, unsent_bytes, .. } = closed;
    let cause = closed.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
    format!(
        "{} ({reason}{cause}) after {duration:?}, {messages_in} messages in, {messages_out} out, {unsent_bytes} bytes unsent",
        reason.as_str()
    )
}

impl Visits {
    pub(super) fn all(&self) -> Vec<Arc<Visit>> {
        lock(&self.list).clone()
    }

    /// That of the wire with this number.
    pub(super) fn find(&self, number: u64) -> Option<Arc<Visit>> {
        let address = PeerAddress::Memory(number);
        lock(&self.list).iter().find(|visit| visit.core.peer().address() == address).cloned()
    }

    /// Waits until `look` finds what it looks for.
    pub(super) async fn wait<T>(&self, look: impl Fn() -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(found) = look() {
                return found;
            }
            changed.await;
        }
    }
}

pub(super) struct Observed<S> {
    session: S,
    visits: Arc<Visits>,
}

impl<S> Observed<S> {
    pub(super) fn new(session: S, visits: Arc<Visits>) -> Self {
        Self { session, visits }
    }
}

impl<S: Session> Session for Observed<S> {
    type In = S::In;
    type Out = S::Out;

    fn run(&self, conn: Connection<S::In, S::Out>) -> impl Future<Output = anyhow::Result<()>> + Send + 'static {
        let visit = Arc::new(Visit { core: Arc::clone(conn.core()), over: AtomicBool::new(false) });
        lock(&self.visits.list).push(Arc::clone(&visit));
        self.visits.changed.notify_waiters();
        let stay = Stay { visit, visits: Arc::clone(&self.visits) };
        let session = self.session.run(conn);
        async move {
            let _stay = stay;
            session.await
        }
    }
}

/// Lasts as long as the session's future.
struct Stay {
    visit: Arc<Visit>,
    visits: Arc<Visits>,
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.visit.over.store(true, Ordering::Release);
        self.visits.changed.notify_waiters();
    }
}
