//! A codec that panics, wherever it does, ends its own connection and no other, least of all that of whoever happens to
//! send on it.

#![cfg(feature = "testing")]

mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hythe::codec::Lines;
use hythe::testing::{Harness, Peer, settle};
use hythe::{BytesMut, CloseReason, Closed, Connection, Group, Overflow, Sender, Server};
use support::Told;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_util::codec::{Decoder, Encoder};

/// When a clone of the prototype panics next; never while 0.
type Fuse = Arc<AtomicUsize>;

/// Lines that panic on a word.
struct Touchy {
    lines: Lines,
    clones: Fuse,
    drops: Arc<AtomicBool>,
}

impl Touchy {
    fn new() -> Self {
        Self { lines: Lines::new(), clones: Arc::default(), drops: Arc::default() }
    }
}

impl Clone for Touchy {
    fn clone(&self) -> Self {
        let left = self.clones.load(Ordering::Relaxed);
        assert!(left != 1, "a panic on purpose, in clone");
        self.clones.store(left.saturating_sub(1), Ordering::Relaxed);
        Self { lines: self.lines.clone(), clones: Arc::clone(&self.clones), drops: Arc::clone(&self.drops) }
    }
}

impl Drop for Touchy {
    fn drop(&mut self) {
        assert!(!self.drops.swap(false, Ordering::Relaxed), "a panic on purpose, in drop");
    }
}

impl Decoder for Touchy {
    type Item = String;
    type Error = anyhow::Error;

    fn decode(&mut self, src: &mut BytesMut) -> anyhow::Result<Option<String>> {
        assert!(!src.starts_with(b"decode!"), "a panic on purpose, in decode");
        Ok(self.lines.decode(src)?)
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> anyhow::Result<Option<String>> {
        assert!(!src.starts_with(b"end!"), "a panic on purpose, in decode_eof");
        Ok(self.lines.decode_eof(src)?)
    }
}

impl From<io::Error> for Never {
    fn from(_: io::Error) -> Self {
        Self
    }
}

#[derive(Debug)]
struct Never;

impl std::fmt::Display for Never {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not encodable, on purpose")
    }
}

impl std::error::Error for Never {}

impl Encoder<String> for Touchy {
    type Error = Never;

    fn encode(&mut self, line: String, dst: &mut BytesMut) -> Result<(), Never> {
        dst.extend_from_slice(b"half a ");
        if line == "refuse!" {
            return Err(Never);
        }
        assert!(line != "encode!", "a panic on purpose, in encode");
        dst.extend_from_slice(line.as_bytes());
        dst.extend_from_slice(b"\n");
        Ok(())
    }
}

struct Scene {
    test: Harness<String>,
    /// What `on_close` was told.
    ends: UnboundedReceiver<Closed>,
    senders: UnboundedReceiver<Sender<String>>,
    group: Group<String>,
}

impl Scene {
    async fn peer(&mut self) -> (Peer<String>, Sender<String>) {
        let peer = self.test.peer().await;
        settle().await;
        (peer, self.senders.try_recv().expect("a sender"))
    }

    /// Why the peer's connection has ended, which `on_close` was told as well.
    async fn end(&mut self, peer: &mut Peer<String>) -> CloseReason {
        let closed = peer.closed().await;
        let told = self.ends.try_recv().expect("on_close was called");
        assert_eq!((told.id, told.reason), (closed.id, closed.reason));
        closed.reason
    }
}

/// Echoes; "send! x" is sent as "x" instead.
async fn scene(codec: Touchy) -> Scene {
    let (to, senders) = unbounded_channel();
    let (told, ends) = Told::<String>::new();
    let group = Group::new(Overflow::DropOldest);
    let members = group.clone();
    let told = told
        .on_open(move |conn: &mut Connection<String>, ()| {
            members.join(conn);
            let _ = to.send(conn.sender());
            Box::pin(async { Ok(()) })
        })
        .on_message(|conn, line| {
            Box::pin(async move {
                let line = line.strip_prefix("send! ").map_or(line.clone(), ToString::to_string);
                let result = conn.send(line).await;
                if result.as_ref().is_err_and(|error| error.close_reason().is_none()) {
                    // the codec refused, and the connection is as it was
                    conn.send("refused".to_string()).await?;
                    return Ok(());
                }
                Ok(result?)
            })
        });
    let test = Harness::start_with(Server::new(told), codec, Lines::new()).await;
    Scene { test, ends, senders, group }
}

async fn echoes(peer: &mut Peer<String>) -> bool {
    peer.send("hello").await;
    peer.recv_or_end().await.as_deref() == Some("half a hello")
}

#[tokio::test]
async fn a_panic_in_decode_or_encode_ends_its_own_connection_only() {
    let mut scene = scene(Touchy::new()).await;
    let (mut other, _) = scene.peer().await;
    for line in ["decode!", "send! encode!", "end!"] {
        let (mut peer, _) = scene.peer().await;
        assert!(echoes(&mut peer).await);
        match line {
            "end!" => {
                // what is not a line yet when the end comes
                peer.send_bytes("end!").await;
                peer.half_close();
            }
            line => peer.send(line).await,
        }
        assert_eq!(scene.end(&mut peer).await, CloseReason::Panic, "{line}");
        // and nothing torn before the end
        assert_eq!(peer.recv_or_end().await, None, "{line}");
        assert!(echoes(&mut other).await, "{line}");
    }
    scene.test.finish().await;
}

