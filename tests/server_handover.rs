//! One process takes the listening sockets over from another: under load nobody is turned away, connections finish where
//! they are, files and ports stay, and the old process ends with success.

#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hythe::codec::{Datagram, Lines as LinesCodec, Text};
use hythe::{BindOptions, Connection, Handler, Running, Server};
use server_support::{Echo, Lines, PATIENCE, Process, addr, eventually, is_child, tell, within};

const MS: Duration = Duration::from_millis(1);

/// Answers with the number of its process, after as many milliseconds as the message says, if it is a number.
#[derive(Clone)]
struct Who;

impl Handler for Who {
    type In = String;
    type Out = String;

    async fn on_message(&mut self, conn: &mut Connection<String>, message: String) -> anyhow::Result<()> {
        if let Ok(delay) = message.parse() {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        conn.send(std::process::id().to_string()).await?;
        Ok(())
    }
}

/// A server process; only what starts it runs it.
#[test]
fn child() {
    if !is_child() {
        return;
    }
    let dir = PathBuf::from(std::env::var_os("DIR").unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let report = runtime.block_on(async {
        let running = Server::new(Who)
            .bind("tcp://127.0.0.1:0", LinesCodec::new())
            .bind("udp://127.0.0.1:0", Text::over(Datagram::new()))
            .bind(format!("unix://{}", dir.join("sock").display()), LinesCodec::new())
            .handover(dir.join("handover"))
            .start()
            .await
            .unwrap();
        tell("serving", format!("{} {}", addr(&running, 0), addr(&running, 1)));
        running.until_signal().await.unwrap()
    });
    tell("report", format!("{} cut", report.cut));
    std::process::exit(0);
}

/// Starts a server process, which takes over from the one before, and waits until it serves.
fn start(dir: &Path) -> (Process, [SocketAddr; 2]) {
    let process = Process::start("child", &format!("export DIR='{}'; ", dir.display()));
    let addrs = process.told("serving");
    let (tcp, udp) = addrs.split_once(' ').unwrap();
    (process, [tcp.parse().unwrap(), udp.parse().unwrap()])
}

fn inode(path: &Path) -> u64 {
    let found = fs::symlink_metadata(path).unwrap();
    assert!(found.file_type().is_socket() && found.mode() & 0o777 == 0o600, "{path:?}: {found:?}");
    found.ino()
}

/// What one client is told on a connection of its own. It must not fail.
fn ask(stream: impl std::io::Read + Write) -> String {
    let mut stream = BufReader::new(stream);
    stream.get_mut().write_all(b"who\n").unwrap();
    let mut answer = String::new();
    stream.read_line(&mut answer).unwrap();
    assert!(!answer.is_empty(), "the connection was closed without an answer");
    answer.trim().to_owned()
}

fn ask_udp(socket: &UdpSocket, to: SocketAddr) -> String {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(b"who", to).unwrap();
    let mut answer = [0; 100];
    let length = socket.recv(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// Clients that connect one after the other without a pause, until they are stopped. Each counts who answered.
struct Load {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<BTreeSet<String>>>,
    slowest: Arc<Mutex<Duration>>,
    count: Arc<AtomicUsize>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(sources: Vec<Box<dyn Fn() -> String + Send>>) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            seen: Arc::default(),
            slowest: Arc::default(),
            count: Arc::default(),
            threads: Vec::new(),
        };
        for ask in sources {
            let (stop, seen) = (Arc::clone(&load.stop), Arc::clone(&load.seen));
            let (slowest, count) = (Arc::clone(&load.slowest), Arc::clone(&load.count));
            load.threads.push(std::thread::spawn(move || {
                while !stop.load(SeqCst) {
                    let begin = Instant::now();
                    let answer = ask();
                    let took = begin.elapsed();
                    seen.lock().unwrap().insert(answer);
                    let mut slowest = slowest.lock().unwrap();
                    *slowest = (*slowest).max(took);
                    drop(slowest);
                    count.fetch_add(1, SeqCst);
                    // about 200 a second each, or all ports are soon in TIME_WAIT
                    std::thread::sleep(4 * MS);
                }
            }));
        }
        load
    }

    fn finish(self) -> (usize, Duration, BTreeSet<String>) {
        self.stop.store(true, SeqCst);
        for thread in self.threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
        (self.count.load(SeqCst), *self.slowest.lock().unwrap(), self.seen.lock().unwrap().clone())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_in_a_row_turn_nobody_away() {
    let dir = tempfile::tempdir().unwrap();
    let (sock, handover) = (dir.path().join("sock"), dir.path().join("handover"));
    let (mut old, addrs) = start(dir.path());
    let [tcp, udp] = addrs;
    let files = [inode(&sock), inode(&handover)];
    let path = sock.clone();
    let load = Load::start(vec![
        Box::new(move || ask(TcpStream::connect(tcp).unwrap())),
        Box::new(move || ask(TcpStream::connect(tcp).unwrap())),
        Box::new(move || ask(UnixStream::connect(&path).unwrap())),
        Box::new(move || ask_udp(&UdpSocket::bind("127.0.0.1:0").unwrap(), udp)),
    ]);
    let mut pids = BTreeSet::from([old.child.id().to_string()]);
    for _ in 0..3 {
        let before = load.count.load(SeqCst);
        eventually("some answers", || load.count.load(SeqCst) > before + 50).await;
        let (new, again) = start(dir.path());
        assert_eq!(again, addrs, "the ports are others");
        pids.insert(new.child.id().to_string());
        assert_eq!(old.told("report"), "0 cut");
        assert_eq!(old.exit().await, Some(0), "the old process did not end well");
        assert_eq!([inode(&sock), inode(&handover)], files, "a file is another one");
        old = new;
    }
    let before = load.count.load(SeqCst);
    eventually("some answers", || load.count.load(SeqCst) > before + 50).await;
    let (count, slowest, seen) = load.finish();
    println!("{count} connections over 3 handovers, the slowest answer after {slowest:?}");
    assert_eq!(seen, pids, "each of them has answered, and nobody else");
    assert!(slowest < PATIENCE / 4, "{slowest:?}");

    old.signal("TERM");
    assert_eq!(old.exit().await, Some(0));
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "a file was left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_old_process_has_begun_it_finishes() {
    let dir = tempfile::tempdir().unwrap();
    let (mut old, [tcp, udp]) = start(dir.path());
    let pid = old.child.id().to_string();
    let (mut busy, mut idle) = (Lines::tcp(tcp).await, Lines::tcp(tcp).await);
    assert_eq!(idle.ask("who").await, Some(pid.clone()));
    busy.say("1500").await;
    let session = UdpSocket::bind("127.0.0.1:0").unwrap();
    session.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(ask_udp(&session, udp), pid);
    session.send_to(b"1500", udp).unwrap();

    let (new, _) = start(dir.path());
    let new_pid = new.child.id().to_string();
    assert_eq!(idle.hear().await, None, "an idle connection is closed in order");
    assert_eq!(busy.hear().await, Some(pid.clone()));
    assert_eq!(busy.hear().await, None);
    let mut answer = [0; 100];
    let length = session.recv(&mut answer).unwrap();
    assert_eq!(String::from_utf8_lossy(&answer[..length]), pid, "the old one answers what it was asked");
    assert_eq!(ask_udp(&session, udp), new_pid, "and the new one what is asked now");
    drop((busy, idle));
    assert_eq!(old.told("report"), "0 cut");
    assert_eq!(old.exit().await, Some(0));
}

/// The rest needs no second process: servers of one do the same.
fn server(dir: &Path) -> Server<impl hythe::Session<In = String, Out = String>> {
    Server::new(Echo).handover(dir.join("handover"))
}

async fn echoes(to: SocketAddr) {
    assert_eq!(Lines::tcp(to).await.ask("hello").await.as_deref(), Some("hello"));
}

async fn handed_over(running: Running) {
    within("the handover", running.handed_over()).await;
    let report = within("the drain", running.shutdown(PATIENCE)).await;
    assert_eq!(report.cut, 0);
}

#[tokio::test]
async fn a_server_without_one_before_it_starts_as_any_other() {
    let dir = tempfile::tempdir().unwrap();
    // nobody listens there any more
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("handover")).unwrap());
    let running = server(dir.path()).bind("tcp://127.0.0.1:0", LinesCodec::new()).start().await.unwrap();
    echoes(addr(&running, 0)).await;
    inode(&dir.path().join("handover"));
    let waits = tokio::time::timeout(50 * MS, running.handed_over()).await;
    assert!(waits.is_err(), "nobody has taken over");
    drop(running);
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
}

#[tokio::test]
async fn endpoints_that_only_one_of_them_has_are_bound_and_closed() {
    let dir = tempfile::tempdir().unwrap();
    let unix = |name: &str| format!("unix://{}", dir.path().join(name).display());
    let old = server(dir.path())
        .bind("tcp://127.0.0.1:0", LinesCodec::new())
        .bind("tcp://[::1]:0", LinesCodec::new())
        .bind(unix("kept"), LinesCodec::new())
        .bind(unix("old"), LinesCodec::new())
        .start()
        .await
        .unwrap();
    let (kept, unused) = (addr(&old, 0), addr(&old, 1));
    let file = inode(&dir.path().join("kept"));
    let new = server(dir.path())
        .bind(unix("new"), LinesCodec::new())
        .bind_with(unix("kept"), LinesCodec::new(), BindOptions::new().unix_mode(0o660))
        .bind(format!("tcp://{kept}"), LinesCodec::new())
        .start()
        .await
        .unwrap();
    handed_over(old).await;
    echoes(kept).await;
    assert!(TcpStream::connect(unused).is_err(), "nobody has a use for it");
    assert!(!dir.path().join("old").exists(), "nor for this");
    inode(&dir.path().join("new"));
    let found = fs::symlink_metadata(dir.path().join("kept")).unwrap();
    assert_eq!((found.ino(), found.mode() & 0o777), (file, 0o660), "the same file, with the mode of the new one");
    drop(new);
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
}

/// Ports that the system has chosen are known by the text that asked for them, in their order.
#[tokio::test]
async fn free_ports_stay_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        server(dir.path())
            .bind("tcp://localhost:0", LinesCodec::new())
            .bind("tcp://127.0.0.1:0", LinesCodec::new())
            .bind("udp://127.0.0.1:0", LinesCodec::new())
            .bind("tcp://127.0.0.1:0", LinesCodec::new())
            .start()
    };
    let old = start().await.unwrap();
    let endpoints = old.endpoints().to_vec();
    let new = start().await.unwrap();
    assert_eq!(new.endpoints(), endpoints);
    handed_over(old).await;
    for (index, endpoint) in endpoints.iter().enumerate().filter(|(_, endpoint)| endpoint.is_stream()) {
        assert_eq!(endpoint.scheme(), "tcp");
        echoes(addr(&new, index)).await;
    }
}

