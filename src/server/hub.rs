//! What all listeners and connections of a server share: who is connected, what was counted, and the drain.

use std::collections::HashMap;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::log::Log;
use super::meters::{Meters, Whole};
use super::rate::Rate;
use super::refusals::{Refusal, Refusals};
use super::slots::{Slot, Slots};
use super::stalls::{Blockage, Busy};
use super::tally::{Counters, Tallies};
use super::workers::Crew;
use super::{log, watch};
use crate::connection::{CloseReason, Closed, ConnectionId, Core, Thread, Watch};
use crate::limits::{Addresses, Limits, Live, Relief};
use crate::peer::Peer;
use crate::sync::{Mutex, Notify, lock};

/// How long a lack of memory may last before somebody has to go.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) struct Hub {
    /// Whose threads all of it is on; none, where it is on those of the runtime in which the server was started.
    pub(crate) crew: Option<Arc<Crew>>,
    pub(crate) limits: Arc<Live>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) rate: Rate,
    pub(crate) refusals: Refusals,
    pub(crate) log: Log,
    pub(crate) meters: Meters,
    pub(crate) paused: AtomicBool,
    pub(crate) tallies: Tallies,
    open: Mutex<Open>,
    /// Told when the last connection has gone.
    empty: Notify,
    /// Memory is short, and a task looks after it.
    short: AtomicBool,
    /// Where the server was started, which is not one of its workers.
    runtime: Option<Handle>,
    /// Who was at work when somebody last looked.
    busy: Mutex<Busy>,
}

#[derive(Default)]
struct Open {
    connections: HashMap<ConnectionId, Arc<Core>>,
    drain: Option<Instant>,
    /// Whoever still comes is cut as well.
    cut: bool,
    report: DrainReport,
}

/// What became of the connections that a drain found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Connections that ended by themselves: idle ones at once, busy ones when they were through.
    pub finished: u64,
    /// Connections that were cut at the deadline.
    pub cut: u64,
    /// Bytes of replies that were never sent.
    pub unsent_bytes: u64,
}

/// A live connection, as [`Running::connections`](crate::Running::connections) lists it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Its id.
    pub id: ConnectionId,
    /// The other end.
    pub peer: Peer,
    /// Since it was opened.
    pub age: Duration,
    /// Bytes in so far.
    pub bytes_in: u64,
    /// Bytes out so far.
    pub bytes_out: u64,
    /// Messages in so far.
    pub messages_in: u64,
    /// Messages out so far, those that still wait in the outbox included.
    pub messages_out: u64,
    /// Bytes that wait in the outbox.
    pub unsent_bytes: usize,
}

impl Hub {
    pub(crate) fn new(limits: Limits, crew: Option<Arc<Crew>>) -> Arc<Self> {
        let hub = Arc::new(Self {
            crew,
            slots: Slots::new(limits.max_connections),
            addresses: Arc::default(),
            rate: Rate::default(),
            refusals: Refusals::default(),
            log: Log::default(),
            meters: Meters::default(),
            limits: Live::new(limits),
            paused: AtomicBool::new(false),
            tallies: Tallies::default(),
            open: Mutex::default(),
            short: AtomicBool::new(false),
            runtime: Handle::try_current().ok(),
            busy: Mutex::default(),
            empty: Notify::new(),
        });
        hub.limits.memory.set_relief(Box::new(Arc::downgrade(&hub)));
        watch::add(&hub);
        hub
    }

    pub(crate) fn set_limits(&self, limits: Limits) {
        self.slots.set_limit(limits.max_connections);
        self.limits.set(limits);
        for core in self.cores() {
            core.deadlines.changed();
            core.wake();
        }
    }

    /// Has a place for one more, where nobody is held, or says what there is too little of.
    pub(crate) fn admit(&self, limits: &Limits) -> Result<Slot, Refusal> {
        if self.limits.memory.is_exhausted() {
            return Err(Refusal::Memory);
        }
        let slot = self.slots.try_take().ok_or(Refusal::Connections)?;
        self.rate.take(limits.accept_rate).map_err(|_| Refusal::Rate)?;
        Ok(slot)
    }

