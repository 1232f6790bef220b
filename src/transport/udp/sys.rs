//! recvmmsg and sendmmsg with GRO and GSO: what neither the standard library nor a crate that fits has in a safe form.
//!
//! A `recvmmsg` that is called again needs the lengths that the kernel wrote over set anew, and each message of a
//! `sendmmsg` a segment size of its own. All unsafe code of UDP is here. It keeps no pointer beyond a call.

#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use socket2::{SockAddr, SockAddrStorage};

use super::incoming::Got;

/// As <linux/udp.h> has them.
const UDP_SEGMENT: libc::c_int = 103;
const UDP_GRO: libc::c_int = 104;

/// Room for what a receive may say beside the bytes. Sockets that others made may want to say more than we ask for.
type Control = [u64; 16];

/// Where one receive's address and control messages go.
pub(super) struct Slot {
    name: SockAddrStorage,
    control: Control,
}

impl Slot {
    pub(super) fn new() -> Self {
        Self { name: SockAddrStorage::zeroed(), control: [0; 16] }
    }
}

/// What goes to one address: a datagram, or several of the same size.
pub(super) struct Packet<'a> {
    /// None on a connected socket.
    pub(super) to: Option<SockAddr>,
    pub(super) bytes: &'a [u8],
    /// The size of each datagram but the last, where there are several.
    pub(super) segment: Option<u16>,
}

/// Receives what is there, as much as there are buffers: chunks of `bytes`, each with its slot.
pub(super) fn receive<'a>(
    socket: BorrowedFd<'_>,
    buffers: impl Iterator<Item = &'a mut [u8]>,
    slots: &mut [Slot],
    got: &mut Vec<Got>,
) -> io::Result<()> {
    let mut buffers: Vec<_> = buffers
        .take(slots.len())
        .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() })
        .collect();
    let headers = slots.iter_mut().zip(&mut buffers).map(|(slot, buffer)| {
        // SAFETY: a header is numbers and pointers, for which zeros are values: nothing to point at.
        let mut header: libc::mmsghdr = unsafe { zeroed() };
        header.msg_hdr.msg_name = ptr::from_mut(&mut slot.name).cast();
        header.msg_hdr.msg_namelen = size_of::<SockAddrStorage>() as _;
        header.msg_hdr.msg_iov = buffer;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control = slot.control.as_mut_ptr().cast();
        header.msg_hdr.msg_controllen = size_of::<Control>() as _;
        header
    });
    let mut headers: Vec<_> = headers.collect();
    let (count, flags) = (headers.len(), libc::MSG_DONTWAIT);
    // SAFETY: there are `count` headers. Each points to a name, a buffer and a room for control messages with their true
    // sizes, which are borrowed mutably, by no other header, for longer than this call.
    let count =
        unsafe { libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count as _, flags as _, ptr::null_mut()) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    got.extend(headers.iter().take(count).zip(slots.iter()).map(|(header, slot)| {
        let lost = header.msg_hdr.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
        let segment = segment(&header.msg_hdr);
        Got { from: from(slot, header), length: header.msg_len as usize, segment, cut: lost }
    }));
    Ok(())
}

/// Who sent it, as the kernel wrote it into the slot of the header.
fn from(slot: &Slot, header: &libc::mmsghdr) -> Option<SocketAddr> {
    let length = header.msg_hdr.msg_namelen;
    if length == 0 || length as usize > size_of::<SockAddrStorage>() {
        return None;
    }
    // SAFETY: the slot's name is read as bytes of its own size, and every bit pattern of it is a value.
    let name = unsafe { ptr::read(&slot.name) };
    // SAFETY: the kernel wrote an address of that length, which fits and is not empty.
    unsafe { SockAddr::new(name, length as _) }.as_socket()
}

