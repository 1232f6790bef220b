//! The outgoing side: messages are encoded at once into a bounded buffer, which the connection's task, or whoever has
//! just filled it, writes to the transport.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use tokio_util::codec::Encoder;

use super::closed::{CloseReason, Failure};
use super::core::{Core, caught, discard};
use super::link::encode_error;
use super::outlet::{Admits, Outbound, Outlet, PushError, Pushed, Totals, Until, WriteHalf};
use super::pending::Pending;
use super::roll::Shared;
use super::sender::Overflow;
use super::{batch, pump};
use crate::error::{BoxError, Error, ErrorKind};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard, lock};
#[cfg(feature = "tls")]
use crate::tls::{Lower, TlsWrite};

/// The codec that an endpoint was bound with. Each connection's is a clone; a group encodes with one of its own.
pub(crate) struct Prototype<C> {
    id: u64,
    codec: Mutex<C>,
}

impl<C: Clone> Prototype<C> {
    pub(crate) fn new(codec: C) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self { id: NEXT.fetch_add(1, Ordering::Relaxed), codec: Mutex::new(codec) })
    }

    pub(crate) fn codec(&self) -> C {
        lock(&self.codec).clone()
    }
}

/// A write has just found that the transport takes no more.
type NewlyBlocked = bool;

pub(crate) struct Outbox<C, W> {
    core: Arc<Core>,
    prototype: Arc<Prototype<C>>,
    /// Whose batch has this outbox on its list: the thread that put it there last.
    listed: AtomicUsize,
    out: Mutex<Pending<C, W>>,
}

/// The outbox under its lock. When that is given back, the core knows whether anything waits.
struct Locked<'a, C, W: WriteHalf> {
    core: &'a Core,
    out: MutexGuard<'a, Pending<C, W>>,
}

impl<C, W: WriteHalf> Deref for Locked<'_, C, W> {
    type Target = Pending<C, W>;

    fn deref(&self) -> &Pending<C, W> {
        &self.out
    }
}

impl<C, W: WriteHalf> DerefMut for Locked<'_, C, W> {
    fn deref_mut(&mut self) -> &mut Pending<C, W> {
        &mut self.out
    }
}

impl<C, W: WriteHalf> Drop for Locked<'_, C, W> {
    fn drop(&mut self) {
        // a message transport, and whoever drops the oldest, must know each message
        let nothing = self.buffer.is_empty() && self.run.is_none();
        let quiet = nothing && self.sizes.is_none() && !self.ended && self.core.failure().is_none();
        self.core.quiet.store(quiet, Ordering::Relaxed);
        self.core.traffic.sets_waiting(self.buffer.len());
        let held = self.out.held();
        self.core.charge(&mut self.out.charged, held);
    }
}

impl<C, W> Outbox<C, W>
where
    C: Send + 'static,
    W: WriteHalf,
{
    pub(crate) fn new(core: Arc<Core>, prototype: Arc<Prototype<C>>, half: W) -> Arc<Self> {
        let outbox = Arc::new(Self {
            core,
            prototype,
            listed: AtomicUsize::new(batch::NOBODY),
            out: Mutex::new(Pending::new(half)),
        });
        if !outbox.core.has_driver() {
            let me: Weak<Self> = Arc::downgrade(&outbox);
            let _ = outbox.core.outlet().set(me);
        }
        outbox
    }

    /// The lock, for reading or changing what waits: with what the owner has on the stage, if it is the owner's task that
    /// asks, so that its messages keep their order.
    #[inline]
    fn out(&self) -> Locked<'_, C, W> {
        let mut locked = Locked { core: &self.core, out: lock(&self.out) };
        locked.out.own_run(&self.core);
        if batch::is_driving(&self.core) {
            let Locked { core, out } = &mut locked;
            let out = std::cell::RefCell::new(&mut **out);
            batch::unstage(
                |bytes, messages, largest| out.borrow_mut().append(core, bytes, messages, largest),
                |staged| out.borrow_mut().append_staged(core, staged),
            );
        }
        locked
    }

    /// The lock, for adding a message. A full outbox is only the peer's doing where the transport takes nothing: what
    /// waits may have been put there since anybody has last written, so that is done first.
    #[inline]
    fn out_with_room(&self, is_full: impl Fn(&Pending<C, W>) -> bool) -> Locked<'_, C, W> {
        let out = self.out();
        if !is_full(&out) || out.blocked || out.ended {
            return out;
        }
        drop(out);
        batch::unlimited(|| self.write_for_owner());
        self.out()
    }

    /// Writes as anybody but the driver.
    fn write_for_owner(&self) {
        let (_, newly_blocked) = self.write(&mut Context::from_waker(Waker::noop()), false);
        if newly_blocked {
            self.leave_to_driver();
        }
    }

    /// From here on it is the driver that waits for the transport.
    fn leave_to_driver(&self) {
        if self.core.has_driver() {
            self.core.wake_driver();
        } else if let Some(me) = self.core.outlet().get().and_then(Weak::upgrade) {
            pump::start(me);
        }
    }

    /// Whoever waits for what there is now hears of it, and nobody else: a task that is woken for nothing asks again.
    fn freed(&self, out: &mut Pending<C, W>) -> Option<Waker> {
        if !out.awaited && out.owner.is_none() {
            return None;
        }
        let limit = self.core.limits.outbox();
        if out.has_room(limit) && std::mem::take(&mut out.awaited) {
            self.core.tell_room();
        }
        match out.owner.take() {
            Some(owner) if out.is_done(owner.0, limit) => Some(owner.1),
            still_waits => {
                out.owner = still_waits;
                None
            }
        }
    }

    fn write(&self, cx: &mut Context<'_>, as_owner: bool) -> (Poll<()>, NewlyBlocked) {
        let mut locked = Locked { core: &self.core, out: lock(&self.out) };
        let out = &mut *locked;
        out.write_run(&self.core, cx);
        if batch::is_driving(&self.core) {
            batch::unstage_with(|staged| out.take_staged(&self.core, cx, staged));
        }
        let was_blocked = out.blocked;
        if was_blocked && !as_owner {
            return (Poll::Pending, false);
        }
        let result = out.poll_write(&self.core, cx);
        let newly_blocked = out.blocked && !was_blocked;
        let owner = self.freed(out);
        drop(locked);
        if let Some(owner) = owner {
            owner.wake();
        }
        let done = result.map(|result| {
            if let Err(error) = result {
                self.core.fail(Failure::io(error));
            }
        });
        (done, newly_blocked)
    }
}

