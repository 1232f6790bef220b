//! A server under test, and its peers.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::timeout;

use super::faults::Faults;
use super::leaks::LeakCheck;
use super::observe::{Observed, Visits, describe};
use super::peer::{Peer, Speak};
use super::wait::{Place, patiently, pause_clock};
use super::weather::exposed;
use crate::codec::{Codec, Raw};
use crate::connection::Closed;
use crate::endpoint::Endpoint;
use crate::handler::Session;
use crate::peer::PeerAddress;
use crate::server::{DrainReport, Running, Server};
use crate::sync::{Mutex, lock};
use crate::transport::mem::{End, MemStream, offer};

/// What a deadline is looked at before it passes.
const MOMENT: Duration = Duration::from_millis(2);

/// A peer is accepted within a few turns of the tasks, unless a limit holds it.
const TURNS: u32 = 64;

/// A server under test, in memory and under a paused clock. It receives `In` and sends `Out`; its peers do the reverse.
///
/// The server is a real one: its limits, deadlines, its drain and the life of its connections are what they will be.
/// Only the transport is a wire in memory, of which a test has the other end.
///
/// Wants tokio's single-threaded runtime, as `#[tokio::test]` makes it, and pauses its clock: time passes at once
/// whenever everybody waits for it.
///
/// ```
/// use hythe::testing::Harness;
/// use hythe::{CloseReason, Connection, Server, codec::Lines};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let server = Server::serve(|mut conn: Connection<String>| async move {
///     while let Some(line) = conn.recv().await? {
///         conn.send(line.to_uppercase()).await?;
///     }
///     Ok(())
/// });
/// let test = Harness::start(server, Lines::new()).await;
/// let mut peer = test.peer().await;
/// peer.send("hello").await;
/// assert_eq!(peer.recv().await, "HELLO");
///
/// // a minute of silence passes in no time
/// let closed = peer.closed().await;
/// assert_eq!((closed.reason, closed.duration.as_secs()), (CloseReason::Idle, 60));
/// test.finish().await;
/// # }
/// ```
pub struct Harness<In, Out = In> {
    running: Running,
    endpoint: Endpoint,
    visits: Arc<Visits>,
    /// The peers' ends of the wires.
    ends: Mutex<Vec<Weak<End>>>,
    codec: Box<dyn Fn() -> Box<dyn Speak<Out, In>> + Send + Sync>,
    leaks: LeakCheck,
}

impl<M: Send + 'static> Harness<M> {
    /// Starts a server, to which no endpoint is bound yet, with the codec that its peers speak.
    ///
    /// # Panics
    /// If the server does not start, or has an endpoint already, or the runtime is not a single-threaded one.
    #[track_caller]
    pub fn start<S, C>(server: Server<S>, codec: C) -> impl Future<Output = Self>
    where
        S: Session<In = M, Out = M>,
        C: Codec<M, M>,
    {
        Self::launch(server, codec.clone(), codec, Location::caller())
    }
}

