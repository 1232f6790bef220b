//! The workers of a server that runs: who is where, and how they leave together.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, ThreadId};

use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::PerCore;
use super::thread::{Orders, work};
use crate::error::{Error, ErrorKind};
use crate::server::hub::Hub;
use crate::server::listen::{Again, Task};
use crate::sync::{Mutex, lock};

/// More threads than this are a mistake.
const MOST: usize = 1024;
/// A worker may have so many more connections than the one with the fewest: an eighth of what that one has.
const UNEVEN: usize = 8;

/// All workers of a server.
pub(crate) struct Crew {
    members: Vec<Arc<Member>>,
    /// Whose turn it is to have a listener that there is only once.
    next: AtomicUsize,
    /// Every thread holds a receiver, to its very end.
    orders: watch::Sender<Orders>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// One worker.
pub(crate) struct Member {
    /// Of its runtime; another one, if that had to be made anew.
    runtime: Mutex<Option<Handle>>,
    thread: OnceLock<ThreadId>,
    /// How many connections live here.
    load: AtomicUsize,
    /// It has lost its runtime, and has no other one yet.
    away: AtomicBool,
    /// Its listeners, in case that it needs them once more.
    posts: Mutex<Vec<Again>>,
}

impl Member {
    fn runtime(&self) -> Option<Handle> {
        lock(&self.runtime).clone()
    }

    /// From now on it works here.
    pub(super) fn arrives(&self, runtime: &Handle) {
        let _ = self.thread.set(std::thread::current().id());
        *lock(&self.runtime) = Some(runtime.clone());
        self.away.store(false, Relaxed);
    }

    pub(super) fn departs(&self) {
        self.away.store(true, Relaxed);
    }

    /// Takes its listeners to the current runtime, from one that has ended.
    pub(super) fn resume_posts(&self) {
        for again in &*lock(&self.posts) {
            match again() {
                Ok(task) => drop(tokio::spawn(task)),
                Err(error) => tracing::error!(%error, "a listener is lost with its worker"),
            }
        }
    }
}

impl Crew {
    /// Starts the threads, and waits until each has its runtime.
    pub(crate) async fn start(options: &PerCore) -> Result<Arc<Self>, Error> {
        let count = options.count();
        if count == 0 || count > MOST {
            return Err(Error::new(ErrorKind::Config, format!("{count} workers: a server has 1 to {MOST} of them")));
        }
        let crew = Self {
            members: (0..count).map(|_| Arc::new(Member::new())).collect(),
            next: AtomicUsize::new(0),
            orders: watch::Sender::new(Orders::Stay),
            threads: Mutex::new(Vec::new()),
        };
        let started = crew.start_threads(options).await;
        if let Err((number, error)) = started {
            crew.leave().await;
            return Err(Error::new(ErrorKind::Io, format!("worker {number} cannot be started")).because(error));
        }
        Ok(Arc::new(crew))
    }

    async fn start_threads(&self, options: &PerCore) -> Result<(), (usize, io::Error)> {
        let mut begun = Vec::new();
        for (number, member) in self.members.iter().enumerate() {
            let (ready, is_ready) = oneshot::channel();
            let (member, orders, pinned) = (Arc::clone(member), self.orders.subscribe(), options.pinned);
            let thread = std::thread::Builder::new()
                .name(format!("hythe-worker-{number}"))
                .spawn(move || work(number, pinned, &member, orders, ready))
                .map_err(|error| (number, error))?;
            lock(&self.threads).push(thread);
            begun.push(is_ready);
        }
        for (number, is_ready) in begun.into_iter().enumerate() {
            let ended = |_| Err(io::Error::other("its thread ended"));
            is_ready.await.unwrap_or_else(ended).map_err(|error| (number, error))?;
        }
        Ok(())
    }

    #[cfg(any(feature = "tcp", feature = "udp"))]
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Whose turn it is.
    pub(crate) fn next(&self) -> usize {
        self.next.fetch_add(1, Relaxed) % self.members.len()
    }

