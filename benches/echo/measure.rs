//! A server's process, what it costs, and what disturbed the measurement.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::peers::Peer;
use crate::plan::{Scenario, Transport};
use crate::syscalls::Strace;

/// Keeps this process on one core.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("cannot pin to core {core}"))
}

/// One core for the server and one for the load, where there are two.
pub(crate) fn cores() -> Result<Option<(usize, usize)>> {
    let allowed = sched_getaffinity(None)?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    Ok(cores.next().zip(cores.next()))
}

/// Raises the limit of open files as far as this process may, and tells it.
pub(crate) fn raise_file_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let limit = if raised { maximum } else { current };
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// A server in a process of its own, which ends with this value.
pub(crate) struct Server {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// It answers a line with the CPU time it has used.
    tells: bool,
    /// System calls are to be counted.
    pub(crate) traced: bool,
    pub(crate) transport: Transport,
    /// `127.0.0.1:PORT`, or the socket's path.
    pub(crate) address: String,
    /// Where a server that speaks TLS puts its certificate.
    #[cfg(feature = "tls")]
    pub(crate) certificate: std::path::PathBuf,
    /// The server's and the load's.
    pub(crate) cores: Option<(usize, usize)>,
}

impl Server {
    pub(crate) fn start(
        peer: &Peer,
        scenario: &Scenario,
        socket: &Path,
        cores: Option<(usize, usize)>,
        traced: bool,
    ) -> Result<Self> {
        let words = peer.command(scenario, socket)?;
        let (program, args) = words.split_first().context("no command")?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        // a process runs where the one that starts it does
        cores.map(|(server, _)| pin(server)).transpose()?;
        let child = command.spawn();
        cores.map(|(_, load)| pin(load)).transpose()?;
        let mut child = child.with_context(|| format!("starting {program}"))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (input, output) = input.zip(output).context("the server has no pipes")?;
        let (output, transport) = (BufReader::new(output), scenario.transport);
        let mut server = Self {
            child,
            input,
            output,
            tells: peer.tells(),
            traced,
            transport,
            address: String::new(),
            #[cfg(feature = "tls")]
            certificate: socket.with_file_name("certificate"),
            cores,
        };
        server.address = server.line()?;
        Ok(server)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.output.read_line(&mut line)? > 0, "the server ended");
        Ok(line.trim_end().to_owned())
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// CPU time used so far. Of a server that does not tell, what the scheduler has noted: that is as of its last tick.
    fn cpu(&mut self) -> Result<Duration> {
        if self.tells {
            self.input.write_all(b"\n")?;
            return Ok(Duration::from_nanos(self.line()?.parse()?));
        }
        let mut nanos = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // a thread may have ended since
            let text = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            nanos += text.split_whitespace().next().map_or(Ok(0), str::parse::<u64>)?;
        }
        ensure!(nanos > 0, "no CPU time: this kernel keeps no schedstat");
        Ok(Duration::from_nanos(nanos))
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).context("no Rss in smaps_rollup")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim_end().parse()?;
        Ok(kib << 10)
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What one run gave.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Of the server: CPU nanoseconds per message, or resident bytes per connection.
    pub(crate) cost: f64,
    /// Messages per second.
    pub(crate) rate: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Which part of the time the load generator had something to do.
    pub(crate) load: f64,
    /// How busy either core was with something else.
    pub(crate) foreign: f64,
    /// Messages that never came back.
    pub(crate) lost: u64,
    /// System calls per message, the most frequent first; where they were counted.
    pub(crate) calls: Vec<(String, f64)>,
}

/// The clocks at one moment.
struct Reading {
    at: Instant,
    server: Duration,
    load: Duration,
    /// Busy time of the two cores.
    busy: Option<(Duration, Duration)>,
}

/// The measured part of a run: it opens after the warm-up, and closes.
pub(crate) struct Window<'a> {
    server: &'a mut Server,
    origin: Instant,
    opens: Duration,
    length: Duration,
    opened: Option<Reading>,
    messages: u64,
    lost: u64,
    strace: Option<Strace>,
    latencies: Latencies,
    /// When `poll` was last called, and how many messages there were then.
    polled: (Duration, u64),
    /// Between calls of `poll` without messages.
    idle: Duration,
}

impl<'a> Window<'a> {
    pub(crate) fn new(server: &'a mut Server, warm_up: Duration, length: Duration) -> Self {
        Self {
            server,
            origin: Instant::now(),
            opens: warm_up,
            length,
            opened: None,
            messages: 0,
            lost: 0,
            strace: None,
            latencies: Latencies::new(),
            polled: (Duration::ZERO, 0),
            idle: Duration::ZERO,
        }
    }

