//! A burst of 2,000 connects in 50 ms while every thread of the runtime is blocked for 150 ms: the kernel's queue takes
//! them, and hardly anybody has to try again. Who finds the queue full tries again after a second.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hythe::Bytes;

use crate::crowd::Crowd;
use crate::plan::Plan;
use crate::process::{Server, Setup};
use crate::report::{Report, millis};
use crate::wire;

const CONNECTS: u32 = 2000;
const SPREAD: Duration = Duration::from_millis(50);
const STALL: Duration = Duration::from_millis(150);
/// A connect that takes longer was lost once.
const LONG: Duration = Duration::from_millis(900);

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let mut server = Setup::new("echo").start(plan)?;
    let rounds = plan.pick(10, 3);
    let (mut connected, mut answered, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (crowd, spread) = burst(&mut server)?;
        ensure!(spread < STALL, "the burst took {}, longer than the stall", millis(spread));
        times.push(spread);
        let took = |at: Option<Instant>, began| at.map_or(Duration::MAX, |at| at - began);
        connected.extend(crowd.members.iter().map(|member| took(member.connected, member.began)));
        answered.extend(crowd.members.iter().map(|member| took(member.answered, member.began)));
        drop(crowd);
        // half-made connections of a burst that went wrong would be part of the next one
        if !server.until(Duration::from_secs(5), |counts| counts.get("open") == 0)?.1 {
            break;
        }
    }
    let mut share = |what: &str, times: &[Duration]| {
        let long = times.iter().filter(|time| **time > LONG).count();
        let percent = 100.0 * long as f64 / times.len() as f64;
        let figure = format!("{percent:.2} % ({long} of {})", times.len());
        report.row(format!("{what} after more than {}", millis(LONG)), figure, "≤ 0.5 %", percent <= 0.5);
    };
    share("connected", &connected);
    share("answered", &answered);
    answered.sort_unstable();
    let (first, last) = (answered.first().copied(), answered.last().copied().filter(|time| *time < Duration::MAX));
    let shown = |time: Option<Duration>| time.map_or("never".into(), millis);
    let spread = times.iter().max().copied().unwrap_or_default();
    report.note(format!(
        "{} bursts, each within {} or less; the quickest answer came after {}, the slowest after {}",
        times.len(),
        millis(spread),
        shown(first),
        shown(last)
    ));
    Ok(())
}

/// One burst, and how long it took to begin all connects.
fn burst(server: &mut Server) -> Result<(Crowd, Duration)> {
    let (to, hello) = (server.address(), Bytes::from(wire::frame(1000, 0)));
    let mut crowd = Crowd::new()?;
    // answered once every thread is blocked
    server.ask(&format!("stall {}", STALL.as_millis()))?;
    let begin = Instant::now();
    for number in 0..CONNECTS {
        while begin.elapsed() < SPREAD * number / CONNECTS {
            std::hint::spin_loop();
        }
        crowd.open(to, Ipv4Addr::LOCALHOST, &hello)?;
    }
    let spread = begin.elapsed();
    crowd.wait(Duration::from_secs(10), |crowd| crowd.answered + crowd.ended >= CONNECTS as usize)?;
    Ok((crowd, spread))
}