    fn member(&self, worker: usize) -> Option<&Arc<Member>> {
        self.members.get(worker)
    }

    #[cfg(any(feature = "tcp", feature = "udp", feature = "unix"))]
    /// Does something in a worker's runtime, but on this thread: what is made there belongs to that worker.
    pub(crate) fn within<T>(&self, worker: usize, make: impl FnOnce() -> T) -> T {
        let runtime = self.member(worker).and_then(|member| member.runtime());
        let _inside = runtime.as_ref().map(Handle::enter);
        make()
    }

    /// Begins the task of a worker's listener.
    pub(crate) fn post(&self, worker: usize, task: Task, again: Again) {
        let Some(member) = self.member(worker) else { return };
        let mut posts = lock(&member.posts);
        posts.push(again);
        if let Some(runtime) = member.runtime() {
            runtime.spawn(task);
        }
    }

    /// Where the next connection is to live that `own` accepts: there, unless another worker has fewer by more than a
    /// little.
    pub(crate) fn pick(&self, own: usize) -> Option<Seat> {
        let load = |member: &Member| member.load.load(Relaxed);
        let present = || self.members.iter().filter(|member| !member.away.load(Relaxed));
        let here = self.member(own);
        let fewest = present().min_by_key(|member| load(member))?;
        let bound = load(fewest) + load(fewest) / UNEVEN;
        let here = here.filter(|member| load(member) <= bound && !member.away.load(Relaxed));
        let (member, is_elsewhere) = here.map_or((fewest, true), |member| (member, false));
        Some(Seat { member: Arc::clone(member), runtime: member.runtime()?, is_elsewhere })
    }

    /// Has all workers leave when the hub's connections have ended, or had the time for it.
    pub(crate) fn leave_after(&self, hub: &Arc<Hub>) {
        self.order(Orders::LeaveAfter(Arc::downgrade(hub)));
    }

    /// Has all workers leave, and waits until every thread has ended.
    pub(crate) async fn leave(&self) {
        self.order(Orders::Leave);
        self.orders.closed().await;
        let threads = std::mem::take(&mut *lock(&self.threads));
        if !threads.is_empty() {
            // they are through; what is left takes no time, but it is not ours to know
            let joined = tokio::task::spawn_blocking(|| threads.into_iter().for_each(|thread| drop(thread.join())));
            let _ = joined.await;
        }
    }

    fn order(&self, orders: Orders) {
        self.orders.send_replace(orders);
        // these hold the hub, which holds the crew
        for member in &self.members {
            let posts = std::mem::take(&mut *lock(&member.posts));
            drop(posts);
        }
    }

    /// Whether this is a thread of these.
    pub(crate) fn is_here(&self) -> bool {
        let current = std::thread::current().id();
        self.members.iter().any(|member| member.thread.get() == Some(&current))
    }
}

impl Member {
    fn new() -> Self {
        Self {
            runtime: Mutex::new(None),
            thread: OnceLock::new(),
            load: AtomicUsize::new(0),
            away: AtomicBool::new(false),
            posts: Mutex::new(Vec::new()),
        }
    }
}

/// A place at a worker that the next connection may have.
pub(crate) struct Seat {
    member: Arc<Member>,
    runtime: Handle,
    /// It is not at the worker that accepts.
    pub(crate) is_elsewhere: bool,
}

impl Seat {
    /// Does something in the worker's runtime, but on this thread.
    pub(crate) fn within<T>(&self, make: impl FnOnce() -> T) -> T {
        if !self.is_elsewhere {
            return make();
        }
        let _inside = self.runtime.enter();
        make()
    }

    /// A connection lives there from now on.
    pub(crate) fn take(self) -> (Taken, Option<Handle>) {
        self.member.load.fetch_add(1, Relaxed);
        (Taken(self.member), self.is_elsewhere.then_some(self.runtime))
    }
}

/// A connection's place at a worker, until it is dropped.
pub(crate) struct Taken(Arc<Member>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.load.fetch_sub(1, Relaxed);
    }
}
