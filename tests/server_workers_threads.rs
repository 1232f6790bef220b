//! The threads of workers: they begin and end with their server, are watched as others are, and when one is lost, its
//! listeners are not.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix", target_os = "linux"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;

use std::collections::BTreeSet;
use std::fs;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use hythe::codec::{Datagram, Lines as LinesCodec, Text};
use hythe::server::workers::{PerCore, Workers};
use hythe::{CloseReason, Connection, Handler, Running, Server};
use rustix::thread::{CpuSet, sched_getaffinity};
use server_support::{Echo, Lines, Process, addr, eventually, is_child, tell, within};
use tokio::net::UdpSocket;
use tokio::sync::{Mutex, MutexGuard, mpsc};
use tokio::time::Sleep;

/// Threads are the whole process's.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    let turn = ALONE.lock().await;
    eventually("the threads of the test before to end", || threads() == 0).await;
    turn
}

/// How many threads of ours there are.
fn threads() -> usize {
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    tasks.flatten().map(name).filter(|name| name.starts_with("hythe-")).count()
}

fn per_core(threads: usize) -> PerCore {
    Workers::per_core().threads(threads)
}

/// Does to its thread what it is told.
#[derive(Clone, Default)]
struct Odd {
    armed: Option<Arc<std::sync::Mutex<Pin<Box<Sleep>>>>>,
}

/// Panics where nobody catches it: outside of all tasks, in the thread that fires the timers.
struct Bomb;

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        panic!("a waker panics, as it was told");
    }
}

fn cores() -> String {
    let set = sched_getaffinity(None).unwrap();
    let cores: Vec<_> = (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).map(|core| core.to_string()).collect();
    cores.join(",")
}

impl Handler for Odd {
    type In = String;
    type Out = String;

    async fn on_message(&mut self, conn: &mut Connection<String>, message: String) -> anyhow::Result<()> {
        let answer = match &*message {
            "bomb" => {
                let mut timer = Box::pin(tokio::time::sleep(Duration::from_millis(1)));
                let _ = timer.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::new(Bomb))));
                self.armed = Some(Arc::new(std::sync::Mutex::new(timer)));
                return Ok(());
            }
            "block" => {
                std::thread::sleep(Duration::from_millis(2500));
                "blocked".to_owned()
            }
            "cores" => cores(),
            "others" => tokio::task::spawn_blocking(cores).await?,
            _ => std::thread::current().name().unwrap_or_default().to_owned(),
        };
        conn.send(answer).await?;
        Ok(())
    }
}

async fn start(workers: PerCore) -> Running {
    Server::new(Odd::default())
        .workers(workers)
        .bind("tcp://127.0.0.1:0", LinesCodec::new())
        .bind("udp://127.0.0.1:0", Text::over(Datagram::new()))
        .start()
        .await
        .unwrap()
}

#[tokio::test]
async fn threads_begin_with_a_server_and_have_ended_after_its_shutdown() {
    let _alone = alone().await;
    for round in 0..2 {
        let running = start(per_core(4)).await;
        let mut client = Lines::tcp(addr(&running, 0)).await;
        assert!(client.ask("others").await.is_some());
        assert!(threads() > 4, "{round}: {}", threads());
        let report = within("the drain", running.shutdown(Duration::from_secs(5))).await;
        assert_eq!(report.finished, 1);
        // the watcher is there as long as the server is
        assert!(threads() <= 1, "{round}: {} threads are left", threads());
        let again = within("another", running.shutdown(Duration::ZERO)).await;
        assert_eq!(again, report);
    }
}

#[tokio::test]
async fn threads_end_after_a_drop_and_an_abort() {
    let _alone = alone().await;
    for drops in [true, false] {
        let running = start(per_core(3)).await;
        let mut clients = Vec::new();
        for _ in 0..6 {
            clients.push(Lines::tcp(addr(&running, 0)).await);
            assert!(clients.last_mut().unwrap().ask("where").await.is_some());
        }
        let running = if drops {
            drop(running);
            None
        } else {
            running.abort();
            Some(running)
        };
        let left = usize::from(running.is_some());
        eventually("the threads' end", || threads() <= left).await;
        for mut client in clients {
            assert_eq!(client.hear().await, None);
        }
    }
}

#[tokio::test]
async fn nothing_is_left_of_a_server_that_does_not_start() {
    let _alone = alone().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::new(Echo).workers(per_core(4)).bind("tcp://127.0.0.1:0", LinesCodec::new());
    let server = server.bind(format!("tcp://{}", taken.local_addr().unwrap()), LinesCodec::new());
    assert!(server.start().await.is_err());
    assert!(threads() <= 1, "{} threads are left", threads());

    let mut starting = Box::pin(start(per_core(4)));
    let _ = starting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    drop(starting);
    eventually("the threads' end", || threads() == 0).await;
}

