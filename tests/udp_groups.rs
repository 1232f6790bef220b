//! Multicast and broadcast, and a client's end of UDP.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;

use std::net::{Ipv4Addr, SocketAddr};

use hythe::codec::Datagram;
use hythe::{BindOptions, Bytes, Connection, ErrorKind, Handler, Interface, Server};
use server_support::{addr, within};
use tokio::net::UdpSocket;

#[derive(Clone)]
struct Echo;

impl Handler for Echo {
    type In = Bytes;
    type Out = Bytes;

    async fn on_message(&mut self, conn: &mut Connection<Bytes>, message: Bytes) -> anyhow::Result<()> {
        conn.send(message).await?;
        Ok(())
    }
}

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 77, 11);

fn on_loopback() -> BindOptions {
    BindOptions::new().join_multicast(GROUP.into(), Some(Interface::Address(Ipv4Addr::LOCALHOST)))
}

#[tokio::test]
async fn who_joins_a_group_gets_what_is_sent_to_it() {
    let server = || Server::new(Echo).bind_with("udp://0.0.0.0:0", Datagram::new(), on_loopback()).start();
    let running = match server().await {
        Ok(running) => running,
        Err(error) => {
            println!("skipped: the kernel refuses to join a group on the loopback interface: {error:?}");
            return;
        }
    };
    let port = addr(&running, 0).port();
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket2::SockRef::from(&client).set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
    if let Err(error) = client.send_to(b"hello, all", (GROUP, port)).await {
        println!("skipped: the kernel has no route for a group on the loopback interface: {error}");
        return;
    }
    let mut answer = [0; 100];
    let (length, from) = within("an answer", client.recv_from(&mut answer)).await.unwrap();
    assert_eq!((&answer[..length], from.port()), (&b"hello, all"[..], port));

    // several receivers of a group on one machine are usual
    let second = Server::new(Echo).bind_with(format!("udp://0.0.0.0:{port}").as_str(), Datagram::new(), on_loopback());
    let _second = second.start().await.unwrap();
    client.send_to(b"hello, both", (GROUP, port)).await.unwrap();
    for _ in 0..2 {
        let length = within("an answer of each", client.recv(&mut answer)).await.unwrap();
        assert_eq!(&answer[..length], b"hello, both");
    }
}

#[tokio::test]
async fn an_interface_of_the_wrong_family_is_refused_clearly() {
    let options = BindOptions::new().join_multicast(GROUP.into(), Some(Interface::Index(1)));
    let error = Server::new(Echo).bind_with("udp://127.0.0.1:0", Datagram::new(), options).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Bind);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("an IPv4 group takes an interface's address"), "{cause}");
}

#[tokio::test]
async fn a_client_may_send_to_a_broadcast_address() {
    let receiver = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    let port = receiver.local_addr().unwrap().port();
    let mut conn: Connection<Bytes> =
        hythe::connect(format!("udp://127.255.255.255:{port}").as_str(), Datagram::new()).await.unwrap();
    conn.send(Bytes::from_static(b"anybody?")).await.unwrap();
    let mut heard = [0; 100];
    let length = match within("the broadcast", receiver.recv(&mut heard)).await {
        Ok(length) => length,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(&heard[..length], b"anybody?");
}

#[tokio::test]
async fn a_client_survives_that_nobody_is_there_yet() {
    let free = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to: SocketAddr = free.local_addr().unwrap();
    drop(free);
    let endpoint = format!("udp://{to}");
    let mut conn: Connection<Bytes> = hythe::connect(endpoint.as_str(), Datagram::new()).await.unwrap();
    // each but the first finds the refusal of the one before, and the last leaves its own behind
    for _ in 0..41 {
        conn.send(Bytes::from_static(b"anybody?")).await.unwrap();
        conn.flush().await.unwrap();
    }
    let _running = Server::new(Echo).bind(endpoint.as_str(), Datagram::new()).start().await.unwrap();
    conn.send(Bytes::from_static(b"hello")).await.unwrap();
    let answer = within("an answer: the datagram after a refusal was not sent", conn.recv()).await.unwrap();
    assert_eq!(answer.as_deref(), Some(&b"hello"[..]));
}

#[tokio::test]
async fn a_client_in_recv_survives_a_refusal() {
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = peer.local_addr().unwrap();
    let mut conn: Connection<Bytes> = hythe::connect(format!("udp://{to}").as_str(), Datagram::new()).await.unwrap();
    drop(peer);
    conn.send(Bytes::from_static(b"gone?")).await.unwrap();
    let mut recv = Box::pin(conn.recv());
    // polled once, and again when the refusal has woken it
    let early = tokio::time::timeout(std::time::Duration::from_millis(100), &mut recv).await;
    assert!(early.is_err(), "a refusal ended the connection: {early:?}");
    drop(recv);

    let peer = UdpSocket::bind(to).await.unwrap();
    conn.send(Bytes::from_static(b"hello")).await.unwrap();
    let mut heard = [0; 100];
    let (length, from) = within("a datagram", peer.recv_from(&mut heard)).await.unwrap();
    assert_eq!(&heard[..length], b"hello");
    peer.send_to(b"and hello to you", from).await.unwrap();
    assert_eq!(within("an answer", conn.recv()).await.unwrap().as_deref(), Some(&b"and hello to you"[..]));
}
