//! The outgoing side: messages are encoded at once into a bounded buffer, which the connection's task, or whoever has
//! just filled it, writes to the transport.

use std::collections::VecDeque;
use std::io;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::Encoder;

use super::closed::{CloseReason, Failure};
use super::core::{Core, discard, lock};
use super::link::encode_error;
use super::sender::Overflow;
use super::{batch, pool, pump};
use crate::error::{BoxError, Error, ErrorKind};

/// What a waiting message of a message transport is charged beyond its bytes: empty ones are not free.
const OVERHEAD: usize = 64;

/// The write half of a transport.
pub(crate) trait WriteHalf: Send + 'static {
    /// Whether one write is one message, rather than some bytes of a stream.
    const MESSAGES: bool;
    /// Writes some of `bytes`; on a message transport, which gets one message at a time, all or nothing.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Called before the half is dropped without a shutdown: what is on its way may be thrown away.
    fn abort(&mut self);
}

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

/// An outbox without its message type.
pub(crate) trait Outlet: Send + Sync {
    fn core(&self) -> &Arc<Core>;
    /// Writes what waits, as the task that drives the connection.
    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<()>;
    /// Writes what waits, as anybody else; what is left is the driver's.
    fn flush_for_owner(self: Arc<Self>);
    /// Ends the outgoing side after everything has been written.
    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<()>;
    /// Lets go of the transport. What waits is lost.
    fn release(&self, abort: bool);
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

/// A write has just found that the transport takes no more.
type NewlyBlocked = bool;

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

pub(crate) struct Outbox<C, W> {
    core: Arc<Core>,
    prototype: Arc<Prototype<C>>,
    /// A batch has this outbox on its list.
    listed: AtomicBool,
    out: Mutex<Out<C, W>>,
}

struct Out<C, W> {
    /// Goes with the transport.
    codec: Option<C>,
    half: Option<W>,
    buffer: BytesMut,
    /// The sizes of the waiting messages, where they must be known: on a message transport, or to drop the oldest.
    /// The first may have been sent in part.
    sizes: Option<VecDeque<usize>>,
    /// The first of `sizes` has been sent in part, or stands for several messages.
    first_is_part: bool,
    /// The largest message since nothing waited, for which there must be room.
    largest: usize,
    totals: Totals,
    /// The transport takes nothing: only the driver tries again.
    blocked: bool,
    ended: bool,
    shut: bool,
    /// A sender waits for room.
    awaited: bool,
    /// The owner's task, and what it waits for.
    owner: Option<(Until, Waker)>,
}

impl<C, W: WriteHalf> Out<C, W> {
    /// What waits, in bytes, with the overhead that messages are charged.
    fn cost(&self) -> usize {
        let overhead = if W::MESSAGES { self.sizes.as_ref().map_or(0, |sizes| sizes.len() * OVERHEAD) } else { 0 };
        self.buffer.len() + overhead
    }

    fn is_idle(&self) -> bool {
        self.buffer.is_empty() && self.sizes.as_ref().is_none_or(VecDeque::is_empty)
    }

    fn has_room(&self, limit: usize) -> bool {
        let cost = self.cost();
        cost == 0 || cost + self.largest <= limit
    }

    fn admits(&self, limit: usize) -> Admits {
        match (self.ended, self.has_room(limit)) {
            (true, _) => Admits::Closed,
            (false, true) => Admits::Yes,
            (false, false) => Admits::Full,
        }
    }

    /// Whether the owner's wait is over.
    fn is_done(&self, until: Until, limit: usize) -> bool {
        match until {
            Until::Room => self.ended || self.has_room(limit),
            Until::Empty => self.half.is_none() || self.is_idle(),
        }
    }

    fn prepare(&mut self) {
        if self.buffer.capacity() == 0 {
            self.buffer = pool::take_write();
        }
    }

