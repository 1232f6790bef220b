//! Whatever is sent to whom within one batch, each member gets its messages whole and in the order of the sends.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hythe::codec::Lines;
use hythe::{Connection, Group, Limits, Overflow, Sender, Server};
use support::{Random, open, tcp, within};
use tokio::sync::mpsc::unbounded_channel;

const MEMBERS: usize = 6;
const BATCHES: usize = 60;
const SENDS: usize = 40;

/// Sends at random, to all, to some, to one, and gives what each member is to hear.
fn batches(all: &Group<String>, some: &Group<String>, members: &[Sender<String>]) -> Vec<Vec<String>> {
    let mut random = Random::new(7);
    let mut expected = vec![Vec::new(); MEMBERS];
    for batch in 0..BATCHES {
        hythe::batch(|| {
            for number in 0..SENDS {
                let length = if random.below(20) == 0 { 3000 } else { random.below(100) };
                let line = format!("{batch} {number} {}", "x".repeat(length));
                let to: Vec<usize> = match random.below(5) {
                    0 => {
                        let member = random.below(MEMBERS);
                        members[member].try_send(line.clone()).expect("room");
                        vec![member]
                    }
                    1 => {
                        assert_eq!(some.send(line.clone()).sent, MEMBERS / 2);
                        (0..MEMBERS).step_by(2).collect()
                    }
                    _ => {
                        assert_eq!(all.send(line.clone()).sent, MEMBERS);
                        (0..MEMBERS).collect()
                    }
                };
                for member in to {
                    expected[member].push(line.clone());
                }
            }
        });
    }
    expected
}

#[tokio::test]
async fn groups_and_single_members_in_one_batch_keep_the_order_of_the_sends() {
    for overflow in [Overflow::Disconnect, Overflow::DropOldest] {
        let (all, some): (Group<String>, Group<String>) = (Group::new(overflow), Group::new(Overflow::Disconnect));
        let (give, mut senders) = unbounded_channel::<Sender<String>>();
        let (groups, count) = ((all.clone(), some.clone()), Arc::new(AtomicUsize::new(0)));
        let server = Server::serve(move |mut conn: Connection<String>| {
            let ((all, some), give) = (groups.clone(), give.clone());
            all.join(&conn);
            if count.fetch_add(1, Ordering::Relaxed) % 2 == 0 {
                some.join(&conn);
            }
            async move {
                let _ = give.send(conn.sender());
                while conn.recv().await?.is_some() {}
                Ok(())
            }
        });
        // two codecs, so that a message to all is on two rolls
        let server = server.limits(Limits::edge().with_outbox(8 << 20));
        let server = server.bind(tcp().as_str(), Lines::new()).bind(tcp().as_str(), Lines::new().crlf());
        let running = server.start().await.expect("the server starts");
        let (mut peers, mut members) = (Vec::new(), Vec::new());
        for number in 0..MEMBERS {
            let endpoint = running.endpoints()[number / 2 % 2].clone();
            peers.push(open::<_, String>(&endpoint, Lines::new()).await);
            members.push(within("a session", senders.recv()).await.expect("a session"));
        }
        let expected = batches(&all, &some, &members);
        for (peer, expected) in peers.iter_mut().zip(expected) {
            for (number, line) in expected.iter().enumerate() {
                let heard = within("a line", peer.recv()).await.expect("open");
                assert_eq!(heard.as_ref(), Some(line), "{overflow:?}: line {number}");
            }
        }
    }
}
