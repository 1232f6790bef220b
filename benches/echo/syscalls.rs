//! Counting a server's system calls, with strace.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// A strace that has been attached to a server.
pub(crate) struct Strace {
    child: Child,
    folder: tempfile::TempDir,
}

impl Strace {
    pub(crate) fn is_there() -> bool {
        let version = Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    }

    /// Attached when this returns.
    pub(crate) fn start(server: u32) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new("strace");
        command.args(["-c", "-f", "-p", &server.to_string(), "-o"]).arg(folder.path().join("calls"));
        let mut child = command.stderr(Stdio::piped()).spawn().context("starting strace")?;
        let mut said = String::new();
        let mut output = BufReader::new(child.stderr.take().context("no pipe")?);
        output.read_line(&mut said)?;
        ensure!(said.contains("attached"), "strace: {said}");
        // what it says later goes nowhere: it may not wait for that
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        Ok(Self { child, folder })
    }

    /// Calls for each of so many messages, the most frequent first.
    pub(crate) fn stop(mut self, messages: u64) -> Result<Vec<(String, f64)>> {
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        self.child.wait()?;
        let text = std::fs::read_to_string(self.folder.path().join("calls"))?;
        let mut calls = Vec::new();
        for line in text.lines() {
            // % time, seconds, usecs/call, calls, perhaps errors, name
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (Some(count), Some(name)) = (fields.get(3).and_then(|text| text.parse::<f64>().ok()), fields.last())
            else {
                continue;
            };
            if *name != "total" {
                calls.push(((*name).to_owned(), count / messages.max(1) as f64));
            }
        }
        calls.sort_by(|a, b| b.1.total_cmp(&a.1));
        Ok(calls)
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
