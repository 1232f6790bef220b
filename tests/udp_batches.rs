//! Datagrams come in batches and are handled where they come in: that must not show, but in how quick it is.

#![cfg(feature = "udp")]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use hythe::codec::Datagram;
use hythe::{Bytes, CloseReason, Closed, Connection, Group, Handler, Limits, Overflow, Running, Server};
use server_support::{PATIENCE, addr, eventually, within};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, Semaphore};

/// Does what the first byte says, then answers with the message.
#[derive(Clone, Default)]
struct Obeys {
    wait: Arc<Notify>,
    waiting: Arc<AtomicUsize>,
    /// What blocks a thread until somebody says something.
    blocked: Option<Arc<(AtomicBool, Mutex<Receiver<()>>)>>,
    reasons: Arc<Mutex<Vec<CloseReason>>>,
    room: Option<Group<Bytes>>,
}

impl Handler for Obeys {
    type In = Bytes;
    type Out = Bytes;

    async fn on_open(&mut self, conn: &mut Connection<Bytes>) -> anyhow::Result<()> {
        if let Some(room) = &self.room {
            room.join(conn);
        }
        Ok(())
    }

    async fn on_message(&mut self, conn: &mut Connection<Bytes>, message: Bytes) -> anyhow::Result<()> {
        match message.first() {
            Some(b'W') => {
                self.waiting.fetch_add(1, SeqCst);
                self.wait.notified().await;
            }
            // somewhere between a quick message and a long one
            Some(b'T') => std::thread::sleep(Duration::from_millis(3)),
            Some(b'B') => {
                let (blocked, until) = &**self.blocked.as_ref().unwrap();
                blocked.store(true, SeqCst);
                tokio::task::block_in_place(|| until.lock().unwrap().recv_timeout(PATIENCE))?;
            }
            Some(b'Y') => tokio::task::yield_now().await,
            Some(b'P') => panic!("as the test wants it"),
            Some(b'H') => {
                // more than there can be in one datagram
                conn.send(vec![0; 65_530].into()).await?;
            }
            Some(b'G') => {
                self.room.as_ref().unwrap().send(message);
                return Ok(());
            }
            _ => {}
        }
        Ok(conn.send(message).await?)
    }

    async fn on_close(self, closed: Closed) {
        self.reasons.lock().unwrap().push(closed.reason);
    }
}

async fn serve_at(endpoint: &str, handler: &Obeys, limits: Limits) -> (Running, SocketAddr) {
    let codec = Datagram::new().max_length(65_535);
    let running = Server::new(handler.clone()).limits(limits).bind(endpoint, codec).start().await.unwrap();
    let to = addr(&running, 0);
    (running, to)
}

async fn serve(handler: &Obeys) -> (Running, SocketAddr) {
    serve_at("udp://127.0.0.1:0", handler, Limits::edge()).await
}

async fn client(to: SocketAddr) -> UdpSocket {
    let client = UdpSocket::bind((to.ip(), 0)).await.unwrap();
    client.connect(to).await.unwrap();
    client
}

async fn hear(client: &UdpSocket) -> Vec<u8> {
    let mut answer = vec![0; 65_536];
    let length = within("an answer", client.recv(&mut answer)).await.unwrap();
    answer.truncate(length);
    answer
}

async fn ask(client: &UdpSocket, message: &[u8]) {
    client.send(message).await.unwrap();
    assert_eq!(hear(client).await, message);
}

