//! Peers of a server under test: what they send arrives, what they do to a connection is what the server sees, and what
//! does not happen fails the test with a message that says so.

#![cfg(feature = "testing")]

mod testing_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hythe::codec::{LengthDelimited, Lines};
use hythe::testing::{Harness, settle};
use hythe::{Bytes, CloseReason, Closed, Connection, Handler, Limits, Overload, Refusal, Server, TrySendError};
use testing_support::{failure, shout};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn messages_go_and_come_and_each_end_is_its_own_peers() {
    let test = Harness::start(shout(), Lines::new()).await;
    let (mut one, mut other) = (test.peer().await, test.peer().await);
    assert!(one.id() < other.id());
    other.send("b").await;
    one.send("a").await;
    assert_eq!(one.recv().await, "A");
    assert_eq!(other.recv().await, "B");
    // a client of hythe's own beside them confuses nobody
    let mut conn: Connection<String> = hythe::connect(test.endpoint().clone(), Lines::new()).await.expect("connected");
    let mut third = test.peer().await;
    conn.send("c".into()).await.expect("sent");
    assert_eq!(conn.recv().await.expect("open").as_deref(), Some("C"));
    other.send("bye").await;
    let closed = other.expect_end().await;
    assert_eq!((closed.reason, Some(closed.id)), (CloseReason::Local, other.id()));
    third.send("fail").await;
    assert_eq!(third.closed().await.reason, CloseReason::Handler);
    one.half_close();
    assert_eq!(one.expect_end().await.reason, CloseReason::PeerClosed);
    assert_eq!(test.closed().len(), 3);
    conn.close().await.expect("closed");
    drop(conn);
    let reasons: Vec<_> = test.finish().await.iter().map(|closed| closed.reason).collect();
    assert_eq!(reasons, [CloseReason::PeerClosed, CloseReason::Local, CloseReason::PeerClosed, CloseReason::Handler]);
}

#[tokio::test]
async fn time_passes_at_once_and_to_the_second() {
    let real = std::time::Instant::now();
    let test = Harness::start(shout(), Lines::new()).await;
    let started = Instant::now();
    let mut peer = test.peer().await;
    peer.send("late").await;
    peer.expect_silence(9 * SECOND).await;
    assert_eq!(peer.recv().await, "LATE");
    assert_eq!(started.elapsed().as_secs(), 10);
    let closed = peer.closed().await;
    assert_eq!((closed.reason, closed.duration.as_secs()), (CloseReason::Idle, 70));
    let mut silent = test.peer().await;
    assert_eq!(silent.closed().await.duration.as_secs(), 10);
    test.finish().await;
    assert!(real.elapsed() < 5 * SECOND, "{:?}", real.elapsed());
}

#[tokio::test]
async fn bytes_are_sent_and_received_as_they_are() {
    let test = Harness::start(shout(), Lines::new()).await;
    let mut peer = test.peer().await;
    peer.send_bytes("hel").await;
    peer.expect_silence(SECOND).await;
    peer.send_bytes(b"lo\nwor").await;
    assert_eq!(peer.recv_bytes(4).await, "HELL");
    peer.send_bytes(b"ld\n").await;
    assert_eq!(peer.recv_bytes(2).await, "O\n");
    assert_eq!(peer.recv().await, "WORLD");
    let mut raw = test.raw_peer().await;
    raw.send("a\nb\n").await;
    assert_eq!(raw.recv_bytes(4).await, "A\nB\n");
    peer.send_bytes("half a message").await;
    assert_eq!(peer.closed().await.reason, CloseReason::MessageTimeout);
    raw.send(vec![0xff, b'\n']).await;
    assert_eq!(raw.closed().await.reason, CloseReason::Protocol);
    test.finish().await;
}

/// Sends a megabyte when it is asked for anything.
fn flood() -> Server<impl hythe::Session<In = Bytes, Out = Bytes>> {
    Server::serve(|mut conn: Connection<Bytes>| async move {
        while conn.recv().await?.is_some() {
            for _ in 0..100 {
                conn.send(vec![7; 10_000].into()).await?;
            }
        }
        Ok(())
    })
    .limits(Limits::edge().with_outbox(20_000))
}

#[tokio::test]
async fn a_stalled_peer_is_cut_and_one_that_resumes_is_not() {
    let test = Harness::start(flood(), LengthDelimited::new()).await;
    let mut peer = test.peer().await;
    peer.send("go").await;
    assert_eq!(peer.recv().await.len(), 10_000);
    peer.stall();
    sleep(29 * SECOND).await;
    assert!(test.closed().is_empty());
    peer.resume();
    for _ in 1..100 {
        assert_eq!(peer.recv().await.len(), 10_000);
    }
    peer.stall();
    peer.send("go").await;
    let closed = peer.closed().await;
    assert_eq!((closed.reason, closed.duration.as_secs()), (CloseReason::WriteStalled, 59));
    assert!(closed.unsent_bytes > 0);
    test.finish().await;
}

