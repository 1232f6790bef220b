//! Cores, limits and clocks.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Keeps this thread, and those it will start, on some cores.
pub(crate) fn pin(cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    sched_setaffinity(None, &set).with_context(|| format!("cannot pin to {cores:?}"))
}

/// One core for the server and one for the clients, where there are two.
pub(crate) fn cores() -> Result<Option<(usize, usize)>> {
    let allowed = sched_getaffinity(None)?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    Ok(cores.next().zip(cores.next()))
}

/// Raises the limit of open files as far as this process may.
pub(crate) fn raise_file_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Has the kernel make this process's table of descriptors as large as it will be. When the table of a process with
/// several threads grows, which is at each power of two, the thread that wanted one more descriptor waits for all cores
/// to come by: 5 to 30 ms.
pub(crate) fn presize_descriptors(count: i32) -> Result<()> {
    drop(rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), count)?);
    Ok(())
}

/// Limits this process's address space, in bytes.
pub(crate) fn limit_address_space(bytes: u64) -> Result<()> {
    Ok(setrlimit(Resource::As, Rlimit { current: Some(bytes), maximum: Some(bytes) })?)
}

/// How much the machine and this process with its ended children have worked.
pub(crate) struct Load {
    busy: Duration,
    ours: Duration,
}

impl Load {
    pub(crate) fn now() -> Result<Self> {
        let stat = std::fs::read_to_string("/proc/stat")?;
        let all = ticks(stat.lines().next().context("/proc/stat is empty")?.trim_start_matches("cpu"));
        // user, nice, system, idle, iowait, irq, softirq, steal
        let busy = all.iter().take(8).sum::<u64>() - all.iter().skip(3).take(2).sum::<u64>();
        let own = std::fs::read_to_string("/proc/self/stat")?;
        // utime, stime, cutime, cstime: fields 14 to 17 of proc(5)
        let ours = ticks(own.rsplit(") ").next().unwrap_or_default().get(2..).unwrap_or_default());
        let ours = ours.iter().skip(10).take(4).sum::<u64>();
        Ok(Self { busy: Duration::from_millis(10 * busy), ours: Duration::from_millis(10 * ours) })
    }

    /// The part of one core that had other work since then.
    pub(crate) fn foreign_since(&self, before: &Self, over: Duration) -> f64 {
        let (busy, ours) = (self.busy - before.busy, self.ours - before.ours);
        busy.saturating_sub(ours).as_secs_f64() / over.as_secs_f64()
    }
}

fn ticks(text: &str) -> Vec<u64> {
    text.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect()
}
