//! The owner's side of sending.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, ready};

use super::handle::Connection;
use super::outlet::{Admits, PushError, Until};
use super::sender::TrySendError;
use super::{batch, pool};
use crate::error::Error;

/// The outbox is held by the connection and by the task that drives it. Whoever else holds it may send.
const OWN: usize = 2;

/// Where a message has been put.
#[derive(Clone, Copy, Debug)]
pub(super) enum Put {
    /// On the stage, to be written when the session waits.
    Staged,
    /// Where so many bytes wait that it may be time to write; or nobody will without being told.
    Waits(usize),
}

/// A message on its way into the outbox. Written by hand, as an `async fn` holds the message up to three times, and a
/// connection the room for that all its life.
struct Sending<'a, In, Out> {
    conn: &'a mut Connection<In, Out>,
    /// None when it is in.
    message: Option<Out>,
    /// Has it written where nobody else does.
    announce: bool,
    /// There was no room when it was last tried.
    waits: bool,
}

// a message is never pinned in here
impl<In, Out> Unpin for Sending<'_, In, Out> {}

impl<In, Out> Future for Sending<'_, In, Out>
where
    In: Send + 'static,
    Out: Send + 'static,
{
    type Output = Result<(), Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.waits {
            if let Some(message) = self.message.take() {
                return match self.conn.push(message) {
                    Ok(Put::Staged) => Poll::Ready(Ok(())),
                    other => self.poll_rest(cx, Some(other)),
                };
            }
        }
        self.poll_rest(cx, None)
    }
}

impl<In, Out> Sending<'_, In, Out>
where
    In: Send + 'static,
    Out: Send + 'static,
{
    /// After what came of the first try: waits for room, as often as it takes.
    #[inline(never)]
    fn poll_rest(
        &mut self,
        cx: &mut Context<'_>,
        mut tried: Option<Result<Put, PushError<Out>>>,
    ) -> Poll<Result<(), Error>> {
        loop {
            match tried {
                Some(Ok(Put::Staged)) => return Poll::Ready(Ok(())),
                Some(Ok(Put::Waits(pending))) => return Poll::Ready(self.conn.pushed(cx, pending, self.announce)),
                Some(Err(PushError::Closed(_))) => return Poll::Ready(Err(self.conn.error(self.conn.core.reason()))),
                Some(Err(PushError::Encode(error))) => return Poll::Ready(Err(error)),
                Some(Err(PushError::Full(message))) => (self.message, self.waits) = (Some(message), true),
                None => {}
            }
            ready!(self.conn.poll_room(cx))?;
            let Some(message) = self.message.take() else { return Poll::Ready(Ok(())) };
            tried = Some(self.conn.push(message));
        }
    }
}

