//! Once a second, and whenever somebody asks, all counters and gauges are brought up to date; what took some time is told at
//! once. Whoever is told is looked up each time, as a recorder may be installed late.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use metrics::{Key, Label, Level, Metadata, Recorder, SharedString, with_recorder};

use super::Whole;
use crate::connection::{CloseReason, Core, Timing};
use crate::endpoint::Endpoint;
use crate::metrics::names;
use crate::server::errno::AcceptFailure;
use crate::server::refusals::Refusal;
use crate::server::tally::{Counters, Tally};
use crate::sync::lock;

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

static UPKEEP: OnceLock<fn()> = OnceLock::new();

/// Has `upkeep` done once a second, while there is a server.
#[cfg(feature = "prometheus")]
pub(crate) fn set_upkeep(upkeep: fn()) {
    let _ = UPKEEP.set(upkeep);
}

/// What the recorder wants to be done now and then.
pub(crate) fn upkeep() {
    if let Some(upkeep) = UPKEEP.get() {
        upkeep();
    }
}

/// Those of one server.
#[derive(Default)]
pub(crate) struct Meters(Mutex<Vec<Listener>>);

/// What the recorder knows of one listener.
struct Listener {
    endpoint: SharedString,
    /// The values of all counters, in the order of [`counters`].
    told: Vec<u64>,
}

/// What the connections of one listener that are open have to do.
#[derive(Default)]
struct Open {
    connections: u64,
    busy: u64,
    waiting: u64,
    largest: u64,
}

