//! What goes when an outbox is full is exactly what the `Overflow` says: the new message, the oldest ones that are not
//! on their way, or the peer. No message is ever torn.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]

mod support;

use hythe::codec::{LengthDelimited, Lines};
use hythe::{Bytes, CloseReason, Connection, Delivery, Group, Limits, Overflow, Running, Sender, Server};
use support::{Random, Told, mem, open, open_raw, start, unframe, within};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// What a transport in memory holds.
const TRANSPORT: usize = 64 << 10;
const OUTBOX: usize = 2_080;
/// A message, and one on the wire. The transport's last is cut: 65,536 is 630 messages and 16 bytes.
const MESSAGE: usize = 100;
const FRAME: usize = MESSAGE + 4;
/// Messages that there is room for, and of these, those that are on their way.
const ROOM: u32 = ((TRANSPORT + OUTBOX) / FRAME) as u32;
const LEFT: u32 = TRANSPORT.div_ceil(FRAME) as u32;
const ALL: u32 = 2_000;

fn message(number: u32) -> Bytes {
    let mut message = number.to_be_bytes().to_vec();
    message.resize(MESSAGE, number as u8);
    message.into()
}

struct Scene {
    _running: Running,
    peer: Connection<Bytes>,
    sender: Sender<Bytes>,
    group: Group<Bytes>,
    ends: UnboundedReceiver<hythe::Closed>,
}

/// A connection of a server whose peer does not read, alone in a group.
async fn scene(overflow: Overflow) -> Scene {
    let group = Group::new(overflow);
    let (to, mut senders) = unbounded_channel();
    let (told, ends) = Told::new();
    let members = group.clone();
    let told = told.on_open(move |conn: &mut Connection<Bytes>, ()| {
        members.join(conn);
        let _ = to.send(conn.sender());
        Box::pin(async { Ok(()) })
    });
    let limits = Limits::edge().with_outbox(OUTBOX);
    let (running, endpoint) = start(Server::new(told).limits(limits), &mem(), LengthDelimited::new()).await;
    let peer = open_raw(&endpoint).await;
    let sender = within("the connection", senders.recv()).await.expect("a sender");
    Scene { _running: running, peer, sender, group, ends }
}

/// What becomes of each message; `true` is by way of the group.
fn push_all(scene: &Scene, overflow: Overflow, by_group: bool) -> Vec<Delivery> {
    let push = |number| match by_group {
        false => scene.sender.push(message(number), overflow).expect("encoded"),
        true => {
            let told = scene.group.send(message(number));
            match (told.sent, told.dropped, told.evicted) {
                (1, 0, 0) => Delivery::Sent,
                (0, 1, 0) => Delivery::Dropped,
                (0, 0, 0 | 1) => Delivery::Closed,
                _ => panic!("{told:?} for one member"),
            }
        }
    };
    (0..ALL).map(push).collect()
}

/// Reads what is there by now and whatever follows, up to a last message that is sent for the purpose.
async fn read_numbers(scene: &mut Scene) -> Vec<u32> {
    let last = scene.sender.send(message(u32::MAX));
    let mut wire = Vec::new();
    let reading = async {
        loop {
            let (messages, rest) = unframe(&wire);
            let numbers = messages.iter().map(|bytes| {
                let number = u32::from_be_bytes(*bytes.first_chunk().expect("a number"));
                assert_eq!(*bytes, message(number), "torn");
                number
            });
            let numbers: Vec<_> = numbers.collect();
            if numbers.last() == Some(&u32::MAX) {
                assert!(rest.is_empty());
                return numbers;
            }
            wire.extend_from_slice(&scene.peer.recv().await.expect("open").expect("bytes"));
        }
    };
    let (sent, mut numbers) = within("the last message", futures::future::join(last, reading)).await;
    sent.expect("sent");
    numbers.pop();
    numbers
}

fn places(deliveries: &[Delivery], what: Delivery) -> Vec<u32> {
    (0..).zip(deliveries).filter(|(_, delivery)| **delivery == what).map(|(number, _)| number).collect()
}

fn list(numbers: impl IntoIterator<Item = u32>) -> Vec<u32> {
    numbers.into_iter().collect()
}

#[tokio::test]
async fn drop_newest_keeps_what_was_there_first() {
    for by_group in [false, true] {
        let mut scene = scene(Overflow::DropNewest).await;
        let deliveries = push_all(&scene, Overflow::DropNewest, by_group);
        assert_eq!(places(&deliveries, Delivery::Sent), list(0..ROOM), "by group: {by_group}");
        assert_eq!(places(&deliveries, Delivery::Dropped), list(ROOM..ALL));
        assert_eq!(read_numbers(&mut scene).await, list(0..ROOM));
    }
}

#[tokio::test]
async fn drop_oldest_keeps_the_newest_and_what_is_on_its_way() {
    for by_group in [false, true] {
        let mut scene = scene(Overflow::DropOldest).await;
        let deliveries = push_all(&scene, Overflow::DropOldest, by_group);
        assert_eq!(places(&deliveries, Delivery::Sent), list(0..ROOM), "by group: {by_group}");
        assert_eq!(places(&deliveries, Delivery::Dropped), list(ROOM..ALL));
        let kept = ROOM - LEFT;
        assert_eq!(read_numbers(&mut scene).await, list((0..LEFT).chain(ALL - kept..ALL)));
    }
}

