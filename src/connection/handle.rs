//! The connection as its owner sees it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::time::{Instant, sleep_until};

use super::closed::{CloseReason, Closed, Failure};
use super::core::{ConnectionId, Core, discard};
use super::link::{Link, Received};
use super::outlet::Outbound;
use super::sender::Sender;
use super::{batch, pump};
use crate::error::Error;
use crate::peer::Peer;
use crate::sync::lock;

/// After so many messages without a wait, other tasks get their turn.
const TURN: u32 = 256;

/// One peer. What comes in is `In`, what goes out is `Out`; which transport and which codec carry them is its own
/// business.
///
/// A server's connection belongs to a task that writes what was sent whenever the session waits: a burst of messages
/// leaves in one write, and nobody calls flush. A connection made with [`connect`](crate::connect) is polled by its
/// owner's task: [`send`](Self::send) writes at once, [`feed`](Self::feed) collects.
///
/// It is also a [`Stream`](futures::Stream) and a [`Sink`](futures::Sink).
///
/// Dropping it closes it in order: what was sent still goes out.
pub struct Connection<In, Out = In> {
    /// Never locked: it makes the connection `Sync`, so that a handler may hold `&Connection` across an await.
    pub(super) owned: Mutex<Owned<In, Out>>,
    pub(super) out: Arc<dyn Outbound<Out>>,
    pub(super) core: Arc<Core>,
    /// Messages since the last wait.
    pub(super) turn: u32,
    /// As a stream it has given its error.
    pub(super) spent: bool,
    /// As a sink it has promised room for a message.
    pub(super) promised: bool,
}

