//! Taking a message out of the receive buffer.

use bytes::{Buf, Bytes, BytesMut};

/// Up to this many bytes a message is copied. That costs no more than a shared
/// reference (measured: 24 ns against 30 ns for 64 bytes, even from 512 to 1024),
/// and a small message then does not keep the whole receive buffer alive.
pub(super) const COPY_MAX: usize = 256;

/// Takes `skip + len` bytes off `src`, which has them, and gives the last `len`.
#[inline(always)]
pub(super) fn take(src: &mut BytesMut, skip: usize, len: usize) -> Bytes {
    let end = skip.saturating_add(len);
    if len <= COPY_MAX {
        if let Some(message) = src.get(skip..end) {
            let message = Bytes::copy_from_slice(message);
            src.advance(end);
            return message;
        }
    }
    // Skipping in the `Bytes` measured a tenth faster than in the `BytesMut`.
    let mut message = src.split_to(end).freeze();
    message.advance(skip);
    message
}
