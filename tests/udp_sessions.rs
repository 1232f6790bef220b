//! UDP peers are sessions of the same handler, and no stranger's datagrams can take one away from an honest peer.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;

use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hythe::codec::{Datagram, LengthDelimited};
use hythe::{Bytes, CloseReason, Closed, Connection, Handler, Limits, Running, Server};
use server_support::{PATIENCE, addr, eventually, within};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;

const STRANGERS: u64 = 20_000;

/// Answers each datagram with how many there were in its session. `gate` is waited for before each answer.
#[derive(Clone)]
struct Counter {
    count: u64,
    gate: Arc<Semaphore>,
    messages: Arc<Mutex<Vec<Bytes>>>,
    closed: Arc<Mutex<Vec<Closed>>>,
}

impl Counter {
    fn new(permits: usize) -> Self {
        Self { count: 0, gate: Arc::new(Semaphore::new(permits)), messages: Arc::default(), closed: Arc::default() }
    }

    fn reasons(&self) -> Vec<CloseReason> {
        self.closed.lock().unwrap().iter().map(|closed| closed.reason).collect()
    }
}

impl Handler for Counter {
    type In = Bytes;
    type Out = Bytes;

    async fn on_message(&mut self, conn: &mut Connection<Bytes>, message: Bytes) -> anyhow::Result<()> {
        self.messages.lock().unwrap().push(message.clone());
        if message.starts_with(b"slow") {
            self.gate.acquire().await?.forget();
        }
        self.count += 1;
        conn.send(self.count.to_string().into()).await?;
        Ok(())
    }

    async fn on_close(self, closed: Closed) {
        self.closed.lock().unwrap().push(closed);
    }
}

async fn serve(counter: &Counter, limits: Limits) -> (Running, SocketAddr) {
    let server = Server::new(counter.clone()).limits(limits).bind("udp://127.0.0.1:0", Datagram::new());
    let running = server.start().await.unwrap();
    let to = addr(&running, 0);
    (running, to)
}

async fn client(to: SocketAddr) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(to).await.unwrap();
    client
}

