//! A drain ends when every connection has, also those that were just being accepted.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use shuttle::future::{block_on, spawn};
use shuttle::thread;
use tokio::time::Instant;

use crate::codec::Lines;
use crate::connection::models::{Pipe, Stream};
use crate::connection::{Connection, Prototype};
use crate::handler::{Built, Handler};
use crate::limits::Limits;
use crate::peer::Peer;
use crate::server::accept::{Control, Door, accept};
use crate::server::greeting::Greeting;
use crate::server::hub::Hub;
use crate::server::open::Origin;
use crate::sync::model::check;
use crate::sync::{Mutex, lock};
use crate::transport::{BindOptions, Listener};

/// Peers that have connected and are not accepted yet.
#[derive(Default)]
struct Backlog {
    peers: VecDeque<Stream>,
    listener: Option<Waker>,
}

struct Queue(Arc<Mutex<Backlog>>);

impl Listener for Queue {
    type Stream = Stream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let mut backlog = lock(&self.0);
        match backlog.peers.pop_front() {
            Some(peer) => Poll::Ready(Ok(peer)),
            None => {
                backlog.listener = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

struct Client {
    /// It does not care about a drain.
    stays: bool,
    _ends: Ends,
}

impl Handler for Client {
    type In = String;
    type Out = String;

    async fn on_message(&mut self, _: &mut Connection<String>, _: String) -> anyhow::Result<()> {
        Ok(())
    }

    async fn on_drain(&mut self, conn: &mut Connection<String>, _: Instant) -> anyhow::Result<()> {
        if !self.stays {
            conn.send("bye".into()).await?;
            conn.close_when_idle();
        }
        Ok(())
    }
}

/// Counts the sessions that have ended, however.
struct Ends(Arc<AtomicUsize>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// Two peers connect while the server goes, and `go` says how. One more is in a handshake, which fails.
fn check_drains(slots: usize, stays: bool, go: impl Fn(&Hub) + Send + Sync + Clone + 'static) {
    let accepted: Arc<[AtomicUsize; 3]> = Arc::default();
    let seen = Arc::clone(&accepted);
    check(1000, move || {
        let accepted = drains(slots, stays, &go);
        seen[accepted as usize].fetch_add(1, Relaxed);
    });
    let often = accepted.iter().take(slots + 1).all(|times| times.load(Relaxed) > 50);
    assert!(often, "nobody, one and two peers were accepted so often: {accepted:?}");
}

/// How many were accepted.
fn drains(slots: usize, stays: bool, go: impl Fn(&Hub)) -> u64 {
    let hub = Hub::new(Limits::edge().with_max_connections(slots), None);
    let ended = Arc::new(AtomicUsize::new(0));
    let ends = Arc::clone(&ended);
    let session = Built::new(move |_: &Peer| Ok(Client { stays, _ends: Ends(Arc::clone(&ends)) }));
    let backlog = Arc::new(Mutex::new(Backlog::default()));
    let door = Door::new(0, Queue(Arc::clone(&backlog)));
    let endpoint = "mem:model".parse().unwrap();
    let origin = Origin {
        hub: Arc::clone(&hub),
        session: Arc::new(session),
        log_bytes: 0,
        timing: hub.meters.timing(&endpoint),
        endpoint: Arc::new(endpoint),
        prototype: Prototype::new(Lines::new()),
        greeting: Greeting::new(&BindOptions::new()),
    };
    let handshake = hub.slots.try_take().filter(|_| slots > 1);
    let failing = thread::spawn(move || drop(handshake));
    let accepting = spawn(accept(Arc::clone(&door), Arc::new(origin)));
    let connecting = thread::spawn(move || {
        for _ in 0..2 {
            let mut backlog = lock(&backlog);
            backlog.peers.push_back(Pipe::new(8).stream());
            let listener = backlog.listener.take();
            drop(backlog);
            if let Some(listener) = listener {
                listener.wake();
            }
        }
    });
    door.stop();
    go(&hub);
    block_on(hub.emptied());
    let counters = hub.counters();
    assert_eq!((counters.open, hub.slots.used()), (0, 0));
    assert_eq!(ended.load(Relaxed) as u64, counters.accepted, "a session goes on");
    let report = hub.report();
    assert_eq!(report.finished + report.cut, counters.accepted, "{report:?}");
    block_on(accepting).unwrap();
    connecting.join().unwrap();
    failing.join().unwrap();
    assert_eq!(hub.counters(), counters, "somebody came later");
    counters.accepted
}

#[test]
fn a_drain_ends_when_all_have_gone_and_nobody_comes_after_it() {
    check_drains(10, false, |hub| hub.start_drain(Instant::now()));
}

#[test]
fn a_drain_ends_though_a_listener_waits_for_a_slot() {
    check_drains(1, false, |hub| hub.start_drain(Instant::now()));
}

#[test]
fn a_cut_ends_also_those_who_are_just_being_accepted() {
    check_drains(10, true, |hub| {
        hub.start_drain(Instant::now());
        hub.cut();
    });
}
