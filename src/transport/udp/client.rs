//! A UDP socket that talks to one peer.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

use crate::connection::{MessageSource, WriteHalf};
use crate::log::{Limiter, suppressed};
use crate::transport::{BindOptions, socket};

/// After so many errors in a row, none of which can be waited out, the socket is of no use.
const ERRORS: u32 = 16;

/// How often it is said that datagrams were lost, by all clients.
static RECEIVING: Limiter = Limiter::new(10);
static SENDING: Limiter = Limiter::new(10);

pub(crate) fn connect(addr: SocketAddr, max_datagram: usize) -> io::Result<(ClientSource, ClientWrite)> {
    let any: SocketAddr = match addr {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = socket::udp(any, &BindOptions::new().broadcast(true))?;
    socket.connect(&addr.into())?;
    let socket = Arc::new(UdpSocket::from_std(socket.into())?);
    let buffer = vec![0; max_datagram + 1];
    Ok((ClientSource { socket: Arc::clone(&socket), buffer, errors: 0 }, ClientWrite { socket }))
}

pub(crate) struct ClientSource {
    socket: Arc<UdpSocket>,
    /// One byte more than is taken, to tell a datagram that was cut.
    buffer: Vec<u8>,
    errors: u32,
}

impl MessageSource for ClientSource {
    fn outlives_invalid(&mut self) -> bool {
        tracing::debug!("a datagram that cannot be decoded was dropped");
        true
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<BytesMut>>> {
        loop {
            let limit = self.buffer.len() - 1;
            let mut buffer = ReadBuf::new(&mut self.buffer);
            match ready!(self.socket.poll_recv(cx, &mut buffer)) {
                Ok(()) if buffer.filled().len() > limit => {
                    if let Some(times) = RECEIVING.admit() {
                        tracing::debug!(limit, suppressed = suppressed(times), "a datagram over the limit was dropped");
                    }
                }
                Ok(()) => {
                    self.errors = 0;
                    return Poll::Ready(Some(Ok(BytesMut::from(buffer.filled()))));
                }
                // the answer to what was sent before: nobody is there yet, or any more
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    if let Some(times) = RECEIVING.admit() {
                        tracing::debug!(%error, suppressed = suppressed(times), "a datagram was refused");
                    }
                }
                Err(error) if self.errors < ERRORS => {
                    self.errors += 1;
                    tracing::debug!(%error, "a datagram could not be received");
                }
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

pub(crate) struct ClientWrite {
    socket: Arc<UdpSocket>,
}

impl WriteHalf for ClientWrite {
    const MESSAGES: bool = true;

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut result = ready!(self.socket.poll_send(cx, bytes));
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            // that was an earlier datagram's refusal, told once; this one has not been tried yet
            result = ready!(self.socket.poll_send(cx, bytes));
        }
        if let Err(error) = result {
            // such as a size that the system does not take: this one is lost
            if let Some(times) = SENDING.admit() {
                let suppressed = suppressed(times);
                tracing::debug!(%error, bytes = bytes.len(), suppressed, "a datagram could not be sent");
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }
}
