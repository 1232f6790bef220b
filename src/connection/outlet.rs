//! An outbox as others see it: those who write it, and those who fill it.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use super::core::Core;
use super::roll::Shared;
use super::sender::Overflow;
use crate::error::Error;
#[cfg(feature = "tls")]
use crate::tls::{Lower, TlsWrite};

/// The write half of a transport.
pub(crate) trait WriteHalf: Send + 'static {
    /// Whether one write is one message, rather than some bytes of a stream.
    const MESSAGES: bool;
    /// Writes some of `bytes`; on a message transport, which gets one message at a time, all or nothing. What was taken
    /// may wait here until a flush is ready.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
    /// As [`poll_write`](Self::poll_write), of several slices of a stream.
    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let first = bytes.iter().find(|slice| !slice.is_empty());
        self.poll_write(cx, first.map_or(&[], |slice| slice))
    }
    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    /// In place of [`poll_shutdown`](Self::poll_shutdown), where the peer has ended and both halves are dropped next: whether
    /// that says the end as well, without a call of its own.
    fn ends_by_drop(&mut self) -> bool {
        false
    }
    /// Whether any of what waits here has gone out since this was last asked.
    fn has_moved(&mut self) -> bool {
        false
    }
    /// Takes the half out for a TLS handshake, where it is in the clear.
    #[cfg(feature = "tls")]
    fn take_lower(&mut self) -> Option<Lower> {
        None
    }
    /// Puts what came of that in its place.
    #[cfg(feature = "tls")]
    fn put_tls(&mut self, _: TlsWrite) {}
    /// Called before the half is dropped without a shutdown: what is on its way may be thrown away.
    fn abort(&mut self) {}
}

/// An outbox without its message type.
pub(crate) trait Outlet: Send + Sync {
    fn core(&self) -> &Arc<Core>;
    /// Writes what waits, as the task that drives the connection.
    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<()>;
    /// Writes what waits, as anybody else; what is left is the driver's.
    fn flush_for_owner(&self);
    /// Ends the outgoing side after everything has been written.
    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<()>;
    /// Lets go of the transport. What waits is lost.
    fn release(&self, abort: bool);
    /// Takes what the owner has on the stage.
    fn settle(&self);
    /// Takes the transport's half out for a TLS handshake, and what waits for it, which is to go out before. What is sent
    /// from here on waits until there is another one.
    #[cfg(feature = "tls")]
    fn take_half(&self) -> Option<(Lower, BytesMut)>;
    #[cfg(feature = "tls")]
    fn put_tls(&self, tls: TlsWrite);
    /// No further messages.
    fn end(&self);
    /// Whether the owner may add a message.
    fn admits(&self) -> Admits;
    /// Takes a message that the owner encoded. Tells how many bytes wait now.
    fn append(&self, message: BytesMut) -> usize;
    fn pending(&self) -> usize;
    fn totals(&self) -> Totals;
    /// Remembers the owner's task, which waits; false where there is nothing to wait for.
    fn waits(&self, cx: &mut Context<'_>, until: Until) -> bool;
}

/// Whether a message can be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admits {
    Yes,
    Full,
    Closed,
}

/// What the owner of a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    Room,
    Empty,
}

/// What went out, and what did not.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) bytes: u64,
    pub(crate) messages: u64,
    pub(crate) unsent: u64,
}

/// Why a message was not taken. It is given back where it was not looked at.
#[derive(Debug)]
pub(crate) enum PushError<M> {
    Full(M),
    Closed(M),
    Encode(Error),
}

/// What became of a message for a possibly slow peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    Taken,
    /// Taken, and written with the current batch: this need not be announced.
    Listed,
    /// It is not sent, or older ones are not.
    Dropped,
    /// The peer was disconnected.
    Evicted,
    Closed,
}

/// An outbox as those see it who send messages.
pub(crate) trait Outbound<M>: Outlet {
    /// Takes a message of a sender if there is room for it. Tells how many bytes wait now.
    fn push(&self, message: M) -> Result<usize, PushError<M>>;
    /// Takes the bytes of a message, encoded by [`encode`](Self::encode) of an outbox with the same codec.
    fn push_encoded(&self, message: &[u8], overflow: Overflow) -> Pushed;
    /// As [`push_encoded`](Self::push_encoded), of a message that may be on a roll as well.
    fn push_shared(&self, message: &Shared, overflow: Overflow) -> Pushed;
    /// The oldest messages may have to go one day, whoever sent them.
    fn keep_sizes(&self);
    /// Which codec this is.
    fn codec_id(&self) -> u64;
    /// Encodes a message without sending it.
    fn encode(&self, message: M) -> Result<Bytes, Error>;
    fn into_outlet(self: Arc<Self>) -> Arc<dyn Outlet>;
    /// Has what was pushed written, now or with the current batch.
    fn announce(self: Arc<Self>, pending: usize);
}
