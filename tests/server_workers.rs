//! A server with workers of its own: connections are spread over their threads, what is limited is so over all of them,
//! and they leave together, without a trace.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix", target_os = "linux"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use hythe::codec::{Datagram, Lines as LinesCodec, Text};
use hythe::server::workers::{PerCore, Workers};
use hythe::{CloseReason, Connection, ErrorKind, Handler, Limits, Overload, Running, Server, Session};
use server_support::{Echo, Gauge, Lines, addr, eventually, within};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, UdpSocket, UnixStream};
use tokio::sync::Semaphore;

/// The current thread, if it is a worker's.
fn worker() -> Option<String> {
    std::thread::current().name().filter(|name| name.starts_with("hythe-worker-")).map(str::to_owned)
}

/// Answers each line with the name of the thread, which must be the same from the first poll on.
#[derive(Clone, Default)]
struct Where {
    home: Option<String>,
}

impl Where {
    fn here(&mut self) -> String {
        let here = worker().expect("not on a worker's thread");
        assert_eq!(*self.home.get_or_insert(here.clone()), here, "a connection has moved");
        here
    }
}

impl Handler for Where {
    type In = String;
    type Out = String;

    async fn on_open(&mut self, _: &mut Connection<String>) -> anyhow::Result<()> {
        self.here();
        Ok(())
    }

    async fn on_message(&mut self, conn: &mut Connection<String>, _: String) -> anyhow::Result<()> {
        tokio::task::yield_now().await;
        let here = self.here();
        let spawned = tokio::spawn(async { worker() }).await?;
        assert_eq!(spawned.as_deref(), Some(&*here), "what a handler spawns is on its worker");
        conn.send(here).await?;
        Ok(())
    }
}

fn per_core(threads: usize) -> PerCore {
    Workers::per_core().threads(threads)
}

async fn start<S>(server: Server<S>, threads: usize) -> Running
where
    S: Session<In = String, Out = String>,
{
    server.workers(per_core(threads)).bind("tcp://127.0.0.1:0", LinesCodec::new()).start().await.unwrap()
}

/// How many live at each worker.
#[derive(Debug, Default)]
struct Spread(HashMap<String, usize>);

impl Spread {
    fn add(&mut self, worker: Option<String>) {
        *self.0.entry(worker.unwrap()).or_default() += 1;
    }

    #[track_caller]
    fn is_even(&self, workers: usize, between: std::ops::RangeInclusive<usize>) {
        assert_eq!(self.0.len(), workers, "{self:?}");
        assert!(self.0.values().all(|count| between.contains(count)), "{self:?}");
    }
}

#[tokio::test]
async fn connections_are_spread_evenly_and_stay_where_they_are() {
    let running = start(Server::new(Where::default()), 4).await;
    assert_eq!(running.endpoints().len(), 1, "an endpoint is listed once, however many sockets it has");
    let (mut clients, mut spread) = (Vec::new(), Spread::default());
    for _ in 0..200 {
        clients.push(Lines::tcp(addr(&running, 0)).await);
        spread.add(clients.last_mut().unwrap().ask("where").await);
    }
    spread.is_even(4, 44..=56);
    for client in &mut clients {
        assert!(client.ask("still").await.is_some());
    }
    assert_eq!((running.counters().accepted, running.counters().open), (200, 200));
}

#[tokio::test]
async fn a_burst_is_spread_as_well() {
    let running = start(Server::new(Where::default()), 4).await;
    let to = addr(&running, 0);
    let mut clients: Vec<_> = (0..200)
        .map(|_| {
            tokio::spawn(async move {
                let mut client = Lines::tcp(to).await;
                (client.ask("where").await, client)
            })
        })
        .collect();
    let (mut spread, mut held) = (Spread::default(), Vec::new());
    for client in &mut clients {
        let (worker, client) = within("a connection", client).await.unwrap();
        spread.add(worker);
        held.push(client);
    }
    // two workers may choose the same one at the same time
    spread.is_even(4, 42..=58);
}

#[tokio::test]
async fn a_few_connections_are_never_at_one_worker() {
    let running = start(Server::new(Where::default()), 2).await;
    for _ in 0..20 {
        let (mut one, mut other) = (Lines::tcp(addr(&running, 0)).await, None);
        let first = one.ask("where").await;
        let second = other.insert(Lines::tcp(addr(&running, 0)).await).ask("where").await;
        assert_ne!(first, second);
        drop((one, other));
        eventually("their ends", || running.counters().open == 0).await;
    }
}

