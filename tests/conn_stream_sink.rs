//! A connection is a `Stream` and a `Sink` as `futures` means them, and what cannot be sent is given back or told.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]

mod support;

use std::pin::Pin;
use std::task::{Context, Waker};

use futures::{Sink, SinkExt, StreamExt, TryStreamExt, stream};
use hythe::codec::{LengthDelimited, Lines, Raw};
use hythe::{Bytes, CloseReason, Connection, Delivery, ErrorKind, Limits, Overflow, Server, TrySendError};
use support::{Told, mem, open, open_raw, open_with, read_to_end, start, tcp, within};
use tokio::sync::mpsc::unbounded_channel;

/// A handler may hold a reference to its connection across an await, and send the connection elsewhere.
#[test]
fn a_connection_and_its_sender_are_send_and_sync() {
    fn check<T: Send + Sync + Unpin>() {}
    check::<Connection<Bytes>>();
    check::<hythe::Sender<Bytes>>();
}

#[tokio::test]
async fn forward_makes_an_echo_server_of_the_two_halves() {
    for endpoint in [mem(), tcp()] {
        let server = Server::serve(|conn: Connection<Bytes>| async move {
            let (sink, stream) = conn.split();
            Ok(stream.forward(sink).await?)
        });
        let (running, endpoint) = start(server, &endpoint, LengthDelimited::new()).await;
        let conn: Connection<Bytes> = open(&endpoint, LengthDelimited::new()).await;
        let (mut sink, stream) = conn.split();
        let messages: Vec<_> = (0..500usize).map(|number| Bytes::from(vec![number as u8; number * 7])).collect();
        let mut outgoing = stream::iter(messages.clone()).map(Ok);
        let echoed = stream.take(messages.len()).try_collect::<Vec<_>>();
        let (sent, echoed) = within("the echo", futures::future::join(sink.send_all(&mut outgoing), echoed)).await;
        sent.expect("sent");
        assert_eq!(echoed.expect("open"), messages);
        within("the close", sink.close()).await.expect("closed");
        support::until("the session ends", || running.counters().open == 0).await;
    }
}

#[tokio::test]
async fn the_halves_work_in_two_tasks() {
    let (told, _ends) = Told::<Bytes>::new();
    let limits = Limits::edge().with_outbox(5000);
    let (_running, endpoint) =
        start(Server::new(told.echo()).limits(limits.clone()), &mem(), LengthDelimited::new()).await;
    let conn: Connection<Bytes> = open_with(&endpoint, LengthDelimited::new(), limits).await;
    let (mut sink, stream) = conn.split();
    let writer = tokio::spawn(async move {
        for number in 0..2000u32 {
            sink.send(Bytes::from(number.to_be_bytes().repeat(100))).await.expect("sent");
        }
        sink
    });
    let numbers = stream.take(2000).map_ok(|message| message.first_chunk().copied().map(u32::from_be_bytes));
    let numbers: Vec<_> = within("all echoes", numbers.try_collect()).await.expect("open");
    assert!(numbers.into_iter().eq((0..2000).map(Some)));
    drop(within("the writer", writer).await.expect("no panic"));
}

#[tokio::test]
async fn what_is_fed_goes_out_with_a_flush_and_not_before() {
    let (told, _ends) = Told::<String>::new();
    let (running, endpoint) = start(Server::new(told.echo()), &mem(), Lines::new()).await;
    let mut conn: Connection<String> = open(&endpoint, Lines::new()).await;
    for number in 0..10 {
        SinkExt::feed(&mut conn, number.to_string()).await.expect("taken");
        conn.feed(number.to_string()).await.expect("taken");
    }
    assert_eq!(conn.unsent_bytes(), 40);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(running.connections().iter().map(|connection| connection.bytes_in).sum::<u64>(), 0);
    SinkExt::flush(&mut conn).await.expect("flushed");
    assert_eq!(conn.unsent_bytes(), 0);
    for number in 0..10 {
        for _ in 0..2 {
            let line = within("an echo", conn.recv()).await.expect("open");
            assert_eq!(line, Some(number.to_string()));
        }
    }
    // or with a wait for the answer
    conn.feed("last".to_string()).await.expect("taken");
    assert_eq!(within("an echo", conn.recv()).await.expect("open").as_deref(), Some("last"));
}

