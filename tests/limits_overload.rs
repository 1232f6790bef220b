//! What becomes of peers for whom there is no place: held, reset, or answered; by number, by address, by rate.

#![cfg(feature = "tcp")]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hythe::codec::Lines as LinesCodec;
use hythe::{Limits, Overload, Refusal, Running, Server};
use server_support::{Echo, Lines, addr, eventually, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

async fn server(limits: Limits) -> (Running, SocketAddr) {
    let running = Server::new(Echo).limits(limits).bind("tcp://127.0.0.1:0", LinesCodec::new()).start().await.unwrap();
    let to = addr(&running, 0);
    (running, to)
}

/// Everything until the end, or the reset, which may be so quick that the connect sees it.
async fn rest(stream: std::io::Result<TcpStream>) -> Result<String, ErrorKind> {
    let mut stream = stream.map_err(|error| error.kind())?;
    let mut bytes = Vec::new();
    match within("the end", stream.read_to_end(&mut bytes)).await {
        Ok(_) => Ok(String::from_utf8(bytes).unwrap()),
        Err(error) => Err(error.kind()),
    }
}

/// As many clients as there is room for.
async fn full(to: SocketAddr, count: usize) -> Vec<Lines<TcpStream>> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = Lines::tcp(to).await;
        assert_eq!(client.ask("hello").await.as_deref(), Some("hello"));
        clients.push(client);
    }
    clients
}

#[tokio::test]
async fn those_above_the_limit_are_reset() {
    let (running, to) = server(Limits::edge().with_max_connections(2).with_overload(Overload::Reset)).await;
    let clients = full(to, 2).await;
    for n in 1..=5 {
        assert_eq!(rest(TcpStream::connect(to).await).await, Err(ErrorKind::ConnectionReset));
        assert_eq!(running.counters().refused(Refusal::Connections), n);
    }
    drop(clients);
    eventually("free places", || running.counters().open == 0).await;
    full(to, 2).await;
}

#[tokio::test]
async fn those_above_the_limit_are_answered_whatever_they_send() {
    let answer = Overload::Answer("the room is full\n".into());
    let (running, to) = server(Limits::edge().with_max_connections(1).with_overload(answer)).await;
    let mut client = full(to, 1).await;
    for talk in [false, true] {
        let mut refused = TcpStream::connect(to).await.unwrap();
        if talk {
            refused.write_all(&b"let me in\n".repeat(1000)).await.unwrap();
        }
        assert_eq!(rest(Ok(refused)).await.as_deref(), Ok("the room is full\n"), "talk: {talk}");
    }
    assert_eq!(running.counters().refused(Refusal::Connections), 2);
    assert_eq!(client[0].ask("still there").await.as_deref(), Some("still there"));
    assert_eq!(running.counters().open, 1);
}

#[tokio::test]
async fn no_more_than_64_are_answered_at_once() {
    let answer = Overload::Answer("full".into());
    let (_running, to) = server(Limits::edge().with_max_connections(1).with_overload(answer)).await;
    let _client = full(to, 1).await;
    let mut refused = Vec::new();
    for _ in 0..200 {
        // these do not close, so that each answer takes its second
        refused.push(TcpStream::connect(to).await);
    }
    let (mut answered, mut reset) = (0, 0);
    for stream in refused {
        let mut bytes = [0; 4];
        let read = async { stream?.read_exact(&mut bytes).await };
        match within("the answer", read).await {
            Ok(_) => answered += 1,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => reset += 1,
            Err(error) => panic!("{error}"),
        }
    }
    // on a slow machine a second of answers passes while the others connect
    assert!(answered >= 64 && reset > 0, "{answered} answered, {reset} reset");
}

async fn from(host: [u8; 4], to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((host, 0).into()).unwrap();
    within("a connection", socket.connect(to)).await
}

#[cfg(target_os = "linux")] // where all of 127.0.0.0/8 is this machine
#[tokio::test]
async fn an_address_has_its_share_and_no_more() {
    let (running, to) = server(Limits::edge().with_per_address(Some(2))).await;
    let mut ours = Vec::new();
    for _ in 0..2 {
        let mut client = Lines::new(from([127, 0, 0, 2], to).await.unwrap());
        assert_eq!(client.ask("hello").await.as_deref(), Some("hello"));
        ours.push(client);
    }
    assert_eq!(rest(from([127, 0, 0, 2], to).await).await, Err(ErrorKind::ConnectionReset));
    assert_eq!(running.counters().refused(Refusal::Address), 1);
    let mut other = Lines::new(from([127, 0, 0, 3], to).await.unwrap());
    assert_eq!(other.ask("hello").await.as_deref(), Some("hello"));

    ours.pop();
    eventually("its place to be free", || running.counters().open == 2).await;
    let mut again = Lines::new(from([127, 0, 0, 2], to).await.unwrap());
    assert_eq!(again.ask("hello").await.as_deref(), Some("hello"));
}

#[tokio::test]
async fn those_who_come_too_fast_wait_their_turn() {
    let (running, to) = server(Limits::edge().with_accept_rate(Some(20))).await;
    let begin = Instant::now();
    let clients = full(to, 30).await;
    assert!(begin.elapsed() >= Duration::from_millis(450), "30 in {:?}", begin.elapsed());
    assert_eq!((clients.len(), running.counters().accepted), (30, 30));
}

#[tokio::test]
async fn those_who_come_too_fast_are_reset_where_nobody_is_held() {
    let (running, to) = server(Limits::edge().with_accept_rate(Some(2)).with_overload(Overload::Reset)).await;
    let _clients = full(to, 2).await;
    let mut reset = 0;
    for _ in 0..20 {
        let talk = async {
            let mut stream = TcpStream::connect(to).await?;
            stream.write_all(b"hello\n").await?;
            stream.read_exact(&mut [0; 6]).await
        };
        reset += usize::from(within("an answer or a reset", talk).await.is_err());
    }
    assert!(reset >= 10, "{reset} of 20");
    assert_eq!(running.counters().refused(Refusal::Rate), reset as u64);
}
