//! From a name to a connection: look it up, and let its addresses race (RFC 8305, "happy eyeballs").

use std::io;
use std::net::SocketAddr;
#[cfg(feature = "tcp")]
use std::time::Duration;

#[cfg(feature = "tcp")]
use {crate::limits::Limits, tokio::net::TcpStream, tokio::task::JoinSet};

use crate::endpoint::HostPort;
use crate::error::{Error, ErrorKind};

/// How long an address is tried alone before the next one joins: the "Connection Attempt Delay".
#[cfg(feature = "tcp")]
const DELAY: Duration = Duration::from_millis(250);

/// The addresses of a host, at least one, each once, in the order in which they are to be tried.
pub(crate) async fn resolve(at: &HostPort) -> Result<Vec<SocketAddr>, Error> {
    if let Some(addr) = at.socket_addr() {
        return Ok(vec![addr]);
    }
    let failed = |error: io::Error| {
        Error::new(ErrorKind::Resolve, format!("the host name {} gives no address", at.host())).because(error)
    };
    let found = tokio::net::lookup_host((at.host(), at.port())).await.map_err(failed)?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for addr in found {
        if !addresses.contains(&addr) {
            addresses.push(addr);
        }
    }
    if addresses.is_empty() {
        return Err(failed(io::ErrorKind::NotFound.into()));
    }
    Ok(interleave(addresses))
}

/// IPv6 first, then the families in turn; within a family as the resolver has them.
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let (v6, v4): (Vec<_>, Vec<_>) = addresses.into_iter().partition(SocketAddr::is_ipv6);
    let longest = v6.len().max(v4.len());
    (0..longest).flat_map(|i| [v6.get(i).copied(), v4.get(i).copied()]).flatten().collect()
}

/// The address to use where none can be tried: IPv4 where there is one, as a host without IPv6 is still more usual than
/// one without IPv4.
#[cfg(feature = "udp")]
pub(crate) fn first(addresses: Vec<SocketAddr>) -> SocketAddr {
    let v4 = addresses.iter().find(|addr| addr.is_ipv4()).copied();
    v4.or(addresses.first().copied()).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// Connects to whichever address answers first. The others are let go.
#[cfg(feature = "tcp")]
pub(crate) async fn race(addresses: Vec<SocketAddr>, limits: &Limits) -> io::Result<(TcpStream, SocketAddr)> {
    let mut addresses = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    loop {
        if let Some(addr) = addresses.next() {
            let limits = limits.clone();
            attempts.spawn(async move {
                let stream = crate::transport::tcp::connect(addr, &limits).await;
                stream.map(|stream| (stream, addr)).map_err(|error| (error, addr))
            });
        } else if attempts.is_empty() {
            return Err(last);
        }
        // an address that fails gives its time to the next one
        let joined = if addresses.len() > 0 {
            tokio::time::timeout(DELAY, attempts.join_next()).await.unwrap_or(None)
        } else {
            attempts.join_next().await
        };
        match joined {
            Some(Ok(Ok(won))) => return Ok(won),
            Some(Ok(Err((error, addr)))) => last = io::Error::new(error.kind(), format!("{addr}: {error}")),
            Some(Err(error)) => last = io::Error::other(error),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_families_take_turns() {
        let list = ["1.1.1.1:1", "1.1.1.2:1", "1.1.1.3:1", "[::1]:1"].map(addr);
        let wanted = ["[::1]:1", "1.1.1.1:1", "1.1.1.2:1", "1.1.1.3:1"].map(addr);
        assert_eq!(interleave(list.to_vec()), wanted);
    }

    /// A listener whose backlog is full answers nobody.
    #[cfg(feature = "tcp")]
    #[tokio::test]
    async fn an_address_that_does_not_answer_holds_the_next_one_up_for_the_delay_alone() {
        use socket2::{Domain, Socket, Type};
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&addr("127.0.0.1:0").into()).unwrap();
        listener.listen(0).unwrap();
        let deaf = listener.local_addr().unwrap();
        let fill = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&deaf);
            socket
        };
        let _waiting: Vec<_> = (0..8).map(|_| fill()).collect();
        let good = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();

        let addresses = vec![deaf.as_socket().unwrap(), good.local_addr().unwrap()];
        let (begin, limits) = (tokio::time::Instant::now(), Limits::edge());
        let race = tokio::time::timeout(Duration::from_secs(10), race(addresses, &limits));
        let (_, won) = race.await.expect("waits for the first address").unwrap();
        assert_eq!(won, good.local_addr().unwrap());
        assert!(begin.elapsed() >= DELAY, "the first has its time alone");
    }

    #[cfg(feature = "tcp")]
    #[tokio::test]
    async fn a_refusal_gives_way_to_the_next_address() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let closed = {
            let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            gone.local_addr().unwrap()
        };
        let (_, won) = race(vec![closed, good], &Limits::edge()).await.unwrap();
        assert_eq!(won, good);
        let error = race(vec![closed], &Limits::edge()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains(&closed.to_string()), "{error}");
    }
}
