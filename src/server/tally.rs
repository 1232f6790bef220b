//! What each listener has counted, and what that is together.

use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Arc, PoisonError, RwLock};

use super::errno::AcceptFailure;
use super::refusals::Refusal;
use crate::connection::{CloseReason, Closed};
use crate::endpoint::Endpoint;
#[cfg(feature = "udp")]
use {crate::transport::udp::UdpCounters, std::sync::OnceLock};

/// What a server has counted since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Connections and UDP sessions that were opened.
    pub accepted: u64,
    /// Of these, how many are open.
    pub open: u64,
    /// Of these, how many have been closed.
    pub closed: u64,
    /// Bytes in, of closed connections.
    pub bytes_in: u64,
    /// Bytes out, of closed connections.
    pub bytes_out: u64,
    /// Messages in, of closed connections.
    pub messages_in: u64,
    /// Messages out, of closed connections.
    pub messages_out: u64,
    /// Errors of accepting, whatever they were about.
    pub accept_errors: u64,
    accept_errors_by_kind: [u64; AcceptFailure::ALL.len()],
    /// Handshakes under way: PROXY headers and TLS.
    pub handshakes: u64,
    /// Bytes of all buffers, of those [`Limits::memory`](crate::Limits::memory).
    pub memory: u64,
    refused: [u64; Refusal::ALL.len()],
    closed_by_reason: [u64; CloseReason::ALL.len()],
    /// Messages that a session took longer than [`Limits::stall`](crate::Limits::stall) over.
    pub stalls: u64,
    /// Times that a connection's task kept its thread for longer than a second.
    pub runtime_stalls: u64,
    /// Datagrams over [`Limits::max_datagram`](crate::Limits::max_datagram); none is delivered cut.
    pub datagrams_truncated: u64,
    /// Datagrams for sessions whose queue was full.
    pub datagrams_dropped: u64,
    /// Datagrams of peers for whom there was no session to be had.
    pub datagrams_refused: u64,
    /// Datagrams that the codec could not decode; their sessions go on.
    pub datagrams_invalid: u64,
    /// UDP sessions that made room for others.
    pub sessions_evicted: u64,
    /// Errors of receiving, such as a peer that is not there any more.
    pub receive_errors: u64,
    /// Datagrams that could not be sent.
    pub send_errors: u64,
}

impl Counters {
    /// Peers that were turned away for this reason.
    #[must_use]
    pub fn refused(&self, why: Refusal) -> u64 {
        self.refused.get(why as usize).copied().unwrap_or(0)
    }

    /// Connections that were closed for this reason.
    #[must_use]
    pub fn closed_by(&self, reason: CloseReason) -> u64 {
        self.closed_by_reason.get(reason as usize).copied().unwrap_or(0)
    }

    /// Errors of accepting that were about this.
    #[must_use]
    pub fn accept_errors_by(&self, failure: AcceptFailure) -> u64 {
        self.accept_errors_by_kind.get(failure as usize).copied().unwrap_or(0)
    }
}

/// What went over connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) messages_in: u64,
    pub(crate) messages_out: u64,
}

/// What one listener has counted.
pub(crate) struct Tally {
    pub(crate) endpoint: Endpoint,
    accepted: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
    accept_errors: [AtomicU64; AcceptFailure::ALL.len()],
    closed: [AtomicU64; CloseReason::ALL.len()],
    /// Of closed connections.
    bytes: [AtomicU64; 2],
    messages: [AtomicU64; 2],
    pub(crate) stalls: AtomicU64,
    pub(crate) runtime_stalls: AtomicU64,
    #[cfg(feature = "udp")]
    udp: OnceLock<Arc<UdpCounters>>,
}

fn add(counters: &[AtomicU64], place: usize) {
    if let Some(counter) = counters.get(place) {
        counter.fetch_add(1, Relaxed);
    }
}

fn get<const N: usize>(counters: &[AtomicU64; N]) -> [u64; N] {
    counters.each_ref().map(|counter| counter.load(Relaxed))
}

