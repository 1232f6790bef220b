//! What the tests of servers, transports and clients share: waits that fail clearly, a plain client that speaks lines,
//! and this test program started again as a process of its own.
#![allow(dead_code, clippy::unwrap_used)] // Each test crate uses its own part.

use std::future::Future;
use std::io::{BufRead, BufReader as StdBufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use hythe::{Connection, Handler, Running};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// What any one step may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Awaits `future`, and says what did not happen if it takes too long.
#[track_caller]
pub(crate) fn within<F: Future>(what: &str, future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(output) => output,
            Err(_) => panic!("{caller}: not within {PATIENCE:?}: {what}"),
        }
    }
}

/// Looks at `condition` until it holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) -> impl Future<Output = ()> {
    within(what, async move {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
}

/// Answers each line with itself.
#[derive(Clone)]
pub(crate) struct Echo;

impl Handler for Echo {
    type In = String;
    type Out = String;

    async fn on_message(&mut self, conn: &mut Connection<String>, message: String) -> anyhow::Result<()> {
        conn.send(message).await?;
        Ok(())
    }
}

/// Counts how many of it there are, and how many there ever were at once.
#[derive(Clone, Default)]
pub(crate) struct Gauge(Arc<(AtomicUsize, AtomicUsize, AtomicUsize)>);

impl Gauge {
    pub(crate) fn enter(&self) -> Inside {
        let now = self.0.0.fetch_add(1, SeqCst) + 1;
        self.0.1.fetch_max(now, SeqCst);
        self.0.2.fetch_add(1, SeqCst);
        Inside(self.clone())
    }

    pub(crate) fn now(&self) -> usize {
        self.0.0.load(SeqCst)
    }

    pub(crate) fn most(&self) -> usize {
        self.0.1.load(SeqCst)
    }

    pub(crate) fn total(&self) -> usize {
        self.0.2.load(SeqCst)
    }
}

/// Leaves its gauge when it is dropped.
pub(crate) struct Inside(Gauge);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.0.0.fetch_sub(1, SeqCst);
    }
}

/// The address of the `index`th endpoint of a server.
pub(crate) fn addr(running: &Running, index: usize) -> SocketAddr {
    let text = running.endpoints()[index].to_string();
    text.split("://").nth(1).and_then(|addr| addr.parse().ok()).unwrap_or_else(|| panic!("no address in {text}"))
}

/// A client with nothing of hythe in it.
pub(crate) struct Lines<S> {
    pub(crate) stream: BufReader<S>,
}

impl Lines<TcpStream> {
    pub(crate) async fn tcp(to: SocketAddr) -> Self {
        Self::new(within("a TCP connection", TcpStream::connect(to)).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Lines<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    pub(crate) async fn say(&mut self, line: &str) {
        self.stream.get_mut().write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// The next line; `None` when the server has closed or cut the connection.
    pub(crate) async fn hear(&mut self) -> Option<String> {
        let mut line = String::new();
        match within("a line or the end", self.stream.read_line(&mut line)).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end().to_owned()),
        }
    }

    pub(crate) async fn ask(&mut self, line: &str) -> Option<String> {
        self.say(line).await;
        self.hear().await
    }
}

/// The environment variable that tells a test that it is to play the other process.
const ROLE: &str = "HYTHE_TEST_CHILD";

/// Whether this process was started by [`Process::start`].
pub(crate) fn is_child() -> bool {
    std::env::var_os(ROLE).is_some()
}

/// This test program as another process, in which only the test `name` runs.
pub(crate) struct Process {
    pub(crate) child: Child,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Process {
    /// Starts it, after the shell's `prelude`.
    pub(crate) fn start(name: &str, prelude: &str) -> Self {
        let exe = std::env::current_exe().unwrap();
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("{prelude}exec \"$0\" \"$@\""))
            .arg(exe)
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = StdBufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    /// What the process [told](tell) under `key`.
    pub(crate) fn told(&self, key: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else { panic!("the child did not tell its {key}") };
            if let Some((_, value)) = line.split_once(&format!("<{key}>")) {
                return value.to_owned();
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.child.id())).status().unwrap();
        assert!(status.success());
    }

    /// Its exit code; `None` if a signal ended it.
    pub(crate) async fn exit(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("the end of the child", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In the other process: tells the one that started it.
pub(crate) fn tell(key: &str, value: impl std::fmt::Display) {
    println!("<{key}>{value}");
}
