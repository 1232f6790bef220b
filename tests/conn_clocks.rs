//! Deadlines that come nearer, or begin anew, because of what happened before: none is late, and none is early.

#![cfg(feature = "testing")]

mod support;

use hythe::codec::{Codec, LengthDelimited, Lines};
use hythe::testing::{Harness, Peer};
use hythe::{Bytes, BytesMut, CloseReason, Connection, Handler, Limits, Server};
use support::{SECOND, Told};
use tokio::time::sleep;
use tokio_util::codec::{Decoder, Encoder};

/// Why the connection ends, after how many seconds; and that nothing of it is left.
async fn end<M: Send + 'static>(test: Harness<M>, mut peer: Peer<M>) -> (CloseReason, u64) {
    let closed = peer.closed().await;
    test.finish().await;
    (closed.reason, closed.duration.as_secs())
}

/// `slow` takes 20 seconds.
async fn dawdler(codec: impl Codec<String, String>, limits: Limits) -> (Harness<String>, Peer<String>) {
    let told = Told::new().0.on_message(|_, message: String| {
        Box::pin(async move {
            if message == "slow" {
                sleep(20 * SECOND).await;
            }
            Ok(())
        })
    });
    let test = Harness::start(Server::new(told).limits(limits), codec).await;
    let peer = test.peer().await;
    (test, peer)
}

#[tokio::test]
async fn silence_begins_after_a_slow_handler_also_when_a_quick_one_came_last() {
    let limits = Limits::edge().with_idle(10 * SECOND);
    let (test, mut peer) = dawdler(Lines::new(), limits).await;
    peer.send_bytes("slow\nquick\n").await;
    assert_eq!(end(test, peer).await, (CloseReason::Idle, 30));
}

#[tokio::test]
async fn a_message_that_began_behind_a_slow_and_a_quick_one_has_the_whole_of_its_deadline() {
    let limits = Limits::edge().with_message(10 * SECOND);
    let (test, mut peer) = dawdler(Lines::new(), limits).await;
    peer.send_bytes("slow\nquick\nhal").await;
    assert_eq!(end(test, peer).await, (CloseReason::MessageTimeout, 30));
}

#[tokio::test]
async fn silence_after_a_long_message_is_noticed_in_time() {
    let limits = Limits::edge().with_message(100 * SECOND).with_idle(2 * SECOND);
    let (test, mut peer) = dawdler(Lines::new(), limits).await;
    peer.send_bytes("quick\nhal").await;
    sleep(10 * SECOND).await;
    peer.send_bytes("f\n").await;
    assert_eq!(end(test, peer).await, (CloseReason::Idle, 12));
}

/// Is told of silence, does not mind, and waits for its peer to take what it is sent.
#[derive(Clone)]
struct Patient;

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
}

#[tokio::test]
async fn silence_that_was_forgiven_is_noticed_again_though_the_peer_takes_nothing() {
    let limits = Limits::edge().with_idle(2 * SECOND).with_write_stall(100 * SECOND);
    let test = Harness::start(Server::new(Patient).limits(limits), LengthDelimited::new()).await;
    let mut peer = test.peer().await;
    peer.send("hello").await;
    sleep(3 * SECOND).await;
    peer.send("there").await;
    peer.stall();
    // told at 2, through at 8
    assert_eq!(end(test, peer).await, (CloseReason::Aborted, 10));
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

#[tokio::test]
async fn a_heartbeat_that_came_in_two_parts_and_was_swallowed_is_no_message_that_is_late() {
    let limits = Limits::edge().with_message(5 * SECOND).with_idle(20 * SECOND);
    let (test, mut peer) = dawdler(Heartbeats(Lines::new()), limits).await;
    peer.send_bytes("be").await;
    sleep(SECOND).await;
    peer.send_bytes("at\n").await;
    assert_eq!(end(test, peer).await, (CloseReason::Idle, 21));
}