impl Tally {
    fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            accepted: AtomicU64::new(0),
            refused: Default::default(),
            accept_errors: Default::default(),
            closed: [const { AtomicU64::new(0) }; CloseReason::ALL.len()],
            bytes: Default::default(),
            messages: Default::default(),
            stalls: AtomicU64::new(0),
            runtime_stalls: AtomicU64::new(0),
            #[cfg(feature = "udp")]
            udp: OnceLock::new(),
        }
    }

    pub(super) fn accepted(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    pub(super) fn refused(&self, why: Refusal) {
        add(&self.refused, why as usize);
    }

    pub(super) fn accept_failed(&self, failure: AcceptFailure) {
        add(&self.accept_errors, failure as usize);
    }

    /// What happens to datagrams is counted here.
    #[cfg(feature = "udp")]
    pub(super) fn counts_datagrams(&self, counters: &Arc<UdpCounters>) {
        let _ = self.udp.set(Arc::clone(counters));
    }

    pub(super) fn closed(&self, closed: &Closed) {
        add(&self.closed, closed.reason as usize);
        let [bytes_in, bytes_out] = &self.bytes;
        let [messages_in, messages_out] = &self.messages;
        bytes_in.fetch_add(closed.bytes_in, Release);
        bytes_out.fetch_add(closed.bytes_out, Release);
        messages_in.fetch_add(closed.messages_in, Release);
        messages_out.fetch_add(closed.messages_out, Release);
    }

    /// What went over connections that are closed. Who sees one in it also sees that it is no longer to be counted among
    /// the open ones.
    pub(crate) fn flow(&self) -> Flow {
        let [bytes_in, bytes_out] = self.bytes.each_ref().map(|counter| counter.load(Acquire));
        let [messages_in, messages_out] = self.messages.each_ref().map(|counter| counter.load(Acquire));
        Flow { bytes_in, bytes_out, messages_in, messages_out }
    }

    /// All of it, but for what is the whole server's.
    pub(crate) fn counters(&self) -> Counters {
        let Flow { bytes_in, bytes_out, messages_in, messages_out } = self.flow();
        let (closed_by_reason, accept_errors_by_kind) = (get(&self.closed), get(&self.accept_errors));
        let counters = Counters {
            accepted: self.accepted.load(Relaxed),
            closed: closed_by_reason.iter().sum(),
            bytes_in,
            bytes_out,
            messages_in,
            messages_out,
            accept_errors: accept_errors_by_kind.iter().sum(),
            accept_errors_by_kind,
            refused: get(&self.refused),
            closed_by_reason,
            stalls: self.stalls.load(Relaxed),
            runtime_stalls: self.runtime_stalls.load(Relaxed),
            ..Counters::default()
        };
        #[cfg(feature = "udp")]
        if let Some(udp) = self.udp.get() {
            return Counters {
                datagrams_truncated: udp.truncated.load(Relaxed),
                datagrams_dropped: udp.dropped.load(Relaxed),
                datagrams_refused: udp.refused.load(Relaxed),
                datagrams_invalid: udp.invalid.load(Relaxed),
                sessions_evicted: udp.evicted.load(Relaxed),
                receive_errors: udp.receive_errors.load(Relaxed),
                send_errors: udp.send_errors.load(Relaxed),
                ..counters
            };
        }
        counters
    }
}

/// Those of all listeners of a server.
#[derive(Default)]
pub(crate) struct Tallies(RwLock<Vec<Arc<Tally>>>);

impl Tallies {
    /// That of the listener at `endpoint`.
    pub(crate) fn of(&self, endpoint: &Endpoint) -> Arc<Tally> {
        let find = |all: &[Arc<Tally>]| {
            let same = |tally: &&Arc<Tally>| tally.endpoint == *endpoint;
            all.iter().find(same).cloned()
        };
        if let Some(tally) = find(&self.0.read().unwrap_or_else(PoisonError::into_inner)) {
            return tally;
        }
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        find(&all).unwrap_or_else(|| {
            let tally = Arc::new(Tally::new(endpoint.clone()));
            all.push(Arc::clone(&tally));
            tally
        })
    }

    pub(crate) fn all(&self) -> Vec<Arc<Tally>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The sums over all listeners.
    pub(super) fn sums(&self) -> Counters {
        self.all().iter().fold(Counters::default(), |sums, tally| sums.plus(&tally.counters()))
    }
}

fn sum<const N: usize>(left: [u64; N], right: [u64; N]) -> [u64; N] {
    std::array::from_fn(|i| left.get(i).zip(right.get(i)).map_or(0, |(left, right)| left + right))
}

impl Counters {
    fn plus(self, other: &Self) -> Self {
        Self {
            accepted: self.accepted + other.accepted,
            open: self.open + other.open,
            closed: self.closed + other.closed,
            bytes_in: self.bytes_in + other.bytes_in,
            bytes_out: self.bytes_out + other.bytes_out,
            messages_in: self.messages_in + other.messages_in,
            messages_out: self.messages_out + other.messages_out,
            accept_errors: self.accept_errors + other.accept_errors,
            accept_errors_by_kind: sum(self.accept_errors_by_kind, other.accept_errors_by_kind),
            handshakes: self.handshakes + other.handshakes,
            memory: self.memory + other.memory,
            refused: sum(self.refused, other.refused),
            closed_by_reason: sum(self.closed_by_reason, other.closed_by_reason),
            stalls: self.stalls + other.stalls,
            runtime_stalls: self.runtime_stalls + other.runtime_stalls,
            datagrams_truncated: self.datagrams_truncated + other.datagrams_truncated,
            datagrams_dropped: self.datagrams_dropped + other.datagrams_dropped,
            datagrams_refused: self.datagrams_refused + other.datagrams_refused,
            datagrams_invalid: self.datagrams_invalid + other.datagrams_invalid,
            sessions_evicted: self.sessions_evicted + other.sessions_evicted,
            receive_errors: self.receive_errors + other.receive_errors,
            send_errors: self.send_errors + other.send_errors,
        }
    }
}
