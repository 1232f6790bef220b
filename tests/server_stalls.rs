//! Sessions that do not return are reported, those that block their thread are named, and where a message has a limit they
//! are cut. Others notice none of it.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod log_support;
mod support;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use hythe::codec::{LengthDelimited, Lines};
use hythe::{Bytes, CloseReason, Closed, Connection, ConnectionId, Endpoint, Limits, Server};
use log_support::{Log, Said};
use support::{SECOND, Told, mem, open, paused, start, tcp, until, within};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;
use tracing::Level;
use tracing_subscriber::filter::LevelFilter;

/// The whole process's: those who watch have a thread of their own.
static LOG: LazyLock<Log> = LazyLock::new(|| {
    let log = Log::default();
    tracing::subscriber::set_global_default(log.subscriber(LevelFilter::INFO)).unwrap();
    log
});

const STALL: Duration = Duration::from_millis(100);

fn of(message: &str, id: ConnectionId) -> Vec<Said> {
    LOG.of(message).into_iter().filter(|said| said.field("id") == id.to_string()).collect()
}

fn stalls(id: ConnectionId) -> Vec<Said> {
    of("a session does not return", id)
}

/// Echoes, but keeps what begins with `stuck` until it is notified. Tells who is connected.
fn stuck_until(release: &Arc<Notify>) -> (Told<String>, UnboundedReceiver<ConnectionId>) {
    let (to, ids) = unbounded_channel();
    let release = Arc::clone(release);
    let (told, _ends) = Told::new();
    let told = told.on_open(move |conn, ()| {
        let _ = to.send(conn.id());
        Box::pin(async { Ok(()) })
    });
    let told = told.on_message(move |conn, message: String| {
        let release = Arc::clone(&release);
        Box::pin(async move {
            if message.starts_with("stuck") {
                release.notified().await;
            }
            Ok(conn.send(message).await?)
        })
    });
    (told, ids)
}

/// So many connections, each with its id.
async fn connect<const N: usize>(
    endpoint: &Endpoint,
    ids: &mut UnboundedReceiver<ConnectionId>,
) -> [(ConnectionId, Connection<String>); N] {
    let mut all = Vec::new();
    for _ in 0..N {
        let peer = open(endpoint, Lines::new()).await;
        all.push((within("an open", ids.recv()).await.unwrap(), peer));
    }
    all.try_into().unwrap()
}

async fn ask(peer: &mut Connection<String>, line: &str) {
    peer.send(line.into()).await.unwrap();
    assert_eq!(within("an answer", peer.recv()).await.unwrap().unwrap(), line);
}