#[tokio::test]
async fn disconnect_closes_the_slow_peer_and_no_other() {
    for by_group in [false, true] {
        let mut scene = scene(Overflow::Disconnect).await;
        let deliveries = push_all(&scene, Overflow::Disconnect, by_group);
        assert_eq!(places(&deliveries, Delivery::Sent), list(0..ROOM), "by group: {by_group}");
        assert_eq!(places(&deliveries, Delivery::Closed), list(ROOM..ALL));
        let closed = within("the end", scene.ends.recv()).await.expect("a connection");
        assert_eq!(closed.reason, CloseReason::SlowPeer);
        assert!(scene.sender.is_closed() && !scene.group.contains(scene.sender.id()));
    }
}

/// What an owner sent before with waiting, and a sender without, counts among the oldest like anything else.
#[tokio::test]
async fn drop_oldest_drops_what_others_sent_as_well() {
    let mut scene = scene(Overflow::DropOldest).await;
    let taken = (0..ALL).take_while(|number| scene.sender.try_send(message(*number)).is_ok()).count();
    assert_eq!(taken, ROOM as usize);
    for number in ROOM..ALL {
        assert_eq!(scene.group.send(message(number)).dropped, 1);
    }
    let kept = ROOM - LEFT;
    assert_eq!(read_numbers(&mut scene).await, list((0..LEFT).chain(ALL - kept..ALL)));
}

/// Whatever is sent in whatever way to a peer that reads now and then: what arrives is whole and in order, and the last
/// message is among it.
#[tokio::test]
async fn drop_oldest_never_tears_and_never_reorders() {
    for seed in 1..=30 {
        let mut random = Random::new(seed);
        let (to, mut senders) = unbounded_channel();
        let (told, _ends) = Told::new();
        let told = told.on_open(move |conn: &mut Connection<String>, ()| {
            let _ = to.send(conn.sender());
            Box::pin(async { Ok(()) })
        });
        let limits = Limits::edge().with_outbox(20_000);
        let (_running, endpoint) = start(Server::new(told).limits(limits), &mem(), Lines::new()).await;
        let mut peer: Connection<Bytes> = open_raw(&endpoint).await;
        let sender: Sender<String> = within("the connection", senders.recv()).await.expect("a sender");
        let mut wire = Vec::new();
        for number in 0..600u32 {
            let line = format!("{number:06}{}", "x".repeat(random.length()));
            match random.below(4) {
                0 => drop(sender.try_send(line)),
                _ => drop(sender.push(line, Overflow::DropOldest).expect("encoded")),
            }
            if random.below(40) == 0 {
                wire.extend_from_slice(&within("bytes", peer.recv()).await.expect("open").expect("bytes"));
            }
        }
        assert_eq!(
            sender.push("000600".into(), Overflow::DropOldest).ok().map(|told| told == Delivery::Closed),
            Some(false)
        );
        while !wire.ends_with(b"\n000600\n") {
            wire.extend_from_slice(&within("bytes", peer.recv()).await.expect("open").expect("bytes"));
        }
        let text = String::from_utf8(wire).expect("text");
        let mut before = None;
        for line in text.lines() {
            let (number, rest) = line.split_at_checked(6).unwrap_or_else(|| panic!("seed {seed}: torn: {line:?}"));
            let number = number.parse::<u32>().unwrap_or_else(|_| panic!("seed {seed}: torn: {line:?}"));
            assert!(rest.bytes().all(|byte| byte == b'x'), "seed {seed}: torn: {line:?}");
            assert!(before < Some(number), "seed {seed}: {number} after {before:?}");
            before = Some(number);
        }
    }
}

/// A message is judged by its own size, not by that of the largest one that was ever sent.
#[tokio::test]
async fn a_small_message_finds_room_after_a_large_one() {
    let (told, _ends) = Told::new();
    let (to, mut senders) = unbounded_channel();
    let told = told.on_open(move |conn: &mut Connection<Bytes>, ()| {
        let _ = to.send(conn.sender());
        Box::pin(async { Ok(()) })
    });
    let limits = Limits::edge().with_outbox(OUTBOX);
    let (_running, endpoint) = start(Server::new(told).limits(limits), &mem(), LengthDelimited::new()).await;
    let mut reader: Connection<Bytes> = open(&endpoint, LengthDelimited::new()).await;
    let sender: Sender<Bytes> = within("the connection", senders.recv()).await.expect("a sender");
    sender.send(vec![0; OUTBOX].into()).await.expect("sent");
    let large = within("the large one", reader.recv()).await.expect("open").expect("a message");
    assert_eq!(large.len(), OUTBOX);
    let sent = (0..ALL).take_while(|number| sender.try_send(message(*number)).is_ok()).count();
    assert_eq!(sent, ROOM as usize, "nobody reads, and there is as much room as before");
}

/// The outbox is full, but the peer is not slow: nobody has written to it yet.
#[tokio::test]
async fn a_burst_beyond_the_outbox_drops_nothing_for_a_peer_that_takes_it() {
    for overflow in [Overflow::DropNewest, Overflow::DropOldest, Overflow::Disconnect] {
        for way in ["group", "push", "try_send"] {
            let mut scene = scene(overflow).await;
            // 12 times the outbox, and less than the transport takes
            hythe::batch(|| {
                for number in 0..240 {
                    let taken = match way {
                        "group" => scene.group.send(message(number)).sent == 1,
                        "push" => scene.sender.push(message(number), overflow).expect("encoded") == Delivery::Sent,
                        _ => scene.sender.try_send(message(number)).is_ok(),
                    };
                    assert!(taken, "{overflow:?} by {way}: message {number}");
                }
            });
            assert_eq!(read_numbers(&mut scene).await, list(0..240), "{overflow:?} by {way}");
        }
    }
}
