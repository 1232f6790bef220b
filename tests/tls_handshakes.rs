//! Handshakes that are slow, in pieces, too old or none at all, and those with a PROXY header before them.

#![cfg(all(feature = "tls", feature = "udp", feature = "unix"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;
mod tls_support;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hythe::codec::Lines;
use hythe::proxy::{ProxyHeader, ProxyProtocol};
use hythe::tls::ServerTls;
use hythe::{BindOptions, Connect, Connection, ErrorKind, Limits, Refusal, Running, Server};
use rustls::pki_types::ServerName;
use server_support::{Echo, Lines as LineClient, Process, addr, eventually, is_child, tell, within};
use tls_support::{Authority, plain_config, plain_connect};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

fn tls(authority: &Authority) -> ServerTls {
    authority.server(&["localhost"]).server_tls().build().unwrap()
}

async fn start(authority: &Authority, limits: Limits) -> Running {
    let options = BindOptions::new().tls(tls(authority));
    let server = Server::new(Echo).limits(limits);
    let server = server.bind_with("tls://127.0.0.1:0", Lines::new(), options).bind("tcp://127.0.0.1:0", Lines::new());
    server.start().await.unwrap()
}

async fn echoes(authority: &Authority, to: SocketAddr) {
    let config = plain_config(authority, rustls::ALL_VERSIONS);
    let mut client = LineClient::new(within("a handshake", plain_connect(to, "localhost", config)).await.unwrap());
    assert_eq!(client.ask("hello").await.as_deref(), Some("hello"));
}

