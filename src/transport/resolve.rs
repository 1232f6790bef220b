//! From a host name to its addresses.

use std::io;
use std::net::SocketAddr;

use crate::endpoint::HostPort;
use crate::error::{Error, ErrorKind};

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
}
