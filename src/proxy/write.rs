//! A header to send.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::{error::Error, fmt};

use bytes::Bytes;

use super::DEFAULT_MAX_HEADER;
use super::crc::crc32c;
use super::error::ProxyError;
use super::tlv::{self, kind};
use super::v2::{FIXED, LOCAL, NAME, PROXY, SIGNATURE, TCP_V4, TCP_V6, UNIX_STREAM, UNSPEC};

/// A PROXY header, for the start of a connection to a server that requires one.
///
/// ```
/// use hythe::proxy::ProxyHeader;
///
/// let header = ProxyHeader::v1("192.168.0.1:56324".parse()?, "192.168.0.11:443".parse()?);
/// assert_eq!(header.to_bytes()?, "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ProxyHeader {
    form: Form,
    tlvs: Vec<(u8, Vec<u8>)>,
    checksum: bool,
}

#[derive(Clone, Debug)]
enum Form {
    Line { source: SocketAddr, destination: SocketAddr },
    UnknownLine,
    Ip { source: SocketAddr, destination: SocketAddr },
    Unix { source: Vec<u8>, destination: Vec<u8> },
    Local,
}

/// Why a header cannot be sent. Our own fault.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProxyHeaderError {
    /// Version 1 has no extensions.
    TlvInVersion1 {
        /// The [type](kind) of the first one.
        kind: u8,
    },
    /// An extension's value does not fit in 65,535 bytes.
    ValueTooLong {
        /// The extension's [type](kind).
        kind: u8,
        /// The value's length, in bytes.
        len: usize,
    },
    /// The name of a Unix socket has more than 108 bytes, or would not come back as it is: a path with a NUL in it, or
    /// an abstract name with a NUL at its end.
    UnixName {
        /// The name's length, in bytes.
        len: usize,
    },
    /// A receiver would refuse it: it is too long, or an extension is not as it has to be.
    Refused(ProxyError),
}

impl ProxyHeader {
    fn new(form: Form) -> Self {
        Self { form, tlvs: Vec::new(), checksum: false }
    }

    /// Version 1, for a client at `source` that connected to `destination`.
    ///
    /// Addresses that are IPv4 mapped into IPv6, as a socket for both families has them, are sent as IPv4; where only
    /// one of the two is IPv4, it is sent mapped into IPv6.
    #[must_use]
    pub fn v1(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::new(Form::Line { source, destination })
    }

    /// Version 1, for a client whose addresses it has no form for (`UNKNOWN`).
    #[must_use]
    pub fn v1_unknown() -> Self {
        Self::new(Form::UnknownLine)
    }

    /// Version 2, for a client at `source` that connected to `destination` with TCP. As to their families, see
    /// [`v1`](Self::v1).
    #[must_use]
    pub fn v2(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::new(Form::Ip { source, destination })
    }

    /// Version 2, for a client of a Unix socket. The names are as in
    /// [`ProxiedAddresses::Unix`](super::ProxiedAddresses::Unix).
    #[must_use]
    pub fn v2_unix(source: impl Into<Vec<u8>>, destination: impl Into<Vec<u8>>) -> Self {
        Self::new(Form::Unix { source: source.into(), destination: destination.into() })
    }

    /// Version 2, for a connection of one's own, such as a health check (`LOCAL`).
    #[must_use]
    pub fn local() -> Self {
        Self::new(Form::Local)
    }

    /// Adds the host name that the client asked for, as in TLS's SNI.
    #[must_use]
    pub fn authority(self, name: impl Into<String>) -> Self {
        self.tlv(kind::AUTHORITY, name.into())
    }

    /// Adds the protocol above, as in TLS's ALPN.
    #[must_use]
    pub fn alpn(self, protocol: impl Into<Vec<u8>>) -> Self {
        self.tlv(kind::ALPN, protocol)
    }

    /// Adds a name for the connection, at most 128 bytes.
    #[must_use]
    pub fn unique_id(self, id: impl Into<Vec<u8>>) -> Self {
        self.tlv(kind::UNIQUE_ID, id)
    }

    /// Adds an extension of any [type](kind). For the checksum, see [`crc32c`](Self::crc32c).
    #[must_use]
    pub fn tlv(mut self, kind: u8, value: impl Into<Vec<u8>>) -> Self {
        self.tlvs.push((kind, value.into()));
        self
    }

    /// Adds the checksum of the header.
    #[must_use]
    pub fn crc32c(mut self) -> Self {
        self.checksum = true;
        self
    }

