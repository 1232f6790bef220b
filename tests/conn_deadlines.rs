//! The deadlines of the incoming side, to the second: what starts each of them, and what extends it and what does not.

#![cfg(feature = "testing")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hythe::codec::{LengthDelimited, Lines, Raw};
use hythe::testing::{Harness, Peer};
use hythe::{Bytes, CloseReason, Connection, Handler, Limits, Server, Session};
use support::{SECOND, Told, frame, open_with, paused};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Instant, sleep};

fn limits() -> Limits {
    Limits::edge()
        .with_first_byte(5 * SECOND)
        .with_message(20 * SECOND)
        .with_idle(60 * SECOND)
        .with_write_stall(40 * SECOND)
        .with_half_close(10 * SECOND)
}

/// A server with these limits, and a peer of it.
async fn started(server: Server<impl Session<In = Bytes, Out = Bytes>>) -> (Harness<Bytes>, Peer<Bytes>) {
    let test = Harness::start(server.limits(limits()), LengthDelimited::new()).await;
    let peer = test.peer().await;
    (test, peer)
}

async fn echo() -> (Harness<Bytes>, Peer<Bytes>) {
    started(Server::new(Told::new().0.echo())).await
}

/// Why the connection ends, after how many seconds; and that nothing of it is left.
async fn end<M: Send + 'static>(test: Harness<M>, mut peer: Peer<M>) -> (CloseReason, u64) {
    let closed = peer.closed().await;
    test.finish().await;
    (closed.reason, closed.duration.as_secs())
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_closed_after_the_first_byte_deadline() {
    let (test, peer) = echo().await;
    assert_eq!(end(test, peer).await, (CloseReason::FirstByteTimeout, 5));
}

#[tokio::test]
async fn one_byte_is_enough_for_the_first_byte_deadline() {
    let (test, mut peer) = echo().await;
    sleep(4 * SECOND).await;
    peer.send_bytes(b"\0").await;
    assert_eq!(end(test, peer).await, (CloseReason::MessageTimeout, 24));
}

#[tokio::test]
async fn a_byte_a_second_does_not_extend_the_message_deadline() {
    let (test, mut peer) = echo().await;
    for byte in frame(&[0; 100]) {
        // also after the end, as a peer would that does not listen
        peer.send_bytes([byte]).await;
        sleep(SECOND).await;
    }
    assert_eq!(end(test, peer).await, (CloseReason::MessageTimeout, 20));
}

#[tokio::test]
async fn each_message_has_the_whole_of_its_deadline() {
    let (test, mut peer) = echo().await;
    // ten messages of 15 seconds each, without a pause between them
    let wire = frame(&[0; 11]).repeat(10);
    for byte in wire {
        peer.send_bytes([byte]).await;
        sleep(SECOND).await;
    }
    assert!(test.closed().is_empty());
    assert_eq!(end(test, peer).await, (CloseReason::Idle, 149 + 60));
}

#[tokio::test]
async fn a_message_that_began_behind_another_is_not_late_because_the_handler_was() {
    let told = Told::<Bytes>::new().0.on_message(|_, _| {
        Box::pin(async {
            sleep(100 * SECOND).await;
            Ok(())
        })
    });
    let (test, mut peer) = started(Server::new(told)).await;
    let two = frame(b"message").repeat(2);
    peer.send_bytes(&two[..15]).await;
    sleep(110 * SECOND).await;
    assert!(test.closed().is_empty(), "the peer had 10 s by now, not 110");
    peer.send_bytes(&two[15..]).await;
    sleep(50 * SECOND).await;
    assert!(test.closed().is_empty());
    assert_eq!(end(test, peer).await, (CloseReason::Idle, 110 + 100 + 60));
}

#[tokio::test]
async fn bytes_in_extend_idle() {
    let (test, mut peer) = echo().await;
    for _ in 0..5 {
        peer.send("message").await;
        sleep(59 * SECOND).await;
    }
    assert!(test.closed().is_empty());
    assert_eq!(end(test, peer).await, (CloseReason::Idle, 4 * 59 + 60));
}

#[tokio::test]
async fn sending_does_not_extend_idle() {
    let told = Told::<Bytes>::new().0.on_message(|conn, _| {
        let sender = conn.sender();
        tokio::spawn(async move {
            while sender.send(Bytes::from_static(b"tick")).await.is_ok() {
                sleep(SECOND).await;
            }
        });
        Box::pin(async { Ok(()) })
    });
    let (test, mut peer) = started(Server::new(told)).await;
    peer.send("message").await;
    let received = peer.rest().await.len();
    assert!((60..=61).contains(&received), "{received}");
    assert_eq!(end(test, peer).await, (CloseReason::Idle, 60));
}

#[tokio::test]
async fn the_handlers_own_time_is_not_the_peers() {
    let told = Told::<Bytes>::new().0.on_message(|conn, message| {
        Box::pin(async move {
            sleep(1000 * SECOND).await;
            Ok(conn.send(message).await?)
        })
    });
    let (test, mut peer) = started(Server::new(told)).await;
    peer.send("message").await;
    assert_eq!(peer.recv().await, "message");
    assert_eq!(end(test, peer).await, (CloseReason::Idle, 1060));
}

/// Counts the calls of `on_idle`, which takes a while and closes at the third.
#[derive(Clone)]
struct Patient {
    idle: Arc<Mutex<Vec<u64>>>,
    started: Instant,
    takes: Duration,
}

impl Handler for Patient {
    type In = String;
    type Out = String;

    async fn on_message(&mut self, _: &mut Connection<String>, _: String) -> anyhow::Result<()> {
        Ok(())
    }