#[tokio::test]
async fn the_window_is_what_the_server_may_be_ahead() {
    let test = Harness::start(flood(), LengthDelimited::new()).await;
    let mut peer = test.peer().await;
    peer.set_window(1000);
    peer.send("go").await;
    settle().await;
    // what the peer has room for, and what is in the outbox
    assert_eq!(test.running().connections().len(), 1);
    for _ in 0..100 {
        assert_eq!(peer.recv().await.len(), 10_000);
    }
    peer.half_close();
    let closed = peer.expect_end().await;
    assert_eq!((closed.reason, closed.bytes_out), (CloseReason::PeerClosed, 1_000_400));
    test.finish().await;
}

#[tokio::test]
async fn what_a_peer_does_to_a_connection_is_what_the_server_sees() {
    let test = Harness::start(shout(), Lines::new()).await;
    let end_of = |id| test.closed().into_iter().find(|closed| Some(closed.id) == id).map(|closed| closed.reason);

    let mut peer = test.peer().await;
    peer.send("a").await;
    peer.reset();
    assert_eq!(peer.closed().await.reason, CloseReason::PeerReset);
    assert_eq!(peer.recv_or_end().await, None);

    let mut peer = test.peer().await;
    peer.send_bytes("last words").await;
    peer.half_close();
    assert_eq!(peer.rest().await, ["LAST WORDS"]);
    assert_eq!(peer.closed().await.reason, CloseReason::PeerClosed);

    let mut peer = test.peer().await;
    let id = peer.id();
    peer.send("read").await;
    assert_eq!(peer.recv().await, "READ");
    drop(peer);
    settle().await;
    assert_eq!(end_of(id), Some(CloseReason::PeerClosed));

    let mut peer = test.peer().await;
    let id = peer.id();
    peer.send("not read").await;
    settle().await;
    drop(peer);
    settle().await;
    assert_eq!(end_of(id), Some(CloseReason::PeerReset), "a socket with unread bytes is closed with a reset");
    test.finish().await;
}

#[tokio::test]
async fn a_busy_handler_leaves_bytes_unread() {
    let test = Harness::start(shout(), Lines::new()).await;
    let mut peer = test.peer().await;
    peer.send("late").await;
    settle().await;
    assert_eq!(peer.unread_bytes(), 0);
    peer.send("next").await;
    settle().await;
    assert_eq!(peer.unread_bytes(), 5);
    assert_eq!(peer.recv().await, "LATE");
    settle().await;
    assert_eq!(peer.unread_bytes(), 0);
    // more than is on the way: the peer waits for the handler, and loses nothing
    let started = Instant::now();
    peer.send("late").await;
    for _ in 0..100 {
        peer.send("x".repeat(10_000)).await;
        peer.recv().await;
    }
    assert_eq!(started.elapsed().as_secs(), 10);
    test.finish().await;
}

/// Takes its time over the end.
#[derive(Clone)]
struct Slow(Arc<AtomicBool>);

impl Handler for Slow {
    type In = String;
    type Out = String;

    async fn on_message(&mut self, conn: &mut Connection<String>, _: String) -> anyhow::Result<()> {
        while !matches!(conn.try_send("x".into()), Err(TrySendError::Full(_))) {}
        Ok(())
    }

