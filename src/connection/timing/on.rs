//! Only some messages are timed: to look at the clock costs more than to decode a short one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use metrics::{Key, Level, Metadata, with_recorder};
use tokio::time::Instant;

/// Of each connection the first message is timed, and then one of so many.
const SAMPLE: u64 = 64;

#[derive(Debug, Default)]
pub(crate) struct Timing {
    histogram: Option<Arc<Key>>,
    /// When the session was given the message that is timed, in nanoseconds after the connection was opened, plus one; 0 is
    /// "none". Only the connection's owner looks.
    since: AtomicU64,
}

impl Clone for Timing {
    /// For another connection.
    fn clone(&self) -> Self {
        Self { histogram: self.histogram.clone(), since: AtomicU64::new(0) }
    }
}

fn nanos(opened: Instant) -> u64 {
    u64::try_from(opened.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

impl Timing {
    pub(crate) fn new(histogram: Key) -> Self {
        Self { histogram: Some(Arc::new(histogram)), since: AtomicU64::new(0) }
    }

    /// The session gets this message.
    #[inline]
    pub(crate) fn starts(&self, message: u64, opened: Instant) {
        if message % SAMPLE == 1 && self.histogram.is_some() {
            self.since.store(nanos(opened).saturating_add(1), Relaxed);
        }
    }

    /// The session asks for another one.
    #[inline]
    pub(crate) fn ends(&self, opened: Instant) {
        if self.since.load(Relaxed) != 0 {
            self.record(opened);
        }
    }

    #[cold]
    fn record(&self, opened: Instant) {
        let took = nanos(opened).saturating_sub(self.since.swap(0, Relaxed).saturating_sub(1));
        let Some(key) = &self.histogram else { return };
        let metadata = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));
        with_recorder(|recorder| recorder.register_histogram(key, &metadata)).record(Duration::from_nanos(took));
    }
}
