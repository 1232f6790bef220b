//! 2,000 half TLS handshakes: honest handshakes take no more than twice as long, all half ones are cut at their deadline,
//! and a plaintext listener of the same server notices nothing.
//!
//! A third of them say nothing, a third send half a ClientHello, and a third a whole one, which costs the server a
//! signature, and then nothing. Once with the default limit of 256 handshakes at once, so that the oldest ones make room,
//! and once without one that would matter.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hythe::{Bytes, Limits};

use crate::crowd::{Crowd, End};
use crate::honest::{Honest, Step};
use crate::plan::Plan;
use crate::process::Setup;
use crate::report::{Report, millis};
use crate::secure::{Authority, Shaker, client_hello, files};

/// Honest handshakes a second.
const RATE: u32 = 200;
/// How much later than its deadline a handshake may be cut.
const GRACE: Duration = Duration::from_secs(1);

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let limit = Limits::edge().handshakes;
    once(plan, report, &format!("at most {limit} at once: "), limit)?;
    once(plan, report, "any number at once: ", 10_000)
}

fn once(plan: &Plan, report: &mut Report, name: &str, limit: usize) -> Result<()> {
    let (count, deadline) = (plan.pick(2000, 500), plan.seconds(5.0, 1.5));
    let authority = Authority::new()?;
    let folder = tempfile::tempdir()?;
    let (chain, key) = files(folder.path());
    authority.issue()?.write(&chain, &key)?;
    let setup = Setup::new("secure").with("chain", chain.display()).with("key", key.display());
    let mut server = setup.with("handshakes", limit).with("handshake", deadline.as_millis()).start(plan)?;
    let [secure, plain] = server.addresses[..] else { anyhow::bail!("there are not two listeners") };

    let config = authority.trusting()?;
    let hello = Bytes::from(client_hello(&config)?);
    let honest = Honest::start(plain)?;
    let calm = Instant::now() + plan.seconds(5.0, 2.0);
    let shaker = honest.during(Shaker::new(config, secure, RATE), move |shaker| match shaker.step()? {
        _ if Instant::now() >= calm => Ok(Step::Done),
        step => Ok(step),
    })?;
    let (begin, attacked) = (honest.now(), Instant::now());
    let attack =
        Attack { shaker, to: secure, count, hello, begin: attacked, crowd: Crowd::new()?, time: deadline + 2 * GRACE };
    let Attack { mut shaker, crowd, .. } = honest.during(attack, Attack::step)?;
    let (end, over) = (honest.now(), Instant::now());
    shaker.finish()?;
    honest.stop()?.rows(&format!("{name}plaintext: "), report, begin, end)?;

    let (before, many, _) = shaker.p99(attacked - plan.seconds(4.5, 1.5), attacked);
    let (during, most, failed) = shaker.p99(attacked, over);
    ensure!(many > 200 && most > 200, "too few handshakes for a p99: {many} and {most}");
    let bar = report.latency(before * 2, before);
    report.within(format!("{name}honest handshakes, p99 (before: {})", millis(before)), during, bar);
    report.exactly(format!("{name}honest handshakes failed, of {most}"), failed, 0);
    shaker.errors().for_each(|error| report.note(format!("{name}{error}")));
    cuts(&crowd, deadline, limit >= count, &format!("{name}{count} half handshakes"), report);
    let (counts, _) = server.until(GRACE, |counts| counts.get("handshakes") == 0)?;
    report.exactly(format!("{name}handshakes left when all have gone"), counts.get("handshakes"), 0);
    Ok(())
}

/// Half handshakes, 1,000 a second, with honest ones beside them, until all have ended or for a time after the last was
/// begun.
struct Attack {
    shaker: Shaker,
    to: SocketAddr,
    count: usize,
    hello: Bytes,
    begin: Instant,
    crowd: Crowd,
    time: Duration,
}

impl Attack {
    fn step(&mut self) -> Result<Step> {
        let every = Duration::from_millis(1);
        let begun = self.crowd.members.len();
        if self.crowd.ended == self.count || self.begin.elapsed() > every * self.count as u32 + self.time {
            return Ok(Step::Done);
        }
        if begun < self.count && self.begin.elapsed() >= every * begun as u32 {
            let sent = [0, self.hello.len() / 2, self.hello.len()][begun % 3];
            self.crowd.open(self.to, Ipv4Addr::LOCALHOST, &self.hello.slice(..sent))?;
        }
        let events = self.crowd.poll(Duration::ZERO)?;
        let step = self.shaker.step()?;
        Ok(if events > 0 { Step::Busy } else { step })
    }
}

/// When they were cut; not before the deadline, where none had to make room.
fn cuts(crowd: &Crowd, deadline: Duration, patient: bool, what: &str, report: &mut Report) {
    let (mut late, mut early, mut uncut) = (Duration::ZERO, 0, 0);
    for member in &crowd.members {
        let Some((at, End::Closed | End::Reset)) = member.ended else {
            uncut += 1;
            continue;
        };
        let lived = at - member.began;
        late = late.max(lived.saturating_sub(deadline));
        early += usize::from(lived < deadline);
    }
    let figure = format!("{uncut} not cut, {early} earlier, the latest {} late", millis(late));
    let (some, early_enough) = if patient { ("0 earlier, ", early == 0) } else { ("", true) };
    let bar = format!("0 not cut, {some}≤ {} late", millis(GRACE));
    let met = uncut == 0 && early_enough && late <= GRACE;
    report.row(format!("{what}: to be cut after {}", millis(deadline)), figure, bar, met);
}
