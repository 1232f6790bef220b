//! A thread that looks at all servers of the process from time to time. It is none of a runtime's, so that it also sees
//! what happens while one is blocked. It begins with the first server, and ends with the last.

use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::hub::Hub;
use super::stalls::Threads;
use crate::sync::lock;

/// How often threads are looked at.
const TICK: Duration = Duration::from_millis(250);
/// How often each connection of a server is.
const SWEEP: Duration = Duration::from_secs(1);
/// As often, at most, where a limit is so short that it asks for more.
const SHORTEST: Duration = Duration::from_millis(10);
/// A sweep takes one of so many parts of the time of this thread, at most.
const SHARE: u32 = 50;

static WATCHED: Mutex<Watched> = Mutex::new(Watched { hubs: Vec::new(), is_running: false });
static CHANGED: Condvar = Condvar::new();

struct Watched {
    hubs: Vec<Weak<Hub>>,
    is_running: bool,
}

/// A server begins.
pub(crate) fn add(hub: &Arc<Hub>) {
    let mut watched = lock(&WATCHED);
    watched.hubs.push(Arc::downgrade(hub));
    if watched.is_running {
        CHANGED.notify_all();
        return;
    }
    let thread = std::thread::Builder::new().name("hythe-watch".into()).spawn(run);
    match thread {
        Ok(_) => watched.is_running = true,
        Err(error) => tracing::warn!(%error, "nobody watches for stalls: no thread"),
    }
}

/// A server has ended.
pub(crate) fn changed() {
    CHANGED.notify_all();
}

/// All servers of the process.
fn hubs() -> Vec<Arc<Hub>> {
    lock(&WATCHED).hubs.iter().filter_map(Weak::upgrade).collect()
}

/// Has every server tell at once what it has counted.
#[cfg(feature = "prometheus")]
pub(crate) fn publish() {
    hubs().iter().for_each(|hub| hub.publish_now());
}

/// How often the connections of a server are looked at, for a stall to be reported in time.
fn period(hub: &Hub) -> Duration {
    (hub.limits.get().stall / 4).clamp(SHORTEST, SWEEP)
}

/// Whoever logs may panic; then another server has another thread begun.
struct Unwinding;

impl Drop for Unwinding {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&WATCHED).is_running = false;
        }
    }
}

fn run() {
    let _unwinding = Unwinding;
    let mut threads = Threads::default();
    let (mut looked, mut swept, mut rest) = (Instant::now(), Instant::now(), Duration::ZERO);
    while let Some(tick) = wait() {
        let hubs = hubs();
        // while the whole process stood still, nobody was at work
        let passed = looked.elapsed().min(2 * tick);
        looked = Instant::now();
        threads.look(passed, |connection, thread, blockage| {
            let known = hubs.iter().find_map(|hub| Some((hub, hub.find(connection)?)));
            match known {
                Some((hub, core)) => hub.blocked(&core, thread, blockage),
                // it was the last thing that the connection did
                None => super::log::freed(connection, thread, blockage),
            }
        });
        let period = hubs.iter().map(|hub| period(hub)).min().unwrap_or(SWEEP).max(rest);
        if swept.elapsed() >= period {
            let passed = swept.elapsed().min(2 * period);
            swept = Instant::now();
            for hub in &hubs {
                hub.sweep(passed);
            }
            super::meters::upkeep();
            rest = swept.elapsed() * SHARE;
        }
    }
}

/// Waits for the next look, and tells after what time it comes at the latest. None when there is no server any more.
fn wait() -> Option<Duration> {
    let tick = hubs().iter().map(|hub| period(hub)).min().unwrap_or(TICK).min(TICK);
    let mut watched = lock(&WATCHED);
    let is_over = |watched: &mut Watched| {
        watched.hubs.retain(|hub| hub.strong_count() > 0);
        watched.is_running = !watched.hubs.is_empty();
        !watched.is_running
    };
    if is_over(&mut watched) {
        return None;
    }
    watched = CHANGED.wait_timeout(watched, tick).unwrap_or_else(PoisonError::into_inner).0;
    (!is_over(&mut watched)).then_some(tick)
}
