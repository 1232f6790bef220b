//! `tls://` on both sides: who is let in, what the two agree upon, and how a connection ends.

#![cfg(all(feature = "tls", feature = "udp", feature = "unix"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;
mod tls_support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hythe::codec::{LengthDelimited, Lines};
use hythe::tls::{ServerTls, TlsVersion};
use hythe::{
    BindOptions, Bytes, CloseReason, Closed, Connect, Connection, ErrorKind, Handler, Limits, Peer, Refusal, Running,
    Server,
};
use rustls::SignatureScheme;
use server_support::{Echo, addr, eventually, within};
use tls_support::{Authority, plain_config, plain_config_with, plain_connect};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

fn options(tls: &ServerTls) -> BindOptions {
    BindOptions::new().tls(tls.clone())
}

async fn echo(tls: &ServerTls) -> Running {
    Server::new(Echo).bind_with("tls://127.0.0.1:0", Lines::new(), options(tls)).start().await.unwrap()
}

fn endpoint(running: &Running) -> String {
    format!("tls://localhost:{}", addr(running, 0).port())
}

/// The cause of causes.
fn root(error: &hythe::Error) -> String {
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Answers, and remembers peers and ends.
#[derive(Clone, Default)]
struct Notes {
    peers: Arc<Mutex<Vec<Peer>>>,
    ends: Arc<Mutex<Vec<Closed>>>,
}

impl Handler for Notes {
    type In = String;
    type Out = String;

    async fn on_open(&mut self, conn: &mut Connection<String>) -> anyhow::Result<()> {
        self.peers.lock().unwrap().push(conn.peer().clone());
        Ok(())
    }

    async fn on_message(&mut self, conn: &mut Connection<String>, message: String) -> anyhow::Result<()> {
        conn.send(message).await?;
        Ok(())
    }

    async fn on_close(self, closed: Closed) {
        self.ends.lock().unwrap().push(closed);
    }
}

impl Notes {
    async fn bound(&self, tls: &ServerTls) -> Running {
        let server = Server::new(self.clone());
        server.bind_with("tls://127.0.0.1:0", Lines::new(), options(tls)).start().await.unwrap()
    }

    async fn end(&self) -> CloseReason {
        eventually("the end of a connection", || !self.ends.lock().unwrap().is_empty()).await;
        self.ends.lock().unwrap().pop().unwrap().reason
    }
}

#[tokio::test]
async fn both_sides_know_what_they_agreed_upon() {
    let authority = Authority::new();
    let tls = authority.server(&["localhost"]).server_tls().alpn(["chat/2", "chat/1"]).build().unwrap();
    let notes = Notes::default();
    let running = notes.bound(&tls).await;
    let client = authority.client_tls().alpn(["chat/1"]).build().unwrap();
    let connect = Connect::new().tls(client);
    let mut conn: Connection<String> = connect.open(endpoint(&running), Lines::new()).await.unwrap();
    conn.send("hello".into()).await.unwrap();
    assert_eq!(within("an answer", conn.recv()).await.unwrap().as_deref(), Some("hello"));

    let ours = conn.peer().tls().unwrap().clone();
    let theirs = notes.peers.lock().unwrap()[0].tls().unwrap().clone();
    for info in [&ours, &theirs] {
        assert_eq!((info.version(), info.alpn()), (TlsVersion::Tls13, Some(&b"chat/1"[..])));
        assert_eq!((info.server_name(), info.cipher_suite()), (Some("localhost"), ours.cipher_suite()));
    }
    assert_eq!((ours.peer_certificates().len(), theirs.peer_certificates().len()), (1, 0));
    conn.close().await.unwrap();
    assert_eq!(notes.end().await, CloseReason::PeerClosed);
}

#[tokio::test]
async fn a_server_of_another_authority_or_name_is_refused() {
    let authority = Authority::new();
    let tls = authority.server(&["localhost"]).server_tls().build().unwrap();
    let running = echo(&tls).await;
    let open = |client, to: String| async move {
        let connect = Connect::new().tls(client);
        connect.open::<String, String, _>(to, Lines::new()).await.unwrap_err()
    };
    let error = open(Authority::new().client_tls().build().unwrap(), endpoint(&running)).await;
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(root(&error).contains("UnknownIssuer"), "{error:?}");
    let error = open(authority.client_tls().build().unwrap(), format!("tls://{}", addr(&running, 0))).await;
    assert!(root(&error).contains("not valid for name"), "{error:?}");
    // nothing but the name matters
    let client = authority.client_tls().server_name("localhost").build().unwrap();
    let to = format!("tls://{}", addr(&running, 0));
    Connect::new().tls(client).open::<String, String, _>(to, Lines::new()).await.unwrap();
    eventually("the refusals are counted", || running.counters().refused(Refusal::Handshake) == 2).await;
}

#[tokio::test]
async fn a_certificate_can_be_for_an_address() {
    let authority = Authority::new();
    let running = echo(&authority.server(&["127.0.0.1"]).server_tls().build().unwrap()).await;
    let connect = Connect::new().tls(authority.client_tls().build().unwrap());
    let to = format!("tls://{}", addr(&running, 0));
    let conn: Connection<String> = connect.open(to, Lines::new()).await.unwrap();
    assert_eq!(conn.peer().tls().unwrap().server_name(), None);
}

#[tokio::test]
async fn clients_without_a_good_certificate_are_refused() {
    let (authority, others) = (Authority::new(), Authority::new());
    let server = authority.server(&["localhost"]);
    let notes = Notes::default();
    let running = notes.bound(&server.server_tls().client_auth_required(authority.as_pem()).build().unwrap()).await;
    let ask = |client| {
        let to = endpoint(&running);
        async move {
            let mut conn: Connection<String> = Connect::new().tls(client).open(to, Lines::new()).await?;
            conn.send("hello".into()).await?;
            within("an answer", conn.recv()).await
        }
    };
    let with = |identity: tls_support::Identity| {
        let (chain, key) = identity.pems();
        authority.client_tls().client_certificate(chain, key).build().unwrap()
    };
    let alice = authority.client("alice");
    assert_eq!(ask(with(alice.clone())).await.unwrap().as_deref(), Some("hello"));
    assert_eq!(notes.peers.lock().unwrap()[0].tls().unwrap().peer_certificates(), [Bytes::from(alice.der)]);

    let refused = ["CertificateRequired", "UnknownCA", "ertificate"];
    for (client, alert) in [
        (authority.client_tls().build().unwrap(), refused[0]),
        (with(others.client("mallory")), refused[1]),
        (with(authority.server(&["localhost"])), refused[2]),
    ] {
        let error = ask(client).await.unwrap_err();
        assert!(root(&error).contains(alert), "{error:?}");
        assert_eq!(error.close_reason(), Some(CloseReason::PeerReset), "TLS 1.3 tells a client when it reads");
    }
    assert_eq!(notes.peers.lock().unwrap().len(), 1, "nobody else got to a handler");
}

#[tokio::test]
async fn clients_need_not_show_a_certificate_where_it_is_optional() {
    let authority = Authority::new();
    let server = authority.server(&["localhost"]);
    let notes = Notes::default();
    let running = notes.bound(&server.server_tls().client_auth_optional(authority.as_pem()).build().unwrap()).await;
    let (chain, key) = authority.client("alice").pems();
    for client in [authority.client_tls(), authority.client_tls().client_certificate(chain, key)] {
        let connect = Connect::new().tls(client.build().unwrap());
        let mut conn: Connection<String> = connect.open(endpoint(&running), Lines::new()).await.unwrap();
        conn.send("hello".into()).await.unwrap();
        assert_eq!(within("an answer", conn.recv()).await.unwrap().as_deref(), Some("hello"));
    }
    let shown = |peer: &Peer| peer.tls().unwrap().peer_certificates().len();
    assert_eq!(notes.peers.lock().unwrap().iter().map(shown).collect::<Vec<_>>(), [0, 1]);
}

#[tokio::test]
async fn the_name_that_is_asked_for_chooses_the_certificate() {
    let authority = Authority::new();
    let (first, second) = (authority.server(&["one.test"]), authority.server(&["two.test", "*.three.test"]));
    let running = echo(&first.server_tls().certificate(second.pems().0, second.pems().1).build().unwrap()).await;
    let shown = |name: &'static str, config: rustls::ClientConfig| {
        let to = addr(&running, 0);
        async move {
            let stream = plain_connect(to, name, config).await.unwrap();
            stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
        }
    };
    let config = || plain_config(&authority, rustls::ALL_VERSIONS);
    assert_eq!(shown("one.test", config()).await, first.der);
    assert_eq!(shown("two.test", config()).await, second.der);
    assert_eq!(shown("a.three.test", config()).await, second.der);
    assert!(plain_connect(addr(&running, 0), "three.test", config()).await.is_err(), "a wildcard is for one label");
}

