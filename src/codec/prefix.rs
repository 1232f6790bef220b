//! Length prefixes: integers of a fixed width, and varints.

use bytes::{Buf, BufMut, BytesMut};

use super::CodecError;

/// The most bytes a prefix takes.
pub(super) const MAX_WIDTH: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prefix {
    /// Big-endian, of 1 to 8 bytes.
    Big(u8),
    /// Little-endian, of 1 to 8 bytes.
    Little(u8),
    /// LEB128, of 1 to 10 bytes.
    Varint,
}

impl Prefix {
    /// The value at the start of `src` and how many bytes it takes there, or
    /// `None` if it is not all there yet.
    #[inline]
    pub(super) fn read(self, mut src: &[u8]) -> Result<Option<(u64, usize)>, CodecError> {
        let (value, width) = match self {
            Self::Big(width) => (src.try_get_uint(usize::from(width)), width),
            Self::Little(width) => (src.try_get_uint_le(usize::from(width)), width),
            Self::Varint => return read_varint(src),
        };
        Ok(value.ok().map(|value| (value, usize::from(width))))
    }

    /// Appends `value`, which must not exceed [`max`](Self::max).
    pub(super) fn write(self, mut value: u64, dst: &mut BytesMut) {
        match self {
            Self::Big(width) => dst.put_uint(value, usize::from(width)),
            Self::Little(width) => dst.put_uint_le(value, usize::from(width)),
            Self::Varint => {
                while value >= 0x80 {
                    dst.put_u8(value as u8 | 0x80);
                    value >>= 7;
                }
                dst.put_u8(value as u8);
            }
        }
    }

    /// How many bytes `value` takes.
    pub(super) fn width(self, value: u64) -> usize {
        match self {
            Self::Big(width) | Self::Little(width) => usize::from(width),
            Self::Varint => {
                let bits = u64::BITS.saturating_sub((value | 1).leading_zeros());
                bits.div_ceil(7) as usize
            }
        }
    }

    /// The greatest value that can be written.
    pub(super) const fn max(self) -> u64 {
        match self {
            Self::Big(width) | Self::Little(width) => {
                let unused = u64::BITS.saturating_sub((width as u32).saturating_mul(8));
                u64::MAX.wrapping_shr(unused)
            }
            Self::Varint => u64::MAX,
        }
    }
}

fn read_varint(src: &[u8]) -> Result<Option<(u64, usize)>, CodecError> {
    let mut value = 0;
    let places = (0..u64::BITS).step_by(7).zip(1..);
    for (&byte, (shift, width)) in src.iter().zip(places) {
        let bits = u64::from(byte & 0x7f);
        let placed = bits.wrapping_shl(shift);
        // Only the tenth byte can have bits that are shifted out.
        if placed.wrapping_shr(shift) != bits {
            return Err(CodecError::BadVarint);
        }
        value |= placed;
        if byte < 0x80 {
            return Ok(Some((value, width)));
        }
    }
    if src.len() >= MAX_WIDTH {
        return Err(CodecError::BadVarint);
    }
    Ok(None)
}
