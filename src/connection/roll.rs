//! Messages for many: their bytes are there once, and each member's outbox only remembers which of them are its own.
//!
//! A thread that fans out appends each message, encoded, to a *roll*. A member whose outbox is empty gets a *run* of it:
//! a beginning and an end, of which the next message moves the end. At the end of the batch the run is written straight
//! from the roll to the member's socket. Only what the socket does not take is copied, and all that comes to a member
//! whose outbox holds something else.

use std::sync::Arc;
use std::task::Context;

use bytes::{Bytes, BytesMut};

use super::core::Core;
use super::outlet::WriteHalf;
use super::pending::Pending;
use super::pool;
use super::stage::Staged;
use crate::sync::{Mutex, lock};

/// Encoded messages, one after the other. It only grows while somebody has a part of it.
#[derive(Default)]
pub(super) struct Roll {
    bytes: Mutex<BytesMut>,
}

/// An encoded message for many.
pub(crate) struct Shared {
    pub(super) bytes: Bytes,
    /// Where it is on a roll, if it is not too large for one.
    pub(super) span: Option<Span>,
}

/// One message on a roll.
pub(super) struct Span {
    roll: Arc<Roll>,
    start: u32,
    end: u32,
}

/// Messages on a roll, without a gap.
pub(super) struct Run {
    roll: Arc<Roll>,
    start: u32,
    end: u32,
    messages: u32,
    largest: u32,
}

impl Span {
    fn len(&self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }
}

impl Run {
    /// In bytes.
    pub(super) fn len(&self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }
}

/// The rolls of a thread, by the codec that filled them.
#[derive(Default)]
pub(super) struct Rolls {
    rolls: Vec<(u64, Arc<Roll>)>,
    /// Bytes on all of them since the batch began. Nobody is charged for these, so they are few; what comes after is copied
    /// into the outboxes, and charged there.
    used: usize,
}

impl Rolls {
    /// Appends a message, where it is not too much.
    pub(super) fn add(&mut self, codec: u64, message: &[u8]) -> Option<Span> {
        let used = self.used.saturating_add(message.len());
        if used > pool::KEEP {
            return None;
        }
        self.used = used;
        let known = self.rolls.iter().position(|(known, _)| *known == codec);
        let at = known.unwrap_or_else(|| {
            self.rolls.push((codec, Arc::default()));
            self.rolls.len() - 1
        });
        let (_, roll) = self.rolls.get(at)?;
        let mut bytes = lock(&roll.bytes);
        let (start, end) = (bytes.len(), bytes.len() + message.len());
        bytes.extend_from_slice(message);
        Some(Span { roll: Arc::clone(roll), start: u32::try_from(start).ok()?, end: u32::try_from(end).ok()? })
    }

    /// The batch is over. One roll is kept for the next, where nobody has a part of it.
    pub(super) fn clear(&mut self) {
        self.used = 0;
        self.rolls.truncate(1);
        self.rolls.retain_mut(|(_, roll)| match Arc::get_mut(roll) {
            Some(roll) => {
                lock(&roll.bytes).clear();
                true
            }
            None => false,
        });
    }
}

impl<C, W: WriteHalf> Pending<C, W> {
    /// Takes a message as a run, where nothing else waits and `limit` bytes have room for it. Tells how many bytes wait.
    #[inline]
    pub(super) fn take_run(&mut self, span: &Span, limit: usize) -> Option<usize> {
        if W::MESSAGES || !self.buffer.is_empty() || self.sizes.is_some() || self.blocked || self.ended || self.away {
            return None;
        }
        let size = span.end.saturating_sub(span.start);
        match &mut self.run {
            None if span.len() <= limit => {
                let (roll, start, end) = (Arc::clone(&span.roll), span.start, span.end);
                self.run = Some(Run { roll, start, end, messages: 1, largest: size });
                Some(span.len())
            }
            Some(run)
                if run.end == span.start && Arc::ptr_eq(&run.roll, &span.roll) && run.len() + span.len() <= limit =>
            {
                run.end = span.end;
                run.messages += 1;
                run.largest = run.largest.max(size);
                Some(run.len())
            }
            _ => None,
        }
    }

    /// Takes the run into the buffer, which is empty while there is one.
    pub(super) fn own_run(&mut self, core: &Core) {
        let Some(run) = self.run.take() else { return };
        self.prepare();
        self.buffer
            .extend_from_slice(lock(&run.roll.bytes).get(run.start as usize..run.end as usize).unwrap_or_default());
        self.appended(core, run.len(), run.messages.into(), run.largest as usize);
    }

    /// Writes the run; what the transport does not take now goes into the buffer.
    pub(super) fn write_run(&mut self, core: &Core, cx: &mut Context<'_>) {
        let Some(run) = self.run.take() else { return };
        let bytes = lock(&run.roll.bytes);
        let own = bytes.get(run.start as usize..run.end as usize).unwrap_or_default();
        self.take_staged(core, cx, Staged::new(own, run.messages.into(), run.largest as usize));
    }
}
