//! What a session sends on its own connection keeps its place before whatever is sent after it, and is never sent to
//! anybody else.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]

mod support;

use std::panic::panic_any;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use hythe::codec::Lines;
use hythe::{CloseReason, Connection, Group, Overflow, Server};
use support::{SECOND, Told, mem, open, start, within};
use tokio::sync::mpsc::unbounded_channel;

/// Runs `f` in a thread, and waits for it as one must not in a session: so the session's task cannot get ahead.
fn meanwhile<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    thread::spawn(f).join().expect("no panic")
}

/// A wait of the session: nothing is in its outbox afterwards.
async fn answered(conn: &mut Connection<String>) -> anyhow::Result<()> {
    conn.send("ready".into()).await?;
    conn.recv().await?;
    Ok(())
}

async fn lines(conn: &mut Connection<String>, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        match within("a line", conn.recv()).await {
            Ok(Some(line)) => all.push(line),
            _ => break,
        }
    }
    all
}

#[tokio::test]
async fn what_another_thread_sends_afterwards_comes_afterwards() {
    let server = Server::serve(|mut conn: Connection<String>| async move {
        answered(&mut conn).await?;
        let sender = conn.sender();
        conn.send("first".into()).await?;
        meanwhile(move || sender.try_send("second".into())).expect("room");
        conn.send("third".into()).await?;
        Ok(())
    });
    let (_running, endpoint) = start(server, &mem(), Lines::new()).await;
    let mut peer = open(&endpoint, Lines::new()).await;
    assert_eq!(lines(&mut peer, 1).await, ["ready"]);
    peer.send("go".into()).await.expect("sent");
    assert_eq!(lines(&mut peer, 3).await, ["first", "second", "third"]);
}

#[tokio::test]
async fn a_sender_that_is_made_afterwards_sends_afterwards() {
    let server = Server::serve(|mut conn: Connection<String>| async move {
        answered(&mut conn).await?;
        conn.send("first".into()).await?;
        let sender = conn.sender();
        meanwhile(move || sender.try_send("second".into())).expect("room");
        conn.send("third".into()).await?;
        Ok(())
    });
    let (_running, endpoint) = start(server, &mem(), Lines::new()).await;
    let mut peer = open(&endpoint, Lines::new()).await;
    assert_eq!(lines(&mut peer, 1).await, ["ready"]);
    peer.send("go".into()).await.expect("sent");
    assert_eq!(lines(&mut peer, 3).await, ["first", "second", "third"]);
}

#[tokio::test]
async fn a_group_greets_after_the_session_that_joined_it_has() {
    for overflow in [Overflow::DropNewest, Overflow::DropOldest] {
        let group = Group::<String>::new(overflow);
        let server = Server::serve(move |mut conn: Connection<String>| {
            let group = group.clone();
            async move {
                answered(&mut conn).await?;
                conn.send("first".into()).await?;
                group.join(&conn);
                let everybody = group.clone();
                let delivered = meanwhile(move || everybody.send("second".into()));
                assert_eq!(delivered.sent, 1);
                conn.send("third".into()).await?;
                conn.recv().await?;
                Ok(())
            }
        });
        let (_running, endpoint) = start(server, &mem(), Lines::new()).await;
        let mut peer = open(&endpoint, Lines::new()).await;
        assert_eq!(lines(&mut peer, 1).await, ["ready"]);
        peer.send("go".into()).await.expect("sent");
        assert_eq!(lines(&mut peer, 3).await, ["first", "second", "third"]);
    }
}

/// Panics when it is dropped. As a panic's payload it does so in the hands of whoever caught that.
struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        panic!("a panic on purpose, in the drop of a panic's payload");
    }
}

#[tokio::test]
async fn a_panic_that_panics_once_more_is_this_connections_and_its_messages_are_too() {
    let server = Server::serve(|mut conn: Connection<String>| async move {
        conn.send("a secret".into()).await?;
        if conn.recv().await?.as_deref() == Some("panic") {
            conn.send("another secret".into()).await?;
            panic_any(Grenade);
        }
        conn.send("hello".into()).await?;
        Ok(())
    });
    let (running, endpoint) = start(server, &mem(), Lines::new()).await;
    let mut innocent = open(&endpoint, Lines::new()).await;
    let mut guilty = open(&endpoint, Lines::new()).await;
    assert_eq!(lines(&mut guilty, 1).await, ["a secret"]);
    guilty.send("panic".into()).await.expect("sent");
    support::until("one is over", || running.counters().closed == 1 || running.counters().open == 1).await;
    innocent.send("hello".into()).await.expect("sent");
    assert_eq!(lines(&mut innocent, 3).await, ["a secret", "hello"]);
    assert_eq!(lines(&mut guilty, 3).await, ["another secret"]);
    drop((innocent, guilty));
    support::until("both are counted", || running.counters().closed == 2).await;
}

