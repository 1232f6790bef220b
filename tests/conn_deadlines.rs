//! The deadlines of the incoming side, to the second: what starts each of them, and what extends it and what does not.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hythe::codec::{LengthDelimited, Lines};
use hythe::{Bytes, CloseReason, Closed, Connection, Handler, Limits, Running, Server};
use support::{SECOND, Told, frame, mem, open, open_raw, open_with, paused, start};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, sleep};

fn limits() -> Limits {
    Limits::edge()
        .with_first_byte(5 * SECOND)
        .with_message(20 * SECOND)
        .with_idle(60 * SECOND)
        .with_write_stall(40 * SECOND)
        .with_half_close(10 * SECOND)
}

/// An echo, its raw peer, and how it ends.
async fn echo() -> (Running, Connection<Bytes>, UnboundedReceiver<Closed>) {
    let (told, ends) = Told::new();
    let (running, endpoint) = start(Server::new(told.echo()).limits(limits()), &mem(), LengthDelimited::new()).await;
    let peer = open_raw(&endpoint).await;
    (running, peer, ends)
}

async fn end(ends: &mut UnboundedReceiver<Closed>) -> (CloseReason, u64) {
    let closed = paused("the end", ends.recv()).await.expect("a connection");
    (closed.reason, closed.duration.as_secs())
}