/// The record of a ClientHello as rustls makes it.
fn client_hello() -> Vec<u8> {
    let config = plain_config(&Authority::new(), rustls::ALL_VERSIONS);
    let name = ServerName::try_from("localhost").unwrap();
    let mut bytes = Vec::new();
    rustls::ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

/// Sends it; what comes back until the end.
async fn answer(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    within("the end", stream.read_to_end(&mut answer)).await.expect("a reset would overtake the alert");
    answer
}

/// Passes on one byte a time.
struct ByteByByte(TcpStream);

impl AsyncRead for ByteByByte {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for ByteByByte {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, &bytes[..bytes.len().min(1)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_handshake_may_come_in_single_bytes() {
    let authority = Authority::new();
    let running = start(&authority, Limits::edge()).await;
    let tcp = TcpStream::connect(addr(&running, 0)).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let config = Arc::new(plain_config(&authority, rustls::ALL_VERSIONS));
    let name = ServerName::try_from("localhost").unwrap();
    let connect = TlsConnector::from(config).connect(name, ByteByByte(tcp));
    let mut client = LineClient::new(within("a handshake", connect).await.unwrap());
    assert_eq!(client.ask("hello").await.as_deref(), Some("hello"));
}

#[tokio::test]
async fn whoever_does_not_come_to_an_end_is_cut_and_holds_nobody_up() {
    let authority = Authority::new();
    let deadline = Duration::from_secs(3);
    let running = start(&authority, Limits::edge().with_handshake(deadline)).await;
    let hello = client_hello();
    let mut stuck = Vec::new();
    for i in 0..50 {
        let mut stream = TcpStream::connect(addr(&running, 0)).await.unwrap();
        stream.write_all(&hello[..i % hello.len()]).await.unwrap();
        stuck.push(stream);
    }
    eventually("50 handshakes", || running.counters().handshakes == 50).await;
    echoes(&authority, addr(&running, 0)).await;
    let mut plain = LineClient::tcp(addr(&running, 1)).await;
    assert_eq!(plain.ask("hello").await.as_deref(), Some("hello"));
    for mut stream in stuck {
        // an end or a reset
        let _ = within("the cut", stream.read_to_end(&mut Vec::new())).await;
    }
    assert_eq!(running.counters().refused(Refusal::HandshakeTimeout), 50);
    eventually("all is given back", || running.counters().handshakes == 0).await;
}

#[tokio::test]
async fn the_oldest_handshake_makes_room() {
    let authority = Authority::new();
    let running = start(&authority, Limits::edge().with_handshakes(4)).await;
    let mut stuck = Vec::new();
    for _ in 0..4 {
        stuck.push(TcpStream::connect(addr(&running, 0)).await.unwrap());
        let known = stuck.len() as u64;
        eventually("one more", || running.counters().handshakes == known).await;
    }
    echoes(&authority, addr(&running, 0)).await;
    let _ = within("the cut", stuck.remove(0).read_to_end(&mut Vec::new())).await;
    assert_eq!(running.counters().refused(Refusal::Handshakes), 1);
}

#[tokio::test]
async fn garbage_is_answered_by_an_alert() {
    let authority = Authority::new();
    let running = start(&authority, Limits::edge()).await;
    for garbage in
        ["GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "\u{16}\u{3}\u{1}\0\u{4}\u{1}\0\0\0", "\0\0\0\0\0\0\0\0"]
    {
        let answer = answer(addr(&running, 0), garbage.as_bytes()).await;
        assert_eq!(answer.first(), Some(&21), "{garbage:?}: {answer:?}");
    }
    eventually("they are counted", || running.counters().refused(Refusal::Handshake) == 3).await;
    // a record that claims more than there can be
    let answer = answer(addr(&running, 0), &[22, 3, 1, 0xff, 0xff, 1, 0xff, 0xff, 0xff]).await;
    assert_eq!(answer.first(), Some(&21));
    echoes(&authority, addr(&running, 0)).await;
}

#[tokio::test]
async fn tls_1_1_is_refused() {
    let authority = Authority::new();
    let running = start(&authority, Limits::edge()).await;
    // a ClientHello of TLS 1.1 without extensions, which names suites that 1.2 has as well
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    hello.push(0);
    hello.extend([0, 6, 0xc0, 0x2f, 0xc0, 0x13, 0x00, 0x2f]);
    hello.extend([1, 0]);
    let mut record = vec![22, 3, 1, 0, hello.len() as u8 + 4, 1, 0, 0, hello.len() as u8];
    record.extend(hello);
    let answer = answer(addr(&running, 0), &record).await;
    // a fatal alert: protocol_version, or handshake_failure, as it does not say what TLS 1.2 has to
    assert_eq!((answer[0], answer[5]), (21, 2));
    assert!([40, 70].contains(&answer[6]), "{answer:?}");
    assert_eq!(running.counters().accepted, 0);
}

#[tokio::test]
async fn keys_are_updated_in_the_middle() {
    let authority = Authority::new();
    let running = start(&authority, Limits::edge()).await;
    let config = plain_config(&authority, &[&rustls::version::TLS13]);
    let mut client = LineClient::new(plain_connect(addr(&running, 0), "localhost", config).await.unwrap());
    for i in 0..5 {
        // asks the server for an update of its own, which comes before its answer
        client.stream.get_mut().get_mut().1.refresh_traffic_keys().unwrap();
        let line = format!("line {i}");
        assert_eq!(client.ask(&line).await, Some(line));
    }
}

#[tokio::test]
async fn a_proxy_header_comes_before_the_handshake() {
    let authority = Authority::new();
    let options = BindOptions::new().tls(tls(&authority));
    let options = options.proxy_protocol(ProxyProtocol::required_from(["127.0.0.0/8"]).unwrap());
    let server = Server::new(Echo).bind_with("tls://127.0.0.1:0", Lines::new(), options);
    let running = server.start().await.unwrap();
    let client: SocketAddr = "192.0.2.7:5000".parse().unwrap();
    let connect = Connect::new()
        .tls(authority.client_tls().server_name("localhost").build().unwrap())
        .proxy_header(ProxyHeader::v1(client, "192.0.2.1:443".parse().unwrap()));
    let mut conn: Connection<String> = connect.open(&running.endpoints()[0], Lines::new()).await.unwrap();
    conn.send("hello".into()).await.unwrap();
    assert_eq!(within("an answer", conn.recv()).await.unwrap().as_deref(), Some("hello"));
    let peer = &running.connections()[0].peer;
    assert_eq!((peer.socket_addr(), peer.tls().is_some()), (Some(client), true));
}

#[tokio::test]
async fn the_operating_systems_authorities_are_trusted_where_nothing_else_is_said() {
    if is_child() {
        let endpoint = std::env::var("ENDPOINT").unwrap();
        let result = hythe::connect(endpoint, Lines::new()).await;
        let result = match result {
            Ok(mut conn) => {
                conn.send("hello".to_string()).await.unwrap();
                conn.recv().await.unwrap().unwrap()
            }
            Err(error) => format!("{:?}: {error}", error.kind()),
        };
        return tell("result", result);
    }
    let authority = Authority::new();
    let dir = tempfile::TempDir::new().unwrap();
    let (ours, others) = (dir.path().join("ours.pem"), dir.path().join("others.pem"));
    std::fs::write(&ours, &authority.pem).unwrap();
    std::fs::write(&others, Authority::new().pem).unwrap();
    let running = start(&authority, Limits::edge()).await;
    let ask = |store: &std::path::Path| {
        let prelude =
            format!("SSL_CERT_FILE={} ENDPOINT=tls://localhost:{} ", store.display(), addr(&running, 0).port());
        let name = "the_operating_systems_authorities_are_trusted_where_nothing_else_is_said";
        tokio::task::spawn_blocking(move || {
            Process::start(name, &format!("unset SSL_CERT_DIR; export {prelude}; ")).told("result")
        })
    };
    assert_eq!(ask(&ours).await.unwrap(), "hello");
    let refused = ask(&others).await.unwrap();
    assert!(refused.starts_with(&format!("{:?}", ErrorKind::Connect)), "{refused}");
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let none = ask(&empty).await.unwrap();
    assert!(none.starts_with("Config: the operating system has no certificates of authorities"), "{none}");
}

#[tokio::test]
async fn a_client_gives_up_on_a_server_that_does_not_shake_hands() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tls = Authority::new().client_tls().server_name("localhost").build().unwrap();
    let connect = Connect::new().tls(tls).deadline(Duration::from_millis(200));
    let to = format!("tls://{}", listener.local_addr().unwrap());
    let error = connect.open::<String, String, _>(to, Lines::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}
