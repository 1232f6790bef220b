//! A server behind a proxy: the header is required, from whom it may come, and read by nobody else.

#![cfg(all(feature = "tcp", feature = "unix"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hythe::codec::Lines as LinesCodec;
use hythe::proxy::{ProxyHeader, ProxyProtocol};
use hythe::{BindOptions, Connect, Connection, ErrorKind, Limits, PeerAddress, Refusal, Running, Server};
use server_support::{Lines, addr, eventually, within};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};

const CLIENT: &str = "192.0.2.7:56324";

fn from_here() -> BindOptions {
    BindOptions::new().proxy_protocol(ProxyProtocol::required_from(["127.0.0.0/8"]).unwrap())
}

/// Answers each line with who asked, through whom.
async fn server(endpoint: &str, options: BindOptions, limits: Limits) -> Running {
    let session = |mut conn: Connection<String>| async move {
        while let Some(line) = conn.recv().await? {
            let peer = conn.peer();
            let address = peer.socket_addr().map_or("-".into(), |addr| addr.to_string());
            let version = peer.proxied().map_or(0, |proxied| proxied.version());
            let proxy = match peer.proxy_address() {
                Some(PeerAddress::Ip(addr)) => addr.ip().to_string(),
                Some(PeerAddress::Unix(_)) => "unix".into(),
                _ => "-".into(),
            };
            conn.send(format!("{line}: {address} by {proxy}, version {version}")).await?;
        }
        Ok(())
    };
    Server::serve(session).limits(limits).bind_with(endpoint, LinesCodec::new(), options).start().await.unwrap()
}

async fn tcp(limits: Limits) -> (Running, SocketAddr) {
    let running = server("tcp://127.0.0.1:0", from_here(), limits).await;
    let to = addr(&running, 0);
    (running, to)
}

fn header(version: u8) -> Vec<u8> {
    let (client, server) = (CLIENT.parse().unwrap(), "192.0.2.1:443".parse().unwrap());
    let header = if version == 1 { ProxyHeader::v1(client, server) } else { ProxyHeader::v2(client, server).crc32c() };
    header.to_bytes().unwrap().to_vec()
}

#[tokio::test]
async fn the_peer_is_the_client_that_the_header_names() {
    let (_running, to) = tcp(Limits::edge()).await;
    for version in [1, 2] {
        let mut stream = TcpStream::connect(to).await.unwrap();
        // what follows in the same segment is the connection's
        stream.write_all(&[&header(version)[..], b"first\n"].concat()).await.unwrap();
        let mut lines = Lines::new(stream);
        let who = format!("{CLIENT} by 127.0.0.1, version {version}");
        assert_eq!(lines.hear().await, Some(format!("first: {who}")));
        assert_eq!(lines.ask("second").await, Some(format!("second: {who}")));

        let mut drip = TcpStream::connect(to).await.unwrap();
        drip.set_nodelay(true).unwrap();
        for byte in header(version) {
            drip.write_all(&[byte]).await.unwrap();
        }
        assert_eq!(Lines::new(drip).ask("dripped").await, Some(format!("dripped: {who}")));
    }
}

#[tokio::test]
async fn a_local_header_leaves_the_address_as_it_is() {
    let (_running, to) = tcp(Limits::edge()).await;
    let mut stream = TcpStream::connect(to).await.unwrap();
    let ours = stream.local_addr().unwrap();
    stream.write_all(&ProxyHeader::local().to_bytes().unwrap()).await.unwrap();
    assert_eq!(Lines::new(stream).ask("check").await, Some(format!("check: {ours} by 127.0.0.1, version 2")));
}

#[tokio::test]
async fn who_is_not_trusted_is_turned_away_unread() {
    let options = BindOptions::new().proxy_protocol(ProxyProtocol::required_from(["192.0.2.0/24"]).unwrap());
    let running = server("tcp://127.0.0.1:0", options, Limits::edge()).await;
    // the reset may be so quick that the connect sees it
    if let Ok(mut stream) = TcpStream::connect(addr(&running, 0)).await {
        let _ = stream.write_all(&header(2)).await;
        assert_eq!(Lines::new(stream).hear().await, None);
    }
    eventually("the count", || running.counters().refused(Refusal::Untrusted) == 1).await;
    assert_eq!(running.counters().accepted, 0);
}

