//! A handler's error or panic, wherever it happens, ends its own connection, with the right reason and one `on_close`
//! for each `on_open`; other connections do not notice.

#![cfg(feature = "testing")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hythe::codec::Lines;
use hythe::testing::{Harness, Peer};
use hythe::{CloseReason, Closed, Connection, Fault, Handler, Limits, Server};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Open,
    OpenLater,
    Message,
    MessageLater,
    Idle,
    Drain,
    Close,
    CloseLater,
    Drop,
    /// In the drop of what a method holds while it waits, when the connection breaks.
    DropOfFuture,
    Nowhere,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Error,
    Panic,
}

/// What all handlers of a test count.
#[derive(Default)]
struct Counts {
    opened: AtomicUsize,
    closed: AtomicUsize,
    dropped: AtomicUsize,
}

/// Fails at one place of the first connection; an echo otherwise.
struct Faulty {
    place: Place,
    how: How,
    armed: Arc<AtomicBool>,
    /// Whether this value is the one that fails.
    chosen: bool,
    counts: Arc<Counts>,
    ends: UnboundedSender<Closed>,
}

impl Clone for Faulty {
    fn clone(&self) -> Self {
        Self {
            armed: Arc::clone(&self.armed),
            counts: Arc::clone(&self.counts),
            ends: self.ends.clone(),
            chosen: self.armed.swap(false, Ordering::Relaxed),
            ..*self
        }
    }
}

impl Faulty {
    fn fail_at(&self, place: Place) -> anyhow::Result<()> {
        match self.how {
            _ if !self.chosen || self.place != place => Ok(()),
            How::Error => anyhow::bail!("an error on purpose"),
            How::Panic => panic!("a panic on purpose"),
        }
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        if !std::thread::panicking() {
            self.fail_at(Place::Drop).expect("a panic on purpose");
        }
    }
}

struct PanicsOnDrop(bool);

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        assert!(!self.0, "a panic on purpose");
    }
}

impl Handler for Faulty {
    type In = String;
    type Out = String;

    async fn on_open(&mut self, conn: &mut Connection<String>) -> anyhow::Result<()> {
        self.counts.opened.fetch_add(1, Ordering::Relaxed);
        self.fail_at(Place::Open)?;
        conn.send("welcome".to_string()).await?;
        tokio::task::yield_now().await;
        self.fail_at(Place::OpenLater)
    }

    async fn on_message(&mut self, conn: &mut Connection<String>, message: String) -> anyhow::Result<()> {
        self.fail_at(Place::Message)?;
        conn.send(message).await?;
        tokio::task::yield_now().await;
        if self.chosen && self.place == Place::DropOfFuture {
            let _held = PanicsOnDrop(true);
            conn.sender().abort();
            std::future::pending::<()>().await;
        }
        self.fail_at(Place::MessageLater)
    }

    async fn on_idle(&mut self, _: &mut Connection<String>) -> anyhow::Result<()> {
        self.fail_at(Place::Idle)
    }

    async fn on_drain(&mut self, conn: &mut Connection<String>, _: Instant) -> anyhow::Result<()> {
        self.fail_at(Place::Drain)?;
        conn.close_when_idle();
        Ok(())
    }

    async fn on_close(self, closed: Closed) {
        self.counts.closed.fetch_add(1, Ordering::Relaxed);
        let _ = self.ends.send(closed);
        self.fail_at(Place::Close).expect("a panic on purpose");
        tokio::task::yield_now().await;
        self.fail_at(Place::CloseLater).expect("a panic on purpose");
    }
}

struct Scene {
    test: Harness<String>,
    counts: Arc<Counts>,
    ends: UnboundedReceiver<Closed>,
}

async fn scene(place: Place, how: How) -> Scene {
    let (to, ends) = unbounded_channel();
    let counts = Arc::new(Counts::default());
    let faulty = Faulty {
        place,
        how,
        armed: Arc::new(AtomicBool::new(true)),
        chosen: false,
        counts: Arc::clone(&counts),
        ends: to,
    };
    let limits = Limits::edge().with_idle(Duration::from_secs(50));
    let test = Harness::start(Server::new(faulty).limits(limits), Lines::new()).await;
    Scene { test, counts, ends }
}

/// Sends a line and waits for the same one, behind a welcome where there is one.
async fn echoes(peer: &mut Peer<String>) -> bool {
    peer.send("hello").await;
    while let Some(line) = peer.recv_or_end().await {
        if line == "hello" {
            return true;
        }
    }
    false
}