    /// The header as it is sent, at most 536 bytes. To be written at once, before anything else.
    ///
    /// # Errors
    /// If it cannot be sent: see [`ProxyHeaderError`].
    pub fn to_bytes(&self) -> Result<Bytes, ProxyHeaderError> {
        match &self.form {
            Form::Line { source, destination } => self.line(&match same_family(*source, *destination) {
                (IpAddr::V6(from), IpAddr::V6(to)) => {
                    format!("PROXY TCP6 {} {} {} {}\r\n", hex(from), hex(to), source.port(), destination.port())
                }
                (from, to) => format!("PROXY TCP4 {from} {to} {} {}\r\n", source.port(), destination.port()),
            }),
            Form::UnknownLine => self.line("PROXY UNKNOWN\r\n"),
            Form::Ip { source, destination } => {
                let (family, mut addresses) = match same_family(*source, *destination) {
                    (IpAddr::V4(from), IpAddr::V4(to)) => (TCP_V4, [from.octets(), to.octets()].concat()),
                    (from, to) => (TCP_V6, [mapped(from).octets(), mapped(to).octets()].concat()),
                };
                addresses.extend(source.port().to_be_bytes());
                addresses.extend(destination.port().to_be_bytes());
                self.binary(PROXY, family, &addresses)
            }
            Form::Unix { source, destination } => {
                let addresses = [field(source)?, field(destination)?].concat();
                self.binary(PROXY, UNIX_STREAM, &addresses)
            }
            Form::Local => self.binary(LOCAL, UNSPEC, &[]),
        }
    }

    fn line(&self, line: &str) -> Result<Bytes, ProxyHeaderError> {
        let first = self.tlvs.first().map(|(kind, _)| *kind).or(self.checksum.then_some(kind::CRC32C));
        match first {
            Some(kind) => Err(ProxyHeaderError::TlvInVersion1 { kind }),
            None => Ok(Bytes::copy_from_slice(line.as_bytes())),
        }
    }

    fn binary(&self, command: u8, family: u8, addresses: &[u8]) -> Result<Bytes, ProxyHeaderError> {
        let mut block = addresses.to_vec();
        for (kind, value) in &self.tlvs {
            let too_long = |_| ProxyHeaderError::ValueTooLong { kind: *kind, len: value.len() };
            let length = u16::try_from(value.len()).map_err(too_long)?;
            block.push(*kind);
            block.extend(length.to_be_bytes());
            block.extend(value);
        }
        if self.checksum {
            block.extend([kind::CRC32C, 0, 4, 0, 0, 0, 0]);
        }
        let total = FIXED.saturating_add(block.len());
        let length = match u16::try_from(block.len()) {
            Ok(length) if total <= DEFAULT_MAX_HEADER => length,
            _ => return Err(ProxyError::TooLong { limit: DEFAULT_MAX_HEADER, seen: total }.into()),
        };
        let mut header = [&SIGNATURE[..], &[command, family], &length.to_be_bytes(), &block].concat();
        if self.checksum {
            let sum = crc32c([&header, b"", b""]);
            if let Some(zeros) = header.last_chunk_mut() {
                *zeros = sum.to_be_bytes();
            }
        }
        tlv::check(&header, FIXED.saturating_add(addresses.len()))?;
        Ok(header.into())
    }
}

/// The addresses, both IPv4 or both IPv6.
fn same_family(source: SocketAddr, destination: SocketAddr) -> (IpAddr, IpAddr) {
    match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => (source.into(), destination.into()),
        (source, destination) => (mapped(source).into(), mapped(destination).into()),
    }
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// An IPv6 address without dots, which version 1 does not have.
fn hex(address: Ipv6Addr) -> String {
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] => format!("::ffff:{high:x}:{low:x}"),
        _ => address.to_string(),
    }
}

/// The name of a Unix socket with NULs behind it.
fn field(name: &[u8]) -> Result<[u8; NAME], ProxyHeaderError> {
    let comes_back = match name {
        [] => true,
        [0, .., last] => *last != 0,
        [0] => false,
        _ => !name.contains(&0),
    };
    let mut field = [0; NAME];
    match field.get_mut(..name.len()) {
        Some(start) if comes_back => start.copy_from_slice(name),
        _ => return Err(ProxyHeaderError::UnixName { len: name.len() }),
    }
    Ok(field)
}

impl fmt::Display for ProxyHeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TlvInVersion1 { kind } => write!(f, "PROXY version 1 has no extensions, nor one of type {kind:#04x}"),
            Self::ValueTooLong { kind, len } => {
                write!(f, "PROXY extension of type {kind:#04x} too long: limit 65535 bytes, has {len}")
            }
            Self::UnixName { len } => {
                write!(f, "Unix socket name of {len} bytes for a PROXY header: limit {NAME}, and no NUL at its end")
            }
            Self::Refused(_) => f.write_str("PROXY header that a receiver would refuse"),
        }
    }
}

impl Error for ProxyHeaderError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Refused(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ProxyError> for ProxyHeaderError {
    fn from(error: ProxyError) -> Self {
        Self::Refused(error)
    }
}
