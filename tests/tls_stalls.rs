//! TLS takes more than the socket does: what it holds back still goes out, or the peer is cut that takes nothing.

#![cfg(all(feature = "tls", feature = "udp", feature = "unix"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;
mod tls_support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hythe::codec::Raw;
use hythe::{BindOptions, Bytes, CloseReason, Connect, Connection, Limits, Running, Server};
use rustls::pki_types::ServerName;
use server_support::{addr, eventually, within};
use tls_support::{Authority, plain_config};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The sockets hold little, so that there is something left for TLS.
const SMALL: u32 = 8192;

async fn small_socket(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(SMALL).unwrap();
    within("a connection", socket.connect(to)).await.unwrap()
}

async fn small_client(authority: &Authority, to: SocketAddr) -> TlsStream<TcpStream> {
    let tcp = small_socket(to).await;
    let config = Arc::new(plain_config(authority, rustls::ALL_VERSIONS));
    let name = ServerName::try_from("localhost").unwrap();
    within("a handshake", TlsConnector::from(config).connect(name, tcp)).await.unwrap()
}

fn limits() -> Limits {
    let stall = Duration::from_millis(1500);
    Limits::edge().with_write_stall(stall).with_half_close(stall)
}

/// What became of a session that sent so much.
type Ends = mpsc::UnboundedReceiver<(usize, Option<CloseReason>)>;

/// Sends so many bytes to each, then waits until they are out.
async fn sends(scheme: &str, authority: &Authority, sizes: &[usize]) -> (Running, Ends) {
    let tls = authority.server(&["localhost"]).server_tls().build().unwrap();
    let options = BindOptions::new().send_buffer(SMALL as usize);
    let options = if scheme == "tls" { options.tls(tls) } else { options };
    let (ends, receiver) = mpsc::unbounded_channel();
    let sizes = Arc::new(std::sync::Mutex::new(sizes.to_vec()));
    let session = move |mut conn: Connection<Bytes>| {
        let (ends, size) = (ends.clone(), sizes.lock().unwrap().pop().unwrap());
        async move {
            let sent = match conn.send(vec![7; size].into()).await {
                Ok(()) => conn.flush().await,
                Err(error) => Err(error),
            };
            let _ = ends.send((size, sent.err().and_then(|error| error.close_reason())));
            let _ = conn.recv().await;
            Ok(())
        }
    };
    let server = Server::serve(session).limits(limits());
    let server = server.bind_with(format!("{scheme}://127.0.0.1:0"), Raw::new(), options);
    (server.start().await.unwrap(), receiver)
}

/// The most that could be flushed to a peer that takes nothing; every other session was cut for that.
fn most(ends: &[(usize, Option<CloseReason>)]) -> usize {
    for (size, end) in ends {
        assert!(end.is_none_or(|reason| reason == CloseReason::WriteStalled), "{size} bytes: {end:?}");
    }
    ends.iter().filter(|(_, end)| end.is_none()).map(|(size, _)| *size).max().unwrap_or(0)
}

#[tokio::test]
async fn a_flush_is_ready_when_the_socket_has_it_all_and_not_when_tls_has() {
    let authority = Authority::new();
    let sizes: Vec<_> = (1..=24).map(|i| i * 8192).collect();
    let (mut clients, mut plain_clients) = (Vec::new(), Vec::new());
    let (running, mut ends) = sends("tls", &authority, &sizes).await;
    let (plain, mut plain_ends) = sends("tcp", &authority, &sizes).await;
    for _ in &sizes {
        clients.push(small_client(&authority, addr(&running, 0)).await);
        plain_clients.push(small_socket(addr(&plain, 0)).await);
    }
    let (mut over_tls, mut over_tcp) = (Vec::new(), Vec::new());
    for _ in &sizes {
        over_tls.push(within("a flush, or a cut", ends.recv()).await.unwrap());
        over_tcp.push(within("a flush, or a cut", plain_ends.recv()).await.unwrap());
    }
    let (tls, tcp) = (most(&over_tls), most(&over_tcp));
    assert!(tls > 0 && tls < sizes[23], "{tls} bytes: the sizes prove nothing");
    assert!(tls.abs_diff(tcp) <= 16 << 10, "{tls} bytes flushed over TLS, {tcp} without");
}

#[tokio::test]
async fn what_somebody_else_sent_is_not_left_behind() {
    let authority = Authority::new();
    let tls = authority.server(&["localhost"]).server_tls().build().unwrap();
    let (senders, mut receiver) = mpsc::unbounded_channel();
    let session = move |mut conn: Connection<Bytes>| {
        let _ = senders.send(conn.sender());
        async move {
            let _ = conn.recv().await;
            Ok(())
        }
    };
    let options = BindOptions::new().tls(tls).send_buffer(SMALL as usize);
    let server = Server::serve(session).bind_with("tls://127.0.0.1:0", Raw::new(), options);
    let running = server.start().await.unwrap();
    for size in (1..=24).map(|i| i * 8192) {
        let mut client = small_client(&authority, addr(&running, 0)).await;
        let sender = within("a session", receiver.recv()).await.unwrap();
        // from here, which is not the task of the connection
        sender.send(vec![7; size].into()).await.unwrap();
        let mut bytes = vec![0; size];
        within("all of it", client.read_exact(&mut bytes)).await.unwrap();
    }
}

#[tokio::test]
async fn an_end_that_cannot_be_said_is_not_waited_for_without_end() {
    let authority = Authority::new();
    let sizes: Vec<_> = (1..=16).map(|i| i * 4096).collect();
    let (running, mut ends) = sends("tls", &authority, &sizes).await;
    let mut clients = Vec::new();
    for _ in &sizes {
        clients.push(small_client(&authority, addr(&running, 0)).await);
    }
    for _ in &sizes {
        within("a flush, or a cut", ends.recv()).await.unwrap();
    }
    let drained = running.shutdown(Duration::from_secs(60));
    within("the end of all connections", drained).await;
    drop(clients);
}

#[tokio::test]
async fn a_client_that_is_dropped_leaves_no_connection_to_a_server_that_takes_nothing() {
    let authority = Authority::new();
    let identity = authority.server(&["localhost"]);
    let key = rustls::pki_types::pem::PemObject::from_pem_slice(identity.key.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![identity.der.into()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = format!("tls://localhost:{}", listener.local_addr().unwrap().port());
    let connect = Connect::new().tls(authority.client_tls().build().unwrap()).limits(limits());
    let accept = async { acceptor.accept(listener.accept().await.unwrap().0).await.unwrap() };
    let (mut server, conn) = tokio::join!(accept, connect.open::<Bytes, Bytes, _>(to, Raw::new()));
    let mut conn = conn.unwrap();
    // until there is no room even in the outbox
    while conn.try_send(vec![7; 32 << 10].into()).is_ok() {}
    let unsent = conn.unsent_bytes();
    assert!(unsent > 0);
    drop(conn);
    let alive = || server.get_ref().0.take_error().unwrap().is_none();
    eventually("a reset", || !alive()).await;
    assert!(server.read_to_end(&mut Vec::new()).await.is_err());
}