async fn one_connection_fails(place: Place, how: How, reason: CloseReason) {
    let what = format!("{how:?} at {place:?}");
    let mut scene = scene(place, how).await;
    // the first value cloned is the one that fails
    let (mut faulty, mut other) = (scene.test.peer().await, scene.test.peer().await);
    assert!(echoes(&mut other).await, "{what}: the other connection");
    let before = matches!(place, Place::Open | Place::OpenLater | Place::Message);
    assert_eq!(echoes(&mut faulty).await, !before, "{what}");
    match place {
        Place::Idle | Place::Open | Place::OpenLater | Place::Message | Place::MessageLater | Place::DropOfFuture => {}
        Place::Drain => {
            let id = faulty.id().expect("it is open");
            assert!(scene.test.running().drain_connection(id, Duration::from_secs(10)));
        }
        _ => faulty.half_close(),
    }
    let closed = faulty.closed().await;
    assert_eq!(closed.reason, reason, "{what}: {closed:?}");
    let told = scene.ends.try_recv().unwrap_or_else(|_| panic!("{what}: no on_close"));
    assert_eq!((told.id, told.reason), (closed.id, reason), "{what}");
    if reason.fault() == Fault::Handler {
        let cause = closed.cause.expect("a cause").to_string();
        assert!(cause.contains("on purpose"), "{what}: {cause}");
    }
    assert!(echoes(&mut other).await, "{what}: the other connection afterwards");
    let mut new = scene.test.peer().await;
    assert!(echoes(&mut new).await, "{what}: a new connection");
    for mut peer in [other, new] {
        peer.half_close();
        peer.closed().await;
    }
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    assert_eq!((count(&scene.counts.opened), count(&scene.counts.closed)), (3, 3), "{what}");
    assert_eq!(count(&scene.counts.dropped), 3, "{what}: no handler is left");
    scene.test.finish().await;
}

#[tokio::test]
async fn an_error_ends_its_own_connection_only() {
    for place in [Place::Open, Place::OpenLater, Place::Message, Place::MessageLater, Place::Idle, Place::Drain] {
        one_connection_fails(place, How::Error, CloseReason::Handler).await;
    }
}

#[tokio::test]
async fn a_panic_ends_its_own_connection_only() {
    for place in [Place::Open, Place::OpenLater, Place::Message, Place::MessageLater, Place::Idle, Place::Drain] {
        one_connection_fails(place, How::Panic, CloseReason::Panic).await;
    }
}

#[tokio::test]
async fn a_panic_at_the_very_end_changes_nothing() {
    for place in [Place::Close, Place::CloseLater, Place::Drop] {
        one_connection_fails(place, How::Panic, CloseReason::PeerClosed).await;
    }
    one_connection_fails(Place::DropOfFuture, How::Panic, CloseReason::Aborted).await;
    one_connection_fails(Place::Nowhere, How::Panic, CloseReason::PeerClosed).await;
}

#[tokio::test]
async fn a_factory_that_refuses_or_panics_opens_nothing() {
    let calls = AtomicUsize::new(0);
    let (to, _ends) = unbounded_channel();
    let counts = Arc::new(Counts::default());
    let prototype = Mutex::new(Faulty {
        place: Place::Nowhere,
        how: How::Error,
        armed: Arc::default(),
        chosen: false,
        counts: Arc::clone(&counts),
        ends: to,
    });
    let server = Server::with(move |peer: &hythe::Peer| {
        assert_eq!(peer.endpoint().scheme(), "mem");
        match calls.fetch_add(1, Ordering::Relaxed) {
            0 => anyhow::bail!("not you"),
            1 => panic!("a panic on purpose"),
            _ => Ok(prototype.lock().expect("no panic").clone()),
        }
    });
    let test = Harness::start(server, Lines::new()).await;
    for reason in [CloseReason::Refused, CloseReason::Panic] {
        let mut peer = test.peer().await;
        assert!(!echoes(&mut peer).await);
        assert_eq!(peer.closed().await.reason, reason);
    }
    assert_eq!(counts.opened.load(Ordering::Relaxed), 0);
    let mut peer = test.peer().await;
    assert!(echoes(&mut peer).await);
    peer.half_close();
    peer.closed().await;
    assert_eq!((counts.opened.load(Ordering::Relaxed), counts.closed.load(Ordering::Relaxed)), (1, 1));
    test.finish().await;
}

/// The handler waits for something that never comes; its future goes, and it itself hears of the end.
#[tokio::test]
async fn a_handler_that_waits_elsewhere_is_interrupted_when_the_connection_breaks() {
    struct Stuck(UnboundedSender<&'static str>, bool);
    struct Tells(UnboundedSender<&'static str>);
    impl Drop for Tells {
        fn drop(&mut self) {
            let _ = self.0.send("dropped");
        }
    }
    impl Handler for Stuck {
        type In = String;
        type Out = String;
        async fn on_message(&mut self, conn: &mut Connection<String>, message: String) -> anyhow::Result<()> {
            let _tells = Tells(self.0.clone());
            if message == "write" {
                // the peer takes nothing: the write deadline breaks the connection
                conn.send("x".repeat(1 << 20)).await?;
            } else {
                conn.sender().abort();
            }
            std::future::pending().await
        }
        async fn on_close(mut self, closed: Closed) {
            self.1 = closed.reason == CloseReason::WriteStalled;
            let _ = self.0.send(closed.reason.as_str());
        }
    }
    for (message, reason) in [("write", "write_stalled"), ("abort", "aborted")] {
        let (to, mut told) = unbounded_channel();
        let server = Server::with(move |_: &hythe::Peer| Ok(Stuck(to.clone(), false)));
        let test = Harness::start(server, Lines::new()).await;
        let mut peer = test.peer().await;
        peer.send(message).await;
        peer.stall();
        assert_eq!(peer.closed().await.reason.as_str(), reason);
        assert_eq!((told.try_recv(), told.try_recv()), (Ok("dropped"), Ok(reason)));
        test.finish().await;
    }
}