    /// Takes what the owner has on the stage: straight to the transport, where nothing waits before it.
    fn take_staged(&mut self, core: &Core, cx: &mut Context<'_>, bytes: &[u8], messages: u64, largest: usize) {
        let mut rest = bytes;
        if let (true, Some(half)) = (self.buffer.is_empty() && self.sizes.is_none(), &mut self.half) {
            while let Poll::Ready(Ok(written @ 1..)) = half.poll_write(cx, rest) {
                self.totals.bytes += written as u64;
                rest = rest.get(written..).unwrap_or_default();
                if rest.is_empty() {
                    break;
                }
            }
            // the clock is only read where somebody looks at it
            if core.is_peer_ended() && rest.len() < bytes.len() {
                core.deadlines.progress();
            }
        }
        if !rest.is_empty() {
            self.prepare();
            self.buffer.extend_from_slice(rest);
        }
        self.appended(rest.len(), messages, largest);
    }

    /// Takes a buffer of encoded messages as it is, or what is in it.
    fn append(&mut self, bytes: BytesMut, messages: u64, largest: usize) {
        let size = bytes.len();
        if self.buffer.is_empty() {
            self.buffer = bytes;
        } else {
            self.buffer.extend_from_slice(&bytes);
            pool::give_write(bytes);
        }
        self.appended(size, messages, largest);
    }

    fn appended(&mut self, size: usize, messages: u64, largest: usize) {
        self.totals.messages += messages;
        self.largest = self.largest.max(largest);
        if let Some(sizes) = &mut self.sizes {
            sizes.push_back(size);
        }
    }

    /// Writes until everything is out or the transport takes no more.
    fn poll_write(&mut self, core: &Core, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(half) = &mut self.half else {
            return Poll::Ready(Ok(()));
        };
        if self.buffer.is_empty() && self.sizes.as_ref().is_none_or(VecDeque::is_empty) {
            return half.poll_flush(cx);
        }
        loop {
            let size = match (&self.sizes, W::MESSAGES) {
                (Some(sizes), true) => sizes.front().copied(),
                _ => (!self.buffer.is_empty()).then_some(self.buffer.len()),
            };
            let Some(size) = size else { break };
            let next = self.buffer.get(..size).unwrap_or_default();
            let Poll::Ready(result) = half.poll_write(cx, next) else {
                self.blocked = true;
                core.deadlines.stalls();
                return Poll::Pending;
            };
            let written = result?;
            if written == 0 && size > 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.totals.bytes += written as u64;
            sent(&mut self.sizes, &mut self.first_is_part, written, W::MESSAGES);
            if written == self.buffer.len() {
                self.buffer.clear();
            } else {
                self.buffer.advance(written);
            }
            // the clock is only read where somebody looks at it
            if self.blocked || !self.buffer.is_empty() || core.is_peer_ended() {
                core.deadlines.progress();
            }
        }
        // a large message that is out costs later ones no room
        self.largest = 0;
        if self.blocked {
            self.blocked = false;
            core.deadlines.drained();
        }
        batch::give_back(std::mem::take(&mut self.buffer));
        half.poll_flush(cx)
    }

    /// From now on messages are told apart. What waits already was not counted one by one, so it stays together.
    fn keep_sizes(&mut self) {
        if self.sizes.is_none() {
            self.first_is_part = !self.buffer.is_empty();
            self.sizes = Some(self.first_is_part.then_some(self.buffer.len()).into_iter().collect());
        }
    }

    /// Makes room for a message of `size` bytes at the expense of the oldest ones that have not been touched.
    fn drop_oldest(&mut self, size: usize, limit: usize) -> usize {
        let mut dropped = 0;
        while self.cost() + size > limit {
            let Some(sizes) = &mut self.sizes else { break };
            let part = if self.first_is_part { sizes.front().copied().unwrap_or(0) } else { 0 };
            let Some(old) = sizes.remove(usize::from(self.first_is_part)) else { break };
            // the part that is on its way moves up to the message after the one that goes
            self.buffer.copy_within(..part, old);
            self.buffer.advance(old);
            dropped += 1;
        }
        dropped
    }
}

/// Takes `written` bytes off the sizes of the waiting messages.
fn sent(sizes: &mut Option<VecDeque<usize>>, first_is_part: &mut bool, mut written: usize, messages: bool) {
    let Some(sizes) = sizes else { return };
    if messages {
        sizes.pop_front();
        return;
    }
    while let Some(first) = sizes.front_mut() {
        if *first > written {
            if written > 0 {
                *first -= written;
                *first_is_part = true;
            }
            return;
        }
        written -= *first;
        sizes.pop_front();
        *first_is_part = false;
    }
}

/// The outbox under its lock. When that is given back, the core knows whether anything waits.
struct Locked<'a, C, W: WriteHalf> {
    core: &'a Core,
    out: MutexGuard<'a, Out<C, W>>,
}

