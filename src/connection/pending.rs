//! What waits to be written: bytes, the messages they are, and the transport that is to take them.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Deref;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BytesMut};

use super::core::Core;
use super::outlet::{Admits, Until, WriteHalf};
use super::roll::Run;
use super::stage::Staged;
use super::{batch, pool};
#[cfg(feature = "tls")]
use crate::tls::{Lower, TlsWrite};

/// What a waiting message of a message transport is charged beyond its bytes: empty ones are not free.
const OVERHEAD: usize = 64;

/// Of messages, in bytes.
type Sizes = VecDeque<usize>;

/// The state of an outbox, under its lock.
pub(super) struct Pending<C, W> {
    /// For what senders send: made when it is first needed, and gone with the transport.
    pub(super) codec: Option<Box<C>>,
    pub(super) half: Option<W>,
    pub(super) buffer: BytesMut,
    /// What waits, where it is on a roll; nothing is in the buffer then.
    pub(super) run: Option<Run>,
    /// The sizes of the waiting messages, where they must be known: on a message transport, or to drop the oldest.
    /// The first may have been sent in part.
    pub(super) sizes: Option<Box<Sizes>>,
    /// The first of `sizes` has been sent in part, or stands for several messages.
    pub(super) first_is_part: bool,
    /// The largest message since nothing waited, for which there must be room.
    pub(super) largest: usize,
    /// What the buffer is charged for, in bytes.
    pub(super) charged: usize,
    /// The transport takes nothing: only the driver tries again.
    pub(super) blocked: bool,
    /// A handshake has the transport.
    pub(super) away: bool,
    pub(super) ended: bool,
    pub(super) shut: bool,
    /// A sender waits for room.
    pub(super) awaited: bool,
    /// The owner's task, and what it waits for.
    pub(super) owner: Option<Box<(Until, Waker)>>,
}

impl<C, W: WriteHalf> Pending<C, W> {
    pub(super) fn new(half: W) -> Self {
        Self {
            codec: None,
            half: Some(half),
            buffer: BytesMut::new(),
            run: None,
            sizes: W::MESSAGES.then(Box::default),
            first_is_part: false,
            largest: 0,
            charged: 0,
            blocked: false,
            away: false,
            ended: false,
            shut: false,
            awaited: false,
            owner: None,
        }
    }

    /// What waits, in bytes, with the overhead that messages are charged.
    pub(super) fn cost(&self) -> usize {
        let overhead = if W::MESSAGES { self.sizes.as_ref().map_or(0, |sizes| sizes.len() * OVERHEAD) } else { 0 };
        self.buffer.len() + overhead
    }

    /// The memory that it holds, in bytes. A buffer that is about to be written is still the thread's.
    pub(super) fn held(&self) -> usize {
        let sizes = self.sizes.as_ref().map_or(0, |sizes| sizes.capacity() * size_of::<usize>());
        let buffer = if self.blocked { self.buffer.capacity() } else { self.buffer.len() };
        buffer + sizes
    }

