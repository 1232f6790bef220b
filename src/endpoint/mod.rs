//! Where a server listens, or a client connects.
//!
//! | text | what it is |
//! |---|---|
//! | `tcp://127.0.0.1:9000`, `tcp://[::1]:0`, `tcp://localhost:80` | TCP; a listener at port 0 gets a free one |
//! | `tcp://0.0.0.0:9000`, `tcp://[::]:9000` | every address of this host |
//! | `tls://example.org:443` | TLS over TCP (feature `tls`) |
//! | `udp://239.1.1.1:9000`, `udp://[fe80::1%2]:9000` | UDP; a zone is the number of an interface |
//! | `unix:///run/app.sock` | a Unix socket, by its absolute path |
//! | `unix:app.sock` | a Unix socket, by a path relative to the working directory |
//! | `unix:@app` | a Unix socket with an abstract name (Linux) |
//! | `mem:app` | inside this process |
//! | `fd:3`, `fd:http` | a socket that a service manager passes, by its number or name; to listen only |
//!
//! An [`Endpoint`] prints the text that it was parsed from, in canonical form: the scheme and
//! the host name in lower case, addresses as the standard library writes them, ports without
//! leading zeros, `unix:/a` as `unix:///a`. What it prints parses to an equal endpoint.
//!
//! Paths and names are taken literally, see [`UnixAddress`]. A host name must have the form that
//! RFC 1123 gives it, underscores allowed; it isn't looked up here.
//!
//! ```
//! use hythe::Endpoint;
//!
//! let endpoint: Endpoint = "tcp://[::1]:9000".parse()?;
//! assert_eq!(endpoint, Endpoint::tcp("[::1]:9000".parse().unwrap()));
//! assert_eq!(endpoint.to_string(), "tcp://[::1]:9000");
//!
//! let error = "tcp://::1:9000".parse::<Endpoint>().unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "endpoint \"tcp://::1:9000\": the host is an IPv6 address and needs brackets; \
//!      did you mean tcp://[::1]:9000?",
//! );
//! # Ok::<(), hythe::EndpointError>(())
//! ```

mod descriptor;
mod error;
mod host;
mod local;
mod parse;

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;

pub use descriptor::PassedSocket;
pub use error::{EndpointError, EndpointPart};
pub use host::HostPort;
pub use local::{MemName, UnixAddress};

/// Where a server listens, or a client connects. The [module page](self) lists the forms.
///
/// ```
/// use hythe::Endpoint;
///
/// fn describe(endpoint: &Endpoint) -> String {
///     match endpoint {
///         Endpoint::Tcp(at) | Endpoint::Tls(at) | Endpoint::Udp(at) => format!("port {} of {}", at.port(), at.host()),
///         Endpoint::Unix(address) => format!("the socket {:?}", address.path()),
///         other => other.to_string(),
///     }
/// }
///
/// assert_eq!(describe(&"udp://localhost:53".parse()?), "port 53 of localhost");
/// # Ok::<(), hythe::EndpointError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// `tcp://host:port`
    Tcp(HostPort),
    /// `tls://host:port`
    Tls(HostPort),
    /// `udp://host:port`
    Udp(HostPort),
    /// `unix:///path`, `unix:path` or `unix:@name`
    Unix(UnixAddress),
    /// `mem:name`
    Mem(MemName),
    /// `fd:3` or `fd:name`
    Fd(PassedSocket),
}

impl Endpoint {
    /// TCP at an address. For a host name there is `Endpoint::Tcp` with [`HostPort::new`].
    ///
    /// ```
    /// use hythe::Endpoint;
    ///
    /// let endpoint = Endpoint::tcp(([127, 0, 0, 1], 9000).into());
    /// assert_eq!(endpoint.to_string(), "tcp://127.0.0.1:9000");
    /// ```
    #[must_use]
    pub fn tcp(addr: SocketAddr) -> Self {
        Self::Tcp(addr.into())
    }

    /// TLS over TCP at an address. For a host name, which is what certificates are for, there is `Endpoint::Tls` with
    /// [`HostPort::new`].
    ///
    /// ```
    /// use hythe::Endpoint;
    ///
    /// let endpoint = Endpoint::tls(([127, 0, 0, 1], 9000).into());
    /// assert_eq!(endpoint.to_string(), "tls://127.0.0.1:9000");
    /// ```
    #[must_use]
    pub fn tls(addr: SocketAddr) -> Self {
        Self::Tls(addr.into())
    }

    /// UDP at an address.
    ///
    /// ```
    /// use hythe::Endpoint;
    ///
    /// let endpoint = Endpoint::udp(([127, 0, 0, 1], 9000).into());
    /// assert_eq!(endpoint.to_string(), "udp://127.0.0.1:9000");
    /// ```
    #[must_use]
    pub fn udp(addr: SocketAddr) -> Self {
        Self::Udp(addr.into())
    }

    /// A Unix socket at a path, absolute or relative.
    ///
    /// # Errors
    /// If [`UnixAddress`] doesn't take the path, or if it begins with `@`: an abstract name has
    /// [its own constructor](Self::unix_abstract), and for a file of that name there is `./@name`.
    ///
    /// ```
    /// use hythe::Endpoint;
    ///
    /// let dir = std::path::Path::new("/run");
    /// assert_eq!(Endpoint::unix(dir.join("app.sock"))?.to_string(), "unix:///run/app.sock");
    ///
    /// let error = Endpoint::unix("a".repeat(200)).unwrap_err();
    /// assert!(error.to_string().contains("the path has 200 bytes, at most 10"));
    /// # Ok::<(), hythe::EndpointError>(())
    /// ```
    pub fn unix(path: impl AsRef<Path>) -> Result<Self, EndpointError> {
        UnixAddress::from_path(path.as_ref()).map(Self::Unix)
    }

