//! What has gone over a connection so far: counted, and, where that was asked for, shown in the log.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::core::Core;

/// Each of them is written by one task at a time, and may be read by anybody.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    bytes_in: AtomicU64,
    messages_in: AtomicU64,
    bytes_out: AtomicU64,
    messages_out: AtomicU64,
    /// Bytes that wait in the outbox.
    waiting: AtomicUsize,
}

impl Traffic {
    #[inline]
    pub(super) fn count_in(&self, bytes: usize) {
        // one task reads, so this need not be a read-modify-write
        self.bytes_in.store(self.bytes_in().wrapping_add(bytes as u64), Relaxed);
    }

    #[inline]
    pub(super) fn count_message_in(&self) {
        self.messages_in.store(self.messages_in().wrapping_add(1), Relaxed);
    }

    /// The transport took so many. Said under the lock of the outbox, as all that is about what goes out.
    #[inline]
    pub(super) fn count_out(&self, bytes: usize) {
        self.bytes_out.store(self.bytes_out().wrapping_add(bytes as u64), Relaxed);
    }

    #[inline]
    pub(super) fn count_messages_out(&self, messages: u64) {
        self.messages_out.store(self.messages_out().wrapping_add(messages), Relaxed);
    }

    #[inline]
    pub(super) fn sets_waiting(&self, waiting: usize) {
        self.waiting.store(waiting, Relaxed);
    }

    pub(crate) fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Relaxed)
    }

    pub(crate) fn messages_in(&self) -> u64 {
        self.messages_in.load(Relaxed)
    }

    pub(crate) fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Relaxed)
    }

    pub(crate) fn messages_out(&self) -> u64 {
        self.messages_out.load(Relaxed)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }
}

impl Core {
    #[inline]
    pub(super) fn show_read(&self, bytes: &[u8]) {
        if self.shown() > 0 {
            self.show("read", bytes);
        }
    }

    #[inline]
    pub(super) fn show_written(&self, bytes: &[u8]) {
        if self.shown() > 0 {
            self.show("written", bytes);
        }
    }

    #[cold]
    fn show(&self, what: &'static str, bytes: &[u8]) {
        let first = bytes.get(..self.shown()).unwrap_or(bytes);
        // whoever writes need not be in the connection's span
        tracing::trace!(id = %self.id, bytes = bytes.len(), data = %first.escape_ascii(), "{what}");
    }
}
