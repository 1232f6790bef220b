//! What a connection's buffers take of the memory of all.

use std::sync::Arc;

use super::core::{AWAITS_MEMORY, Core};
use crate::limits::{Budget, Waits};
use crate::sync::atomic::Ordering;

impl Core {
    /// A buffer of this connection, charged for `charged` bytes so far, has a size of so many.
    #[inline]
    pub(crate) fn charge(&self, charged: &mut usize, bytes: usize) {
        let charge = Budget::charge_for(bytes);
        if charge != *charged {
            self.recharge(charged, charge);
        }
    }

    #[cold]
    fn recharge(&self, charged: &mut usize, charge: usize) {
        if charge > *charged {
            let more = charge - *charged;
            // taken before the end can see it: it must not give back what is not taken yet
            self.limits.memory.take(more);
            self.held.fetch_add(more, Ordering::AcqRel);
            if self.closed().is_some() {
                self.discharge();
            }
        } else {
            let less = *charged - charge;
            let held =
                self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| Some(held.saturating_sub(less)));
            // less, where the end has given it back already
            self.limits.memory.give(less.min(held.unwrap_or(0)));
        }
        *charged = charge;
    }

    /// Gives back what all buffers were charged: they are gone, or nobody fills them any more.
    pub(super) fn discharge(&self) {
        self.limits.memory.give(self.held.swap(0, Ordering::AcqRel));
    }

    /// Bytes of its buffers, as they are charged.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Has whoever reads woken when there is memory again.
    #[cold]
    pub(crate) fn await_memory(self: &Arc<Self>) {
        if self.set(AWAITS_MEMORY) {
            self.limits.memory.wait(Arc::clone(self) as _);
        }
    }
}

impl Waits for Core {
    fn memory_is_there(&self) {
        self.unset(AWAITS_MEMORY);
        self.wake();
    }
}
