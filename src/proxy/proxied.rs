//! What a header said.

use std::fmt;
use std::net::SocketAddr;

use super::error::Excerpt;
use super::tls::ProxiedTls;
use super::tlv::{self, kind};

/// What a PROXY header said of the connection behind the proxy.
///
/// All of it is the proxy's word, and as good as the network it came from. The extensions (TLVs), which only version 2
/// has, are kept as they came; their number and size are bounded by the longest header allowed.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxied {
    version: u8,
    addresses: ProxiedAddresses,
    datagrams: bool,
    /// Checked.
    tlvs: Box<[u8]>,
}

/// Whose connection it is, according to a header.
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProxiedAddresses {
    /// A client's, over IPv4 or IPv6. Both addresses are of the same family; those that are IPv4 mapped into IPv6 are
    /// left so.
    Ip {
        /// The client.
        source: SocketAddr,
        /// Where the client connected to.
        destination: SocketAddr,
    },
    /// A client's, over a Unix socket. A name is a path, or begins with a NUL and is an abstract one, or is empty and
    /// there is none. Whatever bytes they are: escape them before they are shown.
    Unix {
        /// The client's name, at most 108 bytes.
        source: Box<[u8]>,
        /// The name that the client connected to, at most 108 bytes.
        destination: Box<[u8]>,
    },
    /// The proxy's own (`LOCAL`), such as a health check. The addresses are the connection's own.
    Local,
    /// A client's, but the proxy does not say which one (`UNKNOWN`, `UNSPEC`). The addresses are the connection's own,
    /// so that the client seems to be the proxy.
    Unknown,
}

impl Proxied {
    pub(super) fn v1(addresses: ProxiedAddresses) -> Self {
        Self { version: 1, addresses, datagrams: false, tlvs: Box::default() }
    }

    pub(super) fn v2(addresses: ProxiedAddresses, datagrams: bool, tlvs: &[u8]) -> Self {
        Self { version: 2, addresses, datagrams, tlvs: tlvs.into() }
    }

    /// The version of the header, 1 or 2.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.version
    }

    /// Whose connection it is.
    #[must_use]
    pub fn addresses(&self) -> &ProxiedAddresses {
        &self.addresses
    }

    /// The client's IP address and port; `None` if there is none or the header does not say it.
    #[must_use]
    pub fn source(&self) -> Option<SocketAddr> {
        match self.addresses {
            ProxiedAddresses::Ip { source, .. } => Some(source),
            _ => None,
        }
    }

    /// The IP address and port that the client connected to; `None` if there is none or the header does not say it.
    #[must_use]
    pub fn destination(&self) -> Option<SocketAddr> {
        match self.addresses {
            ProxiedAddresses::Ip { destination, .. } => Some(destination),
            _ => None,
        }
    }

    /// Whether the connection is the proxy's own, such as a health check.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.addresses == ProxiedAddresses::Local
    }

    /// Whether the client speaks to the proxy in datagrams (UDP) and not over a stream.
    #[must_use]
    pub fn is_datagrams(&self) -> bool {
        self.datagrams
    }

    /// The host name that the client asked for, as in TLS's SNI. It is UTF-8, and may hold anything else.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        self.tlv(kind::AUTHORITY).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The protocol above, as in TLS's ALPN, such as `h2`.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tlv(kind::ALPN)
    }

    /// The proxy's name for the connection, at most 128 bytes.
    #[must_use]
    pub fn unique_id(&self) -> Option<&[u8]> {
        self.tlv(kind::UNIQUE_ID)
    }

    /// The client's TLS; `None` if the header does not say whether there is any.
    #[must_use]
    pub fn tls(&self) -> Option<ProxiedTls<'_>> {
        self.tlv(kind::TLS).and_then(ProxiedTls::new)
    }

    /// Whether the header had a checksum. A wrong one is an error, so that this one was right.
    #[must_use]
    pub fn has_checksum(&self) -> bool {
        self.tlv(kind::CRC32C).is_some()
    }

    /// The value of the first extension of a [type](kind), known or not.
    #[must_use]
    pub fn tlv(&self, kind: u8) -> Option<&[u8]> {
        tlv::find(&self.tlvs, kind)
    }

    /// All extensions, types and values, in their order.
    pub fn tlvs(&self) -> impl Iterator<Item = (u8, &[u8])> {
        tlv::all(&self.tlvs).map(|tlv| (tlv.kind, tlv.value))
    }
}

/// The addresses and the version.
impl fmt::Display for Proxied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (PROXY version {})", self.addresses, self.version)
    }
}

impl fmt::Debug for Proxied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxied({self}, {} bytes of extensions)", self.tlvs.len())
    }
}

/// What a peer named is escaped.
impl fmt::Display for ProxiedAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip { source, destination } => write!(f, "{source} to {destination}"),
            Self::Unix { source, destination } => {
                write!(f, "unix {} to {}", Excerpt::new(source), Excerpt::new(destination))
            }
            Self::Local => f.write_str("the proxy itself"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl fmt::Debug for ProxiedAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxiedAddresses({self})")
    }
}
