//! How a connection ended: the reason, whose doing it was, and what went over it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::core::ConnectionId;
use crate::error::BoxError;
use crate::peer::Peer;

/// What is known of a connection when it is over. [`Handler::on_close`](crate::Handler::on_close) gets it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Closed {
    /// Which connection it was.
    pub id: ConnectionId,
    /// The other end.
    pub peer: Peer,
    /// Why.
    pub reason: CloseReason,
    /// From the accept, or the connect, to the close.
    pub duration: Duration,
    /// Bytes that came in, as read from the transport.
    pub bytes_in: u64,
    /// Bytes that the transport took.
    pub bytes_out: u64,
    /// Messages that were handed to the session.
    pub messages_in: u64,
    /// Messages that were put into the outbox.
    pub messages_out: u64,
    /// Bytes that were in the outbox and never left.
    pub unsent_bytes: u64,
    /// The error behind the reason, where there is one.
    pub cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// Why a connection ended. Its text ([`as_str`](Self::as_str)) is stable: it labels metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer ended its side between two messages, and the session ended after it.
    PeerClosed,
    /// The peer, or the network, broke the connection off.
    PeerReset,
    /// The peer's end came inside a message.
    Truncated,
    /// What the peer sent is not what the codec speaks.
    Protocol,
    /// A message, or its announced length, is over the limit.
    TooLarge,
    /// No byte came within [`Limits::first_byte`](crate::Limits::first_byte).
    FirstByteTimeout,
    /// A message was not whole within [`Limits::message`](crate::Limits::message).
    MessageTimeout,
    /// Nothing came for [`Limits::idle`](crate::Limits::idle).
    Idle,
    /// The peer took no byte for [`Limits::write_stall`](crate::Limits::write_stall).
    WriteStalled,
    /// One side had ended, and the other made no progress for [`Limits::half_close`](crate::Limits::half_close).
    HalfCloseTimeout,
    /// The peer was too slow for a sender that disconnects slow peers.
    SlowPeer,
    /// The session ended, or closed the connection.
    Local,
    /// The session broke the connection off.
    Aborted,
    /// A handshake that the session asked for failed.
    Handshake,
    /// The session returned an error.
    Handler,
    /// The session or the codec panicked.
    Panic,
    /// The session took longer than [`Limits::handling`](crate::Limits::handling) over one message.
    Overrun,
    /// The memory of all buffers ([`Limits::memory`](crate::Limits::memory)) was used up, and this one held most.
    Overloaded,
    /// The server's factory refused the peer.
    Refused,
    /// A UDP session made room for another.
    Evicted,
    /// The server drained, and the connection was at a message boundary.
    Drained,
    /// The server drained, and the deadline passed; or the server was dropped or told to stop at once.
    Shutdown,
    /// The operating system reported another error.
    Io,
}

/// Whose doing an end was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// Nobody's: an orderly end.
    None,
    /// The peer's, or the network's.
    Peer,
    /// The session's: its error or its panic.
    Handler,
    /// This side's limits or decisions.
    Us,
    /// Whoever operates the server.
    Operator,
}

impl CloseReason {
    /// All of them.
    pub const ALL: [Self; 23] = [
        Self::PeerClosed,
        Self::PeerReset,
        Self::Truncated,
        Self::Protocol,
        Self::TooLarge,
        Self::FirstByteTimeout,
        Self::MessageTimeout,
        Self::Idle,
        Self::WriteStalled,
        Self::HalfCloseTimeout,
        Self::SlowPeer,
        Self::Local,
        Self::Aborted,
        Self::Handshake,
        Self::Handler,
        Self::Panic,
        Self::Overrun,
        Self::Overloaded,
        Self::Refused,
        Self::Evicted,
        Self::Drained,
        Self::Shutdown,
        Self::Io,
    ];

