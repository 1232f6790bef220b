//! A UDP socket that talks to one peer.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::net::UdpSocket;

use super::incoming::{Datagram, Incoming};
use super::outgoing::{Outgoing, Run};
use super::port::Port;
use crate::connection::{MessageSource, WriteHalf};
use crate::log::{Limiter, suppressed};
use crate::transport::{BindOptions, socket};

/// How many buffers one receive fills at most.
const BATCH: usize = 8;
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
    let port = Arc::new(Port::new(UdpSocket::from_std(socket.into())?, true));
    let source =
        ClientSource { port: Arc::clone(&port), incoming: Incoming::new(BATCH), limit: max_datagram, errors: 0 };
    Ok((source, ClientWrite { port, outgoing: Outgoing::default() }))
}

pub(crate) struct ClientSource {
    port: Arc<Port>,
    incoming: Incoming,
    /// What is taken, in bytes.
    limit: usize,
    errors: u32,
}

impl MessageSource for ClientSource {
    fn outlives_invalid(&mut self) -> bool {
        tracing::debug!("a datagram that cannot be decoded was dropped");
        true
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<BytesMut>>> {
        loop {
            while let Some(Datagram { bytes, cut, .. }) = self.incoming.next() {
                if !cut && bytes.len() <= self.limit {
                    return Poll::Ready(Some(Ok(BytesMut::from(bytes))));
                }
                if let Some(times) = RECEIVING.admit() {
                    let (limit, suppressed) = (self.limit, suppressed(times));
                    tracing::debug!(limit, suppressed, "a datagram over the limit was dropped");
                }
            }
            match ready!(self.port.poll_receive(cx, &mut self.incoming)) {
                Ok(()) => self.errors = 0,
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
    port: Arc<Port>,
    outgoing: Outgoing,
}

impl ClientWrite {
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let lost = |run: &Run, error: io::Error| {
                // such as a size that the system does not take: this one is lost
                if let Some(times) = SENDING.admit() {
                    tracing::debug!(%error, bytes = run.bytes, suppressed = suppressed(times), "a datagram could not be sent");
                }
            };
            if self.port.send_all(&mut self.outgoing, lost) {
                return Poll::Ready(());
            }
            if ready!(self.port.socket().poll_send_ready(cx)).is_err() {
                // the runtime has gone: nobody will say when there is room
                self.outgoing.clear();
                return Poll::Ready(());
            }
        }
    }
}

impl WriteHalf for ClientWrite {
    const MESSAGES: bool = true;

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.outgoing.is_full() {
            ready!(self.poll_out(cx));
        }
        self.outgoing.push(None, bytes, self.port.runs_below());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx));
        self.outgoing.shrink();
        Poll::Ready(Ok(()))
    }
}
