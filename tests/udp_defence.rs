//! What a stranger cannot have of a UDP listener: sessions without a proof, more than it paid for, an answer to rubbish.

#![cfg(feature = "udp")]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use hythe::codec::{Datagram, Text};
use hythe::udp::{Cookies, Entry};
use hythe::{BindOptions, Bytes, Connection, Handler, Limits, Running, Server};
use server_support::{addr, eventually, within};
use tokio::net::UdpSocket;
use tokio_util::codec::{Decoder, Encoder};

#[derive(Clone)]
struct Echo;

impl Handler for Echo {
    type In = Bytes;
    type Out = Bytes;

    async fn on_message(&mut self, conn: &mut Connection<Bytes>, message: Bytes) -> anyhow::Result<()> {
        Ok(conn.send(message).await?)
    }
}

async fn server(options: BindOptions, limits: Limits) -> (Running, SocketAddr) {
    let server = Server::new(Echo).limits(limits);
    let running = server.bind_with("udp://127.0.0.1:0", Datagram::new(), options).start().await.unwrap();
    let to = addr(&running, 0);
    (running, to)
}

async fn client(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(to).await.unwrap();
    socket
}

async fn hear(socket: &UdpSocket) -> Vec<u8> {
    let mut bytes = vec![0; 65_535];
    let size = within("a datagram", socket.recv(&mut bytes)).await.unwrap();
    bytes.truncate(size);
    bytes
}

/// Nothing is on its way: what was sent after it has been answered.
async fn silent(socket: &UdpSocket) {
    let mut bytes = [0; 64];
    tokio::time::timeout(Duration::from_millis(50), socket.recv(&mut bytes)).await.unwrap_err();
}

#[tokio::test]
async fn a_session_costs_a_cookie_where_one_is_asked_for() {
    let cookies = Cookies::new(Duration::from_secs(60));
    let options = BindOptions::new().gate(move |from, datagram| match datagram.split_first() {
        Some((b'?', _)) => Entry::Answer(cookies.make(from, b"").to_vec().into()),
        Some((b'!', cookie)) if cookies.check(from, b"", cookie) => Entry::Proven,
        Some((b'p', _)) => panic!("as asked"),
        _ => Entry::Drop,
    });
    let (running, to) = server(options, Limits::edge()).await;
    let ours = client(to).await;
    for nothing in [&b"hello"[..], b"!0123456789abcdef", b"!", b"", b"panic", b"?abc"] {
        ours.send(nothing).await.unwrap();
    }
    eventually("six to be dropped", || running.counters().datagrams_refused == 6).await;
    silent(&ours).await;

    ours.send(b"?now with padding").await.unwrap();
    let cookie = hear(&ours).await;
    assert_eq!((cookie.len(), running.counters().accepted), (16, 0), "nothing is kept for whoever asks");
    let theirs = client(to).await;
    let proof = [b"!", &cookie[..]].concat();
    theirs.send(&proof).await.unwrap();
    eventually("another's cookie to be refused", || running.counters().datagrams_refused == 7).await;

    ours.send(&proof).await.unwrap();
    assert_eq!(hear(&ours).await, proof);
    ours.send(b"from here on anything").await.unwrap();
    assert_eq!(hear(&ours).await, b"from here on anything");
    assert_eq!(running.counters().accepted, 1);
}

#[tokio::test]
async fn what_comes_from_a_low_port_is_dropped_where_that_is_asked_for() {
    let ours = client(SocketAddr::from(([127, 0, 0, 1], 1))).await;
    let port = ours.local_addr().unwrap().port();
    for (least, answered) in [(port, true), (port + 1, false)] {
        let (running, to) = server(BindOptions::new().min_source_port(least), Limits::edge()).await;
        ours.connect(to).await.unwrap();
        ours.send(b"hello").await.unwrap();
        if answered {
            assert_eq!(hear(&ours).await, b"hello");
        } else {
            eventually("the drop", || running.counters().datagrams_refused == 1).await;
            silent(&ours).await;
        }
    }
}

#[tokio::test]
async fn an_address_has_its_share_of_the_sessions() {
    let (running, to) = server(BindOptions::new(), Limits::edge().with_udp_per_address(Some(2))).await;
    let clients = [client(to).await, client(to).await, client(to).await];
    for ours in &clients[..2] {
        ours.send(b"hello").await.unwrap();
        assert_eq!(hear(ours).await, b"hello");
    }
    clients[2].send(b"hello").await.unwrap();
    eventually("the third to be refused", || running.counters().datagrams_refused == 1).await;
    assert_eq!(running.counters().open, 2);
}

/// Takes nothing but "good".
#[derive(Clone)]
struct Choosy;

impl Decoder for Choosy {
    type Item = Bytes;
    type Error = std::io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> std::io::Result<Option<Bytes>> {
        match buffer.split().freeze() {
            good if good == "good" => Ok(Some(good)),
            _ => Err(std::io::Error::other("not good")),
        }
    }
}

impl Encoder<Bytes> for Choosy {
    type Error = std::io::Error;

    fn encode(&mut self, message: Bytes, buffer: &mut BytesMut) -> std::io::Result<()> {
        buffer.extend_from_slice(&message);
        Ok(())
    }
}

#[tokio::test]
async fn an_invalid_datagram_is_not_answered_and_ends_nothing() {
    let running = Server::new(Echo).bind("udp://127.0.0.1:0", Choosy).start().await.unwrap();
    let ours = client(addr(&running, 0)).await;
    ours.send(b"good").await.unwrap();
    assert_eq!(hear(&ours).await, b"good");
    for _ in 0..200 {
        ours.send(b"rubbish").await.unwrap();
    }
    eventually("all of them to be seen", || {
        let counters = running.counters();
        counters.datagrams_invalid + counters.datagrams_dropped == 200
    })
    .await;
    silent(&ours).await;
    ours.send(b"good").await.unwrap();
    assert_eq!(hear(&ours).await, b"good", "the session is the same");
    assert_eq!((running.counters().accepted, running.counters().open), (1, 1));
}

#[tokio::test]
async fn after_an_invalid_datagram_the_codec_is_as_before() {
    let server = Server::serve(async |mut conn: Connection<String>| {
        while let Some(text) = conn.recv().await? {
            conn.send(text).await?;
        }
        Ok(())
    });
    let running = server.bind("udp://127.0.0.1:0", Text::new()).start().await.unwrap();
    let ours = client(addr(&running, 0)).await;
    for text in ["first", "second"] {
        ours.send(b"\xff is no text").await.unwrap();
        ours.send(text.as_bytes()).await.unwrap();
        assert_eq!(hear(&ours).await, text.as_bytes());
    }
    assert_eq!(running.counters().datagrams_invalid, 2);
}
