//! Whoever waits on a connection is woken when there is something for it, whichever task and whichever combinator it
//! waits in; and nobody is woken for nothing, again and again.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]

mod support;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, SinkExt, StreamExt};
use hythe::codec::{LengthDelimited, Lines, Raw};
use hythe::{Bytes, CloseReason, Connection, Error, Limits, Server};
use support::{SECOND, counting, mem, open, open_raw, open_with, paused, start, tcp, within};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;

/// A poll for each thing that happens, and some to spare; a task that spins has thousands.
const FEW: usize = 50;

fn reason<T>(result: Result<T, Error>) -> Option<CloseReason> {
    result.err().and_then(|error| error.close_reason())
}

#[tokio::test]
async fn a_flush_that_waits_for_the_peer_sleeps() {
    let polls = Arc::new(AtomicUsize::new(0));
    let (done, mut ends) = unbounded_channel();
    let count = Arc::clone(&polls);
    let server = Server::serve(move |mut conn: Connection<Bytes>| {
        let (done, count) = (done.clone(), Arc::clone(&count));
        async move {
            conn.send(Bytes::from(vec![0; 200_000])).await?;
            let result = counting(count, conn.flush()).await;
            let _ = done.send(reason(result));
            Ok(())
        }
    });
    let limits = Limits::edge().with_write_stall(Duration::from_millis(200));
    let (_running, endpoint) = start(server.limits(limits), &mem(), Raw::new()).await;
    let _peer = open_raw(&endpoint).await;
    assert_eq!(within("the cut", ends.recv()).await, Some(Some(CloseReason::WriteStalled)));
    assert!(polls.load(Ordering::Relaxed) < FEW, "polled {polls:?} times");
}

#[tokio::test]
async fn a_session_that_does_not_look_when_a_deadline_passes_is_dropped_and_costs_nothing_until_then() {
    struct OnDrop(Option<oneshot::Sender<()>>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            let _ = self.0.take().map(|dropped| dropped.send(()));
        }
    }
    let polls = Arc::new(AtomicUsize::new(0));
    let (dropped, drops) = oneshot::channel();
    let (count, dropped) = (Arc::clone(&polls), std::sync::Mutex::new(Some(OnDrop(Some(dropped)))));
    let server = Server::serve(move |mut conn: Connection<String>| {
        let (count, dropped) = (Arc::clone(&count), dropped.lock().ok().and_then(|mut guard| guard.take()));
        counting(count, async move {
            let _dropped = dropped;
            // waits for a message for a moment, and from then on for something else
            assert!(conn.recv().now_or_never().is_none());
            pending().await
        })
    });
    let brief = Duration::from_millis(100);
    let limits = Limits::edge().with_first_byte(brief).with_half_close(3 * brief);
    let (_running, endpoint) = start(server.limits(limits), &mem(), Lines::new()).await;
    let _peer = open_raw(&endpoint).await;
    within("the session is dropped", drops).await.expect("dropped");
    assert!(polls.load(Ordering::Relaxed) < FEW, "polled {polls:?} times");
}

#[tokio::test(start_paused = true)]
async fn deadlines_hold_when_another_task_has_the_connection() {
    let (done, mut ends) = unbounded_channel();
    let server = Server::serve(move |mut conn: Connection<String>| {
        let done = done.clone();
        async move {
            let task = tokio::spawn(async move {
                let first = conn.recv().await;
                assert!(matches!(first, Ok(Some(_))), "{first:?}");
                reason(conn.recv().await)
            });
            let _ = done.send(task.await?);
            Ok(())
        }
    });
    let (_running, endpoint) = start(server, &mem(), Lines::new()).await;
    let mut peer = open(&endpoint, Lines::new()).await;
    peer.send("here".to_string()).await.expect("sent");
    assert_eq!(paused("the idle deadline", ends.recv()).await, Some(Some(CloseReason::Idle)));
}

