//! What a server under test leaves behind fails the test, with what it is.

#![cfg(feature = "testing")]

mod testing_support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hythe::codec::{LengthDelimited, Lines};
use hythe::testing::{Harness, LeakCheck, settle};
use hythe::{Bytes, CloseReason, Connection, Handler, Limits, Sender, Server};
use testing_support::{failure, shout};
use tokio::time::Instant;

#[tokio::test]
async fn nothing_is_left_of_a_server_whatever_its_peers_do() {
    let test = Harness::start(shout(), Lines::new()).await;
    let mut peers = Vec::new();
    for kind in 0..6 {
        let mut peer = test.peer().await;
        peer.send("hello").await;
        match kind {
            0 => drop(peer.recv().await),
            1 => peer.half_close(),
            2 => peer.reset(),
            3 => peer.stall(),
            4 => peer.send_bytes("half a message").await,
            _ => continue,
        }
        peers.push(peer);
    }
    assert_eq!(test.finish().await.len(), 6);
}

#[tokio::test]
async fn a_task_that_a_handler_leaves_is_found() {
    let server = Server::serve(|mut conn: Connection<String>| async move {
        while conn.recv().await?.is_some() {
            tokio::spawn(std::future::pending::<()>());
        }
        Ok(())
    });
    let test = Harness::start(server, Lines::new()).await;
    let mut peer = test.peer().await;
    peer.send("one").await;
    peer.send("two").await;
    settle().await;
    let text = failure(test.finish()).await;
    assert!(text.starts_with("tests/testing_leaks.rs:"), "{text}");
    assert!(text.ends_with("left of the server under test: 2 tasks run that were not there at the start"), "{text}");
}

#[tokio::test]
async fn a_task_that_ends_soon_is_none() {
    let server = Server::serve(|mut conn: Connection<String>| async move {
        while conn.recv().await?.is_some() {
            tokio::spawn(tokio::time::sleep(Duration::from_secs(5)));
        }
        Ok(())
    });
    let test = Harness::start(server, Lines::new()).await;
    let mut peer = test.peer().await;
    peer.send("one").await;
    settle().await;
    test.finish().await;
}

#[tokio::test]
async fn a_handler_that_does_not_return_is_found() {
    let server = Server::serve(|mut conn: Connection<String>| async move {
        conn.recv().await?;
        std::future::pending().await
    });
    let test = Harness::start(server, Lines::new()).await;
    let mut peer = test.peer().await;
    peer.send("one").await;
    settle().await;
    let text = failure(test.finish()).await;
    assert!(text.contains(&format!("connection {} did not end within the drain of 30s", peer.id().expect("an id"))));
    assert_eq!(peer.closed().await.reason, CloseReason::Shutdown);
}

/// The drain tells it, and it stays.
#[derive(Clone)]
struct Stays;

impl Handler for Stays {
    type In = String;
    type Out = String;

    async fn on_message(&mut self, _: &mut Connection<String>, _: String) -> anyhow::Result<()> {
        Ok(())
    }

    async fn on_drain(&mut self, _: &mut Connection<String>, _: Instant) -> anyhow::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_handler_that_does_not_go_when_the_server_drains_is_found() {
    let test = Harness::start(Server::new(Stays).limits(Limits::internal()), Lines::new()).await;
    let _peer = test.peer().await;
    let text = failure(test.finish()).await;
    assert!(text.ends_with("did not end within the drain of 30s"), "{text}");
}

#[tokio::test]
async fn a_connection_that_is_kept_for_ever_holds_its_slot_and_is_found() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&kept);
    let server = Server::serve(move |conn: Connection<String>| {
        keep.lock().expect("no panic").push(conn);
        std::future::ready(Ok(()))
    });
    let test = Harness::start(server, Lines::new()).await;
    let _peer = test.peer().await;
    settle().await;
    assert_eq!(kept.lock().expect("no panic").len(), 1);
    let text = failure(test.finish()).await;
    assert!(text.ends_with("left of the server under test: 1 slots of connections"), "{text}");
}

#[tokio::test]
async fn a_sender_that_is_kept_holds_nothing() {
    let kept = Arc::new(Mutex::new(Vec::<Sender<Bytes>>::new()));
    let keep = Arc::clone(&kept);
    let server = Server::serve(move |mut conn: Connection<Bytes>| {
        let keep = Arc::clone(&keep);
        async move {
            let sender = conn.sender();
            // more than the peer takes
            for _ in 0..20 {
                let _ = sender.try_send(vec![7; 10_000].into());
            }
            keep.lock().expect("no panic").push(sender);
            while conn.recv().await?.is_some() {}
            Ok(())
        }
    });
    let test = Harness::start(server, LengthDelimited::new()).await;
    let mut peer = test.peer().await;
    peer.stall();
    peer.half_close();
    assert!(peer.closed().await.unsent_bytes > 100_000);
    assert_eq!(kept.lock().expect("no panic").len(), 1);
    test.finish().await;
}

/// In any runtime, and under a clock that is not paused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leak_check_of_its_own_waits_for_tasks_that_end() {
    let check = LeakCheck::start();
    let mut tasks = Vec::new();
    for millis in 1..20 {
        tasks.push(tokio::spawn(tokio::time::sleep(Duration::from_millis(millis))));
    }
    check.finish().await;
    assert!(tasks.iter().all(tokio::task::JoinHandle::is_finished));
}

#[tokio::test(start_paused = true)]
async fn a_leak_check_of_its_own_finds_a_task_that_does_not_end() {
    let before = tokio::spawn(std::future::pending::<()>());
    let check = LeakCheck::start();
    let task = tokio::spawn(std::future::pending::<()>());
    let text = failure(check.finish()).await;
    assert!(text.ends_with("1 tasks run that were not there at the start"), "{text}");
    task.abort();
    before.abort();
}
