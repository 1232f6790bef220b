//! What an idle connection has on the heap: tokio's share of it, ours, and nothing that was there for a message only.

#![cfg(feature = "tcp")]
#![allow(clippy::unwrap_used)]

mod server_support;

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use hythe::codec::LengthDelimited;
use hythe::{Bytes, Connection, Handler, Limits, Running, Server};
use server_support::eventually;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// tokio's three for a TCP socket and a task, and the read half, the outbox and the core: the table in
/// src/connection/mod.rs. Without optimization there are 8 bytes more.
const BLOCKS: usize = 6;
const BYTES: usize = if cfg!(any(feature = "tls", feature = "metrics")) { 1384 } else { 1344 };

#[derive(Clone)]
struct Echo;

impl Handler for Echo {
    type In = Bytes;
    type Out = Bytes;

    async fn on_message(&mut self, conn: &mut Connection<Bytes>, message: Bytes) -> anyhow::Result<()> {
        conn.send(message).await?;
        Ok(())
    }
}

/// Blocks and bytes on the heap.
fn held() -> (usize, usize) {
    let now = HEAP.stats();
    let bytes = now.bytes_allocated.wrapping_add_signed(now.bytes_reallocated) - now.bytes_deallocated;
    (now.allocations - now.deallocations, bytes)
}

/// Clients that connect and say nothing.
async fn connect(running: &Running, addr: SocketAddr, clients: &mut Vec<TcpStream>, count: usize) {
    for _ in 0..count {
        clients.push(TcpStream::connect(addr).unwrap());
    }
    let open = clients.len() as u64;
    eventually("all are open", || running.counters().open == open).await;
    settle().await;
}

/// Lets every task that has something to do do it.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[tokio::test]
async fn an_idle_connection_holds_six_blocks_and_nothing_more_after_a_message() {
    const KNOWN: usize = 64;
    const MEASURED: usize = 32;
    let limits = Limits::edge().with_max_connections(1000);
    let server = Server::new(Echo).limits(limits).bind("tcp://127.0.0.1:0", LengthDelimited::new());
    let running = server.start().await.unwrap();
    let addr = running.endpoints()[0].socket_addr().unwrap();
    let mut clients = Vec::with_capacity(KNOWN + MEASURED);
    // so that the server's tables and the thread's buffers are there
    connect(&running, addr, &mut clients, KNOWN).await;
    echo(&mut clients).await;
    settle().await;

    let before = held();
    connect(&running, addr, &mut clients, MEASURED).await;
    let silent = held();
    let (blocks, bytes) = ((silent.0 - before.0) / MEASURED, (silent.1 - before.1) / MEASURED);
    assert!(blocks <= BLOCKS, "{blocks} blocks for a connection");
    assert!(bytes <= BYTES, "{bytes} bytes for a connection");

    echo(&mut clients).await;
    settle().await;
    let spoken = held();
    assert!(spoken.0 <= silent.0 && spoken.1 <= silent.1, "after a message: {spoken:?}, and {silent:?} before");
}

/// Each client sends a message and gets it back, one after the other: what the runtime keeps for many at once is not ours.
async fn echo(clients: &mut [TcpStream]) {
    let message = [&64u32.to_be_bytes()[..], &[7; 64]].concat();
    for client in clients {
        client.write_all(&message).unwrap();
        client.set_nonblocking(true).unwrap();
        let (mut answer, mut got) = ([0; 68], 0);
        eventually("an answer", || {
            got += client.read(&mut answer[got..]).unwrap_or(0);
            got == answer.len()
        })
        .await;
        client.set_nonblocking(false).unwrap();
        assert_eq!(answer[..], message[..]);
    }
}
