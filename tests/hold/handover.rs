//! 20 restarts, each a new process that takes over from the one before, at 300 connects a second and with 100 long
//! sessions: no connect fails, none takes longer than 500 ms, and whoever was connected is answered.
//!
//! A client connects when it is due, whether or not those before it are through, and asks one question: every other one
//! at once, the rest 50 ms later, as if they were far away; a handover comes between the connect of some and their
//! question. A session asks ten questions a second, and connects again when the server says goodbye. Half of them are
//! answered after 80 ms, so that there is always something in hand. A session's question may cross the goodbye, as with
//! every protocol that lets the server end an idle connection: that is counted, and held against nothing.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hythe::Bytes;
use rustix::process::Signal;

use crate::crowd::{Crowd, End};
use crate::plan::Plan;
use crate::process::{Server, Setup};
use crate::report::{Report, millis};
use crate::wire;

const EVERY: Duration = Duration::from_micros(1_000_000 / 300);
/// How much later than their connect the distant ones ask.
const FAR: Duration = Duration::from_millis(50);
const SESSIONS: u32 = 100;
/// Between two questions of a session.
const PAUSE: Duration = Duration::from_millis(100);
/// Between the end of one handover and the next.
const REST: Duration = Duration::from_millis(700);
const LONGEST: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(20);

/// What the processes did.
#[derive(Default)]
struct Restarts {
    bad_exits: u64,
    cut: u64,
    unsent: u64,
    /// From the start of a process until it serves.
    takes: Vec<Duration>,
    /// From then until the end of the one before.
    drains: Vec<Duration>,
}

/// What the clients saw.
#[derive(Default)]
struct Seen {
    connects: Vec<Duration>,
    answers: Vec<Duration>,
    failed: u64,
    unanswered: u64,
    disorderly: u64,
    goodbyes: u64,
    crossed: u64,
    asked: u64,
}

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("handover");
    let start = || Setup::new("handover").with("path", path.display()).start(plan);
    let first = start()?;
    let to = first.address();
    let (count, over) = (plan.pick(20, 4), AtomicBool::new(false));
    let (restarts, seen) = std::thread::scope(|scope| {
        let restarts = scope.spawn(|| {
            let result = restart(first, count, start);
            over.store(true, Relaxed);
            result
        });
        let seen = visit(to, &over);
        (restarts.join(), seen)
    });
    let (Ok(restarts), mut seen) = (restarts, seen?) else { anyhow::bail!("the restarts panicked") };
    let (mut restarts, last) = restarts?;
    last.signal(Signal::TERM)?;
    end(last, &mut restarts)?;

    seen.connects.sort_unstable();
    seen.answers.sort_unstable();
    let slowest = seen.connects.last().copied().unwrap_or_default();
    report.exactly(format!("{count} restarts, {} connects: failed", seen.connects.len()), seen.failed, 0);
    report.within("the slowest connect", slowest, LONGEST);
    report.exactly("connected and not answered", seen.unanswered, 0);
    report.exactly("sessions without an orderly end", seen.disorderly, 0);
    report.exactly("connections cut, and bytes unsent, as the drains tell", restarts.cut + restarts.unsent, 0);
    report.exactly("exit codes other than 0", restarts.bad_exits, 0);
    let p99 = |times: &[Duration]| times.get(times.len() * 99 / 100).copied().unwrap_or_default();
    let most = |times: &[Duration]| millis(times.iter().max().copied().unwrap_or_default());
    report.note(format!(
        "p99 of the connects {}; of the answers, from the connect, {}, the slowest {}; a new process serves after {}, \
         the one before has ended {} later, at most",
        millis(p99(&seen.connects)),
        millis(p99(&seen.answers)),
        most(&seen.answers),
        most(&restarts.takes),
        most(&restarts.drains),
    ));
    report.note(format!(
        "{} questions of sessions; {} goodbyes to them, of which {} crossed a question",
        seen.asked, seen.goodbyes, seen.crossed
    ));
    Ok(())
}

/// Replaces one process after the other; the last one goes on.
fn restart(first: Server, count: usize, start: impl Fn() -> Result<Server>) -> Result<(Restarts, Server)> {
    let mut restarts = Restarts::default();
    let mut old = first;
    for number in 0..count {
        std::thread::sleep(REST);
        let begin = Instant::now();
        let new = start().with_context(|| format!("restart {number}"))?;
        restarts.takes.push(begin.elapsed());
        ensure!(new.addresses == old.addresses, "restart {number}: another port");
        let begin = Instant::now();
        end(old, &mut restarts).with_context(|| format!("restart {number}"))?;
        restarts.drains.push(begin.elapsed());
        old = new;
    }
    std::thread::sleep(REST);
    Ok((restarts, old))
}

