//! The memory of all buffers together.
//!
//! Buffers are charged in steps: what is below one is free, so that small messages, which are most, cost no shared
//! counter, and get through while somebody else has used everything up. What that may add up to is in
//! `Limits::worst_case_memory`.

use std::mem;
use std::sync::{Arc, OnceLock};

use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use crate::sync::{Mutex, lock};

/// What a buffer is charged in, in bytes.
pub(crate) const STEP: usize = 4 << 10;

/// Who waits for memory.
pub(crate) trait Waits: Send + Sync {
    fn memory_is_there(&self);
}

/// Who can do something about a lack of memory.
pub(crate) trait Relief: Send + Sync {
    /// Somebody cannot go on.
    fn exhausted(&self);
    /// More was taken than there is.
    fn overdrawn(&self);
}

pub(crate) struct Budget {
    limit: AtomicUsize,
    used: AtomicUsize,
    awaited: AtomicBool,
    waiting: Mutex<Vec<Arc<dyn Waits>>>,
    relief: OnceLock<Box<dyn Relief>>,
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Budget({} of {})", self.used(), self.limit.load(Relaxed))
    }
}

impl Budget {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit: AtomicUsize::new(limit),
            used: AtomicUsize::new(0),
            awaited: AtomicBool::new(false),
            waiting: Mutex::new(Vec::new()),
            relief: OnceLock::new(),
        }
    }

    pub(super) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
        self.wake();
    }

    pub(crate) fn set_relief(&self, relief: Box<dyn Relief>) {
        let _ = self.relief.set(relief);
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Whether nothing more is to be taken.
    #[inline]
    pub(crate) fn is_exhausted(&self) -> bool {
        self.used() >= self.limit.load(Relaxed)
    }

    /// Whether there is so much again that those who wait may go on: not for the first byte, or they would wait again.
    fn is_relaxed(&self) -> bool {
        // in one order with `awaited`: either who gives sees who waits, or who waits sees what was given
        self.used.load(SeqCst) <= self.relaxed()
    }

    fn relaxed(&self) -> usize {
        let limit = self.limit.load(Relaxed);
        limit - limit / 12
    }

    /// What a buffer of so many bytes is charged.
    #[inline]
    pub(crate) fn charge_for(bytes: usize) -> usize {
        bytes & !(STEP - 1)
    }

    /// Takes, also what is not there: it is in use already. But then somebody has to go.
    pub(crate) fn take(&self, bytes: usize) {
        let used = self.used.fetch_add(bytes, SeqCst) + bytes;
        let limit = self.limit.load(Relaxed);
        if used > limit.saturating_add(limit / 16) {
            if let Some(relief) = self.relief.get() {
                relief.overdrawn();
            }
        }
    }

    /// What must come back before those who wait may go on, in bytes.
    pub(crate) fn excess(&self) -> usize {
        self.used().saturating_sub(self.relaxed())
    }

    pub(crate) fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, SeqCst);
        if self.awaited.load(SeqCst) && self.is_relaxed() {
            self.wake();
        }
    }

    /// Has `who` told when there is memory. It is asked to do so once, not each time it looks.
    pub(crate) fn wait(&self, who: Arc<dyn Waits>) {
        let mut waiting = lock(&self.waiting);
        waiting.push(who);
        self.awaited.store(true, SeqCst);
        drop(waiting);
        if let Some(relief) = self.relief.get() {
            relief.exhausted();
        }
        // some may have been given back in between
        if self.is_relaxed() {
            self.wake();
        }
    }

    fn wake(&self) {
        let waiting = {
            let mut waiting = lock(&self.waiting);
            self.awaited.store(false, Relaxed);
            mem::take(&mut *waiting)
        };
        for who in waiting {
            who.memory_is_there();
        }
    }
}
