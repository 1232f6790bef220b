//! The connection as its owner sees it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use futures::{Sink, Stream};
use tokio::time::{Instant, Sleep, sleep_until};

use super::closed::{CloseReason, Closed, Failure};
use super::core::{ConnectionId, Core, discard};
use super::link::{Link, Received};
use super::outbox::{Admits, Outbound, PushError, Until};
use super::sender::{Sender, TrySendError};
use super::{batch, pool, pump};
use crate::error::Error;
use crate::peer::Peer;

/// After so many messages without a wait, other tasks get their turn.
const TURN: u32 = 256;

/// One peer. What comes in is `In`, what goes out is `Out`; which transport and which codec carry them is its own
/// business.
///
/// A server's connection belongs to a task that writes what was sent whenever the session waits: a burst of messages
/// leaves in one write, and nobody calls flush. A connection made with [`connect`](crate::connect) is polled by its
/// owner's task: [`send`](Self::send) writes at once, [`feed`](Self::feed) collects.
///
/// It is also a [`Stream`] and a [`Sink`].
///
/// Dropping it closes it in order: what was sent still goes out.
pub struct Connection<In, Out = In> {
    /// Never locked: it makes the connection `Sync`, so that a handler may hold `&Connection` across an await.
    owned: Mutex<Owned<In, Out>>,
    out: Arc<dyn Outbound<Out>>,
    core: Arc<Core>,
    /// Messages since the last wait.
    turn: u32,
    /// As a stream it has given its error.
    spent: bool,
    /// As a sink it has promised room for a message.
    promised: bool,
    /// Where no task of ours drives the connection: until when an incomplete message must be whole.
    timer: Option<Pin<Box<Sleep>>>,
}

/// What only the owner uses.
struct Owned<In, Out> {
    link: Option<Box<dyn Link<In, Out>>>,
    /// The message that has just come, until it is taken.
    slot: Option<In>,
}

/// What a session waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// It is to be taken.
    Message,
    /// Nothing came for the idle time.
    Idle,
    /// The server has begun to drain.
    Drain,
    /// No further messages.
    End,
    /// The connection broke; the core has the cause.
    Failed(CloseReason),
}

