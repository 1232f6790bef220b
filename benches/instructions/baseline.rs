//! The baseline: what the hot paths took when it was saved, and with what they were built.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

/// How much more is let pass, in percent.
const TOLERANCE: f64 = 5.0;
/// The same for whole servers: how many messages come with one read is the kernel's business, and the moment's.
const SERVERS: f64 = 10.0;
/// The same where the compiler, the C library or the processor is another one.
const WIDE: f64 = 20.0;
/// And so many instructions are always let pass: small counts are made of few.
const FEW: f64 = 3.0;

/// What is only there to be looked at: it has nothing of hythe.
const BY_HAND: &str = "by hand";
/// So is this: which way a datagram goes depends on how long its session's polls take, and under valgrind all take long.
const TIMED: &str = "server, UDP";

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/instructions/baseline.txt")
}

/// What the counts depend on beside the source.
fn built_with() -> String {
    let first = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned())
    };
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let rustc = first(&rustc, &["--version"]).unwrap_or_default();
    let libc = first("getconf", &["GNU_LIBC_VERSION"]).unwrap_or_default();
    #[cfg(target_arch = "x86_64")]
    let vectors = if std::arch::is_x86_feature_detected!("avx2") { ", avx2" } else { "" };
    #[cfg(not(target_arch = "x86_64"))]
    let vectors = "";
    format!("{rustc}; {libc}; {}{vectors}", std::env::consts::ARCH)
}

pub(crate) fn save(counts: &[(String, f64)]) -> Result<()> {
    let mut text =
        String::from("# Instructions for each message; written by cargo bench --bench instructions -- --save\n");
    writeln!(text, "built with: {}", built_with())?;
    for (name, count) in counts {
        writeln!(text, "{name} = {count:.1}")?;
        println!("{name:45} {count:>10.1}");
    }
    std::fs::write(path(), text)?;
    println!("saved in {}", path().display());
    Ok(())
}

/// Prints what changed. Whether all of it is let pass.
///
/// Where a server takes too much, it is counted `again`, twice, and the least counts: what a server does can depend on
/// which message came first.
pub(crate) fn compare(counts: &[(String, f64)], again: impl Fn(&str) -> Result<Option<f64>>) -> Result<bool> {
    let text = std::fs::read_to_string(path()).with_context(|| format!("reading {}", path().display()))?;
    let then =
        text.lines().find_map(|line| line.strip_prefix("built with: ")).context("no versions in the baseline")?;
    let now = built_with();
    let tolerance = if then == now { TOLERANCE } else { WIDE };
    if then != now {
        println!(
            "the baseline is of another compiler, C library or processor: {WIDE} % are let pass, not {TOLERANCE} %"
        );
        println!("  then: {then}\n  now:  {now}");
    }
    let other = then.split("; ").nth(2).and_then(|arch| arch.split(',').next()) != Some(std::env::consts::ARCH);
    let mut missing: Vec<&str> = text.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name).collect();
    let (mut worse, mut better, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    println!("{:45} {:>10} {:>10} {:>8}", "instructions for each message", "baseline", "now", "change");
    for (name, count) in counts {
        let mut count = *count;
        let was = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = ")?.parse::<f64>().ok());
        missing.retain(|known| known != name);
        let Some(was) = was else {
            println!("{name:45} {:>10} {count:>10.1}", "none");
            unknown.push(name);
            continue;
        };
        let whole = name.starts_with("server") || name.starts_with("fan-out");
        let tolerance = if whole { tolerance.max(SERVERS) } else { tolerance };
        let most = was + FEW.max(was * tolerance / 100.0);
        for _ in 0..2 {
            if count > most {
                count = again(name)?.map_or(count, |again| count.min(again));
            }
        }
        let change = (count / was - 1.0) * 100.0;
        println!("{name:45} {was:>10.1} {count:>10.1} {change:>+7.1}%");
        if name.starts_with(BY_HAND) || name.starts_with(TIMED) {
            continue;
        }
        if count > most {
            worse.push(format!("{name}: {was:.1} before, {count:.1} now, {change:+.1} %"));
        } else if was - count > FEW.max(was * TOLERANCE / 100.0) {
            better.push(name);
        }
    }
    let save = "cargo bench --bench instructions -- --save";
    if !better.is_empty() {
        println!("{} of them take less than in the baseline; to hold them to that: {save}", better.len());
    }
    if other {
        println!("the baseline is of another architecture: nothing is compared");
        return Ok(true);
    }
    if !unknown.is_empty() || !missing.is_empty() {
        println!("FAILED, not in the baseline: {unknown:?}; only there: {missing:?}; where that is meant: {save}");
        return Ok(false);
    }
    if !worse.is_empty() {
        println!(
            "FAILED, these take over {tolerance} % ({SERVERS} % for servers, at least) more instructions than before:"
        );
        worse.iter().for_each(|line| println!("  {line}"));
        println!("where that is meant: {save}, and the commit says why");
        return Ok(false);
    }
    println!("ok: nothing takes over {tolerance} % more, and no server over {SERVERS} %");
    Ok(true)
}