/// What only the owner uses.
pub(super) struct Owned<In, Out> {
    pub(super) link: Option<Box<dyn Link<In, Out>>>,
    /// The message that has just come, until it is taken.
    pub(super) slot: Option<In>,
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
        Self { owned, out, core, turn: 0, spent: false, promised: false }
    }

    /// Its id, unique within this process.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.core.id
    }

    /// The other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        self.core.peer()
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// A handle to send from elsewhere.
    #[must_use]
    pub fn sender(&self) -> Sender<Out> {
        Sender::new(Arc::clone(self.outbound()))
    }

    /// The outbox, for others to send as well, after what was sent so far.
    pub(crate) fn outbound(&self) -> &Arc<dyn Outbound<Out>> {
        if self.is_driven() {
            self.out.settle();
        }
        &self.out
    }

    /// When the server's drain will cut this connection, if it drains.
    ///
    /// From then on [`recv`](Self::recv) gives `None` as soon as nothing has arrived that it could give. A peer that had no
    /// time yet to send its first byte gets it, as [`Running::shutdown`](crate::Running::shutdown) says.
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

    pub(super) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<In>, Error>> {
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

    pub(super) fn error(&self, reason: CloseReason) -> Error {
        let error = Error::closed(reason);
        match self.core.failure().and_then(|failure| failure.cause.clone()) {
            Some(cause) => error.because(Box::new(Shared(cause)) as crate::error::BoxError),
            None => error,
        }
    }

    /// The next thing to do. Who `wants_drain` is told of a drain, again and again.
    #[inline]
    pub(crate) fn poll_event(&mut self, cx: &mut Context<'_>, wants_drain: bool) -> Poll<Event> {
        self.core.timing.ends(self.core.deadlines.opened());
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
        let received = link.poll_recv(cx, &self.core, slot);
        if matches!(received, Poll::Ready(Received::Message)) {
            self.core.traffic.count_message_in();
            self.core.deadlines.handles();
            if self.core.limits.handling().is_some() {
                self.core.deadlines.handles_for_limited_time();
            }
            self.core.take_idle();
            self.core.timing.starts(self.core.traffic.messages_in(), self.core.deadlines.opened());
            return Poll::Ready(Event::Message);
        }
        self.no_message(received, cx, wants_drain)
    }

    /// The rest of [`poll_event`](Self::poll_event), less often needed.
    #[inline(never)]
    fn no_message(&mut self, received: Poll<Received>, cx: &mut Context<'_>, wants_drain: bool) -> Poll<Event> {
        match received {
            Poll::Ready(Received::Failed(failure)) => {
                let reason = failure.reason;
                self.core.fail(*failure);
                return Poll::Ready(Event::Failed(reason));
            }
            Poll::Ready(_) => {
                self.core.peer_ended();
                return Poll::Ready(Event::End);
            }
            Poll::Pending => {}
        }
        self.turn = 0;
        if self.core.take_idle() {
            return Poll::Ready(Event::Idle);
        }
        let Owned { link: Some(link), .. } = self.owned.get_mut().unwrap_or_else(PoisonError::into_inner) else {
            return Poll::Ready(Event::End);
        };
        let partial = link.holds_part();
        let mut clock_starts = false;
        if self.core.is_finishing() && !partial {
            if !self.core.is_fresh() {
                return Poll::Ready(Event::End);
            }
            clock_starts = true;
        }
        clock_starts |= self.core.deadlines.waits(partial);
        if batch::is_polled_by_driver(&self.core, cx) {
            return Poll::Pending;
        }
        // also where the connection's own task polls us, but not with its own waker: between it and us there is a set of
        // futures, of which it polls only those that were woken
        self.core.reader().register(cx.waker());
        if !self.is_driven() {
            self.wait_undriven(cx, clock_starts);
        }
        let core = &self.core;
        if core.is_closing() || core.failure().is_some() || (wants_drain && core.drain_deadline().is_some()) {
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
    fn wait_undriven(&self, cx: &mut Context<'_>, clock_starts: bool) {
        match self.core.runtime() {
            // a server's connection that was handed to another task: its own keeps the deadlines
            None if clock_starts => self.core.wake_driver(),
            None => {}
            Some(runtime) => match (lock(self.core.timer()), self.core.deadlines.next(&self.core.limits)) {
                (mut timer, None) => *timer = None,
                (mut timer, Some((at, reason))) => {
                    let _context = runtime.enter();
                    let at = self.core.deadlines.instant(at);
                    let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
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
            self.out.flush_for_owner();
        }
    }

    /// Whether the task that polls us writes the outbox.
    pub(super) fn is_driven(&self) -> bool {
        batch::is_driving(&self.core)
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
        self.finish().await
    }

    /// Ends this side: everything that was sent goes out, then the end. The peer's messages are still received, for
    /// [`Limits::half_close`](crate::Limits::half_close) without progress.
    ///
    /// # Errors
    /// If the connection broke before everything was out.
    ///
    /// # Cancel safety
    /// A dropped future does not take the end back.
    pub async fn finish(&mut self) -> Result<(), Error> {
        self.out.end();
        self.flush().await?;
        let mut waited = false;
        poll_fn(|cx| {
            let shut = self.out.poll_shutdown(cx);
            waited |= shut.is_pending();
            shut
        })
        .await;
        if waited {
            // it may have been over before the end could be said
            self.check()?;
        }
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
}

impl<In, Out> Connection<In, Out> {
    fn take_link(&mut self) -> Option<Box<dyn Link<In, Out>>> {
        self.owned.get_mut().unwrap_or_else(PoisonError::into_inner).link.take()
    }
}

/// Waits until nothing of the connection is open any more.
pub(crate) async fn wait_closed(core: &Core) -> Closed {
    loop {
        let mut changes = pin!(core.room().notified());
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
        if self.core.has_driver() {
            // the task ends it; until then the socket is open, and holds its slot
            let link = self.take_link();
            if self.core.is_broken() {
                discard(link);
                self.core.release(None);
            } else {
                self.core.release(link.map(|link| link.into_remainder(&self.core)));
            }
            return;
        }
        *lock(self.core.timer()) = None;
        self.core.release(None);
        let outlet = Arc::clone(&self.out).into_outlet();
        match self.take_link().map(|link| link.into_remainder(&self.core)) {
            // else nothing is to be sent, and nothing to be waited for
            Some(remainder) if !self.core.is_broken() && (self.out.pending() > 0 || !remainder.ended()) => {
                pump::start_last(outlet, remainder);
            }
            _ => pump::finish(&*outlet),
        }
    }
}

impl<In, Out> fmt::Debug for Connection<In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({} with {})", self.core.id, self.core.peer())
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
