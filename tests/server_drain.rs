//! A drain can be trusted: idle connections end at once, busy ones deliver every reply, stuck ones are cut at the
//! deadline, and the report says how many of each there were.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hythe::codec::Lines as LinesCodec;
use hythe::{CloseReason, Closed, Connection, Handler, Limits, Running, Server};
use server_support::{Echo, Gauge, Inside, Lines, addr, eventually, within};
use tokio::sync::Semaphore;
use tokio::time::Instant;

const REPLIES: usize = 10;

/// `work` is answered when the gate opens, `stuck` never.
#[derive(Clone)]
struct Worker {
    gate: Arc<Semaphore>,
    begun: Arc<AtomicUsize>,
}

impl Handler for Worker {
    type In = String;
    type Out = String;

    async fn on_message(&mut self, conn: &mut Connection<String>, message: String) -> anyhow::Result<()> {
        match message.as_str() {
            "work" => {
                self.begun.fetch_add(1, SeqCst);
                let _permit = self.gate.acquire().await?;
                for reply in 0..REPLIES {
                    conn.send(format!("{reply}")).await?;
                    tokio::task::yield_now().await;
                }
            }
            "stuck" => {
                self.begun.fetch_add(1, SeqCst);
                std::future::pending().await
            }
            _ => conn.send(message).await?,
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_ones_end_at_once_busy_ones_finish_and_stuck_ones_are_cut() {
    let worker = Worker { gate: Arc::new(Semaphore::new(0)), begun: Arc::default() };
    let (gate, begun) = (Arc::clone(&worker.gate), Arc::clone(&worker.begun));
    let running = Server::new(worker).bind("tcp://127.0.0.1:0", LinesCodec::new()).start().await.unwrap();
    let to = addr(&running, 0);

    let (mut idle, mut busy, mut stuck) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..100 {
        idle.push(Lines::tcp(to).await);
        assert_eq!(idle.last_mut().unwrap().ask("hello").await.as_deref(), Some("hello"));
    }
    for _ in 0..20 {
        busy.push(Lines::tcp(to).await);
        busy.last_mut().unwrap().say("work").await;
    }
    for _ in 0..5 {
        stuck.push(Lines::tcp(to).await);
        stuck.last_mut().unwrap().say("stuck").await;
    }
    eventually("all handlers at work", || begun.load(SeqCst) == 25).await;

    let deadline = Duration::from_secs(5);
    let (begin, running) = (Instant::now(), Arc::new(running));
    let drain = tokio::spawn({
        let running = Arc::clone(&running);
        async move { running.shutdown(deadline).await }
    });
    for mut client in idle {
        assert_eq!(client.hear().await, None, "an idle connection says nothing more");
    }
    assert!(begin.elapsed() < deadline, "the idle ones waited for the deadline");
    eventually("the busy and the stuck ones alone", || running.counters().open == 25).await;

    gate.add_permits(20);
    for mut client in busy {
        for reply in 0..REPLIES {
            assert_eq!(client.hear().await, Some(format!("{reply}")), "a reply got lost");
        }
        assert_eq!(client.hear().await, None);
    }
    assert!(!drain.is_finished(), "the stuck ones have until the deadline");
    for mut client in stuck {
        assert_eq!(client.hear().await, None);
        assert!(begin.elapsed() >= deadline, "cut before the deadline");
    }
    let report = within("the end of the drain", drain).await.unwrap();
    assert!(begin.elapsed() < deadline + Duration::from_secs(3), "the cut took {:?}", begin.elapsed() - deadline);
    assert_eq!((report.finished, report.cut, report.unsent_bytes), (120, 5, 0));
    assert!(running.connections().is_empty());
}

#[tokio::test]
async fn what_was_never_sent_is_counted() {
    let running = Server::serve(|mut conn: Connection<String>| async move {
        loop {
            conn.send("x".repeat(1000)).await?;
        }
    })
    .bind("tcp://127.0.0.1:0", LinesCodec::new())
    .start()
    .await
    .unwrap();
    let client = Lines::tcp(addr(&running, 0)).await;
    eventually("a connection", || running.counters().open == 1).await;
    let report = within("the drain", running.shutdown(Duration::from_millis(300))).await;
    assert_eq!((report.finished, report.cut), (0, 1));
    assert!(report.unsent_bytes > 1000, "{report:?}");
    assert!(report.unsent_bytes <= Limits::edge().outbox as u64, "{report:?}");
    drop(client);
}

/// Nothing is left to say to it, and only its own end is awaited: that is no connection that was cut.
#[tokio::test]
async fn a_peer_that_keeps_its_side_open_is_finished_not_cut() {
    let running = Server::new(Echo).bind("tcp://127.0.0.1:0", LinesCodec::new()).start().await.unwrap();
    let mut client = Lines::tcp(addr(&running, 0)).await;
    assert_eq!(client.ask("hello").await.as_deref(), Some("hello"));
    let drain = running.shutdown(Duration::from_millis(500));
    let (report, heard) = tokio::join!(drain, client.hear());
    assert_eq!(heard, None);
    assert_eq!((report.finished, report.cut), (1, 0));
}

/// Goes on after it was told of the drain.
#[derive(Clone, Default)]
struct Stubborn {
    told: Arc<Mutex<Vec<Instant>>>,
    closed: Arc<Mutex<Vec<CloseReason>>>,
}

impl Handler for Stubborn {
    type In = String;
    type Out = String;

    async fn on_message(&mut self, conn: &mut Connection<String>, message: String) -> anyhow::Result<()> {
        conn.send(message).await?;
        Ok(())
    }

    async fn on_drain(&mut self, conn: &mut Connection<String>, deadline: Instant) -> anyhow::Result<()> {
        assert_eq!(conn.draining(), Some(deadline));
        self.told.lock().unwrap().push(deadline);
        conn.send("going".to_string()).await?;
        Ok(())
    }

    async fn on_close(self, closed: Closed) {
        self.closed.lock().unwrap().push(closed.reason);
    }
}

#[tokio::test]
async fn a_handler_is_told_of_the_drain_once_and_may_go_on_until_it_is_cut() {
    let handler = Stubborn::default();
    let running = Server::new(handler.clone()).bind("tcp://127.0.0.1:0", LinesCodec::new()).start().await.unwrap();
    let mut client = Lines::tcp(addr(&running, 0)).await;
    assert_eq!(client.ask("before").await.as_deref(), Some("before"));

    let (begin, length) = (Instant::now(), Duration::from_secs(2));
    let talk = async {
        assert_eq!(client.hear().await.as_deref(), Some("going"));
        for _ in 0..20 {
            assert_eq!(client.ask("after").await.as_deref(), Some("after"), "cut before the deadline");
        }
        assert_eq!(client.hear().await, None);
        assert!(begin.elapsed() >= length, "cut before the deadline");
    };
    let (report, ()) = tokio::join!(running.shutdown(length), talk);
    assert_eq!((report.finished, report.cut), (0, 1));
    let told = handler.told.lock().unwrap().clone();
    assert_eq!(told.len(), 1, "told more than once");
    let after = told[0] - begin;
    assert!(after >= length && after < length + Duration::from_millis(500), "{after:?}");
    assert_eq!(*handler.closed.lock().unwrap(), [CloseReason::Shutdown]);
}

#[tokio::test]
async fn a_straight_line_session_handles_what_has_arrived_and_then_its_recv_gives_none() {
    let gate = Arc::new(Semaphore::new(0));
    let begun = Arc::new(AtomicBool::new(false));
    let ends = Arc::new(AtomicUsize::new(0));
    let server = Server::serve({
        let (gate, begun, ends) = (Arc::clone(&gate), Arc::clone(&begun), Arc::clone(&ends));
        move |mut conn: Connection<String>| {
            let (gate, begun, ends) = (Arc::clone(&gate), Arc::clone(&begun), Arc::clone(&ends));
            async move {
                while let Some(message) = conn.recv().await? {
                    begun.store(true, SeqCst);
                    let _permit = gate.acquire().await?;
                    conn.send(message).await?;
                }
                assert!(conn.draining().is_some());
                ends.fetch_add(1, SeqCst);
                conn.send("bye".to_string()).await?;
                Ok(())
            }
        }
    });
    let running = server.bind("tcp://127.0.0.1:0", LinesCodec::new()).start().await.unwrap();
    let (mut client, mut idle) = (Lines::tcp(addr(&running, 0)).await, Lines::tcp(addr(&running, 0)).await);
    eventually("two connections", || running.counters().open == 2).await;
    client.say("1\n2\n3").await;
    eventually("the first message", || begun.load(SeqCst)).await;

    let talk = async {
        assert_eq!(idle.hear().await.as_deref(), Some("bye"));
        assert_eq!(idle.hear().await, None);
        drop(idle);
        gate.add_permits(1);
        for line in ["1", "2", "3", "bye"] {
            assert_eq!(client.hear().await.as_deref(), Some(line));
        }
        assert_eq!(client.hear().await, None);
        drop(client);
    };
    let (report, ()) = tokio::join!(running.shutdown(Duration::from_secs(20)), talk);
    assert_eq!((report.finished, report.cut), (2, 0));
    assert_eq!(ends.load(SeqCst), 2);
}

#[tokio::test]
async fn one_connection_can_be_drained_alone() {
    let worker = Worker { gate: Arc::new(Semaphore::new(0)), begun: Arc::default() };
    let begun = Arc::clone(&worker.begun);
    let running = Server::new(worker).bind("tcp://127.0.0.1:0", LinesCodec::new()).start().await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Lines::tcp(addr(&running, 0)).await);
        assert_eq!(clients.last_mut().unwrap().ask("hello").await.as_deref(), Some("hello"));
    }
    let ids: Vec<_> = running.connections().iter().map(|connection| connection.id).collect();
    assert_eq!(ids.len(), 3);

    let [mut idle, mut stuck, mut other] = <[_; 3]>::try_from(clients).unwrap_or_else(|_| panic!("three"));
    assert!(running.drain_connection(ids[0], Duration::from_secs(3600)));
    assert_eq!(idle.hear().await, None);
    drop(idle);

    stuck.say("stuck").await;
    eventually("the stuck one", || begun.load(SeqCst) == 1).await;
    assert!(running.drain_connection(ids[1], Duration::from_millis(100)));
    assert_eq!(stuck.hear().await, None);

    eventually("two gone", || running.counters().open == 1).await;
    assert!(!running.drain_connection(ids[0], Duration::from_secs(1)), "it is gone");
    assert_eq!(other.ask("still here").await.as_deref(), Some("still here"));
    let metrics = tokio::runtime::Handle::current().metrics();
    // the listener's and the connection's
    eventually("no task left of the two", || metrics.num_alive_tasks() == 2).await;
}

#[tokio::test]
async fn a_drain_without_an_end_is_no_overflow() {
    let running = Server::new(Echo).bind("tcp://127.0.0.1:0", LinesCodec::new()).start().await.unwrap();
    let mut client = Lines::tcp(addr(&running, 0)).await;
    assert_eq!(client.ask("hello").await.as_deref(), Some("hello"));
    let id = running.connections()[0].id;
    assert!(running.drain_connection(id, Duration::MAX));
    assert_eq!(client.hear().await, None);
    drop(client);
    assert_eq!(within("the drain", running.shutdown(Duration::MAX)).await.cut, 0);
}

/// Has no time for messages, nor for a drain.
struct Forever {
    _inside: Inside,
}

impl Handler for Forever {
    type In = String;
    type Out = String;

