//! Who is at the other end.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::endpoint::Endpoint;
use crate::proxy::Proxied;
#[cfg(feature = "tls")]
use crate::tls::TlsInfo;

/// The other end of a connection.
///
/// Taken once, when the connection was made, so that it can be asked after the peer is gone.
///
/// ```
/// # use hythe::Peer;
/// fn is_local(peer: &Peer) -> bool {
///     peer.ip().is_none_or(|ip| ip.is_loopback())
/// }
/// ```
#[derive(Clone)]
pub struct Peer {
    endpoint: Arc<Endpoint>,
    address: PeerAddress,
    proxied: Option<Arc<(PeerAddress, Proxied)>>,
    #[cfg(feature = "tls")]
    tls: Option<Arc<TlsInfo>>,
}

/// A peer's address, as its transport knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PeerAddress {
    /// Of TCP, of TLS over it, and of UDP.
    Ip(SocketAddr),
    /// Of a Unix socket: the process that connected, where the system tells.
    Unix(Option<Credentials>),
    /// Inside this process: which of its connections in memory it is, as a port would tell. Never used again.
    Memory(u64),
}

/// The process at the other end of a Unix socket, as the kernel saw it when it connected (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Credentials {
    /// Its process id, where the system tells.
    pub pid: Option<i32>,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

impl Peer {
    pub(crate) fn new(endpoint: Arc<Endpoint>, address: PeerAddress) -> Self {
        Self {
            endpoint,
            address,
            proxied: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    #[cfg(feature = "tls")]
    pub(crate) fn with_tls(mut self, info: TlsInfo) -> Self {
        self.tls = Some(Arc::new(info));
        self
    }

    /// The one that the proxy at this end of the connection speaks for.
    pub(crate) fn behind(mut self, proxied: Proxied) -> Self {
        let proxy = self.address;
        if let Some(source) = proxied.source() {
            self.address = PeerAddress::Ip(source);
        }
        self.proxied = Some(Arc::new((proxy, proxied)));
        self
    }

    /// The endpoint that the connection came in by, or, for a connection we made, went out to.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The peer's address. Behind a proxy that is the client's, as its header has it; where that does not say, the proxy's.
    #[must_use]
    pub fn address(&self) -> PeerAddress {
        self.address
    }

    /// The peer's IP address and port, of TCP, TLS and UDP.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self.address {
            PeerAddress::Ip(addr) => Some(addr),
            _ => None,
        }
    }

    /// The peer's IP address, of TCP, TLS and UDP.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket_addr().map(|addr| addr.ip())
    }

    /// What the TLS handshake agreed upon, where the connection is encrypted: the peer's certificates, the protocol inside,
    /// the name that was asked for.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(&self) -> Option<&TlsInfo> {
        self.tls.as_deref()
    }

    /// What the PROXY header said, where the endpoint [requires](crate::BindOptions::proxy_protocol) one.
    #[must_use]
    pub fn proxied(&self) -> Option<&Proxied> {
        self.proxied.as_ref().map(|proxied| &proxied.1)
    }

    /// The address of the proxy that sent the header.
    #[must_use]
    pub fn proxy_address(&self) -> Option<PeerAddress> {
        self.proxied.as_ref().map(|proxied| proxied.0)
    }

    /// The process at the other end, of a Unix socket.
    #[must_use]
    pub fn credentials(&self) -> Option<Credentials> {
        match self.address {
            PeerAddress::Unix(credentials) => credentials,
            _ => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            // behind a proxy it need not be the transport's own
            PeerAddress::Ip(addr) if matches!(&*self.endpoint, Endpoint::Unix(_) | Endpoint::Mem(_)) => {
                write!(f, "tcp://{addr}")
            }
            PeerAddress::Ip(addr) => write!(f, "{}://{addr}", self.endpoint.scheme()),
            PeerAddress::Unix(Some(Credentials { pid: Some(pid), uid, .. })) => {
                write!(f, "unix process {pid} of user {uid}")
            }
            PeerAddress::Unix(_) => f.write_str("unix"),
            PeerAddress::Memory(number) => write!(f, "mem #{number}"),
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({self} at {})", self.endpoint)
    }
}
