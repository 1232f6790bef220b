//! The memory of all buffers is bounded, whoever fills them, and small messages get through meanwhile.

#![cfg(feature = "tcp")]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hythe::codec::LengthDelimited;
use hythe::{Bytes, CloseReason, Closed, Connection, Handler, Limits, Running, Server};
use server_support::{addr, eventually, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MIB: usize = 1 << 20;

type Reasons = Arc<Mutex<Vec<CloseReason>>>;

/// Answers with as many bytes as it is asked for.
#[derive(Clone)]
struct Answers(Reasons);

impl Handler for Answers {
    type In = Bytes;
    type Out = Bytes;

    async fn on_message(&mut self, conn: &mut Connection<Bytes>, message: Bytes) -> anyhow::Result<()> {
        let size = std::str::from_utf8(&message)?.parse()?;
        Ok(conn.send(vec![0; size].into()).await?)
    }

    async fn on_close(self, closed: Closed) {
        self.0.lock().unwrap().push(closed.reason);
    }
}

async fn server(memory: usize) -> (Running, SocketAddr, Reasons) {
    let reasons = Reasons::default();
    let running = Server::new(Answers(Arc::clone(&reasons)))
        .limits(Limits::edge().with_memory(memory))
        .bind("tcp://127.0.0.1:0", LengthDelimited::new())
        .start()
        .await
        .unwrap();
    let to = addr(&running, 0);
    (running, to, reasons)
}

async fn ask(stream: &mut TcpStream, size: usize) {
    let text = size.to_string();
    stream.write_all(&(text.len() as u32).to_be_bytes()).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
}

async fn answer(stream: &mut TcpStream) -> usize {
    let size = within("an answer", stream.read_u32()).await.unwrap() as usize;
    let mut bytes = vec![0; size];
    within("the rest of it", stream.read_exact(&mut bytes)).await.unwrap();
    size
}

/// The most memory that was ever seen, until `done`.
fn watch(running: &Running, done: impl Fn() -> bool) -> usize {
    let (begin, mut most) = (Instant::now(), 0);
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(20), "most: {most}");
        most = most.max(running.counters().memory as usize);
        std::thread::sleep(Duration::from_millis(1));
    }
    most
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_of_messages_are_bounded_and_the_largest_holder_has_to_go() {
    let (running, to, reasons) = server(4 * MIB).await;
    let mut honest = TcpStream::connect(to).await.unwrap();
    let mut greedy = Vec::new();
    for _ in 0..16 {
        let mut stream = TcpStream::connect(to).await.unwrap();
        greedy.push(tokio::spawn(async move {
            // all but the last byte
            let _ = stream.write_all(&(MIB as u32).to_be_bytes()).await;
            let _ = stream.write_all(&vec![0; MIB - 1]).await;
            let mut end = [0; 1];
            let _ = stream.read(&mut end).await;
        }));
    }
    eventually("all of the memory in use", || running.counters().memory as usize >= 4 * MIB).await;
    for size in [1, 100, 1000] {
        ask(&mut honest, size).await;
        assert_eq!(answer(&mut honest).await, size, "a small message gets through");
    }
    let most = watch(&running, || reasons.lock().unwrap().contains(&CloseReason::Overloaded));
    // one read of each thread beyond, and the doubling of one buffer
    assert!(most <= 4 * MIB * 17 / 16 + 2 * MIB, "{most}");
    for task in greedy {
        task.abort();
    }
    drop(honest);
    eventually("every connection's end", || running.counters().open == 0).await;
    assert_eq!(running.counters().memory, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_takes_are_bounded() {
    let (running, to, reasons) = server(8 * MIB).await;
    let mut honest = TcpStream::connect(to).await.unwrap();
    let mut greedy = Vec::new();
    let mut most = 0;
    for _ in 0..64 {
        let mut stream = TcpStream::connect(to).await.unwrap();
        ask(&mut stream, MIB - 100).await;
        ask(&mut stream, MIB - 100).await;
        ask(&mut stream, MIB - 100).await;
        ask(&mut stream, MIB - 100).await;
        ask(&mut stream, MIB - 100).await;
        ask(&mut stream, MIB - 100).await;
        greedy.push(stream);
        most = most.max(running.counters().memory as usize);
    }
    let seen =
        watch(&running, || reasons.lock().unwrap().iter().filter(|r| **r == CloseReason::Overloaded).count() > 8);
    most = most.max(seen);
    assert!(most <= 8 * MIB * 17 / 16 + 4 * MIB, "{most}");
    ask(&mut honest, 1000).await;
    assert_eq!(answer(&mut honest).await, 1000);
    drop((greedy, honest));
    eventually("every connection's end", || running.counters().open == 0).await;
    assert_eq!(running.counters().memory, 0);
}

#[tokio::test]
async fn large_messages_pass_where_there_is_memory_and_leave_nothing() {
    let (running, to, _) = server(8 * MIB).await;
    let mut stream = TcpStream::connect(to).await.unwrap();
    for _ in 0..20 {
        ask(&mut stream, MIB - 100).await;
        assert_eq!(answer(&mut stream).await, MIB - 100);
    }
    assert_eq!(running.counters().memory, 0, "an idle connection holds nothing that counts");
}