impl<In, Out> Harness<In, Out>
where
    In: Send + 'static,
    Out: Send + 'static,
{
    /// As [`start`](Harness::start), for a codec that gives other messages than it takes: `peers` is its counterpart.
    ///
    /// # Panics
    /// As [`start`](Harness::start).
    #[track_caller]
    pub fn start_with<S, C, P>(server: Server<S>, codec: C, peers: P) -> impl Future<Output = Self>
    where
        S: Session<In = In, Out = Out>,
        C: Codec<In, Out>,
        P: Codec<Out, In>,
    {
        Self::launch(server, codec, peers, Location::caller())
    }

    pub(super) async fn launch<S, C, P>(server: Server<S>, codec: C, peers: P, place: Place) -> Self
    where
        S: Session<In = In, Out = Out>,
        C: Codec<In, Out>,
        P: Codec<Out, In>,
    {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        pause_clock(place);
        let leaks = LeakCheck::start();
        let visits = Arc::new(Visits::default());
        let watching = Arc::clone(&visits);
        let name = format!("mem:hythe-testing-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let Some(server) = server.map(|session| Observed::new(session, watching)) else {
            panic!("{place}: a server under test has no endpoint of its own");
        };
        let running = match server.bind(name.as_str(), codec).start().await {
            Ok(running) => running,
            Err(error) => panic!("{place}: the server under test does not start: {error}"),
        };
        let Some(endpoint) = running.endpoints().first().cloned() else {
            panic!("{place}: the server under test does not listen");
        };
        let peers = Mutex::new(peers);
        Self {
            running,
            endpoint,
            visits,
            ends: Mutex::default(),
            codec: Box::new(move || Box::new(lock(&peers).clone())),
            leaks,
        }
    }

    /// A new peer. It is connected when this returns, and accepted, unless a limit of the server stands against it.
    ///
    /// # Panics
    /// If the server does not listen any more.
    #[track_caller]
    pub fn peer(&self) -> impl Future<Output = Peer<Out, In>> {
        self.connect((self.codec)(), None, Location::caller())
    }

    /// A new peer that speaks bytes alone: what it receives is whatever one read brought.
    ///
    /// # Panics
    /// As [`peer`](Self::peer).
    #[track_caller]
    pub fn raw_peer(&self) -> impl Future<Output = Peer<bytes::Bytes>> {
        self.connect(Box::new(Raw::new()), None, Location::caller())
    }

    /// A new peer, on whose connection things go wrong.
    ///
    /// # Panics
    /// As [`peer`](Self::peer).
    #[track_caller]
    pub fn faulty_peer(&self, faults: &Faults) -> impl Future<Output = Peer<Out, In>> {
        self.connect((self.codec)(), Some(faults.clone()), Location::caller())
    }

    async fn connect<I, O>(&self, codec: Box<dyn Speak<I, O>>, faults: Option<Faults>, place: Place) -> Peer<I, O> {
        let (ours, mut theirs) = MemStream::pair();
        if let Some(faults) = faults {
            theirs = exposed(theirs, &faults);
        }
        let Endpoint::Mem(name) = &self.endpoint else { panic!("{place}: the server under test is not in memory") };
        lock(&self.ends).push(Arc::downgrade(ours.end()));
        let known = || format!("{} connections were accepted", self.running.counters().accepted);
        if let Err(error) = patiently(place, "room in the backlog", known, offer(name, theirs)).await {
            panic!("{place}: no connection: {error}");
        }
        for _ in 0..TURNS {
            if self.visits.find(ours.end().number()).is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        Peer::new(ours, codec, Arc::clone(&self.visits))
    }

    /// The server, as the program that starts it sees it: its counters, its connections, a pause.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// Where the server listens, to [`connect`](crate::connect) to it as a client of hythe.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// How connections have ended so far, in the order of their opening.
    #[must_use]
    pub fn closed(&self) -> Vec<Closed> {
        self.visits.all().iter().filter_map(|visit| visit.closed().cloned()).collect()
    }

    /// Drains the server, as [`Running::shutdown`] does.
    ///
    /// # Cancel safety
    /// As [`Running::shutdown`].
    pub async fn drain(&self, within: Duration) -> DrainReport {
        self.running.shutdown(within).await
    }

    /// Drains and stops the server, for [`Limits::drain`](crate::Limits::drain), and checks that nothing is left of it.
    /// Tells how its connections ended, in the order of their opening.
    ///
    /// # Panics
    /// With a list of what is left:
    /// - a session that has not ended, or had to be cut as it did not end within the drain: not where it waited for the
    ///   rest of a message, or for a peer that reads nothing;
    /// - a task that was not there at the [`start`](Harness::start), a handler's own or the test's;
    /// - a slot of [`Limits::max_connections`](crate::Limits::max_connections), or bytes of
    ///   [`Limits::memory`](crate::Limits::memory), that did not come back;
    /// - bytes of a reply that were not sent, though the peer would have taken them.
    #[track_caller]
    pub fn finish(self) -> impl Future<Output = Vec<Closed>> {
        let place = Location::caller();
        async move {
            let left = self.stop().await;
            assert!(left.is_empty(), "{place}: left of the server under test: {}", left.join("; "));
            self.closed()
        }
    }

    /// Stops the server, and tells what is left of it, in words.
    pub(super) async fn stop(&self) -> Vec<String> {
        let mut left = Vec::new();
        let drain = self.running.limits().drain;
        let mut shutdown = pin!(self.running.shutdown(drain));
        let open = || self.visits.all().into_iter().filter(|visit| visit.closed().is_none());
        // the last moment before those that are left are cut
        let mut busy = Vec::new();
        if timeout(drain.saturating_sub(MOMENT), shutdown.as_mut()).await.is_err() {
            busy.extend(open().filter(|visit| !visit.waits_for_peer()));
            shutdown.await;
        }
        for visit in busy.iter().filter(|visit| visit.was_cut()) {
            left.push(format!("connection {} did not end within the drain of {drain:?}", visit.id()));
        }
        let tasks = self.leaks.left().await;
        for visit in self.visits.all() {
            if !visit.is_over() {
                left.push(format!("the session of connection {} has not ended", visit.id()));
            }
            if let Some(closed) = visit.closed().filter(|closed| self.lost(closed)) {
                left.push(format!("connection {} lost bytes: {}", visit.id(), describe(closed)));
            }
        }
        let counters = self.running.counters();
        let counts = [
            ("open connections", counters.open),
            ("slots of connections", self.running.slots() as u64),
            ("handshakes", counters.handshakes),
            ("bytes in buffers", counters.memory),
        ];
        left.extend(counts.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{count} {what}")));
        left.extend(tasks);
        left
    }

    /// Whether bytes were not sent that the peer would have taken.
    fn lost(&self, closed: &Closed) -> bool {
        let PeerAddress::Memory(number) = closed.peer.address() else { return false };
        let ends = lock(&self.ends);
        let end = ends.iter().filter_map(Weak::upgrade).find(|end| end.number() == number);
        closed.unsent_bytes > 0 && closed.reason.flushes() && end.is_some_and(|end| end.takes())
    }
}

impl<In, Out> fmt::Debug for Harness<In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
