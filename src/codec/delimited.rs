//! Messages with a byte string after them.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::{
    Batched, CodecError, DEFAULT_MAX_LENGTH, Framing, Unencodable,
    frames::{Found, sealed},
    search::find,
    take::take,
};

/// Messages ended by a byte string, given without it.
///
/// The leftmost delimiter ends the message, so `aab` ends `a` in `aaab`.
///
/// # Errors
///
/// Decoding: [`TooLong`](CodecError::TooLong), with what has arrived of the
/// message, at the latest when it is a delimiter's length above the limit, and
/// [`Truncated`](CodecError::Truncated) if the stream ends without a delimiter
/// (but see [`lenient_end`](Self::lenient_end)). Encoding:
/// [`NotEncodable`](CodecError::NotEncodable) if the message exceeds the limit, or
/// a delimiter would be found before its end.
///
/// ```
/// use bytes::BytesMut;
/// use hythe::codec::Delimited;
/// use tokio_util::codec::Decoder;
///
/// let mut headers = Delimited::new(b"\r\n\r\n");
/// let mut wire = BytesMut::from("GET / HTTP/1.0\r\n\r\nrest");
/// let head = headers.decode(&mut wire).unwrap().unwrap();
/// assert_eq!(&head[..], b"GET / HTTP/1.0");
/// ```
#[derive(Clone, Debug)]
pub struct Delimited {
    delimiter: Arc<[u8]>,
    limit: usize,
    lenient_end: bool,
    /// No delimiter begins in this many bytes of the buffer.
    scanned: usize,
}

impl Delimited {
    /// Messages of up to [`DEFAULT_MAX_LENGTH`], each ended by `delimiter`.
    ///
    /// # Panics
    ///
    /// If `delimiter` is empty.
    #[must_use]
    pub fn new(delimiter: impl AsRef<[u8]>) -> Self {
        let delimiter = delimiter.as_ref();
        assert!(!delimiter.is_empty(), "a delimiter has at least one byte");
        Self { delimiter: delimiter.into(), limit: DEFAULT_MAX_LENGTH, lenient_end: false, scanned: 0 }
    }

    /// The longest message, in bytes without the delimiter, in both directions.
    /// [`DEFAULT_MAX_LENGTH`] by default.
    #[must_use]
    pub const fn max_length(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Takes the end of the stream for a last delimiter, so that bytes after the
    /// last real one are a message and not [`CodecError::Truncated`].
    #[must_use]
    pub const fn lenient_end(mut self) -> Self {
        self.lenient_end = true;
        self
    }

    /// All messages that have arrived at once, without an allocation for each: see [`Batched`].
    #[must_use]
    pub const fn batched(self) -> Batched<Self> {
        Batched::new(self)
    }

    const fn too_long(&self, seen: usize) -> CodecError {
        CodecError::TooLong { limit: self.limit as u64, seen: seen as u64 }
    }
}

impl Decoder for Delimited {
    type Item = Bytes;
    type Error = CodecError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Bytes>, CodecError> {
        let Some(found) = self.find(src)? else {
            return Ok(None);
        };
        let message = take(src, 0, found.end);
        src.advance(found.next.saturating_sub(found.end));
        Ok(Some(message))
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Bytes>, CodecError> {
        match self.decode(src)? {
            None if src.is_empty() => Ok(None),
            None if src.len() > self.limit => Err(self.too_long(src.len())),
            None if self.lenient_end => {
                self.scanned = 0;
                Ok(Some(take(src, 0, src.len())))
            }
            None => Err(CodecError::Truncated { have: src.len(), need: None }),
            message => Ok(message),
        }
    }
}

impl Encoder<Bytes> for Delimited {
    type Error = CodecError;

    fn encode(&mut self, message: Bytes, dst: &mut BytesMut) -> Result<(), CodecError> {
        self.write(&message, dst)
    }
}

impl sealed::Sealed for Delimited {}

impl Framing for Delimited {
    fn find(&mut self, bytes: &mut [u8]) -> Result<Option<Found>, CodecError> {
        let width = self.delimiter.len();
        // Where the delimiter of the longest message ends.
        let reach = self.limit.saturating_add(width);
        let fresh = bytes.get(self.scanned..reach.min(bytes.len()));
        if let Some(at) = find(fresh.unwrap_or_default(), &self.delimiter) {
            let end = self.scanned.saturating_add(at);
            self.scanned = 0;
            return Ok(Some(Found { start: 0, end, next: end.saturating_add(width) }));
        }
        if bytes.len() >= reach {
            return Err(self.too_long(bytes.len()));
        }
        // The last bytes may be the start of a delimiter.
        self.scanned = bytes.len().saturating_add(1).saturating_sub(width);
        Ok(None)
    }

    fn write(&mut self, message: &[u8], dst: &mut BytesMut) -> Result<(), CodecError> {
        if message.len() > self.limit {
            return Err(Unencodable::TooLong { limit: self.limit as u64, len: message.len() as u64 }.into());
        }
        let start = dst.len();
        dst.reserve(message.len().saturating_add(self.delimiter.len()));
        dst.put_slice(message);
        dst.put_slice(&self.delimiter);
        // Searched together, since `a` before `aa` makes a delimiter too early.
        let written = dst.get(start..).unwrap_or_default();
        match find(written, &self.delimiter) {
            Some(at) if at < message.len() => {
                dst.truncate(start);
                Err(Unencodable::Delimiter { at }.into())
            }
            _ => Ok(()),
        }
    }
}
