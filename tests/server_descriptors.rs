//! A server makes room for its descriptors before anybody comes: to make it later would stop a thread of the runtime.

#![cfg(all(target_os = "linux", feature = "tcp", feature = "udp", feature = "unix"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;

use hythe::codec::Lines;
use hythe::{Limits, Server};
use server_support::{Echo, eventually};

/// The size of this process's table of descriptors, as the kernel tells it.
fn table() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn a_server_has_room_for_its_descriptors_before_it_accepts() {
    let open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if open_files.is_some_and(|limit| limit < 1000) {
        return;
    }
    assert!(table() < 300, "the test is of no use");
    let limits = Limits::edge().with_max_connections(300);
    let running =
        Server::new(Echo).limits(limits.clone()).bind("tcp://127.0.0.1:0", Lines::new()).start().await.unwrap();
    assert!(table() >= 300, "{} descriptors", table());

    running.set_limits(limits.with_max_connections(900)).unwrap();
    eventually("room for more", || table() >= 900).await;

    // more than there can be
    let limits = Limits::edge().with_max_connections(usize::MAX / 2);
    let _running = Server::new(Echo).limits(limits).bind("tcp://127.0.0.1:0", Lines::new()).start().await.unwrap();
}
