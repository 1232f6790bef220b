//! TCP.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, Socket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{ByteStream, Listener, socket};
use crate::connection::WriteHalf;
use crate::limits::Limits;
use crate::peer::PeerAddress;

pub(crate) struct TcpTransport {
    listener: TcpListener,
}

impl TcpTransport {
    /// Takes a socket that listens already, and tells where.
    pub(crate) fn on(socket: Socket) -> io::Result<(Self, SocketAddr)> {
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket.into())?;
        let addr = listener.local_addr()?;
        Ok((Self { listener }, addr))
    }
}

impl Listener for TcpTransport {
    type Stream = Tcp;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Tcp>> {
        let (stream, addr) = ready!(self.listener.poll_accept(cx))?;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        stream.set_nodelay(true)?;
        Poll::Ready(Ok(Tcp { stream, addr }))
    }

    fn adjust(&self, limits: &Limits) {
        let socket = SockRef::from(&self.listener);
        // a second listen changes the length of the queue and nothing else
        if let Err(error) = socket.listen(limits.backlog()).and_then(|()| socket::tcp_options(&socket, limits)) {
            tracing::warn!(%error, "a listener keeps its old backlog");
        }
    }

    fn move_here(&mut self) -> io::Result<()> {
        // what waits in the backlog is the same socket's
        self.listener = TcpListener::from_std(SockRef::from(&self.listener).try_clone()?.into())?;
        Ok(())
    }

    #[cfg(feature = "handover")]
    fn duplicate(&self) -> io::Result<Option<super::Duplicate>> {
        use std::os::fd::AsFd;
        let descriptor = self.listener.as_fd().try_clone_to_owned()?;
        Ok(Some(super::Duplicate { descriptor, file: None }))
    }
}

/// A TCP connection. The address is kept, as nobody can ask for it when the peer has gone.
pub(crate) struct Tcp {
    pub(crate) stream: TcpStream,
    pub(crate) addr: SocketAddr,
}

impl ByteStream for Tcp {
    type Read = OwnedReadHalf;
    type Write = TcpWrite;

    fn address(&self) -> PeerAddress {
        PeerAddress::Ip(self.addr)
    }

    fn split(self) -> (OwnedReadHalf, TcpWrite) {
        let (read, write) = self.stream.into_split();
        (read, TcpWrite(Some(write)))
    }

    fn abort(self) {
        reset(&self.stream);
    }
}

/// A peer must be able to tell a connection that broke off from one that ended.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

impl AsyncRead for Tcp {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Connects to one address.
pub(crate) async fn connect(addr: SocketAddr, limits: &Limits) -> io::Result<TcpStream> {
    let socket = socket::tcp_client(addr, limits)?;
    TcpSocket::from_std_stream(socket.into()).connect(addr).await
}

pub(crate) struct TcpWrite(Option<OwnedWriteHalf>);

impl WriteHalf for TcpWrite {
    const MESSAGES: bool = false;

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Some(half) => Pin::new(half).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Some(half) => Pin::new(half).poll_write_vectored(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Some(half) => Pin::new(half).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn ends_by_drop(&mut self) -> bool {
        if let Some(half) = self.0.take() {
            half.forget();
        }
        true
    }

    fn abort(&mut self) {
        if let Some(half) = self.0.take() {
            reset(half.as_ref());
            half.forget();
        }
    }
}