#[tokio::test]
async fn a_message_that_the_codec_refuses_harms_nothing() {
    let mut scene = scene(Touchy::new()).await;
    let (mut peer, sender) = scene.peer().await;
    peer.send("send! refuse!").await;
    assert_eq!(peer.recv().await, "half a refused", "nothing of the refused message was sent");
    assert!(matches!(sender.try_send("refuse!".into()), Err(hythe::TrySendError::Encode(_))));
    assert!(sender.push("refuse!".into(), Overflow::DropOldest).is_err());
    assert_eq!(scene.group.send("refuse!".into()).refused, 1);
    assert!(echoes(&mut peer).await);
    scene.test.finish().await;
}

/// By all ways of sending from elsewhere: the sender's task goes on.
#[tokio::test]
async fn a_panic_in_encode_or_clone_is_not_the_senders() {
    for way in ["send", "try_send", "push", "push the oldest out", "group", "clone and push", "clone and group"] {
        let codec = Touchy::new();
        let clones = Arc::clone(&codec.clones);
        let mut scene = scene(codec).await;
        let (mut peer, sender) = scene.peer().await;
        let group = scene.group.clone();
        // another connection, whose handler does the sending
        let (told, mut ends) = Told::<String>::new();
        let told = told.on_message(move |conn, line| {
            let (sender, group, clones) = (sender.clone(), group.clone(), Arc::clone(&clones));
            Box::pin(async move {
                let bad = || "encode!".to_string();
                match line.as_str() {
                    "send" => assert!(sender.send(bad()).await.is_err()),
                    "try_send" => assert!(sender.try_send(bad()).is_err()),
                    "push" => assert!(sender.push(bad(), Overflow::DropNewest).is_err()),
                    "push the oldest out" => assert!(sender.push(bad(), Overflow::DropOldest).is_err()),
                    "group" => assert_eq!(group.send(bad()).refused, 1),
                    "clone and push" => {
                        clones.store(1, Ordering::Relaxed);
                        assert!(sender.push("good".into(), Overflow::DropOldest).is_err());
                    }
                    "clone and group" => {
                        clones.store(1, Ordering::Relaxed);
                        assert_eq!(group.send("good".into()).refused, 1);
                    }
                    _ => {}
                }
                clones.store(0, Ordering::Relaxed);
                Ok(conn.send(line).await?)
            })
        });
        let test = Harness::start(Server::new(told), Lines::new()).await;
        let mut speaker = test.peer().await;
        for line in [way, "still here"] {
            speaker.send(line).await;
            assert_eq!(speaker.recv().await, line);
        }
        assert!(ends.try_recv().is_err(), "{way}");
        match way {
            // what was encoded apart from the connection leaves it as it was
            "push the oldest out" | "group" | "clone and push" | "clone and group" => {
                assert!(echoes(&mut peer).await, "{way}");
            }
            _ => assert_eq!(scene.end(&mut peer).await, CloseReason::Panic, "{way}"),
        }
        test.finish().await;
        scene.test.finish().await;
    }
}

#[tokio::test]
async fn a_panic_in_the_clone_for_a_new_connection_costs_that_one_only() {
    let codec = Touchy::new();
    let clones = Arc::clone(&codec.clones);
    let mut scene = scene(codec).await;
    let (mut other, _) = scene.peer().await;
    // there is one: who sends from elsewhere gets a codec when they do
    clones.store(1, Ordering::Relaxed);
    let mut peer = scene.test.peer().await;
    assert_eq!(peer.recv_or_end().await, None);
    clones.store(0, Ordering::Relaxed);
    assert!(echoes(&mut other).await);
    assert_eq!(scene.test.running().counters().accepted, 1, "a connection that never was");
    let (mut new, _) = scene.peer().await;
    assert!(echoes(&mut new).await);
    scene.test.finish().await;
}

#[tokio::test]
async fn a_panic_in_the_clone_for_the_first_sender_costs_that_connection_only() {
    let codec = Touchy::new();
    let clones = Arc::clone(&codec.clones);
    let mut scene = scene(codec).await;
    let (mut other, _) = scene.peer().await;
    let (mut peer, sender) = scene.peer().await;
    clones.store(1, Ordering::Relaxed);
    assert!(sender.try_send("hello".to_string()).is_err());
    clones.store(0, Ordering::Relaxed);
    assert_eq!(scene.end(&mut peer).await, CloseReason::Panic);
    assert!(echoes(&mut other).await);
    scene.test.finish().await;
}

#[tokio::test]
async fn a_panic_in_the_drop_of_a_codec_does_not_keep_on_close_from_its_call() {
    let codec = Touchy::new();
    let drops = Arc::clone(&codec.drops);
    let mut scene = scene(codec).await;
    let (mut other, _) = scene.peer().await;
    for line in ["bye", "send! encode!", "decode!"] {
        let (mut peer, sender) = scene.peer().await;
        assert!(echoes(&mut peer).await);
        drop(sender);
        drops.store(true, Ordering::Relaxed);
        match line {
            "bye" => peer.half_close(),
            line => peer.send(line).await,
        }
        let reason = if line == "bye" { CloseReason::PeerClosed } else { CloseReason::Panic };
        assert_eq!(scene.end(&mut peer).await, reason, "{line}");
        settle().await;
        assert_eq!(scene.test.running().counters().open, 1, "{line}");
        drops.store(false, Ordering::Relaxed);
        assert!(echoes(&mut other).await, "{line}");
    }
    scene.test.finish().await;
}
