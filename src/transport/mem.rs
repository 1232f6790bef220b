//! Connections inside this process, for tests and for parts of a program that talk as if they were apart.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use tokio::io::{AsyncWrite, DuplexStream, ReadHalf};
use tokio::sync::mpsc;

use super::{ByteStream, Listener};
use crate::connection::WriteHalf;
use crate::endpoint::MemName;
use crate::limits::Limits;
use crate::peer::PeerAddress;
use crate::sync::{Mutex, lock};

/// What each direction holds, in bytes: as much as a socket's buffer would.
const BUFFER: usize = 64 << 10;

static NAMES: LazyLock<Mutex<HashMap<String, mpsc::Sender<DuplexStream>>>> = LazyLock::new(Mutex::default);

pub(crate) struct MemTransport {
    name: String,
    queue: mpsc::Receiver<DuplexStream>,
}

impl MemTransport {
    pub(crate) fn bind(name: &MemName, limits: &Limits) -> io::Result<Self> {
        let mut names = lock(&NAMES);
        if names.get(name.as_str()).is_some_and(|queue| !queue.is_closed()) {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "the name is in use in this process"));
        }
        let (sender, queue) = mpsc::channel(limits.backlog as usize);
        names.insert(name.as_str().to_owned(), sender);
        Ok(Self { name: name.as_str().to_owned(), queue })
    }
}

impl Drop for MemTransport {
    fn drop(&mut self) {
        lock(&NAMES).remove(&self.name);
    }
}

impl Listener for MemTransport {
    type Stream = DuplexStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<DuplexStream>> {
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "the name is gone");
        self.queue.poll_recv(cx).map(|stream| stream.ok_or_else(gone))
    }
}

impl ByteStream for DuplexStream {
    type Read = ReadHalf<Self>;
    type Write = MemWrite;

    fn address(&self) -> PeerAddress {
        PeerAddress::Memory
    }

    fn split(self) -> (ReadHalf<Self>, MemWrite) {
        let (read, write) = tokio::io::split(self);
        (read, MemWrite(write))
    }

    fn abort(self) {}
}

/// Connects to a listener of this process, waiting while its backlog is full.
pub(crate) async fn connect(name: &MemName) -> io::Result<DuplexStream> {
    let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens at this name in this process");
    let queue = lock(&NAMES).get(name.as_str()).cloned().ok_or_else(refused)?;
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    queue.send(theirs).await.map_err(|_| refused())?;
    Ok(ours)
}

pub(crate) struct MemWrite(tokio::io::WriteHalf<DuplexStream>);

impl WriteHalf for MemWrite {
    const MESSAGES: bool = false;

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn abort(&mut self) {
        // the other side sees an end, as memory has no reset; nothing is said either way by a pending poll
        let _ = Pin::new(&mut self.0).poll_shutdown(&mut Context::from_waker(std::task::Waker::noop()));
    }
}