/// A counter's name, its label beside the endpoint, and its value.
type Counted = (&'static str, Option<(&'static str, &'static str)>, u64);

fn counters(counted: &Counters, is_udp: bool) -> Vec<Counted> {
    let mut all = vec![
        (names::ACCEPTED, None, counted.accepted),
        (names::BYTES_IN, None, counted.bytes_in),
        (names::BYTES_OUT, None, counted.bytes_out),
        (names::MESSAGES_IN, None, counted.messages_in),
        (names::MESSAGES_OUT, None, counted.messages_out),
        (names::STALLS, None, counted.stalls),
        (names::RUNTIME_STALLS, None, counted.runtime_stalls),
    ];
    all.extend(Refusal::ALL.map(|why| (names::REFUSED, Some(("reason", why.as_str())), counted.refused(why))));
    all.extend(CloseReason::ALL.map(|why| (names::CLOSED, Some(("reason", why.as_str())), counted.closed_by(why))));
    if is_udp {
        let dropped = |cause, value| (names::DROPPED, Some(("cause", cause)), value);
        all.extend([
            dropped("queue_full", counted.datagrams_dropped),
            dropped("no_session", counted.datagrams_refused),
            dropped("send_error", counted.send_errors),
            (names::TRUNCATED, None, counted.datagrams_truncated),
            (names::RECEIVE_ERRORS, None, counted.receive_errors),
        ]);
    } else {
        let failed = |failure| counted.accept_errors_by(failure);
        let labelled =
            AcceptFailure::ALL.map(|class| (names::ACCEPT_ERRORS, Some(("class", class.as_str())), failed(class)));
        all.extend(labelled);
    }
    all
}

impl Meters {
    /// To be cloned by each connection of a listener.
    pub(crate) fn timing(&self, endpoint: &Endpoint) -> Timing {
        Timing::new(key(names::HANDLING, "endpoint", &endpoint.to_string().into()))
    }

    /// A handshake has succeeded.
    pub(crate) fn greeted(&self, endpoint: &Endpoint, took: Duration) {
        let key = key(names::HANDSHAKE, "endpoint", &endpoint.to_string().into());
        with_recorder(|recorder| recorder.register_histogram(&key, &METADATA)).record(took);
    }

    pub(crate) fn publish(&self, tallies: &[Arc<Tally>], cores: &[Arc<Core>], whole: impl FnOnce() -> Whole) {
        let mut listeners = lock(&self.0);
        if listeners.is_empty() {
            names::describe();
        }
        // before the connections are looked at: what ends in between is in neither, and told the next time
        let mut counted: Vec<(Counters, Open)> =
            tallies.iter().map(|tally| (tally.counters(), Open::default())).collect();
        for core in cores {
            let place = tallies.iter().position(|tally| tally.endpoint == *core.peer().endpoint());
            if let Some((counters, open)) = place.and_then(|place| counted.get_mut(place)) {
                add(core, counters, open);
            }
        }
        with_recorder(|recorder| {
            for (place, (tally, (counters, open))) in tallies.iter().zip(&counted).enumerate() {
                if listeners.len() <= place {
                    let endpoint = SharedString::from_shared(Arc::from(tally.endpoint.to_string()));
                    listeners.push(Listener { endpoint, told: Vec::new() });
                }
                if let Some(listener) = listeners.get_mut(place) {
                    listener.tell(recorder, counters, open, tally.endpoint.scheme() == "udp");
                }
            }
            if let Some(first) = listeners.first() {
                tell_of(recorder, &whole(), &first.endpoint);
            }
        });
    }
}

/// Adds an open connection to what is counted of closed ones, but for one that has just been closed and is there.
fn add(core: &Core, counters: &mut Counters, open: &mut Open) {
    let traffic = &core.traffic;
    let waiting = traffic.waiting() as u64;
    let flow = (traffic.bytes_in(), traffic.bytes_out(), traffic.messages_in(), traffic.messages_out());
    if core.is_counted() {
        return;
    }
    counters.bytes_in += flow.0;
    counters.bytes_out += flow.1;
    counters.messages_in += flow.2;
    counters.messages_out += flow.3;
    open.connections += 1;
    open.busy += u64::from(core.handled().is_some());
    open.waiting += waiting;
    open.largest = open.largest.max(waiting);
}

impl Listener {
    fn tell(&mut self, recorder: &dyn Recorder, counted: &Counters, open: &Open, is_udp: bool) {
        let counters = counters(counted, is_udp);
        self.told.resize(counters.len(), 0);
        for (told, (name, label, value)) in self.told.iter_mut().zip(counters) {
            let mut labels = vec![Label::new("endpoint", self.endpoint.clone())];
            labels.extend(label.map(|(label, value)| Label::new(label, value)));
            // also where there is nothing new: a series is there from its beginning
            recorder.register_counter(&Key::from_parts(name, labels), &METADATA).increment(value.saturating_sub(*told));
            *told = value.max(*told);
        }
        let gauge = |name, value| set(recorder, &key(name, "endpoint", &self.endpoint), value);
        gauge(names::OPEN, open.connections);
        gauge(names::BUSY, open.busy);
        gauge(names::OUTBOX, open.waiting);
        gauge(names::OUTBOX_LARGEST, open.largest);
        if is_udp {
            gauge(names::UDP_SESSIONS, open.connections);
        }
        for name in [names::HANDLING, names::HANDSHAKE] {
            let _ = recorder.register_histogram(&key(name, "endpoint", &self.endpoint), &METADATA);
        }
    }
}

fn tell_of(recorder: &dyn Recorder, whole: &Whole, server: &SharedString) {
    let gauge = |name, value| set(recorder, &key(name, "server", server), value);
    gauge(names::HANDSHAKES, whole.handshakes);
    gauge(names::CONNECTIONS_LIMIT, whole.connections_limit as u64);
    gauge(names::MEMORY, whole.memory as u64);
    gauge(names::MEMORY_LIMIT, whole.memory_limit as u64);
}

fn key(name: &'static str, label: &'static str, value: &SharedString) -> Key {
    Key::from_parts(name, vec![Label::new(label, value.clone())])
}

#[allow(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn set(recorder: &dyn Recorder, key: &Key, value: u64) {
    recorder.register_gauge(key, &METADATA).set(value as f64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Silence;
    use crate::limits::{Limits, Live};
    use crate::peer::{Peer, PeerAddress};

    #[tokio::test]
    async fn a_connection_that_is_in_the_totals_is_not_added_again() {
        let endpoint = Arc::new(Endpoint::mem("meters").unwrap());
        let peer = Peer::new(endpoint, PeerAddress::Memory(0));
        let core = Core::new(peer, Live::new(Limits::edge()), Silence::Allowed, None);
        core.count_in(5);
        let (mut counters, mut open) = (Counters::default(), Open::default());
        add(&core, &mut counters, &mut open);
        assert_eq!((counters.bytes_in, open.connections), (5, 1));
        core.counts();
        add(&core, &mut counters, &mut open);
        assert_eq!((counters.bytes_in, open.connections), (5, 1));
    }
}