    /// A stable, short text: lower case, words joined by `_`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PeerClosed => "peer_closed",
            Self::PeerReset => "peer_reset",
            Self::Truncated => "truncated",
            Self::Protocol => "protocol",
            Self::TooLarge => "too_large",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::MessageTimeout => "message_timeout",
            Self::Idle => "idle",
            Self::WriteStalled => "write_stalled",
            Self::HalfCloseTimeout => "half_close_timeout",
            Self::SlowPeer => "slow_peer",
            Self::Local => "local",
            Self::Aborted => "aborted",
            Self::Handshake => "handshake",
            Self::Handler => "handler",
            Self::Panic => "panic",
            Self::Overrun => "overrun",
            Self::Overloaded => "overloaded",
            Self::Refused => "refused",
            Self::Evicted => "evicted",
            Self::Drained => "drained",
            Self::Shutdown => "shutdown",
            Self::Io => "io",
        }
    }

    /// Whose doing it was.
    #[must_use]
    pub fn fault(self) -> Fault {
        match self {
            Self::PeerClosed | Self::Local => Fault::None,
            Self::PeerReset
            | Self::Truncated
            | Self::Protocol
            | Self::TooLarge
            | Self::FirstByteTimeout
            | Self::MessageTimeout
            | Self::Idle
            | Self::WriteStalled
            | Self::HalfCloseTimeout
            | Self::SlowPeer
            | Self::Handshake => Fault::Peer,
            Self::Handler | Self::Panic | Self::Overrun => Fault::Handler,
            Self::Aborted | Self::Refused | Self::Evicted | Self::Overloaded | Self::Io => Fault::Us,
            Self::Drained | Self::Shutdown => Fault::Operator,
        }
    }

    /// Whether a deadline passed.
    #[must_use]
    pub fn is_timeout(self) -> bool {
        matches!(
            self,
            Self::FirstByteTimeout
                | Self::MessageTimeout
                | Self::Idle
                | Self::WriteStalled
                | Self::HalfCloseTimeout
                | Self::Overrun
        )
    }

    /// Whether what is still in the outbox is worth sending: the peer is there and may read it.
    pub(crate) fn flushes(self) -> bool {
        matches!(
            self,
            Self::PeerClosed
                | Self::Truncated
                | Self::Protocol
                | Self::TooLarge
                | Self::MessageTimeout
                | Self::FirstByteTimeout
                | Self::Idle
                | Self::Local
                | Self::Handler
                | Self::Panic
                | Self::Drained
        )
    }

    /// Whether the peer may be sending still, so that to close at once would be a reset, and lose what it has not read.
    pub(crate) fn lingers(self) -> bool {
        // a peer that was too slow has had its time
        self.flushes() && !self.is_timeout()
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PeerClosed => "the peer closed it",
            Self::PeerReset => "the peer broke it off",
            Self::Truncated => "the peer ended inside a message",
            Self::Protocol => "the peer sent what the codec does not speak",
            Self::TooLarge => "a message is over the limit",
            Self::FirstByteTimeout => "no byte came in time",
            Self::MessageTimeout => "a message was not whole in time",
            Self::Idle => "nothing came for too long",
            Self::WriteStalled => "the peer took nothing for too long",
            Self::HalfCloseTimeout => "one side had ended and the other did not follow in time",
            Self::SlowPeer => "the peer is too slow",
            Self::Local => "it was closed on this side",
            Self::Aborted => "it was broken off on this side",
            Self::Handshake => "a handshake failed",
            Self::Handler => "the session failed",
            Self::Panic => "the session panicked",
            Self::Overrun => "the session took too long over a message",
            Self::Overloaded => "memory was short, and it held most",
            Self::Refused => "the peer was refused",
            Self::Evicted => "it made room for another",
            Self::Drained => "the server drained",
            Self::Shutdown => "the server stopped",
            Self::Io => "the operating system reported an error",
        })
    }
}

/// A reason and the error behind it, on the way to becoming a [`Closed`].
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) reason: CloseReason,
    pub(crate) cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Failure {
    pub(crate) fn new(reason: CloseReason, cause: impl Into<BoxError>) -> Self {
        Self { reason, cause: Some(Arc::from(cause.into())) }
    }

    /// What an error of a read or a write means for the connection.
    pub(crate) fn io(error: std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        let reason = match error.kind() {
            Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe | Kind::NotConnected => {
                CloseReason::PeerReset
            }
            // TCP_USER_TIMEOUT and keepalive report a dead peer so
            Kind::TimedOut | Kind::HostUnreachable | Kind::NetworkUnreachable => CloseReason::PeerReset,
            // as TLS reports an end that anybody on the way could have made
            Kind::UnexpectedEof => CloseReason::Truncated,
            #[cfg(feature = "tls")]
            Kind::InvalidData => crate::tls::reason(&error).unwrap_or(CloseReason::Io),
            _ => CloseReason::Io,
        };
        Self::new(reason, error)
    }
}

impl From<CloseReason> for Failure {
    fn from(reason: CloseReason) -> Self {
        Self { reason, cause: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_reasons_are_in_the_list_in_their_order() {
        for (place, reason) in CloseReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, place, "{reason:?}");
        }
        // whoever adds one after the last has to come by here
        assert!(matches!(CloseReason::ALL.last(), Some(CloseReason::Io)));
    }
}
