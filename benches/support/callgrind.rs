//! Counting instructions with `valgrind --tool=callgrind`: this program runs itself again in it.
//!
//! What is counted lies between two calls of [`mark`]: callgrind writes a file at each. The kernel's instructions are
//! not in it, and neither is the machine's mood: the same program gives the same number again.

use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Where a count begins and ends. Callgrind knows it by this name.
#[inline(never)]
pub(crate) fn callgrind_mark() {
    black_box(());
}

/// Whether there is a valgrind that runs.
pub(crate) fn is_there() -> bool {
    let version = Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// This program under callgrind; what it counts is put into a folder.
pub(crate) fn command(folder: &Path) -> Result<Command> {
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--tool=callgrind", "--dump-before=*callgrind_mark*"]);
    command.arg(format!("--callgrind-out-file={}", folder.join("count").display()));
    command.arg(std::env::current_exe()?);
    Ok(command)
}

/// The instructions before each call of [`callgrind_mark`], since the one before it.
pub(crate) fn counts(folder: &Path) -> Result<Vec<u64>> {
    let mut counts = Vec::new();
    loop {
        let file = folder.join(format!("count.{}", counts.len() + 1));
        if !file.exists() {
            break;
        }
        let text = std::fs::read_to_string(&file)?;
        // not there yet in the file of a process that was ended while it wrote
        let Some(line) = text.lines().find_map(|line| line.strip_prefix("totals: ")) else { break };
        counts.push(line.trim().parse().with_context(|| format!("{line:?} in {}", file.display()))?);
    }
    ensure!(!counts.is_empty(), "callgrind wrote nothing");
    Ok(counts)
}