#[tokio::test]
async fn what_has_one_queue_is_dealt_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let name = format!("mem:workers-{}", std::process::id());
    let running = Server::new(Where::default())
        .workers(per_core(3))
        .bind(format!("unix://{}", path.display()), LinesCodec::new())
        .bind(&*name, LinesCodec::new())
        .start()
        .await
        .unwrap();
    let (mut spread, mut clients) = (Spread::default(), Vec::new());
    for _ in 0..30 {
        clients.push(Lines::new(UnixStream::connect(&path).await.unwrap()));
        spread.add(clients.last_mut().unwrap().ask("where").await);
    }
    spread.is_even(3, 9..=11);
    drop(clients);
    eventually("their ends", || running.counters().open == 0).await;
    let (mut spread, mut clients) = (Spread::default(), Vec::new());
    for _ in 0..30 {
        let mut client: Connection<String> = hythe::connect(&*name, LinesCodec::new()).await.unwrap();
        client.send("where".into()).await.unwrap();
        spread.add(within("an answer", client.recv()).await.unwrap());
        clients.push(client);
    }
    spread.is_even(3, 9..=11);
    let report = within("the drain", running.shutdown(Duration::from_secs(10))).await;
    assert_eq!((report.finished, report.cut), (30, 0));
    assert!(!path.exists());
}

#[tokio::test]
async fn udp_peers_are_at_several_workers_and_each_stays_at_one() {
    let running = Server::new(Where::default())
        .workers(per_core(4))
        .bind("udp://127.0.0.1:0", Text::over(Datagram::new()))
        .start()
        .await
        .unwrap();
    assert_eq!(running.endpoints().len(), 1);
    let (mut spread, mut peers) = (Spread::default(), Vec::new());
    for _ in 0..64 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(addr(&running, 0)).await.unwrap();
        let mut answers = Vec::new();
        for _ in 0..4 {
            // long enough for the answer
            socket.send(&[b'x'; 64]).await.unwrap();
            let mut bytes = [0; 64];
            let read = within("an answer", socket.recv(&mut bytes)).await.unwrap();
            answers.push(String::from_utf8(bytes[..read].to_vec()).unwrap());
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "a peer has more than one session: {answers:?}");
        spread.add(answers.pop());
        // so that no other has its port
        peers.push(socket);
    }
    spread.is_even(4, 1..=40);
    assert_eq!((running.counters().accepted, running.counters().open), (64, 64));
    let report = within("the drain", running.shutdown(Duration::from_secs(10))).await;
    assert_eq!((report.finished, report.cut), (64, 0));
}

#[tokio::test]
async fn the_sessions_of_all_sockets_of_an_endpoint_are_counted_together() {
    let limits = Limits::edge().with_udp_sessions(40);
    for (limits, most) in [(limits.clone(), 40), (limits.with_udp_per_address(Some(10)), 10)] {
        let running = Server::new(Echo)
            .workers(per_core(4))
            .limits(limits)
            .bind("udp://127.0.0.1:0", Text::over(Datagram::new()))
            .start()
            .await
            .unwrap();
        let mut peers = Vec::new();
        for index in 0..64_u64 {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            socket.send_to(b"hello", addr(&running, 0)).await.unwrap();
            peers.push(socket);
            let counted = || running.counters().accepted + running.counters().datagrams_refused;
            eventually("each to be counted", || counted() == index + 1).await;
        }
        eventually("the end of those that made room", || running.counters().open == most).await;
        let counters = running.counters();
        assert_eq!(counters.sessions_evicted + counters.datagrams_refused, 64 - most, "{counters:?}");
    }
}

