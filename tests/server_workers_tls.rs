//! TLS and PROXY headers at a server with workers of its own.

#![cfg(all(feature = "tls", feature = "udp", feature = "unix"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;
mod tls_support;

use std::collections::BTreeSet;
use std::time::Duration;

use hythe::codec::Lines;
use hythe::proxy::ProxyProtocol;
use hythe::server::workers::Workers;
use hythe::{BindOptions, Connect, Connection, Server};
use server_support::{addr, within};
use tls_support::Authority;

#[tokio::test]
async fn tls_connections_are_spread_and_answered() {
    let authority = Authority::new();
    let tls = authority.server(&["localhost"]).server_tls().build().unwrap();
    let server = Server::serve(|mut conn: Connection<String>| async move {
        while conn.recv().await?.is_some() {
            conn.send(std::thread::current().name().unwrap_or_default().to_owned()).await?;
        }
        Ok(())
    });
    let running = server
        .workers(Workers::per_core().threads(3))
        .bind_with("tls://127.0.0.1:0", Lines::new(), BindOptions::new().tls(tls))
        .start()
        .await
        .unwrap();
    let client = authority.client_tls().build().unwrap();
    let (mut conns, mut workers) = (Vec::new(), BTreeSet::new());
    for _ in 0..9 {
        let to = format!("tls://localhost:{}", addr(&running, 0).port());
        let mut conn: Connection<String> = Connect::new().tls(client.clone()).open(to, Lines::new()).await.unwrap();
        conn.send("hello".into()).await.unwrap();
        workers.insert(within("an answer", conn.recv()).await.unwrap());
        conns.push(conn);
    }
    assert_eq!(workers.len(), 3, "{workers:?}");
    let report = within("the drain", running.shutdown(Duration::from_secs(10))).await;
    assert_eq!((report.finished, report.cut), (9, 0));
}

#[tokio::test]
async fn a_proxy_header_is_read_at_the_worker() {
    let server = Server::serve(|mut conn: Connection<String>| async move {
        let peer = conn.peer().socket_addr().map_or_else(String::new, |addr| addr.to_string());
        while conn.recv().await?.is_some() {
            conn.send(peer.clone()).await?;
        }
        Ok(())
    });
    let behind = BindOptions::new().proxy_protocol(ProxyProtocol::required_from(["127.0.0.1"]).unwrap());
    let running = server
        .workers(Workers::per_core().threads(2))
        .bind_with("tcp://127.0.0.1:0", Lines::new(), behind)
        .start()
        .await
        .unwrap();
    for port in 1000..1008 {
        let mut client = server_support::Lines::tcp(addr(&running, 0)).await;
        client.say(&format!("PROXY TCP4 192.0.2.7 192.0.2.1 {port} 80\r")).await;
        assert_eq!(client.ask("who").await, Some(format!("192.0.2.7:{port}")));
    }
}