#[tokio::test]
async fn of_two_certificates_for_a_name_a_client_gets_one_that_it_can_check() {
    let authority = Authority::ed25519();
    let (first, second) = (authority.server(&["localhost"]), authority.server_ed25519(&["localhost"]));
    let running = echo(&first.server_tls().certificate(second.pems().0, second.pems().1).build().unwrap()).await;
    let mut provider = rustls::crypto::ring::default_provider();
    let config = plain_config_with(&authority, rustls::ALL_VERSIONS, provider.clone());
    let stream = plain_connect(addr(&running, 0), "localhost", config).await.unwrap();
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec(), first.der);

    let known = &mut provider.signature_verification_algorithms.mapping;
    let ed25519: Vec<_> = known.iter().filter(|(scheme, _)| *scheme == SignatureScheme::ED25519).copied().collect();
    *known = Box::leak(ed25519.into());
    let config = plain_config_with(&authority, rustls::ALL_VERSIONS, provider);
    let stream = plain_connect(addr(&running, 0), "localhost", config).await.unwrap();
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec(), second.der);
}

#[tokio::test]
async fn protocols_that_the_server_does_not_speak_are_refused() {
    let authority = Authority::new();
    let running = echo(&authority.server(&["localhost"]).server_tls().alpn(["a"]).build().unwrap()).await;
    let open = |client: hythe::tls::ClientTlsBuilder| {
        let connect = Connect::new().tls(client.build().unwrap());
        let to = endpoint(&running);
        async move { connect.open::<String, String, _>(to, Lines::new()).await }
    };
    let error = open(authority.client_tls().alpn(["b"])).await.unwrap_err();
    assert!(root(&error).contains("NoApplicationProtocol"), "{error:?}");
    let conn = open(authority.client_tls()).await.unwrap();
    assert_eq!(conn.peer().tls().unwrap().alpn(), None);
}