    /// A connection was made.
    pub(crate) fn register(&self, core: &Arc<Core>) {
        self.tallies.of(core.peer().endpoint()).accepted();
        let mut open = lock(&self.open);
        open.connections.insert(core.id, Arc::clone(core));
        let (drain, cut) = (open.drain, open.cut);
        drop(open);
        self.log.opened();
        if let Some(deadline) = drain {
            core.start_drain(deadline);
        }
        if cut {
            core.cut(CloseReason::Shutdown);
        }
    }

    /// Somebody was turned away.
    pub(crate) fn refused(&self, why: Refusal, peer: &Peer, error: Option<&(dyn Error + Send + Sync + 'static)>) {
        self.tallies.of(peer.endpoint()).refused(why);
        self.log.refused(why, peer, error);
    }

    pub(crate) fn counters(&self) -> Counters {
        let mut counters = self.tallies.sums();
        counters.open = lock(&self.open).connections.len() as u64;
        counters.handshakes = self.limits.handshakes.count() as u64;
        counters.memory = self.limits.memory.used() as u64;
        counters
    }

    pub(crate) fn connections(&self) -> Vec<ConnectionInfo> {
        let mut list: Vec<_> = self.cores().iter().map(|core| info(core)).collect();
        list.sort_unstable_by_key(|connection| connection.id);
        list
    }

    /// Closes those that hold most, until what is left is within the memory of all.
    fn shed(&self) {
        let mut cores = self.cores();
        cores.retain(|core| core.held() > 0);
        let dying: usize = cores.iter().filter(|core| core.is_cut()).map(|core| core.held()).sum();
        let mut excess = self.limits.memory.excess().saturating_sub(dying);
        cores.sort_unstable_by_key(|core| std::cmp::Reverse(core.held()));
        for core in cores.iter().filter(|core| !core.is_cut()) {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(core.held());
            core.cut(CloseReason::Overloaded);
        }
    }

    pub(crate) fn find(&self, id: ConnectionId) -> Option<Arc<Core>> {
        lock(&self.open).connections.get(&id).cloned()
    }

    fn cores(&self) -> Vec<Arc<Core>> {
        lock(&self.open).connections.values().cloned().collect()
    }

    /// Looks at every connection, so long after the last time.
    pub(crate) fn sweep(&self, passed: Duration) {
        let (cores, stall) = (self.cores(), self.limits.get().stall);
        lock(&self.busy).look(&cores, passed, stall, |core, seen_for| {
            self.tallies.of(core.peer().endpoint()).stalls.fetch_add(1, Relaxed);
            self.log.stalled(core, seen_for);
        });
        self.publish(&cores);
    }

    /// Tells what was counted so far, and what these connections do.
    fn publish(&self, cores: &[Arc<Core>]) {
        let whole = || {
            let limits = self.limits.get();
            Whole {
                handshakes: self.limits.handshakes.count() as u64,
                connections_limit: limits.max_connections,
                memory: self.limits.memory.used(),
                memory_limit: limits.memory,
            }
        };
        self.meters.publish(&self.tallies.all(), cores, whole);
    }

    /// Tells at once what otherwise is told within a second.
    #[cfg(feature = "prometheus")]
    pub(crate) fn publish_now(&self) {
        self.publish(&self.cores());
    }

    /// A handshake has succeeded.
    pub(crate) fn greeted(&self, peer: &Peer, took: Duration) {
        self.log.greeted(peer, took);
        self.meters.greeted(peer.endpoint(), took);
    }

    /// A connection's task keeps its thread, or did.
    pub(crate) fn blocked(&self, core: &Core, thread: &Thread, blockage: Blockage) {
        if matches!(blockage, Blockage::Begins(_)) {
            self.tallies.of(core.peer().endpoint()).runtime_stalls.fetch_add(1, Relaxed);
        }
        log::blocked(core, thread, blockage);
    }

    /// Tells every connection that the server goes; the first deadline counts.
    pub(crate) fn start_drain(&self, deadline: Instant) {
        lock(&self.open).drain.get_or_insert(deadline);
        for core in self.cores() {
            core.start_drain(deadline);
        }
    }

    /// Ends every connection at once, also those that are just being made.
    pub(crate) fn cut(&self) {
        lock(&self.open).cut = true;
        for core in self.cores() {
            core.cut(CloseReason::Shutdown);
        }
        self.limits.handshakes.shed_all();
    }

    /// Whether whoever still comes is to go at once.
    pub(crate) fn is_cut(&self) -> bool {
        lock(&self.open).cut
    }

    /// Waits until no connection is left, nor one that is accepted and not registered yet: it has its slot already.
    pub(crate) async fn emptied(&self) {
        loop {
            let mut empty = pin!(self.empty.notified());
            empty.as_mut().enable();
            let gone = poll_fn(|cx| {
                self.slots.watch(cx);
                if self.slots.used() == 0 && lock(&self.open).connections.is_empty() {
                    return Poll::Ready(true);
                }
                empty.as_mut().poll(cx).map(|()| false)
            });
            if gone.await {
                return;
            }
        }
    }

    /// What has become of the connections since the drain began. Those that are still there could not be ended: their
    /// handlers block their threads.
    pub(crate) fn report(&self) -> DrainReport {
        let open = lock(&self.open);
        let stuck = open.connections.values().filter(|core| core.closed().is_none()).count();
        DrainReport { cut: open.report.cut + stuck as u64, ..open.report }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.publish(&[]);
        watch::changed();
    }
}

impl Relief for Weak<Hub> {
    fn overdrawn(&self) {
        if let Some(hub) = self.upgrade() {
            hub.shed();
        }
    }

