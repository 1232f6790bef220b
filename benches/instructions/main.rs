//! Fails when a hot path takes more instructions than it did: `baseline.txt` beside this says what it did.
//!
//! ```text
//! cargo bench --bench instructions               # compare
//! cargo bench --bench instructions -- --save     # make these the baseline
//! ```
//!
//! Instructions are counted by valgrind's callgrind, in user mode only: the same program gives the same number, however
//! busy the machine is. The numbers change with the compiler, with the C library (its `memcpy` depends on the processor)
//! and with tokio; of the former the baseline tells the versions, and where they differ, the tolerance is wider. (The
//! servers that are written by hand change with these only; they are shown, and never fail, and so is the one of datagrams,
//! whose way depends on the clock.) What is meant to become slower is saved on purpose, and the commit says why.

mod baseline;
#[path = "../support/callgrind.rs"]
mod callgrind;
#[path = "../codecs/cases.rs"]
mod cases;
mod load;
mod plan;
mod servers;

use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};

use cases::Case;
use plan::{Counted, servers};

/// Buffers of a codec that are counted.
const COUNTED: usize = 16;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).filter(|arg| *arg != "--bench").collect();
    match args[..] {
        ["--codecs"] => {
            run_codecs();
            Ok(())
        }
        ["--serve", name] => servers::run(&find(name)?),
        [] => {
            let again = |name: &str| find(name).ok().map(|counted| load::count(&counted)).transpose();
            if !baseline::compare(&count()?, again)? {
                std::process::exit(1);
            }
            Ok(())
        }
        ["--save"] => {
            let mut counts = count()?;
            for (name, count) in &mut counts {
                let Ok(counted) = find(name) else { continue };
                // the most of three
                *count = count.max(load::count(&counted)?).max(load::count(&counted)?);
            }
            baseline::save(&counts)
        }
        _ => bail!("there is --save, and nothing else"),
    }
}

fn find(name: &str) -> Result<Counted> {
    servers().into_iter().find(|counted| counted.name == name).with_context(|| format!("what is {name:?}?"))
}

/// Long messages are left out: what they take is what `memcpy` takes.
fn codecs() -> Vec<Case> {
    cases::cases().into_iter().filter(|case| !case.name.ends_with("16 KiB")).collect()
}

/// Names, and instructions for each message.
fn count() -> Result<Vec<(String, f64)>> {
    ensure!(callgrind::is_there(), "there is no valgrind");
    let folder = tempfile::tempdir()?;
    let status = callgrind::command(folder.path())?.arg("--codecs").stdin(Stdio::null()).status()?;
    ensure!(status.success(), "valgrind failed");
    let counts = callgrind::counts(folder.path())?;
    let codecs = codecs();
    ensure!(counts.len() == 2 * codecs.len(), "{} counts for {} codecs", counts.len(), codecs.len());
    let each = counts.iter().skip(1).step_by(2).zip(&codecs);
    let mut all: Vec<(String, f64)> =
        each.map(|(count, case)| (case.name.clone(), *count as f64 / (COUNTED * case.frames) as f64)).collect();
    for counted in servers() {
        all.push((counted.name.to_owned(), load::count(&counted)?));
    }
    Ok(all)
}

/// Does each codec's work once, between two marks, after once without.
fn run_codecs() {
    for case in codecs() {
        drop(case.prepare(1)());
        let work = case.prepare(COUNTED);
        callgrind::callgrind_mark();
        let kept = work();
        callgrind::callgrind_mark();
        drop(kept);
    }
}
