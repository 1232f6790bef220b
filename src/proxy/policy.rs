//! What an endpoint requires.

use std::net::IpAddr;
use std::time::Duration;

use super::DEFAULT_MAX_HEADER;
use super::cidr::{Cidr, CidrError};

/// That every connection of an endpoint begins with a PROXY header, of either version, and whom it is taken from.
///
/// There is no "if there is one": a client that may leave the header out may as well write its own. A connection from
/// elsewhere, or without a header, is closed.
///
/// ```
/// use std::time::Duration;
/// use hythe::proxy::ProxyProtocol;
///
/// let required = ProxyProtocol::required_from(["10.0.0.0/8", "2001:db8::7"])?.deadline(Duration::from_secs(3));
/// assert!(required.trusts("10.1.2.3".parse().unwrap()));
/// assert!(!required.trusts("192.0.2.1".parse().unwrap()));
/// # Ok::<(), hythe::proxy::CidrError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyProtocol {
    /// The networks that the proxies are in.
    pub trusted: Vec<Cidr>,
    /// Whether peers without an address, those of a Unix socket, are taken for proxies. Who they can be, the mode of
    /// the socket decides. Default: no.
    pub trust_local: bool,
    /// From the accept to the end of the header. Default: 5 s; the specification says 3 s at least, as a lost segment
    /// is sent again after one.
    pub deadline: Duration,
    /// The longest version 2 header taken, in bytes. Default: 536. A version 1 header has at most 107.
    pub max_header: usize,
}

impl ProxyProtocol {
    /// Required, from these networks. An empty list trusts nobody.
    ///
    /// # Errors
    /// If one of them is no network.
    pub fn required_from<T>(trusted: impl IntoIterator<Item = T>) -> Result<Self, CidrError>
    where
        T: TryInto<Cidr, Error: Into<CidrError>>,
    {
        let trusted = trusted.into_iter().map(|network| network.try_into().map_err(Into::into));
        Ok(Self::required(trusted.collect::<Result<_, _>>()?))
    }

    /// Required, from the peers of a Unix socket and from no network.
    #[must_use]
    pub fn required_from_local() -> Self {
        Self::required(Vec::new()).trust_local(true)
    }

    fn required(trusted: Vec<Cidr>) -> Self {
        Self { trusted, trust_local: false, deadline: Duration::from_secs(5), max_header: DEFAULT_MAX_HEADER }
    }

    /// Sets whether the peers of a Unix socket are trusted.
    #[must_use]
    pub fn trust_local(mut self, trust: bool) -> Self {
        self.trust_local = trust;
        self
    }

    /// Sets the time from the accept to the end of the header.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets the longest version 2 header, in bytes.
    #[must_use]
    pub fn max_header(mut self, bytes: usize) -> Self {
        self.max_header = bytes;
        self
    }

    /// Whether a header from this address is taken.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }
}
