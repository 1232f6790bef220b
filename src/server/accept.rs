//! The accept loop: it never ends on a connection's error, and never spins.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::errno::{AcceptFailure, class};
use super::hub::Hub;
use super::open::Origin;
use super::refusals::Refusal;
use super::slots::Slot;
use super::workers::Seat;
use crate::codec::Codec;
use crate::handler::Session;
use crate::limits::{Limits, Overload, Waits};
use crate::sync::{AtomicWaker, Mutex, lock};
#[cfg(feature = "handover")]
use crate::transport::Duplicate;
use crate::transport::{ByteStream, Listener};

/// After so many accepts other tasks get their turn.
const TURN: u32 = 16;
/// The pause after an exhaustion doubles from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(640));

/// What a server can do to a listener while its task runs.
pub(crate) trait Control: Send + Sync {
    /// Takes nobody new.
    fn stop(&self);
    /// Frees the port or the name, at once.
    fn close(&self);
    /// Has the task look at the pause again.
    fn wake(&self);
    /// Other limits are in force.
    fn adjust(&self, _: &Limits) {}
    /// The socket once more, for another process, where there is one that can be given away.
    #[cfg(feature = "handover")]
    fn duplicate(&self) -> io::Result<Option<Duplicate>> {
        Ok(None)
    }
    /// Whether the socket's file is this process's, to be removed with it.
    #[cfg(feature = "handover")]
    fn owns_name(&self, _: bool) {}
    /// Another process serves the socket from now on.
    #[cfg(feature = "handover")]
    fn hand_over(&self) {
        self.stop();
    }
}

/// A listener that can be closed from outside of its task.
pub(crate) struct Door<L> {
    listener: Mutex<Option<L>>,
    task: AtomicWaker,
    awaits_memory: AtomicBool,
    /// Whose listener it is, where there are several workers.
    worker: usize,
}

impl<L> Door<L> {
    /// That of a worker, the first where there are no others.
    pub(crate) fn new(worker: usize, listener: L) -> Arc<Self> {
        Arc::new(Self {
            listener: Mutex::new(Some(listener)),
            task: AtomicWaker::new(),
            awaits_memory: AtomicBool::new(false),
            worker,
        })
    }
}

impl<L: Listener> Door<L> {
    /// Goes on in the current runtime; the one before has ended.
    pub(crate) fn move_here(&self) -> io::Result<()> {
        self.awaits_memory.store(false, Relaxed);
        lock(&self.listener).as_mut().map_or(Ok(()), Listener::move_here)
    }
}

impl<L: Send> Waits for Door<L> {
    fn memory_is_there(&self) {
        self.awaits_memory.store(false, Relaxed);
        self.task.wake();
    }
}

impl<L: Listener> Control for Door<L> {
    fn stop(&self) {
        self.close();
    }

    fn close(&self) {
        let listener = lock(&self.listener).take();
        drop(listener);
        self.task.wake();
    }

    fn wake(&self) {
        self.task.wake();
    }

    fn adjust(&self, limits: &Limits) {
        if let Some(listener) = &*lock(&self.listener) {
            listener.adjust(limits);
        }
        // the rate may be higher
        self.task.wake();
    }

    #[cfg(feature = "handover")]
    fn duplicate(&self) -> io::Result<Option<Duplicate>> {
        lock(&self.listener).as_ref().map_or(Ok(None), Listener::duplicate)
    }

    #[cfg(feature = "handover")]
    fn owns_name(&self, owns: bool) {
        if let Some(listener) = &mut *lock(&self.listener) {
            listener.owns_name(owns);
        }
    }
}

/// For a task that accepts by itself, whatever the limits.
#[cfg(feature = "handover")]
impl<L: Listener> Door<L> {
    /// The next connection, or `None` when the door is closed.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<io::Result<L::Stream>>> {
        self.task.register(cx.waker());
        match &mut *lock(&self.listener) {
            Some(listener) => listener.poll_accept(cx).map(Some),
            None => Poll::Ready(None),
        }
    }

    pub(crate) fn poll_closed(&self, cx: &Context<'_>) -> Poll<()> {
        self.task.register(cx.waker());
        if lock(&self.listener).is_none() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// What came of a wait for a connection.
enum Arrival<T> {
    Connection(T, Slot, Option<Seat>),
    Refused(T, Refusal),
    Failed(io::Error),
    /// There is no place before this.
    Later(Instant),
    Closed,
}

impl<L: Listener> Door<L> {
    fn poll_accept(self: &Arc<Self>, hub: &Hub, cx: &mut Context<'_>) -> Poll<Arrival<L::Stream>> {
        self.task.register(cx.waker());
        let mut listener = lock(&self.listener);
        let Some(listener) = listener.as_mut() else { return Poll::Ready(Arrival::Closed) };
        if hub.paused.load(Relaxed) {
            return Poll::Pending;
        }
        let limits = hub.limits.get();
        let seat = hub.crew.as_ref().and_then(|crew| crew.pick(self.worker));
        // the stream is registered where the connection is to live
        let mut poll_accept = |cx: &mut Context<'_>| match &seat {
            Some(seat) => seat.within(|| listener.poll_accept(cx)),
            None => listener.poll_accept(cx),
        };
        if limits.overload != Overload::Hold {
            return poll_accept(cx).map(|result| match result {
                Ok(stream) => match hub.admit(&limits) {
                    Ok(slot) => Arrival::Connection(stream, slot, seat),
                    Err(why) => Arrival::Refused(stream, why),
                },
                Err(error) => Arrival::Failed(error),
            });
        }
        if hub.limits.memory.is_exhausted() {
            if !self.awaits_memory.swap(true, Relaxed) {
                hub.limits.memory.wait(Arc::clone(self) as _);
            }
            return Poll::Pending;
        }
        // the slot first, and given back where nobody is there: another listener may have use for it
        let Poll::Ready(slot) = hub.slots.poll_take(cx) else { return Poll::Pending };
        if let Err(at) = hub.rate.take(limits.accept_rate) {
            return Poll::Ready(Arrival::Later(at));
        }
        let accepted = poll_accept(cx);
        if !matches!(accepted, Poll::Ready(Ok(_))) {
            hub.rate.give_back(limits.accept_rate);
        }
        accepted.map(|result| match result {
            Ok(stream) => Arrival::Connection(stream, slot, seat),
            Err(error) => Arrival::Failed(error),
        })
    }
}

