//! Bytes as they come.

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::{CodecError, take::take};

/// No framing: a message is whatever has arrived, at least one byte.
///
/// Where one message ends and the next begins is up to the network and means
/// nothing; only the bytes in their order do. For bytes to pass on, and for
/// protocols that frame themselves.
///
/// # Errors
///
/// None.
///
/// ```
/// use bytes::BytesMut;
/// use hythe::codec::Raw;
/// use tokio_util::codec::Decoder;
///
/// let mut arrived = BytesMut::from("anything");
/// let message = Raw::new().decode(&mut arrived).unwrap().unwrap();
/// assert_eq!(&message[..], b"anything");
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Raw;

impl Raw {
    /// The one and only.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = CodecError;

    #[inline]
    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Bytes>, CodecError> {
        Ok((!src.is_empty()).then(|| take(src, 0, src.len())))
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Bytes>, CodecError> {
        self.decode(src)
    }
}

impl Encoder<Bytes> for Raw {
    type Error = CodecError;

    #[inline]
    fn encode(&mut self, message: Bytes, dst: &mut BytesMut) -> Result<(), CodecError> {
        dst.extend_from_slice(&message);
        Ok(())
    }
}