/// The peer of the next two tests does not read.
async fn stopped(endpoint: &str) -> (hythe::Running, hythe::Endpoint) {
    let server = Server::serve(|conn: Connection<Bytes>| async move {
        let _conn = conn;
        std::future::pending().await
    });
    start(server, endpoint, Raw::new()).await
}

#[tokio::test]
async fn try_send_gives_a_message_back_for_which_there_is_no_room() {
    let (_running, endpoint) = stopped(&mem()).await;
    let limits = Limits::edge().with_outbox(1000);
    let mut conn: Connection<Bytes> = open_with(&endpoint, LengthDelimited::new(), limits).await;
    let message = Bytes::from(vec![1; 100]);
    let mut sent = 0;
    let back = loop {
        match conn.try_send(message.clone()) {
            Ok(()) => sent += 1,
            Err(TrySendError::Full(back)) => break back,
            Err(other) => panic!("{other}"),
        }
        assert!(sent < 10_000, "no end of it");
    };
    assert_eq!(back, message);
    assert_eq!(sent, ((64 << 10) + 1000) / 104, "the transport's room and the outbox's");
    assert_eq!(conn.unsent_bytes(), sent * 104 - (64 << 10));
    assert!(matches!(conn.sender().try_send(message.clone()), Err(TrySendError::Full(back)) if back == message));
    // the sink says so as well, instead of taking it
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut conn).poll_ready(&mut cx).is_pending());
}

/// Between `poll_ready` and `start_send` another thread may fill the outbox: the sink has promised its room already.
#[tokio::test]
async fn a_sink_that_was_ready_takes_its_message() {
    let (_running, endpoint) = stopped(&mem()).await;
    let limits = Limits::edge().with_outbox(1000);
    let mut conn: Connection<Bytes> = open_with(&endpoint, LengthDelimited::new(), limits).await;
    let (sender, message) = (conn.sender(), Bytes::from(vec![1; 100]));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut conn).poll_ready(&mut cx).is_ready());
    while sender.try_send(message.clone()).is_ok() {}
    Pin::new(&mut conn).start_send(message.clone()).expect("taken, as it was ready");
    assert!(Pin::new(&mut conn).poll_ready(&mut cx).is_pending());
    assert!(conn.unsent_bytes() <= 1000 + 104);
}

#[tokio::test]
async fn a_sender_says_that_the_connection_is_closed() {
    enum End {
        Close,
        Drop,
        Abort,
        Peer,
    }
    for end in [End::Close, End::Drop, End::Abort, End::Peer] {
        let (told, mut ends) = Told::<String>::new();
        let told = told.on_message(|conn, _| {
            conn.abort();
            Box::pin(async { Ok(()) })
        });
        let (_running, endpoint) = start(Server::new(told), &tcp(), Lines::new()).await;
        let mut conn: Connection<String> = open(&endpoint, Lines::new()).await;
        let sender = conn.sender();
        assert!(!sender.is_closed());
        sender.send(String::new()).await.err();
        let expected = match end {
            End::Close => {
                let _ = conn.close().await;
                None
            }
            End::Drop => {
                drop(conn);
                None
            }
            End::Abort => {
                conn.abort();
                Some(CloseReason::Aborted)
            }
            End::Peer => {
                within("on_close", ends.recv()).await.expect("a connection");
                let error = within("the reset", conn.recv()).await.expect_err("a reset");
                assert_eq!(error.close_reason(), Some(CloseReason::PeerReset));
                assert!(matches!(conn.try_send("x".into()), Err(TrySendError::Closed(_))));
                let error = conn.send("x".into()).await.expect_err("closed");
                assert_eq!(error.close_reason(), Some(CloseReason::PeerReset));
                Some(CloseReason::PeerReset)
            }
        };
        assert!(sender.is_closed());
        assert!(matches!(sender.try_send("x".into()), Err(TrySendError::Closed(back)) if back == "x"));
        assert_eq!(sender.push("x".into(), Overflow::DropOldest).expect("encodable"), Delivery::Closed);
        let error = sender.send("x".into()).await.expect_err("closed");
        assert!(matches!(error.kind(), ErrorKind::Closed(_)), "{error:?}");
        assert!(expected.is_none_or(|reason| error.close_reason() == Some(reason)), "{error:?}");
    }
}

