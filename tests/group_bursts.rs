//! A burst of messages costs a peer nothing that takes them: only who is slow is dropped, and who has been tried.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]

mod support;

use std::sync::mpsc;
use std::thread;

use hythe::codec::LengthDelimited;
use hythe::{Bytes, Connection, Delivery, Endpoint, Group, Limits, Overflow, Running, Server};
use support::{SECOND, mem, open, start, tcp, within};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const SIZE: usize = 16 << 10;
const COUNT: usize = 20;

/// A server whose sessions join `group`, and say so.
async fn hall(group: &Group<Bytes>, limits: Limits, endpoint: &str) -> (Running, Endpoint, UnboundedReceiver<()>) {
    let (joined, joins) = unbounded_channel();
    let group = group.clone();
    let server = Server::serve(move |mut conn: Connection<Bytes>| {
        let (group, joined) = (group.clone(), joined.clone());
        async move {
            group.join(&conn);
            let _ = joined.send(());
            while conn.recv().await?.is_some() {}
            Ok(())
        }
    });
    let (running, endpoint) = start(server.limits(limits), endpoint, LengthDelimited::new()).await;
    (running, endpoint, joins)
}

#[tokio::test]
async fn a_burst_in_one_batch_drops_nothing_of_a_member_that_takes_it() {
    // the kernel takes more than the outbox does, if it is asked
    for overflow in [Overflow::Disconnect, Overflow::DropNewest, Overflow::DropOldest] {
        let group = Group::new(overflow);
        let limits = Limits::edge().with_outbox(4 * SIZE);
        let (_running, endpoint, mut joins) = hall(&group, limits, &tcp()).await;
        let mut member = open::<_, Bytes>(&endpoint, LengthDelimited::new()).await;
        within("a member", joins.recv()).await.expect("a session");
        let burst = Bytes::from(vec![0; SIZE]);
        hythe::batch(|| {
            for _ in 0..COUNT {
                let delivered = group.send(burst.clone());
                assert_eq!(delivered.sent, 1, "{overflow:?}: {delivered:?}");
            }
        });
        for _ in 0..COUNT {
            assert!(within("a message", member.recv()).await.is_ok_and(|message| message.is_some()));
        }
    }
}

#[tokio::test]
async fn a_burst_of_one_sender_drops_nothing_of_a_peer_that_takes_it() {
    for overflow in [Overflow::Disconnect, Overflow::DropNewest, Overflow::DropOldest] {
        let (give, mut senders) = unbounded_channel();
        let server = Server::serve(move |mut conn: Connection<Bytes>| {
            let _ = give.send(conn.sender());
            async move {
                conn.recv().await?;
                Ok(())
            }
        });
        let limits = Limits::edge().with_outbox(SIZE + SIZE / 2);
        let (_running, endpoint) = start(server.limits(limits), &tcp(), LengthDelimited::new()).await;
        let mut peer = open::<_, Bytes>(&endpoint, LengthDelimited::new()).await;
        let sender = within("a sender", senders.recv()).await.expect("a session");
        hythe::batch(|| {
            for _ in 0..COUNT {
                let delivery = sender.push(Bytes::from(vec![0; SIZE]), overflow).expect("encoded");
                assert_eq!(delivery, Delivery::Sent, "{overflow:?}");
            }
        });
        for _ in 0..COUNT {
            assert!(within("a message", peer.recv()).await.is_ok_and(|message| message.is_some()));
        }
    }
}

#[tokio::test]
async fn a_sender_that_waits_for_room_has_what_a_client_fed_written() {
    let server = Server::serve(|mut conn: Connection<Bytes>| async move {
        while let Some(message) = conn.recv().await? {
            conn.send(message).await?;
        }
        Ok(())
    });
    let (_running, endpoint) = start(server, &mem(), LengthDelimited::new()).await;
    let limits = Limits::edge().with_outbox(SIZE);
    let mut client = support::open_with::<_, Bytes>(&endpoint, LengthDelimited::new(), limits).await;
    client.feed(Bytes::from(vec![0; SIZE / 2])).await.expect("fed");
    let sender = client.sender();
    let message = Bytes::from(vec![1; SIZE / 2]);
    within("room", sender.send(message)).await.expect("sent");
}

#[tokio::test]
async fn who_is_to_get_a_message_may_be_decided_by_asking_the_group() {
    let group = Group::new(Overflow::Disconnect);
    let (_running, endpoint, mut joins) = hall(&group, Limits::edge(), &mem()).await;
    let mut member = open::<_, Bytes>(&endpoint, LengthDelimited::new()).await;
    within("a member", joins.recv()).await.expect("a session");
    let (done, waits) = mpsc::channel();
    let asked = group.clone();
    thread::spawn(move || {
        let delivered = asked.send_where(Bytes::from_static(b"hello"), |id| asked.contains(id) && asked.len() == 1);
        let _ = done.send(delivered.sent);
    });
    assert_eq!(waits.recv_timeout(10 * SECOND), Ok(1));
    assert_eq!(within("hello", member.recv()).await.expect("no error").as_deref(), Some(&b"hello"[..]));
}