    /// A Unix socket with an abstract name, given without the `@`.
    ///
    /// # Errors
    /// If the name is empty or too long, has a control character or white space at an end, or if
    /// this system isn't Linux.
    ///
    /// ```
    /// # use hythe::Endpoint;
    /// # if cfg!(target_os = "linux") {
    /// assert_eq!(Endpoint::unix_abstract("app")?.to_string(), "unix:@app");
    /// # }
    /// # Ok::<(), hythe::EndpointError>(())
    /// ```
    pub fn unix_abstract(name: &str) -> Result<Self, EndpointError> {
        UnixAddress::from_abstract_name(name).map(Self::Unix)
    }

    /// A place inside this process.
    ///
    /// # Errors
    /// If [`MemName`] doesn't take the name.
    ///
    /// ```
    /// use hythe::Endpoint;
    ///
    /// assert_eq!(Endpoint::mem("orders")?.to_string(), "mem:orders");
    /// assert!(Endpoint::mem("").is_err());
    /// # Ok::<(), hythe::EndpointError>(())
    /// ```
    pub fn mem(name: &str) -> Result<Self, EndpointError> {
        MemName::new(name).map(Self::Mem)
    }

    /// A socket that a service manager passes, by its number or its name.
    ///
    /// # Errors
    /// If it is neither a number from 3 on nor a name that [`PassedSocket`] takes.
    ///
    /// ```
    /// use hythe::Endpoint;
    ///
    /// assert_eq!(Endpoint::fd("http")?.to_string(), "fd:http");
    /// assert!(Endpoint::fd("2").is_err());
    /// # Ok::<(), hythe::EndpointError>(())
    /// ```
    pub fn fd(number_or_name: &str) -> Result<Self, EndpointError> {
        PassedSocket::new(number_or_name).map(Self::Fd)
    }

    /// The scheme: `tcp`, `tls`, `udp`, `unix`, `mem` or `fd`.
    ///
    /// ```
    /// # use hythe::Endpoint;
    /// assert_eq!("UDP://localhost:53".parse::<Endpoint>()?.scheme(), "udp");
    /// # Ok::<(), hythe::EndpointError>(())
    /// ```
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Tls(_) => "tls",
            Self::Udp(_) => "udp",
            Self::Unix(_) => "unix",
            Self::Mem(_) => "mem",
            Self::Fd(_) => "fd",
        }
    }

    /// The address, if there is one in the endpoint: `None` for a host name, which has to be
    /// looked up, and for schemes without a host.
    ///
    /// ```
    /// # use hythe::Endpoint;
    /// let endpoint: Endpoint = "tcp://127.0.0.1:80".parse()?;
    /// assert_eq!(endpoint.socket_addr(), Some(([127, 0, 0, 1], 80).into()));
    /// assert_eq!("tcp://localhost:80".parse::<Endpoint>()?.socket_addr(), None);
    /// # Ok::<(), hythe::EndpointError>(())
    /// ```
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        self.host_port()?.socket_addr()
    }

    /// The host, an address without brackets or a name; `None` for schemes without one.
    ///
    /// ```
    /// # use hythe::Endpoint;
    /// assert_eq!("tcp://[::1]:80".parse::<Endpoint>()?.host(), Some("::1"));
    /// assert_eq!("mem:app".parse::<Endpoint>()?.host(), None);
    /// # Ok::<(), hythe::EndpointError>(())
    /// ```
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.host_port().map(HostPort::host)
    }

    /// The port; `None` for schemes without one.
    ///
    /// ```
    /// # use hythe::Endpoint;
    /// assert_eq!("tcp://[::1]:80".parse::<Endpoint>()?.port(), Some(80));
    /// # Ok::<(), hythe::EndpointError>(())
    /// ```
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.host_port().map(HostPort::port)
    }

    /// Whether bytes flow here in one ordered stream; if not, every message is one of its own
    /// to the transport as well, as a datagram is. What `fd:` stands for is only known when it
    /// is bound; here it counts as a stream.
    ///
    /// ```
    /// # use hythe::Endpoint;
    /// assert!("unix:app.sock".parse::<Endpoint>()?.is_stream());
    /// assert!(!"udp://localhost:53".parse::<Endpoint>()?.is_stream());
    /// # Ok::<(), hythe::EndpointError>(())
    /// ```
    #[must_use]
    pub fn is_stream(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Tls(_) | Self::Unix(_) | Self::Mem(_) | Self::Fd(_) => true,
            Self::Udp(_) => false,
        }
    }

    fn host_port(&self) -> Option<&HostPort> {
        match self {
            Self::Tcp(at) | Self::Tls(at) | Self::Udp(at) => Some(at),
            Self::Unix(_) | Self::Mem(_) | Self::Fd(_) => None,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(at) => write!(f, "tcp://{at}"),
            Self::Tls(at) => write!(f, "tls://{at}"),
            Self::Udp(at) => write!(f, "udp://{at}"),
            Self::Unix(address) => write!(f, "unix:{address}"),
            Self::Mem(name) => write!(f, "mem:{name}"),
            Self::Fd(socket) => write!(f, "fd:{socket}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse::parse(text).map_err(|flaw| EndpointError::new(text, flaw))
    }
}

impl TryFrom<&str> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<&Self> for Endpoint {
    fn from(endpoint: &Self) -> Self {
        endpoint.clone()
    }
}

impl TryFrom<&String> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: &String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl TryFrom<String> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
