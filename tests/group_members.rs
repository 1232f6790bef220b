//! Who is in a group, and what a message to it costs: one encoding for each codec, in one order for all.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use hythe::codec::{CodecError, Lines};
use hythe::{BytesMut, CloseReason, Closed, Connection, Endpoint, Group, Overflow, Running, Sender, Server};
use support::{Told, mem, open, start, tcp, within};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_util::codec::{Decoder, Encoder};

/// Joins twice, and does as it is told: "panic", "fail", "abort", "close", "leave".
async fn room(group: &Group<String>) -> (Running, Endpoint, UnboundedReceiver<Closed>, UnboundedReceiver<bool>) {
    let (to, joins) = unbounded_channel();
    let (told, ends) = Told::<String>::new();
    let (members, others) = (group.clone(), group.clone());
    let told = told
        .on_open(move |conn, ()| {
            let _ = to.send(members.join(conn));
            let _ = to.send(members.join(conn));
            Box::pin(async { Ok(()) })
        })
        .on_message(move |conn, line| {
            let group = others.clone();
            Box::pin(async move {
                match line.as_str() {
                    "panic" => panic!("a panic on purpose"),
                    "fail" => anyhow::bail!("on purpose"),
                    "abort" => conn.abort(),
                    "close" => conn.close().await?,
                    "leave" => {
                        assert!(group.leave(conn.id()));
                        assert!(!group.leave(conn.id()));
                        conn.send("left".into()).await?;
                    }
                    _ => conn.send(line).await?,
                }
                Ok(())
            })
        });
    let (running, endpoint) = start(Server::new(told), &mem(), Lines::new()).await;
    (running, endpoint, ends, joins)
}

async fn member(endpoint: &Endpoint, joins: &mut UnboundedReceiver<bool>) -> Connection<String> {
    let conn = open(endpoint, Lines::new()).await;
    assert_eq!(within("a join", joins.recv()).await, Some(true));
    assert_eq!(within("another join", joins.recv()).await, Some(false), "it is a member already");
    conn
}

async fn line(conn: &mut Connection<String>) -> Option<String> {
    within("a line", conn.recv()).await.expect("open")
}

#[tokio::test]
async fn a_member_that_joined_twice_is_one_and_gets_messages_once() {
    let group = Group::new(Overflow::DropNewest);
    let (_running, endpoint, _ends, mut joins) = room(&group).await;
    let mut conn = member(&endpoint, &mut joins).await;
    assert_eq!(group.len(), 1);
    for number in 0..3 {
        assert_eq!(group.send(format!("line {number}")).sent, 1);
    }
    for number in 0..3 {
        assert_eq!(line(&mut conn).await, Some(format!("line {number}")));
    }
}

#[tokio::test]
async fn who_left_gets_no_more_and_may_come_back() {
    let group = Group::new(Overflow::DropNewest);
    let (_running, endpoint, _ends, mut joins) = room(&group).await;
    let (mut conn, mut other) = (member(&endpoint, &mut joins).await, member(&endpoint, &mut joins).await);
    conn.send("leave".into()).await.expect("sent");
    assert_eq!(line(&mut conn).await.as_deref(), Some("left"));
    assert_eq!(group.send("for others".into()).sent, 1);
    conn.send("echo".into()).await.expect("sent");
    assert_eq!(line(&mut conn).await.as_deref(), Some("echo"));
    assert_eq!(line(&mut other).await.as_deref(), Some("for others"));
}

#[tokio::test]
async fn a_connection_leaves_by_itself_however_it_closes() {
    for way in ["panic", "fail", "abort", "close", "drop", "client aborts"] {
        let group = Group::new(Overflow::DropNewest);
        let (_running, endpoint, mut ends, mut joins) = room(&group).await;
        let mut conn = member(&endpoint, &mut joins).await;
        let mut other = member(&endpoint, &mut joins).await;
        assert_eq!(group.len(), 2);
        conn.send(way.to_string()).await.expect("sent");
        match way {
            "drop" => drop(conn),
            "client aborts" => {
                assert_eq!(line(&mut conn).await.as_deref(), Some(way));
                conn.abort();
            }
            _ => {
                assert!(!matches!(within("the end", conn.recv()).await, Ok(Some(_))), "{way}");
                drop(conn);
            }
        }
        within("on_close", ends.recv()).await.expect("a connection");
        assert_eq!(group.len(), 1, "{way}: it has left when on_close is called");
        assert_eq!(group.send("hello".into()).sent, 1, "{way}");
        assert_eq!(line(&mut other).await.as_deref(), Some("hello"), "{way}");
    }
}

/// The connections of a client are as good members as those of a server.
#[tokio::test]
async fn a_client_leaves_when_it_is_dropped_or_aborted() {
    let (told, _ends) = Told::<String>::new();
    let (_running, endpoint) = start(Server::new(told), &mem(), Lines::new()).await;
    let group = Group::new(Overflow::DropNewest);
    for abort in [false, true] {
        let mut conn: Connection<String> = open(&endpoint, Lines::new()).await;
        assert!(group.join(&conn));
        assert_eq!(group.send("hello".into()).sent, 1);
        if abort {
            conn.abort();
        }
        drop(conn);
        support::until("it has left", || group.is_empty()).await;
    }
}

