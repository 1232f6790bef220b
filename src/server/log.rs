//! What a server says of its peers. What they can cause as often as they like is said a few times a second, and the next
//! one tells how many were left out.

use std::array::from_fn;
use std::error::Error;
use std::io;
use std::time::Duration;

use tracing::{Level, enabled};

use super::refusals::Refusal;
use super::stalls::Blockage;
use crate::connection::{CloseReason, Closed, ConnectionId, Core, Fault, Thread};
use crate::endpoint::Endpoint;
use crate::log::{Chain, Escaped, Limiter, suppressed};
use crate::peer::Peer;

/// Of each kind of what is wrong, in a second.
const FAULTS: u32 = 10;
/// Of each kind of what is in order.
const ORDERLY: u32 = 100;

pub(crate) struct Log {
    opened: Limiter,
    greeted: Limiter,
    refused: [Limiter; Refusal::ALL.len()],
    ended: [Limiter; CloseReason::ALL.len()],
    failed: Limiter,
    stalled: Limiter,
    accepting: Limiter,
    #[cfg(feature = "udp")]
    receiving: Limiter,
}

impl Default for Log {
    fn default() -> Self {
        let fault = |place| CloseReason::ALL.get(place).map(|reason: &CloseReason| reason.fault());
        let most = |place| match fault(place) {
            Some(Fault::None | Fault::Operator) => ORDERLY,
            _ => FAULTS,
        };
        Self {
            opened: Limiter::new(ORDERLY),
            greeted: Limiter::new(ORDERLY),
            refused: from_fn(|_| Limiter::new(FAULTS)),
            ended: from_fn(|place| Limiter::new(most(place))),
            failed: Limiter::new(FAULTS),
            stalled: Limiter::new(FAULTS),
            accepting: Limiter::new(FAULTS),
            #[cfg(feature = "udp")]
            receiving: Limiter::new(FAULTS),
        }
    }
}

/// An error whose text may be a peer's.
fn text(cause: &(dyn Error + Send + Sync + 'static)) -> String {
    Escaped(Chain(cause)).to_string()
}

impl Log {
    /// Said in the connection's span.
    pub(crate) fn opened(&self) {
        if !enabled!(Level::DEBUG) {
            return;
        }
        if let Some(times) = self.opened.admit() {
            tracing::debug!(suppressed = suppressed(times), "connection opened");
        }
    }

    /// Its handshake is through.
    pub(crate) fn greeted(&self, peer: &Peer, took: Duration) {
        if !enabled!(Level::DEBUG) {
            return;
        }
        if let Some(times) = self.greeted.admit() {
            let endpoint = peer.endpoint();
            tracing::debug!(%peer, %endpoint, ?took, suppressed = suppressed(times), "handshake done");
        }
    }

    pub(crate) fn refused(&self, why: Refusal, peer: &Peer, error: Option<&(dyn Error + Send + Sync + 'static)>) {
        if !enabled!(Level::DEBUG) {
            return;
        }
        let Some(times) = self.refused.get(why as usize).and_then(Limiter::admit) else { return };
        let (reason, endpoint, cause) = (why.as_str(), peer.endpoint(), error.map(text));
        let cause = cause.as_deref();
        tracing::debug!(reason, %peer, %endpoint, cause, suppressed = suppressed(times), "refused");
    }

    /// Said in the connection's span; where it is the session's fault, also for those who hear warnings alone and know no
    /// spans.
    pub(crate) fn ended(&self, core: &Core, closed: &Closed) {
        let is_failure = closed.reason.fault() == Fault::Handler;
        if !(if is_failure { enabled!(Level::WARN) } else { enabled!(Level::INFO) }) {
            return;
        }
        let Some(times) = self.ended.get(closed.reason as usize).and_then(Limiter::admit) else { return };
        let Closed { duration, bytes_in, bytes_out, messages_in, messages_out, unsent_bytes, .. } = *closed;
        let (reason, cause) = (closed.reason.as_str(), closed.cause.as_deref().map(text));
        let cause = cause.as_deref();
        let suppressed = suppressed(times);
        if is_failure {
            let (id, peer, endpoint) = (core.id, core.peer(), core.peer().endpoint());
            tracing::warn!(
                %id, %peer, %endpoint, reason, cause, ?duration, bytes_in, bytes_out, messages_in, messages_out,
                unsent_bytes, suppressed, "the session failed"
            );
        } else {
            tracing::info!(
                reason,
                cause,
                ?duration,
                bytes_in,
                bytes_out,
                messages_in,
                messages_out,
                unsent_bytes,
                suppressed,
                "connection closed"
            );
        }
    }

    /// A session could not be started.
    pub(crate) fn not_started(&self, peer: &Peer) {
        if let Some(times) = self.failed.admit() {
            let (endpoint, suppressed) = (peer.endpoint(), suppressed(times));
            tracing::warn!(%peer, %endpoint, suppressed, "a session could not be started: a panic");
        }
    }

    /// Descriptors or memory are short, or nobody knows what it is.
    pub(crate) fn cannot_accept(&self, endpoint: &Endpoint, error: &io::Error) {
        if let Some(times) = self.accepting.admit() {
            tracing::warn!(%endpoint, %error, suppressed = suppressed(times), "cannot accept; pausing");
        }
    }

    /// Such as the refusal of an earlier answer.
    #[cfg(feature = "udp")]
    pub(crate) fn receiving_failed(&self, endpoint: &Endpoint, error: &io::Error) {
        if !enabled!(Level::DEBUG) {
            return;
        }
        if let Some(times) = self.receiving.admit() {
            tracing::debug!(%endpoint, %error, suppressed = suppressed(times), "receiving failed");
        }
    }

    /// A session takes long over one message.
    pub(crate) fn stalled(&self, core: &Core, handled_for: Duration) {
        if let Some(times) = self.stalled.admit() {
            let (id, peer, endpoint, messages_in) =
                (core.id, core.peer(), core.peer().endpoint(), core.traffic.messages_in());
            let suppressed = suppressed(times);
            tracing::warn!(%id, %peer, %endpoint, messages_in, ?handled_for, suppressed, "a session does not return");
        }
    }
}

/// A connection's task keeps its thread, or did.
pub(crate) fn blocked(core: &Core, thread: &Thread, blockage: Blockage) {
    let (id, peer, endpoint, thread) = (core.id, core.peer(), core.peer().endpoint(), thread.name());
    match blockage {
        Blockage::Begins(time) => {
            tracing::warn!(%id, %peer, %endpoint, thread, blocked_for = ?time, "a session blocks its thread");
        }
        Blockage::Ended(time) => {
            tracing::warn!(%id, %peer, %endpoint, thread, blocked_for = ?time, "a session has blocked its thread");
        }
    }
}

/// As [`blocked`], of a connection that is over.
pub(crate) fn freed(id: ConnectionId, thread: &Thread, blockage: Blockage) {
    if let Blockage::Ended(time) = blockage {
        tracing::warn!(%id, thread = thread.name(), blocked_for = ?time, "a session has blocked its thread");
    }
}