#[tokio::test]
async fn a_sender_that_waits_for_room_hears_of_the_end() {
    for by_owner in [true, false] {
        let (_running, endpoint) = stopped(&mem()).await;
        let limits = Limits::edge().with_outbox(1000);
        let mut conn: Connection<Bytes> = open_with(&endpoint, Raw::new(), limits).await;
        let sender = conn.sender();
        let waiting = tokio::spawn({
            let sender = sender.clone();
            async move { while sender.send(vec![0; 500].into()).await.is_ok() {} }
        });
        support::until("the outbox is full", || conn.unsent_bytes() > 500).await;
        if by_owner {
            conn.abort()
        } else {
            sender.abort()
        }
        within("the waiting sender", waiting).await.expect("no panic");
    }
}

#[tokio::test]
async fn after_its_error_the_stream_is_at_its_end() {
    let server = Server::serve(|mut conn: Connection<Bytes>| async move {
        conn.send(Bytes::from_static(b"good\n\xff\nlost\n")).await?;
        Ok(())
    });
    let (_running, endpoint) = start(server, &mem(), Raw::new()).await;
    let conn: Connection<String> = open(&endpoint, Lines::new()).await;
    let all = within("the end", conn.map_err(|error| error.close_reason()).collect::<Vec<_>>()).await;
    assert_eq!(all, [Ok("good".to_string()), Err(Some(CloseReason::Protocol))]);
}

#[tokio::test]
async fn a_closed_sink_has_sent_everything_and_takes_no_more() {
    let (to, mut all) = unbounded_channel();
    let server = Server::serve(move |mut conn: Connection<Bytes>| {
        let to = to.clone();
        async move {
            let _ = to.send(read_to_end(&mut conn).await.len());
            Ok(())
        }
    });
    let (_running, endpoint) = start(server, &mem(), Raw::new()).await;
    let mut conn = open_raw(&endpoint).await;
    for _ in 0..10 {
        SinkExt::feed(&mut conn, vec![0; 50_000].into()).await.expect("taken");
    }
    within("the close", SinkExt::close(&mut conn)).await.expect("closed");
    assert_eq!(within("the end", all.recv()).await, Some(500_000));
    assert_eq!(conn.unsent_bytes(), 0);
    let error = SinkExt::send(&mut conn, vec![0].into()).await.expect_err("closed");
    assert_eq!(error.close_reason(), Some(CloseReason::Local));
    assert!(StreamExt::next(&mut conn).await.is_none());
}

/// The owner has fed the outbox full and does something else: whoever waits for room does not wait for the owner.
#[tokio::test]
async fn a_sender_finds_room_though_the_owner_has_fed_the_outbox_full() {
    let (told, _ends) = Told::<Bytes>::new();
    let (_running, endpoint) = start(Server::new(told.echo()), &mem(), LengthDelimited::new()).await;
    let limits = Limits::edge().with_outbox(1000);
    let mut conn: Connection<Bytes> = open_with(&endpoint, LengthDelimited::new(), limits).await;
    for _ in 0..9 {
        conn.feed(vec![1; 100].into()).await.expect("taken");
    }
    assert_eq!(conn.unsent_bytes(), 9 * 104);
    let sender = conn.sender();
    within("room", sender.send(vec![2; 100].into())).await.expect("sent");
    for number in 0..10 {
        let message = within("an echo", conn.recv()).await.expect("open").expect("a message");
        assert_eq!(message[0], if number < 9 { 1 } else { 2 });
    }
}