#[tokio::test]
async fn who_shuts_down_from_inside_gets_the_report() {
    let _alone = alone().await;
    let (stop, mut stops) = mpsc::unbounded_channel::<tokio::runtime::Handle>();
    let server = Server::serve(move |mut conn: Connection<String>| {
        let stop = stop.clone();
        async move {
            while let Some(line) = conn.recv().await? {
                let _ = stop.send(tokio::runtime::Handle::current());
                conn.send(line).await?;
            }
            Ok(())
        }
    });
    let running = server.workers(per_core(2)).bind("tcp://127.0.0.1:0", LinesCodec::new()).start().await.unwrap();
    let mut client = Lines::tcp(addr(&running, 0)).await;
    assert!(client.ask("stop").await.is_some());
    let worker = stops.recv().await.unwrap();
    let (sender, report) = tokio::sync::oneshot::channel();
    worker.spawn(async move { sender.send(running.shutdown(Duration::from_secs(5)).await) });
    assert_eq!(within("the report", report).await.unwrap().finished, 1);
    eventually("the threads' end", || threads() == 0).await;
}

#[tokio::test]
async fn a_blocked_worker_is_reported_and_not_waited_for() {
    let _alone = alone().await;
    let running = start(per_core(2)).await;
    let (mut blocked, mut other) = (Lines::tcp(addr(&running, 0)).await, Lines::tcp(addr(&running, 0)).await);
    assert_ne!(blocked.ask("where").await, other.ask("where").await);
    blocked.say("block").await;
    eventually("the watcher to see it", || running.counters().runtime_stalls == 1).await;
    assert!(other.ask("still").await.is_some(), "the other worker goes on");
    let begin = Instant::now();
    let report = within("the drain", running.shutdown(Duration::ZERO)).await;
    assert_eq!(report.finished + report.cut, 2);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    drop(running);
    eventually("the threads' end", || threads() == 0).await;
}

#[tokio::test]
async fn a_lost_worker_loses_its_connections_and_nobody_who_waits() {
    let _alone = alone().await;
    let running = start(per_core(3)).await;
    let to = addr(&running, 0);
    let mut clients = Vec::new();
    for _ in 0..9 {
        let mut client = Lines::tcp(to).await;
        clients.push((client.ask("where").await.unwrap(), client));
    }
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    peer.connect(addr(&running, 1)).await.unwrap();
    let home = ask(&peer, "where").await;

    for round in 0..3 {
        // in each worker's backlog
        running.pause();
        let mut waiting = Vec::new();
        for _ in 0..30 {
            waiting.push(Lines::tcp(to).await);
            waiting.last_mut().unwrap().say("where").await;
        }
        let lost = format!("hythe-worker-{round}");
        let (mut theirs, others): (Vec<_>, Vec<_>) = clients.into_iter().partition(|(worker, _)| *worker == lost);
        assert!(!theirs.is_empty());
        theirs[0].1.say("bomb").await;
        for (_, mut client) in theirs {
            assert_eq!(client.hear().await, None, "it goes with its worker");
        }
        clients = others;
        for (worker, client) in &mut clients {
            assert_eq!(client.ask("where").await.as_ref(), Some(&*worker), "the others stay");
        }
        running.resume();
        for mut client in waiting {
            let worker = client.hear().await.expect("who waited in the backlog is served");
            clients.push((worker, client));
        }
        let workers: BTreeSet<_> = clients.iter().map(|(worker, _)| worker).collect();
        assert_eq!(workers.len(), 3, "the worker is there again: {workers:?}");
        if home == lost {
            assert_eq!(ask(&peer, "where").await, home, "a new session");
        }
    }
    let counters = running.counters();
    assert_eq!(counters.open, clients.len() as u64 + 1);
    assert!(counters.closed_by(CloseReason::Shutdown) > 0);
    let report = within("the drain", running.shutdown(Duration::from_secs(10))).await;
    assert_eq!((report.finished, report.cut), (counters.open, 0));
    assert!(threads() <= 1);
}

async fn ask(peer: &UdpSocket, what: &str) -> String {
    let mut bytes = [0; 64];
    loop {
        // long enough for the answer
        peer.send(format!("{what:32}").as_bytes()).await.unwrap();
        if let Ok(read) = tokio::time::timeout(Duration::from_millis(500), peer.recv(&mut bytes)).await {
            return String::from_utf8(bytes[..read.unwrap()].to_vec()).unwrap();
        }
    }
}

#[tokio::test]
async fn pinned_workers_have_a_core_each_and_others_are_free() {
    let _alone = alone().await;
    let all = cores();
    let count = all.split(',').count();
    let running = start(per_core(count).pinned(true)).await;
    let (mut clients, mut pinned) = (Vec::new(), BTreeSet::new());
    for _ in 0..count {
        clients.push(Lines::tcp(addr(&running, 0)).await);
        pinned.insert(clients.last_mut().unwrap().ask("cores").await.unwrap());
        assert_eq!(clients.last_mut().unwrap().ask("others").await.as_ref(), Some(&all), "blocking calls are not");
    }
    assert_eq!(pinned, all.split(',').map(str::to_owned).collect());
    assert_eq!(cores(), all, "the thread that started it is not");
}

/// A process with few descriptors; only what starts it runs it.
#[test]
fn child() {
    if !is_child() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server = Server::new(Echo).workers(per_core(64)).bind("tcp://127.0.0.1:0", LinesCodec::new());
        let error = server.start().await.unwrap_err();
        tell("error", format!("{:?} {error}", error.kind()));
        tell("threads", threads());
    });
    std::process::exit(0);
}

#[test]
fn a_worker_without_a_runtime_is_an_error() {
    let process = Process::start("child", "ulimit -n 40; ");
    let error = process.told("error");
    assert!(error.starts_with("Io worker ") && error.ends_with(" cannot be started"), "{error}");
    assert_eq!(process.told("threads"), "0");
}
