//! 50 certificate swaps under load, 10 of them broken: no handshake fails, the new certificate is in use within a second,
//! and a broken one leaves the last good one in use and is reported once.
//!
//! The server watches its two files, which are replaced one after the other.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::honest::Step;
use crate::plan::Plan;
use crate::process::Setup;
use crate::report::{Report, millis};
use crate::secure::{Authority, Identity, Shaker, files, replace};

const RATE: u32 = 200;
/// How soon a new certificate must be in use.
const SOON: Duration = Duration::from_secs(1);
/// Between two swaps.
const PAUSE: Duration = Duration::from_millis(700);
/// How often the server looks.
const WATCH: Duration = Duration::from_millis(200);

/// A certificate that was put in place, and when.
struct Swap {
    at: Instant,
    good: bool,
    seen: Vec<u8>,
}

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let swaps = plan.pick(50, 10);
    let authority = Authority::new()?;
    let folder = tempfile::tempdir()?;
    let (chain, key) = files(folder.path());
    authority.issue()?.write(&chain, &key)?;
    let setup = Setup::new("secure").with("chain", chain.display()).with("key", key.display());
    let server = setup.with("watch", WATCH.as_millis()).with("log", 1).start(plan)?;
    let mut shaker = Shaker::new(authority.trusting()?, server.address(), RATE);
    let mut done: Vec<Swap> = Vec::new();
    load(&mut shaker, PAUSE)?;
    for number in 0..swaps {
        let identity = authority.issue()?;
        // not the first, nor the last
        let good = number % 5 != 3;
        if good {
            identity.write(&chain, &key)?
        } else {
            spoil(number / 5, &identity, &chain, &key)?
        }
        done.push(Swap { at: Instant::now(), good, seen: identity.seen });
        load(&mut shaker, PAUSE)?;
    }
    load(&mut shaker, SOON)?;
    shaker.finish()?;

    let failed = shaker.done.iter().filter(|shaken| shaken.result.is_err()).count();
    report.exactly(format!("{swaps} swaps: handshakes failed, of {}", shaker.done.len()), failed, 0);
    shaker.errors().for_each(|error| report.note(error));
    let (mut slowest, mut unused, mut stale, mut broken) = (Duration::ZERO, 0, 0, 0);
    for (place, swap) in done.iter().enumerate() {
        let uses = || shaker.done.iter().filter(|shaken| shaken.certificate == swap.seen);
        match uses().map(|shaken| shaken.through).min() {
            Some(first) => {
                slowest = slowest.max(first.saturating_duration_since(swap.at));
                // those that began after it had been seen, and got the one before
                let older: Vec<&Vec<u8>> = done[..place].iter().map(|swap| &swap.seen).collect();
                let later = shaker.done.iter().filter(|shaken| shaken.due > first);
                stale += later.filter(|shaken| older.contains(&&shaken.certificate)).count();
                broken += usize::from(!swap.good);
            }
            None => unused += usize::from(swap.good),
        }
    }
    report.within("the new certificate is in use after", slowest, SOON);
    report.exactly("new certificates that never came into use", unused, 0);
    report.exactly("handshakes that got an older one after that", stale, 0);
    report.exactly("broken ones that came into use", broken, 0);
    let wanted = done.iter().filter(|swap| !swap.good).count();
    report.exactly("broken ones reported", server.log.with("not reloaded").len(), wanted);
    let (p99, ..) = shaker.p99(done[0].at, Instant::now());
    report.note(format!("handshakes in the meantime: p99 {}", millis(p99)));
    Ok(())
}

/// Handshakes for a time.
fn load(shaker: &mut Shaker, time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    shaker.restart();
    while Instant::now() < until {
        if shaker.step()? == Step::Quiet {
            sleep(Duration::from_micros(200));
        }
    }
    Ok(())
}

/// Leaves files behind that cannot be used, in one of several ways.
fn spoil(way: usize, identity: &Identity, chain: &Path, key: &Path) -> Result<()> {
    match way % 5 {
        // written in part
        0 => replace(chain, &identity.chain.as_bytes()[..identity.chain.len() / 2]),
        1 => replace(key, b""),
        2 => replace(chain, b"this is no certificate\n").and_then(|()| replace(key, &[0xff; 300])),
        // the key of another one
        3 => replace(chain, identity.chain.as_bytes()),
        _ => Ok(std::fs::remove_file(chain)?),
    }
}
