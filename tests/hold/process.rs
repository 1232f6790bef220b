//! The server's process: started, asked, looked at from outside.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::plan::Plan;
use crate::serve::ROLE;

/// A server that says nothing for so long is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server to be: what it serves, and its options as `name=value`.
pub(crate) struct Setup {
    args: Vec<String>,
    preload: Vec<(String, String)>,
    pinned: bool,
}

impl Setup {
    pub(crate) fn new(what: &str) -> Self {
        Self { args: vec![format!("what={what}")], preload: Vec::new(), pinned: true }
    }

    pub(crate) fn with(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.args.push(format!("{name}={value}"));
        self
    }

    /// Loads a library into it first, which reads these variables.
    pub(crate) fn preload(mut self, library: &Path, variables: &[(&str, String)]) -> Self {
        self.preload.push(("LD_PRELOAD".into(), library.display().to_string()));
        self.preload.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        self
    }

    /// With four threads, on all cores: where it is not about time, but about what may happen at once.
    pub(crate) fn threads(mut self) -> Self {
        self.pinned = false;
        self.with("workers", 4)
    }

    pub(crate) fn start(self, plan: &Plan) -> Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ROLE).args(self.args).envs(self.preload);
        match plan.cores {
            Some((server, _)) if self.pinned => drop(command.arg(format!("cores={server}"))),
            Some((server, clients)) => drop(command.arg(format!("cores={server},{clients}"))),
            None => {}
        }
        command.args(&plan.overrides);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let input = child.stdin.take().context("the server has no stdin")?;
        let output = child.stdout.take().context("the server has no stdout")?;
        let (sender, lines) = channel();
        let reader = BufReader::new(output);
        std::thread::spawn(move || reader.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let log = Log::default();
        let errors = child.stderr.take().context("the server has no stderr")?;
        let kept = log.clone();
        std::thread::spawn(move || kept.fill(errors));
        let mut server = Server { child, input, lines, log, addresses: Vec::new() };
        let line = server.line().with_context(|| format!("the server did not start: {:?}", server.log.lines()))?;
        server.addresses = line.split(' ').map(str::parse).collect::<Result<_, _>>().context(line)?;
        Ok(server)
    }
}

/// What the server wrote to its standard error, and when.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<(Instant, String)>>>);

impl Log {
    fn fill(&self, from: impl Read) {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), line));
        }
    }

    pub(crate) fn lines(&self) -> Vec<(Instant, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The lines that contain a text.
    pub(crate) fn with(&self, text: &str) -> Vec<(Instant, String)> {
        self.lines().into_iter().filter(|(_, line)| line.contains(text)).collect()
    }
}

/// A server in a process of its own, which is killed with this value.
pub(crate) struct Server {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    pub(crate) log: Log,
    /// Where it listens.
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Server {
    /// Where it listens first.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub(crate) fn line(&self) -> Result<String> {
        self.lines.recv_timeout(PATIENCE).context("the server says nothing")
    }

    /// A command, and the line that answers it.
    pub(crate) fn ask(&mut self, command: &str) -> Result<String> {
        writeln!(self.input, "{command}")?;
        let line = self.line()?;
        ensure!(!line.starts_with("what?"), "the server does not know {command}");
        Ok(line)
    }

    /// Its counters and gauges.
    pub(crate) fn counts(&mut self) -> Result<Counts> {
        let line = self.ask("counts")?;
        let pairs = line.split(' ').filter_map(|pair| pair.split_once('='));
        Ok(Counts(pairs.map(|(name, value)| Ok((name.to_owned(), value.parse()?))).collect::<Result<_>>()?))
    }

    /// Asks for the counts until a condition holds; the last ones, and whether it came to hold in time.
    pub(crate) fn until(&mut self, time: Duration, holds: impl Fn(&Counts) -> bool) -> Result<(Counts, bool)> {
        let deadline = Instant::now() + time;
        loop {
            let counts = self.counts()?;
            let held = holds(&counts);
            if held || Instant::now() >= deadline {
                return Ok((counts, held));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no process")?;
        Ok(kill_process(pid, signal)?)
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end, and gives what it still said.
    pub(crate) fn wait(&mut self, time: Duration) -> Result<(Option<ExitStatus>, Vec<String>)> {
        let deadline = Instant::now() + time;
        while self.ended()?.is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        let status = self.ended()?;
        let lines = match status {
            // to the end of the pipe
            Some(_) => self.lines.iter().collect(),
            None => self.lines.try_iter().collect(),
        };
        Ok((status, lines))
    }

    fn proc(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.child.id());
        std::fs::read_to_string(&path).context(path)
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        let status = self.proc("status")?;
        let bytes = |name: &str| {
            let line =
                status.lines().find_map(|line| line.strip_prefix(name)).context("a line of status is missing")?;
            let kib: u64 = line.trim_start_matches(':').trim().trim_end_matches("kB").trim_end().parse()?;
            Ok::<_, anyhow::Error>(kib << 10)
        };
        let (resident, space) = (bytes("VmRSS")?, bytes("VmSize")?);
        Ok(Memory { resident, space, most_resident: bytes("VmHWM")?, most_space: bytes("VmPeak")? })
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }

    /// Processor time that its threads have taken.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut sum = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
            sum += text.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).context("no schedstat")?;
        }
        Ok(Duration::from_nanos(sum))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In bytes.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) space: u64,
    pub(crate) most_resident: u64,
    pub(crate) most_space: u64,
}

/// What a server has counted.
#[derive(Clone, Debug)]
pub(crate) struct Counts(HashMap<String, u64>);

impl Counts {
    pub(crate) fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }
}
