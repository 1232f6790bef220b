//! Connecting: names and their addresses, the deadline, and errors of which each says what is wrong.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;

use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use hythe::codec::{Datagram, LengthDelimited, Lines as LinesCodec, Text};
use hythe::{Bytes, Connect, Connection, Error, ErrorKind, Server};
use server_support::{Echo, addr, within};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

async fn lines(endpoint: &str) -> Result<Connection<String>, Error> {
    within("a connection or an error", hythe::connect(endpoint, LinesCodec::new())).await
}

async fn echoes(endpoint: &str) {
    let mut conn = lines(endpoint).await.unwrap_or_else(|error| panic!("{endpoint}: {error:?}"));
    conn.send("hello".to_string()).await.unwrap();
    assert_eq!(within("an answer", conn.recv()).await.unwrap().as_deref(), Some("hello"));
}

fn cause(error: &Error) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

/// `localhost` may be two addresses; the one where somebody listens is found, whichever it is.
#[tokio::test]
async fn a_name_finds_the_family_that_listens() {
    let v4 = Server::new(Echo).bind("tcp://127.0.0.1:0", LinesCodec::new()).start().await.unwrap();
    echoes(&format!("tcp://localhost:{}", addr(&v4, 0).port())).await;

    let names = tokio::net::lookup_host(("localhost", 1)).await.unwrap().collect::<Vec<_>>();
    if !names.iter().any(SocketAddr::is_ipv6) || std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        println!("skipped: localhost is no IPv6 address here");
        return;
    }
    let v6 = Server::new(Echo).bind("tcp://[::1]:0", LinesCodec::new()).start().await.unwrap();
    echoes(&format!("tcp://localhost:{}", addr(&v6, 0).port())).await;
}

#[tokio::test]
async fn an_ipv6_address_works() {
    match Server::new(Echo).bind("tcp://[::1]:0", LinesCodec::new()).start().await {
        Ok(running) => echoes(&running.endpoints()[0].to_string()).await,
        Err(error) => println!("skipped: no IPv6 here: {error:?}"),
    }
}

#[tokio::test]
async fn a_server_on_a_name_listens_at_each_of_its_addresses() {
    let running = Server::new(Echo).bind("tcp://localhost:0", LinesCodec::new()).start().await.unwrap();
    for endpoint in running.endpoints() {
        echoes(&endpoint.to_string()).await;
    }
    echoes(&format!("tcp://localhost:{}", addr(&running, 0).port())).await;
}

#[tokio::test]
async fn nobody_there_is_a_refusal_that_names_the_address() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = lines(&format!("tcp://{free}")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.to_string().contains(&free.to_string()), "{error}");
    assert!(cause(&error).contains("refused"), "{error:?}");

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let error = lines(&format!("unix://{}", path.display())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");

    let error = lines("mem:nobody").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert_eq!(cause(&error), "nobody listens at this name in this process");
}

/// A listener whose backlog is full answers nobody, without the loopback being left.
fn deaf() -> (Socket, Vec<Socket>, SocketAddr) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let to = listener.local_addr().unwrap();
    let fill = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&to);
        socket
    };
    let waiting = (0..8).map(|_| fill()).collect();
    (listener, waiting, to.as_socket().unwrap())
}

#[tokio::test]
async fn the_deadline_holds() {
    let (_listener, _waiting, to) = deaf();
    let begin = Instant::now();
    let connect = Connect::new().deadline(Duration::from_millis(300));
    let result = connect.open::<String, String, _>(hythe::Endpoint::tcp(to), LinesCodec::new());
    let error = within("the deadline", result).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.is_timeout());
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn a_connect_that_is_given_up_leaves_no_task() {
    let (_listener, _waiting, to) = deaf();
    let connect = Connect::new().deadline(Duration::from_millis(50));
    let _ = connect.open::<String, String, _>(format!("tcp://{to}").as_str(), LinesCodec::new()).await;
    let metrics = tokio::runtime::Handle::current().metrics();
    server_support::eventually("no task", || metrics.num_alive_tasks() == 0).await;
}

#[tokio::test]
async fn an_unknown_name_is_an_error_of_the_look_up() {
    let error = lines("tcp://no-such-host.invalid:9000").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Resolve);
    assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
    let error = Server::new(Echo).bind("tcp://no-such-host.invalid:0", LinesCodec::new()).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Resolve);
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_read_is_told_on_both_sides() {
    for text in ["tcp:/127.0.0.1", "ftp://127.0.0.1:21", "tcp://127.0.0.1:99999", ""] {
        let error = lines(text).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Endpoint, "{text}: {error}");
        let error = Server::new(Echo).bind(text, LinesCodec::new()).start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Endpoint, "{text}: {error}");
    }
}

#[tokio::test]
async fn a_codec_without_framing_does_not_fit_a_stream() {
    async fn refused<C, M>(codec: C)
    where
        C: hythe::codec::Codec<M, M>,
        M: Send + 'static,
    {
        for endpoint in ["tcp://127.0.0.1:1", "unix:/nowhere/sock", "mem:nobody"] {
            let connected = hythe::connect::<_, M>(endpoint, codec.clone()).await;
            let server = Server::serve(|_: Connection<M>| async { Ok(()) });
            let started = server.bind(endpoint, codec.clone()).start().await;
            for error in [connected.map(drop).unwrap_err(), started.map(drop).unwrap_err()] {
                assert_eq!(error.kind(), ErrorKind::Config, "{error}");
                assert!(error.to_string().contains("LengthDelimited or Lines do"), "{error}");
            }
        }
    }
    refused::<_, Bytes>(Datagram::new()).await;
    refused::<_, String>(Text::over(Datagram::new())).await;
}

#[tokio::test]
async fn a_server_binds_all_of_its_endpoints_or_none() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = taken.local_addr().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let server = Server::serve(|_: Connection<Bytes>| async { Ok(()) })
        .bind(format!("tcp://{free}").as_str(), LengthDelimited::new())
        .bind(format!("udp://{free}").as_str(), Datagram::new())
        .bind(format!("unix://{}", path.display()).as_str(), LengthDelimited::new())
        .bind("mem:all-or-none", LengthDelimited::new())
        .bind(format!("tcp://{to}").as_str(), LengthDelimited::new());
    let error = server.start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Bind);
    assert!(error.to_string().contains(&to.to_string()), "{error}");

    drop(std::net::TcpListener::bind(free).expect("the TCP port stays bound"));
    drop(std::net::UdpSocket::bind(free).expect("the UDP port stays bound"));
    assert!(!path.exists(), "the Unix socket's file stays");
    assert_eq!(lines("mem:all-or-none").await.unwrap_err().kind(), ErrorKind::Connect);
}

#[tokio::test]
async fn limits_that_make_no_sense_are_refused() {
    let limits = hythe::Limits::edge().with_outbox(0);
    let connect = Connect::new().limits(limits.clone());
    let error = connect.open::<String, String, _>("mem:nobody", LinesCodec::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("outbox"), "{error}");
    let error = Server::new(Echo).limits(limits).bind("mem:limits", LinesCodec::new()).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(Server::new(Echo).start().await.unwrap_err().kind(), ErrorKind::Config, "no endpoint at all");
}