    /// Nobody knows for how long it will wait: a whole write buffer is not kept for a few bytes.
    fn park(&mut self) {
        if self.buffer.len() < self.buffer.capacity() / 4 {
            let held = BytesMut::from(self.buffer.as_ref());
            pool::give_write(std::mem::replace(&mut self.buffer, held));
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.buffer.is_empty() && self.sizes.as_ref().is_none_or(|sizes| sizes.is_empty())
    }

    pub(super) fn has_room(&self, limit: usize) -> bool {
        let cost = self.cost();
        cost == 0 || cost + self.largest <= limit
    }

    /// As [`has_room`](Self::has_room), where the message's size is known.
    pub(super) fn is_full_for(&self, size: usize, limit: usize) -> bool {
        !self.is_idle() && self.cost() + size > limit
    }

    pub(super) fn admits(&self, limit: usize) -> Admits {
        match (self.ended, self.has_room(limit)) {
            (true, _) => Admits::Closed,
            (false, true) => Admits::Yes,
            (false, false) => Admits::Full,
        }
    }

    /// Whether the owner's wait is over.
    pub(super) fn is_done(&self, until: Until, limit: usize) -> bool {
        match until {
            Until::Room => self.ended || self.has_room(limit),
            Until::Empty => self.half.is_none() || (self.is_idle() && !self.blocked),
        }
    }

    pub(super) fn prepare(&mut self) {
        if self.buffer.capacity() == 0 {
            self.buffer = pool::take_write();
        }
    }

    /// Takes what the owner has on the stage: straight to the transport, where nothing waits before it.
    pub(super) fn take_staged(&mut self, core: &Core, cx: &mut Context<'_>, staged: Staged<'_>) {
        let first = self.buffer.is_empty() && self.sizes.is_none() && !self.blocked;
        match staged.in_one_piece() {
            _ if !first => self.append_staged(core, staged),
            Some(bytes) => self.take_piece(core, cx, bytes, staged),
            None => self.take_pieces(core, cx, staged),
        }
    }

    #[inline]
    fn take_piece(&mut self, core: &Core, cx: &mut Context<'_>, bytes: &[u8], staged: Staged<'_>) {
        let mut rest = bytes;
        if let Some(half) = &mut self.half {
            while let Poll::Ready(Ok(written @ 1..)) = half.poll_write(cx, rest) {
                core.traffic.count_out(written);
                core.show_written(rest.get(..written).unwrap_or(rest));
                rest = rest.get(written..).unwrap_or_default();
                if rest.is_empty() {
                    break;
                }
            }
        }
        self.took(core, &[rest], rest.len() < bytes.len(), staged);
    }

    #[cold]
    fn take_pieces(&mut self, core: &Core, cx: &mut Context<'_>, staged: Staged<'_>) {
        let mut pieces = staged.pieces();
        let mut rest = pieces.as_mut_slice();
        let mut some = false;
        if let Some(half) = &mut self.half {
            while let Poll::Ready(Ok(written @ 1..)) = half.poll_write_vectored(cx, rest) {
                core.traffic.count_out(written);
                if let Some(first) = rest.first() {
                    core.show_written(first.get(..written).unwrap_or(first));
                }
                some = true;
                IoSlice::advance_slices(&mut rest, written);
                if rest.is_empty() {
                    break;
                }
            }
        }
        self.took(core, rest, some, staged);
    }

    /// What was staged is out but for `rest`.
    #[inline]
    fn took(&mut self, core: &Core, rest: &[impl Deref<Target = [u8]>], some: bool, staged: Staged<'_>) {
        // the clock is only read where somebody looks at it
        if some && core.is_peer_ended() {
            core.deadlines.progress();
        }
        let mut left = 0;
        for piece in rest.iter().filter(|piece| !piece.is_empty()) {
            self.prepare();
            self.buffer.extend_from_slice(piece);
            left += piece.len();
        }
        // what is out costs later messages no room
        self.appended(core, left, staged.messages, if left == 0 { 0 } else { staged.largest });
    }

    /// Takes encoded messages, by copying them.
    pub(super) fn append_staged(&mut self, core: &Core, staged: Staged<'_>) {
        self.prepare();
        let mut size = 0;
        for piece in staged.pieces() {
            self.buffer.extend_from_slice(&piece);
            size += piece.len();
        }
        self.appended(core, size, staged.messages, staged.largest);
    }

    /// Takes a buffer of encoded messages as it is, or what is in it.
    pub(super) fn append(&mut self, core: &Core, bytes: BytesMut, messages: u64, largest: usize) {
        let size = bytes.len();
        if self.buffer.is_empty() {
            self.buffer = bytes;
        } else {
            self.buffer.extend_from_slice(&bytes);
            pool::give_write(bytes);
        }
        self.appended(core, size, messages, largest);
    }

    pub(super) fn appended(&mut self, core: &Core, size: usize, messages: u64, largest: usize) {
        core.traffic.count_messages_out(messages);
        self.largest = self.largest.max(largest);
        if let (Some(sizes), true) = (&mut self.sizes, W::MESSAGES || size > 0) {
            sizes.push_back(size);
        }
    }

    /// Writes until everything is out or the transport takes no more.
    pub(super) fn poll_write(&mut self, core: &Core, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.away {
            // whoever has it knows how long that may last
            return Poll::Pending;
        }
        if self.buffer.is_empty() && self.sizes.as_ref().is_none_or(|sizes| sizes.is_empty()) {
            return self.poll_flush(core, cx);
        }
        loop {
            let size = match (&self.sizes, W::MESSAGES) {
                (Some(sizes), true) => sizes.front().copied(),
                _ => (!self.buffer.is_empty()).then_some(self.buffer.len()),
            };
            let (Some(size), Some(half)) = (size, &mut self.half) else { break };
            let next = self.buffer.get(..size).unwrap_or_default();
            let Poll::Ready(result) = half.poll_write(cx, next) else {
                stalls(core, half);
                if !self.blocked {
                    self.blocked = true;
                    self.park();
                }
                return Poll::Pending;
            };
            let written = result?;
            if written == 0 && size > 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            core.traffic.count_out(written);
            core.show_written(self.buffer.get(..written).unwrap_or_default());
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
        batch::give_back(std::mem::take(&mut self.buffer));
        self.poll_flush(core, cx)
    }

    /// After everything was written: a transport may have taken more than it has passed on.
    fn poll_flush(&mut self, core: &Core, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(half) = &mut self.half else { return Poll::Ready(Ok(())) };
        let flushed = half.poll_flush(cx);
        self.blocks(core, flushed.is_pending());
        flushed
    }

    /// Ends the transport's half, after everything was written: its last words may have to wait as well.
    pub(super) fn poll_shutdown(&mut self, core: &Core, cx: &mut Context<'_>) -> Poll<()> {
        if let (Some(half), false) = (&mut self.half, self.shut) {
            if core.has_read_all() && half.ends_by_drop() {
                self.shut = true;
                return Poll::Ready(());
            }
            // an error here says that the peer is gone, and that is what was wanted
            let waits = half.poll_shutdown(cx).is_pending();
            self.blocks(core, waits);
            if waits {
                return Poll::Pending;
            }
        }
        self.shut = true;
        Poll::Ready(())
    }

    /// Takes the half out for a TLS handshake, and what waits for it.
    #[cfg(feature = "tls")]
    pub(super) fn take_half(&mut self, core: &Core) -> Option<(Lower, BytesMut)> {
        let half = self.half.as_mut()?.take_lower()?;
        let waits = std::mem::take(&mut self.buffer);
        if let Some(sizes) = &mut self.sizes {
            sizes.clear();
        }
        self.first_is_part = false;
        self.largest = 0;
        core.traffic.count_out(waits.len());
        core.deadlines.drained();
        (self.away, self.blocked) = (true, true);
        Some((half, waits))
    }

    #[cfg(feature = "tls")]
    pub(super) fn put_tls(&mut self, tls: TlsWrite) {
        if let Some(half) = &mut self.half {
            half.put_tls(tls);
        }
        (self.away, self.blocked) = (false, false);
    }

    fn blocks(&mut self, core: &Core, waits: bool) {
        if let (Some(half), true) = (&mut self.half, waits) {
            self.blocked = true;
            stalls(core, half);
        } else if self.blocked {
            self.blocked = false;
            core.deadlines.drained();
        }
    }

    /// From now on messages are told apart. What waits already was not counted one by one, so it stays together.
    pub(super) fn keep_sizes(&mut self) {
        if self.sizes.is_none() {
            self.first_is_part = !self.buffer.is_empty();
            self.sizes = Some(Box::new(self.first_is_part.then_some(self.buffer.len()).into_iter().collect()));
        }
    }

    /// Makes room for a message of `size` bytes at the expense of the oldest ones that have not been touched.
    pub(super) fn drop_oldest(&mut self, size: usize, limit: usize) -> usize {
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

/// The transport takes no more; it may have passed on some of what it took before.
fn stalls(core: &Core, half: &mut impl WriteHalf) {
    core.deadlines.stalls();
    if half.has_moved() {
        core.deadlines.progress();
    }
}

/// Takes `written` bytes off the sizes of the waiting messages.
fn sent(sizes: &mut Option<Box<Sizes>>, first_is_part: &mut bool, mut written: usize, messages: bool) {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;
    use crate::connection::deadlines::Silence;
    use crate::endpoint::Endpoint;
    use crate::limits::{Limits, Live};
    use crate::peer::{Peer, PeerAddress};

    /// Takes everything, and passes it on as it is told.
    #[derive(Default)]
    struct Holds {
        flushes: bool,
        moves: bool,
    }

    impl WriteHalf for Holds {
        const MESSAGES: bool = false;

        fn poll_write(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.flushes { Poll::Ready(Ok(())) } else { Poll::Pending }
        }

        fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.poll_flush(cx)
        }

        fn has_moved(&mut self) -> bool {
            std::mem::take(&mut self.moves)
        }
    }

    fn new() -> (Core, Pending<(), Holds>) {
        let peer = Peer::new(Arc::new(Endpoint::mem("test").unwrap()), PeerAddress::Memory(0));
        let core = Core::new(peer, Live::new(Limits::edge()), Silence::Stream, None);
        let mut pending = Pending::<(), _>::new(Holds::default());
        pending.append(&core, BytesMut::from(&b"hello"[..]), 1, 5);
        (core, pending)
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_transport_holds_back_is_a_stall_until_it_moves() {
        let (core, mut pending) = new();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(pending.poll_write(&core, &mut cx).is_pending());
        assert!(pending.buffer.is_empty() && !pending.is_done(Until::Empty, 1));
        let deadline = || core.deadlines.next_write(&core.limits);
        let first = deadline().expect("a stall");
        advance(Duration::from_secs(1)).await;
        assert!(pending.poll_write(&core, &mut cx).is_pending());
        assert_eq!(deadline(), Some(first));
        pending.half.as_mut().unwrap().moves = true;
        assert!(pending.poll_write(&core, &mut cx).is_pending());
        assert_eq!(deadline(), Some(first + 1_000_000));
        pending.half.as_mut().unwrap().flushes = true;
        assert!(pending.poll_write(&core, &mut cx).is_ready());
        assert!(deadline().is_none() && pending.is_done(Until::Empty, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_added_meanwhile_waits_for_the_task_that_is_known_to_the_transport() {
        let (core, mut pending) = new();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(pending.poll_write(&core, &mut cx).is_pending());
        pending.take_staged(&core, &mut cx, Staged::new(b"more", 1, 4));
        assert_eq!(&*pending.buffer, b"more");
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_cannot_be_said_is_a_stall() {
        let (core, mut pending) = new();
        let mut cx = Context::from_waker(Waker::noop());
        pending.half.as_mut().unwrap().flushes = true;
        assert!(pending.poll_write(&core, &mut cx).is_ready());
        pending.half.as_mut().unwrap().flushes = false;
        assert!(pending.poll_shutdown(&core, &mut cx).is_pending());
        assert!(core.deadlines.next_write(&core.limits).is_some() && !pending.shut);
        pending.half.as_mut().unwrap().flushes = true;
        assert!(pending.poll_shutdown(&core, &mut cx).is_ready());
        assert!(core.deadlines.next_write(&core.limits).is_none() && pending.shut);
    }
}
