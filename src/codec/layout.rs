//! Where a length prefix stands and what it counts: the general case.

use bytes::{Bytes, BytesMut};

use super::{
    CodecError, Unencodable,
    frames::Found,
    prefix::{MAX_WIDTH, Prefix},
    take::take,
};

#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) prefix: Prefix,
    /// Bytes before the prefix.
    pub(super) offset: usize,
    /// Bytes after the prefix beyond its value.
    pub(super) adjustment: i64,
    pub(super) counts_itself: bool,
    pub(super) keep_prefix: bool,
    /// It is the default: found out once, not for each message.
    pub(super) plain: bool,
}

/// What a prefix says, checked against the limit.
pub(super) struct Head {
    /// Bytes the prefix takes.
    width: usize,
    /// Bytes the message takes on the wire.
    pub(super) wire: u64,
    /// Bytes of the message as delivered, at most the limit.
    message: usize,
}

impl Layout {
    /// Reads the length of the message at the start of `src`, if it is there yet.
    pub(super) fn head(&self, limit: usize, src: &[u8]) -> Result<Option<Head>, CodecError> {
        let Some(from_prefix) = src.get(self.offset..) else {
            return Ok(None);
        };
        let Some((value, width)) = self.prefix.read(from_prefix)? else {
            return Ok(None);
        };

        // Every term fits in 65 bits, so none of these sums can saturate.
        let least = self.least_value(width);
        let rest = i128::from(value).saturating_sub(least);
        if rest < 0 {
            return Err(CodecError::BadLength { value, least: clamp(least) });
        }
        let joined = rest.saturating_add(self.offset as i128);
        let wire = joined.saturating_add(width as i128);
        let message = if self.keep_prefix { wire } else { joined };
        if message > limit as i128 {
            return Err(CodecError::TooLong { limit: limit as u64, seen: clamp(message) });
        }
        Ok(Some(Head { width, wire: clamp(wire), message: message as usize }))
    }

    /// The value a prefix of `width` bytes has when nothing follows it.
    fn least_value(&self, width: usize) -> i128 {
        let itself = if self.counts_itself { width as i128 } else { 0 };
        itself.saturating_sub(i128::from(self.adjustment))
    }

    pub(super) fn decode(&self, limit: usize, src: &mut BytesMut) -> Result<Option<Bytes>, CodecError> {
        Ok(self.find(limit, src)?.map(|found| take(src, found.start, found.end.saturating_sub(found.start))))
    }

    /// Where the first message stands, with the offset bytes joined to the rest.
    pub(super) fn find(&self, limit: usize, src: &mut [u8]) -> Result<Option<Found>, CodecError> {
        let Some(head) = self.head(limit, src)? else {
            return Ok(None);
        };
        if (src.len() as u64) < head.wire {
            return Ok(None);
        }
        let start = if self.keep_prefix { 0 } else { head.width };
        if !self.keep_prefix {
            // Moves them over the prefix.
            src.copy_within(..self.offset, head.width);
        }
        let end = start.saturating_add(head.message);
        Ok(Some(Found { start, end, next: end }))
    }

    pub(super) fn encode(&self, limit: usize, message: &[u8], dst: &mut BytesMut) -> Result<(), CodecError> {
        let len = message.len() as u64;
        if message.len() > limit {
            let limit = limit as u64;
            return Err(Unencodable::TooLong { limit, len }.into());
        }
        if self.keep_prefix {
            return match self.head(limit, message) {
                Ok(Some(head)) if head.wire == len => {
                    dst.extend_from_slice(message);
                    Ok(())
                }
                _ => Err(Unencodable::WrongPrefix { len }.into()),
            };
        }
        let Some((before, rest)) = message.split_at_checked(self.offset) else {
            let least = self.offset as u64;
            return Err(Unencodable::TooShort { least, len }.into());
        };
        let value = self.value(rest.len(), len)?;
        dst.reserve(message.len().saturating_add(MAX_WIDTH));
        dst.extend_from_slice(before);
        self.prefix.write(value, dst);
        dst.extend_from_slice(rest);
        Ok(())
    }

    /// The value of the prefix in front of `rest` bytes, in a message of `len`.
    fn value(&self, rest: usize, len: u64) -> Result<u64, Unencodable> {
        let rest = rest as i128;
        // A varint that counts itself is wider for a greater value and has a
        // greater value if wider: the narrowest that fits is the one.
        let mut width = self.prefix.width(0);
        let value = loop {
            let value = rest.saturating_add(self.least_value(width));
            let fits = self.prefix.width(clamp(value));
            if fits <= width {
                break value;
            }
            width = fits;
        };
        if value < 0 {
            return Err(Unencodable::TooShort { least: len.saturating_add(value.unsigned_abs() as u64), len });
        }
        let max = self.prefix.max();
        let spare = i128::from(max).saturating_sub(value);
        if spare < 0 {
            return Err(Unencodable::PrefixOverflow { limit: len.saturating_sub(spare.unsigned_abs() as u64), len });
        }
        Ok(clamp(value))
    }
}

/// As near as a `u64` gets.
fn clamp(value: i128) -> u64 {
    u64::try_from(value.max(0)).unwrap_or(u64::MAX)
}