#[tokio::test]
async fn what_is_no_header_is_the_end() {
    let (running, to) = tcp(Limits::edge()).await;
    let bad_sum = {
        let mut header = header(2);
        *header.last_mut().unwrap() ^= 1;
        header
    };
    for (n, bytes) in [&b"hello\n"[..], b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n", &bad_sum]
        .into_iter()
        .enumerate()
    {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        assert_eq!(Lines::new(stream).hear().await, None, "{}", bytes.escape_ascii());
        eventually("the count", || running.counters().refused(Refusal::Handshake) == n as u64 + 1).await;
    }
    assert_eq!(running.counters().accepted, 0);
}

#[tokio::test]
async fn half_a_header_is_cut_at_the_deadline_and_holds_its_place_until_then() {
    let required = ProxyProtocol::required_from(["127.0.0.0/8"]).unwrap().deadline(Duration::from_millis(200));
    let options = BindOptions::new().proxy_protocol(required);
    let running = server("tcp://127.0.0.1:0", options, Limits::edge().with_max_connections(1)).await;
    let to = addr(&running, 0);
    let begin = Instant::now();
    let mut half = TcpStream::connect(to).await.unwrap();
    half.write_all(&header(2)[..20]).await.unwrap();
    let mut next = TcpStream::connect(to).await.unwrap();
    next.write_all(&header(2)).await.unwrap();
    assert_eq!(Lines::new(half).hear().await, None);
    assert!(begin.elapsed() >= Duration::from_millis(200));
    assert!(Lines::new(next).ask("hello").await.is_some(), "the place is free again");
    assert_eq!(running.counters().refused(Refusal::HandshakeTimeout), 1);
}

#[tokio::test]
async fn the_oldest_handshake_makes_room() {
    let (running, to) = tcp(Limits::edge().with_handshakes(4)).await;
    let mut half = Vec::new();
    for n in 1..=10 {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(&header(2)[..20]).await.unwrap();
        half.push(Lines::new(stream));
        eventually("its handshake", || running.counters().handshakes == 4.min(n)).await;
    }
    eventually("six to go", || running.counters().refused(Refusal::Handshakes) == 6).await;
    for old in &mut half[..6] {
        assert_eq!(old.hear().await, None);
    }
    let mut honest = TcpStream::connect(to).await.unwrap();
    honest.write_all(&header(2)).await.unwrap();
    assert!(Lines::new(honest).ask("hello").await.is_some());
    // those that are left go on
    let mut last = half.pop().unwrap();
    last.stream.get_mut().write_all(&header(2)[20..]).await.unwrap();
    assert!(last.ask("hello").await.is_some());
}

#[tokio::test]
async fn an_address_has_its_share_behind_a_proxy_as_well() {
    let (running, to) = tcp(Limits::edge().with_per_address(Some(2))).await;
    let connect = async |client: &str| {
        let mut stream = TcpStream::connect(to).await.unwrap();
        let header = ProxyHeader::v2(client.parse().unwrap(), "192.0.2.1:443".parse().unwrap());
        stream.write_all(&header.to_bytes().unwrap()).await.unwrap();
        let mut lines = Lines::new(stream);
        lines.say("hello").await;
        (lines.hear().await.is_some(), lines)
    };
    let (served, _first) = connect("192.0.2.7:1").await;
    assert!(served);
    let (served, _second) = connect("192.0.2.7:2").await;
    assert!(served);
    let (served, _) = connect("192.0.2.7:3").await;
    assert!(!served, "the third of one address");
    let (served, _) = connect("192.0.2.8:1").await;
    assert!(served, "another address, through the same proxy");
    assert_eq!(running.counters().refused(Refusal::Address), 1);
}

#[tokio::test]
async fn a_unix_socket_trusts_its_peers_only_where_told() {
    let dir = tempfile::tempdir().unwrap();
    for (n, trusted) in [(0, true), (1, false)] {
        let path = dir.path().join(n.to_string());
        let required = ProxyProtocol::required_from_local().trust_local(trusted);
        let options = BindOptions::new().proxy_protocol(required);
        let running = server(&format!("unix://{}", path.display()), options, Limits::edge()).await;
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let _ = stream.write_all(&[&header(1)[..], b"hello\n"].concat()).await;
        let heard = Lines::new(stream).hear().await;
        assert_eq!(heard, trusted.then(|| format!("hello: {CLIENT} by unix, version 1")));
        assert_eq!(running.counters().refused(Refusal::Untrusted), u64::from(!trusted));
    }
}

#[tokio::test]
async fn a_client_sends_the_header_it_is_given() {
    let (_running, to) = tcp(Limits::edge()).await;
    let header = ProxyHeader::v2(CLIENT.parse().unwrap(), to).authority("example.com").crc32c();
    let connect = Connect::new().proxy_header(header);
    let mut conn: Connection<String> = connect.open(format!("tcp://{to}").as_str(), LinesCodec::new()).await.unwrap();
    conn.send("hello".into()).await.unwrap();
    let answer = within("an answer", conn.recv()).await.unwrap();
    assert_eq!(answer.as_deref(), Some(format!("hello: {CLIENT} by 127.0.0.1, version 2").as_str()));

    let too_much = Connect::new().proxy_header(ProxyHeader::v1_unknown().crc32c());
    let error =
        too_much.open::<String, String, _>(format!("tcp://{to}").as_str(), LinesCodec::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn a_drain_waits_for_no_handshake_longer_than_its_deadline() {
    let (running, to) = tcp(Limits::edge()).await;
    let mut half = TcpStream::connect(to).await.unwrap();
    half.write_all(&header(2)[..20]).await.unwrap();
    eventually("its handshake", || running.counters().handshakes == 1).await;
    let begin = Instant::now();
    running.shutdown(Duration::from_millis(100)).await;
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    assert_eq!(running.counters().handshakes, 0);
    assert_eq!(Lines::new(half).hear().await, None);
}
