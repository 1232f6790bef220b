//! There is one thread that watches, for all servers, while there are any. Alone in its process, as it counts threads.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // Tests may.

mod support;

use hythe::codec::Lines;
use hythe::{Running, Server};
use support::{Told, mem, start, until};

fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "hythe-watch").count()
}

async fn server() -> Running {
    let (told, _ends) = Told::<String>::new();
    start(Server::new(told.echo()), &mem(), Lines::new()).await.0
}

#[tokio::test]
async fn one_thread_watches_while_there_are_servers() {
    assert_eq!(threads(), 0);
    for _ in 0..3 {
        let first = server().await;
        until("a thread", || threads() == 1).await;
        let second = server().await;
        drop(first);
        until("the first to be gone", || threads() == 1).await;
        drop(second);
        until("no thread", || threads() == 0).await;
    }
}
