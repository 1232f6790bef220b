//! Lines of text.

use std::str;

use bytes::{Buf, BufMut, BytesMut};
use memchr::memchr;
use tokio_util::codec::{Decoder, Encoder};

use super::{CodecError, DEFAULT_MAX_LENGTH, Unencodable};

/// Lines of UTF-8 text, ended by LF or CRLF, given without their ends.
///
/// A last line without an end is given as well when the stream ends; a lone CR at
/// its end is taken for half a CRLF. Empty lines are messages like any other.
///
/// # Errors
///
/// Decoding: [`TooLong`](CodecError::TooLong), with what has arrived of the line,
/// and [`NotUtf8`](CodecError::NotUtf8). Encoding:
/// [`NotEncodable`](CodecError::NotEncodable) if the line exceeds the limit,
/// contains LF, or ends in CR while LF is written, as it would come back changed.
///
/// ```
/// use bytes::BytesMut;
/// use hythe::codec::Lines;
/// use tokio_util::codec::Decoder;
///
/// let mut lines = Lines::new();
/// let mut wire = BytesMut::from("hello\r\nworld\nhalf a li");
/// assert_eq!(lines.decode(&mut wire).unwrap().as_deref(), Some("hello"));
/// assert_eq!(lines.decode(&mut wire).unwrap().as_deref(), Some("world"));
/// assert_eq!(lines.decode(&mut wire).unwrap(), None);
/// ```
#[derive(Clone, Debug)]
pub struct Lines {
    limit: usize,
    crlf: bool,
    /// How many bytes of the buffer are known to hold no LF.
    scanned: usize,
}

impl Lines {
    /// Lines of up to [`DEFAULT_MAX_LENGTH`], written with LF.
    #[must_use]
    pub const fn new() -> Self {
        Self { limit: DEFAULT_MAX_LENGTH, crlf: false, scanned: 0 }
    }

    /// Writes CRLF instead of LF. Reading takes either, in any mix.
    #[must_use]
    pub const fn crlf(mut self) -> Self {
        self.crlf = true;
        self
    }

    /// The longest line, in bytes without its end, in both directions.
    /// [`DEFAULT_MAX_LENGTH`] by default.
    #[must_use]
    pub const fn max_length(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Takes `line`, the start of `src`, and the end after it: `ended` bytes in all.
    fn take(&self, src: &mut BytesMut, ended: usize) -> Result<Option<String>, CodecError> {
        let line = src.get(..ended).unwrap_or_default();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > self.limit {
            return Err(self.too_long(line.len()));
        }
        let line = match str::from_utf8(line) {
            Ok(line) => line.to_owned(),
            Err(error) => {
                let valid_up_to = error.valid_up_to();
                return Err(CodecError::NotUtf8 { valid_up_to });
            }
        };
        src.advance(ended);
        Ok(Some(line))
    }

    const fn too_long(&self, seen: usize) -> CodecError {
        CodecError::TooLong { limit: self.limit as u64, seen: seen as u64 }
    }
}

impl Default for Lines {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder for Lines {
    type Item = String;
    type Error = CodecError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<String>, CodecError> {
        // Where the LF of the longest line with a CRLF ends.
        let reach = self.limit.saturating_add(2).min(src.len());
        let fresh = src.get(self.scanned..reach).unwrap_or_default();
        if let Some(at) = memchr(b'\n', fresh) {
            let lf = self.scanned.saturating_add(at);
            let line = self.take(src, lf.saturating_add(1))?;
            self.scanned = 0;
            return Ok(line);
        }
        // One byte too many may still be the CR of a CRLF, two cannot.
        match src.get(self.limit..) {
            None | Some([] | [b'\r']) => {
                self.scanned = reach;
                Ok(None)
            }
            Some(_) => Err(self.too_long(src.len())),
        }
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<String>, CodecError> {
        match self.decode(src)? {
            None if !src.is_empty() => {
                let line = self.take(src, src.len())?;
                self.scanned = 0;
                Ok(line)
            }
            line => Ok(line),
        }
    }
}

impl Encoder<String> for Lines {
    type Error = CodecError;

    fn encode(&mut self, line: String, dst: &mut BytesMut) -> Result<(), CodecError> {
        let len = line.len();
        if len > self.limit {
            return Err(Unencodable::TooLong { limit: self.limit as u64, len: len as u64 }.into());
        }
        let end: &[u8] = if self.crlf { b"\r\n" } else { b"\n" };
        let lf = memchr(b'\n', line.as_bytes());
        let cr = || len.checked_sub(1).filter(|_| !self.crlf && line.ends_with('\r'));
        if let Some(at) = lf.or_else(cr) {
            return Err(Unencodable::Delimiter { at }.into());
        }
        dst.reserve(len.saturating_add(end.len()));
        dst.put_slice(line.as_bytes());
        dst.put_slice(end);
        Ok(())
    }
}
