//! What the log says of a connection, and what it does not.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod log_support;
mod support;

use std::time::Duration;

use hythe::codec::{LengthDelimited, Lines, Text};
use hythe::{BindOptions, Bytes, BytesMut, Connection, Endpoint, Limits, Running, Server};
use log_support::{Log, Said};
use support::{SECOND, Told, frame, mem, open, open_raw, read_to_end, start, tcp, until, within};
use tokio_util::codec::{Decoder, Encoder};
use tracing::Level;
use tracing_subscriber::filter::LevelFilter;

async fn gone(running: &Running) {
    until("no connection", || running.counters().open == 0).await;
}

/// Says `hello` once, hears it, and leaves.
async fn visit(running: &Running, endpoint: &Endpoint) {
    let mut peer = open_raw(endpoint).await;
    peer.send("hello\n".into()).await.unwrap();
    assert_eq!(within("an answer", peer.recv()).await.unwrap().unwrap(), "hello\n");
    drop(peer);
    gone(running).await;
}

fn says(said: &[Said]) -> Vec<(Level, &str)> {
    said.iter().map(|said| (said.level, said.message.as_str())).collect()
}

#[tokio::test]
async fn at_info_a_connection_is_one_line_at_its_end() {
    let (log, _guard) = Log::here(LevelFilter::INFO);
    let (told, _ends) = Told::new();
    let (running, endpoint) = start(Server::new(told.echo()), &tcp(), Lines::new()).await;
    visit(&running, &endpoint).await;
    within("the drain", running.shutdown(SECOND)).await;

    let all = log.all();
    let expected = ["effective limits", "listening", "connection closed", "draining", "drained"];
    assert_eq!(says(&all), expected.map(|message| (Level::INFO, message)));
    let end = &all[2];
    let [connection] = &end.connections[..] else { panic!("not in the connection's span: {end:?}") };
    assert!(connection["id"].starts_with('#'), "{connection:?}");
    assert_eq!(connection["endpoint"], endpoint.to_string());
    assert!(connection["peer"].starts_with("tcp://127.0.0.1:"), "{connection:?}");
    assert_eq!(connection["codec"], "Lines");
    assert_eq!(end.field("reason"), "peer_closed");
    let counts = ["bytes_in", "bytes_out", "messages_in", "messages_out", "unsent_bytes"];
    assert_eq!(counts.map(|name| end.field(name)), ["6", "6", "1", "1", "0"]);
    assert!(end.field("duration").ends_with('s'));
    assert!(!end.fields.contains_key("cause") && !end.fields.contains_key("suppressed"), "{end:?}");
}

#[tokio::test]
async fn at_debug_it_is_also_seen_to_open_and_what_the_handler_says_is_inside() {
    let (log, _guard) = Log::here(LevelFilter::DEBUG);
    let (told, _ends) = Told::<String>::new();
    let told = told.on_open(|_, ()| {
        tracing::info!("opening");
        Box::pin(async { Ok(()) })
    });
    let told = told.on_message(|conn, message| {
        Box::pin(async move {
            tracing::info!("before a wait");
            tokio::task::yield_now().await;
            tracing::info!("after it");
            Ok(conn.send(message).await?)
        })
    });
    let (running, endpoint) = start(Server::new(told), &tcp(), Lines::new()).await;
    visit(&running, &endpoint).await;

    let said: Vec<_> = log.all().into_iter().filter(|said| !said.connections.is_empty()).collect();
    let messages: Vec<_> = said.iter().map(|said| said.message.as_str()).collect();
    assert_eq!(messages, ["connection opened", "opening", "before a wait", "after it", "connection closed"]);
    assert!(said.iter().all(|one| one.connections == said[0].connections), "{said:?}");
}

#[tokio::test]
async fn a_session_that_fails_is_a_warning_that_says_whose() {
    let (log, _guard) = Log::here(LevelFilter::WARN);
    let (told, mut ends) = Told::<String>::new();
    let told = told.on_message(|_, _| Box::pin(async { Err(anyhow::anyhow!("no disk").context("cannot save")) }));
    let (running, endpoint) = start(Server::new(told), &tcp(), Lines::new()).await;
    let mut peer = open_raw(&endpoint).await;
    peer.send("hello\n".into()).await.unwrap();
    read_to_end(&mut peer).await;
    drop(peer);
    let closed = within("the end", ends.recv()).await.unwrap();
    gone(&running).await;

    let all = log.all();
    assert_eq!(says(&all), [(Level::WARN, "the session failed")]);
    let end = &all[0];
    assert!(end.connections.is_empty(), "the span is of the level `info`");
    assert_eq!(end.field("id"), closed.id.to_string());
    assert_eq!(end.field("peer"), closed.peer.to_string());
    assert_eq!(end.field("endpoint"), endpoint.to_string());
    assert_eq!((end.field("reason"), end.field("cause")), ("handler", "cannot save: no disk"));
}

/// Refuses everything, and says what it was.
#[derive(Clone)]
struct Talkative;

impl Decoder for Talkative {
    type Item = Bytes;
    type Error = std::io::Error;

    fn decode(&mut self, src: &mut BytesMut) -> std::io::Result<Option<Bytes>> {
        if src.is_empty() {
            return Ok(None);
        }
        Err(std::io::Error::other(format!("I do not know {}", String::from_utf8_lossy(src))))
    }
}

impl Encoder<Bytes> for Talkative {
    type Error = std::io::Error;

