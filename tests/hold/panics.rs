//! 1,000 panics in each callback: exactly those connections close, everybody else goes on, and every slot comes back.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use hythe::Bytes;

use crate::crowd::{Crowd, End};
use crate::plan::Plan;
use crate::process::{Counts, Server, Setup};
use crate::report::Report;
use crate::serve::Place;
use crate::wire;

/// The clients of this address panic their handlers.
pub(crate) const DOOMED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// The message that does.
pub(crate) const FATAL: &[u8] = b"fatal";
/// Connections that have nothing to do with it.
const BYSTANDERS: usize = 100;
const PATIENCE: Duration = Duration::from_secs(10);
/// After so much silence `on_idle` is called.
const IDLE: Duration = Duration::from_millis(500);

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let panics = plan.pick(1000, 200);
    for place in Place::ALL {
        once(plan, report, place, panics).with_context(|| place.name())?;
    }
    Ok(())
}

/// What went otherwise than it should have.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn expect(&mut self, what: &str, seen: impl TryInto<u64>, wanted: usize) {
        let seen = seen.try_into().unwrap_or(u64::MAX);
        if seen != wanted as u64 {
            self.0.push(format!("{what}: {seen} instead of {wanted}"));
        }
    }
}

fn once(plan: &Plan, report: &mut Report, place: Place, panics: usize) -> Result<()> {
    let slots = panics + BYSTANDERS;
    let mut setup = Setup::new("panicky").with("place", place.name()).with("max_connections", slots).threads();
    if place == Place::Idle {
        setup = setup.with("idle", IDLE.as_millis());
    }
    let mut server = setup.start(plan)?;
    let to = server.address();
    let mut faults = Faults::default();
    let greeting = Bytes::from(wire::frame(1, 1));
    let mut bystanders = Crowd::new()?;
    bystanders.open_all(BYSTANDERS, to, Ipv4Addr::LOCALHOST, &greeting)?;
    bystanders.wait(PATIENCE, |crowd| crowd.answered == BYSTANDERS)?;
    faults.expect("bystanders served", bystanders.answered, BYSTANDERS);

    let doomed = panic(&mut server, place, panics, &greeting)?;
    let by_server = doomed.members.iter().filter(|member| matches!(member.ended, Some((_, End::Closed | End::Reset))));
    faults.expect("closed", by_server.count(), panics);
    let (counts, _) = server.until(PATIENCE, |counts| settled(counts, BYSTANDERS))?;
    faults.expect("panics", counts.get("panics"), panics);
    faults.expect("open", counts.get("open"), BYSTANDERS);
    faults.expect("handlers", counts.get("live"), BYSTANDERS);
    faults.expect("accepted", counts.get("accepted"), if place == Place::Factory { BYSTANDERS } else { slots });
    faults.expect("on_close", counts.get("closes") + BYSTANDERS as u64, counts.get("opens") as usize);

    faults.expect("bystanders closed", bystanders.ended, 0);
    (0..BYSTANDERS).try_for_each(|number| bystanders.send(number, &greeting))?;
    let again = |crowd: &Crowd| crowd.members.iter().filter(|member| member.messages.len() == 2).count();
    bystanders.wait(PATIENCE, |crowd| again(crowd) == BYSTANDERS)?;
    faults.expect("bystanders served again", again(&bystanders), BYSTANDERS);
    faults.expect("messages of bystanders torn", bystanders.members.iter().map(|one| one.torn()).sum::<usize>(), 0);

    // as many as there are slots: if one were lost, one of these would be left in the backlog
    (0..BYSTANDERS).for_each(|number| bystanders.close(number));
    server.until(PATIENCE, |counts| settled(counts, 0))?;
    let mut fresh = Crowd::new()?;
    fresh.open_all(slots, to, Ipv4Addr::LOCALHOST, &greeting)?;
    fresh.wait(PATIENCE, |crowd| crowd.answered == slots)?;
    faults.expect("slots back", fresh.answered, slots);
    let figure = match faults.0[..] {
        [] => format!("{panics} panics, {panics} closed, {slots} slots back"),
        _ => faults.0.join("; "),
    };
    report.row(place.name(), figure, "those close, others go on, all slots come back", faults.0.is_empty());
    Ok(())
}

fn settled(counts: &Counts, open: usize) -> bool {
    counts.get("open") == open as u64 && counts.get("live") == open as u64
}

/// As many connections as are asked for, each of which comes to its panic.
fn panic(server: &mut Server, place: Place, count: usize, greeting: &Bytes) -> Result<Crowd> {
    let hello = match place {
        Place::Factory | Place::Open => Bytes::new(),
        Place::Message | Place::Decode | Place::Encode => wire::framed(FATAL).into(),
        Place::Idle | Place::Drain | Place::Close | Place::Drop => greeting.clone(),
    };
    let mut crowd = Crowd::new()?;
    crowd.open_all(count, server.address(), DOOMED, &hello)?;
    match place {
        Place::Drain => {
            crowd.wait(PATIENCE, |crowd| crowd.answered == count)?;
            server.ask(&format!("drain {DOOMED}"))?;
        }
        Place::Close | Place::Drop => {
            crowd.wait(PATIENCE, |crowd| crowd.answered == count)?;
            (0..count).try_for_each(|number| crowd.finish(number))?;
        }
        _ => {}
    }
    crowd.wait(PATIENCE, |crowd| crowd.ended == count)?;
    Ok(crowd)
}
