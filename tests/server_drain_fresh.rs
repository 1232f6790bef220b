//! A drain that comes between a peer's connect and its first byte does not turn the peer away: it has until one second
//! after the opening to speak, and not a moment longer.

#![allow(clippy::unwrap_used)] // Tests may.

mod support;

use std::time::Duration;

use hythe::codec::Lines;
use hythe::{Connection, Endpoint, Handler, Running, Server, Session};
use support::{mem, open, paused, start, until};
use tokio::time::{Instant, sleep};

const MS: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(30);

#[derive(Clone)]
struct Echo;

impl Handler for Echo {
    type In = String;
    type Out = String;

    async fn on_message(&mut self, conn: &mut Connection<String>, message: String) -> anyhow::Result<()> {
        conn.send(message).await?;
        Ok(())
    }
}

async fn echo(mut conn: Connection<String>) -> anyhow::Result<()> {
    while let Some(message) = conn.recv().await? {
        conn.send(message).await?;
    }
    Ok(())
}

/// The servers that must all do the same: a handler, a straight line, and a straight line in another task.
macro_rules! each_style {
    ($test:ident($($argument:expr),*)) => {
        $test(Server::new(Echo) $(, $argument)*).await;
        $test(Server::serve(echo) $(, $argument)*).await;
        $test(Server::serve(|conn| async move { tokio::spawn(echo(conn)).await? }) $(, $argument)*).await;
    };
}

async fn connected<S>(server: Server<S>) -> (Running, Connection<String>)
where
    S: Session<In = String, Out = String>,
{
    let (running, endpoint): (_, Endpoint) = start(server, &mem(), Lines::new()).await;
    let client = open(&endpoint, Lines::new()).await;
    until("the connection", || running.counters().open == 1).await;
    (running, client)
}

/// The peer says nothing. Its connection is to be closed, in order, so long after the drain began.
async fn silent<S>(server: Server<S>, age: Duration, drain: Duration, ends: Duration)
where
    S: Session<In = String, Out = String>,
{
    let (running, mut client) = connected(server).await;
    sleep(age).await;
    let begin = Instant::now();
    let talk = async {
        assert_eq!(client.recv().await.unwrap(), None, "closed in order");
        let after = begin.elapsed();
        // the connection was opened some polls before the test knew of it
        assert!(after <= ends + 5 * MS && after + 20 * MS >= ends, "{after:?} instead of {ends:?}");
        drop(client);
    };
    let (report, ()) = paused("the drain", async { tokio::join!(running.shutdown(drain), talk) }).await;
    assert_eq!((report.finished, report.cut), (1, 0));
}

/// The peer speaks that long after the drain began, and is answered.
async fn spoken<S>(server: Server<S>, after: Duration)
where
    S: Session<In = String, Out = String>,
{
    let (running, mut client) = connected(server).await;
    let begin = Instant::now();
    let talk = async {
        sleep(after).await;
        client.send("hello".into()).await.unwrap();
        assert_eq!(client.recv().await.unwrap().as_deref(), Some("hello"));
        assert_eq!(client.recv().await.unwrap(), None);
        assert!(begin.elapsed() < after + 5 * MS, "after its word it is as idle as others");
        drop(client);
    };
    let (report, ()) = paused("the drain", async { tokio::join!(running.shutdown(LONG), talk) }).await;
    assert_eq!((report.finished, report.cut), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_has_just_connected_may_still_speak() {
    for after in [Duration::ZERO, 100 * MS, 900 * MS] {
        each_style!(spoken(after));
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_has_until_one_second_after_its_opening() {
    each_style!(silent(Duration::ZERO, LONG, 1000 * MS));
    each_style!(silent(700 * MS, LONG, 300 * MS));
}

#[tokio::test(start_paused = true)]
async fn an_older_one_that_never_spoke_is_idle() {
    each_style!(silent(1000 * MS, LONG, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn of_a_short_drain_it_has_half() {
    each_style!(silent(Duration::ZERO, 500 * MS, 250 * MS));
}

/// One connection alone is drained as all of them are.
#[tokio::test(start_paused = true)]
async fn a_drain_of_one_connection_waits_as_well() {
    let (running, mut client) = connected(Server::new(Echo)).await;
    assert!(running.drain_connection(running.connections()[0].id, LONG));
    sleep(500 * MS).await;
    client.send("hello".into()).await.unwrap();
    assert_eq!(client.recv().await.unwrap().as_deref(), Some("hello"));
    assert_eq!(client.recv().await.unwrap(), None);
}

/// Outside of a drain nobody asked for patience.
#[tokio::test(start_paused = true)]
async fn a_session_that_wants_to_end_when_idle_does_so_at_once() {
    let server = Server::serve(|mut conn: Connection<String>| async move {
        conn.close_when_idle();
        assert_eq!(conn.recv().await?, None);
        Ok(())
    });
    let (_running, endpoint) = start(server, &mem(), Lines::new()).await;
    let begin = Instant::now();
    let mut client: Connection<String> = open(&endpoint, Lines::new()).await;
    assert_eq!(client.recv().await.unwrap(), None);
    assert!(begin.elapsed() < 100 * MS);
}
