//! The endpoint for Prometheus as seen by those who speak HTTP, and by those who do not.

#![cfg(all(feature = "prometheus", feature = "tcp", feature = "unix"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod metrics_support;
mod support;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use hythe::metrics::{prometheus, prometheus_with};
use hythe::{CloseReason, Running};
use metrics_support::{exchange, parse};
use support::{until, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

async fn saying(text: &'static str) -> Running {
    prometheus_with("tcp://127.0.0.1:0", move || text.to_owned()).await.unwrap()
}

async fn status(running: &Running, request: impl AsRef<[u8]>) -> String {
    let (head, _) = exchange(running, request.as_ref()).await;
    head.lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn a_scrape_gets_the_text_and_its_type() {
    let running = saying("a 1\n").await;
    let (head, body) = exchange(&running, b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n").await;
    assert_eq!(body, "a 1\n");
    assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
    assert!(head.contains("\r\nConnection: close"), "{head}");
    let (same, body) = exchange(&running, b"HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((same, &*body), (head, ""));
}

#[tokio::test]
async fn everything_else_is_refused_in_words() {
    let running = saying("a 1\n").await;
    let host = "HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(status(&running, format!("GET / {host}")).await, "HTTP/1.1 404 Not Found");
    assert_eq!(status(&running, format!("POST /metrics {host}")).await, "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(status(&running, "what?\r\n\r\n").await, "HTTP/1.1 400 Bad Request");
    assert_eq!(status(&running, "GET /metrics HTTP/1.1\r\n\r\n").await, "HTTP/1.1 400 Bad Request");
    let long = format!("GET /metrics HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(8 << 10));
    assert_eq!(status(&running, long).await, "HTTP/1.1 431 Request Header Fields Too Large");
    let endless = "x".repeat(9 << 10);
    assert_eq!(status(&running, endless).await, "HTTP/1.1 431 Request Header Fields Too Large");
    // what follows a request is not a second one
    let twice = format!("GET /metrics {host}").repeat(2);
    let (_, body) = exchange(&running, twice.as_bytes()).await;
    assert_eq!(body, "a 1\n");
    let body = format!("POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000));
    assert_eq!(status(&running, body).await, "HTTP/1.1 405 Method Not Allowed");
}

#[tokio::test]
async fn a_text_that_cannot_be_made_is_an_error_and_the_next_one_is_made() {
    let times = Arc::new(AtomicUsize::new(0));
    let render = move || match times.fetch_add(1, SeqCst) {
        0 => panic!("by the user's code"),
        _ => "a 1\n".to_owned(),
    };
    let running = prometheus_with("tcp://127.0.0.1:0", render).await.unwrap();
    let request = "GET /metrics HTTP/1.0\r\n\r\n";
    assert_eq!(status(&running, request).await, "HTTP/1.1 500 Internal Server Error");
    assert_eq!(status(&running, request).await, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn a_long_text_arrives_whole_in_pieces() {
    let running = prometheus_with("tcp://127.0.0.1:0", || "a 1\n".repeat(1 << 20)).await.unwrap();
    let (_, body) = exchange(&running, b"GET /metrics HTTP/1.0\r\n\r\n").await;
    assert_eq!(body.len(), 4 << 20);
    // byte by byte
    let to = running.endpoints()[0].socket_addr().unwrap();
    let mut stream = TcpStream::connect(to).await.unwrap();
    for byte in b"GET /metrics HTTP/1.0\r\n\r\n" {
        stream.write_all(&[*byte]).await.unwrap();
    }
    let mut answer = Vec::new();
    within("the answer", stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.len() > 4 << 20);
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_or_says_it_slowly_is_cut() {
    let running = prometheus_with("mem:metrics-slow", || "a 1\n".to_owned()).await.unwrap();
    let _silent = support::open_raw(&running.endpoints()[0]).await;
    let mut slow = support::open_raw(&running.endpoints()[0]).await;
    slow.send("GET".into()).await.unwrap();
    until("both cut", || running.counters().closed == 2).await;
    let counters = running.counters();
    let cut = [CloseReason::FirstByteTimeout, CloseReason::MessageTimeout].map(|reason| counters.closed_by(reason));
    assert_eq!(cut, [1, 1]);
}

#[tokio::test]
async fn a_unix_socket_serves_as_well_and_a_second_exporter_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.sock");
    let unix = prometheus(format!("unix://{}", path.display()).as_str()).await.unwrap();
    let tcp = prometheus("tcp://127.0.0.1:0").await.unwrap();
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    for endpoint in [&unix.endpoints()[0], &tcp.endpoints()[0]] {
        let labels = [("endpoint", &*endpoint.to_string())];
        assert!(parse(body).value("hythe_connections_open", &labels).is_some(), "{endpoint}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_can_scrape_it() {
    let running = saying("# TYPE a counter\na 1\n").await;
    let url = running.endpoints()[0].to_string().replace("tcp://", "http://") + "/metrics";
    let curl = move |more: &'static [&'static str]| {
        let command =
            Command::new("curl").args(["-sS", "--max-time", "20", "-w", "%{http_code}"]).args(more).arg(&url).output();
        command.map(|output| String::from_utf8(output.stdout).unwrap())
    };
    let outputs = tokio::task::spawn_blocking(move || {
        Ok::<_, std::io::Error>([
            curl(&[])?,
            curl(&["-I", "-o", "/dev/null"])?,
            curl(&["--data", "a=b", "-o", "/dev/null"])?,
        ])
    });
    match outputs.await.unwrap() {
        Ok(outputs) => assert_eq!(outputs, ["# TYPE a counter\na 1\n200", "200", "405"]),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => eprintln!("there is no curl here"),
        Err(error) => panic!("{error}"),
    }
}
