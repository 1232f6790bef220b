//! Out of descriptors: those who are connected notice nothing, the server does not spin, and it accepts again as soon as
//! descriptors come free.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hythe::codec::Lines as LinesCodec;
use hythe::{Limits, Server};
use server_support::{Echo, Process, addr, is_child, tell};

const CLIENTS: usize = 600;

/// The server process, with 256 descriptors.
#[test]
fn child() {
    if !is_child() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let limits = Limits::edge().with_max_connections(10_000).with_first_byte(Duration::from_secs(600));
        let running =
            Server::new(Echo).limits(limits).bind("tcp://127.0.0.1:0", LinesCodec::new()).start().await.unwrap();
        tell("addr", addr(&running, 0));
        while running.counters().accept_errors == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tell("full", running.counters().open);
        running.until_signal().await.unwrap();
    });
}

/// Processor time of a process, its own and the kernel's for it.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // fields 14 and 15 of proc(5), in hundredths of a second
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(server_support::PATIENCE)).unwrap();
    stream
}

/// Whether the server answers on this connection.
fn echoes(stream: &TcpStream) -> bool {
    let mut line = String::new();
    let said = (&*stream).write_all(b"hello\n");
    said.is_ok() && BufReader::new(stream).read_line(&mut line).is_ok() && line == "hello\n"
}

#[test]
fn no_descriptors_left() {
    if is_child() {
        return;
    }
    let server = Process::start("child", "ulimit -n 256; ");
    let to: SocketAddr = server.told("addr").parse().unwrap();
    let mut established: Vec<TcpStream> = (0..100).map(|_| connect(to)).collect();
    assert!(established.iter().all(echoes));

    let others: Vec<TcpStream> = (0..CLIENTS - established.len()).map(|_| connect(to)).collect();
    let full: usize = server.told("full").parse().unwrap();
    assert!((200..256).contains(&full), "{full} connections with 256 descriptors");

    assert!(established.iter().all(echoes), "an established connection was harmed");
    let (before, begin) = (cpu(server.child.id()), Instant::now());
    // not a wait for anything: the time over which the processor's is measured
    std::thread::sleep(Duration::from_secs(2));
    let (spent, over) = (cpu(server.child.id()) - before, begin.elapsed());
    assert!(spent * 20 < over, "the server spins: {spent:?} of {over:?}");
    assert!(established.iter().all(echoes), "an established connection was harmed");

    drop(others);
    let freed = Instant::now();
    loop {
        let late = connect(to);
        if echoes(&late) {
            break established.push(late);
        }
        assert!(freed.elapsed() < Duration::from_secs(1), "does not accept again");
    }
    assert!(freed.elapsed() < Duration::from_secs(1), "accepted again only after {:?}", freed.elapsed());
    assert!(established.iter().all(echoes), "an established connection was harmed");
}

/// Those who cannot be served are told so, rather than left in the backlog.
#[test]
fn who_cannot_be_served_is_not_left_waiting() {
    if is_child() {
        return;
    }
    let server = Process::start("child", "ulimit -n 64; ");
    let to: SocketAddr = server.told("addr").parse().unwrap();
    let clients: Vec<TcpStream> = (0..100).map(|_| connect(to)).collect();
    let (mut served, mut refused) = (0, 0);
    for client in &clients {
        *(if echoes(client) { &mut served } else { &mut refused }) += 1;
    }
    assert!((30..64).contains(&served), "{served} served and {refused} refused");
    assert_eq!(served + refused, 100);
    assert!(clients.iter().take(served).all(echoes));
}