    async fn on_idle(&mut self, conn: &mut Connection<String>) -> anyhow::Result<()> {
        let calls = {
            let mut idle = self.idle.lock().expect("no panic");
            idle.push(self.started.elapsed().as_secs());
            idle.len()
        };
        sleep(self.takes).await;
        conn.send("are you there?".to_string()).await?;
        if calls == 3 {
            conn.close().await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn on_idle_is_called_again_after_as_much_time() {
    for takes in [0, 10, 200] {
        let idle = Arc::default();
        let handler = Patient { idle: Arc::clone(&idle), started: Instant::now(), takes: takes * SECOND };
        let test = Harness::start(Server::new(handler).limits(limits()), Lines::new()).await;
        let mut peer = test.peer().await;
        peer.send("hello").await;
        assert_eq!(peer.rest().await, ["are you there?"; 3]);
        let takes = u64::from(takes);
        assert_eq!(*idle.lock().expect("no panic"), [60, 120 + takes, 180 + 2 * takes], "{takes} s in on_idle");
        assert_eq!(end(test, peer).await.0, CloseReason::Local);
    }
}

#[tokio::test]
async fn the_straight_line_style_gets_an_error_that_says_idle() {
    let (to, mut results) = unbounded_channel();
    let server = Server::serve(move |mut conn: Connection<String>| {
        let to = to.clone();
        async move {
            let first = conn.recv().await?;
            let error = conn.recv().await.expect_err("idle");
            let again = conn.recv().await.expect_err("idle for good");
            let _ = to.send((first, error.close_reason(), again.close_reason()));
            // there may still be a last word
            conn.send("good bye".to_string()).await?;
            Ok(())
        }
    });
    let test = Harness::start(server.limits(limits()), Lines::new()).await;
    let mut peer = test.peer().await;
    peer.send("hello").await;
    assert_eq!(peer.rest().await, ["good bye"]);
    let idle = Some(CloseReason::Idle);
    assert_eq!(results.try_recv(), Ok((Some("hello".to_string()), idle, idle)));
    assert_eq!(end(test, peer).await, (CloseReason::Idle, 60));
}

/// `None` would say that the peer has ended.
#[tokio::test]
async fn a_handshake_in_on_open_gets_an_error_that_says_idle() {
    let (to, mut results) = unbounded_channel();
    let told = Told::<String>::new().0.on_open(move |conn, ()| {
        let to = to.clone();
        Box::pin(async move {
            let first = conn.recv().await?;
            let second = conn.recv().await.map_err(|error| error.close_reason());
            let _ = to.send((first, second));
            Ok(())
        })
    });
    let test = Harness::start(Server::new(told).limits(limits()), Lines::new()).await;
    let mut peer = test.peer().await;
    peer.send("hello").await;
    assert_eq!(end(test, peer).await, (CloseReason::Idle, 60));
    let result = results.try_recv().expect("a result");
    assert_eq!(result, (Some("hello".to_string()), Err(Some(CloseReason::Idle))));
}

#[tokio::test]
async fn a_half_closed_connection_ends_after_the_grace_without_progress() {
    let server = Server::serve(|mut conn: Connection<Bytes>| async move {
        while conn.recv().await?.is_some() {}
        // progress every 9 seconds, ten times
        for _ in 0..10 {
            sleep(9 * SECOND).await;
            conn.send(Bytes::from_static(b"still here")).await?;
        }
        std::future::pending().await
    });
    let (test, mut peer) = started(server).await;
    peer.send("message").await;
    peer.half_close();
    let closed = peer.closed().await;
    assert_eq!((closed.reason, closed.duration.as_secs()), (CloseReason::HalfCloseTimeout, 100));
    assert_eq!(peer.rest().await.len(), 10);
    test.finish().await;
}

#[tokio::test]
async fn a_clients_message_has_its_deadline_but_its_silence_has_none() {
    let server = Server::serve(|mut conn: Connection<Bytes>| async move {
        sleep(10_000 * SECOND).await;
        // half a message
        conn.send(Bytes::from_static(b"\0\0\0\x08half")).await?;
        std::future::pending().await
    });
    let test = Harness::start(server.limits(limits()), Raw::new()).await;
    let started = Instant::now();
    let mut conn: Connection<Bytes> = open_with(test.endpoint(), LengthDelimited::new(), limits()).await;
    let error = paused("the deadline", conn.recv()).await.expect_err("half a message");
    assert_eq!(error.close_reason(), Some(CloseReason::MessageTimeout));
    assert_eq!(started.elapsed().as_secs(), 10_020);
}

#[tokio::test]
async fn a_client_that_ended_its_side_waits_for_the_grace_alone() {
    let server = Server::serve(|mut conn: Connection<Bytes>| async move {
        while conn.recv().await?.is_some() {}
        // progress, then none
        sleep(6 * SECOND).await;
        conn.send(Bytes::from_static(b"one")).await?;
        std::future::pending().await
    });
    let patient = limits().with_half_close(1000 * SECOND);
    let test = Harness::start(server.limits(patient), LengthDelimited::new()).await;
    let mut conn: Connection<Bytes> = open_with(test.endpoint(), LengthDelimited::new(), limits()).await;
    let started = Instant::now();
    conn.finish().await.expect("an end");
    assert_eq!(paused("the reply", conn.recv()).await.expect("a reply").as_deref(), Some(&b"one"[..]));
    let error = paused("the deadline", conn.recv()).await.expect_err("nothing more");
    assert_eq!(error.close_reason(), Some(CloseReason::HalfCloseTimeout));
    assert_eq!(started.elapsed().as_secs(), 16);
}
