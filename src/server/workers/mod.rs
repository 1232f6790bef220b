//! Which threads a server is on.

mod crew;
mod pin;
mod thread;

pub(crate) use crew::{Crew, Seat, Taken};

/// Which threads accept, and run the handlers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Workers {
    /// Those of the runtime in which the server is started.
    #[default]
    Ambient,
    /// Threads of the server's own, each with a runtime of its own.
    PerCore(PerCore),
}

impl Workers {
    /// A thread for each core that the process may use.
    #[must_use]
    pub fn per_core() -> PerCore {
        PerCore::new()
    }
}

/// Threads of the server's own, each with a single-threaded runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PerCore {
    /// How many. Default: `None`, which is [`std::thread::available_parallelism`].
    pub threads: Option<usize>,
    /// Whether each thread stays on one core. Default: no.
    pub pinned: bool,
}

impl PerCore {
    /// The defaults of each field.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Sets whether each thread stays on one core.
    #[must_use]
    pub fn pinned(mut self, pinned: bool) -> Self {
        self.pinned = pinned;
        self
    }

    fn count(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}

impl From<PerCore> for Workers {
    fn from(options: PerCore) -> Self {
        Self::PerCore(options)
    }
}