/// What the kernel says of the sizes of the datagrams that it put together.
fn segment(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: the header's control room is as long as the kernel has just said, and lives as long as the slots.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: null, or a control message that lies within that room, which nobody else has.
    while let Some(message) = unsafe { next.as_ref() } {
        if (message.cmsg_level, message.cmsg_type) == (libc::SOL_UDP, UDP_GRO) {
            // SAFETY: the kernel writes an int; it need not be aligned.
            let size = unsafe { ptr::read_unaligned(libc::CMSG_DATA(message).cast::<libc::c_int>()) };
            return usize::try_from(size).ok().filter(|size| *size > 0);
        }
        // SAFETY: as the first, and `next` is one of its messages.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    None
}

/// Room for a segment's size.
type Segment = [u64; 4];
const SEGMENT: libc::c_uint = size_of::<u16>() as libc::c_uint;

/// Sends packets, until the kernel does not take one. Tells how many it took; the error is of the first.
pub(super) fn send(socket: BorrowedFd<'_>, packets: &[Packet<'_>]) -> io::Result<usize> {
    let mut rooms: Vec<(libc::iovec, Segment)> = packets
        .iter()
        .map(|packet| {
            let bytes = libc::iovec { iov_base: packet.bytes.as_ptr().cast_mut().cast(), iov_len: packet.bytes.len() };
            (bytes, [0; 4])
        })
        .collect();
    let headers = packets.iter().zip(&mut rooms).map(|(packet, (bytes, segment))| {
        // SAFETY: as in `receive`.
        let mut header: libc::mmsghdr = unsafe { zeroed() };
        if let Some(to) = &packet.to {
            header.msg_hdr.msg_name = to.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = to.len();
        }
        header.msg_hdr.msg_iov = bytes;
        header.msg_hdr.msg_iovlen = 1;
        if let Some(size) = packet.segment {
            // SAFETY: a sum.
            let (space, length) = unsafe { (libc::CMSG_SPACE(SEGMENT), libc::CMSG_LEN(SEGMENT)) };
            assert!(space as usize <= size_of::<Segment>());
            header.msg_hdr.msg_control = segment.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = space as _;
            // SAFETY: the room is aligned, and large enough for one message of this size, as was just seen; so the first
            // one is not null, and is written within it.
            unsafe {
                let message = libc::CMSG_FIRSTHDR(&header.msg_hdr);
                (*message).cmsg_level = libc::SOL_UDP;
                (*message).cmsg_type = UDP_SEGMENT;
                (*message).cmsg_len = length as _;
                ptr::write_unaligned(libc::CMSG_DATA(message).cast(), size);
            }
        }
        header
    });
    let mut headers: Vec<_> = headers.collect();
    let (count, flags) = (headers.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
    // SAFETY: there are `count` headers, whose names, bytes and control messages live and lie still until the call is
    // over. It writes to the headers only.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count as _, flags as _) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Has the kernel put datagrams of one peer together. False where it cannot.
pub(super) fn set_gro(socket: BorrowedFd<'_>, on: bool) -> bool {
    let value = libc::c_int::from(on);
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value is of the size that is given, and is only read.
    unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, UDP_GRO, ptr::from_ref(&value).cast(), size) == 0 }
}

/// Whether the kernel takes several datagrams in one. One that does not know of it would send them as one.
pub(super) fn has_gso(socket: BorrowedFd<'_>) -> bool {
    let mut value: libc::c_int = 0;
    let mut size = size_of::<libc::c_int>() as libc::socklen_t;
    let to = ptr::from_mut(&mut value).cast();
    // SAFETY: the value is of the size that is given, and both are written by this call only.
    unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_UDP, UDP_SEGMENT, to, &mut size) == 0 }
}

/// Whether there are such system calls, or one that keeps them from us, as a sandbox may.
pub(super) fn works(socket: BorrowedFd<'_>) -> bool {
    let (fd, none) = (socket.as_raw_fd(), ptr::null_mut());
    // SAFETY: there are no headers that it could look at.
    unsafe {
        libc::recvmmsg(fd, none, 0, libc::MSG_DONTWAIT as _, ptr::null_mut()) == 0
            && libc::sendmmsg(fd, none, 0, 0) == 0
    }
}

