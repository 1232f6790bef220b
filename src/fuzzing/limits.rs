//! What a server has a limited number of.

use std::future::{Future, pending};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use crate::limits::{self, Limits, Live, Relief, Waits};
use crate::server::inside;

pub struct Slots(Arc<inside::Slots>);
pub struct Slot(#[allow(dead_code, reason = "held, and dropped")] inside::Slot);

impl Slots {
    pub fn new(limit: usize) -> Self {
        Self(inside::Slots::new(limit))
    }

    pub fn set_limit(&self, limit: usize) {
        self.0.set_limit(limit);
    }

    pub fn used(&self) -> usize {
        self.0.used()
    }

    pub fn take(&self, waker: &Waker) -> Option<Slot> {
        match self.0.poll_take(&Context::from_waker(waker)) {
            Poll::Ready(slot) => Some(Slot(slot)),
            Poll::Pending => None,
        }
    }
}

#[derive(Default)]
pub struct Addresses(Arc<limits::Addresses>);
pub struct Place(#[allow(dead_code, reason = "held, and dropped")] limits::Place);

impl Addresses {
    pub fn take(&self, addr: IpAddr, limit: Option<usize>) -> Option<Place> {
        self.0.take(addr, limit).map(Place)
    }
}

#[derive(Default)]
pub struct Rate(inside::Rate);

impl Rate {
    pub fn take(&self, rate: Option<u32>) -> Result<(), Instant> {
        self.0.take(rate)
    }

    pub fn give_back(&self, rate: Option<u32>) {
        self.0.give_back(rate);
    }
}

#[derive(Default)]
pub struct Handshakes(Arc<limits::Handshakes>);
pub struct Handshake(Pin<Box<dyn Future<Output = Option<()>>>>);

impl Handshakes {
    /// Begins one that never ends by itself.
    pub fn begin(&self, limit: usize) -> Handshake {
        Handshake(Box::pin(self.0.begin(limit).run(pending())))
    }

    pub fn shed_all(&self) {
        self.0.shed_all();
    }

    pub fn count(&self) -> usize {
        self.0.count()
    }
}

impl Handshake {
    /// Whether it had to go.
    pub fn is_shed(&mut self, waker: &Waker) -> bool {
        self.0.as_mut().poll(&mut Context::from_waker(waker)).is_ready()
    }
}

/// The memory of all buffers.
pub struct Memory {
    live: Arc<Live>,
    overdrawn: Arc<AtomicUsize>,
}

struct Told(Arc<AtomicBool>);

impl Waits for Told {
    fn memory_is_there(&self) {
        self.0.store(true, Relaxed);
    }
}

struct Overdrawn(Arc<AtomicUsize>);

impl Relief for Overdrawn {
    fn exhausted(&self) {}

    fn overdrawn(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

impl Memory {
    pub fn new(limits: Limits) -> Self {
        let live = Live::new(limits);
        let overdrawn = Arc::new(AtomicUsize::new(0));
        live.memory.set_relief(Box::new(Overdrawn(Arc::clone(&overdrawn))));
        Self { live, overdrawn }
    }

    pub fn set_limits(&self, limits: Limits) {
        self.live.set(limits);
    }

    pub fn used(&self) -> usize {
        self.live.memory.used()
    }

    pub fn is_exhausted(&self) -> bool {
        self.live.memory.is_exhausted()
    }

    pub fn take(&self, bytes: usize) {
        self.live.memory.take(bytes);
    }

    pub fn give(&self, bytes: usize) {
        self.live.memory.give(bytes);
    }

    /// Sets `told` when there is memory.
    pub fn wait(&self, told: &Arc<AtomicBool>) {
        self.live.memory.wait(Arc::new(Told(Arc::clone(told))));
    }

    /// How often somebody had to go, as more was taken than there is.
    pub fn overdrawn(&self) -> usize {
        self.overdrawn.load(Relaxed)
    }
}
