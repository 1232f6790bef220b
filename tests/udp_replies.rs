//! What goes out over UDP: at most three times what came in until the peer has answered, and nothing is stuck for it.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;

use std::net::SocketAddr;
use std::time::Duration;

use hythe::codec::Datagram;
use hythe::{Bytes, Connection, Limits, Running, Server};
use server_support::{addr, within};
use tokio::net::UdpSocket;

/// Answers a datagram of `n` bytes with `replies` of `size` bytes, and waits until they are out.
async fn serve(replies: usize, size: usize) -> (Running, SocketAddr) {
    let server = Server::serve(move |mut conn: Connection<Bytes>| async move {
        while conn.recv().await?.is_some() {
            for n in 0..replies {
                conn.send(vec![u8::try_from(n % 256)?; size].into()).await?;
            }
            conn.flush().await?;
        }
        Ok(())
    })
    .limits(Limits::edge().with_write_stall(Duration::from_secs(600)));
    let running = server.bind("udp://127.0.0.1:0", Datagram::new()).start().await.unwrap();
    let to = addr(&running, 0);
    (running, to)
}

async fn client(to: SocketAddr) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(to).await.unwrap();
    client
}

async fn hear(client: &UdpSocket) -> Vec<u8> {
    let mut answer = vec![0; 70_000];
    let length = within("a reply", client.recv(&mut answer)).await.unwrap();
    answer.truncate(length);
    answer
}

/// The bytes of everything that comes until nothing has come for a while.
async fn heard(client: &UdpSocket) -> usize {
    let mut bytes = 0;
    let mut answer = vec![0; 70_000];
    // that nothing comes can only be seen by the clock
    while let Ok(length) = tokio::time::timeout(Duration::from_millis(300), client.recv(&mut answer)).await {
        bytes += length.unwrap();
    }
    bytes
}

#[tokio::test]
async fn before_the_peer_has_answered_it_gets_three_times_what_came_from_it() {
    let (_running, to) = serve(100, 100).await;
    let client = client(to).await;
    client.send(&[0; 200]).await.unwrap();
    assert_eq!(heard(&client).await, 600, "an attacker could have 10,000 bytes sent to somebody else");
    client.send(&[0; 1]).await.unwrap();
    assert_eq!(heard(&client).await, 20_000 - 600, "it has answered");
}

#[tokio::test]
async fn a_reply_that_is_too_large_goes_out_when_enough_has_come() {
    let (_running, to) = serve(1, 100).await;
    let client = client(to).await;
    // one after the other, so that the session looks each time, and finds that it is not enough
    for size in [1, 1, 1, 30] {
        client.send(&vec![0; size]).await.unwrap();
        assert_eq!(heard(&client).await, 0, "99 bytes at most");
    }
    client.send(&[0; 1]).await.unwrap();
    assert_eq!(hear(&client).await.len(), 100, "the session has not noticed that it may send");
}

#[tokio::test]
async fn many_replies_to_one_datagram_are_as_many_datagrams_in_order() {
    let (_running, to) = serve(200, 100).await;
    let client = client(to).await;
    client.send(&[0; 7000]).await.unwrap();
    for n in 0..200u8 {
        assert_eq!(hear(&client).await, [n; 100]);
    }
}

#[tokio::test]
async fn an_answer_to_nothing_is_empty_at_most() {
    let (_running, to) = serve(1, 0).await;
    let client = client(to).await;
    client.send(&[]).await.unwrap();
    assert_eq!(hear(&client).await, b"");
}