/// Has the kernel send without checksums, and so refuse to send runs.
#[cfg(test)]
pub(super) fn without_checksums(socket: BorrowedFd<'_>) {
    let value: libc::c_int = 1;
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    let value = ptr::from_ref(&value).cast();
    // SAFETY: as in `set_gro`.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, value, size) };
    assert_eq!(result, 0);
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    fn pair(any: &str) -> (UdpSocket, UdpSocket, SocketAddr) {
        let (from, to) = (UdpSocket::bind(any).unwrap(), UdpSocket::bind(any).unwrap());
        let addr = to.local_addr().unwrap();
        (from, to, addr)
    }

    /// What one receive into buffers of `size` bytes brings.
    fn heard(socket: &UdpSocket, buffers: usize, size: usize) -> io::Result<(Vec<Got>, Vec<u8>)> {
        let (mut bytes, mut got) = (vec![0; buffers * size], Vec::new());
        let mut slots: Vec<_> = (0..buffers).map(|_| Slot::new()).collect();
        receive(socket.as_fd(), bytes.chunks_exact_mut(size), &mut slots, &mut got)?;
        Ok((got, bytes))
    }

    fn packets_arrive(any: &str) {
        let (from, to, addr) = pair(any);
        assert!(works(to.as_fd()));
        let packet = |bytes| Packet { to: Some(addr.into()), bytes, segment: None };
        assert_eq!(send(from.as_fd(), &[packet(b"one"), packet(b""), packet(b"three")]).unwrap(), 3);
        let (got, bytes) = heard(&to, 5, 10).unwrap();
        let expected = |length| Got { from: Some(from.local_addr().unwrap()), length, segment: None, cut: false };
        assert_eq!(got, [expected(3), expected(0), expected(5)]);
        assert_eq!((&bytes[..3], &bytes[20..25]), (&b"one"[..], &b"three"[..]));
        assert_eq!(heard(&to, 5, 10).unwrap_err().kind(), io::ErrorKind::WouldBlock);

        from.connect(addr).unwrap();
        send(from.as_fd(), &[Packet { to: None, bytes: b"connected, and too long", segment: None }]).unwrap();
        let (got, bytes) = heard(&to, 1, 9).unwrap();
        assert_eq!(got, [Got { cut: true, ..expected(9) }]);
        assert_eq!(bytes, b"connected");
    }

    #[test]
    fn packets_arrive_over_ipv4() {
        packets_arrive("127.0.0.1:0");
    }

    #[test]
    fn packets_arrive_over_ipv6() {
        if UdpSocket::bind("[::1]:0").is_err() {
            println!("skipped: there is no IPv6 here");
            return;
        }
        packets_arrive("[::1]:0");
    }

    #[test]
    fn a_run_arrives_as_its_datagrams_or_as_a_run() {
        let (from, to, addr) = pair("127.0.0.1:0");
        if !has_gso(from.as_fd()) || !set_gro(to.as_fd(), true) {
            println!("skipped: the kernel knows no GSO or no GRO");
            return;
        }
        let run = [&[b'a'; 1000][..], &[b'b'; 1000], &[b'c'; 7]].concat();
        let packet = || [Packet { to: Some(addr.into()), bytes: &run, segment: Some(1000) }];
        assert_eq!(send(from.as_fd(), &packet()).unwrap(), 1);
        let (got, bytes) = heard(&to, 4, 65_536).unwrap();
        assert_eq!((got.len(), got[0].length, got[0].segment, got[0].cut), (1, 2007, Some(1000), false));
        assert_eq!(bytes[..2007], run);

        assert!(set_gro(to.as_fd(), false));
        send(from.as_fd(), &packet()).unwrap();
        let (got, _) = heard(&to, 4, 65_536).unwrap();
        assert_eq!(
            got.iter().map(|got| (got.length, got.segment)).collect::<Vec<_>>(),
            [(1000, None), (1000, None), (7, None)]
        );
    }

    #[test]
    fn a_packet_that_is_refused_ends_the_call_before_it() {
        let (from, to, addr) = pair("127.0.0.1:0");
        let large = vec![0; 65_535];
        let packet = |bytes| Packet { to: Some(addr.into()), bytes, segment: None };
        assert_eq!(send(from.as_fd(), &[packet(b"fits"), packet(&large), packet(b"fits")]).unwrap(), 1);
        assert_eq!(send(from.as_fd(), &[packet(&large)]).unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
        assert_eq!(heard(&to, 2, 100).unwrap().0.len(), 1);
    }
}
