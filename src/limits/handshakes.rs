//! How many handshakes are under way: who has begun last is the likeliest to be honest, so the oldest one makes room.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use crate::sync::{AtomicWaker, Mutex, lock};

#[derive(Default)]
pub(crate) struct Handshakes {
    next: AtomicU64,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    /// In the order in which they began.
    tickets: BTreeMap<u64, Arc<Ticket>>,
    /// Whoever still comes has to go as well.
    over: bool,
}

#[derive(Default)]
struct Ticket {
    shed: AtomicBool,
    task: AtomicWaker,
}

impl Ticket {
    fn shed(&self) {
        self.shed.store(true, Relaxed);
        self.task.wake();
    }
}

impl fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handshakes({} under way)", self.count())
    }
}

impl Handshakes {
    /// Begins one. There are at most `limit` afterwards.
    pub(crate) fn begin(self: &Arc<Self>, limit: usize) -> Handshaking {
        let id = self.next.fetch_add(1, Relaxed);
        let ticket = Arc::new(Ticket::default());
        let mut running = lock(&self.running);
        running.tickets.insert(id, Arc::clone(&ticket));
        let limit = if running.over { 0 } else { limit.max(1) };
        while running.tickets.len() > limit {
            let Some((_, oldest)) = running.tickets.pop_first() else { break };
            oldest.shed();
        }
        drop(running);
        Handshaking { all: Arc::clone(self), id, ticket }
    }

    /// Ends all of them, and those that begin later.
    pub(crate) fn shed_all(&self) {
        let tickets = {
            let mut running = lock(&self.running);
            running.over = true;
            std::mem::take(&mut running.tickets)
        };
        for ticket in tickets.values() {
            ticket.shed();
        }
    }

    pub(crate) fn count(&self) -> usize {
        lock(&self.running).tickets.len()
    }
}

/// One handshake under way.
pub(crate) struct Handshaking {
    all: Arc<Handshakes>,
    id: u64,
    ticket: Arc<Ticket>,
}

impl Handshaking {
    /// Runs `handshake`; `None` if it had to make room before it was through.
    pub(crate) async fn run<F: Future>(self, handshake: F) -> Option<F::Output> {
        let mut handshake = pin!(handshake);
        poll_fn(|cx| {
            self.ticket.task.register(cx.waker());
            if self.ticket.shed.load(Relaxed) {
                return Poll::Ready(None);
            }
            handshake.as_mut().poll(cx).map(Some)
        })
        .await
    }
}

impl Drop for Handshaking {
    fn drop(&mut self) {
        lock(&self.all.running).tickets.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn the_oldest_makes_room() {
        let all = Arc::new(Handshakes::default());
        let first = tokio::spawn(all.begin(2).run(pending::<()>()));
        let second = all.begin(2);
        assert_eq!(all.count(), 2);
        let third = all.begin(2);
        assert_eq!(first.await.unwrap(), None);
        assert_eq!(all.count(), 2);
        assert_eq!(second.run(async { 2 }).await, Some(2));
        assert_eq!(third.run(async { 3 }).await, Some(3));
        assert_eq!(all.count(), 0);
    }

    #[tokio::test]
    async fn all_of_them_can_be_ended() {
        let all = Arc::new(Handshakes::default());
        let running: Vec<_> = (0..3).map(|_| tokio::spawn(all.begin(10).run(pending::<()>()))).collect();
        all.shed_all();
        for one in running {
            assert_eq!(one.await.unwrap(), None);
        }
        assert_eq!(all.begin(10).run(pending::<()>()).await, None, "one that begins later");
        assert_eq!(all.count(), 0);
    }
}