#[tokio::test]
async fn a_closed_member_is_not_counted_even_before_it_has_left() {
    let group: Group<String> = Group::new(Overflow::DropNewest);
    let (to, mut senders) = unbounded_channel::<Sender<String>>();
    let (told, mut ends) = Told::new();
    let members = group.clone();
    let told = told.on_open(move |conn: &mut Connection<String>, ()| {
        members.join(conn);
        let _ = to.send(conn.sender());
        Box::pin(async { Ok(()) })
    });
    let (_running, endpoint) = start(Server::new(told), &mem(), Lines::new()).await;
    let _peer: Connection<String> = open(&endpoint, Lines::new()).await;
    let sender = within("the connection", senders.recv()).await.expect("a sender");
    // on this thread alone nothing else runs until the next await
    sender.abort();
    let delivered = group.send("hello".into());
    assert_eq!((delivered.sent, delivered.dropped, delivered.evicted), (0, 0, 0));
    let closed = within("on_close", ends.recv()).await.expect("a connection");
    assert_eq!((closed.reason, closed.messages_out), (CloseReason::Aborted, 0));
    assert!(group.is_empty());
}

/// Counts what it encodes, with all of its clones.
#[derive(Clone)]
struct Counting(Lines, Arc<AtomicUsize>);

impl Decoder for Counting {
    type Item = String;
    type Error = CodecError;
    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<String>, CodecError> {
        self.0.decode(src)
    }
    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<String>, CodecError> {
        self.0.decode_eof(src)
    }
}

impl Encoder<String> for Counting {
    type Error = CodecError;
    fn encode(&mut self, line: String, dst: &mut BytesMut) -> Result<(), CodecError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.encode(line, dst)
    }
}

#[tokio::test]
async fn a_message_is_encoded_once_for_each_codec() {
    let group: Group<String> = Group::new(Overflow::DropNewest);
    let members = group.clone();
    let (told, _ends) = Told::new();
    let told = told.on_open(move |conn: &mut Connection<String>, ()| {
        members.join(conn);
        Box::pin(async { Ok(()) })
    });
    let counts = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
    let codecs = [Lines::new(), Lines::new().crlf()].into_iter().zip(&counts);
    let mut server = Server::new(told);
    for (lines, count) in codecs {
        server = server.bind(mem().as_str(), Counting(lines, Arc::clone(count)));
    }
    let running = server.start().await.expect("the server starts");
    let mut peers: Vec<Connection<hythe::Bytes>> = Vec::new();
    for number in 0..20 {
        peers.push(support::open_raw(&running.endpoints()[number % 2]).await);
    }
    support::until("all are members", || group.len() == 20).await;
    for _ in 0..5 {
        assert_eq!(group.send("hello".into()).sent, 20);
    }
    assert_eq!(counts.each_ref().map(|count| count.load(Ordering::Relaxed)), [5, 5]);
    for (number, peer) in peers.iter_mut().enumerate() {
        let expected = [b"hello\n".repeat(5), b"hello\r\n".repeat(5)][number % 2].clone();
        let mut wire = Vec::new();
        while wire.len() < expected.len() {
            wire.extend_from_slice(&within("a line", peer.recv()).await.expect("open").expect("bytes"));
        }
        assert_eq!(wire, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_members_get_the_messages_in_the_same_order() {
    const SPEAKERS: usize = 4;
    const LINES: usize = 200;
    let group: Group<String> = Group::new(Overflow::DropNewest);
    let (to, mut joins) = unbounded_channel();
    let (told, _ends) = Told::<String>::new();
    let (members, all) = (group.clone(), group.clone());
    let told = told
        .on_open(move |conn, ()| {
            let _ = to.send(members.join(conn));
            Box::pin(async { Ok(()) })
        })
        .on_message(move |_, line| {
            all.send(line);
            Box::pin(async { Ok(()) })
        });
    let (_running, endpoint) = start(Server::new(told), &tcp(), Lines::new()).await;
    let talk = |speaker: usize| {
        let (endpoint, group) = (endpoint.clone(), group.clone());
        async move {
            let mut conn: Connection<String> = open(&endpoint, Lines::new()).await;
            let sender = conn.sender();
            support::until("all have joined", || group.len() == SPEAKERS).await;
            let talking = tokio::spawn(async move {
                for number in 0..LINES {
                    sender.send(format!("{speaker} {number}")).await.expect("sent");
                    tokio::task::yield_now().await;
                }
            });
            let mut heard = Vec::new();
            while heard.len() < SPEAKERS * LINES {
                heard.push(conn.recv().await.expect("open").expect("a line"));
            }
            talking.await.expect("no panic");
            heard
        }
    };
    let tasks: Vec<_> = (0..SPEAKERS).map(|speaker| tokio::spawn(talk(speaker))).collect();
    for _ in 0..SPEAKERS {
        assert_eq!(within("a join", joins.recv()).await, Some(true));
    }
    let heard = within("all lines", join_all(tasks)).await;
    let heard: Vec<_> = heard.into_iter().map(|heard| heard.expect("no panic")).collect();
    assert!(heard.windows(2).all(|pair| pair[0] == pair[1]), "the members heard different orders");
    for speaker in 0..SPEAKERS {
        let own: Vec<_> = heard[0].iter().filter(|line| line.starts_with(&format!("{speaker} "))).collect();
        assert!(own.iter().enumerate().all(|(number, line)| **line == format!("{speaker} {number}")));
    }
}

/// Each join costs the same, however often the connection has come and gone: what is kept of it would be searched, and
/// this would take minutes.
#[tokio::test]
async fn coming_and_going_leaves_nothing_behind() {
    let (told, _ends) = Told::<String>::new();
    let (_running, endpoint) = start(Server::new(told), &mem(), Lines::new()).await;
    let groups: [Group<String>; 2] = [Group::new(Overflow::DropNewest), Group::new(Overflow::DropNewest)];
    let conn: Connection<String> = open(&endpoint, Lines::new()).await;
    let churn = async {
        for round in 0..300_000 {
            let group = &groups[round % 2];
            assert!(group.join(&conn) && group.leave(conn.id()));
            if round % 1000 == 0 {
                tokio::task::yield_now().await;
            }
        }
    };
    within("many joins", churn).await;
}
