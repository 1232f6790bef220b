//! A peer that takes nothing costs at most its outbox and is cut after the write deadline; progress extends that, and
//! nobody else sees any of it.

#![cfg(all(feature = "tcp", feature = "testing"))]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hythe::codec::{LengthDelimited, Raw};
use hythe::testing::{Harness, settle};
use hythe::{Bytes, CloseReason, Connection, Group, Limits, Overflow, Sender, Server};
use support::{SECOND, Told, frame, mem, open_raw, open_with, paused, start, tcp, within};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::Instant;

const OUTBOX: usize = 10_000;
const MESSAGE: usize = 1_000;
/// A message on the wire.
const FRAME: usize = MESSAGE + 4;

fn limits() -> Limits {
    Limits::edge().with_outbox(OUTBOX)
}

fn message() -> Bytes {
    Bytes::from(vec![7; MESSAGE])
}

/// Sends for as long as that works.
fn sends_for_ever(told: Told<Bytes>) -> Told<Bytes> {
    told.on_open(|conn, ()| {
        Box::pin(async move {
            loop {
                conn.send(message()).await?;
            }
        })
    })
}

#[tokio::test]
async fn a_reader_that_stops_costs_its_outbox_and_is_cut_after_the_write_deadline() {
    let most = Arc::new(AtomicUsize::new(0));
    let (told, _) = Told::new();
    let seen = Arc::clone(&most);
    let group = Group::new(Overflow::DropOldest);
    let told = told.on_open(move |conn: &mut Connection<Bytes>, ()| {
        let (seen, group) = (Arc::clone(&seen), group.clone());
        group.join(conn);
        let sender = conn.sender();
        Box::pin(async move {
            // everybody sends: the owner, a task that waits for room, and some that do not wait
            let task = tokio::spawn({
                let sender = sender.clone();
                async move { while sender.send(message()).await.is_ok() {} }
            });
            let result = loop {
                let _ = sender.try_send(message());
                let _ = sender.push(message(), Overflow::DropNewest);
                let _ = group.send(message());
                let _ = conn.try_send(message());
                seen.fetch_max(conn.unsent_bytes(), Ordering::Relaxed);
                if let Err(error) = conn.send(message()).await {
                    break Err(error.into());
                }
            };
            task.await?;
            result
        })
    });
    let test = Harness::start(Server::new(told).limits(limits()), LengthDelimited::new()).await;
    let mut peer = test.peer().await;
    peer.stall();
    let closed = peer.closed().await;
    assert_eq!((closed.reason, closed.duration.as_secs()), (CloseReason::WriteStalled, 30));
    let most = most.load(Ordering::Relaxed);
    assert!((OUTBOX / 2..=OUTBOX + FRAME).contains(&most), "{most} bytes waited");
    assert!(closed.unsent_bytes as usize <= OUTBOX + FRAME, "{closed:?}");
    test.finish().await;
}

#[tokio::test]
async fn a_tcp_reader_that_stops_is_cut() {
    let (told, mut ends) = Told::new();
    let server = Server::new(sends_for_ever(told)).limits(limits().with_write_stall(Duration::from_millis(300)));
    let (_running, endpoint) = start(server, &tcp(), LengthDelimited::new()).await;
    let _peer = std::net::TcpStream::connect(endpoint.to_string().trim_start_matches("tcp://")).expect("connected");
    let closed = within("the cut", ends.recv()).await.expect("a connection");
    assert_eq!(closed.reason, CloseReason::WriteStalled, "{closed:?}");
    assert!(closed.unsent_bytes > 0 && closed.unsent_bytes as usize <= OUTBOX + FRAME, "{closed:?}");
}

#[tokio::test]
async fn two_peers_that_only_write_are_cut() {
    let server = Server::new(sends_for_ever(Told::new().0)).limits(limits());
    let test = Harness::start(server, LengthDelimited::new()).await;
    let mut conn: Connection<Bytes> = open_with(test.endpoint(), LengthDelimited::new(), limits()).await;
    let client = async {
        loop {
            if let Err(error) = conn.send(message()).await {
                return (error.close_reason(), conn.unsent_bytes());
            }
        }
    };
    let (reason, unsent) = paused("the client's end", client).await;
    assert!(matches!(reason, Some(CloseReason::WriteStalled | CloseReason::PeerReset)), "{reason:?}");
    assert!(unsent <= OUTBOX + FRAME, "{unsent} bytes waited");
    drop(conn);
    let closed = &test.finish().await[0];
    assert_eq!((closed.reason, closed.duration.as_secs()), (CloseReason::WriteStalled, 30));
}

