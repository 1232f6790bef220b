//! Messages with their length in front.

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::{
    Batched, CodecError, DEFAULT_MAX_LENGTH, Framing,
    frames::{Found, sealed},
    layout::Layout,
    prefix::Prefix,
    take::take,
};

/// Messages behind a length prefix.
///
/// On the wire a message is
///
/// ```text
/// | offset bytes | prefix | rest |        rest = prefix's value + adjustment
/// ```
///
/// and the message delivered is the offset bytes and the rest, joined; the prefix
/// is left out unless [`keep_prefix`](Self::keep_prefix) is set. Encoding does
/// the exact reverse.
///
/// PostgreSQL's messages, for example: a type byte, then a 32-bit length that
/// counts itself but not the type.
///
/// ```
/// use bytes::BytesMut;
/// use hythe::codec::LengthDelimited;
/// use tokio_util::codec::Decoder;
///
/// let mut postgres = LengthDelimited::new().offset(1).counts_itself(true);
/// let mut wire = BytesMut::from(&b"Q\0\0\0\x0dselect 1\0"[..]);
/// let message = postgres.decode(&mut wire).unwrap().unwrap();
/// assert_eq!(&message[..], b"Qselect 1\0");
/// ```
///
/// # Errors
///
/// Decoding: [`TooLong`](CodecError::TooLong) as soon as the prefix is there,
/// [`BadLength`](CodecError::BadLength), [`BadVarint`](CodecError::BadVarint),
/// and [`Truncated`](CodecError::Truncated) at the end of the stream. Encoding:
/// [`NotEncodable`](CodecError::NotEncodable) if the message exceeds the limit,
/// does not fit the prefix, or is too short for `offset` and `adjustment`.
#[derive(Clone, Debug)]
pub struct LengthDelimited {
    limit: usize,
    layout: Layout,
}

impl LengthDelimited {
    /// A 4-byte big-endian prefix and messages of up to [`DEFAULT_MAX_LENGTH`].
    #[must_use]
    pub const fn new() -> Self {
        Self {
            limit: DEFAULT_MAX_LENGTH,
            layout: Layout {
                prefix: Prefix::Big(4),
                offset: 0,
                adjustment: 0,
                counts_itself: false,
                keep_prefix: false,
                plain: true,
            },
        }
    }

    /// The prefix takes `width` bytes: 1, 2, 3, 4 (the default) or 8. Keeps the
    /// byte order; after [`varint`](Self::varint) that is big-endian.
    ///
    /// # Panics
    ///
    /// If `width` is none of these.
    #[must_use]
    pub const fn prefix_bytes(mut self, width: usize) -> Self {
        assert!(matches!(width, 1..=4 | 8), "a length prefix takes 1, 2, 3, 4 or 8 bytes");
        self.layout.prefix = match self.layout.prefix {
            Prefix::Little(_) => Prefix::Little(width as u8),
            Prefix::Big(_) | Prefix::Varint => Prefix::Big(width as u8),
        };
        self.settle()
    }

    /// The prefix is big-endian (network byte order, the default). Without effect
    /// on a varint.
    #[must_use]
    pub const fn big_endian(mut self) -> Self {
        if let Prefix::Little(width) = self.layout.prefix {
            self.layout.prefix = Prefix::Big(width);
        }
        self.settle()
    }

    /// The prefix is little-endian. Without effect on a varint.
    #[must_use]
    pub const fn little_endian(mut self) -> Self {
        if let Prefix::Big(width) = self.layout.prefix {
            self.layout.prefix = Prefix::Little(width);
        }
        self.settle()
    }

    /// The prefix is an unsigned LEB128 varint of 1 to 10 bytes, as
    /// [Protocol Buffers](https://protobuf.dev/programming-guides/encoding/#varints)
    /// writes it. Longer than necessary is accepted, and written never.
    #[must_use]
    pub const fn varint(mut self) -> Self {
        self.layout.prefix = Prefix::Varint;
        self.settle()
    }

    /// `bytes` bytes (0 by default) stand before the prefix. They are the start
    /// of the message, in both directions, and count towards its limit.
    #[must_use]
    pub const fn offset(mut self, bytes: usize) -> Self {
        self.layout.offset = bytes;
        self.settle()
    }