    /// Nanoseconds since the start of the run.
    pub(crate) fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// So many messages have come back, each of which was sent so many nanoseconds ago.
    pub(crate) fn record(&mut self, messages: u64, latency: u64) {
        // of what was under way when strace came, it may not have seen all
        if self.strace.is_some() && self.now().saturating_sub(latency) < self.opens.as_nanos() as u64 {
            return;
        }
        self.messages += messages;
        self.latencies.record(messages, latency);
    }

    /// Whether strace slows the server down.
    pub(crate) fn traced(&self) -> bool {
        self.server.traced
    }

    /// So many messages will not come back.
    pub(crate) fn lose(&mut self, messages: u64) {
        self.lost += messages;
    }

    /// Where the server listens.
    pub(crate) fn address(&self) -> &str {
        &self.server.address
    }

    /// The sample, once the window has closed.
    pub(crate) fn poll(&mut self) -> Result<Option<Sample>> {
        let now = self.origin.elapsed();
        if self.polled.1 == self.messages {
            self.idle += now - self.polled.0;
        }
        self.polled = (now, self.messages);
        if self.opened.is_none() && now >= self.opens {
            if self.server.traced {
                self.strace = Some(Strace::start(self.server.id())?);
            }
            self.opened = Some(self.read()?);
            self.opens = self.origin.elapsed();
            (self.messages, self.lost) = (0, 0);
            self.latencies.clear();
            self.idle = Duration::ZERO;
            self.polled = (self.opens, 0);
        } else if self.opened.is_some() && now >= self.opens + self.length {
            let messages = self.messages;
            let end = self.read()?;
            let calls = self.strace.take().map(|strace| strace.stop(messages)).transpose()?.unwrap_or_default();
            let Some(start) = self.opened.take() else { return Ok(None) };
            return Ok(Some(Sample { calls, ..self.sample(&start, &end, messages)? }));
        }
        Ok(None)
    }

    fn read(&mut self) -> Result<Reading> {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        let load = Duration::new(time.tv_sec as u64, time.tv_nsec as u32);
        let busy =
            self.server.cores.map(|(a, b)| Ok::<_, anyhow::Error>((core_busy(a)?, core_busy(b)?))).transpose()?;
        Ok(Reading { at: Instant::now(), server: self.server.cpu()?, load, busy })
    }

    fn sample(&self, start: &Reading, end: &Reading, messages: u64) -> Result<Sample> {
        ensure!(messages > 0, "the server answered nothing");
        let wall = (end.at - start.at).as_secs_f64();
        let server = (end.server - start.server).as_secs_f64();
        let load = (end.load - start.load).as_secs_f64();
        let foreign = match (start.busy, end.busy) {
            (Some(start), Some(end)) => {
                let on_server = (end.0 - start.0).as_secs_f64() - server;
                let on_load = (end.1 - start.1).as_secs_f64() - load;
                on_server.max(on_load).max(0.0) / wall
            }
            _ => 0.0,
        };
        Ok(Sample {
            cost: server * 1e9 / messages as f64,
            rate: messages as f64 / wall,
            p50: self.latencies.quantile(0.5),
            p99: self.latencies.quantile(0.99),
            load: (load / wall).min(1.0 - self.idle.as_secs_f64() / wall),
            foreign,
            lost: self.lost,
            calls: Vec::new(),
        })
    }
}

/// How long a core has been busy since boot, also for another machine of our host; in steps of 10 ms.
fn core_busy(core: usize) -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let name = format!("cpu{core} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name)).context("no such core in /proc/stat")?;
    let ticks: Vec<u64> = line.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>()?;
    // user, nice, system, idle, iowait, irq, softirq, steal
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    Ok(Duration::from_millis(10 * (ticks.iter().sum::<u64>() - idle)))
}

/// Counts of latencies in nanoseconds, in 32 steps for each power of two.
struct Latencies {
    counts: Vec<u64>,
}

impl Latencies {
    const STEPS: u64 = 32;

    fn new() -> Self {
        Self { counts: vec![0; 64 * Self::STEPS as usize] }
    }

    fn clear(&mut self) {
        self.counts.fill(0);
    }

    fn record(&mut self, count: u64, nanos: u64) {
        let shift = u64::from((nanos | Self::STEPS).ilog2()) - u64::from(Self::STEPS.ilog2());
        self.counts[(shift * Self::STEPS + (nanos >> shift)) as usize] += count;
    }

    /// In microseconds; the upper end of the step it falls into.
    fn quantile(&self, part: f64) -> f64 {
        let target = self.counts.iter().sum::<u64>() as f64 * part;
        let mut seen = 0;
        let step = self.counts.iter().position(|count| {
            seen += count;
            seen as f64 >= target
        });
        let step = step.unwrap_or(0) as u64;
        let shift = (step / Self::STEPS).saturating_sub(1);
        ((step - shift * Self::STEPS + 1) << shift) as f64 / 1000.0
    }
}