    fn exhausted(&self) {
        let Some(hub) = self.upgrade() else { return };
        if hub.short.swap(true, Relaxed) {
            return;
        }
        tracing::warn!(bytes = hub.limits.memory.used(), "the memory of all buffers is used up");
        let Some(runtime) = hub.runtime.clone().or_else(|| Handle::try_current().ok()) else { return };
        let looks_after = LooksAfter(hub);
        runtime.spawn(async move {
            let hub = &looks_after.0;
            tokio::time::sleep(PATIENCE).await;
            while hub.limits.memory.is_exhausted() {
                hub.shed();
                tokio::time::sleep(PATIENCE / 10).await;
            }
        });
    }
}

/// The task that looks after a lack of memory, until it ends, by itself or with its runtime.
struct LooksAfter(Arc<Hub>);

impl Drop for LooksAfter {
    fn drop(&mut self) {
        self.0.short.store(false, Relaxed);
    }
}

fn info(core: &Core) -> ConnectionInfo {
    ConnectionInfo {
        id: core.id,
        peer: core.peer().clone(),
        age: core.deadlines.opened().elapsed(),
        bytes_in: core.traffic.bytes_in(),
        bytes_out: core.traffic.bytes_out(),
        messages_in: core.traffic.messages_in(),
        messages_out: core.traffic.messages_out(),
        unsent_bytes: core.traffic.waiting(),
    }
}

impl Watch for Hub {
    fn ended(&self, core: &Core, closed: &Closed) {
        self.log.ended(core, closed);
        core.counts();
        self.tallies.of(core.peer().endpoint()).closed(closed);
        let mut open = lock(&self.open);
        if open.drain.is_some() {
            match closed.reason {
                CloseReason::Shutdown => open.report.cut += 1,
                _ => open.report.finished += 1,
            }
            open.report.unsent_bytes += closed.unsent_bytes;
        }
    }

    fn gone(&self, core: &Core) {
        let mut open = lock(&self.open);
        open.connections.remove(&core.id);
        if open.connections.is_empty() {
            // the memory of a peak is not kept
            open.connections.shrink_to(64);
            drop(open);
            self.empty.notify_waiters();
        }
    }
}
