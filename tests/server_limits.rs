//! `max_connections` is exact and global: never one more, over all listeners, and every slot comes back.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use hythe::codec::Lines as LinesCodec;
use hythe::{Connection, Handler, Limits, Running, Server};
use server_support::{Echo, Gauge, Inside, Lines, addr, eventually, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

const CAP: usize = 20;

fn limits(connections: usize) -> Limits {
    Limits::edge().with_max_connections(connections)
}

/// Live from its opening to its `end`, of whatever kind that is.
struct Counted {
    inside: Option<Inside>,
}

impl Handler for Counted {
    type In = String;
    type Out = String;

    async fn on_message(&mut self, conn: &mut Connection<String>, message: String) -> anyhow::Result<()> {
        if message == "hello" {
            // long enough for others to come in, if they could
            tokio::time::sleep(Duration::from_millis(1)).await;
            return Ok(conn.send(message).await?);
        }
        drop(self.inside.take());
        match message.as_str() {
            "error" => anyhow::bail!("as asked"),
            "panic" => panic!("as asked"),
            "abort" => conn.abort(),
            _ => conn.close().await?,
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_over_two_listeners_never_has_one_more_than_the_limit() {
    let gauge = Gauge::default();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let counted = gauge.clone();
    let running = Server::with(move |_| Ok(Counted { inside: Some(counted.enter()) }))
        .limits(limits(CAP))
        .bind("tcp://127.0.0.1:0", LinesCodec::new())
        .bind(format!("unix://{}", path.display()).as_str(), LinesCodec::new())
        .start()
        .await
        .unwrap();
    let to = addr(&running, 0);

    let most_open = Arc::new(AtomicUsize::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..200 {
        let path = path.clone();
        clients.spawn(async move {
            let end = ["error", "panic", "abort", "close"][n / 2 % 4];
            if n % 2 == 0 {
                talk(Lines::new(TcpStream::connect(to).await.unwrap()), end).await;
            } else {
                talk(Lines::new(UnixStream::connect(path).await.unwrap()), end).await;
            }
        });
    }
    let all = async { while clients.join_next().await.transpose().unwrap().is_some() {} };
    let watch = async {
        loop {
            most_open.fetch_max(running.connections().len(), SeqCst);
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = within("every client served", all) => {}
        () = watch => {}
    }
    assert_eq!(gauge.total(), 200, "everybody was served, as slots came free");
    assert_eq!(gauge.most(), CAP, "the limit was not kept, or not reached");

    eventually("all closed", || running.counters().open == 0).await;
    let counters = running.counters();
    assert_eq!((counters.accepted, counters.closed), (200, 200));
    assert_eq!(counters.messages_in, 400);
    // and every slot is back
    let mut full = Vec::new();
    for _ in 0..CAP {
        full.push(Lines::tcp(to).await);
        assert_eq!(full.last_mut().unwrap().ask("hello").await.as_deref(), Some("hello"));
    }
}

async fn talk<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(mut client: Lines<S>, end: &str) {
    assert_eq!(client.ask("hello").await.as_deref(), Some("hello"));
    assert_eq!(client.ask(end).await, None);
}

async fn echo_on_two_listeners(cap: usize) -> Running {
    Server::new(Echo)
        .limits(limits(cap))
        .bind("tcp://127.0.0.1:0", LinesCodec::new())
        .bind("tcp://127.0.0.1:0", LinesCodec::new())
        .start()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_listeners_with_one_slot_pass_it_back_and_forth() {
    let running = echo_on_two_listeners(1).await;
    for round in 0..200 {
        let mut client = Lines::tcp(addr(&running, round % 2)).await;
        assert_eq!(client.ask("hello").await.as_deref(), Some("hello"));
        let mut next = Lines::tcp(addr(&running, (round + 1) % 2)).await;
        next.say("and me").await;
        drop(client);
        assert_eq!(next.hear().await.as_deref(), Some("and me"), "the slot did not reach the other listener");
    }
}

/// A listener that holds the slot while nobody comes would keep it from the other one.
#[tokio::test]
async fn an_idle_listener_takes_no_slot() {
    let running = echo_on_two_listeners(1).await;
    for _ in 0..50 {
        let mut client = Lines::tcp(addr(&running, 1)).await;
        assert_eq!(client.ask("hello").await.as_deref(), Some("hello"));
    }
}

/// The descriptor counts, not the handler: a connection that still has to flush holds its slot.
#[tokio::test]
async fn a_slot_is_held_until_the_socket_is_closed() {
    #[derive(Clone)]
    struct Flood;

    impl Handler for Flood {
        type In = String;
        type Out = String;

        async fn on_message(&mut self, conn: &mut Connection<String>, message: String) -> anyhow::Result<()> {
            if message == "flood" {
                while conn.try_send("x".repeat(1 << 20)).is_ok() {}
                anyhow::bail!("and that was that");
            }
            Ok(conn.send(message).await?)
        }
    }

    let limits = limits(1).with_outbox(8 << 20).with_write_stall(Duration::from_secs(60));
    let running = Server::new(Flood)
        .limits(limits)
        .bind_with("tcp://127.0.0.1:0", LinesCodec::new(), hythe::BindOptions::new().send_buffer(16 << 10))
        .start()
        .await
        .unwrap();
    let mut slow = TcpStream::connect(addr(&running, 0)).await.unwrap();
    slow.write_all(b"flood\n").await.unwrap();
    within("the flood", slow.readable()).await.unwrap();
    let mut next = Lines::tcp(addr(&running, 0)).await;
    next.say("hello").await;
    let early = tokio::time::timeout(Duration::from_millis(300), next.stream.get_ref().readable()).await;
    assert!(early.is_err(), "there were two sockets where one is the limit");
    assert_eq!(running.counters().accepted, 1);

    within("all of the flood", slow.read_to_end(&mut Vec::new())).await.unwrap();
    drop(slow);
    assert_eq!(next.hear().await.as_deref(), Some("hello"));
}

#[tokio::test]
async fn a_paused_server_keeps_its_ports_and_its_connections() {
    let running = echo_on_two_listeners(100).await;
    let mut before = Lines::tcp(addr(&running, 0)).await;
    assert_eq!(before.ask("hello").await.as_deref(), Some("hello"));

    running.pause();
    let mut waiting = Vec::new();
    for listener in [0, 1] {
        waiting.push(Lines::tcp(addr(&running, listener)).await);
        waiting.last_mut().unwrap().say("let me in").await;
    }
    for _ in 0..20 {
        assert_eq!(before.ask("still here").await.as_deref(), Some("still here"));
    }
    assert_eq!(running.counters().accepted, 1, "a paused server accepts nobody");

    running.resume();
    for mut client in waiting {
        assert_eq!(client.hear().await.as_deref(), Some("let me in"));
    }
    assert_eq!(running.counters().accepted, 3);
}

#[tokio::test]
async fn counters_and_the_list_of_connections_tell_what_happened() {
    let running = echo_on_two_listeners(100).await;
    let mut first = Lines::tcp(addr(&running, 0)).await;
    assert_eq!(first.ask("hello").await.as_deref(), Some("hello"));
    let mut second = Lines::tcp(addr(&running, 1)).await;
    assert_eq!(second.ask("12").await.as_deref(), Some("12"));
    assert_eq!(second.ask("345").await.as_deref(), Some("345"));

    let list = running.connections();
    assert_eq!(list.len(), 2);
    assert!(list[0].id < list[1].id, "in the order of their opening");
    assert_eq!((list[0].messages_in, list[0].bytes_in), (1, 6));
    assert_eq!((list[1].messages_in, list[1].bytes_in), (2, 7));
    assert_eq!(list[1].peer.socket_addr(), Some(second.stream.get_ref().local_addr().unwrap()));
    assert_eq!(list[1].peer.endpoint(), &running.endpoints()[1]);
    assert_eq!(running.counters().bytes_in, 0, "of closed connections only");

    drop(second);
    eventually("the second gone", || running.counters().open == 1).await;
    let counters = running.counters();
    assert_eq!((counters.accepted, counters.open, counters.closed), (2, 1, 1));
    assert_eq!((counters.messages_in, counters.messages_out, counters.bytes_in, counters.bytes_out), (2, 2, 7, 7));
}
