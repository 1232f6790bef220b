//! Sockets that this process did not make itself: what a descriptor turns out to be.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

use crate::endpoint::Endpoint;

/// The same on every Unix.
const EBADF: i32 = 9;

/// What a socket is, as the system says and not whoever passed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A listening TCP socket, and where it listens.
    Tcp(SocketAddr),
    /// A UDP socket, and where it is bound.
    Udp(SocketAddr),
    /// A listening Unix stream socket, and the name it was bound to, where that is an endpoint's.
    Unix(Option<Endpoint>),
}

/// A socket with what it is.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) socket: Socket,
    pub(crate) kind: Kind,
}

impl Kind {
    /// What it is, or why nothing can be served on it.
    pub(crate) fn of(socket: &Socket) -> io::Result<Self> {
        let unfit = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, text);
        let kind = match socket.r#type() {
            Ok(kind) => kind,
            Err(error) if error.raw_os_error() == Some(EBADF) => return Err(unfit("is not open")),
            Err(_) => return Err(unfit("is not a socket")),
        };
        let (domain, addr) = (socket.domain()?, socket.local_addr()?);
        match (kind, domain, addr.as_socket()) {
            (Type::STREAM, _, Some(_)) | (Type::STREAM, Domain::UNIX, None) if !socket.is_listener()? => {
                Err(unfit("is not a listening socket"))
            }
            (Type::STREAM, _, Some(addr)) => Ok(Self::Tcp(addr)),
            (Type::STREAM, Domain::UNIX, None) => {
                let path = addr.as_pathname().and_then(|path| Endpoint::unix(path).ok());
                let name = addr.as_abstract_namespace().and_then(|name| std::str::from_utf8(name).ok());
                Ok(Self::Unix(path.or_else(|| name.and_then(|name| Endpoint::unix_abstract(name).ok()))))
            }
            (Type::DGRAM, _, Some(_)) if socket.peer_addr().is_ok() => Err(unfit("is a connected UDP socket")),
            (Type::DGRAM, _, Some(addr)) => Ok(Self::Udp(addr)),
            _ => Err(unfit("is neither a TCP nor a UDP socket nor a Unix stream socket")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    use super::*;

    fn kind(descriptor: impl Into<OwnedFd>) -> Result<Kind, String> {
        Kind::of(&Socket::from(descriptor.into())).map_err(|error| error.to_string())
    }

    #[test]
    fn the_system_tells_what_a_descriptor_is() {
        let tcp = TcpListener::bind("[::1]:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(dir.path().join("sock")).unwrap();
        let (tcp_addr, udp_addr) = (tcp.local_addr().unwrap(), udp.local_addr().unwrap());
        let client = TcpStream::connect(tcp_addr).unwrap();
        let connected = UdpSocket::bind("127.0.0.1:0").unwrap();
        connected.connect(udp_addr).unwrap();

        assert_eq!(kind(tcp), Ok(Kind::Tcp(tcp_addr)));
        assert_eq!(kind(udp), Ok(Kind::Udp(udp_addr)));
        assert_eq!(kind(unix), Ok(Kind::Unix(Some(Endpoint::unix(dir.path().join("sock")).unwrap()))));

        let unfit = |text: &str| Err(text.to_owned());
        assert_eq!(kind(client), unfit("is not a listening socket"));
        assert_eq!(kind(UnixStream::pair().unwrap().0), unfit("is not a listening socket"));
        assert_eq!(kind(connected), unfit("is a connected UDP socket"));
        let neither = "is neither a TCP nor a UDP socket nor a Unix stream socket";
        assert_eq!(kind(UnixDatagram::unbound().unwrap()), unfit(neither));
        assert_eq!(kind(File::open("/dev/null").unwrap()), unfit("is not a socket"));
    }
}
