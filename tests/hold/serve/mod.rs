//! What runs in the server's process.
//!
//! It is told what to serve by its arguments, says on its first line where it listens, and answers a line on its
//! standard input with a line. It ends with its input.
//!
//! | file | what it is |
//! |---|---|
//! | `mod` | the options, the runtime, the questions |
//! | `echo` | answers each message with itself |
//! | `panicky` | the same, with a panic for some |
//! | `acking` | answers after some work, and remembers for whom |
//! | `handover` | takes over from the process before |
//! | `secure` | echoes over TLS, and in the clear beside it |
//! | `log` | what hythe reports, to standard error |

mod acking;
mod echo;
#[cfg(feature = "handover")]
mod handover;
mod log;
mod panicky;
#[cfg(feature = "tls")]
mod secure;

use std::collections::HashMap;
use std::io::BufRead;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hythe::{Limits, Overload, PeerAddress, Refusal, Running};
use tokio::runtime::Handle;

use crate::{machine, wire};

pub(crate) use panicky::Place;

/// The first argument of a process that is to be the server.
pub(crate) const ROLE: &str = "server";
/// What somebody for whom there is no room is told, where he is told anything.
pub(crate) const FULL: &[u8] = b"there is no room";

/// What is counted outside of hythe, to be held against what it says itself.
#[derive(Default)]
struct Gauges {
    /// Handlers that are there, and how many there were at most.
    live: AtomicU64,
    most: AtomicU64,
    /// Calls of `on_open` and of `on_close`.
    opens: AtomicU64,
    closes: AtomicU64,
    panics: AtomicU64,
}

static GAUGES: Gauges = Gauges {
    live: AtomicU64::new(0),
    most: AtomicU64::new(0),
    opens: AtomicU64::new(0),
    closes: AtomicU64::new(0),
    panics: AtomicU64::new(0),
};

/// One handler, from its making to `on_close` or its drop.
struct Inside;

impl Inside {
    fn enter() -> Self {
        let now = GAUGES.live.fetch_add(1, Relaxed) + 1;
        GAUGES.most.fetch_max(now, Relaxed);
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        GAUGES.live.fetch_sub(1, Relaxed);
    }
}

struct Options(HashMap<String, String>);

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let pair = |arg: &String| {
            let (name, value) = arg.split_once('=').with_context(|| format!("{arg} is no option"))?;
            Ok((name.to_owned(), value.to_owned()))
        };
        Ok(Self(args.iter().map(pair).collect::<Result<_>>()?))
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn get<T: FromStr>(&self, name: &str) -> Result<Option<T>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).ok().with_context(|| format!("{name} cannot be {text}"))
    }

    fn limits(&self) -> Result<Limits> {
        let mut limits = Limits::edge();
        if let Some(count) = self.get("max_connections")? {
            limits = limits.with_max_connections(count);
        }
        if let Some(bytes) = self.get("memory")? {
            limits = limits.with_memory(bytes);
        }
        if let Some(count) = self.get("backlog")? {
            limits = limits.with_backlog(count);
        }
        if let Some(count) = self.get("handshakes")? {
            limits = limits.with_handshakes(count);
        }
        type Setter = fn(Limits, Duration) -> Limits;
        let durations: [(&str, Setter); 6] = [
            ("handshake", Limits::with_handshake),
            ("first_byte", Limits::with_first_byte),
            ("message", Limits::with_message),
            ("idle", Limits::with_idle),
            ("half_close", Limits::with_half_close),
            ("drain", Limits::with_drain),
        ];
        for (name, with) in durations {
            if let Some(millis) = self.get(name)? {
                limits = with(limits, Duration::from_millis(millis));
            }
        }
        Ok(limits.with_overload(match self.text("overload") {
            None | Some("hold") => Overload::Hold,
            Some("reset") => Overload::Reset,
            Some("answer") => Overload::Answer(wire::framed(FULL).into()),
            Some(other) => bail!("there is no overload {other}"),
        }))
    }
}