#[tokio::test]
async fn progress_extends_the_write_deadline() {
    let server = Server::new(sends_for_ever(Told::new().0)).limits(limits());
    let test = Harness::start(server, LengthDelimited::new()).await;
    let mut peer = test.peer().await;
    for _ in 0..10 {
        // a reader that takes its time: some bytes, then nothing for 29 seconds
        tokio::time::sleep(29 * SECOND).await;
        peer.recv_bytes(20_000).await;
    }
    assert!(test.closed().is_empty(), "cut while there was progress");
    let stopped = Instant::now();
    settle().await;
    peer.stall();
    let closed = peer.closed().await;
    assert_eq!((closed.reason, stopped.elapsed().as_secs()), (CloseReason::WriteStalled, 30));
    test.finish().await;
}

/// The clock only moves when everybody waits for it: that it stands still means that nobody waited.
#[tokio::test]
async fn a_member_that_stops_reading_delays_no_other() {
    for overflow in [Overflow::DropNewest, Overflow::DropOldest, Overflow::Disconnect] {
        let group = Group::new(overflow);
        let members = group.clone();
        let told = Told::new().0.on_open(move |conn, ()| {
            members.join(conn);
            Box::pin(async { Ok(()) })
        });
        let test = Harness::start(Server::new(told).limits(limits()), LengthDelimited::new()).await;
        let mut stopped = test.peer().await;
        stopped.stall();
        let mut readers = [test.peer().await, test.peer().await];
        settle().await;
        assert_eq!(group.len(), 3);
        let started = Instant::now();
        for number in 0..500u32 {
            let mut expected = message().to_vec();
            expected.splice(..4, number.to_be_bytes());
            let delivered = group.send(expected.clone().into());
            assert!(delivered.sent >= 2, "{delivered:?}");
            for reader in &mut readers {
                assert_eq!(reader.recv().await, expected);
            }
        }
        assert_eq!(started.elapsed(), Duration::ZERO, "{overflow:?}");
        let last = group.send(message());
        let told = (last.sent, last.dropped, last.evicted);
        match overflow {
            Overflow::Disconnect => {
                assert_eq!(told, (2, 0, 0));
                assert_eq!(stopped.closed().await.reason, CloseReason::SlowPeer);
            }
            _ => assert_eq!(told, (2, 1, 0)),
        }
        test.finish().await;
    }
}

/// Whoever waits for room gets it when the peer reads again, in the order of the messages.
#[tokio::test]
async fn a_slow_reader_gets_everything_that_was_sent_with_waiting() {
    let (to, mut senders) = unbounded_channel::<Sender<Bytes>>();
    let (told, _ends) = Told::new();
    let told = told.on_open(move |conn: &mut Connection<Bytes>, ()| {
        let _ = to.send(conn.sender());
        Box::pin(async { Ok(()) })
    });
    for endpoint in [mem(), tcp()] {
        let (_running, endpoint) = start(Server::new(told.clone()).limits(limits()), &endpoint, Raw::new()).await;
        let mut peer = open_raw(&endpoint).await;
        let sender = within("the connection", senders.recv()).await.expect("a sender");
        let task = tokio::spawn(async move {
            for number in 0..1000u32 {
                sender.send(frame(&[number.to_be_bytes().as_slice(), &[0; 2000]].concat()).into()).await?;
            }
            anyhow::Ok(())
        });
        let mut wire = Vec::new();
        while wire.len() < 1000 * 2008 {
            wire.extend_from_slice(&within("bytes", peer.recv()).await.expect("open").expect("bytes"));
            tokio::task::yield_now().await;
        }
        let (messages, rest) = support::unframe(&wire);
        assert!(rest.is_empty());
        let numbers = messages.iter().map(|message| message.first_chunk().copied().map(u32::from_be_bytes));
        assert!(numbers.eq((0..1000).map(Some)));
        task.await.expect("no panic").expect("all sent");
    }
}
