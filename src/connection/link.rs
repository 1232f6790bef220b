//! A connection's codec on its transport, as its owner uses them, whatever the two are.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use super::closed::{CloseReason, Failure};
use super::core::{Core, Remainder};
use crate::codec::CodecError;
use crate::error::{BoxError, Error, ErrorKind};
#[cfg(feature = "tls")]
use {crate::tls::TlsRead, tokio::io::AsyncRead};

/// What came in.
#[derive(Debug)]
pub(crate) enum Received {
    /// It is in the slot.
    Message,
    /// The peer's end.
    End,
    Failed(Box<Failure>),
}

/// The read half of a transport, and the codec.
///
/// The owner decodes and encodes with the same codec, so that state in it is the protocol's state in both directions.
/// Senders in other tasks have a codec of their own, in the outbox.
pub(crate) trait Link<In, Out>: Remainder {
    /// Puts the next message into `slot`: a message is moved less often that way than in a result.
    ///
    /// What has arrived stays here while nobody polls, so that dropping whoever waits loses nothing.
    fn poll_recv(&mut self, cx: &mut Context<'_>, core: &Arc<Core>, slot: &mut Option<In>) -> Poll<Received>;
    /// Whether a part of a message is held.
    fn holds_part(&self) -> bool;
    /// Appends a message to `buffer`. After an error there may be a part of it.
    fn encode(&mut self, message: Out, buffer: &mut BytesMut) -> Result<(), Error>;
    /// As [`encode`](Self::encode), but a large last part may be given back, to be written without a copy.
    fn encode_apart(&mut self, message: Out, buffer: &mut BytesMut) -> Result<Option<Bytes>, Error> {
        self.encode(message, buffer).map(|()| None)
    }
    /// Takes the transport's half out for a TLS handshake, where it is a byte stream in the clear.
    #[cfg(feature = "tls")]
    fn take_stream(&mut self) -> Option<Box<dyn AsyncRead + Send + Unpin>> {
        None
    }
    /// Puts what came of that in its place.
    #[cfg(feature = "tls")]
    fn put_tls(&mut self, _: TlsRead) {}
    fn into_remainder(self: Box<Self>, core: &Core) -> Box<dyn Remainder>;
}

/// An encoder's error.
pub(crate) fn encode_error(error: impl Into<BoxError>) -> Error {
    Error::new(ErrorKind::Codec, "the codec refused a message").because(error)
}

/// What `Decoder::decode_eof` says unless a codec has its own, where the stream ends inside a message.
const LEFT_AT_END: &str = "bytes remaining on stream";

/// What a decoder's error means for the connection. `at_end`: the stream has ended.
pub(crate) fn decode_failure(error: BoxError, at_end: bool) -> Failure {
    let mut reason = CloseReason::Protocol;
    let mut next: Option<&(dyn StdError + 'static)> = Some(error.as_ref());
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<CodecError>() {
            if error.is_truncated() {
                reason = CloseReason::Truncated;
            } else if error.limit_and_seen().is_some() {
                reason = CloseReason::TooLarge;
            }
            break;
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            let cut = error.kind() == io::ErrorKind::UnexpectedEof || error.to_string() == LEFT_AT_END;
            if at_end && cut {
                reason = CloseReason::Truncated;
                break;
            }
        }
        next = error.source();
    }
    Failure::new(reason, error)
}
