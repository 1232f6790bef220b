//! A handle to send on a connection from anywhere.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use super::core::{ConnectionId, Core};
use super::outlet::{Outbound, PushError, Pushed};
use crate::error::Error;
use crate::peer::Peer;

/// What happens to a message for a peer whose outbox is full, where the sender does not wait.
///
/// To wait, there is [`Sender::send`]; to get the message back, [`Sender::try_send`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Overflow {
    /// The new message is dropped.
    #[default]
    DropNewest,
    /// The oldest messages that are not on their way yet are dropped, as many as the new one needs.
    DropOldest,
    /// The connection is closed, with [`CloseReason::SlowPeer`](crate::CloseReason::SlowPeer).
    Disconnect,
}

/// What became of a message that was [pushed](Sender::push).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Delivery {
    /// It is in the outbox.
    Sent,
    /// A message was dropped: this one or older ones, as the [`Overflow`] says.
    Dropped,
    /// The connection is closed, now or since before.
    Closed,
}

/// Why [`try_send`](Sender::try_send) did not take a message.
#[derive(Debug)]
#[non_exhaustive]
pub enum TrySendError<M> {
    /// The outbox is full. Here is the message.
    Full(M),
    /// The connection is closed. Here is the message.
    Closed(M),
    /// The codec refused the message.
    Encode(Error),
}

impl<M> fmt::Display for TrySendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the outbox is full",
            Self::Closed(_) => "the connection is closed",
            Self::Encode(_) => "the codec refused the message",
        })
    }
}

impl<M: fmt::Debug> std::error::Error for TrySendError<M> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Encode(error) => Some(error),
            _ => None,
        }
    }
}

/// Sends on a connection, from any task or thread. Cheap to clone; does not keep the connection open.
///
/// Messages are encoded at once into the connection's outbox, which is bounded in bytes
/// ([`Limits::outbox`](crate::Limits::outbox)) and written together with whatever else waits there.
///
/// ```
/// # use hythe::{Connection, Bytes};
/// # async fn example(conn: &Connection<Bytes>) {
/// let sender = conn.sender();
/// tokio::spawn(async move { sender.send(Bytes::from_static(b"later")).await });
/// # }
/// ```
pub struct Sender<M> {
    out: Arc<dyn Outbound<M>>,
}

impl<M: Send + 'static> Sender<M> {
    pub(crate) fn new(out: Arc<dyn Outbound<M>>) -> Self {
        Self { out }
    }

    fn core(&self) -> &Core {
        self.out.core()
    }

    /// The connection's id.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.core().id
    }

    /// The other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        self.core().peer()
    }

    /// Whether messages can no longer be sent.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        let core = self.core();
        core.is_broken() || core.is_closing() || core.is_released()
    }

    /// Sends a message, waiting for room in the outbox where there is none.
    ///
    /// # Errors
    /// If the connection is closed, or the codec refuses the message.
    ///
    /// # Cancel safety
    /// If the future is dropped before it is ready, the message was not sent.
    pub async fn send(&self, message: M) -> Result<(), Error> {
        let mut message = match self.try_send(message) {
            Err(TrySendError::Full(message)) => message,
            tried => return self.sent(tried),
        };
        loop {
            // enabled before the look at the outbox, so that no notification falls between
            let mut room = pin!(self.core().room().notified());
            room.as_mut().enable();
            message = match self.try_send(message) {
                Err(TrySendError::Full(message)) => message,
                tried => return self.sent(tried),
            };
            room.await;
        }
    }

    fn sent(&self, tried: Result<(), TrySendError<M>>) -> Result<(), Error> {
        tried.map_err(|error| match error {
            TrySendError::Encode(error) => error,
            TrySendError::Closed(_) | TrySendError::Full(_) => Error::closed(self.core().reason()),
        })
    }

    /// Sends a message if there is room for it in the outbox.
    ///
    /// # Errors
    /// [`TrySendError`], with the message where it was not looked at.
    pub fn try_send(&self, message: M) -> Result<(), TrySendError<M>> {
        if self.is_closed() {
            return Err(TrySendError::Closed(message));
        }
        match self.out.push(message) {
            Ok(pending) => {
                Arc::clone(&self.out).announce(pending);
                Ok(())
            }
            Err(PushError::Full(message)) => Err(TrySendError::Full(message)),
            Err(PushError::Closed(message)) => Err(TrySendError::Closed(message)),
            Err(PushError::Encode(error)) => Err(TrySendError::Encode(error)),
        }
    }

    /// Sends a message without waiting; where there is no room for it, `overflow` says what goes.
    ///
    /// # Errors
    /// If the codec refuses the message.
    pub fn push(&self, message: M, overflow: Overflow) -> Result<Delivery, Error> {
        if self.is_closed() {
            return Ok(Delivery::Closed);
        }
        if overflow != Overflow::DropOldest {
            match self.try_send(message) {
                Ok(()) => return Ok(Delivery::Sent),
                Err(TrySendError::Encode(error)) => return Err(error),
                Err(TrySendError::Closed(_)) => return Ok(Delivery::Closed),
                Err(TrySendError::Full(_)) if overflow == Overflow::DropNewest => return Ok(Delivery::Dropped),
                Err(TrySendError::Full(_)) => {}
            }
            self.core().fail(crate::CloseReason::SlowPeer);
            return Ok(Delivery::Closed);
        }
        let bytes = self.out.encode(message)?;
        let delivery = match self.out.push_encoded(&bytes, overflow) {
            Pushed::Taken | Pushed::Listed => Delivery::Sent,
            Pushed::Dropped => Delivery::Dropped,
            Pushed::Evicted | Pushed::Closed => return Ok(Delivery::Closed),
        };
        Arc::clone(&self.out).announce(bytes.len());
        Ok(delivery)
    }

    /// Has the connection closed in order: what was sent still goes out, and its session receives nothing more.
    pub fn close(&self) {
        self.core().start_closing();
        self.out.end();
        self.core().wake();
    }

    /// Breaks the connection off: what waits in its outbox is lost.
    pub fn abort(&self) {
        self.core().fail(crate::CloseReason::Aborted);
    }
}

impl<M> Clone for Sender<M> {
    fn clone(&self) -> Self {
        Self { out: Arc::clone(&self.out) }
    }
}

impl<M> fmt::Debug for Sender<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = self.out.core();
        write!(f, "Sender({} to {})", core.id, core.peer())
    }
}
