//! OpenSSL as the client. Where it is not installed, these tests say so and pass.

#![cfg(all(feature = "tls", feature = "udp", feature = "unix"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;
mod tls_support;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use hythe::codec::Lines;
use hythe::{BindOptions, Refusal, Running, Server};
use server_support::{Echo, PATIENCE, addr, eventually};
use tempfile::TempDir;
use tls_support::Authority;

fn installed() -> bool {
    let installed = Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_ok();
    if !installed {
        println!("skipped: there is no openssl");
    }
    installed
}

struct Here {
    dir: TempDir,
    authority: Authority,
    running: Running,
}

impl Here {
    async fn new(clients: bool) -> Self {
        let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
        std::fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
        let tls = authority.server(&["localhost"]).server_tls();
        let tls = if clients { tls.client_auth_required(authority.as_pem()) } else { tls };
        let options = BindOptions::new().tls(tls.build().unwrap());
        let server = Server::new(Echo).bind_with("tls://127.0.0.1:0", Lines::new(), options);
        Self { running: server.start().await.unwrap(), dir, authority }
    }

    fn client(&self, more: &[&str]) -> Client {
        Client::start(&format!("127.0.0.1:{}", addr(&self.running, 0).port()), self.dir.path(), more)
    }
}

/// `openssl s_client`, and what it says.
struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    said: String,
}

impl Client {
    fn start(to: &str, dir: &Path, more: &[&str]) -> Self {
        let mut child = Command::new("openssl")
            .args(["s_client", "-connect", to, "-servername", "localhost", "-verify_return_error", "-CAfile", "ca.pem"])
            .args(more)
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        for stream in [Box::new(stdout) as Box<dyn Read + Send>, Box::new(stderr)] {
            let sender = sender.clone();
            std::thread::spawn(move || {
                BufReader::new(stream).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
            });
        }
        Self { stdin: child.stdin.take(), child, lines, said: String::new() }
    }

    fn say(&mut self, line: &str) {
        // it may be gone already
        let _ = self.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes());
    }

    /// Waits for a line with this in it, or for its end; whether it came.
    fn hears(&mut self, what: &str) -> bool {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.said.push_str(&line);
                    self.said.push('\n');
                    if line.contains(what) {
                        return true;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => panic!("openssl did not say {what:?}:\n{}", self.said),
            }
        }
    }

    fn echoes(&mut self, line: &str) -> bool {
        self.say(line);
        self.hears(line)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_1_2_and_1_3_are_spoken() {
    if !installed() {
        return;
    }
    let here = Here::new(false).await;
    for version in ["-tls1_2", "-tls1_3"] {
        let mut client = here.client(&["-quiet", version]);
        assert!(client.echoes("hello"), "{version}: {}", client.said);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_versions_are_refused() {
    if !installed() {
        return;
    }
    let here = Here::new(false).await;
    for version in ["-tls1", "-tls1_1"] {
        let mut client = here.client(&["-quiet", version, "-cipher", "ALL:@SECLEVEL=0"]);
        assert!(!client.echoes("hello"), "{version}: {}", client.said);
    }
    assert_eq!(here.running.counters().accepted, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renegotiation_is_refused() {
    if !installed() {
        return;
    }
    let here = Here::new(false).await;
    let mut client = here.client(&["-tls1_2"]);
    assert!(client.echoes("hello"), "{}", client.said);
    // a command of s_client
    client.say("R");
    assert!(client.hears("no renegotiation"), "{}", client.said);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_update_is_answered() {
    if !installed() {
        return;
    }
    let here = Here::new(false).await;
    let mut client = here.client(&["-tls1_3"]);
    assert!(client.echoes("hello"), "{}", client.said);
    // a command of s_client: and the server's as well
    client.say("K");
    assert!(client.hears("KEYUPDATE") && client.echoes("again"), "{}", client.said);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_must_show_their_certificate_where_it_is_required() {
    if !installed() {
        return;
    }
    let here = Here::new(true).await;
    let mut without = here.client(&["-quiet"]);
    assert!(!without.echoes("hello"), "{}", without.said);
    eventually("it is counted", || here.running.counters().refused(Refusal::Handshake) == 1).await;
    let alice = here.authority.client("alice");
    alice.write(here.dir.path());
    let mut with = here.client(&["-quiet", "-cert", "chain.pem", "-key", "key.pem"]);
    assert!(with.echoes("hello"), "{}", with.said);
    let shown = here.running.connections()[0].peer.tls().unwrap().peer_certificates().to_vec();
    assert_eq!(shown[0], alice.der, "its own is the first");
}