    async fn on_open(&mut self, _: &mut Connection<String>) -> anyhow::Result<()> {
        std::future::pending().await
    }

    async fn on_message(&mut self, _: &mut Connection<String>, _: String) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Whoever is accepted while the server goes is cut like everybody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_slips_through_between_the_accept_and_the_cut() {
    let gauge = Gauge::default();
    for round in 0..60 {
        let inside = gauge.clone();
        let server = Server::with(move |_| Ok(Forever { _inside: inside.enter() }));
        let running = server.bind("tcp://127.0.0.1:0", LinesCodec::new()).start().await.unwrap();
        let to = addr(&running, 0);
        let stop = Arc::new(AtomicBool::new(false));
        let storm: Vec<_> = (0..2)
            .map(|_| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || {
                    while !stop.load(SeqCst) {
                        let _ = std::net::TcpStream::connect(to);
                    }
                })
            })
            .collect();
        let before = gauge.total();
        eventually("some connections", || gauge.total() > before + 3).await;
        stop_server(running, round).await;
        stop.store(true, SeqCst);
        storm.into_iter().for_each(|thread| thread.join().unwrap());
        eventually("every session cut", || gauge.now() == 0).await;
    }
}

async fn stop_server(running: Running, round: usize) {
    if round % 2 == 0 {
        drop(running);
    } else {
        let report = within("the drain", running.shutdown(Duration::ZERO)).await;
        assert!(report.cut > 0, "{report:?}");
        assert!(running.connections().is_empty());
    }
}
