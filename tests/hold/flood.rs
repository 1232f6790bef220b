//! 6,000 connects against a limit of 2,000: never more than 2,000 live, honest traffic hardly notices, and when the
//! flood is over there is room again.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use hythe::Bytes;

use crate::crowd::Crowd;
use crate::honest::{CONNECTIONS, Honest, Step};
use crate::plan::Plan;
use crate::process::Setup;
use crate::report::{Report, millis};
use crate::serve::FULL;
use crate::wire;

/// How soon there must be room again.
const FREE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);

/// What a server does with those for whom there is no room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Overload {
    Hold,
    Reset,
    Answer,
}

/// Each is run.
const OVERLOADS: [(Overload, &str); 3] =
    [(Overload::Hold, "hold"), (Overload::Reset, "reset"), (Overload::Answer, "answer")];

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    for (overload, name) in OVERLOADS {
        once(plan, report, overload, name)?;
    }
    Ok(())
}

fn once(plan: &Plan, report: &mut Report, overload: Overload, name: &str) -> Result<()> {
    let limit = plan.pick(2000, 500);
    let connects = 3 * limit;
    let setup = Setup::new("echo").with("max_connections", limit).with("overload", name);
    let mut server = setup.with("first_byte", 60_000).with("idle", 60_000).start(plan)?;
    let (to, hello) = (server.address(), Bytes::from(wire::frame(1000, 0)));
    let honest = Honest::start(to)?;
    // of its own: the honest connections are open by now
    let own = server.descriptors()? - CONNECTIONS as usize;

    let begin = honest.calm(plan.seconds(5.0, 1.5));
    let greeting = hello.clone();
    let mut crowd = honest.during(Crowd::new()?, move |crowd| open(crowd, connects, to, &greeting))?;
    let opened = honest.now();
    let mut descriptors = 0;
    for _ in 0..plan.pick(8, 3) {
        crowd = rest(&honest, crowd, Duration::from_millis(500))?;
        descriptors = descriptors.max(server.descriptors()? - own);
    }
    let counts = server.counts()?;
    let (answered, refused) = (heard(&crowd, &hello[4..]), heard(&crowd, FULL));
    let (ended, left) = (crowd.ended, crowd.members.len() - crowd.ended);

    let (closed, over) = (honest.now(), Instant::now());
    honest.during(crowd, close)?;
    let next = answer(&honest, to, over)?;
    let (_, empty) = server.until(PATIENCE, |counts| counts.get("open") == u64::from(CONNECTIONS))?;
    let gone = empty.then(|| over.elapsed());
    let end = honest.calm(Duration::from_millis(200));
    let traffic = honest.stop()?;
    traffic.rows(&format!("{name}: "), report, begin, end)?;

    let room = limit - CONNECTIONS as usize;
    report.at_most(format!("{name}: handlers at once"), counts.get("most"), limit as u64);
    report.at_most(format!("{name}: connections open while they are there"), descriptors, limit);
    report.exactly(format!("{name}: connections served"), answered, room);
    let turned_away = if overload == Overload::Hold { 0 } else { connects - room };
    report.exactly(
        format!("{name}: connections that the server says it refused"),
        counts.get("refused"),
        turned_away as u64,
    );
    report.exactly(format!("{name}: connections that the server ended"), ended, turned_away);
    report.exactly(format!("{name}: connections that are still there"), left, connects - turned_away);
    if overload == Overload::Answer {
        report.row(
            format!("{name}: told that there is no room"),
            format!("{refused} of {ended}"),
            "≥ 64",
            refused >= 64,
        );
    }
    let bar = format!("≤ {}", millis(FREE));
    let mut soon = |what: &str, time: Option<Duration>| {
        let figure = time.map_or(format!("not in {}", millis(PATIENCE)), millis);
        report.row(format!("{name}: {what} after"), figure, &bar, time.is_some_and(|time| time <= FREE));
    };
    soon("a new connection is served", next);
    soon("all slots are back", gone);
    traffic.part(&format!("{name}: {connects} connects, one after the other"), report, begin, opened);
    traffic.part(&format!("{name}: while they are there"), report, opened, closed);
    traffic.part(&format!("{name}: from when they are closed"), report, closed, end);
    Ok(())
}

/// Opens connections as fast as can be, with the honest traffic in between.
fn open(crowd: &mut Crowd, connects: usize, to: SocketAddr, hello: &Bytes) -> Result<Step> {
    if crowd.members.len() == connects {
        return Ok(Step::Done);
    }
    crowd.open_all(2, to, Ipv4Addr::LOCALHOST, hello)?;
    crowd.poll(Duration::ZERO)?;
    Ok(Step::Busy)
}

/// Takes what comes, for a time.
fn rest(honest: &Honest, crowd: Crowd, time: Duration) -> Result<Crowd> {
    let until = Instant::now() + time;
    honest.during(crowd, move |crowd| match crowd.poll(Duration::ZERO)? {
        _ if Instant::now() >= until => Ok(Step::Done),
        0 => Ok(Step::Quiet),
        _ => Ok(Step::Busy),
    })
}

/// Closes all connections.
fn close(crowd: &mut Crowd) -> Result<Step> {
    // from the last one on
    crowd.members.truncate(crowd.members.len().saturating_sub(4));
    Ok(if crowd.members.is_empty() { Step::Done } else { Step::Busy })
}

/// How many were told something.
fn heard(crowd: &Crowd, what: &[u8]) -> usize {
    crowd.members.iter().filter(|member| member.messages.iter().any(|message| message == what)).count()
}

/// When a new connection is answered, from a time on.
fn answer(honest: &Honest, to: SocketAddr, since: Instant) -> Result<Option<Duration>> {
    let hello = Bytes::from(wire::frame(1001, 0));
    let mut crowd = Crowd::new()?;
    crowd.open(to, Ipv4Addr::LOCALHOST, &hello)?;
    let crowd = honest.during(crowd, move |crowd| {
        crowd.poll(Duration::ZERO)?;
        Ok(if crowd.answered + crowd.ended > 0 || since.elapsed() > PATIENCE { Step::Done } else { Step::Quiet })
    })?;
    Ok((heard(&crowd, &hello[4..]) == 1).then(|| since.elapsed()))
}
