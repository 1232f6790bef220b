//! A real process, real signals: SIGTERM drains and the process ends well, a second one forces.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;

use std::time::{Duration, Instant};

use hythe::codec::Lines as LinesCodec;
use hythe::{Connection, Handler, Limits, Server};
use server_support::{Lines, Process, addr, is_child, tell};

/// A message is a number of milliseconds that its answer takes.
#[derive(Clone)]
struct Slow;

impl Handler for Slow {
    type In = String;
    type Out = String;

    async fn on_message(&mut self, conn: &mut Connection<String>, message: String) -> anyhow::Result<()> {
        tell("begun", &message);
        if message == "block" {
            loop {
                std::thread::park();
            }
        }
        tokio::time::sleep(Duration::from_millis(message.parse()?)).await;
        conn.send(format!("after {message}")).await?;
        Ok(())
    }
}

/// The server process; only what starts it runs it.
#[test]
fn child() {
    if !is_child() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // tokio waits for events only where a worker has nothing to do, and one that is blocked wakes no other
    let handle = runtime.handle().clone();
    std::thread::spawn(move || {
        loop {
            handle.spawn(async {});
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let report = runtime.block_on(async {
        let limits = Limits::edge().with_drain(Duration::from_secs(60));
        let running =
            Server::new(Slow).limits(limits).bind("tcp://127.0.0.1:0", LinesCodec::new()).start().await.unwrap();
        let to = addr(&running, 0);
        // the address is told when signals are listened to
        let (report, ()) = tokio::join!(biased; running.until_signal(), async { tell("addr", to) });
        report.unwrap()
    });
    tell("report", format!("{} finished, {} cut", report.finished, report.cut));
    std::process::exit(0);
}

async fn client(server: &Process, message: &str) -> Lines<tokio::net::TcpStream> {
    let mut client = Lines::tcp(server.told("addr").parse().unwrap()).await;
    client.say(message).await;
    assert_eq!(server.told("begun"), message);
    client
}

#[tokio::test]
async fn one_signal_drains_and_the_process_ends_with_success() {
    for signal in ["TERM", "INT"] {
        let mut server = Process::start("child", "");
        let mut client = client(&server, "800").await;
        server.signal(signal);
        assert_eq!(client.hear().await.as_deref(), Some("after 800"), "the reply under way was lost");
        assert_eq!(client.hear().await, None);
        drop(client);
        assert_eq!(server.told("report"), "1 finished, 0 cut");
        assert_eq!(server.exit().await, Some(0));
    }
}

#[tokio::test]
async fn a_second_signal_forces() {
    second_signal("3600000").await;
}

/// Nothing can end such a session, but the server can go without it.
#[tokio::test]
async fn a_second_signal_forces_also_where_a_handler_blocks_its_thread() {
    second_signal("block").await;
}

async fn second_signal(message: &str) {
    let mut server = Process::start("child", "");
    let mut client = client(&server, message).await;
    let begin = Instant::now();
    server.signal("TERM");
    // only when the first has been taken does another count as the second
    let to = client.stream.get_ref().peer_addr().unwrap();
    server_support::eventually("the end of listening", || std::net::TcpStream::connect(to).is_err()).await;
    assert!(server.child.try_wait().unwrap().is_none(), "one signal alone waits for the drain");
    server.signal("TERM");
    // one of the connects above may have been accepted before the end of listening, and finished
    let report = server.told("report");
    assert!(report.ends_with(" finished, 1 cut"), "{report}");
    assert_eq!(server.exit().await, Some(0));
    assert_eq!(client.hear().await, None);
    assert!(begin.elapsed() < Duration::from_secs(30), "the drain of 60 s was waited for");
}
