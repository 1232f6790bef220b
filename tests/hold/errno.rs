//! Each error of accepting, injected 50 times in a row: the server still serves within 1.2 s of the last one; an error
//! that is the listener's own is reported once, ends that listener and no other, and the process does not spin.
//!
//! A small C library, built with `cc` and loaded into the server first, fails `accept4`. The server has two listeners, and
//! the first one's accepts fail.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use hythe::Bytes;

use crate::crowd::Crowd;
use crate::plan::Plan;
use crate::process::{Server, Setup};
use crate::report::{Report, millis};
use crate::wire;

const SHIM: &str = include_str!("accept_shim.c");
/// How soon after the last error a client must be served.
const SOON: Duration = Duration::from_millis(1200);
/// The part of a core that the server may use while accepting fails, or after it has ended.
const SPIN: f64 = 0.05;

/// What an error is about, and so what is expected of the server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// The connection, or a lack of something: the listener goes on.
    Passing,
    /// The listener.
    Fatal,
}

/// As on Linux, on most machines.
const ERRORS: [(&str, i32, Class); 20] = [
    ("EINTR", 4, Class::Passing),
    ("ECONNABORTED", 103, Class::Passing),
    ("EPROTO", 71, Class::Passing),
    ("ENETDOWN", 100, Class::Passing),
    ("ENOPROTOOPT", 92, Class::Passing),
    ("EHOSTDOWN", 112, Class::Passing),
    ("ENONET", 64, Class::Passing),
    ("EHOSTUNREACH", 113, Class::Passing),
    ("EOPNOTSUPP", 95, Class::Passing),
    ("ENETUNREACH", 101, Class::Passing),
    ("ETIMEDOUT", 110, Class::Passing),
    ("EPERM", 1, Class::Passing),
    ("EMFILE", 24, Class::Passing),
    ("ENFILE", 23, Class::Passing),
    ("ENOBUFS", 105, Class::Passing),
    ("ENOMEM", 12, Class::Passing),
    ("EBADF", 9, Class::Fatal),
    ("ENOTSOCK", 88, Class::Fatal),
    ("EINVAL", 22, Class::Fatal),
    ("EFAULT", 14, Class::Fatal),
];

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (source, library) = (folder.path().join("shim.c"), folder.path().join("shim.so"));
    std::fs::write(&source, SHIM)?;
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl");
    match compiler.status() {
        Ok(status) => ensure!(status.success(), "cc cannot build the shim: {status}"),
        Err(error) => {
            report.skip("all errors", format!("no C compiler `cc` to build the shim with: {error}"));
            return Ok(());
        }
    }
    // with pauses of 640 ms, 50 times take half a minute: all errors at once, each with a server of its own
    let times = plan.pick(50, 12);
    let results = std::thread::scope(|scope| {
        let inject = |(_, number, class)| inject(plan, &library, number, times, class);
        let threads: Vec<_> = ERRORS.map(|error| scope.spawn(move || inject(error))).into_iter().collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))).collect::<Vec<_>>()
    });
    let mut notes: Vec<(String, Vec<&str>)> = Vec::new();
    for ((name, _, class), result) in ERRORS.into_iter().zip(results) {
        let seen = result?.with_context(|| name)?;
        seen.rows(name, times, class, report);
        let note = seen.note();
        match notes.iter_mut().find(|(known, _)| *known == note) {
            Some((_, names)) => names.push(name),
            None => notes.push((note, vec![name])),
        }
    }
    notes.iter().for_each(|(note, names)| report.note(format!("{}: {note}", names.join(", "))));
    Ok(())
}

/// What became of one server.
struct Seen {
    /// From the last error to the answer of a client of the first listener; of a fatal error, of the second one.
    served: Option<Duration>,
    errors: u64,
    /// Lines of the log about a broken listener, and about a pause.
    broken: usize,
    pauses: usize,
    /// The part of a core that the server used: while the errors came, or after the listener had ended.
    cpu: f64,
    /// Clients that came while accepting failed, by what became of them.
    early: HashMap<&'static str, usize>,
    injecting: Duration,
}