async fn write(peer: &mut Connection<Bytes>, bytes: impl Into<Bytes>) {
    peer.send(bytes.into()).await.expect("sent");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_closed_after_the_first_byte_deadline() {
    let (_running, _peer, mut ends) = echo().await;
    assert_eq!(end(&mut ends).await, (CloseReason::FirstByteTimeout, 5));
}

#[tokio::test(start_paused = true)]
async fn one_byte_is_enough_for_the_first_byte_deadline() {
    let (_running, mut peer, mut ends) = echo().await;
    sleep(4 * SECOND).await;
    write(&mut peer, &b"\0"[..]).await;
    assert_eq!(end(&mut ends).await, (CloseReason::MessageTimeout, 24));
}

#[tokio::test(start_paused = true)]
async fn a_byte_a_second_does_not_extend_the_message_deadline() {
    let (_running, mut peer, mut ends) = echo().await;
    for byte in frame(&[0; 100]) {
        if peer.send(vec![byte].into()).await.is_err() {
            break;
        }
        sleep(SECOND).await;
    }
    assert_eq!(end(&mut ends).await, (CloseReason::MessageTimeout, 20));
}

#[tokio::test(start_paused = true)]
async fn each_message_has_the_whole_of_its_deadline() {
    let (_running, mut peer, mut ends) = echo().await;
    // ten messages of 15 seconds each, without a pause between them
    let wire = frame(&[0; 11]).repeat(10);
    for byte in wire {
        write(&mut peer, vec![byte]).await;
        sleep(SECOND).await;
    }
    assert!(ends.try_recv().is_err());
    assert_eq!(end(&mut ends).await, (CloseReason::Idle, 149 + 60));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_began_behind_another_is_not_late_because_the_handler_was() {
    let (told, mut ends) = Told::<Bytes>::new();
    let told = told.on_message(|_, _| {
        Box::pin(async {
            sleep(100 * SECOND).await;
            Ok(())
        })
    });
    let (_running, endpoint) = start(Server::new(told).limits(limits()), &mem(), LengthDelimited::new()).await;
    let mut peer = open_raw(&endpoint).await;
    let two = frame(b"message").repeat(2);
    write(&mut peer, two[..15].to_vec()).await;
    sleep(110 * SECOND).await;
    assert!(ends.try_recv().is_err(), "the peer had 10 s by now, not 110");
    write(&mut peer, two[15..].to_vec()).await;
    sleep(50 * SECOND).await;
    assert!(ends.try_recv().is_err());
    assert_eq!(end(&mut ends).await, (CloseReason::Idle, 110 + 100 + 60));
}

#[tokio::test(start_paused = true)]
async fn bytes_in_extend_idle() {
    let (_running, mut peer, mut ends) = echo().await;
    for _ in 0..5 {
        write(&mut peer, frame(b"message")).await;
        sleep(59 * SECOND).await;
    }
    assert!(ends.try_recv().is_err());
    assert_eq!(end(&mut ends).await, (CloseReason::Idle, 4 * 59 + 60));
}

#[tokio::test(start_paused = true)]
async fn sending_does_not_extend_idle() {
    let (to, mut senders) = unbounded_channel();
    let (told, mut ends) = Told::new();
    let told = told.on_message(move |conn: &mut Connection<Bytes>, _| {
        let _ = to.send(conn.sender());
        Box::pin(async { Ok(()) })
    });
    let (_running, endpoint) = start(Server::new(told).limits(limits()), &mem(), LengthDelimited::new()).await;
    let mut peer = open(&endpoint, LengthDelimited::new()).await;
    write(&mut peer, &b"message"[..]).await;
    let sender = paused("the message", senders.recv()).await.expect("a sender");
    let ticks = tokio::spawn(async move {
        while sender.send(Bytes::from_static(b"tick")).await.is_ok() {
            sleep(SECOND).await;
        }
    });
    let mut received = 0;
    while let Ok(Some(_)) = paused("a tick", peer.recv()).await {
        received += 1;
    }
    assert_eq!(end(&mut ends).await, (CloseReason::Idle, 60));
    assert!((60..=61).contains(&received), "{received}");
    paused("the ticks end", ticks).await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn the_handlers_own_time_is_not_the_peers() {
    let (told, mut ends) = Told::<Bytes>::new();
    let told = told.on_message(|conn, message| {
        Box::pin(async move {
            sleep(1000 * SECOND).await;
            Ok(conn.send(message).await?)
        })
    });
    let (_running, endpoint) = start(Server::new(told).limits(limits()), &mem(), LengthDelimited::new()).await;
    let mut peer = open(&endpoint, LengthDelimited::new()).await;
    write(&mut peer, &b"message"[..]).await;
    let answer = paused("the answer", peer.recv()).await.expect("open");
    assert_eq!(answer.as_deref(), Some(&b"message"[..]));
    assert_eq!(end(&mut ends).await, (CloseReason::Idle, 1060));
}

/// Counts the calls of `on_idle`, which takes a while and closes at the third.
#[derive(Clone)]
struct Patient {
    idle: Arc<Mutex<Vec<u64>>>,
    started: Instant,
    takes: Duration,
    closed: tokio::sync::mpsc::UnboundedSender<Closed>,
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

    async fn on_close(self, closed: Closed) {
        let _ = self.closed.send(closed);
    }
}

#[tokio::test(start_paused = true)]
async fn on_idle_is_called_again_after_as_much_time() {
    for takes in [0, 10, 200] {
        let idle = Arc::default();
        let (to, mut ends) = unbounded_channel();
        let handler = Patient { idle: Arc::clone(&idle), started: Instant::now(), takes: takes * SECOND, closed: to };
        let (_running, endpoint) = start(Server::new(handler).limits(limits()), &mem(), Lines::new()).await;
        let mut peer = open(&endpoint, Lines::new()).await;
        peer.send("hello".to_string()).await.expect("sent");
        let mut asked = 0;
        while paused("a question", peer.recv()).await.expect("open").is_some() {
            asked += 1;
        }
        drop(peer);
        assert_eq!(asked, 3);
        let takes = u64::from(takes);
        assert_eq!(*idle.lock().expect("no panic"), [60, 120 + takes, 180 + 2 * takes], "{takes} s in on_idle");
        assert_eq!(end(&mut ends).await.0, CloseReason::Local);
    }
}

#[tokio::test(start_paused = true)]
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
    let (_running, endpoint) = start(server.limits(limits()), &mem(), Lines::new()).await;
    let mut peer = open(&endpoint, Lines::new()).await;
    peer.send("hello".to_string()).await.expect("sent");
    let idle = Some(CloseReason::Idle);
    assert_eq!(paused("the error", results.recv()).await, Some((Some("hello".to_string()), idle, idle)));
    assert_eq!(paused("the last word", peer.recv()).await.expect("open").as_deref(), Some("good bye"));
    assert_eq!(paused("the end", peer.recv()).await.expect("open"), None);
}

/// `None` would say that the peer has ended.
#[tokio::test(start_paused = true)]
async fn a_handshake_in_on_open_gets_an_error_that_says_idle() {
    let (to, mut results) = unbounded_channel();
    let (told, mut ends) = Told::<String>::new();
    let told = told.on_open(move |conn, ()| {
        let to = to.clone();
        Box::pin(async move {
            let first = conn.recv().await?;
            let second = conn.recv().await.map_err(|error| error.close_reason());
            let _ = to.send((first, second));
            Ok(())
        })
    });
    let (_running, endpoint) = start(Server::new(told).limits(limits()), &mem(), Lines::new()).await;
    let mut peer = open(&endpoint, Lines::new()).await;
    peer.send("hello".to_string()).await.expect("sent");
    let result = paused("the error", results.recv()).await.expect("a result");
    assert_eq!(result, (Some("hello".to_string()), Err(Some(CloseReason::Idle))));
    assert_eq!(end(&mut ends).await, (CloseReason::Idle, 60));
}

#[tokio::test(start_paused = true)]
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
    let (running, endpoint) = start(server.limits(limits()), &mem(), LengthDelimited::new()).await;
    let mut peer = open_raw(&endpoint).await;
    write(&mut peer, frame(b"message")).await;
    let started = Instant::now();
    peer.close().await.expect("closed");
    paused("the end", async {
        while running.counters().closed == 0 {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_eq!(started.elapsed().as_secs(), 100);
    assert_eq!(running.counters().messages_out, 10);
}

#[tokio::test(start_paused = true)]
async fn a_clients_message_has_its_deadline_but_its_silence_has_none() {
    let server = Server::serve(|mut conn: Connection<Bytes>| async move {
        sleep(10_000 * SECOND).await;
        // half a message
        conn.send(Bytes::from_static(b"\0\0\0\x08half")).await?;
        std::future::pending().await
    });
    let (_running, endpoint) = start(server.limits(limits()), &mem(), hythe::codec::Raw::new()).await;
    let started = Instant::now();
    let mut conn: Connection<Bytes> = open_with(&endpoint, LengthDelimited::new(), limits()).await;
    let error = paused("the deadline", conn.recv()).await.expect_err("half a message");
    assert_eq!(error.close_reason(), Some(CloseReason::MessageTimeout));
    assert_eq!(started.elapsed().as_secs(), 10_020);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_ended_its_side_waits_for_the_grace_alone() {
    let server = Server::serve(|mut conn: Connection<Bytes>| async move {
        while conn.recv().await?.is_some() {}
        // progress, then none
        sleep(6 * SECOND).await;
        conn.send(Bytes::from_static(b"one")).await?;
        std::future::pending().await
    });
    let patient = limits().with_half_close(1000 * SECOND);
    let (_running, endpoint) = start(server.limits(patient), &mem(), LengthDelimited::new()).await;
    let mut conn: Connection<Bytes> = open_with(&endpoint, LengthDelimited::new(), limits()).await;
    let started = Instant::now();
    conn.finish().await.expect("an end");
    assert_eq!(paused("the reply", conn.recv()).await.expect("a reply").as_deref(), Some(&b"one"[..]));
    let error = paused("the deadline", conn.recv()).await.expect_err("nothing more");
    assert_eq!(error.close_reason(), Some(CloseReason::HalfCloseTimeout));
    assert_eq!(started.elapsed().as_secs(), 16);
}
