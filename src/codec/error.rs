//! What can go wrong between bytes and messages.

use std::{error::Error, fmt, io};

/// Why bytes could not become a message, or a message bytes.
///
/// After an error the stream has no known message boundary left: close it.
#[derive(Debug)]
#[non_exhaustive]
pub enum CodecError {
    /// The peer's message is longer than the limit. The peer's fault.
    TooLong {
        /// The longest message allowed, in bytes.
        limit: u64,
        /// What the peer announced, or, where nothing is announced, how much has
        /// arrived so far, in bytes.
        seen: u64,
    },
    /// The length field says less than it must, so the length after adjustment
    /// would be negative. The peer's fault.
    BadLength {
        /// What the field says.
        value: u64,
        /// The least it can say.
        least: u64,
    },
    /// A varint length does not end within ten bytes, or does not fit in 64 bits.
    /// The peer's fault.
    BadVarint,
    /// A text message is not UTF-8. The peer's fault.
    NotUtf8 {
        /// How many bytes at the start of the message are UTF-8.
        valid_up_to: usize,
    },
    /// The stream ended inside a message. The peer's or the network's fault.
    Truncated {
        /// How many bytes of the unfinished message arrived, its header included.
        have: usize,
        /// How many there should be, its header included, if that was known.
        need: Option<u64>,
    },
    /// A message of ours cannot be sent with this codec; nothing was written and
    /// the stream is intact. Our own fault.
    NotEncodable(Unencodable),
    /// The transport failed. No codec of this crate makes it; `Decoder` asks for it.
    Io(io::Error),
}

/// Why an outgoing message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unencodable {
    /// It is longer than the codec's limit.
    TooLong {
        /// The longest message allowed, in bytes.
        limit: u64,
        /// The message's length, in bytes.
        len: u64,
    },
    /// Its length does not fit in the length prefix.
    PrefixOverflow {
        /// The longest message the prefix can announce, in bytes; 0 if none.
        limit: u64,
        /// The message's length, in bytes.
        len: u64,
    },
    /// It is shorter than the header it has to begin with, or than the length
    /// adjustment allows.
    TooShort {
        /// The shortest message possible, in bytes.
        least: u64,
        /// The message's length, in bytes.
        len: u64,
    },
    /// It carries its own length prefix, which does not say the message's length.
    WrongPrefix {
        /// The message's length, in bytes.
        len: u64,
    },
    /// It contains, or together with the delimiter after it would contain, what
    /// ends a message.
    Delimiter {
        /// Where that begins, in bytes from the start of the message.
        at: usize,
    },
}

impl CodecError {
    /// The limit that was exceeded and the length that was seen, in bytes; `None`
    /// if the error is not about a limit.
    #[must_use]
    pub const fn limit_and_seen(&self) -> Option<(u64, u64)> {
        match *self {
            Self::TooLong { limit, seen } => Some((limit, seen)),
            Self::NotEncodable(Unencodable::TooLong { limit, len } | Unencodable::PrefixOverflow { limit, len }) => {
                Some((limit, len))
            }
            _ => None,
        }
    }

    /// Whether the stream ended inside a message.
    #[must_use]
    pub const fn is_truncated(&self) -> bool {
        matches!(self, Self::Truncated { .. })
    }

    /// Whether it was a message of ours that could not be sent. The stream is
    /// intact then.
    #[must_use]
    pub const fn is_not_encodable(&self) -> bool {
        matches!(self, Self::NotEncodable(_))
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { limit, seen } => {
                write!(f, "message too long: limit {limit} bytes, seen {seen}")
            }
            Self::BadLength { value, least } => {
                write!(f, "bad length: the field says {value}, less than {least}")
            }
            Self::BadVarint => f.write_str("bad length: the varint does not fit in 64 bits"),
            Self::NotUtf8 { valid_up_to } => {
                write!(f, "text is not UTF-8 after its first {valid_up_to} bytes")
            }
            Self::Truncated { have, need } => {
                write!(f, "stream ended inside a message: {have} bytes arrived")?;
                need.map_or(Ok(()), |need| write!(f, " of {need}"))
            }
            Self::NotEncodable(why) => write!(f, "message cannot be sent: {why}"),
            Self::Io(_) => f.write_str("I/O error"),
        }
    }
}

impl fmt::Display for Unencodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { limit, len } => write!(f, "limit {limit} bytes, has {len}"),
            Self::PrefixOverflow { limit, len } => {
                write!(f, "the length prefix ends at {limit} bytes, has {len}")
            }
            Self::TooShort { least, len } => write!(f, "needs {least} bytes, has {len}"),
            Self::WrongPrefix { len } => {
                write!(f, "its length prefix is not that of its {len} bytes")
            }
            Self::Delimiter { at } => write!(f, "a delimiter begins at byte {at}"),
        }
    }
}

impl Error for CodecError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for CodecError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Unencodable> for CodecError {
    fn from(why: Unencodable) -> Self {
        Self::NotEncodable(why)
    }
}