#[tokio::test]
async fn a_handler_that_waits_in_the_midst_goes_on_by_itself() {
    let handler = Obeys::default();
    let (_running, to) = serve(&handler).await;
    let (waits, other) = (client(to).await, client(to).await);
    ask(&waits, b"hello").await;
    waits.send(b"Wait").await.unwrap();
    eventually("the wait", || handler.waiting.load(SeqCst) == 1).await;
    ask(&other, b"hello").await;
    // no datagram comes that would have it looked at
    handler.wait.notify_one();
    assert_eq!(hear(&waits).await, b"Wait");
    ask(&waits, b"and on").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_slow_handler_does_not_hold_up_others() {
    let (release, until): (Sender<()>, _) = channel();
    let blocked = Arc::new((AtomicBool::new(false), Mutex::new(until)));
    let handler = Obeys { blocked: Some(Arc::clone(&blocked)), ..Obeys::default() };
    let (_running, to) = serve(&handler).await;
    let (slow, quick) = (client(to).await, client(to).await);
    ask(&quick, b"hello").await;
    // it takes its time from the first message on
    ask(&slow, b"Take your time").await;
    slow.send(b"Block").await.unwrap();
    eventually("the block", || blocked.0.load(SeqCst)).await;
    for _ in 0..100 {
        ask(&quick, b"while the other blocks its thread").await;
    }
    release.send(()).unwrap();
    assert_eq!(hear(&slow).await, b"Block");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_of_a_peers_datagrams_is_kept() {
    let handler = Obeys::default();
    let (running, to) = serve(&handler).await;
    let peers = [client(to).await, client(to).await, client(to).await];
    for round in 0..60 {
        for (n, peer) in peers.iter().enumerate() {
            for i in 0..20 {
                // some give their thread up, so that now their task handles them, now the socket's
                let what = if (round + n + i) % 7 == 0 { 'Y' } else { 'e' };
                peer.send(format!("{what}{round}.{i}").as_bytes()).await.unwrap();
            }
        }
        for peer in &peers {
            for i in 0..20 {
                let answer = String::from_utf8(hear(peer).await).unwrap();
                assert_eq!(answer[1..], format!("{round}.{i}"));
            }
        }
    }
    assert_eq!(running.counters().datagrams_dropped, 0);
}

#[tokio::test]
async fn a_panic_costs_one_session() {
    let handler = Obeys::default();
    let (running, to) = serve(&handler).await;
    let peers = [client(to).await, client(to).await, client(to).await];
    for peer in &peers {
        ask(peer, b"hello").await;
    }
    // so that they come in one batch
    peers[0].try_send(b"e1").unwrap();
    peers[1].try_send(b"Panic").unwrap();
    peers[2].try_send(b"e2").unwrap();
    assert_eq!(hear(&peers[0]).await, b"e1");
    assert_eq!(hear(&peers[2]).await, b"e2");
    eventually("its end", || *handler.reasons.lock().unwrap() == [CloseReason::Panic]).await;
    eventually("two sessions", || running.counters().open == 2).await;
    for peer in &peers {
        ask(peer, b"again").await;
    }
    assert_eq!(running.counters().accepted, 4);
}

#[tokio::test]
async fn what_the_kernel_refuses_is_lost_alone() {
    let handler = Obeys::default();
    let (running, to) = serve(&handler).await;
    let peers = [client(to).await, client(to).await, client(to).await];
    for peer in &peers {
        // twice, so that they may be answered with more than they sent
        ask(peer, b"hello").await;
        ask(peer, b"hello").await;
    }
    peers[0].try_send(b"e1").unwrap();
    peers[1].try_send(b"Huge").unwrap();
    peers[1].try_send(b"e2").unwrap();
    peers[2].try_send(b"e3").unwrap();
    assert_eq!(hear(&peers[0]).await, b"e1");
    assert_eq!(hear(&peers[1]).await, b"Huge");
    assert_eq!(hear(&peers[1]).await, b"e2");
    assert_eq!(hear(&peers[2]).await, b"e3");
    assert_eq!(running.counters().send_errors, 1);
}

/// One datagram more than a session's queue has room for.
#[tokio::test]
async fn a_burst_that_comes_at_once_is_not_lost_to_a_short_queue() {
    let handler = Obeys::default();
    let (running, to) = serve_at("udp://127.0.0.1:0", &handler, Limits::edge().with_udp_queue(4)).await;
    let mut peer: Connection<Bytes> = hythe::connect(format!("udp://{to}").as_str(), Datagram::new()).await.unwrap();
    // its first burst meets a session whose task has not begun yet
    for round in 0..3u8 {
        for n in 0..40 {
            peer.feed(vec![round, n].into()).await.unwrap();
        }
        peer.flush().await.unwrap();
        for n in 0..40 {
            assert_eq!(within("an answer", peer.recv()).await.unwrap().as_deref(), Some(&[round, n][..]));
        }
    }
    assert_eq!(running.counters().datagrams_dropped, 0);
}

/// Sizes that leave as runs and as single ones.
async fn both_ends(endpoint: &str) {
    let handler = Obeys::default();
    let (running, to) = serve_at(endpoint, &handler, Limits::edge()).await;
    let mut peer: Connection<Bytes> = hythe::connect(format!("udp://{to}").as_str(), Datagram::new()).await.unwrap();
    let sizes = [1200, 1200, 1200, 700, 1200, 0, 0, 1, 1, 20_000, 20_000, 1199, 1200];
    for round in 0..3u8 {
        for size in sizes {
            peer.feed(vec![round; size].into()).await.unwrap();
        }
        peer.flush().await.unwrap();
        for size in sizes {
            let answer = within("an answer", peer.recv()).await.unwrap().unwrap();
            assert_eq!(answer, vec![round; size]);
        }
    }
    assert_eq!(running.counters().send_errors, 0);
    let seen = &running.connections()[0];
    let bytes = 3 * sizes.iter().sum::<usize>() as u64;
    assert_eq!((seen.messages_in, seen.messages_out, seen.bytes_in, seen.bytes_out), (39, 39, bytes, bytes));
}

#[tokio::test]
async fn runs_and_single_datagrams_arrive_as_they_were_sent() {
    both_ends("udp://127.0.0.1:0").await;
}

#[tokio::test]
async fn runs_and_single_datagrams_arrive_over_ipv6() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        println!("skipped: there is no IPv6 here");
        return;
    }
    both_ends("udp://[::1]:0").await;
}

