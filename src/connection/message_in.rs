//! The incoming side of a message transport: each message of the transport goes through the codec to its end.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};

use super::closed::{CloseReason, Failure};
use super::core::{Core, Remainder};
use super::link::{Link, Received, decode_failure, encode_error};
use crate::error::{BoxError, Error};

/// After so many messages of the transport that held none for the session, other tasks get their turn.
const TURN: u32 = 64;

/// The read half of a message transport.
pub(crate) trait MessageSource: Send + 'static {
    /// The next message of the transport, or `None` when there will be no more.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<BytesMut>>>;
    /// A message could not be decoded. Whether that is nobody's end: on some transports anybody can send one.
    fn outlives_invalid(&mut self) -> bool {
        false
    }
}

pub(crate) struct MessageIn<S, C> {
    source: S,
    codec: C,
    /// What is left of the transport's message that is being decoded.
    current: Option<BytesMut>,
    ended: bool,
}

impl<S, C> MessageIn<S, C> {
    pub(crate) fn new(source: S, codec: C) -> Self {
        Self { source, codec, current: None, ended: false }
    }
}

impl<S, C, Out> Link<C::Item, Out> for MessageIn<S, C>
where
    S: MessageSource,
    C: Decoder + Encoder<Out> + Clone + Send + 'static,
    <C as Decoder>::Error: Into<BoxError>,
    <C as Encoder<Out>>::Error: Into<BoxError>,
{
    fn poll_recv(&mut self, cx: &mut Context<'_>, core: &Arc<Core>, slot: &mut Option<C::Item>) -> Poll<Received> {
        let mut turn = 0;
        loop {
            if let Some(current) = &mut self.current {
                let before = self.codec.clone();
                let mut result = self.codec.decode(current);
                if matches!(result, Ok(None)) {
                    result = self.codec.decode_eof(current);
                }
                match result {
                    Ok(message) => {
                        let left = current.len();
                        if left == 0 {
                            self.current = None;
                        } else if message.is_none() {
                            let text = format!("{left} bytes were left over in a message of the transport");
                            self.current = None;
                            if self.source.outlives_invalid() {
                                self.codec = before;
                                continue;
                            }
                            return Poll::Ready(Received::Failed(Box::new(Failure::new(CloseReason::Protocol, text))));
                        }
                        if message.is_some() {
                            *slot = message;
                            return Poll::Ready(Received::Message);
                        }
                    }
                    Err(error) => {
                        self.current = None;
                        if self.source.outlives_invalid() {
                            // what it has left behind in the codec must not spoil the next message
                            self.codec = before;
                            continue;
                        }
                        return Poll::Ready(Received::Failed(Box::new(decode_failure(error.into(), false))));
                    }
                }
            }
            if self.ended {
                return Poll::Ready(Received::End);
            }
            match ready!(self.source.poll_next(cx)) {
                Some(Ok(message)) => {
                    core.count_in(message.len());
                    core.show_read(&message);
                    self.current = Some(message);
                }
                Some(Err(error)) => return Poll::Ready(Received::Failed(Box::new(Failure::io(error)))),
                None => self.ended = true,
            }
            turn += 1;
            if turn == TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    fn holds_part(&self) -> bool {
        self.current.is_some()
    }

    fn encode(&mut self, message: Out, buffer: &mut BytesMut) -> Result<(), Error> {
        self.codec.encode(message, buffer).map_err(encode_error)
    }

    fn into_remainder(self: Box<Self>, _: &Core) -> Box<dyn Remainder> {
        self
    }
}

impl<S: Send, C: Send> Remainder for MessageIn<S, C> {
    fn poll_discard(&mut self, _: &mut Context<'_>) -> Poll<()> {
        // there is no end to wait for
        Poll::Ready(())
    }

    fn ended(&self) -> bool {
        true
    }
}