#[tokio::test]
async fn the_limit_of_connections_is_exact() {
    for overload in [Overload::Hold, Overload::Reset] {
        let gauge = Gauge::default();
        let session = {
            let gauge = gauge.clone();
            move |mut conn: Connection<String>| {
                let inside = gauge.enter();
                async move {
                    let _inside = inside;
                    while let Some(line) = conn.recv().await? {
                        conn.send(line).await?;
                    }
                    Ok(())
                }
            }
        };
        let limits = Limits::edge().with_max_connections(7).with_overload(overload.clone());
        let running = start(Server::serve(session).limits(limits), 4).await;
        let to = addr(&running, 0);
        let served = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..40)
            .map(|_| {
                let served = Arc::clone(&served);
                tokio::spawn(async move {
                    for _ in 0..5 {
                        let Ok(stream) = TcpStream::connect(to).await else { continue };
                        let mut client = Lines::new(stream);
                        if tokio::io::AsyncWriteExt::write_all(client.stream.get_mut(), b"x\n").await.is_ok()
                            && client.hear().await.is_some()
                        {
                            served.fetch_add(1, SeqCst);
                        }
                    }
                })
            })
            .collect();
        for client in clients {
            within("a client", client).await.unwrap();
        }
        assert!(gauge.most() <= 7, "{} at once", gauge.most());
        match overload {
            Overload::Hold => assert_eq!(served.load(SeqCst), 200, "nobody who waits is forgotten"),
            _ => assert!(served.load(SeqCst) >= 7),
        }
        eventually("their ends", || running.counters().open == 0).await;
    }
}

#[tokio::test]
async fn other_limits_hold_at_every_worker() {
    let limits = Limits::edge().with_max_connections(8);
    let running = start(Server::new(Where::default()).limits(limits.clone()), 4).await;
    let (mut clients, mut spread) = (Vec::new(), Spread::default());
    for _ in 0..8 {
        clients.push(Lines::tcp(addr(&running, 0)).await);
        spread.add(clients.last_mut().unwrap().ask("where").await);
    }
    spread.is_even(4, 2..=2);
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(Lines::tcp(addr(&running, 0)).await);
        waiting.last_mut().unwrap().say("where").await;
    }
    assert_eq!(running.counters().open, 8);
    running.set_limits(limits.clone().with_max_connections(12)).unwrap();
    for client in &mut waiting {
        assert!(client.hear().await.is_some(), "who waited is taken");
    }
    running.set_limits(limits.with_idle(Duration::from_millis(50))).unwrap();
    for client in clients.iter_mut().chain(&mut waiting) {
        assert_eq!(client.hear().await, None, "the shorter deadline is everybody's");
    }
    eventually("their ends", || running.counters().open == 0).await;
    assert_eq!(running.counters().closed_by(CloseReason::Idle), 12);
}

#[tokio::test]
async fn pause_and_resume_reach_every_worker() {
    let running = start(Server::new(Where::default()), 4).await;
    running.pause();
    let mut clients = Vec::new();
    for _ in 0..16 {
        clients.push(Lines::tcp(addr(&running, 0)).await);
        clients.last_mut().unwrap().say("where").await;
    }
    assert_eq!(running.counters().accepted, 0);
    running.resume();
    for client in &mut clients {
        assert!(client.hear().await.is_some());
    }
}

/// Answers `work` when the gate opens.
#[derive(Clone)]
struct Gated(Arc<Semaphore>, Arc<AtomicUsize>);

impl Handler for Gated {
    type In = String;
    type Out = String;

    async fn on_message(&mut self, conn: &mut Connection<String>, message: String) -> anyhow::Result<()> {
        if message == "work" {
            self.1.fetch_add(1, SeqCst);
            let _permit = self.0.acquire().await?;
            for reply in 0..10 {
                conn.send(reply.to_string()).await?;
                tokio::task::yield_now().await;
            }
            return Ok(());
        }
        assert_ne!(message, "panic", "as it was told");
        conn.send(message).await?;
        Ok(())
    }
}

#[tokio::test]
async fn a_drain_loses_nothing_and_its_report_is_of_all_workers() {
    let handler = Gated(Arc::new(Semaphore::new(0)), Arc::default());
    let (gate, begun) = (Arc::clone(&handler.0), Arc::clone(&handler.1));
    let running = Arc::new(start(Server::new(handler), 4).await);
    let (mut busy, mut idle) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        busy.push(Lines::tcp(addr(&running, 0)).await);
        busy.last_mut().unwrap().say("work").await;
        idle.push(Lines::tcp(addr(&running, 0)).await);
        assert!(idle.last_mut().unwrap().ask("hello").await.is_some());
    }
    eventually("all at work", || begun.load(SeqCst) == 20).await;
    let drain = tokio::spawn({
        let running = Arc::clone(&running);
        async move { running.shutdown(Duration::from_secs(60)).await }
    });
    for client in &mut idle {
        assert_eq!(client.hear().await, None);
    }
    gate.add_permits(20);
    for client in &mut busy {
        for reply in 0..10 {
            assert_eq!(client.hear().await, Some(reply.to_string()), "a reply got lost");
        }
        assert_eq!(client.hear().await, None);
    }
    let report = within("the end of the drain", drain).await.unwrap();
    assert_eq!((report.finished, report.cut, report.unsent_bytes), (40, 0, 0));
    assert_eq!((running.counters().accepted, running.counters().closed), (40, 40));
}