impl Seen {
    fn rows(&self, name: &str, times: u32, class: Class, report: &mut Report) {
        let served = self.served.map_or("not in 5 s".into(), millis);
        let met = self.served.is_some_and(|time| time <= SOON) && self.cpu < SPIN;
        let cpu = format!("{:.1} % of a core", self.cpu * 100.0);
        let bar = format!("≤ {}, < {:.0} % of a core", millis(SOON), SPIN * 100.0);
        let (broken, over) = (self.broken, millis(self.injecting));
        match class {
            Class::Passing => {
                let figure = format!("{times} in {over}, then served after {served}; {cpu}");
                report.row(name, figure, bar, met && broken == 0);
            }
            Class::Fatal => {
                let figure = format!("reported {broken} ×, the other listener serves after {served}; {cpu}");
                report.row(format!("{name} (fatal)"), figure, format!("reported 1 ×, {bar}"), met && broken == 1);
            }
        }
    }

    /// What else there is to know.
    fn note(&self) -> String {
        let mut early: Vec<_> = self.early.iter().map(|(what, count)| format!("{count} {what}")).collect();
        early.sort_unstable();
        format!("{} counted, {} pauses reported, of 10 clients {}", self.errors, self.pauses, early.join(" and "))
    }
}

fn inject(plan: &Plan, library: &Path, number: i32, times: u32, class: Class) -> Result<Seen> {
    let variables = [("HOLD_ERRNO", number.to_string()), ("HOLD_TIMES", times.to_string())];
    let setup = Setup::new("echo").with("listeners", 2).with("log", 1).with("workers", 2).preload(library, &variables);
    let mut server = setup.start(plan)?;
    let [first, second] = server.addresses[..] else { anyhow::bail!("there are not two listeners") };
    let hello = Bytes::from(wire::frame(1, 1));
    let mut early = Crowd::new()?;
    let before = server.cpu()?;
    early.open_all(10, first, Ipv4Addr::LOCALHOST, &hello)?;
    let begin = told(&server, "shim: first")?;
    let (last, to) = match class {
        Class::Passing => (told(&server, "shim: last")?, first),
        // the listener ends with the first one
        Class::Fatal => (begin, second),
    };
    let (injecting, used) = (last - begin, server.cpu()? - before);
    let served = served(to, last)?;
    let (before, over) = (server.cpu()?, Duration::from_secs(1));
    // not a wait for anything: the time over which the processor's is measured
    sleep(over);
    let mut cpu = (server.cpu()? - before).as_secs_f64() / over.as_secs_f64();
    if injecting > over / 2 {
        cpu = cpu.max(used.as_secs_f64() / injecting.as_secs_f64());
    }
    let done = |crowd: &Crowd| crowd.members.iter().all(|one| one.answered.is_some() || !one.is_open());
    early.wait(Duration::from_secs(2), done)?;
    let early = became(&early);
    let (broken, pauses) = (server.log.with("is broken").len(), server.log.with("pausing").len());
    let errors = server.counts()?.get("accept_errors");
    Ok(Seen { served, errors, broken, pauses, cpu, early, injecting })
}

/// What has become of clients.
fn became(crowd: &Crowd) -> HashMap<&'static str, usize> {
    let mut became = HashMap::new();
    for member in &crowd.members {
        let what = match (member.answered, member.ended) {
            (Some(_), _) => "served",
            (None, Some(_)) => "closed",
            (None, None) => "left waiting",
        };
        *became.entry(what).or_default() += 1;
    }
    became
}

/// When the shim said something.
fn told(server: &Server, what: &str) -> Result<Instant> {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        if let Some((at, _)) = server.log.with(what).first() {
            return Ok(*at);
        }
        ensure!(Instant::now() < deadline, "not seen within 90 s: {what}");
        sleep(Duration::from_millis(1));
    }
}

/// When a client is served, from a time on: one that comes after it, and comes again if it is closed.
fn served(to: SocketAddr, since: Instant) -> Result<Option<Duration>> {
    let hello = Bytes::from(wire::frame(2, 1));
    while since.elapsed() < Duration::from_secs(5) {
        let mut crowd = Crowd::new()?;
        crowd.open(to, Ipv4Addr::LOCALHOST, &hello)?;
        crowd.wait(Duration::from_secs(5), |crowd| crowd.answered + crowd.ended > 0)?;
        if crowd.answered == 1 {
            return Ok(Some(since.elapsed()));
        }
        sleep(Duration::from_millis(1));
    }
    Ok(None)
}
