//! Sockets as hythe wants them.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
#[cfg(feature = "udp")]
use {super::options::Interface, std::net::IpAddr, std::net::Ipv4Addr};
#[cfg(feature = "tcp")]
use {crate::limits::Limits, socket2::TcpKeepalive, std::time::Duration};

use super::BindOptions;

/// When an idle TCP connection is first probed; then every 10 s, and after three probes without an answer it is dead.
#[cfg(feature = "tcp")]
const KEEPALIVE: Duration = Duration::from_secs(60);
/// A UDP socket's receive buffer: a burst that finds it full is lost.
#[cfg(feature = "udp")]
const UDP_RECEIVE_BUFFER: usize = 4 << 20;

fn ip_socket(addr: SocketAddr, kind: Type, protocol: Protocol, options: &BindOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(options.ipv6_only)?;
    }
    if let Some(bytes) = options.send_buffer {
        socket.set_send_buffer_size(bytes)?;
    }
    Ok(socket)
}

/// What every TCP socket of ours has. On Linux an accepted socket has what its listener had, without a further call.
#[cfg(feature = "tcp")]
pub(crate) fn tcp_options(socket: &Socket, limits: &Limits) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple", target_os = "freebsd"))]
    let keepalive = keepalive.with_interval(Duration::from_secs(10)).with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        // for what the kernel has taken and the peer has not; a stall of what it has not taken is found by our own clock,
        // which must be the first to say so
        socket.set_tcp_user_timeout(Some(limits.write_stall + Duration::from_secs(1)))?;
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = limits;
    Ok(())
}

/// Listening TCP sockets at one address: so many, between which the kernel shares out those who connect, or one, where it
/// does not.
#[cfg(feature = "tcp")]
pub(crate) fn tcp_listeners(
    addr: SocketAddr,
    options: &BindOptions,
    limits: &Limits,
    count: usize,
) -> io::Result<Vec<Socket>> {
    let make = || {
        let socket = ip_socket(addr, Type::STREAM, Protocol::TCP, options)?;
        // so that a restarted server gets its port while old connections are still in TIME_WAIT
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        if let Some(bytes) = options.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        tcp_options(&socket, limits)?;
        Ok(socket)
    };
    let sockets = several(addr, count, make)?;
    // not before all are bound: a socket that listens keeps others away
    sockets.iter().try_for_each(|socket| socket.listen(limits.backlog()))?;
    Ok(sockets)
}

/// So many sockets bound to one address, with `SO_REUSEPORT`; one, where the system has no such thing.
///
/// The first is bound without it, and gets it afterwards. So the address is found to be in use by whoever else has it, be
/// that a server that shares it between sockets of its own, which the option would let in among them.
fn several(addr: SocketAddr, count: usize, make: impl Fn() -> io::Result<Socket>) -> io::Result<Vec<Socket>> {
    let first = make()?;
    first.bind(&addr.into())?;
    let mut sockets = vec![first];
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let (2.., [first]) = (count, &*sockets) {
        first.set_reuse_port(true)?;
        let bound = first.local_addr()?;
        for _ in 1..count {
            let socket = make()?;
            socket.set_reuse_port(true)?;
            socket.bind(&bound)?;
            sockets.push(socket);
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = count;
    Ok(sockets)
}

/// A TCP socket to connect with.
#[cfg(feature = "tcp")]
pub(crate) fn tcp_client(addr: SocketAddr, limits: &Limits) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    tcp_options(&socket, limits)?;
    Ok(socket)
}

/// A bound UDP socket that has joined its groups.
#[cfg(feature = "udp")]
pub(crate) fn udp(addr: SocketAddr, options: &BindOptions) -> io::Result<Socket> {
    let socket = unbound_udp(addr, options)?;
    socket.bind(&addr.into())?;
    udp_options(&socket, options)?;
    Ok(socket)
}

/// So many UDP sockets at one address, each for the peers that the kernel gives to it; or one, where it does not.
#[cfg(feature = "udp")]
pub(crate) fn udp_sockets(addr: SocketAddr, options: &BindOptions, count: usize) -> io::Result<Vec<Socket>> {
    // of what is sent to a group, or to all, every socket would get a copy
    let count = if options.multicast.is_empty() && !options.broadcast { count } else { 1 };
    let sockets = several(addr, count, || unbound_udp(addr, options))?;
    sockets.iter().try_for_each(|socket| udp_options(socket, options))?;
    Ok(sockets)
}

#[cfg(feature = "udp")]
fn unbound_udp(addr: SocketAddr, options: &BindOptions) -> io::Result<Socket> {
    let socket = ip_socket(addr, Type::DGRAM, Protocol::UDP, options)?;
    // more than the system allows is cut by it, which is no error
    let _ = socket.set_recv_buffer_size(options.receive_buffer.unwrap_or(UDP_RECEIVE_BUFFER));
    if !options.multicast.is_empty() {
        // several receivers of one group on one machine are usual
        socket.set_reuse_address(true)?;
    }
    Ok(socket)
}

/// What a UDP socket can be given also later.
#[cfg(feature = "udp")]
pub(crate) fn udp_options(socket: &Socket, options: &BindOptions) -> io::Result<()> {
    socket.set_broadcast(options.broadcast)?;
    for (group, interface) in &options.multicast {
        let joined = match (group, interface) {
            (IpAddr::V4(group), None) => socket.join_multicast_v4(group, &Ipv4Addr::UNSPECIFIED),
            (IpAddr::V4(group), Some(Interface::Address(addr))) => socket.join_multicast_v4(group, addr),
            (IpAddr::V6(group), None) => socket.join_multicast_v6(group, 0),
            (IpAddr::V6(group), Some(Interface::Index(index))) => socket.join_multicast_v6(group, *index),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "an IPv4 group takes an interface's address, an IPv6 group its number",
            )),
        };
        match joined {
            // it is in that group already
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            joined => joined?,
        }
    }
    Ok(())
}
