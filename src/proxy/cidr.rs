//! Networks, as in `10.0.0.0/8`.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::error::Excerpt;

/// A network: an address, and how many of its first bits count (RFC 4632, RFC 4291 §2.3).
///
/// It parses from text and prints back to it; a lone address is the network of just that one. IPv4 written as IPv6
/// (`::ffff:10.0.0.0/104`) is IPv4 here, in networks and in addresses, so that it does not matter which of the two a
/// socket reports.
///
/// ```
/// use hythe::proxy::Cidr;
///
/// let network: Cidr = "10.0.0.0/8".parse()?;
/// assert!(network.contains("10.1.2.3".parse().unwrap()));
/// assert!(network.contains("::ffff:10.1.2.3".parse().unwrap()));
/// assert!(!network.contains("11.0.0.1".parse().unwrap()));
///
/// let error = "10.1.2.3/8".parse::<Cidr>().unwrap_err();
/// assert_eq!(error.to_string(), "10.1.2.3/8 is no network, as it has bits after the first 8; that is 10.0.0.0/8");
/// # Ok::<(), hythe::proxy::CidrError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    /// No bits behind the prefix, and not IPv4 mapped into IPv6.
    network: IpAddr,
    prefix: u8,
}

/// A text is no network.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CidrError {
    /// What stands before the `/` is no IP address.
    Address {
        /// The text, escaped and cut.
        seen: Excerpt,
    },
    /// What stands after the `/` is no number from 0 to the bits of the address, or has a zero in front.
    Prefix {
        /// That part of the text, escaped and cut.
        seen: Excerpt,
        /// The bits of the address: 32 or 128.
        most: u8,
    },
    /// The address has bits after those that count.
    HostBits {
        /// The address.
        address: IpAddr,
        /// How many bits are to count.
        prefix: u8,
        /// The network that the address is in.
        network: Cidr,
    },
}

impl Cidr {
    /// The network that begins at `address` and whose addresses share their first `prefix` bits.
    ///
    /// # Errors
    /// If there are not so many bits, or some after them are set.
    ///
    /// ```
    /// # use hythe::proxy::Cidr;
    /// let network = Cidr::new("192.0.2.0".parse().unwrap(), 24)?;
    /// assert_eq!(network.to_string(), "192.0.2.0/24");
    /// # Ok::<(), hythe::proxy::CidrError>(())
    /// ```
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, CidrError> {
        let most = bits(address);
        if prefix > most {
            return Err(CidrError::Prefix { seen: Excerpt::new(prefix.to_string().as_bytes()), most });
        }
        let network = Self { network: masked(address, prefix), prefix }.canonical();
        if masked(address, prefix) == address {
            Ok(network)
        } else {
            Err(CidrError::HostBits { address, prefix, network })
        }
    }

    /// The first address.
    #[must_use]
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// How many bits count.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether an address is in it. An IPv6 network, even `::/0`, holds no IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address.to_canonical(), self.prefix) == self.network
    }

    fn canonical(self) -> Self {
        match (self.network, self.prefix.checked_sub(96)) {
            (IpAddr::V6(network), Some(prefix)) => match network.to_ipv4_mapped() {
                Some(network) => Self { network: network.into(), prefix },
                None => self,
            },
            _ => self,
        }
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address without the bits after the first `prefix`, of which there may be more than it has.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    let rest = u32::from(bits(address).saturating_sub(prefix));
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(rest).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(rest).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr =
            address.parse().map_err(|_| CidrError::Address { seen: Excerpt::new(text.as_bytes()) })?;
        let Some(text) = prefix else { return Ok(address.into()) };
        let most = bits(address);
        let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        match text.parse() {
            Ok(prefix) if digits && prefix <= most => Self::new(address, prefix),
            _ => Err(CidrError::Prefix { seen: Excerpt::new(text.as_bytes()), most }),
        }
    }
}

impl TryFrom<&str> for Cidr {
    type Error = CidrError;

    fn try_from(text: &str) -> Result<Self, CidrError> {
        text.parse()
    }
}

impl TryFrom<String> for Cidr {
    type Error = CidrError;

    fn try_from(text: String) -> Result<Self, CidrError> {
        text.parse()
    }
}

/// The network of just this address.
impl From<IpAddr> for Cidr {
    fn from(address: IpAddr) -> Self {
        Self { network: address, prefix: bits(address) }.canonical()
    }
}

/// The network of just this address.
impl From<Ipv4Addr> for Cidr {
    fn from(address: Ipv4Addr) -> Self {
        IpAddr::from(address).into()
    }
}

/// The network of just this address.
impl From<Ipv6Addr> for Cidr {
    fn from(address: Ipv6Addr) -> Self {
        IpAddr::from(address).into()
    }
}

/// Always with the `/`.
impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cidr({self})")
    }
}

impl fmt::Display for CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { seen } => write!(f, "{seen} is no network; one is 10.0.0.0/8, or an address alone"),
            Self::Prefix { seen, most } => write!(f, "{seen} is no prefix; it goes from 0 to {most}"),
            Self::HostBits { address, prefix, network } => {
                write!(
                    f,
                    "{address}/{prefix} is no network, as it has bits after the first {prefix}; that is {network}"
                )
            }
        }
    }
}

impl Error for CidrError {}

/// A [`Cidr`] converts into itself without an error. With this,
/// [`ProxyProtocol::required_from`](super::ProxyProtocol::required_from) takes networks, addresses and texts.
impl From<Infallible> for CidrError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
