//! What each codec costs: nanoseconds and instructions for each frame.
//!
//! ```text
//! cargo bench --bench codecs                    # all, in half a minute
//! cargo bench --bench codecs -- --only Lines    # those whose name contains this
//! ```
//!
//! Decoding is of 64 frames, or 64 KiB, that one read brought; `Raw`, `Datagram` and `Text` alone take one message at a
//! time. A decoded message is dropped at once. Encoding is to a buffer that has the room. Nanoseconds are the median of
//! many samples, with the tenth and ninetieth of a hundred; instructions are counted by valgrind, where it is installed,
//! and do not depend on how busy the machine is.

#[path = "../support/callgrind.rs"]
mod callgrind;
mod cases;

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use cases::{Case, cases};

/// For how long each case is sampled.
const SAMPLING: Duration = Duration::from_millis(300);
/// Frames that are decoded or encoded in one sample, at least.
const SAMPLE: usize = 1024;
/// Buffers of which the instructions are counted.
const COUNTED: usize = 16;

struct Options {
    only: String,
    sampling: Duration,
    /// Only to be counted, by callgrind, which runs this program.
    count: bool,
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let sampling = if has("--quick") || !has("--bench") { SAMPLING / 30 } else { SAMPLING };
    let mut options = Options { only: String::new(), sampling, count: has("--count") };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--only" => args.next().context("--only needs a value")?.clone_into(&mut options.only),
            "--quick" | "--bench" | "--test" | "--count" => {}
            _ => bail!("what is {arg}? There are --quick and --only TEXT"),
        }
    }
    let cases: Vec<Case> = cases().into_iter().filter(|case| case.name.contains(&options.only)).collect();
    ensure!(!cases.is_empty(), "no codec has {:?} in its name", options.only);
    if options.count {
        run_marked(&cases);
        return Ok(());
    }
    let counts = if callgrind::is_there() { Some(count(&cases, &options.only)?) } else { None };
    if counts.is_none() {
        println!("no instructions: there is no valgrind");
    }
    println!("| {:45} | {:>24} | {:>12} |", "for each frame", "ns (10th–90th of 100)", "instructions");
    println!("|{}|{}:|{}:|", "-".repeat(47), "-".repeat(25), "-".repeat(13));
    for (i, case) in cases.iter().enumerate() {
        let [low, median, high] = time(case, options.sampling);
        let nanos = format!("{median:.1} ({low:.1}–{high:.1})");
        let count = counts.as_ref().map_or_else(String::new, |counts| format!("{:.1}", counts[i]));
        println!("| {:45} | {nanos:>24} | {count:>12} |", case.name);
    }
    Ok(())
}

/// Nanoseconds for each frame: the tenth of a hundred samples, the median, the ninetieth.
fn time(case: &Case, sampling: Duration) -> [f64; 3] {
    let buffers = SAMPLE.div_ceil(case.frames).min(256);
    let end = Instant::now() + sampling;
    let mut samples = Vec::new();
    while samples.len() < 20 || Instant::now() < end {
        let work = case.prepare(buffers);
        let start = Instant::now();
        let kept = work();
        let took = start.elapsed();
        drop(kept);
        samples.push(took.as_nanos() as f64 / (buffers * case.frames) as f64);
    }
    samples.sort_by(f64::total_cmp);
    [1, 5, 9].map(|tenth| samples[samples.len() * tenth / 10])
}

/// Does each case once, between two marks, after once without.
fn run_marked(cases: &[Case]) {
    for case in cases {
        drop(case.prepare(1)());
        let work = case.prepare(COUNTED);
        callgrind::callgrind_mark();
        let kept = work();
        callgrind::callgrind_mark();
        drop(kept);
    }
}

/// Instructions for each frame.
fn count(cases: &[Case], only: &str) -> Result<Vec<f64>> {
    let folder = tempfile::tempdir()?;
    let mut command = callgrind::command(folder.path())?;
    let status = command.args(["--count", "--only", only]).stdin(Stdio::null()).status()?;
    ensure!(status.success(), "valgrind failed");
    let counts = callgrind::counts(folder.path())?;
    ensure!(counts.len() == 2 * cases.len(), "{} counts for {} codecs", counts.len(), cases.len());
    // every other one is of the preparations
    let each = counts.iter().skip(1).step_by(2).zip(cases);
    Ok(each.map(|(count, case)| *count as f64 / (COUNTED * case.frames) as f64).collect())
}
