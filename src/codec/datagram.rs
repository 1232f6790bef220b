//! One datagram, one message.

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::{CodecError, Unencodable, take::take};

/// A message is one datagram, the empty one included.
///
/// For message transports (UDP, WebSocket, shared memory), which keep the
/// boundaries: `decode` must be called once for each datagram, with all of it. On
/// a byte stream there is no boundary to find, and `decode` never says `None`;
/// use [`LengthDelimited`](super::LengthDelimited) there.
///
/// # Errors
///
/// [`TooLong`](CodecError::TooLong) for a datagram above the limit, and
/// [`NotEncodable`](CodecError::NotEncodable) for a message above it.
///
/// ```
/// use bytes::BytesMut;
/// use hythe::codec::Datagram;
/// use tokio_util::codec::Decoder;
///
/// let message = Datagram::new().decode(&mut BytesMut::new()).unwrap();
/// assert_eq!(message.as_deref(), Some(&b""[..]));
/// ```
#[derive(Clone, Debug)]
pub struct Datagram {
    limit: usize,
}

impl Datagram {
    /// The longest payload of a UDP datagram over IPv4, in bytes: 65,535 less the
    /// 20 of the IP header and the 8 of the UDP header (RFC 768, RFC 791).
    pub const UDP_MAX_LENGTH: usize = 65_507;

    /// Datagrams of up to [`UDP_MAX_LENGTH`](Self::UDP_MAX_LENGTH).
    #[must_use]
    pub const fn new() -> Self {
        Self { limit: Self::UDP_MAX_LENGTH }
    }

    /// The longest message, in bytes, in both directions.
    #[must_use]
    pub const fn max_length(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }
}

impl Default for Datagram {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder for Datagram {
    type Item = Bytes;
    type Error = CodecError;

    #[inline]
    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Bytes>, CodecError> {
        if src.len() > self.limit {
            return Err(CodecError::TooLong { limit: self.limit as u64, seen: src.len() as u64 });
        }
        Ok(Some(take(src, 0, src.len())))
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Bytes>, CodecError> {
        if src.is_empty() {
            return Ok(None);
        }
        self.decode(src)
    }
}

impl Encoder<Bytes> for Datagram {
    type Error = CodecError;

    #[inline]
    fn encode(&mut self, message: Bytes, dst: &mut BytesMut) -> Result<(), CodecError> {
        if message.len() > self.limit {
            return Err(Unencodable::TooLong { limit: self.limit as u64, len: message.len() as u64 }.into());
        }
        dst.extend_from_slice(&message);
        Ok(())
    }
}
