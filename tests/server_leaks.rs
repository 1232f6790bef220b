//! After a server is gone, so are its tasks and its descriptors. One test alone in its process, as it counts both.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix", feature = "testing"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use hythe::codec::Lines as LinesCodec;
use hythe::testing::LeakCheck;
use hythe::{Connection, Handler, Server};
use server_support::{Lines, addr, eventually, within};
use tokio::net::{UdpSocket, UnixStream};

/// `stuck` is never answered.
#[derive(Clone, Default)]
struct Echo {
    stuck: Arc<AtomicUsize>,
}

impl Handler for Echo {
    type In = String;
    type Out = String;

    async fn on_message(&mut self, conn: &mut Connection<String>, message: String) -> anyhow::Result<()> {
        if message == "stuck" {
            self.stuck.fetch_add(1, SeqCst);
            std::future::pending::<()>().await;
        }
        Ok(conn.send(message).await?)
    }
}

async fn serve_and_stop(round: usize) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let handler = Echo::default();
    let stuck = Arc::clone(&handler.stuck);
    let running = Server::new(handler)
        .bind("tcp://127.0.0.1:0", LinesCodec::new())
        .bind("udp://127.0.0.1:0", LinesCodec::new())
        .bind(format!("unix://{}", path.display()).as_str(), LinesCodec::new())
        .bind("mem:leaks", LinesCodec::new())
        .start()
        .await
        .unwrap();
    let (mut tcp, mut unix, mut udp, mut mem) = (Vec::new(), Vec::new(), Vec::new(), Vec::<Connection<String>>::new());
    for _ in 0..20 {
        tcp.push(Lines::tcp(addr(&running, 0)).await);
        assert_eq!(tcp.last_mut().unwrap().ask("hello").await.as_deref(), Some("hello"));
        unix.push(Lines::new(UnixStream::connect(&path).await.unwrap()));
        assert_eq!(unix.last_mut().unwrap().ask("hello").await.as_deref(), Some("hello"));
        udp.push(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        udp.last_mut().unwrap().send_to(b"hello\n", addr(&running, 1)).await.unwrap();
        within("an answer", udp.last_mut().unwrap().recv(&mut [0; 100])).await.unwrap();
        mem.push(hythe::connect("mem:leaks", LinesCodec::new()).await.unwrap());
    }
    // some have something under way
    for client in &mut tcp[..5] {
        client.say("stuck").await;
    }
    eventually("five at work", || stuck.load(SeqCst) == 5).await;
    match round % 3 {
        0 => drop(running),
        1 => running.abort(),
        _ => {
            let report = within("the drain", running.shutdown(Duration::from_millis(50))).await;
            assert_eq!(report.cut, 5);
        }
    }
    drop((tcp, unix, udp, mem));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_task_and_no_descriptor_is_left() {
    // what the runtime itself opens is open after this
    let check = LeakCheck::start();
    serve_and_stop(0).await;
    check.finish().await;
    for round in 0..12 {
        let check = LeakCheck::start().with_descriptors();
        serve_and_stop(round).await;
        check.finish().await;
    }
}
