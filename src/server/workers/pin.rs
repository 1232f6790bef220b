//! A thread that stays on one core, of those that the process may use. Linux; elsewhere there is nothing of it.

#[cfg(target_os = "linux")]
mod linux {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    /// Where a thread might be before it was pinned.
    #[derive(Clone)]
    pub(crate) struct Pinned(CpuSet);

    /// Pins the current thread to the core of that number, or of what is left of it when each has been counted. None
    /// where the system does not want that.
    pub(crate) fn current(number: usize) -> Option<Pinned> {
        let pinned = || {
            let allowed = sched_getaffinity(None)?;
            let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
            let mut one = CpuSet::new();
            if let Some(core) = number.checked_rem(cores.len()).and_then(|place| cores.get(place)) {
                one.set(*core);
            }
            sched_setaffinity(None, &one)?;
            Ok(Pinned(allowed))
        };
        pinned()
            .map_err(|error: rustix::io::Errno| tracing::warn!(worker = number, %error, "a worker is not pinned"))
            .ok()
    }

    impl Pinned {
        /// Has the current thread, which began as a pinned one, go where that might go.
        pub(crate) fn leave(&self) {
            let _ = sched_setaffinity(None, &self.0);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    #[derive(Clone)]
    pub(crate) struct Pinned;

    pub(crate) fn current(_: usize) -> Option<Pinned> {
        None
    }

    impl Pinned {
        pub(crate) fn leave(&self) {}
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::current;
#[cfg(target_os = "linux")]
pub(crate) use linux::current;
