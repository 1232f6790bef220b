//! `host:port`, what follows `tcp://`, `tls://` and `udp://`.

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::EndpointPart::{Host, Path, Port};
use super::error::{EndpointError, Flaw, quoted};

/// The longest host name that DNS can carry, and the longest label in it.
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// A host, an address or a name, and a port.
///
/// ```
/// use hythe::endpoint::HostPort;
///
/// let name = HostPort::new("localhost", 9000)?;
/// assert_eq!((name.host(), name.port(), name.socket_addr()), ("localhost", 9000, None));
///
/// let address = HostPort::from(std::net::SocketAddr::from(([127, 0, 0, 1], 9000)));
/// assert_eq!(address, HostPort::new("127.0.0.1", 9000)?);
/// # Ok::<(), hythe::EndpointError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Canonical, without brackets.
    host: Box<str>,
    port: u16,
    /// Set if `host` is an address.
    addr: Option<SocketAddr>,
}

impl HostPort {
    /// A host, which is an address (IPv6 without brackets) or a name, and a port.
    ///
    /// # Errors
    /// If `host` is neither.
    ///
    /// ```
    /// use hythe::endpoint::{Endpoint, HostPort};
    ///
    /// let endpoint = Endpoint::Udp(HostPort::new("fe80::1%2", 53)?);
    /// assert_eq!(endpoint.to_string(), "udp://[fe80::1%2]:53");
    /// assert!(HostPort::new("two words", 53).is_err());
    /// # Ok::<(), hythe::EndpointError>(())
    /// ```
    pub fn new(host: &str, port: u16) -> Result<Self, EndpointError> {
        let found = literal_v6(host).map_or_else(|| v4_or_name(host), Ok);
        match found {
            Ok(found) => Ok(Self::assemble(found, port)),
            Err(problem) => Err(EndpointError::new(host, Flaw::new(Host, problem))),
        }
    }

    /// The host without brackets: an address (an IPv6 one with its zone, as in `fe80::1%2`) or a
    /// name in lower case.
    ///
    /// ```
    /// use hythe::endpoint::HostPort;
    ///
    /// assert_eq!(HostPort::new("LocalHost", 80)?.host(), "localhost");
    /// assert_eq!(HostPort::new("0:0::1", 80)?.host(), "::1");
    /// # Ok::<(), hythe::EndpointError>(())
    /// ```
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port. As a place to listen at, 0 lets the system choose.
    ///
    /// ```
    /// # use hythe::endpoint::HostPort;
    /// assert_eq!(HostPort::new("localhost", 80)?.port(), 80);
    /// # Ok::<(), hythe::EndpointError>(())
    /// ```
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address, or `None` if the host is a name, which has to be looked up.
    ///
    /// ```
    /// # use hythe::endpoint::HostPort;
    /// assert_eq!(HostPort::new("::1", 80)?.socket_addr(), "[::1]:80".parse().ok());
    /// assert_eq!(HostPort::new("localhost", 80)?.socket_addr(), None);
    /// # Ok::<(), hythe::EndpointError>(())
    /// ```
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        self.addr
    }

    /// Reads what follows `scheme://`.
    pub(super) fn parse(scheme: &str, text: &str) -> Result<Self, Flaw> {
        if let Some((_, rest)) = text.rsplit_once('@') {
            return Err(Flaw::new(Host, "the host has a user before it, which no endpoint takes")
                .meant(format!("{scheme}://{rest}")));
        }
        if let Some((authority, _)) = text.split_once(['/', '?', '#']) {
            return Err(Flaw::new(Path, "a path, even a lone /, has no place after the port")
                .meant(format!("{scheme}://{authority}")));
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => bracketed(scheme, rest)?,
            None => bare(scheme, text)?,
        };
        if port.is_empty() {
            return Err(
                Flaw::new(Port, "the port is missing").like(format!("{scheme}://{}:9000", text.trim_end_matches(':')))
            );
        }
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Flaw::new(Port, format!("the port {} is not a number", quoted(port))));
        }
        // Digits fail to parse only when they are too many.
        let port = port.parse().map_err(|_| Flaw::new(Port, format!("the port {} is above 65535", quoted(port))))?;
        Ok(Self::assemble(host, port))
    }

    fn assemble(host: Found, port: u16) -> Self {
        match host {
            Found::Address(mut address) => {
                address.set_port(port);
                address.into()
            }
            Found::Name(name) => Self { host: name.into(), port, addr: None },
        }
    }
}

/// The flow label of an IPv6 address has no text form, and is set to 0.
///
/// ```
/// use std::net::SocketAddr;
/// use hythe::endpoint::HostPort;
///
/// assert_eq!(HostPort::from(SocketAddr::from(([127, 0, 0, 1], 80))).host(), "127.0.0.1");
/// ```
impl From<SocketAddr> for HostPort {
    fn from(mut addr: SocketAddr) -> Self {
        let host = match &mut addr {
            SocketAddr::V4(v4) => v4.ip().to_string(),
            SocketAddr::V6(v6) => {
                v6.set_flowinfo(0);
                match v6.scope_id() {
                    0 => v6.ip().to_string(),
                    zone => format!("{}%{zone}", v6.ip()),
                }
            }
        };
        Self { host: host.into(), port: addr.port(), addr: Some(addr) }
    }
}

