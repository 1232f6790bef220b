//! Whatever happens to its peers' bytes, a handler is told of each end once, groups and senders deliver what they deliver
//! in order and whole, and nothing is left.

#![cfg(feature = "testing")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hythe::codec::LengthDelimited;
use hythe::testing::{Faults, Harness, with_faults};
use hythe::{Bytes, Closed, Connection, Group, Handler, Limits, Overflow, Sender, Server};

#[derive(Default)]
struct Counts {
    opened: AtomicU64,
    messages: AtomicU64,
    closed: AtomicU64,
    messages_in: AtomicU64,
}

/// A room: what one says, all get. Each message is answered by the handler itself and by a task of its own as well.
#[derive(Clone)]
struct Room {
    group: Group<Bytes>,
    counts: Arc<Counts>,
    number: u32,
}

fn text(who: &str, number: u32) -> Bytes {
    // of many lengths, so that buffers are cut everywhere
    format!("{who} {number} {}", "x".repeat(number as usize * 31 % 97)).into()
}

impl Handler for Room {
    type In = Bytes;
    type Out = Bytes;

    async fn on_open(&mut self, conn: &mut Connection<Bytes>) -> anyhow::Result<()> {
        self.counts.opened.fetch_add(1, Relaxed);
        self.group.join(conn);
        Ok(())
    }

    async fn on_message(&mut self, conn: &mut Connection<Bytes>, message: Bytes) -> anyhow::Result<()> {
        self.counts.messages.fetch_add(1, Relaxed);
        let (number, sender): (_, Sender<Bytes>) = (self.number, conn.sender());
        self.number += 1;
        if message.starts_with(b"say") {
            self.group.send(text("group", number));
        }
        let task = tokio::spawn(async move { sender.send(text("task", number)).await });
        conn.send(text("handler", number)).await?;
        task.await??;
        Ok(())
    }

    async fn on_close(self, closed: Closed) {
        self.counts.closed.fetch_add(1, Relaxed);
        self.counts.messages_in.fetch_add(closed.messages_in, Relaxed);
    }
}

/// Each source's messages are whole and in their order, from the first one on; how many there are of each.
fn in_order(messages: &[Bytes], what: &Faults) -> [u32; 3] {
    let mut counts = [0; 3];
    for message in messages {
        let next = ["group", "handler", "task"].iter().position(|who| message.starts_with(who.as_bytes()));
        let count = &mut counts[next.unwrap_or_else(|| panic!("{message:?}: {what}"))];
        let who = ["group", "handler", "task"][next.unwrap_or_default()];
        assert_eq!(*message, text(who, *count), "{what}");
        *count += 1;
    }
    counts
}

#[tokio::test]
async fn a_room_survives_every_weather() {
    with_faults(1..150, async |faults| {
        let counts = Arc::<Counts>::default();
        let room = Room { group: Group::new(Overflow::Disconnect), counts: Arc::clone(&counts), number: 0 };
        let limits = Limits::edge().with_outbox(32 << 10);
        let test = Harness::start(Server::new(room.clone()).limits(limits), LengthDelimited::new()).await;
        let mut speaker = test.peer().await;
        let others = [faults.clone(), Faults::from_seed(faults.seed() + 1000)];
        let mut peers = [test.faulty_peer(&others[0]).await, test.faulty_peer(&others[1]).await];
        for number in 0..20 {
            for peer in &mut peers {
                peer.send("listen").await;
            }
            speaker.send("say").await;
            // others' trouble is not the speaker's
            let heard = [speaker.recv().await, speaker.recv().await, speaker.recv().await];
            for who in ["group", "handler", "task"] {
                assert!(heard.contains(&text(who, number)), "{who} {number}: {heard:?}");
            }
        }
        for (peer, what) in peers.iter_mut().zip(&others) {
            peer.half_close();
            let [group, handler, task] = in_order(&peer.rest().await, what);
            if !what.end_it() {
                assert_eq!((group, handler, task), (20, 20, 20), "{what}");
            }
            peer.closed().await;
        }
        assert_eq!(room.group.len(), 1, "those who have gone have left");
        speaker.half_close();
        speaker.expect_end().await;
        let closed = test.finish().await;
        let get = |count: &AtomicU64| count.load(Relaxed);
        assert_eq!((get(&counts.opened), get(&counts.closed), closed.len()), (3, 3, 3));
        assert_eq!(get(&counts.messages), get(&counts.messages_in));
        assert!(room.group.is_empty());
    })
    .await;
}