#[tokio::test]
async fn a_run_of_datagrams_over_the_limit_is_counted_one_by_one() {
    let handler = Obeys::default();
    let (running, to) = serve_at("udp://127.0.0.1:0", &handler, Limits::edge().with_max_datagram(1000)).await;
    let mut peer: Connection<Bytes> = hythe::connect(format!("udp://{to}").as_str(), Datagram::new()).await.unwrap();
    // the last of a run is shorter, and fits
    for size in [1001, 1001, 1001, 1000] {
        peer.feed(vec![7; size].into()).await.unwrap();
    }
    peer.flush().await.unwrap();
    assert_eq!(within("an answer", peer.recv()).await.unwrap().unwrap().len(), 1000);
    assert_eq!(running.counters().datagrams_truncated, 3);
}

#[tokio::test]
async fn a_group_of_udp_peers_gets_what_is_sent_from_within_and_from_outside() {
    let room = Group::new(Overflow::DropNewest);
    let handler = Obeys { room: Some(room.clone()), ..Obeys::default() };
    let (_running, to) = serve(&handler).await;
    let mut peers = Vec::new();
    for _ in 0..150 {
        let peer = client(to).await;
        ask(&peer, b"hello, I am here").await;
        ask(&peer, b"hello").await;
        peers.push(peer);
    }
    peers[0].send(b"Group").await.unwrap();
    for peer in &peers {
        assert_eq!(hear(peer).await, b"Group");
    }
    assert_eq!(room.send(Bytes::from_static(b"from outside")).sent, 150);
    for peer in &peers {
        assert_eq!(hear(peer).await, b"from outside");
    }
    hythe::batch(|| {
        room.send(Bytes::from_static(b"one"));
        room.send(Bytes::from_static(b"two"));
    });
    for peer in &peers {
        assert_eq!(hear(peer).await, b"one");
        assert_eq!(hear(peer).await, b"two");
    }
}

/// A connection that is received from in a task of its own is woken there.
#[tokio::test]
async fn a_session_that_gave_its_connection_away_is_woken_where_it_is() {
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let server = Server::serve(move |mut conn: Connection<Bytes>| {
        let opened = Arc::clone(&opened);
        async move {
            let echo = async move {
                while let Some(message) = conn.recv().await? {
                    conn.send(message).await?;
                }
                anyhow::Ok(())
            };
            opened.add_permits(1);
            tokio::spawn(echo).await?
        }
    });
    let running = server.bind("udp://127.0.0.1:0", Datagram::new()).start().await.unwrap();
    let peer = client(addr(&running, 0)).await;
    for n in 0..50 {
        ask(&peer, format!("{n}").as_bytes()).await;
    }
    assert_eq!(gate.available_permits(), 1);
}