    async fn on_close(self, _: Closed) {
        sleep(5 * SECOND).await;
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn on_close_has_run_when_the_end_is_told() {
    let done = Arc::new(AtomicBool::new(false));
    let test = Harness::start(Server::new(Slow(Arc::clone(&done))), Lines::new()).await;
    let mut peer = test.peer().await;
    peer.half_close();
    peer.closed().await;
    assert!(done.load(Ordering::Relaxed));
    test.finish().await;
}

#[tokio::test]
async fn a_drain_is_the_servers() {
    let test = Harness::start(shout(), Lines::new()).await;
    let (mut idle, mut busy, mut stuck) = (test.peer().await, test.peer().await, test.peer().await);
    idle.send("hello").await;
    busy.send("late").await;
    stuck.send("late").await;
    stuck.send("late").await;
    settle().await;
    let report = test.drain(15 * SECOND).await;
    assert_eq!((report.finished, report.cut), (2, 1), "{report:?}");
    assert_eq!(idle.rest().await, ["HELLO"]);
    assert_eq!(busy.rest().await, ["LATE"]);
    assert_eq!(busy.closed().await.reason, CloseReason::Drained);
    assert_eq!(stuck.closed().await.reason, CloseReason::Shutdown);
    // it was cut as it was told to be: nothing is left
    test.finish().await;
}

#[tokio::test]
async fn a_peer_above_the_limit_waits_or_is_refused() {
    let limits = Limits::edge().with_max_connections(1);
    let test = Harness::start(shout().limits(limits.clone()), Lines::new()).await;
    let (mut first, mut second) = (test.peer().await, test.peer().await);
    second.send("here").await;
    assert_eq!(second.id(), None);
    first.half_close();
    first.closed().await;
    assert_eq!(second.recv().await, "HERE");
    assert!(second.id().is_some());

    test.running().set_limits(limits.with_overload(Overload::Reset)).expect("limits");
    let mut third = test.peer().await;
    assert_eq!(third.recv_or_end().await, None);
    let text = failure(third.closed()).await;
    assert!(text.contains("refused the peer before there was a session"), "{text}");
    assert_eq!(test.running().counters().refused(Refusal::Connections), 1);
    // whoever was refused does not stand in for others
    second.half_close();
    second.closed().await;
    let mut fourth = test.peer().await;
    fourth.send("bye").await;
    assert_eq!(fourth.closed().await.reason, CloseReason::Local);
    test.finish().await;
}

/// Each says where in this file, what was awaited, and what is known.
#[tokio::test]
async fn what_does_not_come_fails_the_test_with_what_is_known() {
    let test = Harness::start(shout(), Lines::new()).await;
    let has = |text: &str, parts: &[&str]| {
        assert!(text.starts_with("tests/testing_harness.rs:"), "{text}");
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    };
    let mut peer = test.peer().await;
    peer.send("a").await;
    peer.recv().await;
    let text = failure(peer.recv()).await;
    has(&text, &["no message came", "the server ended its side", "is closed: idle", "1 messages in, 1 out"]);

    let mut peer = test.peer().await;
    peer.send("bye").await;
    has(&failure(peer.recv_bytes(3)).await, &["of 3 bytes, only these came: b\"\"", "is closed: local"]);
    has(&failure(peer.expect_silence(SECOND)).await, &["the connection ended where nothing should come"]);

    let mut peer = test.peer().await;
    peer.send("a\u{1}").await;
    settle().await;
    has(&failure(peer.expect_silence(SECOND)).await, &["something came where nothing should: b\"A\\x01\\n\""]);
    peer.half_close();
    has(&failure(peer.expect_end()).await, &["something came before the end: b\"A\\x01\\n\""]);

    let mut peer = test.peer().await;
    has(&failure(async { peer.send("two\nlines").await }).await, &["the peer's codec refused a message"]);
    test.finish().await;

    let patient = Limits::internal().with_idle(100 * 24 * 3600 * SECOND);
    let test = Harness::start(shout().limits(patient), Lines::new()).await;
    let mut peer = test.peer().await;
    peer.send("a").await;
    peer.recv().await;
    let text = failure(peer.recv()).await;
    has(&text, &["a message did not come within a day", "is open: 2 bytes and 1 messages came in"]);
    test.finish().await;
}

#[tokio::test]
async fn what_the_server_sends_must_be_whole_messages() {
    let server = Server::serve(|mut conn: Connection<Bytes>| async move {
        let _ = conn.recv().await?;
        Ok(conn.send("\0\0\0\x08half".into()).await?)
    });
    let test = Harness::start_with(server, hythe::codec::Raw::new(), LengthDelimited::new()).await;
    let mut peer = test.peer().await;
    peer.send("x").await;
    let text = failure(peer.recv()).await;
    assert!(text.contains("8 bytes were there") || text.contains("ended inside a message"), "{text}");
    test.finish().await;
}

#[test]
fn a_server_that_cannot_be_tested_is_refused() {
    let run = |workers: usize, server: fn() -> Server<hythe::handler::Cloned<Slow>>| {
        let mut builder = match workers {
            1 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = builder.enable_all().build().expect("a runtime");
        runtime.block_on(failure(async { Harness::start(server(), Lines::new()).await }))
    };
    let slow = || Server::new(Slow(Arc::default()));
    assert!(run(2, slow).contains("single-threaded"));
    let bound = || Server::new(Slow(Arc::default())).bind("mem:its-own", Lines::new());
    assert!(run(1, bound).contains("no endpoint of its own"));
    let unlimited = || Server::new(Slow(Arc::default())).limits(Limits::edge().with_max_message(0));
    assert!(run(1, unlimited).contains("does not start: the limit max_message is 0"));
}
