//! SIGTERM under 2,000 acknowledged messages a second: no acknowledged message is lost, none is torn, and the server
//! ends with exit code 0.
//!
//! 20 clients send numbered messages in bursts of four, and go on after the signal until the server's end comes. Half of
//! them read nothing for a while from the signal on, as if they were far away: they go on sending to a server that has
//! ended its side. The server handles each (every fourth takes 2 to 16 ms, so that the signal finds messages in hand and others waiting
//! behind them), remembers it as handled, and sends it back: the acknowledgement. At its end it says how far it got with
//! each client. What is held against it, in each run and for each client:
//!
//! - the acknowledgements are whole, byte for byte, and numbered 1, 2, 3, … without a gap;
//! - after the last of them comes the server's end: no reset, and no part of a message before it;
//! - the server has handled exactly the messages that were acknowledged: none more, whose acknowledgement was lost, and
//!   none less;
//! - the drain's report has nothing cut and nothing unsent, and the exit code is 0.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hythe::Bytes;
use rustix::process::Signal;

use crate::crowd::{Crowd, End, Member};
use crate::plan::Plan;
use crate::process::{Server, Setup};
use crate::report::{Report, millis};
use crate::wire;

const CLIENTS: u32 = 20;
const BURST: u32 = 4;
/// Between two bursts of one client: 2,000 messages a second in all.
const EVERY: Duration = Duration::from_micros(1_000_000 * (CLIENTS * BURST) as u64 / 2000);
/// For how long half of the clients read nothing.
const DEAF: Duration = Duration::from_millis(60);
const PATIENCE: Duration = Duration::from_secs(10);

/// What was wrong, over all runs, and what was seen.
#[derive(Default)]
struct Tally {
    sent: u64,
    acknowledged: u64,
    /// Sent and not acknowledged when the signal was sent.
    in_hand: u64,
    torn: u64,
    lost: u64,
    unended: u64,
    cut: u64,
    unsent: u64,
    bad_exits: u64,
    /// From the signal to the end of the process.
    slowest: Duration,
    /// Until the signals were sent.
    time: Duration,
    before: u64,
}

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let runs: u32 = plan.pick(100, 5);
    let mut tally = Tally::default();
    for run in 0..runs {
        // the moment is another one in each run
        once(plan, &mut tally, Duration::from_millis(120 + u64::from(run * 37 % 100)))
            .with_context(|| format!("run {run}"))?;
    }
    report.exactly(
        format!("{runs} runs: acknowledged and not handled, or handled and not acknowledged"),
        tally.lost,
        0,
    );
    report.exactly("acknowledgements torn or out of order", tally.torn, 0);
    report.exactly("connections without an orderly end", tally.unended, 0);
    report.exactly("connections cut, as the drain tells", tally.cut, 0);
    report.exactly("bytes unsent, as the drain tells", tally.unsent, 0);
    report.exactly("exit codes other than 0", tally.bad_exits, 0);
    report.note(format!(
        "{:.0} messages/s acknowledged until the signal; {} in all, of {} sent; in hand at the signal: {:.1} each run; \
         the slowest end came {} after it",
        tally.before as f64 / tally.time.as_secs_f64(),
        tally.acknowledged,
        tally.sent,
        tally.in_hand as f64 / f64::from(runs),
        millis(tally.slowest),
    ));
    Ok(())
}

fn once(plan: &Plan, tally: &mut Tally, until: Duration) -> Result<()> {
    let mut server = Setup::new("acking").threads().start(plan)?;
    let mut crowd = Crowd::new()?;
    crowd.open_all(CLIENTS as usize, server.address(), Ipv4Addr::LOCALHOST, &Bytes::new())?;
    ensure!(crowd.wait(PATIENCE, |crowd| crowd.connected == CLIENTS as usize)?, "not all could connect");
    let acknowledged = |crowd: &Crowd| crowd.members.iter().map(|member| member.messages.len() as u64).sum::<u64>();
    let begin = Instant::now();
    let mut signalled = None;
    let (mut bursts, mut sent) = (0, 0);
    while crowd.ended < CLIENTS as usize && begin.elapsed() < until + PATIENCE {
        // one client after the other
        while begin.elapsed() >= EVERY * bursts / CLIENTS {
            let (who, burst) = (bursts % CLIENTS, bursts / CLIENTS);
            bursts += 1;
            if crowd.members[who as usize].is_open() {
                let messages = (1..=BURST).flat_map(|number| wire::frame(who, burst * BURST + number));
                crowd.send(who as usize, &messages.collect::<Vec<u8>>())?;
                sent += u64::from(BURST);
            }
        }
        if signalled.is_none() && begin.elapsed() >= until {
            crowd.poll(Duration::ZERO)?;
            tally.before += acknowledged(&crowd);
            tally.in_hand += sent - acknowledged(&crowd);
            tally.time += begin.elapsed();
            server.signal(Signal::TERM)?;
            signalled = Some(Instant::now());
            (0..CLIENTS as usize).step_by(2).try_for_each(|who| crowd.deafen(who, true))?;
        }
        if signalled.is_some_and(|at: Instant| at.elapsed() >= DEAF) {
            (0..CLIENTS as usize).step_by(2).try_for_each(|who| crowd.deafen(who, false))?;
        }
        crowd.poll(Duration::from_micros(500))?;
    }
    tally.sent += sent;
    tally.acknowledged += acknowledged(&crowd);
    let last = ending(&mut server, tally)?;
    tally.slowest = tally.slowest.max(signalled.map_or(Duration::ZERO, |at| at.elapsed()));
    for (who, member) in (0..).zip(&crowd.members) {
        let whole = whole(who, member);
        tally.torn += (member.messages.len() as u64 - u64::from(whole)) + u64::from(member.torn() > 0);
        tally.unended += u64::from(!matches!(member.ended, Some((_, End::Closed))));
        tally.lost += u64::from(whole.abs_diff(last.get(&who).copied().unwrap_or_default()));
    }
    Ok(())
}

/// How many acknowledgements came as they should: numbered from 1 on.
fn whole(who: u32, member: &Member) -> u32 {
    let right = |(number, message): &(u32, &Vec<u8>)| wire::read(message).is_ok_and(|read| read == (who, *number));
    (1..).zip(&member.messages).take_while(right).count() as u32
}

/// The server's end: the last message that it handled, for each client.
fn ending(server: &mut Server, tally: &mut Tally) -> Result<HashMap<u32, u32>> {
    let (status, lines) = server.wait(PATIENCE)?;
    if status.and_then(|status| status.code()) != Some(0) {
        tally.bad_exits += 1;
    }
    let mut last = HashMap::new();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["report", _, cut, unsent] => {
                tally.cut += cut.parse::<u64>()?;
                tally.unsent += unsent.parse::<u64>()?;
            }
            ["handled", who, number] => drop(last.insert(who.parse()?, number.parse()?)),
            ["end", _, _, unsent] => tally.unsent += unsent.parse::<u64>()?,
            _ => {}
        }
    }
    Ok(last)
}