#[tokio::test]
async fn what_a_session_sent_before_such_a_panic_goes_to_nobody_else_though_its_connection_lives_on() {
    let shared = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&shared);
    let server = Server::serve(move |mut conn: Connection<String>| {
        let keep = Arc::clone(&keep);
        async move {
            conn.send("welcome".into()).await?;
            if conn.recv().await?.as_deref() == Some("panic") {
                let mut keep = keep.lock().expect("no panic before");
                keep.insert(conn).try_send("a secret".into()).expect("room");
                drop(keep);
                panic_any(Grenade);
            }
            conn.send("hello".into()).await?;
            Ok(())
        }
    });
    let (_running, endpoint) = start(server, &mem(), Lines::new()).await;
    let mut innocent = open(&endpoint, Lines::new()).await;
    let mut guilty = open(&endpoint, Lines::new()).await;
    assert_eq!(lines(&mut guilty, 1).await, ["welcome"]);
    guilty.send("panic".into()).await.expect("sent");
    support::until("it has panicked", || shared.lock().is_ok_and(|conn| conn.is_some())).await;
    innocent.send("hello".into()).await.expect("sent");
    assert_eq!(lines(&mut innocent, 2).await, ["welcome", "hello"]);
    assert_eq!(lines(&mut guilty, 2).await, ["a secret"]);
}

#[tokio::test]
async fn on_close_is_called_after_a_panic_that_panics_once_more() {
    let (told, mut ends) = Told::<String>::new();
    let told = told.on_message(|_, _| Box::pin(async { panic_any(Grenade) }));
    let (_running, endpoint) = start(Server::new(told), &mem(), Lines::new()).await;
    let mut peer = open(&endpoint, Lines::new()).await;
    peer.send("panic".into()).await.expect("sent");
    assert_eq!(within("on_close", ends.recv()).await.map(|closed| closed.reason), Some(CloseReason::Panic));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_inside_a_session_writes_what_its_own_sessions_send() {
    let hall = Group::<String>::new(Overflow::DropNewest);
    let server = Server::serve(move |mut conn: Connection<String>| {
        let hall = hall.clone();
        async move {
            conn.send("before".into()).await?;
            let heard = tokio::task::block_in_place(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async {
                    let server = Server::serve(move |mut conn: Connection<String>| {
                        let hall = hall.clone();
                        async move {
                            hall.join(&conn);
                            conn.send("joined".into()).await?;
                            while let Some(line) = conn.recv().await? {
                                hall.send_except(conn.id(), line);
                            }
                            Ok(())
                        }
                    });
                    let (_running, endpoint) = start(server, &mem(), Lines::new()).await;
                    let mut one = open(&endpoint, Lines::new()).await;
                    let mut other = open(&endpoint, Lines::new()).await;
                    assert_eq!(lines(&mut one, 1).await, ["joined"]);
                    assert_eq!(lines(&mut other, 1).await, ["joined"]);
                    one.send("hello".into()).await?;
                    one.flush().await?;
                    let heard = tokio::time::timeout(5 * SECOND, lines(&mut other, 1)).await;
                    anyhow::Ok(heard.unwrap_or_default())
                })
            })?;
            conn.send(format!("heard {heard:?}")).await?;
            Ok(())
        }
    });
    let (_running, endpoint) = start(server, &mem(), Lines::new()).await;
    let mut peer = open(&endpoint, Lines::new()).await;
    assert_eq!(lines(&mut peer, 2).await, ["before", "heard [\"hello\"]"]);
}

#[tokio::test]
async fn a_message_does_not_wait_for_another_thread_that_sends_to_the_same_connection() {
    let (give, mut senders) = unbounded_channel();
    let server = Server::serve(move |mut conn: Connection<String>| {
        let _ = give.send(conn.sender());
        async move {
            conn.recv().await?;
            Ok(())
        }
    });
    let (_running, endpoint) = start(server, &mem(), Lines::new()).await;
    let mut peer = open(&endpoint, Lines::new()).await;
    let sender = within("a sender", senders.recv()).await.expect("a session");
    let slow = sender.clone();
    let (told, tells) = mpsc::channel();
    let (heard, hears) = mpsc::channel::<()>();
    let batch = thread::spawn(move || {
        hythe::batch(|| {
            slow.try_send("from a batch".into()).expect("room");
            let _ = told.send(());
            // which lasts until the other one has been heard
            hears.recv_timeout(5 * SECOND).is_ok()
        })
    });
    tells.recv().expect("the batch runs");
    meanwhile(move || sender.try_send("from elsewhere".into())).expect("room");
    assert_eq!(lines(&mut peer, 2).await, ["from a batch", "from elsewhere"]);
    let _ = heard.send(());
    assert!(batch.join().expect("no panic"), "the other one was heard when the batch was over");
}