#[tokio::test]
async fn a_session_that_does_not_return_is_reported_once_for_each_message() {
    LazyLock::force(&LOG);
    let release = Arc::new(Notify::new());
    let (told, mut ids) = stuck_until(&release);
    let server = Server::new(told).limits(Limits::edge().with_stall(STALL));
    let (running, endpoint) = start(server, &tcp(), Lines::new()).await;
    let [(first_id, mut first), (second_id, mut second), (other_id, mut other)] = connect(&endpoint, &mut ids).await;

    first.send("stuck".into()).await.unwrap();
    until("a report of the first", || stalls(first_id).len() == 1).await;
    let report = &stalls(first_id)[0];
    assert_eq!((report.level, report.field("messages_in")), (Level::WARN, "1"));
    assert_eq!(report.field("endpoint"), endpoint.to_string());
    assert!(report.field("peer").starts_with("tcp://127.0.0.1:"), "{report:?}");

    // by the time that the second is reported, the first has been looked at as often again
    second.send("stuck".into()).await.unwrap();
    while stalls(second_id).is_empty() {
        ask(&mut other, "hello").await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(stalls(first_id).len(), 1);
    assert_eq!(stalls(other_id).len(), 0, "it answers all the time");

    release.notify_waiters();
    for peer in [&mut first, &mut second] {
        assert_eq!(within("an answer", peer.recv()).await.unwrap().unwrap(), "stuck");
    }
    first.send("stuck again".into()).await.unwrap();
    until("a report of the other message", || stalls(first_id).len() == 2).await;
    assert_eq!(stalls(first_id)[1].field("messages_in"), "2");
    assert_eq!(running.counters().stalls, 3);
}

#[tokio::test]
async fn who_waits_for_a_peer_or_only_sends_does_not_stall_and_who_never_opens_does() {
    LazyLock::force(&LOG);
    let (to, mut ids) = unbounded_channel();
    let (told, _ends) = Told::<String>::new();
    let told = told.on_open(move |conn, ()| {
        let _ = to.send(conn.id());
        Box::pin(std::future::pending())
    });
    let limits = Limits::edge().with_stall(STALL);
    let (_opens, endpoint) = start(Server::new(told).limits(limits.clone()), &tcp(), Lines::new()).await;

    // one that only sends, one that waits for messages, and one whose peer does not take what it sends
    let sends = Server::serve(|mut conn: Connection<String>| async move {
        loop {
            conn.send("tick".into()).await?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let waits = Server::serve(|mut conn: Connection<String>| async move {
        while conn.recv().await?.is_some() {}
        Ok(())
    });
    let floods = Server::serve(|mut conn: Connection<String>| async move {
        let line = conn.recv().await?.unwrap_or_default();
        loop {
            conn.send(line.clone()).await?;
        }
    });
    let (sends, sends_to) = start(sends.limits(limits.clone()), &mem(), Lines::new()).await;
    let (waits, waits_for) = start(waits.limits(limits.clone()), &mem(), Lines::new()).await;
    let (floods, floods_to) = start(floods.limits(limits), &mem(), Lines::new()).await;
    let _takes: Connection<String> = open(&sends_to, Lines::new()).await;
    let mut silent: Connection<String> = open(&waits_for, Lines::new()).await;
    silent.send("hello".into()).await.unwrap();
    let mut full: Connection<String> = open(&floods_to, Lines::new()).await;
    full.send("x".repeat(1000)).await.unwrap();
    until("all of them", || [&sends, &waits, &floods].iter().all(|server| server.counters().open == 1)).await;
    until("a message", || waits.connections()[0].messages_in == 1).await;
    until("a full outbox", || floods.connections()[0].unsent_bytes > 100_000).await;

    // when the third that comes after them is reported, they have been looked at three times as long
    for _ in 0..3 {
        let _stuck: Connection<String> = open(&endpoint, Lines::new()).await;
        let id = within("an open", ids.recv()).await.unwrap();
        until("a report of an opening", || stalls(id).len() == 1).await;
        assert_eq!(stalls(id)[0].field("messages_in"), "0");
    }
    for server in [sends, waits, floods] {
        assert_eq!(server.counters().stalls, 0, "{server:?}");
    }
}

/// Sleeps as nobody should.
fn blocking() -> (Told<String>, UnboundedReceiver<ConnectionId>) {
    let (to, ids) = unbounded_channel();
    let (told, _ends) = Told::new();
    let told = told.on_open(move |conn, ()| {
        let _ = to.send(conn.id());
        Box::pin(async { Ok(()) })
    });
    let told = told.on_message(|conn, message: String| {
        Box::pin(async move {
            std::thread::sleep(Duration::from_millis(message.parse()?));
            Ok(conn.send(message).await?)
        })
    });
    (told, ids)
}

async fn a_blocked_thread_is_named() -> anyhow::Result<()> {
    LazyLock::force(&LOG);
    let (told, mut ids) = blocking();
    let (running, endpoint) = start(Server::new(told), &tcp(), Lines::new()).await;
    let [(id, mut peer), (short_id, mut short)] = connect(&endpoint, &mut ids).await;
    ask(&mut short, "100").await;
    ask(&mut peer, "1600").await;
    until("the end of it", || of("a session has blocked its thread", id).len() == 1).await;
    let [begin] = &of("a session blocks its thread", id)[..] else { panic!("{:?}", LOG.all()) };
    let thread = begin.field("thread");
    assert!(thread == "a thread of the test" || thread.contains("tokio"), "{thread}");
    assert_eq!((begin.level, begin.field("endpoint")), (Level::WARN, &*endpoint.to_string()));
    assert!(begin.field("blocked_for").starts_with("1."), "{begin:?}");
    assert_eq!(running.counters().runtime_stalls, 1);
    assert_eq!(of("a session blocks its thread", short_id).len(), 0);
    // the next one is another
    ask(&mut peer, "1600").await;
    until("the end of the next", || of("a session has blocked its thread", id).len() == 2).await;
    assert_eq!(running.counters().runtime_stalls, 2);
    Ok(())
}

#[test]
fn a_session_that_blocks_the_only_thread_is_named() {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(a_blocked_thread_is_named()).unwrap();
    };
    std::thread::Builder::new().name("a thread of the test".into()).spawn(run).unwrap().join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_blocks_one_of_the_threads_is_named() {
    a_blocked_thread_is_named().await.unwrap();
}

/// `stuck` is never answered.
fn stuck() -> (Told<Bytes>, UnboundedReceiver<Closed>) {
    let (told, ends) = Told::new();
    let told = told.on_message(|conn: &mut Connection<Bytes>, message: Bytes| {
        Box::pin(async move {
            if message == "stuck" {
                std::future::pending::<()>().await;
            }
            Ok(conn.send(message).await?)
        })
    });
    (told, ends)
}

#[tokio::test(start_paused = true)]
async fn a_message_that_takes_longer_than_its_budget_ends_its_connection_and_no_other() {
    let (told, mut ends) = stuck();
    let limits = Limits::edge().with_handling(Some(3 * SECOND));
    let (running, endpoint) = start(Server::new(told).limits(limits), &mem(), LengthDelimited::new()).await;
    let mut other: Connection<Bytes> = open(&endpoint, LengthDelimited::new()).await;
    let mut peer: Connection<Bytes> = open(&endpoint, LengthDelimited::new()).await;
    let since = Instant::now();
    peer.send("quick".into()).await.unwrap();
    peer.send("stuck".into()).await.unwrap();
    assert_eq!(paused("an answer", peer.recv()).await.unwrap().unwrap(), "quick");
    let closed = paused("the end", ends.recv()).await.unwrap();
    assert_eq!((closed.reason, since.elapsed().as_secs(), closed.messages_in), (CloseReason::Overrun, 3, 2));
    assert!(!matches!(paused("the peer's end", peer.recv()).await, Ok(Some(_))));

    // it has its budget for each message, not for all
    for _ in 0..3 {
        tokio::time::sleep(2 * SECOND).await;
        other.send("hello".into()).await.unwrap();
        assert_eq!(paused("an answer", other.recv()).await.unwrap().unwrap(), "hello");
    }
    assert!(ends.try_recv().is_err());
    assert_eq!(running.counters().closed_by(CloseReason::Overrun), 1);
    assert_eq!(running.counters().open, 1);
}

#[tokio::test(start_paused = true)]
async fn the_budget_is_a_straight_line_sessions_as_well_and_can_come_while_it_runs() {
    let server = Server::serve(|mut conn: Connection<Bytes>| async move {
        while let Some(message) = conn.recv().await? {
            if message == "stuck" {
                std::future::pending::<()>().await;
            }
            conn.send(message).await?;
        }
        Ok(())
    });
    let (running, endpoint) = start(server, &mem(), LengthDelimited::new()).await;
    let mut without: Connection<Bytes> = open(&endpoint, LengthDelimited::new()).await;
    without.send("stuck".into()).await.unwrap();
    tokio::time::sleep(100 * SECOND).await;
    assert_eq!(running.counters().open, 1, "without a budget it may take all day");

    running.set_limits(Limits::edge().with_handling(Some(3 * SECOND))).unwrap();
    let mut with: Connection<Bytes> = open(&endpoint, LengthDelimited::new()).await;
    with.send("stuck".into()).await.unwrap();
    paused("the end", until("an overrun", || running.counters().closed_by(CloseReason::Overrun) == 1)).await;
    // the message that it had before has no budget
    paused("one left", until("one left", || running.counters().open == 1)).await;
    tokio::time::sleep(100 * SECOND).await;
    assert_eq!(running.counters().open, 1);
}