impl<In, Out> Connection<In, Out>
where
    In: Send + 'static,
    Out: Send + 'static,
{
    pub(crate) fn new(link: Box<dyn Link<In, Out>>, out: Arc<dyn Outbound<Out>>) -> Self {
        let core = Arc::clone(out.core());
        let owned = Mutex::new(Owned { link: Some(link), slot: None });
        Self { owned, out, core, turn: 0, spent: false, promised: false, timer: None }
    }

    /// Its id, unique within this process.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.core.id
    }

    /// The other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.core.peer
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// A handle to send from elsewhere.
    #[must_use]
    pub fn sender(&self) -> Sender<Out> {
        Sender::new(Arc::clone(&self.out))
    }

    pub(crate) fn outbound(&self) -> &Arc<dyn Outbound<Out>> {
        &self.out
    }

    /// When the server's drain will cut this connection, if it drains.
    ///
    /// From then on [`recv`](Self::recv) gives `None` as soon as nothing has arrived that it could give.
    #[must_use]
    pub fn draining(&self) -> Option<Instant> {
        self.core.drain_deadline()
    }

    /// Bytes that wait to be sent.
    #[must_use]
    pub fn unsent_bytes(&self) -> usize {
        self.out.pending()
    }

    /// The next message, or `None` when there will be no more: the peer has ended its side, or the connection was
    /// [closed](Self::close), or the server drains. After the peer's end, [`send`](Self::send) still works.
    ///
    /// # Errors
    /// If the connection broke, a deadline passed, or what came cannot be decoded: [`Error::close_reason`] tells.
    ///
    /// # Cancel safety
    /// A dropped future loses nothing: what has arrived in part stays in the connection.
    pub async fn recv(&mut self) -> Result<Option<In>, Error> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<In>, Error>> {
        if self.core.is_disturbed() && self.core.drain_deadline().is_some() {
            self.core.finish_when_idle();
        }
        let Poll::Ready(event) = self.poll_event(cx, false) else {
            if self.core.is_disturbed() && self.core.drain_deadline().is_some() && !self.core.is_finishing() {
                // it has just begun
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        };
        match event {
            Event::Message => Poll::Ready(Ok(self.take_message())),
            Event::Idle => {
                // a handler that waits for a message itself: `None` would say that there will be none
                self.core.fail(CloseReason::Idle);
                Poll::Ready(Err(self.error(CloseReason::Idle)))
            }
            Event::Failed(reason) => Poll::Ready(Err(self.error(reason))),
            _ => Poll::Ready(Ok(None)),
        }
    }

    fn error(&self, reason: CloseReason) -> Error {
        let error = Error::closed(reason);
        match self.core.failure().and_then(|failure| failure.cause.clone()) {
            Some(cause) => error.because(Box::new(Shared(cause)) as crate::error::BoxError),
            None => error,
        }
    }

    /// The next thing to do. Who `wants_drain` is told of a drain, again and again.
    pub(crate) fn poll_event(&mut self, cx: &mut Context<'_>, wants_drain: bool) -> Poll<Event> {
        if self.core.is_disturbed() {
            if let Some(event) = self.disturbance(wants_drain) {
                return Poll::Ready(event);
            }
        }
        let Owned { link: Some(link), slot } = self.owned.get_mut().unwrap_or_else(PoisonError::into_inner) else {
            return Poll::Ready(Event::End);
        };
        self.turn += 1;
        if self.turn >= TURN {
            self.turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match link.poll_recv(cx, &self.core, slot) {
            Poll::Ready(Received::Message) => {
                self.core.count_message_in();
                self.core.deadlines.handles();
                self.core.take_idle();
                return Poll::Ready(Event::Message);
            }
            Poll::Ready(Received::End) => {
                self.core.peer_ended();
                return Poll::Ready(Event::End);
            }
            Poll::Ready(Received::Failed(failure)) => {
                let reason = failure.reason;
                self.core.fail(*failure);
                return Poll::Ready(Event::Failed(reason));
            }
            Poll::Pending => {}
        }
        self.turn = 0;
        if self.core.take_idle() {
            return Poll::Ready(Event::Idle);
        }
        let partial = link.holds_part();
        if self.core.is_finishing() && !partial {
            return Poll::Ready(Event::End);
        }
        let clock_starts = self.core.deadlines.waits(partial);
        if batch::is_polled_by_driver(&self.core, cx) {
            return Poll::Pending;
        }
        // also where the connection's own task polls us, but not with its own waker: between it and us there is a set of
        // futures, of which it polls only those that were woken
        self.core.reader.register(cx.waker());
        if !self.is_driven() {
            self.wait_undriven(cx, clock_starts);
        }
        if self.core.failure().is_some() || (wants_drain && self.core.drain_deadline().is_some()) {
            // it came before the waker was there
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// The message of an [`Event::Message`].
    #[inline]
    pub(crate) fn take_message(&mut self) -> Option<In> {
        self.owned.get_mut().unwrap_or_else(PoisonError::into_inner).slot.take()
    }

    /// What there is to know before the next message.
    #[cold]
    fn disturbance(&self, wants_drain: bool) -> Option<Event> {
        if let Some(failure) = self.core.failure() {
            return Some(Event::Failed(failure.reason));
        }
        if self.core.is_closing() {
            return Some(Event::End);
        }
        (wants_drain && self.core.drain_deadline().is_some()).then_some(Event::Drain)
    }

    /// What otherwise the connection's task does when its session waits.
    fn wait_undriven(&mut self, cx: &mut Context<'_>, clock_starts: bool) {
        match &self.core.runtime {
            // a server's connection that was handed to another task: its own keeps the deadlines
            None if clock_starts => self.core.wake_driver(),
            None => {}
            Some(runtime) => match self.core.deadlines.next_in(&self.core.limits) {
                None => self.timer = None,
                Some((at, reason)) => {
                    let _context = runtime.enter();
                    let at = self.core.deadlines.instant(at);
                    let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
                    if timer.deadline() != at {
                        timer.as_mut().reset(at);
                    }
                    if timer.as_mut().poll(cx).is_ready() {
                        self.core.fail(reason);
                    }
                }
            },
        }
        if !self.core.quiet.load(Ordering::Relaxed) {
            Arc::clone(&self.out).into_outlet().flush_for_owner();
        }
    }

    /// Whether the task that polls us writes the outbox.
    fn is_driven(&self) -> bool {
        batch::is_driving(&self.core)
    }

    /// Sends a message, waiting for room in the outbox where there is none. After it, the message goes out without
    /// further calls.
    ///
    /// # Errors
    /// If the connection is closed, or the codec refuses the message; that alone leaves the connection as it was.
    ///
    /// # Cancel safety
    /// If the future is dropped before it is ready, the message was not sent.
    pub async fn send(&mut self, message: Out) -> Result<(), Error> {
        match self.push(message) {
            Ok(pending) if pending < self.core.watermark() && self.is_driven() => Ok(()),
            Ok(pending) => self.pushed(pending, true).await,
            Err(error) => self.push_later(error, true).await,
        }
    }

    /// As [`send`](Self::send), but the message may stay in the outbox until it is full, until the next
    /// [`flush`](Self::flush) or [`send`](Self::send), or until [`recv`](Self::recv) waits.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn feed(&mut self, message: Out) -> Result<(), Error> {
        match self.push(message) {
            Ok(pending) if pending < self.core.watermark() => Ok(()),
            Ok(pending) => self.pushed(pending, false).await,
            Err(error) => self.push_later(error, false).await,
        }
    }

    /// Sends a message if there is room for it in the outbox.
    ///
    /// # Errors
    /// [`TrySendError`], with the message where it was not looked at.
    pub fn try_send(&mut self, message: Out) -> Result<(), TrySendError<Out>> {
        match self.push(message) {
            Ok(pending) => {
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

    /// Encodes a message, onto the stage where nothing waits before it, else into the outbox if that has room. Tells how
    /// many bytes wait now.
    #[inline]
    fn push(&mut self, message: Out) -> Result<usize, PushError<Out>> {
        self.put(message, false)
    }

    /// As [`push`](Self::push). A message that was `promised` room is taken though somebody else has filled that in the
    /// meantime.
    #[inline]
    fn put(&mut self, message: Out, promised: bool) -> Result<usize, PushError<Out>> {
        let Some(link) = &mut self.owned.get_mut().unwrap_or_else(PoisonError::into_inner).link else {
            return Err(PushError::Closed(message));
        };
        if batch::is_driving(&self.core)
            && self.core.quiet.load(Ordering::Relaxed)
            && batch::staged() < self.core.watermark()
        {
            return batch::stage(|buffer| link.encode(message, buffer)).map_err(PushError::Encode);
        }
        match self.out.admits() {
            Admits::Yes if !self.core.is_broken() => {}
            Admits::Full if promised && !self.core.is_broken() => {}
            Admits::Full if !self.core.is_broken() => return Err(PushError::Full(message)),
            _ => return Err(PushError::Closed(message)),
        }
        let mut buffer = pool::take_write();
        match link.encode(message, &mut buffer) {
            Ok(()) => Ok(self.out.append(buffer)),
            Err(error) => {
                pool::give_write(buffer);
                Err(PushError::Encode(error))
            }
        }
    }

    /// After a message got in: has it written where nobody else does, or where there is much.
    async fn pushed(&self, pending: usize, announce: bool) -> Result<(), Error> {
        if self.is_driven() {
            self.write_some().await;
        } else if announce || pending >= self.core.watermark() {
            Arc::clone(&self.out).announce(pending);
        }
        self.check()
    }

    /// Waits for room, as often as it takes.
    async fn push_later(&mut self, mut error: PushError<Out>, announce: bool) -> Result<(), Error> {
        loop {
            let message = match error {
                PushError::Full(message) => message,
                PushError::Closed(_) => return Err(self.error(self.core.reason())),
                PushError::Encode(error) => return Err(error),
            };
            poll_fn(|cx| self.poll_room(cx)).await?;
            match self.push(message) {
                Ok(pending) if announce || pending >= self.core.watermark() => {
                    return self.pushed(pending, announce).await;
                }
                Ok(_) => return Ok(()),
                Err(again) => error = again,
            }
        }
    }

    fn check(&self) -> Result<(), Error> {
        if self.core.is_broken() { Err(self.error(self.core.reason())) } else { Ok(()) }
    }

    /// Writes what the transport takes now. Never waits, so that a send is ready once its message is in.
    async fn write_some(&self) {
        poll_fn(|cx| {
            let _ = self.out.poll_flush(cx);
            Poll::Ready(())
        })
        .await;
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_until(cx, Until::Room)
    }

    fn poll_until(&self, cx: &mut Context<'_>, until: Until) -> Poll<Result<(), Error>> {
        self.check()?;
        if self.out.waits(cx, until) {
            self.core.writer.register(cx.waker());
            if self.is_driven() {
                let _ = self.out.poll_flush(cx);
            } else {
                Arc::clone(&self.out).into_outlet().flush_for_owner();
            }
            self.check()?;
            if self.out.waits(cx, until) {
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
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

    /// Closes the connection in order: everything that was sent goes out, then the end. From here on nothing is
    /// received, and nothing can be sent.
    ///
    /// # Errors
    /// If the connection broke before everything was out.
    ///
    /// # Cancel safety
    /// A dropped future does not take the close back.
    pub async fn close(&mut self) -> Result<(), Error> {
        self.core.start_closing();
        self.out.end();
        self.flush().await?;
        poll_fn(|cx| self.out.poll_shutdown(cx)).await;
        self.core.deadlines.half_closes();
        Ok(())
    }

    /// Has the connection closed at the next message boundary: what has arrived whole is still received, then
    /// [`recv`](Self::recv) gives `None`. It is what the default [`Handler::on_drain`](crate::Handler::on_drain) does.
    pub fn close_when_idle(&mut self) {
        self.core.finish_when_idle();
    }

    /// Breaks the connection off. What has not been sent is lost; a TCP peer sees a reset.
    pub fn abort(&mut self) {
        self.end(CloseReason::Aborted);
        self.out.release(true);
        discard(self.take_link());
    }

    pub(crate) fn end(&self, failure: impl Into<Failure>) {
        self.core.fail(failure);
    }

    /// How the connection ended, once nothing of it is open any more.
    pub(crate) async fn into_closed(self) -> Closed {
        let core = Arc::clone(&self.core);
        drop(self);
        wait_closed(&core).await
    }
}

impl<In, Out> Connection<In, Out> {
    fn take_link(&mut self) -> Option<Box<dyn Link<In, Out>>> {
        self.owned.get_mut().unwrap_or_else(PoisonError::into_inner).link.take()
    }
}

/// Waits until nothing of the connection is open any more.
pub(crate) async fn wait_closed(core: &Core) -> Closed {
    loop {
        let mut changes = pin!(core.room.notified());
        changes.as_mut().enable();
        if let Some(closed) = core.closed() {
            return closed.clone();
        }
        changes.await;
    }
}

impl<In, Out> Drop for Connection<In, Out> {
    fn drop(&mut self) {
        self.out.end();
        if self.core.runtime.is_none() {
            // the task ends it; until then the socket is open, and holds its slot
            let link = self.take_link();
            if self.core.is_broken() {
                discard(link);
                self.core.release(None);
            } else {
                self.core.release(link.map(Link::into_remainder));
            }
            return;
        }
        self.core.release(None);
        let outlet = Arc::clone(&self.out).into_outlet();
        match self.take_link().map(Link::into_remainder) {
            // else nothing is to be sent, and nothing to be waited for
            Some(remainder) if !self.core.is_broken() && (self.out.pending() > 0 || !remainder.ended()) => {
                pump::start_last(outlet, remainder);
            }
            _ => pump::finish(&*outlet),
        }
    }
}

// a message is never pinned in its slot
impl<In, Out> Unpin for Connection<In, Out> {}

impl<In, Out> Stream for Connection<In, Out>
where
    In: Send + 'static,
    Out: Send + 'static,
{
    type Item = Result<In, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // after an error the stream is at its end
        if self.spent {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_recv(cx)).transpose();
        self.spent = matches!(next, Some(Err(_)));
        Poll::Ready(next)
    }
}

impl<In, Out> Sink<Out> for Connection<In, Out>
where
    In: Send + 'static,
    Out: Send + 'static,
{
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if !self.promised {
            ready!(self.poll_room(cx))?;
            self.promised = true;
        }
        Poll::Ready(Ok(()))
    }

    fn start_send(mut self: Pin<&mut Self>, message: Out) -> Result<(), Error> {
        let promised = std::mem::take(&mut self.promised);
        match self.put(message, promised) {
            Ok(_) => Ok(()),
            Err(PushError::Encode(error)) => Err(error),
            Err(PushError::Closed(_)) => Err(self.error(self.core.reason())),
            Err(PushError::Full(_)) => {
                Err(Error::new(crate::error::ErrorKind::Config, "start_send without poll_ready: the outbox is full"))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_until(cx, Until::Empty)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.core.start_closing();
        self.out.end();
        ready!(self.poll_until(cx, Until::Empty))?;
        self.out.poll_shutdown(cx).map(Ok)
    }
}

impl<In, Out> fmt::Debug for Connection<In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({} with {})", self.core.id, self.core.peer)
    }
}

/// The error behind an end, which the connection's [`Closed`] holds as well.
#[derive(Debug)]
struct Shared(Arc<dyn std::error::Error + Send + Sync>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}
