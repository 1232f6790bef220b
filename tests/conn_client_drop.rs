//! What a client sent goes out, though nobody polls its connection any more, and though it was dropped; unless the
//! peer takes nothing for too long, and then nothing of the connection is left.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;

use futures::FutureExt;
use hythe::codec::{LengthDelimited, Raw};
use hythe::{Bytes, CloseReason, Connection, Limits, Server};
use support::{SECOND, mem, open, open_with, paused, read_to_end, start, tcp, within};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::{oneshot, watch};
use tokio::task::spawn_blocking;

/// More than all buffers on the way hold.
const LARGE: usize = 8 << 20;

fn large() -> Bytes {
    let mut large = b"a message of a prime length".repeat(LARGE / 27 + 1);
    large.truncate(LARGE);
    large.into()
}

/// Reads to the end, but not before it is told to; then tells what it got.
macro_rules! late_reader {
    ($go:ident, $got:ident) => {{
        let (go, got) = ($go.clone(), $got.clone());
        Server::serve(move |mut conn: Connection<Bytes>| {
            let (mut go, got) = (go.clone(), got.clone());
            async move {
                go.wait_for(|go| *go).await?;
                let _ = got.send(read_to_end(&mut conn).await);
                Ok(())
            }
        })
    }};
}

#[tokio::test]
async fn a_message_goes_out_though_nobody_polls_the_connection_again() {
    for endpoint in [mem(), tcp()] {
        let (go, wait) = watch::channel(false);
        let (got, mut all) = unbounded_channel();
        let (_running, endpoint) = start(late_reader!(wait, got), &endpoint, Raw::new()).await;
        let mut conn: Connection<Bytes> = open(&endpoint, Raw::new()).await;
        conn.send(large()).await.expect("taken");
        assert!(conn.unsent_bytes() > 0, "the reader has not begun");
        go.send_replace(true);
        let unsent = || conn.unsent_bytes() == 0;
        support::until("everything is out", unsent).await;
        drop(conn);
        assert!(within("the end", all.recv()).await.expect("a session") == large());
    }
}

#[tokio::test]
async fn a_drop_delivers_what_waits() {
    for endpoint in [mem(), tcp()] {
        let (go, wait) = watch::channel(false);
        let (got, mut all) = unbounded_channel();
        let (_running, endpoint) = start(late_reader!(wait, got), &endpoint, Raw::new()).await;
        let mut conn: Connection<Bytes> = open(&endpoint, Raw::new()).await;
        conn.feed(Bytes::from_static(b"fed, ")).await.expect("taken");
        conn.send(large()).await.expect("taken");
        drop(conn);
        go.send_replace(true);
        let all = within("the end", all.recv()).await.expect("a session");
        assert!(all.strip_prefix(b"fed, ").is_some_and(|rest| rest == large()), "{} bytes arrived", all.len());
    }
}

/// A socket that is closed while it holds unread bytes sends a reset, which throws away what is on its way out.
#[tokio::test]
async fn a_drop_delivers_what_was_sent_though_the_peer_sent_more_than_was_read() {
    for size in [100, LARGE] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("tcp://{}", listener.local_addr().expect("bound")).parse().expect("an endpoint");
        let mut conn: Connection<Bytes> = open(&endpoint, Raw::new()).await;
        let (mut peer, _) = listener.accept().expect("a connection");
        peer.write_all(&[1; 10_000]).expect("sent");
        // the first of it is here, so the rest is as well, or soon
        within("the peer's bytes", conn.recv()).await.expect("no error").expect("bytes");
        peer.write_all(&[2; 10_000]).expect("sent");
        conn.send(large().slice(..size)).await.expect("taken");
        drop(conn);
        let reading = spawn_blocking(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).map(|_| all)
        });
        let all = within("the end", reading).await.expect("no panic").expect("no reset");
        assert!(all == large()[..size], "{} of {size} bytes arrived", all.len());
    }
}

#[tokio::test]
async fn a_drop_after_nonsense_delivers_what_waits() {
    let (go, wait) = watch::channel(false);
    let (got, mut all) = unbounded_channel();
    let server = Server::serve(move |mut conn: Connection<Bytes>| {
        let (mut wait, got) = (wait.clone(), got.clone());
        async move {
            // a claim of 4 GiB
            conn.send(Bytes::from_static(&[0xff; 4])).await?;
            wait.wait_for(|go| *go).await?;
            let _ = got.send(read_to_end(&mut conn).await.len());
            Ok(())
        }
    });
    let (_running, endpoint) = start(server, &mem(), Raw::new()).await;
    let mut conn: Connection<Bytes> = open(&endpoint, LengthDelimited::new()).await;
    conn.send(Bytes::from(vec![0; 500_000])).await.expect("taken");
    let error = within("the nonsense", conn.recv()).await.expect_err("a claim of 4 GiB");
    assert_eq!(error.close_reason(), Some(CloseReason::TooLarge));
    drop(conn);
    go.send_replace(true);
    assert_eq!(within("the end", all.recv()).await, Some(500_004));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_connection_gives_up_on_a_peer_that_takes_nothing() {
    let (got, mut all) = unbounded_channel();
    let server = Server::serve(move |mut conn: Connection<Bytes>| {
        let got = got.clone();
        async move {
            // such a peer
            tokio::time::sleep(3600 * SECOND).await;
            let _ = got.send(read_to_end(&mut conn).await.len());
            Ok(())
        }
    });
    let (_running, endpoint) = start(server, &mem(), Raw::new()).await;
    let mut conn: Connection<Bytes> = open(&endpoint, Raw::new()).await;
    conn.send(large()).await.expect("taken");
    drop(conn);
    let arrived = paused("the end", all.recv()).await.expect("a session");
    assert!(arrived < LARGE / 2, "{arrived} bytes arrived after an hour");
}

#[tokio::test(start_paused = true)]
async fn a_stall_after_nonsense_is_an_error_of_the_flush() {
    let (keep, kept) = oneshot::channel::<()>();
    let kept = kept.shared();
    let server = Server::serve(move |mut conn: Connection<Bytes>| {
        let kept = kept.clone();
        async move {
            conn.send(Bytes::from_static(&[0xff; 4])).await?;
            let _ = kept.await;
            Ok(())
        }
    });
    let (_running, endpoint) = start(server, &mem(), Raw::new()).await;
    let limits = Limits::edge().with_write_stall(5 * SECOND);
    let mut conn: Connection<Bytes> = open_with(&endpoint, LengthDelimited::new(), limits).await;
    conn.send(Bytes::from(vec![0; 500_000])).await.expect("taken");
    let error = paused("the nonsense", conn.recv()).await.expect_err("a claim of 4 GiB");
    assert_eq!(error.close_reason(), Some(CloseReason::TooLarge));
    let started = tokio::time::Instant::now();
    let error = paused("the flush", conn.flush()).await.expect_err("the peer takes nothing");
    assert_eq!(error.close_reason(), Some(CloseReason::TooLarge), "the first reason stands");
    assert_eq!(started.elapsed().as_secs(), 5);
    drop(keep);
}
