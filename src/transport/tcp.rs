//! TCP.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncWrite;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{Accepted, BindOptions, Listener, socket};
use crate::connection::WriteHalf;
use crate::limits::Limits;
use crate::peer::PeerAddress;

pub(crate) struct TcpTransport {
    listener: TcpListener,
}

impl TcpTransport {
    /// Listens, and tells where.
    pub(crate) fn bind(addr: SocketAddr, options: &BindOptions, limits: &Limits) -> io::Result<(Self, SocketAddr)> {
        let listener = TcpListener::from_std(socket::tcp_listener(addr, options, limits)?.into())?;
        let addr = listener.local_addr()?;
        Ok((Self { listener }, addr))
    }
}

impl Listener for TcpTransport {
    type Read = OwnedReadHalf;
    type Write = TcpWrite;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted<OwnedReadHalf, TcpWrite>>> {
        let (stream, addr) = ready!(self.listener.poll_accept(cx))?;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        stream.set_nodelay(true)?;
        Poll::Ready(Ok(split(stream, addr)))
    }
}

pub(crate) fn split(stream: TcpStream, addr: SocketAddr) -> Accepted<OwnedReadHalf, TcpWrite> {
    let (read, write) = stream.into_split();
    Accepted { read, write: TcpWrite(Some(write)), address: PeerAddress::Ip(addr) }
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

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Some(half) => Pin::new(half).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn abort(&mut self) {
        if let Some(half) = self.0.take() {
            // a peer must be able to tell a connection that broke off from one that ended
            let _ = SockRef::from(half.as_ref()).set_linger(Some(Duration::ZERO));
            half.forget();
        }
    }
}
