//! Text in any framing.

use std::str;

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::{CodecError, Datagram};

/// UTF-8 text in the messages of the framing `F`: one datagram, unless told
/// otherwise.
///
/// `F` is any codec whose messages are [`Bytes`].
///
/// # Errors
///
/// [`NotUtf8`](CodecError::NotUtf8), and the framing's own.
///
/// ```
/// use bytes::BytesMut;
/// use hythe::codec::{LengthDelimited, Text};
/// use tokio_util::codec::{Decoder, Encoder};
///
/// let mut codec = Text::over(LengthDelimited::new());
/// let mut wire = BytesMut::new();
/// codec.encode("ahoy".to_owned(), &mut wire).unwrap();
/// assert_eq!(codec.decode(&mut wire).unwrap().as_deref(), Some("ahoy"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Text<F = Datagram> {
    framing: F,
    /// Where a message stopped being UTF-8. The framing has consumed it, so only
    /// this makes the error final.
    failed: Option<usize>,
}

impl Text {
    /// One datagram, one text.
    #[must_use]
    pub const fn new() -> Self {
        Self::over(Datagram::new())
    }
}

impl<F> Text<F> {
    /// One message of `framing`, one text.
    #[must_use]
    pub const fn over(framing: F) -> Self {
        Self { framing, failed: None }
    }
}

impl<F> Text<F>
where
    F: Decoder<Item = Bytes>,
    CodecError: From<F::Error>,
{
    fn text(
        &mut self,
        decode: impl FnOnce(&mut F) -> Result<Option<Bytes>, F::Error>,
    ) -> Result<Option<String>, CodecError> {
        if let Some(valid_up_to) = self.failed {
            return Err(CodecError::NotUtf8 { valid_up_to });
        }
        let Some(message) = decode(&mut self.framing)? else {
            return Ok(None);
        };
        match str::from_utf8(&message) {
            // A copy, as a `String` made from the message's own memory would keep
            // all of the receive buffer.
            Ok(text) => Ok(Some(text.to_owned())),
            Err(error) => {
                let valid_up_to = error.valid_up_to();
                self.failed = Some(valid_up_to);
                Err(CodecError::NotUtf8 { valid_up_to })
            }
        }
    }
}

impl<F> Decoder for Text<F>
where
    F: Decoder<Item = Bytes>,
    CodecError: From<F::Error>,
{
    type Item = String;
    type Error = CodecError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<String>, CodecError> {
        self.text(|framing| framing.decode(src))
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<String>, CodecError> {
        self.text(|framing| framing.decode_eof(src))
    }
}

impl<F> Encoder<String> for Text<F>
where
    F: Encoder<Bytes>,
    CodecError: From<<F as Encoder<Bytes>>::Error>,
{
    type Error = CodecError;

    fn encode(&mut self, text: String, dst: &mut BytesMut) -> Result<(), CodecError> {
        Ok(self.framing.encode(Bytes::from(text), dst)?)
    }
}