impl<C, W: WriteHalf> Deref for Locked<'_, C, W> {
    type Target = Out<C, W>;

    fn deref(&self) -> &Out<C, W> {
        &self.out
    }
}

impl<C, W: WriteHalf> DerefMut for Locked<'_, C, W> {
    fn deref_mut(&mut self) -> &mut Out<C, W> {
        &mut self.out
    }
}

impl<C, W: WriteHalf> Drop for Locked<'_, C, W> {
    fn drop(&mut self) {
        // a message transport, and whoever drops the oldest, must know each message
        let quiet = self.buffer.is_empty() && self.sizes.is_none() && !self.ended && self.core.failure().is_none();
        self.core.quiet.store(quiet, Ordering::Relaxed);
    }
}

impl<C, W> Outbox<C, W>
where
    W: WriteHalf,
{
    pub(crate) fn new(core: Arc<Core>, prototype: Arc<Prototype<C>>, codec: C, half: W) -> Arc<Self> {
        Arc::new(Self {
            core,
            prototype,
            listed: AtomicBool::new(false),
            out: Mutex::new(Out {
                codec: Some(codec),
                half: Some(half),
                buffer: BytesMut::new(),
                sizes: W::MESSAGES.then(VecDeque::new),
                first_is_part: false,
                largest: 0,
                totals: Totals::default(),
                blocked: false,
                ended: false,
                shut: false,
                awaited: false,
                owner: None,
            }),
        })
    }

    /// The lock, for reading or changing what waits: with what the owner has on the stage, if it is the owner's task that
    /// asks, so that its messages keep their order.
    #[inline]
    fn out(&self) -> Locked<'_, C, W> {
        let mut locked = Locked { core: &self.core, out: lock(&self.out) };
        if batch::is_driving(&self.core) {
            batch::unstage(|bytes, messages, largest| locked.append(bytes, messages, largest));
        }
        locked
    }

    /// Whoever waits for what there is now hears of it, and nobody else: a task that is woken for nothing asks again.
    fn freed(&self, out: &mut Out<C, W>) -> Option<Waker> {
        if !out.awaited && out.owner.is_none() {
            return None;
        }
        let limit = self.core.limits.outbox;
        if out.has_room(limit) && std::mem::take(&mut out.awaited) {
            self.core.room.notify_waiters();
        }
        match out.owner.take() {
            Some((until, waker)) if out.is_done(until, limit) => Some(waker),
            still_waits => {
                out.owner = still_waits;
                None
            }
        }
    }

    fn write(&self, cx: &mut Context<'_>, as_owner: bool) -> (Poll<()>, NewlyBlocked) {
        let mut locked = Locked { core: &self.core, out: lock(&self.out) };
        let out = &mut *locked;
        if batch::is_driving(&self.core) {
            batch::unstage_with(|bytes, messages, largest| out.take_staged(&self.core, cx, bytes, messages, largest));
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

    fn flush_for_owner(self: Arc<Self>) {
        self.listed.store(false, Ordering::Release);
        let (_, newly_blocked) = self.write(&mut Context::from_waker(Waker::noop()), false);
        if newly_blocked {
            // from here on it is the driver that waits for the transport
            if self.core.runtime.is_some() {
                pump::start(self);
            } else {
                self.core.wake_driver();
            }
        }
    }

    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.write(cx, true).0);
        let mut locked = self.out();
        let out = &mut *locked;
        out.ended = true;
        if out.shut {
            return Poll::Ready(());
        }
        if let Some(half) = &mut out.half {
            // an error here says that the peer is gone, and that is what was wanted
            let _ = ready!(half.poll_shutdown(cx));
        }
        out.shut = true;
        Poll::Ready(())
    }

    fn release(&self, abort: bool) {
        let mut locked = self.out();
        let out = &mut *locked;
        out.ended = true;
        out.totals.unsent += out.buffer.len() as u64;
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
        self.core.room.notify_waiters();
        if let Some((_, owner)) = owner {
            owner.wake();
        }
    }

    fn end(&self) {
        self.out().ended = true;
    }

    fn admits(&self) -> Admits {
        let mut out = self.out();
        let admits = out.admits(self.core.limits.outbox);
        out.awaited |= admits == Admits::Full;
        admits
    }

    fn append(&self, message: BytesMut) -> usize {
        let mut out = self.out();
        let size = message.len();
        out.append(message, 1, size);
        out.buffer.len()
    }

    fn pending(&self) -> usize {
        self.out().cost()
    }

    fn totals(&self) -> Totals {
        let out = self.out();
        Totals { unsent: out.totals.unsent + out.buffer.len() as u64, ..out.totals }
    }

    fn waits(&self, cx: &mut Context<'_>, until: Until) -> bool {
        let mut out = self.out();
        if out.is_done(until, self.core.limits.outbox) || self.core.is_broken() {
            return false;
        }
        out.owner = Some((until, cx.waker().clone()));
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
        let mut guard = self.out();
        let out = &mut *guard;
        match out.admits(self.core.limits.outbox) {
            Admits::Yes => {}
            Admits::Full => {
                out.awaited = true;
                return Err(PushError::Full(message));
            }
            Admits::Closed => return Err(PushError::Closed(message)),
        }
        out.prepare();
        let before = out.buffer.len();
        let (Some(codec), buffer) = (&mut out.codec, &mut out.buffer) else {
            return Err(PushError::Closed(message));
        };
        // a panic is this connection's, whoever's task it happens in; and no torn message may stay behind
        match catch_unwind(AssertUnwindSafe(|| codec.encode(message, buffer))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                out.buffer.truncate(before);
                return Err(PushError::Encode(
                    Error::new(ErrorKind::Codec, "a message cannot be encoded").because(error),
                ));
            }
            Err(_) => {
                out.buffer.truncate(before);
                out.ended = true;
                drop(guard);
                self.core.fail(CloseReason::Panic);
                return Err(PushError::Encode(Error::closed(CloseReason::Panic)));
            }
        }
        let size = out.buffer.len().saturating_sub(before);
        out.appended(size, 1, size);
        Ok(out.buffer.len())
    }

    fn push_encoded(&self, message: &[u8], overflow: Overflow) -> Pushed {
        let limit = self.core.limits.outbox;
        let mut guard = self.out();
        let out = &mut *guard;
        if out.ended || self.core.is_broken() {
            return Pushed::Closed;
        }
        let mut pushed = Pushed::Taken;
        if !out.is_idle() && out.cost() + message.len() > limit {
            match overflow {
                Overflow::DropNewest => return Pushed::Dropped,
                Overflow::DropOldest => {
                    if out.drop_oldest(message.len(), limit) > 0 {
                        pushed = Pushed::Dropped;
                    }
                    if out.cost() + message.len() > limit && !out.is_idle() {
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
        out.appended(message.len(), 1, message.len());
        pushed
    }

    fn keep_sizes(&self) {
        lock(&self.out).keep_sizes();
    }

    fn codec_id(&self) -> u64 {
        self.prototype.id
    }

    fn encode(&self, message: M) -> Result<Bytes, Error> {
        let mut buffer = BytesMut::new();
        let encode = || self.prototype.codec().encode(message, &mut buffer);
        match catch_unwind(AssertUnwindSafe(encode)) {
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
            self.flush_for_owner();
        } else if !self.listed.swap(true, Ordering::AcqRel) {
            batch::add(self);
        }
    }
}