    /// What to add to the prefix's value to get the number of bytes that follow
    /// the prefix; 0 by default. Negative if the value counts bytes before it.
    #[must_use]
    pub const fn adjustment(mut self, bytes: i64) -> Self {
        self.layout.adjustment = bytes;
        self.settle()
    }

    /// Whether the prefix's value counts the prefix's own bytes; `false` by
    /// default. Comes on top of [`adjustment`](Self::adjustment).
    #[must_use]
    pub const fn counts_itself(mut self, yes: bool) -> Self {
        self.layout.counts_itself = yes;
        self.settle()
    }

    /// Whether the prefix stays in the message, which then is the bytes exactly as
    /// they came, for passing on; `false` by default. Messages to send must bring
    /// their own prefix, and it is checked.
    #[must_use]
    pub const fn keep_prefix(mut self, yes: bool) -> Self {
        self.layout.keep_prefix = yes;
        self.settle()
    }

    /// The longest message, in bytes, as delivered: after adjustment and with the
    /// offset bytes. [`DEFAULT_MAX_LENGTH`] by default. Holds in both directions.
    #[must_use]
    pub const fn max_length(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// All messages that have arrived at once, without an allocation for each: see [`Batched`].
    #[must_use]
    pub const fn batched(self) -> Batched<Self> {
        Batched::new(self)
    }

    const fn settle(mut self) -> Self {
        self.layout.plain = matches!(
            self.layout,
            Layout { prefix: Prefix::Big(4), offset: 0, adjustment: 0, counts_itself: false, keep_prefix: false, .. }
        );
        self
    }
}

impl LengthDelimited {
    /// Writes what stands before a message of `len` bytes, where that is all that `encode` adds to it. False, and nothing is
    /// written, where it is not.
    pub(crate) fn encode_head(&self, len: usize, dst: &mut BytesMut) -> bool {
        match u32::try_from(len) {
            Ok(prefix) if self.layout.plain && len <= self.limit => {
                dst.extend_from_slice(&prefix.to_be_bytes());
                true
            }
            _ => false,
        }
    }
}

impl Default for LengthDelimited {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder for LengthDelimited {
    type Item = Bytes;
    type Error = CodecError;

    #[inline(always)]
    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Bytes>, CodecError> {
        if !self.layout.plain {
            return self.layout.decode(self.limit, src);
        }
        let Some((prefix, rest)) = src.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*prefix);
        if u64::from(len) > self.limit as u64 {
            // Reports it; kept out of the way here.
            return self.layout.decode(self.limit, src);
        }
        // Not above the limit, which is a `usize`.
        let len = len as usize;
        if rest.len() < len {
            return Ok(None);
        }
        Ok(Some(take(src, 4, len)))
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Bytes>, CodecError> {
        match self.decode(src)? {
            None if !src.is_empty() => Err(CodecError::Truncated {
                have: src.len(),
                need: self.layout.head(self.limit, src)?.map(|head| head.wire),
            }),
            message => Ok(message),
        }
    }
}

impl Encoder<Bytes> for LengthDelimited {
    type Error = CodecError;

    #[inline]
    fn encode(&mut self, message: Bytes, dst: &mut BytesMut) -> Result<(), CodecError> {
        self.write(&message, dst)
    }
}

impl sealed::Sealed for LengthDelimited {}

impl Framing for LengthDelimited {
    #[inline]
    fn find(&mut self, bytes: &mut [u8]) -> Result<Option<Found>, CodecError> {
        if let (true, Some((prefix, rest))) = (self.layout.plain, bytes.split_first_chunk::<4>()) {
            let len = u32::from_be_bytes(*prefix);
            if u64::from(len) <= self.limit as u64 {
                // Not above the limit, which is a `usize`.
                let end = (len as usize).saturating_add(4);
                return Ok((rest.len() >= len as usize).then_some(Found { start: 4, end, next: end }));
            }
        }
        self.layout.find(self.limit, bytes)
    }

    #[inline]
    fn write(&mut self, message: &[u8], dst: &mut BytesMut) -> Result<(), CodecError> {
        match u32::try_from(message.len()) {
            Ok(len) if self.layout.plain && message.len() <= self.limit => {
                dst.reserve(message.len().saturating_add(4));
                dst.extend_from_slice(&len.to_be_bytes());
                dst.extend_from_slice(message);
                Ok(())
            }
            _ => self.layout.encode(self.limit, message, dst),
        }
    }
}
