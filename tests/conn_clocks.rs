//! Deadlines that come nearer, or begin anew, because of what happened before: none is late, and none is early.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]
#![cfg(feature = "tcp")]

mod support;

use hythe::codec::{LengthDelimited, Lines};
use hythe::{Bytes, BytesMut, CloseReason, Closed, Connection, Handler, Limits, Server};
use support::{SECOND, Told, mem, open_raw, paused, start};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::sleep;
use tokio_util::codec::{Decoder, Encoder};

async fn end(ends: &mut UnboundedReceiver<Closed>) -> (CloseReason, u64) {
    let closed = paused("the end", ends.recv()).await.expect("an end");
    (closed.reason, closed.duration.as_secs())
}

async fn write(peer: &mut Connection<Bytes>, bytes: impl Into<Bytes>) {
    peer.send(bytes.into()).await.expect("sent");
}

/// `slow` takes 20 seconds.
fn dawdler() -> (Told<String>, UnboundedReceiver<Closed>) {
    let (told, ends) = Told::new();
    let told = told.on_message(|_, message: String| {
        Box::pin(async move {
            if message == "slow" {
                sleep(20 * SECOND).await;
            }
            Ok(())
        })
    });
    (told, ends)
}

#[tokio::test(start_paused = true)]
async fn silence_begins_after_a_slow_handler_also_when_a_quick_one_came_last() {
    let (told, mut ends) = dawdler();
    let limits = Limits::edge().with_idle(10 * SECOND);
    let (_running, endpoint) = start(Server::new(told).limits(limits), &mem(), Lines::new()).await;
    let mut peer = open_raw(&endpoint).await;
    write(&mut peer, "slow\nquick\n").await;
    assert_eq!(end(&mut ends).await, (CloseReason::Idle, 30));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_began_behind_a_slow_and_a_quick_one_has_the_whole_of_its_deadline() {
    let (told, mut ends) = dawdler();
    let limits = Limits::edge().with_message(10 * SECOND);
    let (_running, endpoint) = start(Server::new(told).limits(limits), &mem(), Lines::new()).await;
    let mut peer = open_raw(&endpoint).await;
    write(&mut peer, "slow\nquick\nhal").await;
    assert_eq!(end(&mut ends).await, (CloseReason::MessageTimeout, 30));
}

#[tokio::test(start_paused = true)]
async fn silence_after_a_long_message_is_noticed_in_time() {
    let (told, mut ends) = dawdler();
    let limits = Limits::edge().with_message(100 * SECOND).with_idle(2 * SECOND);
    let (_running, endpoint) = start(Server::new(told).limits(limits), &mem(), Lines::new()).await;
    let mut peer = open_raw(&endpoint).await;
    write(&mut peer, "quick\nhal").await;
    sleep(10 * SECOND).await;
    write(&mut peer, "f\n").await;
    assert_eq!(end(&mut ends).await, (CloseReason::Idle, 12));
}

/// Is told of silence, does not mind, and waits for its peer to take what it is sent.
#[derive(Clone)]
struct Patient(UnboundedSender<Closed>);

impl Handler for Patient {
    type In = Bytes;
    type Out = Bytes;

    async fn on_message(&mut self, _: &mut Connection<Bytes>, _: Bytes) -> anyhow::Result<()> {
        Ok(())
    }

    async fn on_idle(&mut self, conn: &mut Connection<Bytes>) -> anyhow::Result<()> {
        if conn.unsent_bytes() > 0 {
            conn.abort();
            return Ok(());
        }
        conn.send(Bytes::from(vec![0; 200_000])).await?;
        // takes a message and then another while, of which none is the peer's
        conn.recv().await?;
        sleep(5 * SECOND).await;
        Ok(())
    }

    async fn on_close(self, closed: Closed) {
        let _ = self.0.send(closed);
    }
}

#[tokio::test(start_paused = true)]
async fn silence_that_was_forgiven_is_noticed_again_though_the_peer_takes_nothing() {
    let (told, mut ends) = unbounded_channel();
    let limits = Limits::edge().with_idle(2 * SECOND).with_write_stall(100 * SECOND);
    let server = Server::new(Patient(told)).limits(limits);
    let (_running, endpoint) = start(server, &mem(), LengthDelimited::new()).await;
    let mut peer = open_raw(&endpoint).await;
    write(&mut peer, support::frame(b"hello")).await;
    sleep(3 * SECOND).await;
    write(&mut peer, support::frame(b"there")).await;
    // told at 2, through at 8
    assert_eq!(end(&mut ends).await, (CloseReason::Aborted, 10));
}

/// Lines, of which those with nothing in them are swallowed.
#[derive(Clone)]
struct Heartbeats(Lines);

impl Decoder for Heartbeats {
    type Item = String;
    type Error = anyhow::Error;

    fn decode(&mut self, src: &mut BytesMut) -> anyhow::Result<Option<String>> {
        loop {
            match self.0.decode(src)? {
                Some(line) if line == "beat" => {}
                other => return Ok(other),
            }
        }
    }
}

impl Encoder<String> for Heartbeats {
    type Error = anyhow::Error;

    fn encode(&mut self, message: String, dst: &mut BytesMut) -> anyhow::Result<()> {
        Ok(self.0.encode(message, dst)?)
    }
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_came_in_two_parts_and_was_swallowed_is_no_message_that_is_late() {
    let (told, mut ends) = dawdler();
    let limits = Limits::edge().with_message(5 * SECOND).with_idle(20 * SECOND);
    let (_running, endpoint) = start(Server::new(told).limits(limits), &mem(), Heartbeats(Lines::new())).await;
    let mut peer = open_raw(&endpoint).await;
    write(&mut peer, "be").await;
    sleep(SECOND).await;
    write(&mut peer, "at\n").await;
    assert_eq!(end(&mut ends).await, (CloseReason::Idle, 21));
}