    fn encode(&mut self, _: Bytes, _: &mut BytesMut) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_a_peer_sent_is_escaped_and_cut() {
    let (log, _guard) = Log::here(LevelFilter::TRACE);
    let (told, _ends) = Told::<Bytes>::new();
    let (running, endpoint) = start(Server::new(told), &tcp(), Talkative).await;
    let mut peer = open_raw(&endpoint).await;
    let evil = format!("\x1b[2J\r\nINFO all is well\u{202e}\0{}", "x".repeat(5000));
    peer.send(evil.into()).await.unwrap();
    read_to_end(&mut peer).await;
    drop(peer);
    gone(&running).await;

    let [end] = &log.of("connection closed")[..] else { panic!("{:?}", log.all()) };
    assert_eq!(end.field("reason"), "protocol");
    let cause = end.field("cause");
    assert!(cause.starts_with(r"I do not know \u{1b}[2J\r\nINFO all is well\u{202e}\0xxx"), "{cause}");
    assert!(cause.ends_with("x…") && cause.len() < 260, "{cause}");
    for said in log.all() {
        assert!(!said.text().contains(|char: char| char.is_control() || char == '\u{202e}'), "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn peers_at_fault_fill_ten_lines_a_second() {
    let (log, _guard) = Log::here(LevelFilter::DEBUG);
    let (told, _ends) = Told::<Bytes>::new();
    let (running, endpoint) = start(Server::new(told), &mem(), Talkative).await;
    let ends = || log.of("connection closed");
    let since = tokio::time::Instant::now();
    for _ in 0..50 {
        let mut peer = open_raw(&endpoint).await;
        peer.send("what?".into()).await.unwrap();
        read_to_end(&mut peer).await;
    }
    gone(&running).await;
    let before = ends();
    assert!(running.counters().closed == 50 && since.elapsed() < SECOND);
    assert_eq!(before.len(), 10);
    tokio::time::sleep(2 * SECOND).await;
    let mut peer = open_raw(&endpoint).await;
    peer.send("what?".into()).await.unwrap();
    read_to_end(&mut peer).await;
    drop(peer);
    gone(&running).await;
    let after = ends();
    assert_eq!((after.len(), after[10].field("suppressed")), (11, "40"));
}

#[tokio::test(start_paused = true)]
async fn refusals_are_said_at_debug_and_ten_times_a_second() {
    let (log, _guard) = Log::here(LevelFilter::DEBUG);
    let (told, _ends) = Told::new();
    let limits = Limits::edge().with_max_connections(1).with_overload(hythe::Overload::Reset);
    let (running, endpoint) = start(Server::new(told.echo()).limits(limits), &mem(), LengthDelimited::new()).await;
    let _held = open_raw(&endpoint).await;
    until("the first", || running.counters().open == 1).await;
    let mut refused = Vec::new();
    for _ in 0..30 {
        refused.push(open_raw(&endpoint).await);
    }
    until("all refused", || running.counters().refused(hythe::Refusal::Connections) == 30).await;
    let said = log.of("refused");
    assert_eq!(said.len(), 10);
    assert_eq!((said[0].level, said[0].field("reason")), (Level::DEBUG, "connections"));
    assert!(said[0].field("peer").starts_with("mem #"), "{:?}", said[0]);
    assert_eq!(said[0].field("endpoint"), &*endpoint.to_string());
}

async fn bytes_in_the_log(log_bytes: usize) -> Vec<(String, String, String)> {
    let (log, _guard) = Log::here(LevelFilter::TRACE);
    let (told, _ends) = Told::new();
    let options = BindOptions::new().log_bytes(log_bytes);
    let server = Server::new(told.echo()).bind_with(tcp().as_str(), LengthDelimited::new(), options);
    let running = server.start().await.unwrap();
    let mut peer: Connection<Bytes> = open(&running.endpoints()[0], LengthDelimited::new()).await;
    peer.send("\x1b[2Jhello\nworld".into()).await.unwrap();
    within("an answer", peer.recv()).await.unwrap().unwrap();
    drop(peer);
    gone(&running).await;
    let shown = log.all().into_iter().filter(|said| said.level == Level::TRACE && said.target.starts_with("hythe"));
    shown.map(|said| (said.message.clone(), said.field("bytes").into(), said.field("data").into())).collect()
}

#[tokio::test]
async fn bytes_are_shown_where_that_was_asked_for_and_nowhere_else() {
    assert_eq!(bytes_in_the_log(0).await, []);
    let show = |what: &str, data: &str| (what.to_owned(), "19".to_owned(), data.to_owned());
    assert_eq!(
        bytes_in_the_log(8).await,
        [show("read", r"\x00\x00\x00\x0f\x1b[2J"), show("written", r"\x00\x00\x00\x0f\x1b[2J")]
    );
    assert_eq!(frame(b"\x1b[2Jhello\nworld").len(), 19);
}

#[tokio::test]
async fn datagrams_are_shown_as_well_and_a_codec_with_parameters_has_a_short_name() {
    let (log, _guard) = Log::here(LevelFilter::TRACE);
    let (told, _ends) = Told::<String>::new();
    let options = BindOptions::new().log_bytes(100);
    let codec = Text::over(LengthDelimited::new());
    let server = Server::new(told.echo()).bind_with("udp://127.0.0.1:0", codec, options);
    let running = server.start().await.unwrap();
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = running.endpoints()[0].socket_addr().unwrap();
    socket.send_to(&frame(b"tab\there"), to).await.unwrap();
    within("an answer", socket.recv(&mut [0; 100])).await.unwrap();
    drop(running);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let shown: Vec<_> =
        log.all().into_iter().filter(|said| said.level == Level::TRACE && said.target.starts_with("hythe")).collect();
    assert_eq!(says(&shown), [(Level::TRACE, "read"), (Level::TRACE, "written")]);
    assert!(shown.iter().all(|said| said.field("data") == r"\x00\x00\x00\x08tab\there"), "{shown:?}");
    assert_eq!(shown[0].connections[0]["codec"], "Text<LengthDelimited>");
}