/// Waits for the end of a process that is about to end.
fn end(mut server: Server, restarts: &mut Restarts) -> Result<()> {
    let (status, lines) = server.wait(PATIENCE)?;
    if status.and_then(|status| status.code()) != Some(0) {
        restarts.bad_exits += 1;
    }
    for line in lines {
        if let ["report", _, cut, unsent] = line.split(' ').collect::<Vec<_>>()[..] {
            restarts.cut += cut.parse::<u64>()?;
            restarts.unsent += unsent.parse::<u64>()?;
        }
    }
    Ok(())
}

/// One who connects for one question.
struct Visitor {
    member: usize,
    /// When it asks, if it has not yet.
    asks: Option<Instant>,
}

/// One who stays.
struct Session {
    who: u32,
    member: usize,
    /// Questions on this connection.
    asked: usize,
    due: Instant,
    /// The connect is counted.
    counted: bool,
}

/// The clients, until `over`.
fn visit(to: SocketAddr, over: &AtomicBool) -> Result<Seen> {
    let (mut seen, mut crowd) = (Seen::default(), Crowd::new()?);
    let (question, nothing) = (Bytes::from(wire::frame(1000, 0)), Bytes::new());
    let begin = Instant::now();
    let mut sessions = Vec::new();
    for who in 0..SESSIONS {
        let member = crowd.open(to, Ipv4Addr::LOCALHOST, &nothing)?;
        sessions.push(Session { who, member, asked: 0, due: begin, counted: false });
    }
    let (mut visitors, mut count) = (VecDeque::new(), 0);
    let mut last = None;
    while last.is_none() || !visitors.is_empty() {
        let now = Instant::now();
        if last.is_none() && over.load(Relaxed) {
            last = Some(now);
        }
        if last.is_some_and(|last| now > last + PATIENCE) {
            seen.unanswered += visitors.len() as u64;
            break;
        }
        while last.is_none() && EVERY * count <= begin.elapsed() {
            // ports of one address would all be in TIME_WAIT in the end
            let from = Ipv4Addr::new(127, 0, 0, 2 + (count % 8) as u8);
            let far = count % 2 == 1;
            let member = crowd.open(to, from, if far { &nothing } else { &question })?;
            visitors.push_back(Visitor { member, asks: far.then(|| now + FAR) });
            count += 1;
        }
        for _ in 0..visitors.len() {
            let Some(visitor) = visitors.pop_front() else { break };
            visitors.extend(seen.visited(visitor, &mut crowd, &question)?);
        }
        if last.is_none() {
            sessions.iter_mut().try_for_each(|session| seen.lasted(session, &mut crowd, to))?;
        }
        crowd.poll(Duration::from_micros(500))?;
    }
    Ok(seen)
}

impl Seen {
    /// Looks after a visitor, and gives back one that is not through.
    fn visited(&mut self, mut visitor: Visitor, crowd: &mut Crowd, question: &Bytes) -> Result<Option<Visitor>> {
        let member = &crowd.members[visitor.member];
        if let (Some(connected), Some(answered)) = (member.connected, member.answered) {
            self.connects.push(connected - member.began);
            self.answers.push(answered - member.began);
            crowd.close(visitor.member);
            return Ok(None);
        }
        if member.ended.is_some() {
            match member.connected {
                Some(_) => self.unanswered += 1,
                None => self.failed += 1,
            }
            return Ok(None);
        }
        if member.connected.is_some() && visitor.asks.is_some_and(|at| Instant::now() >= at) {
            visitor.asks = None;
            crowd.send(visitor.member, question)?;
        }
        Ok(Some(visitor))
    }

    /// Looks after a session: its next question, or its next connection.
    fn lasted(&mut self, session: &mut Session, crowd: &mut Crowd, to: SocketAddr) -> Result<()> {
        let member = &crowd.members[session.member];
        if let (Some(connected), false) = (member.connected, session.counted) {
            self.connects.push(connected - member.began);
            session.counted = true;
        }
        let waits = member.messages.len() < session.asked;
        if let Some((_, how)) = member.ended {
            match how {
                End::Refused => self.failed += 1,
                End::Closed if member.torn() == 0 => self.goodbyes += 1,
                _ => self.disorderly += 1,
            }
            self.crossed += u64::from(waits);
            session.member = crowd.open(to, Ipv4Addr::LOCALHOST, &Bytes::new())?;
            (session.asked, session.counted) = (0, false);
            return Ok(());
        }
        if member.connected.is_some() && !waits && Instant::now() >= session.due {
            session.asked += 1;
            session.due = Instant::now() + PAUSE;
            self.asked += 1;
            crowd.send(session.member, &wire::frame(session.who, session.asked as u32))?;
        }
        Ok(())
    }
}
