//! A connection whose session has ended is over, whoever still holds a part of it.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]

mod support;

use std::sync::{Arc, Mutex};

use hythe::codec::Lines;
use hythe::{Connection, Group, Limits, Overflow, Sender, Server};
use support::{mem, open, start, tcp, until, within};
use tokio::sync::mpsc::unbounded_channel;

#[tokio::test]
async fn a_connection_that_outlives_its_session_receives_nothing_and_leaves_no_slot_behind() {
    let (give, mut given) = unbounded_channel::<(Connection<String>, Sender<String>)>();
    let server = Server::serve(move |conn: Connection<String>| {
        let sender = conn.sender();
        let _ = give.send((conn, sender));
        async { Ok(()) }
    });
    let limits = Limits::edge().with_max_connections(1);
    let (running, endpoint) = start(server.limits(limits), &tcp(), Lines::new()).await;
    let mut first = open(&endpoint, Lines::new()).await;
    let (mut conn, _sender) = within("a session", given.recv()).await.expect("a connection");
    until("it is over", || running.counters().closed == 1).await;
    first.send("too late".into()).await.ok();
    assert!(within("no message", conn.recv()).await.is_ok_and(|message| message.is_none()));
    drop(conn);
    // the sender lives on, and holds nothing that counts
    let _second = open(&endpoint, Lines::new()).await;
    until("there is room for another", || running.counters().accepted == 2).await;
}

#[tokio::test]
async fn a_session_that_panics_before_it_runs_leaves_its_groups_and_its_slot() {
    let group = Group::<String>::new(Overflow::Disconnect);
    let (panics, kept) = (Mutex::new(true), Arc::new(Mutex::new(None)));
    let (room, keep) = (group.clone(), Arc::clone(&kept));
    let server = Server::serve(move |conn: Connection<String>| {
        room.join(&conn);
        if std::mem::take(&mut *panics.lock().expect("no panic")) {
            *keep.lock().expect("no panic") = Some(conn.sender());
            panic!("a panic on purpose, before the session runs");
        }
        async move {
            let mut conn = conn;
            conn.send("hello".into()).await?;
            Ok(())
        }
    });
    let limits = Limits::edge().with_max_connections(1);
    let (_running, endpoint) = start(server.limits(limits), &mem(), Lines::new()).await;
    let mut first = open::<_, String>(&endpoint, Lines::new()).await;
    let end = within("the end", first.recv()).await;
    assert!(!matches!(end, Ok(Some(_))));
    until("it has left", || group.is_empty()).await;
    let sender = kept.lock().expect("no panic").take().expect("a sender");
    assert!(sender.is_closed());
    let mut second = open(&endpoint, Lines::new()).await;
    assert_eq!(within("hello", second.recv()).await.expect("no error"), Some("hello".to_string()));
}
