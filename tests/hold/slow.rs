//! 8,000 idle and 1,000 byte-a-second connections: honest traffic hardly notices, and every slow one is cut at its
//! deadline.
//!
//! Of the idle ones, half never say anything (`first_byte`), and half have one message answered and then say nothing
//! (`idle`). The slow ones send a message of 68 bytes, a byte a second (`message`).

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use hythe::Bytes;

use crate::crowd::{Crowd, End, Member};
use crate::honest::{CONNECTIONS, Honest, Step};
use crate::plan::Plan;
use crate::process::Setup;
use crate::report::{Report, millis};
use crate::wire;

/// How much later than its deadline a connection may be cut.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Silent,
    Quiet,
    Dripping,
}

impl Kind {
    /// Of nine, four are silent, four are quiet, and one drips.
    fn of(number: usize) -> Self {
        match number % 9 {
            0..4 => Self::Silent,
            4..8 => Self::Quiet,
            _ => Self::Dripping,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent from the start",
            Self::Quiet => "silent after a message",
            Self::Dripping => "a byte a second",
        }
    }

    /// Since when its deadline runs, as strictly as its client can tell: never later than the server.
    fn since(self, member: &Member) -> Option<Instant> {
        match self {
            Self::Silent => Some(member.began),
            // the hello is sent right after
            Self::Quiet | Self::Dripping => member.connected,
        }
    }
}

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let connections = plan.pick(9000, 1800);
    let deadlines = [
        (Kind::Silent, plan.seconds(10.0, 2.0)),
        (Kind::Quiet, plan.seconds(15.0, 3.0)),
        (Kind::Dripping, plan.seconds(20.0, 4.0)),
    ];
    let mut setup = Setup::new("echo").with("max_connections", 10_000);
    for ((_, deadline), name) in deadlines.iter().zip(["first_byte", "idle", "message"]) {
        setup = setup.with(name, deadline.as_millis());
    }
    let mut server = setup.start(plan)?;
    let honest = Honest::start(server.address())?;
    let begin = honest.calm(plan.seconds(5.0, 2.0));
    let last = deadlines[2].1;
    let attack = Attack::new(server.address(), connections, last + 2 * GRACE)?;
    let crowd = honest.during(attack, Attack::step)?.crowd;
    let end = honest.now();
    honest.stop()?.rows("", report, begin, end)?;
    for (kind, deadline) in deadlines {
        cuts(&crowd, kind, deadline, report);
    }
    let (counts, _) = server.until(GRACE, |counts| counts.get("open") == 0)?;
    report.exactly("connections left when all have gone", counts.get("open"), 0);
    report.exactly(
        "connections that the server took",
        counts.get("accepted"),
        connections as u64 + u64::from(CONNECTIONS),
    );
    Ok(())
}

/// Opens all connections, 3,000 a second, and lets bytes drip into some, until all have ended or for a time after the last
/// was opened.
struct Attack {
    to: SocketAddr,
    connections: usize,
    time: Duration,
    begin: Instant,
    crowd: Crowd,
    /// When the next byte of a connection is due, which connection, and the place of the byte in its message.
    drips: VecDeque<(Instant, usize, usize)>,
    message: Bytes,
}

impl Attack {
    fn new(to: SocketAddr, connections: usize, time: Duration) -> Result<Self> {
        let (crowd, message) = (Crowd::new()?, Bytes::from(wire::frame(1000, 0)));
        Ok(Self { to, connections, time, begin: Instant::now(), crowd, drips: VecDeque::new(), message })
    }

    fn step(&mut self) -> Result<Step> {
        let every = Duration::from_secs(1) / 3000;
        let crowd = &mut self.crowd;
        let opened = crowd.members.len();
        if crowd.ended == self.connections || self.begin.elapsed() > every * self.connections as u32 + self.time {
            return Ok(Step::Done);
        }
        if opened < self.connections && self.begin.elapsed() >= every * opened as u32 {
            let kind = Kind::of(opened);
            let hello = match kind {
                Kind::Silent => Bytes::new(),
                Kind::Quiet => self.message.clone(),
                Kind::Dripping => self.message.slice(..1),
            };
            let number = crowd.open(self.to, Ipv4Addr::LOCALHOST, &hello)?;
            if kind == Kind::Dripping {
                self.drips.push_back((Instant::now() + Duration::from_secs(1), number, 1));
            }
        }
        if self.drips.front().is_some_and(|(due, ..)| *due <= Instant::now()) {
            if let Some((due, number, place)) = self.drips.pop_front() {
                if crowd.members[number].is_open() {
                    crowd.send(number, &self.message[place..=place])?;
                    self.drips.push_back((due + Duration::from_secs(1), number, place + 1));
                }
            }
        }
        Ok(if crowd.poll(Duration::ZERO)? > 0 { Step::Busy } else { Step::Quiet })
    }
}

/// When the connections of one kind were cut.
fn cuts(crowd: &Crowd, kind: Kind, deadline: Duration, report: &mut Report) {
    let name = kind.name();
    let (mut late, mut early, mut uncut, mut count) = (Duration::ZERO, 0, 0, 0);
    for (_, member) in crowd.members.iter().enumerate().filter(|(number, _)| Kind::of(*number) == kind) {
        count += 1;
        let (Some((at, End::Closed | End::Reset)), Some(since)) = (member.ended, kind.since(member)) else {
            uncut += 1;
            continue;
        };
        let lived = at - since;
        late = late.max(lived.saturating_sub(deadline));
        early += usize::from(lived < deadline);
    }
    let figure = format!("{uncut} not cut, {early} too early, the latest {} late", millis(late));
    let bar = format!("0 not cut, 0 too early, ≤ {} late", millis(GRACE));
    let met = uncut + early == 0 && late <= GRACE;
    report.row(format!("{count} {name}: to be cut after {}", millis(deadline)), figure, bar, met);
}