#[tokio::test]
async fn tls_1_2_is_spoken_as_well() {
    let authority = Authority::new();
    let running = echo(&authority.server(&["localhost"]).server_tls().build().unwrap()).await;
    let config = plain_config(&authority, &[&rustls::version::TLS12]);
    let stream = plain_connect(addr(&running, 0), "localhost", config).await.unwrap();
    let mut stream = BufReader::new(stream);
    stream.get_mut().write_all(b"hello\n").await.unwrap();
    let mut line = String::new();
    within("a line", stream.read_line(&mut line)).await.unwrap();
    assert_eq!(line, "hello\n");
    assert_eq!(running.connections()[0].peer.tls().unwrap().version(), TlsVersion::Tls12);
}

#[tokio::test]
async fn sessions_are_resumed_by_tickets_with_the_clients_certificate() {
    let authority = Authority::new();
    let server = authority.server(&["localhost"]);
    let tls = server.server_tls().client_auth_required(authority.as_pem()).build().unwrap();
    let notes = Notes::default();
    let running = notes.bound(&tls).await;
    let (chain, key) = authority.client("alice").pems();
    let client = authority.client_tls().client_certificate(chain, key).build().unwrap();
    for resumed in [false, true] {
        let connect = Connect::new().tls(client.clone());
        let mut conn: Connection<String> = connect.open(endpoint(&running), Lines::new()).await.unwrap();
        conn.send("hello".into()).await.unwrap();
        assert_eq!(within("an answer", conn.recv()).await.unwrap().as_deref(), Some("hello"));
        assert_eq!(conn.peer().tls().unwrap().is_resumed(), resumed);
        let peer = notes.peers.lock().unwrap().pop().unwrap();
        let info = peer.tls().unwrap();
        assert_eq!((info.is_resumed(), info.peer_certificates().len()), (resumed, 1));
    }
}

#[tokio::test]
async fn an_end_without_close_notify_is_a_truncation() {
    let authority = Authority::new();
    let notes = Notes::default();
    let running = notes.bound(&authority.server(&["localhost"]).server_tls().build().unwrap()).await;
    let config = || plain_config(&authority, rustls::ALL_VERSIONS);
    for truncated in [true, false] {
        let mut stream = plain_connect(addr(&running, 0), "localhost", config()).await.unwrap();
        stream.write_all(b"hello\n").await.unwrap();
        let mut line = [0; 6];
        within("a line", stream.read_exact(&mut line)).await.unwrap();
        if truncated {
            stream.get_mut().0.shutdown().await.unwrap();
            assert_eq!(notes.end().await, CloseReason::Truncated);
        } else {
            stream.shutdown().await.unwrap();
            assert_eq!(notes.end().await, CloseReason::PeerClosed);
            // and ours is said as well
            assert_eq!(within("the end", stream.read(&mut line)).await.unwrap(), 0);
        }
    }
}