pub(crate) fn run(args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    machine::raise_file_limit();
    if let Some(cores) = options.text("cores") {
        machine::pin(&cores.split(',').map(str::parse).collect::<Result<Vec<_>, _>>()?)?;
    }
    if let Some(bytes) = options.get("address_space")? {
        machine::limit_address_space(bytes)?;
    }
    if let Some(count) = options.get("presize")? {
        machine::presize_descriptors(count)?;
    }
    if options.text("log").is_some() {
        log::to_stderr()?;
    }
    std::panic::set_hook(Box::new(|_| {
        GAUGES.panics.fetch_add(1, Relaxed);
    }));
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = options.get("workers")? {
        runtime.worker_threads(workers);
    }
    let what = options.text("what").context("what to serve?")?;
    runtime.enable_all().build()?.block_on(async {
        match what {
            "echo" => echo::serve(&options).await,
            "panicky" => panicky::serve(&options).await,
            "acking" => acking::serve(&options).await,
            #[cfg(feature = "tls")]
            "secure" => secure::serve(&options).await,
            #[cfg(feature = "handover")]
            "handover" => handover::serve(&options).await,
            other => bail!("there is no {other} to serve"),
        }
    })
}

/// Says where it listens.
fn announce(running: &Running) {
    let addresses: Vec<String> =
        running.endpoints().iter().map(|at| at.to_string().split("://").skip(1).collect()).collect();
    println!("{}", addresses.join(" "));
}

/// Answers questions on a thread of its own, which a stalled runtime does not stall. Never returns: the process ends
/// with its input.
async fn answer(running: Running) -> Result<()> {
    announce(&running);
    let runtime = Handle::current();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            match reply(&line, &running, &runtime) {
                Ok(reply) => println!("{reply}"),
                Err(error) => println!("what? {error}"),
            }
        }
        std::process::exit(0);
    });
    std::future::pending().await
}

fn reply(line: &str, running: &Running, runtime: &Handle) -> Result<String> {
    let (command, value) = line.split_once(' ').unwrap_or((line, ""));
    Ok(match command {
        "counts" => counts(running),
        "memory" => running.counters().memory.to_string(),
        "worst_case" => running.limits().worst_case_memory().to_string(),
        "limits" => running.limits().to_string().replace('\n', "; "),
        // in, of those connections that are open
        "bytes" => running.connections().iter().map(|connection| connection.bytes_in).sum::<u64>().to_string(),
        "stall" => {
            stall(runtime, Duration::from_millis(value.parse()?));
            "stalled".into()
        }
        "drain" => drain(running, value.parse()?).to_string(),
        _ => bail!("{command}"),
    })
}

fn counts(running: &Running) -> String {
    let counters = running.counters();
    let gauge = |gauge: &AtomicU64| gauge.load(Relaxed);
    [
        ("accepted", counters.accepted),
        ("open", counters.open),
        ("closed", counters.closed),
        ("accept_errors", counters.accept_errors),
        ("refused", Refusal::ALL.iter().map(|why| counters.refused(*why)).sum()),
        ("handshakes", counters.handshakes),
        ("live", gauge(&GAUGES.live)),
        ("most", gauge(&GAUGES.most)),
        ("opens", gauge(&GAUGES.opens)),
        ("closes", gauge(&GAUGES.closes)),
        ("panics", gauge(&GAUGES.panics)),
    ]
    .map(|(name, value)| format!("{name}={value}"))
    .join(" ")
}

/// Blocks every thread of the runtime for a time. Returns once all of them are blocked.
fn stall(runtime: &Handle, time: Duration) {
    let workers = runtime.metrics().num_workers();
    let barrier = Arc::new(Barrier::new(workers + 1));
    for _ in 0..workers {
        let barrier = Arc::clone(&barrier);
        runtime.spawn(async move {
            // memory of this thread: the allocator has an arena for each, once it has asked for something
            let memory = std::hint::black_box(vec![0_u8; 4096]);
            // a worker that waits here takes no second one of these tasks
            barrier.wait();
            drop(memory);
            std::thread::sleep(time);
        });
    }
    barrier.wait();
}

/// Has the connections of one address drain; how many that are.
fn drain(running: &Running, address: std::net::Ipv4Addr) -> usize {
    let within = Duration::from_secs(10);
    let peers = running.connections().into_iter().filter(|connection| match connection.peer.address() {
        PeerAddress::Ip(at) => at.ip() == address,
        _ => false,
    });
    peers.filter(|connection| running.drain_connection(connection.id, within)).count()
}