impl<In, Out> Connection<In, Out>
where
    In: Send + 'static,
    Out: Send + 'static,
{
    /// Sends a message, waiting for room in the outbox where there is none. After it, the message goes out without
    /// further calls.
    ///
    /// # Errors
    /// If the connection is closed, or the codec refuses the message; that alone leaves the connection as it was.
    ///
    /// # Cancel safety
    /// If the future is dropped before it is ready, the message was not sent.
    pub fn send(&mut self, message: Out) -> impl Future<Output = Result<(), Error>> + Send {
        Sending { conn: self, message: Some(message), announce: true, waits: false }
    }

    /// As [`send`](Self::send), but the message may stay in the outbox until it is full, until the next
    /// [`flush`](Self::flush) or [`send`](Self::send), or until [`recv`](Self::recv) waits.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub fn feed(&mut self, message: Out) -> impl Future<Output = Result<(), Error>> + Send {
        Sending { conn: self, message: Some(message), announce: false, waits: false }
    }

    /// Sends a message if there is room for it in the outbox.
    ///
    /// # Errors
    /// [`TrySendError`], with the message where it was not looked at.
    pub fn try_send(&mut self, message: Out) -> Result<(), TrySendError<Out>> {
        match self.push(message) {
            Ok(Put::Staged) => Ok(()),
            Ok(Put::Waits(pending)) => {
                if !self.is_driven() {
                    Arc::clone(&self.out).announce(pending);
                }
                Ok(())
            }
            Err(PushError::Full(message)) => Err(TrySendError::Full(message)),
            Err(PushError::Closed(message)) => Err(TrySendError::Closed(message)),
            Err(PushError::Encode(error)) => Err(TrySendError::Encode(error)),
        }
    }

    /// Encodes a message, onto the stage where nothing waits before it, else into the outbox if that has room.
    #[inline(always)]
    pub(super) fn push(&mut self, message: Out) -> Result<Put, PushError<Out>> {
        // with a sender elsewhere, what it sends after this must come after this: then only the outbox will do
        let alone = Arc::strong_count(&self.out) <= OWN;
        if !alone || !batch::is_driving(&self.core) || !self.core.quiet.load(Ordering::Relaxed) {
            return self.put(message, false);
        }
        let Some(link) = &mut self.owned.get_mut().unwrap_or_else(PoisonError::into_inner).link else {
            return Err(PushError::Closed(message));
        };
        let watermark = self.core.watermark();
        match batch::stage(watermark, message, |message, buffer| link.encode_apart(message, buffer)) {
            Ok(Ok(staged)) if staged < watermark => Ok(Put::Staged),
            Ok(Ok(staged)) => Ok(Put::Waits(staged)),
            Ok(Err(error)) => Err(PushError::Encode(error)),
            Err(message) => self.put(message, false),
        }
    }

    /// Encodes a message into the outbox, if that has room. A message that was `promised` room is taken though somebody
    /// else has filled that in the meantime.
    #[inline(never)]
    pub(super) fn put(&mut self, message: Out, promised: bool) -> Result<Put, PushError<Out>> {
        let Some(link) = &mut self.owned.get_mut().unwrap_or_else(PoisonError::into_inner).link else {
            return Err(PushError::Closed(message));
        };
        match self.out.admits() {
            Admits::Yes if !self.core.is_broken() => {}
            Admits::Full if promised && !self.core.is_broken() => {}
            Admits::Full if !self.core.is_broken() => return Err(PushError::Full(message)),
            _ => return Err(PushError::Closed(message)),
        }
        let mut buffer = pool::take_write();
        match link.encode(message, &mut buffer) {
            Ok(()) => Ok(Put::Waits(self.out.append(buffer))),
            Err(error) => {
                pool::give_write(buffer);
                Err(PushError::Encode(error))
            }
        }
    }

    /// After a message got into the outbox: has it written where nobody else does, or where there is much.
    fn pushed(&self, cx: &mut Context<'_>, pending: usize, announce: bool) -> Result<(), Error> {
        let much = pending >= self.core.watermark();
        if !self.is_driven() {
            if announce || much {
                Arc::clone(&self.out).announce(pending);
            }
        } else if much {
            // what the transport takes now: a send is ready once its message is in
            let _ = self.out.poll_flush(cx);
        }
        self.check()
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.core.is_broken() { Err(self.error(self.core.reason())) } else { Ok(()) }
    }

    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_until(cx, Until::Room)
    }

    pub(super) fn poll_until(&self, cx: &mut Context<'_>, until: Until) -> Poll<Result<(), Error>> {
        self.check()?;
        if self.out.waits(cx, until) {
            self.core.writer().register(cx.waker());
            if self.is_driven() {
                let _ = self.out.poll_flush(cx);
            } else {
                self.out.flush_for_owner();
            }
            self.check()?;
            if self.out.waits(cx, until) {
                return Poll::Pending;
            }
        }
        Poll::Ready(self.check())
    }

    /// Waits until everything that was sent has been handed to the transport.
    ///
    /// # Errors
    /// If the connection broke before.
    ///
    /// # Cancel safety
    /// A dropped future loses nothing: what is left goes out all the same.
    pub async fn flush(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.poll_until(cx, Until::Empty)).await
    }
}