#[tokio::test(start_paused = true)]
async fn a_drain_and_a_deadline_reach_a_recv_inside_a_set_of_futures() {
    for drain in [true, false] {
        let (done, mut ends) = unbounded_channel();
        let server = Server::serve(move |mut conn: Connection<String>| {
            let done = done.clone();
            async move {
                let receive = async { conn.recv().await.map_err(|error| error.close_reason()) };
                // polls only those of its futures that were woken
                let mut set: FuturesUnordered<_> = [receive.boxed(), pending().boxed()].into_iter().collect();
                let _ = done.send(set.next().await);
                Ok(())
            }
        });
        let (running, endpoint) = start(server, &mem(), Lines::new()).await;
        let _peer = open_raw(&endpoint).await;
        paused("the session runs", async {
            while running.connections().is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        if drain {
            let report = paused("the drain", running.shutdown(60 * SECOND)).await;
            assert_eq!(report.cut, 0, "{report:?}");
        }
        let end = paused("the end", ends.recv()).await.flatten().expect("recv ended by itself");
        assert_eq!(end, if drain { Ok(None) } else { Err(Some(CloseReason::FirstByteTimeout)) });
    }
}

#[tokio::test(start_paused = true)]
async fn both_halves_of_a_client_hear_of_its_end() {
    // the peer takes nothing, and says nothing
    let server = Server::serve(|conn: Connection<Bytes>| async move {
        let _conn = conn;
        pending().await
    });
    let (_running, endpoint) = start(server, &mem(), Raw::new()).await;
    let limits = Limits::edge().with_outbox(1000);
    for reader_first in [true, false] {
        let conn: Connection<Bytes> = open_with(&endpoint, Raw::new(), limits.clone()).await;
        let (mut sink, mut stream) = conn.split();
        let reader = async move { stream.next().await.map(reason) };
        let writer = async move {
            loop {
                if let Err(error) = sink.send(Bytes::from(vec![0; 100])).await {
                    return error.close_reason();
                }
            }
        };
        let (reader, writer) = match reader_first {
            true => {
                let reader = tokio::spawn(reader);
                tokio::task::yield_now().await;
                (reader, tokio::spawn(writer))
            }
            false => {
                let writer = tokio::spawn(writer);
                tokio::task::yield_now().await;
                (tokio::spawn(reader), writer)
            }
        };
        let written = paused("the writer ends", writer).await.expect("no panic");
        assert_eq!(written, Some(CloseReason::WriteStalled));
        let read = paused("the reader ends", reader).await.expect("no panic");
        assert_eq!(read, Some(Some(CloseReason::WriteStalled)));
    }
}

#[tokio::test]
async fn a_client_that_got_nonsense_can_still_finish_what_it_sends() {
    let (go, wait) = oneshot::channel::<()>();
    let wait = std::sync::Mutex::new(Some(wait));
    let server = Server::serve(move |mut conn: Connection<Bytes>| {
        let wait = wait.lock().ok().and_then(|mut wait| wait.take());
        async move {
            // a claim of 4 GiB
            conn.send(Bytes::from_static(&[0xff; 4])).await?;
            wait.expect("one connection").await?;
            while conn.recv().await?.is_some() {}
            Ok(())
        }
    });
    let (_running, endpoint) = start(server, &mem(), Raw::new()).await;
    let mut conn: Connection<Bytes> = open(&endpoint, LengthDelimited::new()).await;
    conn.send(Bytes::from(vec![0; 200_000])).await.expect("taken");
    assert_eq!(reason(within("the nonsense", conn.recv()).await), Some(CloseReason::TooLarge));
    go.send(()).expect("the session waits");
    within("the flush", conn.flush()).await.expect("all is out");
}

/// The session is the connection's life: a task that it gave the connection to hears of the end.
#[tokio::test]
async fn a_connection_that_outlives_its_session_ends_with_it() {
    let (to, mut results) = unbounded_channel();
    let server = Server::serve(move |mut conn: Connection<Bytes>| {
        let to = to.clone();
        async move {
            let sender = conn.sender();
            tokio::spawn(async move {
                let received = conn.recv().await;
                let sent = conn.send(Bytes::from_static(b"too late")).await;
                drop(conn);
                let _ = to.send((received.is_ok_and(|message| message.is_none()), sent.is_err(), sender));
            });
            Ok(())
        }
    });
    let (running, endpoint) = start(server, &tcp(), LengthDelimited::new()).await;
    let address = endpoint.to_string();
    let mut peer = std::net::TcpStream::connect(address.trim_start_matches("tcp://")).expect("connected");
    let (ended, refused, sender) = within("the end", results.recv()).await.expect("a task");
    assert!(ended && refused, "{ended} {refused}");
    let read = tokio::task::spawn_blocking(move || std::io::Read::read(&mut peer, &mut [0; 1]));
    assert_eq!(within("the peer's end", read).await.expect("joined").ok(), Some(0), "the socket is closed");
    assert!(sender.is_closed());
    within("the slot", async {
        while running.counters().open > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