#[tokio::test]
async fn a_client_learns_of_a_truncation_too() {
    let authority = Authority::new();
    let tls = authority.server(&["localhost"]).server_tls().build().unwrap();
    // a server that is cut by its operator does not say close_notify
    let running = echo(&tls).await;
    let connect = Connect::new().tls(authority.client_tls().build().unwrap());
    let mut conn: Connection<String> = connect.open(endpoint(&running), Lines::new()).await.unwrap();
    conn.send("hello".into()).await.unwrap();
    assert_eq!(within("an answer", conn.recv()).await.unwrap().as_deref(), Some("hello"));
    drop(running);
    let error = within("the end", conn.recv()).await.unwrap_err();
    assert_eq!(error.close_reason(), Some(CloseReason::PeerReset));
}

#[tokio::test]
async fn endpoints_and_certificates_must_fit() {
    let authority = Authority::new();
    let tls = authority.server(&["localhost"]).server_tls().build().unwrap();
    let start = |endpoint: &'static str, options| Server::new(Echo).bind_with(endpoint, Lines::new(), options).start();
    let error = start("tls://127.0.0.1:0", BindOptions::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(error.to_string(), "tls://127.0.0.1:0 needs a certificate: `BindOptions::tls` sets it");
    let error = start("tcp://127.0.0.1:0", options(&tls)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("tcp://127.0.0.1:0 is not encrypted"), "{error}");
    let connect = Connect::new().tls(authority.client_tls().build().unwrap());
    let error = connect.open::<String, String, _>("tcp://127.0.0.1:9", Lines::new()).await.unwrap_err();
    assert!(error.to_string().contains("is not encrypted"), "{error}");
    assert!(start("tcp://127.0.0.1:0", BindOptions::new()).await.is_ok());
    let connect = Connect::new();
    assert!(connect.open::<String, String, _>("tcp://127.0.0.1:9", Lines::new()).await.is_err(), "nobody is there");
}

#[tokio::test]
async fn pipelined_and_large_messages_go_both_ways_also_with_a_slow_reader() {
    let authority = Authority::new();
    let tls = authority.server(&["localhost"]).server_tls().build().unwrap();
    let codec = LengthDelimited::new();
    let running = Server::serve(|mut conn: Connection<Bytes>| async move {
        while let Some(message) = conn.recv().await? {
            conn.send(message).await?;
        }
        Ok(())
    })
    .limits(Limits::edge().with_write_stall(Duration::from_secs(20)))
    .bind_with("tls://127.0.0.1:0", codec.clone(), options(&tls))
    .start()
    .await
    .unwrap();
    let connect = Connect::new().tls(authority.client_tls().build().unwrap());
    let mut conn: Connection<Bytes> = connect.open(endpoint(&running), codec).await.unwrap();
    for i in 0..64u8 {
        conn.feed(vec![i; 100].into()).await.unwrap();
    }
    conn.flush().await.unwrap();
    for i in 0..64u8 {
        assert_eq!(within("an answer", conn.recv()).await.unwrap().unwrap(), vec![i; 100]);
    }
    let large = |i: u8| Bytes::from((0..1_000_000u32).map(|at| (at as u8).wrapping_mul(7) ^ i).collect::<Vec<_>>());
    let sender = conn.sender();
    let sending = tokio::spawn(async move {
        for i in 0..8 {
            sender.send(large(i)).await.unwrap();
        }
    });
    for i in 0..8 {
        // long enough for everything in between to be full
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(within("an answer", conn.recv()).await.unwrap().unwrap() == large(i), "message {i}");
    }
    sending.await.unwrap();
    conn.close().await.unwrap();
}

#[tokio::test]
async fn a_drain_lets_busy_connections_finish_and_says_close_notify() {
    let authority = Authority::new();
    let running = echo(&authority.server(&["localhost"]).server_tls().build().unwrap()).await;
    let config = plain_config(&authority, rustls::ALL_VERSIONS);
    let mut stream = plain_connect(addr(&running, 0), "localhost", config).await.unwrap();
    stream.write_all(b"hello\n").await.unwrap();
    let mut bytes = Vec::new();
    let mut line = [0; 6];
    within("a line", stream.read_exact(&mut line)).await.unwrap();
    let shutdown = tokio::spawn(async move { running.shutdown(Duration::from_secs(10)).await });
    // without close_notify this is an error
    within("the end", stream.read_to_end(&mut bytes)).await.unwrap();
    drop(stream);
    let report = within("the drain", shutdown).await.unwrap();
    assert_eq!((report.finished, report.cut), (1, 0));
}
