//! Why bytes are no PROXY header.

use std::{error::Error, fmt, io};

/// How much of what a peer sent goes into a message, in bytes.
const SHOWN: usize = 64;

/// Why a connection's first bytes are no header, or the header is refused. Close the connection.
///
/// The message is one line that fits in a log. What the peer sent is in it escaped and cut to 64 bytes, if at all.
///
/// ```
/// use hythe::proxy::{DEFAULT_MAX_HEADER, parse};
///
/// let error = parse(b"GET / HTTP/1.1\r\n", DEFAULT_MAX_HEADER).unwrap_err();
/// assert_eq!(error.to_string(), r#"not a PROXY header from byte 0 on: "GET / HTTP/1.1\r\n""#);
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum ProxyError {
    /// Neither version's header begins like this. A client without a proxy, or a proxy that is not set up to send one.
    NotProxy {
        /// The first byte that does not fit, counted from 0.
        at: usize,
        /// What has arrived, from the start.
        seen: Excerpt,
    },
    /// A version 1 line is not as it has to be.
    Line {
        /// Which part of it.
        part: LinePart,
        /// Where that part begins, counted from 0.
        at: usize,
        /// The part up to the byte that is wrong or ends it.
        seen: Excerpt,
    },
    /// The binary header is not of version 2.
    Version {
        /// The version it claims, a nibble.
        seen: u8,
    },
    /// A version 2 header has a command other than LOCAL (0) and PROXY (1).
    Command {
        /// The command, a nibble.
        seen: u8,
    },
    /// A version 2 header has an address family and a transport that do not exist, or not together.
    Family {
        /// Both: the family in the upper nibble, the transport in the lower.
        seen: u8,
    },
    /// The header is longer than the limit.
    TooLong {
        /// The longest header allowed, in bytes.
        limit: usize,
        /// What a version 2 header claims, or the least that a version 1 line comes to, in bytes.
        seen: usize,
    },
    /// A version 2 header is shorter than the addresses of its family.
    TooShort {
        /// The length of the addresses, in bytes.
        need: usize,
        /// The length that the header claims for them and what follows, in bytes.
        seen: usize,
    },
    /// An extension of a version 2 header is not as it has to be.
    Tlv {
        /// Where the extension begins, counted from the start of the header.
        at: usize,
        /// Its [type](super::kind).
        kind: u8,
        /// What is wrong with it.
        fault: TlvFault,
    },
    /// The CRC32c in a version 2 header is not that of the header.
    Checksum {
        /// What the header says.
        seen: u32,
        /// What it comes to.
        computed: u32,
    },
    /// The connection ended before the header was whole. With `have: 0` it is one that sent nothing, as port scans and
    /// some health checks do.
    Truncated {
        /// How many bytes of the header arrived.
        have: usize,
    },
    /// The transport failed.
    Io(io::Error),
}

/// A part of a version 1 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LinePart {
    /// `TCP4`, `TCP6` or `UNKNOWN`.
    Protocol,
    /// The address of the client.
    Source,
    /// The address that the client connected to.
    Destination,
    /// The port of the client.
    SourcePort,
    /// The port that the client connected to.
    DestinationPort,
    /// CR and LF.
    End,
}

/// What is wrong with an extension (TLV) of a version 2 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlvFault {
    /// It runs past the end of the header, or of the extension that it is in.
    Truncated {
        /// How many bytes it takes, its type and length included.
        need: usize,
        /// How many there are.
        have: usize,
    },
    /// Its value has a length that its type does not have.
    Length {
        /// The shortest value, in bytes.
        least: usize,
        /// The longest value, in bytes.
        most: usize,
        /// The value's length, in bytes.
        seen: usize,
    },
    /// Its value is not the text that it has to be: UTF-8 or, of some types, ASCII.
    NotText {
        /// How many bytes at the start of the value are.
        valid_up_to: usize,
    },
    /// There can be only one of its type.
    Repeated,
}

impl ProxyError {
    /// The limit that was exceeded and the length that was seen, in bytes; `None` if the error is not about a limit.
    #[must_use]
    pub const fn limit_and_seen(&self) -> Option<(usize, usize)> {
        match *self {
            Self::TooLong { limit, seen } => Some((limit, seen)),
            _ => None,
        }
    }

    /// Whether the connection ended before the header was whole.
    #[must_use]
    pub const fn is_truncated(&self) -> bool {
        matches!(self, Self::Truncated { .. })
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotProxy { at, seen } => write!(f, "not a PROXY header from byte {at} on: {seen}"),
            Self::Line { part, at, seen } => write!(f, "PROXY line with a wrong {part} at byte {at}: {seen}"),
            Self::Version { seen } => write!(f, "binary PROXY header of version {seen}, not 2"),
            Self::Command { seen } => write!(f, "PROXY header with the unknown command {seen}"),
            Self::Family { seen } => write!(f, "PROXY header with the unknown family and transport {seen:#04x}"),
            Self::TooLong { limit, seen } => write!(f, "PROXY header too long: limit {limit} bytes, seen {seen}"),
            Self::TooShort { need, seen } => {
                write!(f, "PROXY header too short: its addresses take {need} bytes, it claims {seen}")
            }
            Self::Tlv { at, kind, fault } => {
                write!(f, "PROXY header with a wrong extension of type {kind:#04x} at byte {at}: {fault}")
            }
            Self::Checksum { seen, computed } => {
                write!(f, "PROXY header with a wrong checksum: it says {seen:#010x} and comes to {computed:#010x}")
            }
            Self::Truncated { have } => write!(f, "connection ended inside the PROXY header: {have} bytes arrived"),
            Self::Io(_) => f.write_str("I/O error before the end of the PROXY header"),
        }
    }
}

impl fmt::Display for LinePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Protocol => "protocol",
            Self::Source => "source address",
            Self::Destination => "destination address",
            Self::SourcePort => "source port",
            Self::DestinationPort => "destination port",
            Self::End => "line end",
        })
    }
}

impl fmt::Display for TlvFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { need, have } => write!(f, "it takes {need} bytes, there are {have}"),
            Self::Length { least, most, seen } if least == most => write!(f, "its value has {seen} bytes, not {least}"),
            Self::Length { least, most, seen } => write!(f, "its value has {seen} bytes, not {least} to {most}"),
            Self::NotText { valid_up_to } => write!(f, "its value is no text after its first {valid_up_to} bytes"),
            Self::Repeated => f.write_str("it comes twice"),
        }
    }
}

impl Error for ProxyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for ProxyError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A little of what somebody else wrote, fit for a log: printable ASCII, the rest escaped, cut to 64 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Excerpt(Box<str>);

impl Excerpt {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let mut shown = String::new();
        for byte in bytes {
            let escaped = byte.escape_ascii();
            if shown.len().saturating_add(escaped.len()) > SHOWN {
                shown.push('…');
                break;
            }
            shown.extend(escaped.map(char::from));
        }
        Self(shown.into())
    }

    /// The text, without quotes. It ends in `…` where it was cut.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// In double quotes.
impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