impl<C, W> Outlet for Outbox<C, W>
where
    C: Send + 'static,
    W: WriteHalf,
{
    fn core(&self) -> &Arc<Core> {
        &self.core
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.write(cx, true).0
    }

    fn flush_for_owner(&self) {
        self.listed.store(batch::NOBODY, Ordering::Release);
        self.write_for_owner();
    }

    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.write(cx, true).0);
        let mut locked = self.out();
        let out = &mut *locked;
        out.ended = true;
        if out.poll_shutdown(&self.core, cx).is_ready() {
            return Poll::Ready(());
        }
        // whoever else writes the rest of it takes the place of this task at the transport
        out.owner = Some(Box::new((Until::Empty, cx.waker().clone())));
        drop(locked);
        self.leave_to_driver();
        Poll::Pending
    }

    fn release(&self, abort: bool) {
        let mut locked = self.out();
        let out = &mut *locked;
        out.ended = true;
        // an end in the midst of what was to be sent must not look like one in order
        let abort = abort || !out.buffer.is_empty() || out.blocked;
        self.core.loses(out.buffer.len());
        out.buffer = BytesMut::new();
        if let Some(sizes) = &mut out.sizes {
            sizes.clear();
        }
        if let (Some(half), true) = (&mut out.half, abort) {
            half.abort();
        }
        let (half, codec) = (out.half.take(), out.codec.take());
        let owner = out.owner.take();
        drop(locked);
        drop(half);
        discard(codec);
        self.core.tell_room();
        if let Some(owner) = owner {
            owner.1.wake();
        }
    }

    #[cfg(feature = "tls")]
    fn take_half(&self) -> Option<(Lower, BytesMut)> {
        let mut locked = self.out();
        let out = &mut *locked;
        let taken = out.take_half(&self.core)?;
        let owner = self.freed(out);
        drop(locked);
        if let Some(owner) = owner {
            owner.wake();
        }
        Some(taken)
    }

    #[cfg(feature = "tls")]
    fn put_tls(&self, tls: TlsWrite) {
        self.out().put_tls(tls);
        batch::unlimited(|| self.write_for_owner());
    }

    fn settle(&self) {
        drop(self.out());
    }

    fn end(&self) {
        self.out().ended = true;
    }

    fn admits(&self) -> Admits {
        let limit = self.core.limits.outbox();
        let mut out = self.out_with_room(|out| !out.has_room(limit));
        let admits = out.admits(limit);
        out.awaited |= admits == Admits::Full;
        admits
    }

    fn append(&self, message: BytesMut) -> usize {
        let mut out = self.out();
        let size = message.len();
        out.append(&self.core, message, 1, size);
        out.buffer.len()
    }

    fn pending(&self) -> usize {
        self.out().cost()
    }

    fn totals(&self) -> Totals {
        let waiting = self.out().buffer.len() as u64;
        let (core, traffic) = (&self.core, &self.core.traffic);
        Totals { bytes: traffic.bytes_out(), messages: traffic.messages_out(), unsent: core.lost() + waiting }
    }

    fn waits(&self, cx: &mut Context<'_>, until: Until) -> bool {
        let mut out = self.out();
        if out.is_done(until, self.core.limits.outbox()) || self.core.is_broken() {
            return false;
        }
        out.owner = Some(Box::new((until, cx.waker().clone())));
        true
    }
}

