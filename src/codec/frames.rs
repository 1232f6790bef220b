//! Many messages at once, borrowed from the bytes that brought them.

use std::fmt;

use bytes::{Buf, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::{CodecError, take::COPY_MAX};

/// The most messages in one [`Frames`], so that a flood of empty ones takes little memory.
const MOST: usize = 1024;

/// Messages without an allocation for each: those that arrived together, or an answer to them.
///
/// It is what a [`Batched`] codec brings and takes.
///
/// ```
/// use hythe::codec::Frames;
///
/// let mut frames = Frames::new();
/// frames.push("one");
/// frames.push("two");
/// assert_eq!(frames.len(), 2);
/// assert_eq!(frames.iter().collect::<Vec<_>>(), [b"one", b"two"]);
/// ```
#[derive(Clone, Default)]
pub struct Frames {
    bytes: BytesMut,
    /// Where each message begins and ends.
    marks: Vec<(usize, usize)>,
}

impl Frames {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a message.
    pub fn push(&mut self, message: impl AsRef<[u8]>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(message.as_ref());
        self.marks.push((start, self.bytes.len()));
    }

    /// How many messages there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.marks.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// The message at `index`, from 0.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let (start, end) = *self.marks.get(index)?;
        self.bytes.get(start..end)
    }

    /// The messages, in their order.
    #[must_use]
    pub fn iter(&self) -> FramesIter<'_> {
        FramesIter { bytes: &self.bytes, marks: self.marks.iter() }
    }

    /// Removes all messages, and keeps the memory for others.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.marks.clear();
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|message| message.escape_ascii().to_string())).finish()
    }
}

impl PartialEq for Frames {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Frames {}

impl<M: AsRef<[u8]>> Extend<M> for Frames {
    fn extend<I: IntoIterator<Item = M>>(&mut self, messages: I) {
        messages.into_iter().for_each(|message| self.push(message));
    }
}

impl<M: AsRef<[u8]>> FromIterator<M> for Frames {
    fn from_iter<I: IntoIterator<Item = M>>(messages: I) -> Self {
        let mut frames = Self::new();
        frames.extend(messages);
        frames
    }
}

impl<'a> IntoIterator for &'a Frames {
    type Item = &'a [u8];
    type IntoIter = FramesIter<'a>;

    fn into_iter(self) -> FramesIter<'a> {
        self.iter()
    }
}

/// The messages of a [`Frames`]. Made by [`Frames::iter`].
#[derive(Clone, Debug)]
pub struct FramesIter<'a> {
    bytes: &'a [u8],
    marks: std::slice::Iter<'a, (usize, usize)>,
}

impl<'a> Iterator for FramesIter<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (start, end) = *self.marks.next()?;
        self.bytes.get(start..end)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.marks.size_hint()
    }
}

impl ExactSizeIterator for FramesIter<'_> {}

/// A message that has arrived whole: where it stands in the bytes that were looked at.
#[allow(unnameable_types)]
#[derive(Clone, Copy, Debug)]
pub struct Found {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Where the next one begins.
    pub(super) next: usize,
}

/// A codec whose messages stand in one piece in the bytes that bring them. It is sealed: [`LengthDelimited`] and
/// [`Delimited`] are.
///
/// [`Delimited`]: super::Delimited
/// [`LengthDelimited`]: super::LengthDelimited
pub trait Framing: Decoder<Item = bytes::Bytes, Error = CodecError> + sealed::Sealed {
    /// Finds the first message. May move bytes of it.
    #[doc(hidden)]
    fn find(&mut self, bytes: &mut [u8]) -> Result<Option<Found>, CodecError>;
    /// Writes a message, or nothing of it.
    #[doc(hidden)]
    fn write(&mut self, message: &[u8], to: &mut BytesMut) -> Result<(), CodecError>;
}

pub(super) mod sealed {
    #[allow(unnameable_types)]
    pub trait Sealed {}
}

/// The same messages on the wire as the codec in it has, but all that have arrived are brought at once, as [`Frames`]:
/// the door for handlers of many short messages in flight.
///
/// A message is then a slice of the buffer it was read into, not a [`Bytes`](bytes::Bytes) of its own, and what it costs
/// on its way is paid once for all that came together. Made by
/// [`LengthDelimited::batched`](super::LengthDelimited::batched) and [`Delimited::batched`](super::Delimited::batched).
///
/// How many come together is the network's and the moment's business: 1 to 1,024. What counts messages counts a `Frames`
/// as one: totals, metrics, and [`Limits::handling`](crate::Limits::handling). While a `Frames` is held, so is the buffer
/// it was read into, of up to 80 KiB; copy out what is to stay.
///
/// # Errors
///
/// As the codec in it. Messages that came before the error are brought first. An answer of which one message is refused
/// is refused whole.
///
/// ```
/// use hythe::codec::{Frames, LengthDelimited};
/// use hythe::{Connection, Handler, Server};
///
/// #[derive(Clone)]
/// struct Upper;
///
/// impl Handler for Upper {
///     type In = Frames;
///     type Out = Frames;
///
///     async fn on_message(&mut self, conn: &mut Connection<Frames>, messages: Frames) -> anyhow::Result<()> {
///         let answers = messages.iter().map(<[u8]>::to_ascii_uppercase).collect();
///         conn.send(answers).await?;
///         Ok(())
///     }
/// }
///
/// let server = Server::new(Upper).bind("tcp://127.0.0.1:0", LengthDelimited::new().batched());
/// ```
#[derive(Clone, Debug)]
pub struct Batched<C> {
    codec: C,
}

impl<C> Batched<C> {
    pub(super) const fn new(codec: C) -> Self {
        Self { codec }
    }
}

impl<C: Framing> Decoder for Batched<C> {
    type Item = Frames;
    type Error = CodecError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Frames>, CodecError> {
        let mut marks = Vec::new();
        let mut at: usize = 0;
        while marks.len() < MOST {
            let rest = src.get_mut(at..).unwrap_or_default();
            let length = rest.len();
            match self.codec.find(rest) {
                Ok(Some(found)) => {
                    if marks.is_empty() {
                        // as if all were like the first
                        marks.reserve(length.checked_div(found.next).unwrap_or(0).clamp(1, MOST));
                    }
                    marks.push((at.saturating_add(found.start), at.saturating_add(found.end)));
                    at = at.saturating_add(found.next);
                }
                Ok(None) => break,
                Err(error) if marks.is_empty() => return Err(error),
                // the next call finds it again
                Err(_) => break,
            }
        }
        if marks.is_empty() {
            return Ok(None);
        }
        let bytes = match src.get(..at) {
            Some(few) if at <= COPY_MAX => {
                let few = BytesMut::from(few);
                src.advance(at);
                few
            }
            _ => src.split_to(at.min(src.len())),
        };
        Ok(Some(Frames { bytes, marks }))
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Frames>, CodecError> {
        match self.decode(src)? {
            None => Ok(self.codec.decode_eof(src)?.map(|last| Frames::from_iter([last]))),
            frames => Ok(frames),
        }
    }
}

impl<C: Framing> Encoder<Frames> for Batched<C> {
    type Error = CodecError;

    fn encode(&mut self, frames: Frames, dst: &mut BytesMut) -> Result<(), CodecError> {
        let before = dst.len();
        dst.reserve(frames.bytes.len().saturating_add(frames.len().saturating_mul(4)));
        for message in &frames {
            if let Err(error) = self.codec.write(message, dst) {
                dst.truncate(before);
                return Err(error);
            }
        }
        Ok(())
    }
}