/// As it stands in an endpoint, with brackets around an IPv6 address.
///
/// ```
/// # use hythe::endpoint::HostPort;
/// assert_eq!(HostPort::new("::1", 80)?.to_string(), "[::1]:80");
/// # Ok::<(), hythe::EndpointError>(())
/// ```
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, .. } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

enum Found {
    /// With the port 0 for now.
    Address(SocketAddr),
    Name(String),
}

/// Reads `::1]:80`, what follows the opening bracket.
fn bracketed<'a>(scheme: &str, text: &'a str) -> Result<(Found, &'a str), Flaw> {
    let Some((host, rest)) = text.split_once(']') else {
        return Err(Flaw::new(Host, "the host has a [ without a ]"));
    };
    let Some(found) = literal_v6(host) else {
        let zone = host.split_once('%').filter(|(address, _)| is_v6(address));
        return Err(if let Some((address, _)) = zone {
            Flaw::new(Host, "the host has a zone that is not the number of an interface")
                .like(format!("{scheme}://[{address}%2]{rest}"))
        } else {
            Flaw::new(Host, format!("the host {} in brackets is no IPv6 address", quoted(host)))
                .meant(format!("{scheme}://{host}{rest}"))
        });
    };
    match rest.strip_prefix(':') {
        Some(port) => Ok((found, port)),
        None if rest.is_empty() => Ok((found, rest)),
        None => Err(Flaw::new(Port, "the port comes after ]:").meant(format!("{scheme}://[{host}]:{rest}"))),
    }
}

/// Reads `127.0.0.1:80` or `localhost:80`.
fn bare<'a>(scheme: &str, text: &'a str) -> Result<(Found, &'a str), Flaw> {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    if host.contains(':') || is_v6(text) {
        // `::1:80` is a whole address as well, but the last number of it is rather the port.
        return Err(if is_v6(host) {
            Flaw::new(Host, "the host is an IPv6 address and needs brackets")
                .meant(format!("{scheme}://[{host}]:{port}"))
        } else if is_v6(text) {
            Flaw::new(Host, "the host is an IPv6 address and needs brackets").like(format!("{scheme}://[{text}]:9000"))
        } else {
            Flaw::new(Host, "the host has a ':' in it")
        });
    }
    if host.is_empty() || host == "*" {
        let port = if port.is_empty() { "9000" } else { port };
        return Err(Flaw::new(Host, "the host is missing (every address is 0.0.0.0 or [::])")
            .meant(format!("{scheme}://0.0.0.0:{port}")));
    }
    let found = v4_or_name(host).map_err(|problem| Flaw::new(Host, problem))?;
    Ok((found, port))
}

fn is_v6(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok()
}

/// An IPv6 address and, if there is one, its zone.
fn literal_v6(host: &str) -> Option<Found> {
    let addr = format!("[{host}]:0").parse::<SocketAddrV6>().ok()?;
    Some(Found::Address(addr.into()))
}

fn v4_or_name(host: &str) -> Result<Found, Cow<'static, str>> {
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(Found::Address(SocketAddr::from((ip, 0))));
    }
    check_name(host)?;
    Ok(Found::Name(host.to_ascii_lowercase()))
}

/// The rules of RFC 1123, and underscores, which real networks have.
fn check_name(host: &str) -> Result<(), Cow<'static, str>> {
    if host.is_empty() {
        return Err("the host is missing".into());
    }
    if !host.is_ascii() {
        return Err("the host is not ASCII; write it in punycode, as in xn--bcher-kva.example".into());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if let Some(wrong) = host.chars().find(|&c| !allowed(c)) {
        return Err(format!("the host has the character {wrong:?}").into());
    }
    // A dot at the end marks a name that no search domain is added to.
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.len() > NAME_MAX {
        return Err(format!("the host has {} bytes, at most {NAME_MAX} are allowed", name.len()).into());
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err("the host has nothing between two dots".into());
        }
        if label.len() > LABEL_MAX {
            let seen = label.len();
            return Err(format!("the host has a label of {seen} bytes, at most {LABEL_MAX} are allowed").into());
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("the host has a label that starts or ends with '-'".into());
        }
    }
    // Resolvers take `127.1` and `0x7f000001` for addresses, and not all for the same ones.
    let last = name.rsplit('.').next().unwrap_or(name);
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    if last.bytes().all(|b| b.is_ascii_digit())
        || hex.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        return Err("the host ends in a number and is no IPv4 address".into());
    }
    Ok(())
}