/// Whoever waits in a backlog waits for the process, not for its predecessor.
#[tokio::test]
async fn the_backlog_is_handed_over_with_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let start = || server(dir.path()).bind("tcp://127.0.0.1:0", LinesCodec::new()).start();
    let old = start().await.unwrap();
    old.pause();
    let mut waiting = Vec::new();
    for _ in 0..50 {
        waiting.push(Lines::tcp(addr(&old, 0)).await);
    }
    let new = start().await.unwrap();
    for client in &mut waiting {
        assert_eq!(client.ask("hello").await.as_deref(), Some("hello"));
    }
    assert_eq!((old.counters().accepted, new.counters().accepted), (0, 50));
    handed_over(old).await;
}

/// A listening socket stays open as long as anybody has it.
#[tokio::test]
async fn the_old_server_keeps_no_socket_through_its_drain() {
    let dir = tempfile::tempdir().unwrap();
    let start = || server(dir.path()).bind("tcp://127.0.0.1:0", LinesCodec::new()).start();
    let old = start().await.unwrap();
    let to = addr(&old, 0);
    let new = start().await.unwrap();
    within("the handover", old.handed_over()).await;
    drop(new);
    assert!(TcpStream::connect(to).is_err());
    assert!(!dir.path().join("handover").exists());
    let third = start().await.unwrap();
    echoes(addr(&third, 0)).await;
}

/// One that comes while another takes over waits for its turn, and takes over from that one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_at_once_take_over_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let start =
        |dir: PathBuf| async move { server(&dir).bind("tcp://127.0.0.1:0", LinesCodec::new()).start().await.unwrap() };
    let first = start(dir.path().into()).await;
    let to = addr(&first, 0);
    let next: Vec<_> = (0..4).map(|_| tokio::spawn(start(dir.path().into()))).collect();
    let mut all = vec![first];
    for server in next {
        all.push(within("its turn", server).await.unwrap());
    }
    assert!(all.iter().all(|running| addr(running, 0) == to));
    let mut last = Vec::new();
    for running in all {
        match tokio::time::timeout(100 * MS, running.handed_over()).await {
            Ok(()) => drop(running),
            Err(_) => last.push(running),
        }
    }
    assert_eq!(last.len(), 1, "one of them serves");
    echoes(to).await;
}