impl<C, W, M> Outbound<M> for Outbox<C, W>
where
    C: Encoder<M> + Clone + Send + 'static,
    C::Error: Into<BoxError>,
    M: Send + 'static,
    W: WriteHalf,
{
    #[inline]
    fn push(&self, message: M) -> Result<usize, PushError<M>> {
        let limit = self.core.limits.outbox();
        let mut guard = self.out_with_room(|out| !out.has_room(limit));
        let out = &mut *guard;
        match out.admits(limit) {
            Admits::Yes => {}
            Admits::Full => {
                out.awaited = true;
                return Err(PushError::Full(message));
            }
            Admits::Closed => return Err(PushError::Closed(message)),
        }
        out.prepare();
        let before = out.buffer.len();
        let (codec, buffer) = (&mut out.codec, &mut out.buffer);
        // a panic is this connection's, whoever's task it happens in; and no torn message may stay behind
        let encode = || codec.get_or_insert_with(|| Box::new(self.prototype.codec())).encode(message, buffer);
        match caught(encode) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                out.buffer.truncate(before);
                return Err(PushError::Encode(encode_error(error)));
            }
            Err(panic) => {
                out.buffer.truncate(before);
                out.ended = true;
                drop(guard);
                self.core.fail(panic);
                return Err(PushError::Encode(Error::closed(CloseReason::Panic)));
            }
        }
        let size = out.buffer.len().saturating_sub(before);
        out.appended(&self.core, size, 1, size);
        Ok(out.buffer.len())
    }

    fn push_encoded(&self, message: &[u8], overflow: Overflow) -> Pushed {
        let limit = self.core.limits.outbox();
        let mut guard = self.out_with_room(|out| out.is_full_for(message.len(), limit));
        let out = &mut *guard;
        if out.ended || self.core.is_broken() {
            return Pushed::Closed;
        }
        let mut pushed = Pushed::Taken;
        if out.is_full_for(message.len(), limit) {
            match overflow {
                Overflow::DropNewest => return Pushed::Dropped,
                Overflow::DropOldest => {
                    if out.drop_oldest(message.len(), limit) > 0 {
                        pushed = Pushed::Dropped;
                    }
                    if out.is_full_for(message.len(), limit) {
                        return Pushed::Dropped;
                    }
                }
                Overflow::Disconnect => {
                    out.ended = true;
                    drop(guard);
                    self.core.fail(CloseReason::SlowPeer);
                    return Pushed::Evicted;
                }
            }
        }
        if overflow == Overflow::DropOldest {
            out.keep_sizes();
        }
        out.prepare();
        out.buffer.extend_from_slice(message);
        out.appended(&self.core, message.len(), 1, message.len());
        pushed
    }

    #[inline]
    fn push_shared(&self, message: &Shared, overflow: Overflow) -> Pushed {
        // what is on the owner's stage comes before
        let span = message.span.as_ref().filter(|_| !self.core.is_broken() && !batch::is_driving(&self.core));
        let taken = span.and_then(|span| {
            let mut out = lock(&self.out);
            let waiting = out.take_run(span, self.core.limits.outbox())?;
            self.core.quiet.store(false, Ordering::Relaxed);
            self.core.traffic.sets_waiting(waiting);
            Some(())
        });
        match taken {
            Some(()) if self.listed.load(Ordering::Acquire) == batch::here() => Pushed::Listed,
            Some(()) => Pushed::Taken,
            None => self.push_encoded(&message.bytes, overflow),
        }
    }

    fn keep_sizes(&self) {
        self.out().keep_sizes();
    }

    fn codec_id(&self) -> u64 {
        self.prototype.id
    }

    fn encode(&self, message: M) -> Result<Bytes, Error> {
        let mut buffer = BytesMut::new();
        let encode = || self.prototype.codec().encode(message, &mut buffer);
        match caught(encode) {
            Ok(Ok(())) => Ok(buffer.freeze()),
            Ok(Err(error)) => Err(encode_error(error)),
            Err(_) => Err(Error::new(ErrorKind::Codec, "the codec panicked")),
        }
    }

    fn into_outlet(self: Arc<Self>) -> Arc<dyn Outlet> {
        self
    }

    fn announce(self: Arc<Self>, pending: usize) {
        if pending >= self.core.watermark() {
            batch::unlimited(|| self.flush_for_owner());
            return;
        }
        // on the list of another thread it would wait for that one's batch to end
        let here = batch::here();
        if self.listed.swap(here, Ordering::AcqRel) != here {
            batch::add(self);
        }
    }
}

#[cfg(all(test, hythe_model))]
impl<C, W: WriteHalf> Outbox<C, W> {
    /// Whenever the lock can be had, what is known without it is true.
    pub(super) fn assert_quiet_is_true(&self) {
        let out = lock(&self.out);
        let quiet = self.core.quiet.load(Ordering::Relaxed);
        assert!(
            !quiet || (out.buffer.is_empty() && out.run.is_none() && !out.ended),
            "quiet, and {} bytes wait",
            out.buffer.len()
        );
    }
}
