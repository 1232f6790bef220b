//! Only some messages are timed: to look at the clock costs more than to decode a short one.

use std::sync::Arc;
use std::time::Instant;

use metrics::{Key, Level, Metadata, with_recorder};

/// Of each connection the first message is timed, and then one of so many.
const SAMPLE: u64 = 64;

#[derive(Clone, Debug, Default)]
pub(crate) struct Timing {
    histogram: Option<Arc<Key>>,
    /// When the session was given the message that is timed.
    since: Option<Instant>,
}

impl Timing {
    pub(crate) fn new(histogram: Key) -> Self {
        Self { histogram: Some(Arc::new(histogram)), since: None }
    }

    /// The session gets this message.
    #[inline]
    pub(crate) fn starts(&mut self, message: u64) {
        if message % SAMPLE == 1 && self.histogram.is_some() {
            self.since = Some(Instant::now());
        }
    }

    /// The session asks for another one.
    #[inline]
    pub(crate) fn ends(&mut self) {
        if self.since.is_some() {
            self.record();
        }
    }

    #[cold]
    fn record(&mut self) {
        let (Some(since), Some(key)) = (self.since.take(), &self.histogram) else { return };
        let metadata = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));
        with_recorder(|recorder| recorder.register_histogram(key, &metadata)).record(since.elapsed());
    }
}
