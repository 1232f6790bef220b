//! What the targets share: every codec with any options, and what has to hold whatever they are fed.

mod session;

use std::fmt::Debug;
use std::sync::OnceLock;

use arbitrary::Arbitrary;
use bytes::{Bytes, BytesMut};
use hythe::Limits;
use hythe::codec::{CodecError, Delimited, LengthDelimited, Lines, Raw, Text};
use tokio_util::codec::{Decoder, Encoder};

pub use session::{Script, Told, echo, reason, run};

/// The defaults, which ask the system for its own limits, once.
pub fn limits() -> Limits {
    static LIMITS: OnceLock<Limits> = OnceLock::new();
    LIMITS.get_or_init(Limits::edge).clone()
}

/// All that is left of the input.
#[derive(Debug)]
pub struct Rest(pub Vec<u8>);

impl<'a> Arbitrary<'a> for Rest {
    fn arbitrary(u: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(Self(u.bytes(u.len())?.to_vec()))
    }
}

/// No codec reserves more than this ahead of what has arrived.
const AHEAD: usize = 64 * 1024;

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Width {
    One,
    Two,
    Three,
    Four,
    Eight,
    Varint,
}

#[derive(Arbitrary, Clone, Debug)]
pub struct Prefixed {
    width: Width,
    little: bool,
    offset: u8,
    adjustment: i64,
    counts_itself: bool,
    keep_prefix: bool,
    limit: u32,
}

impl Prefixed {
    pub fn codec(&self) -> LengthDelimited {
        let codec = LengthDelimited::new();
        let codec = match self.width {
            Width::One => codec.prefix_bytes(1),
            Width::Two => codec.prefix_bytes(2),
            Width::Three => codec.prefix_bytes(3),
            Width::Four => codec.prefix_bytes(4),
            Width::Eight => codec.prefix_bytes(8),
            Width::Varint => codec.varint(),
        };
        let codec = if self.little { codec.little_endian() } else { codec.big_endian() };
        codec
            .offset(usize::from(self.offset))
            .adjustment(self.adjustment)
            .counts_itself(self.counts_itself)
            .keep_prefix(self.keep_prefix)
            .max_length(self.limit as usize)
    }
}

/// A codec of this crate, and its options.
#[derive(Arbitrary, Clone, Debug)]
pub enum Choice {
    Plain,
    Prefixed(Prefixed),
    Lines { limit: u16, crlf: bool },
    Delimited { delimiter: Vec<u8>, limit: u16, lenient: bool },
    Text(Prefixed),
    TextDelimited { delimiter: Vec<u8>, limit: u16 },
}

/// Does something with a codec, whatever its messages are.
pub trait Visit {
    fn visit<C, T>(self, codec: C, limit: usize)
    where
        C: Decoder<Item = T, Error = CodecError> + Encoder<T, Error = CodecError> + Clone + Send + 'static,
        T: Debug + PartialEq + Clone + Len + FromBytes + Send + 'static;
}

impl Choice {
    pub fn visit(&self, visitor: impl Visit) {
        match self {
            Self::Plain => visitor.visit(LengthDelimited::new(), hythe::codec::DEFAULT_MAX_LENGTH),
            Self::Prefixed(options) => visitor.visit(options.codec(), options.limit as usize),
            Self::Lines { limit, crlf } => {
                let codec = Lines::new().max_length(usize::from(*limit));
                visitor.visit(if *crlf { codec.crlf() } else { codec }, usize::from(*limit));
            }
            Self::Delimited { delimiter, limit, lenient } => {
                let codec = delimited(delimiter, *limit);
                visitor.visit(if *lenient { codec.lenient_end() } else { codec }, usize::from(*limit));
            }
            Self::Text(options) => visitor.visit(Text::over(options.codec()), options.limit as usize),
            Self::TextDelimited { delimiter, limit } => {
                visitor.visit(Text::over(delimited(delimiter, *limit)), usize::from(*limit));
            }
        }
    }
}

fn delimited(delimiter: &[u8], limit: u16) -> Delimited {
    let delimiter = if delimiter.is_empty() { &b"\0"[..] } else { delimiter };
    Delimited::new(delimiter).max_length(usize::from(limit))
}

pub trait Len {
    fn length(&self) -> usize;
}

impl Len for Bytes {
    fn length(&self) -> usize {
        self.len()
    }
}

impl Len for String {
    fn length(&self) -> usize {
        self.len()
    }
}

/// A message made of what the fuzzer gives.
pub trait FromBytes {
    fn from_bytes(bytes: &[u8]) -> Self;
}

impl FromBytes for Bytes {
    fn from_bytes(bytes: &[u8]) -> Self {
        Self::copy_from_slice(bytes)
    }
}

impl FromBytes for String {
    fn from_bytes(bytes: &[u8]) -> Self {
        Self::from_utf8_lossy(bytes).into_owned()
    }
}

/// All messages of a stream, and the kind of the error that ended it. What the error has seen depends on the cuts.
pub type Outcome<T> = (Vec<T>, Option<std::mem::Discriminant<CodecError>>);

/// Decodes `pieces`, and the end after them.
pub fn decode<'a, C, T>(codec: &C, limit: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome<T>
where
    C: Decoder<Item = T, Error = CodecError> + Clone,
    T: Debug + Len,
{
    let mut codec = codec.clone();
    let mut src = BytesMut::new();
    let mut messages = Vec::new();
    for piece in pieces {
        src.extend_from_slice(piece);
        loop {
            let bound = src.capacity().max(src.len() + AHEAD);
            let step = codec.decode(&mut src);
            assert!(src.capacity() <= bound, "{} bytes reserved", src.capacity());
            match step {
                Ok(Some(message)) => messages.push(within(message, limit)),
                Ok(None) => break,
                Err(error) => return (messages, Some(last(&mut codec, &mut src, &error))),
            }
        }
    }
    loop {
        match codec.decode_eof(&mut src) {
            Ok(Some(message)) => messages.push(within(message, limit)),
            Ok(None) => {
                assert!(src.is_empty(), "{} bytes were dropped in silence", src.len());
                return (messages, None);
            }
            Err(error) => return (messages, Some(last(&mut codec, &mut src, &error))),
        }
    }
}

fn within<T: Len>(message: T, limit: usize) -> T {
    assert!(message.length() <= limit, "a message of {} bytes, the limit is {limit}", message.length());
    message
}

/// After an error no message comes.
fn last<C: Decoder<Error = CodecError>>(
    codec: &mut C,
    src: &mut BytesMut,
    error: &CodecError,
) -> std::mem::Discriminant<CodecError> {
    assert!(!matches!(codec.decode(src), Ok(Some(_))), "a message after {error}");
    assert!(!matches!(codec.decode_eof(src), Ok(Some(_))), "a message after {error}");
    let text = error.to_string();
    assert!(text.len() <= 200 && !text.chars().any(char::is_control), "{text:?}");
    std::mem::discriminant(error)
}

/// `wire` in pieces as long as `cuts` say, over and over.
pub fn pieces<'a>(wire: &'a [u8], cuts: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = wire;
    let mut cuts = cuts.iter().cycle();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let len = cuts.next().map_or(rest.len(), |cut| usize::from(*cut).clamp(1, rest.len()));
        let (piece, after) = rest.split_at(len);
        rest = after;
        Some(piece)
    })
}

/// The bytes of a `Raw` stream do not change, wherever it is cut.
pub fn raw(wire: &[u8], cuts: &[u8]) {
    let (messages, error) = decode(&Raw::new(), usize::MAX, pieces(wire, cuts));
    assert!(error.is_none());
    assert_eq!(messages.concat(), wire);
}