#[tokio::test]
async fn a_panic_of_a_handler_costs_its_connection() {
    let running = start(Server::new(Gated(Arc::new(Semaphore::new(0)), Arc::default())), 2).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(Lines::tcp(addr(&running, 0)).await);
        assert!(clients.last_mut().unwrap().ask("hello").await.is_some());
    }
    let others = clients.split_off(4);
    for mut client in clients {
        assert_eq!(client.ask("panic").await, None);
    }
    for mut client in others {
        assert!(client.ask("still").await.is_some());
    }
    assert_eq!(running.counters().closed_by(CloseReason::Panic), 4);
}

#[tokio::test]
async fn ports_are_free_when_a_drop_returns() {
    for _ in 0..5 {
        let running = start(Server::new(Echo), 4).await;
        let to = addr(&running, 0);
        let mut client = Lines::tcp(to).await;
        assert!(client.ask("hello").await.is_some());
        assert!(TcpListener::bind(to).is_err(), "it is in use");
        drop(running);
        TcpListener::bind(to).expect("the port is free");
        assert_eq!(client.hear().await, None, "it is cut");
    }
}

#[tokio::test]
async fn those_who_wait_in_the_backlog_are_refused_at_the_stop() {
    let running = start(Server::new(Echo), 4).await;
    running.pause();
    let mut waiting = Vec::new();
    for _ in 0..40 {
        waiting.push(TcpStream::connect(addr(&running, 0)).await.unwrap());
    }
    let report = within("the drain", running.shutdown(Duration::from_secs(10))).await;
    assert_eq!((report.finished, report.cut), (0, 0));
    for mut client in waiting {
        let end = within("an end", client.read(&mut [0; 8])).await;
        assert!(matches!(end, Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset), "they can tell");
    }
}

#[tokio::test]
async fn two_servers_never_share_an_address_by_mistake() {
    let first = Server::new(Echo)
        .workers(per_core(2))
        .bind("tcp://127.0.0.1:0", LinesCodec::new())
        .bind("udp://127.0.0.1:0", Text::over(Datagram::new()))
        .start()
        .await
        .unwrap();
    for endpoint in first.endpoints() {
        for workers in [Workers::Ambient, per_core(2).into(), per_core(1).into()] {
            let second = Server::new(Echo).workers(workers);
            let second = match endpoint.to_string() {
                udp if udp.starts_with("udp") => second.bind(endpoint.clone(), Text::over(Datagram::new())),
                _ => second.bind(endpoint.clone(), LinesCodec::new()),
            };
            assert_eq!(second.start().await.unwrap_err().kind(), ErrorKind::Bind);
        }
    }
}

#[tokio::test]
async fn no_workers_or_too_many_are_an_error() {
    for count in [0, 1025, usize::MAX] {
        let server = Server::new(Echo).workers(per_core(count)).bind("tcp://127.0.0.1:0", LinesCodec::new());
        assert_eq!(server.start().await.unwrap_err().kind(), ErrorKind::Config);
    }
}

#[tokio::test]
async fn a_client_works_inside_of_a_handler() {
    let backend = start(Server::new(Where::default()), 2).await;
    let to = format!("tcp://{}", addr(&backend, 0));
    let front = Server::serve(move |mut conn: Connection<String>| {
        let to = to.clone();
        async move {
            let mut backend: Connection<String> = hythe::connect(&*to, LinesCodec::new()).await?;
            while let Some(line) = conn.recv().await? {
                backend.send(line).await?;
                conn.send(backend.recv().await?.unwrap_or_default()).await?;
            }
            Ok(())
        }
    });
    let front = start(front, 2).await;
    for _ in 0..4 {
        let mut client = Lines::tcp(addr(&front, 0)).await;
        assert!(client.ask("where").await.unwrap().starts_with("hythe-worker-"));
    }
}
