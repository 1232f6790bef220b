//! A UDP socket that takes and gives many datagrams with one system call, where the system can do that.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::incoming::{Got, Incoming};
use super::outgoing::{Outgoing, Run};
#[cfg(target_os = "linux")]
use super::sys;

/// How many runs one system call is given.
#[cfg(target_os = "linux")]
const RUNS: usize = 64;

pub(crate) struct Port {
    socket: UdpSocket,
    /// Only one datagram at a time.
    plain: bool,
    /// Datagrams with fewer bytes than this may leave as a run.
    runs_below: AtomicUsize,
}

impl Port {
    /// `ours` is a socket that no other program will read from.
    pub(super) fn new(socket: UdpSocket, ours: bool) -> Self {
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsFd;
            if sys::works(socket.as_fd()) {
                if ours {
                    sys::set_gro(socket.as_fd(), true);
                }
                let runs_below = if sys::has_gso(socket.as_fd()) { usize::MAX } else { 0 };
                return Self { socket, plain: false, runs_below: AtomicUsize::new(runs_below) };
            }
            // who receives one at a time could not take them apart
            sys::set_gro(socket.as_fd(), false);
        }
        let _ = ours;
        Self::plain(socket)
    }

    /// As where the system can do none of it.
    pub(super) fn plain(socket: UdpSocket) -> Self {
        Self { socket, plain: true, runs_below: AtomicUsize::new(0) }
    }

    /// Goes on in the current runtime.
    pub(super) fn move_here(&mut self) -> io::Result<()> {
        self.socket = UdpSocket::from_std(SockRef::from(&self.socket).try_clone()?.into())?;
        Ok(())
    }

    pub(super) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// For [`Outgoing::push`].
    pub(super) fn runs_below(&self) -> usize {
        self.runs_below.load(Relaxed)
    }

    /// Receives the datagrams that are there, and waits for one where there is none.
    pub(super) fn poll_receive(&self, cx: &mut Context<'_>, incoming: &mut Incoming) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.poll_recv_ready(cx))?;
            let mut received = false;
            let result = self.socket.try_io(Interest::READABLE, || {
                let more = self.receive(incoming)?;
                received = true;
                // the socket is empty, which saves a call that says so
                if more { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
            });
            match result {
                _ if received => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// True when there may be more.
    fn receive(&self, incoming: &mut Incoming) -> io::Result<bool> {
        #[cfg(target_os = "linux")]
        if !self.plain {
            return incoming.receive(std::os::fd::AsFd::as_fd(&self.socket));
        }
        let (buffer, got) = incoming.one();
        let (length, from) = self.socket.try_recv_from(buffer)?;
        got.push(Got { from: Some(from), length, segment: None, cut: false });
        Ok(true)
    }

    /// Sends all that waits, and tells of what the kernel refuses. False where it takes no more for now.
    pub(super) fn send_all(&self, outgoing: &mut Outgoing, mut lost: impl FnMut(&Run, io::Error)) -> bool {
        let refused = |run: &Run, error: io::Error| {
            if run.count == 1 {
                return lost(run, error);
            }
            // a size that this path takes in parts only, or a device that does not sum up for us
            #[cfg(target_os = "linux")]
            if let Some(libc::EINVAL | libc::EMSGSIZE | libc::EIO | libc::EOPNOTSUPP) = error.raw_os_error() {
                self.runs_below.fetch_min(run.size, Relaxed);
            }
        };
        outgoing.send_all(|outgoing| self.socket.try_io(Interest::WRITABLE, || self.send(outgoing)), refused)
    }

    /// Tells how many runs the kernel took.
    fn send(&self, outgoing: &Outgoing) -> io::Result<usize> {
        #[cfg(target_os = "linux")]
        if !self.plain {
            let packets = outgoing.runs().take(RUNS).map(|(run, bytes)| sys::Packet {
                to: run.to.map(Into::into),
                bytes,
                segment: (run.count > 1).then(|| u16::try_from(run.size).unwrap_or(u16::MAX)),
            });
            return sys::send(std::os::fd::AsFd::as_fd(&self.socket), &packets.collect::<Vec<_>>());
        }
        match outgoing.runs().next() {
            None => Ok(0),
            Some((run, _)) if run.count > 1 => Err(io::ErrorKind::Unsupported.into()),
            Some((Run { to: Some(to), .. }, bytes)) => self.socket.try_send_to(bytes, *to).map(|_| 1),
            Some((_, bytes)) => self.socket.try_send(bytes).map(|_| 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::SocketAddr;

    use super::*;

    async fn socket() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        (socket, addr)
    }

    /// What arrives of datagrams of these sizes.
    async fn arrive(from: Port, to: Port, addr: SocketAddr, sizes: &[usize]) -> Vec<Vec<u8>> {
        from.socket().writable().await.unwrap();
        let mut outgoing = Outgoing::default();
        for (number, size) in sizes.iter().enumerate() {
            outgoing.push(Some(addr), &vec![u8::try_from(number).unwrap(); *size], from.runs_below());
        }
        assert!(from.send_all(&mut outgoing, |_, error| panic!("{error}")));
        let (mut incoming, mut datagrams) = (Incoming::new(4), Vec::new());
        while datagrams.len() < sizes.len() {
            let received = poll_fn(|cx| to.poll_receive(cx, &mut incoming));
            tokio::time::timeout(std::time::Duration::from_secs(20), received).await.unwrap().unwrap();
            while let Some(datagram) = incoming.next() {
                assert!(!datagram.cut);
                datagrams.push(datagram.bytes.to_vec());
            }
        }
        datagrams
    }

    #[tokio::test]
    async fn the_same_datagrams_arrive_with_and_without_batches() {
        let sizes = [1200, 1200, 1200, 300, 1200, 0, 5, 5, 5, 5, 9, 30_000, 30_000];
        let expected: Vec<_> = sizes.iter().zip(0..).map(|(size, number)| vec![number; *size]).collect();
        type Make = fn(UdpSocket) -> Port;
        let makes: [Make; 3] = [|socket| Port::new(socket, true), |socket| Port::new(socket, false), Port::plain];
        for from in makes {
            for to in makes {
                let ((sender, _), (receiver, addr)) = (socket().await, socket().await);
                assert_eq!(arrive(from(sender), to(receiver), addr, &sizes).await, expected);
            }
        }
    }

    #[tokio::test]
    async fn a_run_that_the_kernel_refuses_leaves_as_its_datagrams() {
        let ((sender, _), (receiver, addr)) = (socket().await, socket().await);
        // without checksums there are no runs
        #[cfg(target_os = "linux")]
        sys::without_checksums(std::os::fd::AsFd::as_fd(&sender));
        let from = Port::new(sender, true);
        let arrived = arrive(from, Port::new(receiver, true), addr, &[100, 100, 100]).await;
        assert_eq!(arrived, [[0; 100], [1; 100], [2; 100]]);
    }
}