/// Accepts until the door is closed.
pub(crate) async fn accept<L, S, C>(door: Arc<Door<L>>, origin: Arc<Origin<S, C>>)
where
    L: Listener,
    S: Session,
    C: Codec<S::In, S::Out>,
{
    let mut spare = Spare::new();
    let mut pause = PAUSES.0;
    let (mut turn, mut failures) = (0, 0);
    loop {
        match std::future::poll_fn(|cx| door.poll_accept(&origin.hub, cx)).await {
            Arrival::Closed => return,
            Arrival::Later(at) => wait(&door, None, at).await,
            Arrival::Failed(error) => {
                let class = class(&error);
                origin.hub.tallies.of(&origin.endpoint).accept_failed(class);
                failures += 1;
                match class {
                    // one after the other without end are not the connections' fault
                    AcceptFailure::Connection if failures % TURN != 0 => {}
                    AcceptFailure::Fatal => {
                        tracing::error!(endpoint = %origin.endpoint, %error, "the listener is broken");
                        door.close();
                        return;
                    }
                    class => {
                        if pause == PAUSES.0 {
                            origin.hub.log.cannot_accept(&origin.endpoint, &error);
                        }
                        if class == AcceptFailure::Exhausted {
                            spare.answer(&door, &origin.hub);
                        }
                        wait(&door, Some(&origin.hub), Instant::now() + pause).await;
                        spare.refill();
                        pause = (pause * 2).min(PAUSES.1);
                    }
                }
            }
            arrival => {
                (pause, failures) = (PAUSES.0, 0);
                match arrival {
                    Arrival::Connection(stream, slot, seat) => settle(&origin, stream, slot, seat),
                    Arrival::Refused(stream, why) => origin.refuse(stream, why),
                    _ => {}
                }
                turn += 1;
                if turn == TURN {
                    turn = 0;
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

/// Has the connection begin where it is to live.
fn settle<S, C>(origin: &Arc<Origin<S, C>>, stream: impl ByteStream, slot: Slot, seat: Option<Seat>)
where
    S: Session,
    C: Codec<S::In, S::Out>,
{
    let Some(seat) = seat else { return origin.take(stream, slot) };
    let (place, elsewhere) = seat.take();
    let slot = slot.at(place);
    match elsewhere {
        None => origin.take(stream, slot),
        Some(runtime) => {
            let origin = Arc::clone(origin);
            runtime.spawn(async move { origin.take(stream, slot) });
        }
    }
}

/// Waits for a time; less, if the door is closed or, with the hub, if a connection of ours has ended and left its
/// descriptor.
async fn wait<L>(door: &Door<L>, hub: Option<&Hub>, until: Instant) {
    let mut timer = std::pin::pin!(sleep_until(until));
    let used = hub.map_or(0, |hub| hub.slots.used());
    std::future::poll_fn(|cx| {
        door.task.register(cx.waker());
        if lock(&door.listener).is_none() {
            return Poll::Ready(());
        }
        if let Some(hub) = hub {
            hub.slots.watch(cx);
            if hub.slots.used() < used {
                return Poll::Ready(());
            }
        }
        timer.as_mut().poll(cx)
    })
    .await;
}

/// A descriptor kept for the time when there is no other: with it, those who wait in the backlog are answered, by a
/// close, instead of left there.
struct Spare(Option<File>);

impl Spare {
    fn new() -> Self {
        let mut spare = Self(None);
        spare.refill();
        spare
    }

    fn refill(&mut self) {
        if self.0.is_none() {
            self.0 = File::open("/dev/null").ok();
        }
    }

    fn answer<L: Listener>(&mut self, door: &Arc<Door<L>>, hub: &Hub) {
        if self.0.take().is_none() {
            return;
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for _ in 0..TURN {
            match door.poll_accept(hub, &mut cx) {
                Poll::Ready(Arrival::Connection(..) | Arrival::Refused(..)) => {}
                _ => break,
            }
        }
        self.refill();
    }
}

#[cfg(test)]
mod tests;
