//! What a session has sent on its own connection since it last waited: encoded, on its thread, without a lock.

use std::io::IoSlice;

use bytes::{Bytes, BytesMut};

use super::pool;

/// The least size, in bytes, of a message that is worth a slice of its own in the write rather than to be copied. (Measured
/// on loopback: 4 KiB 1.07 of the CPU time, 8 KiB 0.92, 64 KiB 0.87.)
pub(super) const APART: usize = 8 << 10;

/// Encoded messages of the connection that is driven. Between two of them the buffer stays here.
#[derive(Default)]
pub(super) struct Stage {
    bytes: BytesMut,
    /// What is to be written in the midst of `bytes`: before which of them, and what.
    apart: Vec<(usize, Bytes)>,
    /// How many bytes of messages are in `apart`.
    elsewhere: usize,
    messages: u64,
    largest: usize,
}

impl Stage {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() + self.elsewhere
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Encodes a message, all of it or but its last part, and tells how many bytes are here. What an error or a panic leaves
    /// behind is taken back.
    #[inline]
    pub(super) fn add<E>(
        &mut self,
        encode: impl FnOnce(&mut BytesMut) -> Result<Option<Bytes>, E>,
    ) -> Result<usize, E> {
        let before = self.len();
        let mut whole = Whole { length: self.bytes.len(), bytes: &mut self.bytes };
        let rest = encode(whole.bytes)?;
        whole.length = whole.bytes.len();
        drop(whole);
        if let Some(rest) = rest {
            self.elsewhere += rest.len();
            self.apart.push((self.bytes.len(), rest));
        }
        self.messages += 1;
        let length = self.len();
        self.largest = self.largest.max(length.saturating_sub(before));
        Ok(length)
    }

    /// Lends out what is here, and is empty afterwards, also after a panic. The buffer stays.
    #[inline]
    pub(super) fn lend<R>(&mut self, take: impl FnOnce(Staged<'_>) -> R) -> R {
        let cleared = Cleared(self);
        let Self { bytes, apart, messages, largest, .. } = &*cleared.0;
        take(Staged { bytes, apart, messages: *messages, largest: *largest })
    }

    fn clear(&mut self) {
        (self.messages, self.largest, self.elsewhere) = (0, 0, 0);
        self.apart.clear();
        if self.bytes.capacity() <= pool::KEEP {
            self.bytes.clear();
        } else {
            self.bytes = BytesMut::new();
        }
    }

    /// Hands over the buffer, where all that is here is in it.
    pub(super) fn hand_over(&mut self) -> Option<(BytesMut, u64, usize)> {
        let all = self.apart.is_empty();
        all.then(|| {
            let (messages, largest) = (std::mem::take(&mut self.messages), std::mem::take(&mut self.largest));
            (std::mem::take(&mut self.bytes), messages, largest)
        })
    }

    /// Takes a buffer back, where there is none. Else it is returned.
    pub(super) fn give_back(&mut self, buffer: BytesMut) -> Option<BytesMut> {
        if self.bytes.capacity() == 0 && buffer.capacity() <= pool::KEEP {
            self.bytes = buffer;
            return None;
        }
        Some(buffer)
    }
}

/// A stage that is empty at the end: what one connection has left there must not become the next one's.
struct Cleared<'a>(&'a mut Stage);

impl Drop for Cleared<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.clear();
    }
}

/// Cuts a buffer back to its whole messages.
struct Whole<'a> {
    bytes: &'a mut BytesMut,
    length: usize,
}

impl Drop for Whole<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.bytes.len() > self.length {
            self.bytes.truncate(self.length);
        }
    }
}

/// Encoded messages on their way.
#[derive(Clone, Copy)]
pub(super) struct Staged<'a> {
    bytes: &'a [u8],
    apart: &'a [(usize, Bytes)],
    pub(super) messages: u64,
    pub(super) largest: usize,
}

impl<'a> Staged<'a> {
    pub(super) fn new(bytes: &'a [u8], messages: u64, largest: usize) -> Self {
        Self { bytes, apart: &[], messages, largest }
    }

    /// All of it, where it is in one piece.
    #[inline]
    pub(super) fn in_one_piece(&self) -> Option<&'a [u8]> {
        self.apart.is_empty().then_some(self.bytes)
    }

    /// The pieces, none of them empty, in their order.
    pub(super) fn pieces(&self) -> Vec<IoSlice<'a>> {
        let mut pieces = Vec::with_capacity(2 * self.apart.len() + 1);
        let mut from = 0;
        for (at, part) in self.apart {
            pieces.push(IoSlice::new(self.bytes.get(from..*at).unwrap_or_default()));
            pieces.push(IoSlice::new(part));
            from = *at;
        }
        pieces.push(IoSlice::new(self.bytes.get(from..).unwrap_or_default()));
        pieces.retain(|piece| !piece.is_empty());
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(stage: &mut Stage, here: &'static [u8], apart: Option<&'static [u8]>) -> Result<usize, &'static str> {
        stage.add(|bytes| {
            bytes.extend_from_slice(here);
            Ok(apart.map(Bytes::from_static))
        })
    }

    #[test]
    fn parts_stand_where_they_were_put_and_count() {
        let mut stage = Stage::default();
        assert_eq!(add(&mut stage, b"one", None), Ok(3));
        assert_eq!(add(&mut stage, b"2:", Some(b"second")), Ok(11));
        assert_eq!(add(&mut stage, b"", Some(b"third")), Ok(16));
        assert_eq!(add(&mut stage, b"four", None), Ok(20));
        assert!(stage.hand_over().is_none(), "not all of it is in the buffer");
        let failed: Result<usize, _> = stage.add(|bytes| {
            bytes.extend_from_slice(b"torn");
            Err("refused")
        });
        assert_eq!((failed, stage.len()), (Err("refused"), 20));
        stage.lend(|staged| {
            assert_eq!((staged.messages, staged.largest), (4, 8));
            assert!(staged.in_one_piece().is_none());
            let pieces = staged.pieces();
            assert_eq!(pieces.len(), 4);
            assert_eq!(pieces.iter().map(|piece| &**piece).collect::<Vec<_>>().concat(), b"one2:secondthirdfour");
        });
        assert_eq!((stage.is_empty(), stage.len()), (true, 0));
        assert_eq!(add(&mut stage, b"one", None), Ok(3));
        stage.lend(|staged| assert_eq!(staged.in_one_piece(), Some(&b"one"[..])));
    }
}
