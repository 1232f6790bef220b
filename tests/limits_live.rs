//! Limits change while the server runs, for those who are connected as well.

#![cfg(feature = "tcp")]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;
mod support;

use std::time::Duration;

use hythe::codec::{LengthDelimited, Lines as LinesCodec};
use hythe::{Bytes, CloseReason, Connection, ErrorKind, Limits, Server};
use server_support::{Echo, Lines, addr, eventually, within};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_higher_number_of_connections_lets_those_in_who_wait() {
    let limits = Limits::edge().with_max_connections(1);
    let running =
        Server::new(Echo).limits(limits.clone()).bind("tcp://127.0.0.1:0", LinesCodec::new()).start().await.unwrap();
    let to = addr(&running, 0);
    let mut first = Lines::tcp(to).await;
    first.ask("hello").await.unwrap();
    let mut second = Lines::tcp(to).await;
    second.say("me too").await;
    tokio::time::timeout(Duration::from_millis(100), second.hear()).await.unwrap_err();

    running.set_limits(limits.with_max_connections(2)).unwrap();
    assert_eq!(within("the second's turn", second.hear()).await.as_deref(), Some("me too"));
    assert_eq!(running.limits().max_connections, 2);

    // a lower one throws nobody out
    running.set_limits(running.limits().with_max_connections(1)).unwrap();
    assert_eq!(first.ask("still here").await.as_deref(), Some("still here"));
    drop(second);
    eventually("one left", || running.counters().open == 1).await;
    let mut third = Lines::tcp(to).await;
    third.say("?").await;
    tokio::time::timeout(Duration::from_millis(100), third.hear()).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn an_earlier_deadline_holds_for_those_who_wait_already() {
    let at = support::mem();
    let running = Server::new(Echo).bind(at.as_str(), LinesCodec::new()).start().await.unwrap();
    let mut conn: Connection<String> = hythe::connect(at.as_str(), LinesCodec::new()).await.unwrap();
    conn.send("hello".into()).await.unwrap();
    conn.recv().await.unwrap().unwrap();
    let begin = tokio::time::Instant::now();
    tokio::time::sleep(SECOND).await;
    running.set_limits(Limits::edge().with_idle(5 * SECOND)).unwrap();
    assert_eq!(conn.recv().await.unwrap(), None);
    assert!((5 * SECOND..6 * SECOND).contains(&begin.elapsed()), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_smaller_message_holds_for_those_who_are_connected() {
    let at = support::mem();
    let (told, closed) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let running = Server::serve(move |mut conn: Connection<Bytes>| {
        let told = told.lock().unwrap().clone();
        async move {
            let end = loop {
                match conn.recv().await {
                    Ok(Some(message)) => conn.send(message).await?,
                    other => break other,
                }
            };
            told.send(end.unwrap_err().close_reason())?;
            Ok(())
        }
    })
    .bind(at.as_str(), LengthDelimited::new())
    .start()
    .await
    .unwrap();
    let mut conn = hythe::connect(at.as_str(), LengthDelimited::new()).await.unwrap();
    conn.send(vec![1; 100_000].into()).await.unwrap();
    assert_eq!(conn.recv().await.unwrap().unwrap().len(), 100_000);

    running.set_limits(Limits::edge().with_max_message(10_000)).unwrap();
    // of a message that is whole at once the codec's own limit decides; a part is held against this one
    conn.send(vec![1; 900_000].into()).await.unwrap();
    let _ = within("the end", conn.recv()).await;
    assert_eq!(closed.recv_timeout(10 * SECOND).unwrap(), Some(CloseReason::TooLarge));
}

#[tokio::test]
async fn limits_that_make_no_sense_change_nothing() {
    let running = Server::new(Echo).bind(support::mem().as_str(), LinesCodec::new()).start().await.unwrap();
    for (bad, says) in [
        (Limits::edge().with_max_connections(0), "max_connections is 0"),
        (Limits::edge().with_per_address(Some(0)), "per_address is 0"),
        (Limits::edge().with_handshake(Duration::ZERO), "handshake is 0 s"),
        (Limits::edge().with_handling(Some(Duration::ZERO)), "handling is 0 s"),
        (Limits::edge().with_memory(1 << 10), "memory, 1024 bytes, is less than max_message, 1048576 bytes"),
    ] {
        let error = running.set_limits(bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(says), "{error}");
    }
    assert_eq!(running.limits(), Limits::edge());
}
