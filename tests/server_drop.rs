//! Dropping `Running` stops the server there and then: its ports and names can be had again in the next line, a hundred
//! times in a row, also with connections open; and the connections are cut.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;

use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;

use hythe::codec::{LengthDelimited, Lines as LinesCodec};
use hythe::{Bytes, Connection, Running, Server};
use server_support::{Echo, Lines, addr, eventually, within};
use tokio::net::UnixStream;

const TIMES: usize = 100;

async fn start(endpoint: &str) -> Running {
    match Server::new(Echo).bind(endpoint, LinesCodec::new()).start().await {
        Ok(running) => running,
        Err(error) => panic!("{endpoint} cannot be bound again: {error:?}"),
    }
}

/// Half of the servers are dropped, half are told to stop and dropped later.
fn stop(running: Running, round: usize) -> Option<Running> {
    if round % 2 == 0 {
        drop(running);
        return None;
    }
    running.abort();
    Some(running)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tcp_port_is_free_at_once() {
    let mut running = start("tcp://127.0.0.1:0").await;
    let to = addr(&running, 0);
    for round in 0..TIMES {
        let mut client = Lines::tcp(to).await;
        assert_eq!(client.ask("hello").await.as_deref(), Some("hello"));
        let _waits_in_the_backlog = Lines::tcp(to).await;
        let stopped = stop(running, round);
        drop(TcpListener::bind(to).expect("the port is not free"));
        running = start(&format!("tcp://{to}")).await;
        assert_eq!(client.hear().await, None, "the connection was not cut");
        drop(stopped);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_udp_port_is_free_at_once() {
    let mut running = start("udp://127.0.0.1:0").await;
    let to = addr(&running, 0);
    for round in 0..TIMES {
        let client = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"hello", to).await.unwrap();
        let mut answer = [0; 100];
        within("an answer", client.recv(&mut answer)).await.unwrap();
        let stopped = stop(running, round);
        drop(UdpSocket::bind(to).expect("the port is not free"));
        running = start(&format!("udp://{to}")).await;
        drop(stopped);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_path_is_free_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let endpoint = format!("unix://{}", path.display());
    let mut running = start(&endpoint).await;
    for round in 0..TIMES {
        let mut client = Lines::new(UnixStream::connect(&path).await.unwrap());
        assert_eq!(client.ask("hello").await.as_deref(), Some("hello"));
        let stopped = stop(running, round);
        assert!(!path.exists(), "the file was left");
        drop(UnixListener::bind(&path).expect("the path is not free"));
        std::fs::remove_file(&path).unwrap();
        running = start(&endpoint).await;
        assert_eq!(client.hear().await, None, "the connection was not cut");
        drop(stopped);
        assert!(path.exists(), "a late drop took the next one's file");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_free_at_once() {
    let unique = std::process::id();
    for endpoint in [format!("mem:drop-{unique}"), format!("unix:@hythe-drop-{unique}")] {
        let mut running = start(&endpoint).await;
        for round in 0..TIMES {
            let mut client: Connection<String> = hythe::connect(endpoint.as_str(), LinesCodec::new()).await.unwrap();
            client.send("hello".to_string()).await.unwrap();
            assert_eq!(within("an answer", client.recv()).await.unwrap().as_deref(), Some("hello"));
            let stopped = stop(running, round);
            running = start(&endpoint).await;
            drop(stopped);
            assert!(!matches!(within("the end", client.recv()).await, Ok(Some(_))), "the connection was not cut");
        }
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_is_reset_not_ended() {
    let running = Server::serve(|mut conn: Connection<Bytes>| async move {
        while conn.recv().await?.is_some() {}
        Ok(())
    })
    .bind("tcp://127.0.0.1:0", LengthDelimited::new())
    .start()
    .await
    .unwrap();
    let client = tokio::net::TcpStream::connect(addr(&running, 0)).await.unwrap();
    eventually("the connection", || running.counters().open == 1).await;
    drop(running);
    within("the reset", client.readable()).await.unwrap();
    let error = client.try_read(&mut [0; 1]).expect_err("an end looks as if all had been said");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}
