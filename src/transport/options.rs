//! What can be set of a listening socket.

use std::net::IpAddr;

use crate::proxy::ProxyProtocol;
#[cfg(feature = "tls")]
use crate::tls::ServerTls;

/// How an endpoint is bound, beyond its address. What does not apply to a transport is ignored by it. A socket that was
/// handed over, or that a service manager passed, keeps the buffers that it has, and what it takes for IPv6.
///
/// ```
/// use hythe::BindOptions;
///
/// let feed = BindOptions::new().join_multicast("239.1.1.1".parse().unwrap(), None);
/// let shared = BindOptions::new().unix_mode(0o660);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BindOptions {
    /// The mode of a Unix socket's file. Default: 0600, so that only the same user can connect.
    pub unix_mode: u32,
    /// Multicast groups to join, of UDP, each on an interface: an IPv4 interface by its address, an IPv6 one by its
    /// number; `None` lets the system choose.
    pub multicast: Vec<(IpAddr, Option<Interface>)>,
    /// Whether datagrams may be sent to broadcast addresses. Default: no.
    pub broadcast: bool,
    /// The kernel's receive buffer in bytes; `None` leaves the system's. UDP gets 4 MiB, as a burst is lost otherwise.
    pub receive_buffer: Option<usize>,
    /// The kernel's send buffer in bytes; `None` leaves the system's.
    pub send_buffer: Option<usize>,
    /// The PROXY header that every connection begins with, of the stream transports, and who may send it; without this it
    /// is not looked for. Peers that are not among the trusted are turned away. Default: none.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Datagrams from ports below this are dropped, of UDP: 1024 keeps out those that come, by a forged address, from
    /// another server, whose answers to ours would go on for ever (CVE-2024-2169). Default: 0, which takes all.
    pub min_source_port: u16,
    #[cfg(feature = "udp")]
    pub(crate) gate: Option<super::udp::Gate>,
    /// Whether a listener at an IPv6 address takes IPv6 peers only. Default: yes, so that `[::]` and `0.0.0.0` are two
    /// endpoints everywhere.
    pub ipv6_only: bool,
    /// The certificates of a `tls://` endpoint, which is not bound without; no other endpoint is bound with it.
    #[cfg(feature = "tls")]
    pub tls: Option<ServerTls>,
    /// How many bytes of each read and each write of a connection go into the log, at the level `trace`, without control
    /// characters. Of TLS it is what is inside. Default: 0, none; what peers send may be secret.
    pub log_bytes: usize,
}

/// A network interface, as multicast wants it named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interface {
    /// By one of its addresses (IPv4 groups).
    Address(std::net::Ipv4Addr),
    /// By its number (IPv6 groups).
    Index(u32),
}

impl Default for BindOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl BindOptions {
    /// The defaults of each field.
    #[must_use]
    pub fn new() -> Self {
        Self {
            unix_mode: 0o600,
            multicast: Vec::new(),
            broadcast: false,
            receive_buffer: None,
            send_buffer: None,
            proxy_protocol: None,
            min_source_port: 0,
            #[cfg(feature = "udp")]
            gate: None,
            ipv6_only: true,
            #[cfg(feature = "tls")]
            tls: None,
            log_bytes: 0,
        }
    }

    /// Sets the mode of a Unix socket's file.
    #[must_use]
    pub fn unix_mode(mut self, mode: u32) -> Self {
        self.unix_mode = mode & 0o777;
        self
    }

    /// Joins a multicast group.
    #[must_use]
    pub fn join_multicast(mut self, group: IpAddr, interface: Option<Interface>) -> Self {
        self.multicast.push((group, interface));
        self
    }

    /// Allows, or not, datagrams to broadcast addresses.
    #[must_use]
    pub fn broadcast(mut self, allowed: bool) -> Self {
        self.broadcast = allowed;
        self
    }

    /// Requires a PROXY header.
    ///
    /// ```
    /// use hythe::BindOptions;
    /// use hythe::proxy::ProxyProtocol;
    ///
    /// let behind = BindOptions::new().proxy_protocol(ProxyProtocol::required_from(["10.0.0.0/8"])?);
    /// # Ok::<(), hythe::proxy::CidrError>(())
    /// ```
    #[must_use]
    pub fn proxy_protocol(mut self, required: ProxyProtocol) -> Self {
        self.proxy_protocol = Some(required);
        self
    }

    /// Sets the lowest port that datagrams are taken from.
    #[must_use]
    pub fn min_source_port(mut self, port: u16) -> Self {
        self.min_source_port = port;
        self
    }

    /// Has `ask` decide over each datagram that comes from an address without a session, of UDP. It runs in the task
    /// that receives, for strangers' datagrams, so it must be quick and must not block. A panic in it drops the datagram.
    #[cfg(feature = "udp")]
    #[must_use]
    pub fn gate(
        mut self,
        ask: impl Fn(std::net::SocketAddr, &[u8]) -> super::udp::Entry + Send + Sync + 'static,
    ) -> Self {
        self.gate = Some(super::udp::Gate::new(ask));
        self
    }

    /// Sets the kernel's receive buffer, in bytes.
    #[must_use]
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// Sets the kernel's send buffer, in bytes.
    #[must_use]
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.send_buffer = Some(bytes);
        self
    }

    /// Sets whether an IPv6 listener takes IPv6 peers only.
    #[must_use]
    pub fn ipv6_only(mut self, only: bool) -> Self {
        self.ipv6_only = only;
        self
    }

    /// Sets the certificates of a `tls://` endpoint.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: ServerTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sets how many bytes of each read and each write go into the log.
    #[must_use]
    pub fn log_bytes(mut self, bytes: usize) -> Self {
        self.log_bytes = bytes;
        self
    }
}
