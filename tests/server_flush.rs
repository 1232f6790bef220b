//! A session that waits for its outbox to be written sleeps until then, whatever the transport.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use hythe::codec::LengthDelimited;
use hythe::{BindOptions, Bytes, Connection, Server};
use server_support::{addr, eventually, within};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

#[tokio::test]
async fn flushing_to_a_peer_that_does_not_read_is_no_busy_loop() {
    let polls = Arc::new(AtomicUsize::new(0));
    let flushed = Arc::new(AtomicBool::new(false));
    let server = Server::serve({
        let (polls, flushed) = (Arc::clone(&polls), Arc::clone(&flushed));
        move |mut conn: Connection<Bytes>| {
            let (polls, flushed) = (Arc::clone(&polls), Arc::clone(&flushed));
            async move {
                // more than the socket takes, less than the outbox
                while conn.unsent_bytes() < 200_000 {
                    conn.send(vec![0; 10_000].into()).await?;
                }
                let mut flush = pin!(conn.flush());
                poll_fn(|cx| {
                    polls.fetch_add(1, SeqCst);
                    flush.as_mut().poll(cx)
                })
                .await?;
                flushed.store(true, SeqCst);
                Ok(())
            }
        }
    });
    let options = BindOptions::new().send_buffer(16 << 10);
    let running = server.bind_with("tcp://127.0.0.1:0", LengthDelimited::new(), options).start().await.unwrap();
    let mut client = TcpStream::connect(addr(&running, 0)).await.unwrap();
    eventually("a flush", || polls.load(SeqCst) > 0).await;
    // not a wait for anything: the time in which it should do nothing
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(polls.load(SeqCst) < 20, "{} polls of a session with nothing to do", polls.load(SeqCst));
    assert!(!flushed.load(SeqCst));

    let mut all = Vec::new();
    within("everything", client.read_to_end(&mut all)).await.unwrap();
    assert!(flushed.load(SeqCst));
}
