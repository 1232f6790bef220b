//! A server with workers of its own hands all of its sockets over, and takes as many as there are.

#![cfg(all(feature = "tcp", feature = "udp", feature = "handover"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;

use std::path::Path;
use std::time::Duration;

use hythe::codec::{Datagram, Lines as LinesCodec, Text};
use hythe::server::workers::Workers;
use hythe::{Connection, Running, Server};
use server_support::{Lines, addr, within};
use tokio::net::{UdpSocket, UnixStream};

/// One that answers with its name.
async fn server(name: &'static str, workers: Workers, dir: &Path) -> Running {
    let answers = move |mut conn: Connection<String>| async move {
        while conn.recv().await?.is_some() {
            conn.send(name.to_owned()).await?;
        }
        Ok(())
    };
    Server::serve(answers)
        .workers(workers)
        .bind("tcp://127.0.0.1:0", LinesCodec::new())
        .bind("udp://127.0.0.1:0", Text::over(Datagram::new()))
        .bind(format!("unix://{}", dir.join("sock").display()), LinesCodec::new())
        .handover(dir.join("handover"))
        .start()
        .await
        .unwrap()
}

fn per_core(threads: usize) -> Workers {
    Workers::per_core().threads(threads).into()
}

#[tokio::test]
async fn nobody_who_waits_at_any_worker_is_lost_in_a_handover() {
    let dir = tempfile::tempdir().unwrap();
    let servers = [("four", per_core(4)), ("two", per_core(2)), ("ambient", Workers::Ambient), ("three", per_core(3))];
    let mut before: Option<Running> = None;
    for (name, workers) in servers {
        let mut waiting = Vec::new();
        let endpoints = before.as_ref().map(|before| before.endpoints().to_vec());
        if let Some(before) = &before {
            before.pause();
            for _ in 0..40 {
                waiting.push(Lines::tcp(addr(before, 0)).await);
                waiting.last_mut().unwrap().say("who").await;
            }
        }
        let running = within("a start", server(name, workers, dir.path())).await;
        if let Some(before) = before.take() {
            within("the handover", before.handed_over()).await;
            within("the drain", before.shutdown(Duration::from_secs(10))).await;
        }
        if let Some(endpoints) = endpoints {
            assert_eq!(running.endpoints(), endpoints, "the same ports, and each once");
        }
        for mut client in waiting {
            assert_eq!(client.hear().await.as_deref(), Some(name));
        }
        let mut unix = Lines::new(UnixStream::connect(dir.path().join("sock")).await.unwrap());
        assert_eq!(unix.ask("who").await.as_deref(), Some(name));
        for _ in 0..16 {
            // each socket of the endpoint is served: a peer's datagrams go to one of them
            let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            peer.send_to(b"who are you", addr(&running, 1)).await.unwrap();
            let mut bytes = [0; 16];
            let (read, _) = within("an answer", peer.recv_from(&mut bytes)).await.unwrap();
            assert_eq!(&bytes[..read], name.as_bytes());
        }
        before = Some(running);
    }
}