async fn hear(client: &UdpSocket) -> String {
    let mut answer = [0; 2000];
    let length = within("an answer", client.recv(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

async fn ask(client: &UdpSocket, message: &[u8]) -> String {
    client.send(message).await.unwrap();
    hear(client).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_strangers_take_no_session_from_fifty_honest_peers() {
    let counter = Counter::new(0);
    let (running, to) = serve(&counter, Limits::edge().with_udp_sessions(1000)).await;
    let mut honest = Vec::new();
    for _ in 0..50 {
        honest.push(client(to).await);
    }
    for count in 1..=2 {
        for peer in &honest {
            assert_eq!(ask(peer, b"hello").await, count.to_string());
        }
    }

    // the strangers each have an address of their own, and never listen to an answer
    let running = Arc::new(running);
    let seen = Arc::clone(&running);
    let strangers = tokio::spawn(async move {
        for n in 0..STRANGERS {
            let [_, a, b, c] = u32::try_from(n + 256).unwrap().to_be_bytes();
            let socket = StdSocket::bind(SocketAddr::from(([127, 1 + a, b, c], 0))).unwrap();
            socket.send_to(b"let me in", to).unwrap();
            if n % 50 == 49 {
                // the server has to deal with every one of them, rather than the kernel drop some
                eventually("a session for each", || seen.counters().accepted > 50 + n).await;
            }
        }
    });
    let mut count = 2;
    while !strangers.is_finished() {
        count += 1;
        for peer in &honest {
            assert_eq!(ask(peer, b"hello").await, count.to_string(), "an honest session was lost");
        }
    }
    strangers.await.unwrap();

    count += 1;
    for peer in &honest {
        assert_eq!(ask(peer, b"hello").await, count.to_string(), "an honest session was lost");
    }
    eventually("no more sessions than the cap", || running.counters().open <= 1000).await;
    let counters = running.counters();
    assert_eq!(counters.open, 1000, "{counters:?}");
    assert_eq!(counters.sessions_evicted, 50 + STRANGERS - 1000, "{counters:?}");
    assert!(counter.reasons().iter().all(|reason| *reason == CloseReason::Evicted));
}

#[tokio::test]
async fn a_datagram_over_the_limit_is_counted_and_never_delivered_cut() {
    let counter = Counter::new(0);
    let (running, to) = serve(&counter, Limits::edge().with_max_datagram(1000)).await;
    let client = client(to).await;
    for size in [1001, 2000, 60_000] {
        client.send(&vec![7; size]).await.unwrap();
    }
    assert_eq!(ask(&client, &[7; 1000]).await, "1", "the first to be delivered");
    assert_eq!(running.counters().datagrams_truncated, 3);
    assert_eq!(counter.messages.lock().unwrap().iter().map(Bytes::len).collect::<Vec<_>>(), [1000]);
}

#[tokio::test]
async fn a_datagram_of_no_bytes_is_a_message() {
    let counter = Counter::new(0);
    let (_running, to) = serve(&counter, Limits::edge()).await;
    let client = client(to).await;
    assert_eq!(ask(&client, b"hello").await, "1");
    assert_eq!(ask(&client, b"").await, "2");
    assert_eq!(*counter.messages.lock().unwrap(), [&b"hello"[..], b""]);

    // and it can begin a session
    let silent = self::client(to).await;
    silent.send(b"").await.unwrap();
    eventually("the message", || counter.messages.lock().unwrap().len() == 3).await;
}

#[tokio::test]
async fn a_silent_session_ends_by_the_idle_time_and_the_peer_may_come_again() {
    let counter = Counter::new(0);
    let (running, to) = serve(&counter, Limits::edge().with_udp_idle(Duration::from_millis(150))).await;
    let client = client(to).await;
    assert_eq!(ask(&client, b"hello").await, "1");
    eventually("the end", || counter.reasons() == [CloseReason::Idle]).await;
    eventually("nobody", || running.counters().open == 0).await;
    assert_eq!(ask(&client, b"hello").await, "1", "a new session");
}

#[tokio::test]
async fn a_slow_session_drops_and_counts_and_holds_nobody_up() {
    let counter = Counter::new(0);
    let (running, to) = serve(&counter, Limits::edge().with_udp_queue(8)).await;
    let (slow, quick) = (client(to).await, client(to).await);
    slow.send(b"slow").await.unwrap();
    eventually("a handler at work", || counter.messages.lock().unwrap().len() == 1).await;
    for n in 0..30 {
        slow.send(format!("{n}").as_bytes()).await.unwrap();
    }
    for count in 1..=20 {
        assert_eq!(ask(&quick, b"hello").await, count.to_string());
    }
    assert_eq!(running.counters().datagrams_dropped, 22);
    counter.gate.add_permits(1);
    for count in 1..=9 {
        assert_eq!(hear(&slow).await, count.to_string());
    }
}

#[tokio::test]
async fn a_peer_that_is_gone_does_not_end_the_loop() {
    let counter = Counter::new(0);
    let (_running, to) = serve(&counter, Limits::edge()).await;
    // all of them before any is gone: a port that is free again may be given to the next, which would go on with its session
    let mut others = Vec::new();
    for _ in 0..20 {
        others.push(client(to).await);
    }
    for (round, other) in others.iter().enumerate() {
        let gone = client(to).await;
        gone.send(b"slow").await.unwrap();
        eventually("a handler at work", || counter.messages.lock().unwrap().len() == 2 * round + 1).await;
        // its port is closed when the answer comes
        drop(gone);
        counter.gate.add_permits(1);
        assert_eq!(ask(other, b"hello").await, "1");
    }
}

#[tokio::test]
async fn a_session_drains_and_the_socket_stays_for_as_long() {
    let counter = Counter::new(0);
    let (running, to) = serve(&counter, Limits::edge()).await;
    let (busy, idle) = (client(to).await, client(to).await);
    assert_eq!(ask(&idle, b"hello").await, "1");
    busy.send(b"slow").await.unwrap();
    eventually("a handler at work", || counter.messages.lock().unwrap().len() == 2).await;
    let release = async {
        eventually("the idle one gone", || running.counters().open == 1).await;
        idle.send(b"too late").await.unwrap();
        eventually("a refusal", || running.counters().datagrams_refused == 1).await;
        counter.gate.add_permits(1);
        assert_eq!(hear(&busy).await, "1", "the reply under way was lost");
    };
    let (report, ()) = tokio::join!(running.shutdown(PATIENCE), release);
    assert_eq!((report.finished, report.cut), (2, 0));
    assert_eq!(counter.reasons(), [CloseReason::Drained; 2]);
}

#[tokio::test]
async fn several_messages_in_a_datagram_are_several_and_what_is_left_over_is_dropped() {
    let counter = Counter::new(0);
    let server = Server::new(counter.clone()).bind("udp://127.0.0.1:0", LengthDelimited::new());
    let running = server.start().await.unwrap();
    let client = client(addr(&running, 0)).await;
    let framed = |message: &[u8]| [&u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat();
    client.send(&[framed(b"one"), framed(b""), framed(b"three")].concat()).await.unwrap();
    for count in ["1", "2", "3"] {
        assert_eq!(hear(&client).await.as_bytes(), framed(count.as_bytes()), "one message, one datagram");
    }
    assert_eq!(*counter.messages.lock().unwrap(), [&b"one"[..], b"", b"three"]);

    client.send(&[framed(b"four"), vec![0, 0]].concat()).await.unwrap();
    assert_eq!(hear(&client).await.as_bytes(), framed(b"4"));
    eventually("the rest to be seen", || running.counters().datagrams_invalid == 1).await;
    // the rest of a message does not come with the next datagram
    client.send(&framed(b"again")).await.unwrap();
    assert_eq!(hear(&client).await.as_bytes(), framed(b"5"), "the session goes on");
    assert_eq!(counter.messages.lock().unwrap()[4], &b"again"[..]);
}

/// A panic before the session runs must not leave its place in the table taken.
#[tokio::test]
async fn a_factory_that_panics_costs_one_datagram() {
    let first = std::sync::atomic::AtomicBool::new(true);
    let counter = Counter::new(0);
    let server = Server::with(move |_| {
        assert!(!first.swap(false, std::sync::atomic::Ordering::SeqCst), "as the test wants it");
        Ok(counter.clone())
    });
    let running = server.bind("udp://127.0.0.1:0", Datagram::new()).start().await.unwrap();
    let client = client(addr(&running, 0)).await;
    client.send(b"hello").await.unwrap();
    assert_eq!(ask(&client, b"hello").await, "1", "the peer has a dead session");
}
