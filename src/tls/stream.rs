//! The two halves of a TLS connection.
//!
//! Both are the same TLS session behind one short lock, which nobody holds across a wait. They do not wake each other:
//!
//! - A read registers its task with the read side of the socket only, and a write with the write side only. (The one
//!   exception is the alert that a read sends when it has failed, and then the connection is over.) So a write may be
//!   polled by anybody with any waker, as long as whoever drives the connection polls again after one that was pending.
//! - A read writes nothing. What rustls wants to send on account of what was read, the answer to a key update or the
//!   refusal of a renegotiation, goes out before the next write or at the next flush, and no peer waits for it.
//! - A write that is ready has been encrypted, and may wait here for the socket, up to [`HELD`] bytes of it: only a flush
//!   that is ready says that it is out.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use crate::connection::WriteHalf;
use crate::sync::{Mutex, lock};

/// What has been encrypted and may wait for the socket, in bytes: two full records.
pub(super) const HELD: usize = 32 << 10;

/// The byte stream under a session, whatever its transport: counts what it takes.
pub(crate) struct Wire {
    read: Box<dyn AsyncRead + Send + Unpin>,
    write: Lower,
    written: u64,
}

/// A [`WriteHalf`] without its type.
pub(crate) struct Lower(Box<dyn Untyped>);

trait Untyped: Send {
    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    fn abort(&mut self);
}

impl<W: WriteHalf> Untyped for W {
    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        WriteHalf::poll_write_vectored(self, cx, bytes)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        WriteHalf::poll_flush(self, cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        WriteHalf::poll_shutdown(self, cx)
    }

    fn abort(&mut self) {
        WriteHalf::abort(self);
    }
}

impl Lower {
    pub(crate) fn new(half: impl WriteHalf) -> Self {
        Self(Box::new(half))
    }
}

type Session = Mutex<TlsStream<Wire>>;

/// The read half. An end without `close_notify` is an [`io::ErrorKind::UnexpectedEof`].
pub(crate) struct TlsRead(Arc<Session>);

/// The write half.
pub(crate) struct TlsWrite {
    session: Option<Arc<Session>>,
    /// What [`Wire::written`] was when it was last asked.
    seen: u64,
}

pub(super) fn split(stream: TlsStream<Wire>) -> (TlsRead, TlsWrite) {
    let seen = stream.get_ref().0.written;
    let session = Arc::new(Mutex::new(stream));
    (TlsRead(Arc::clone(&session)), TlsWrite { session: Some(session), seen })
}

impl AsyncRead for TlsRead {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_read(cx, buf)
    }
}

impl WriteHalf for TlsWrite {
    const MESSAGES: bool = false;

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &self.session {
            Some(session) => Pin::new(&mut *lock(session)).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.session {
            Some(session) => Pin::new(&mut *lock(session)).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Says `close_notify`, then ends the TCP connection's half.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.session {
            Some(session) => Pin::new(&mut *lock(session)).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn has_moved(&mut self) -> bool {
        let Some(session) = &self.session else { return false };
        let written = lock(session).get_ref().0.written;
        std::mem::replace(&mut self.seen, written) != written
    }

    /// The peer sees a reset, and no `close_notify`.
    fn abort(&mut self) {
        if let Some(session) = self.session.take() {
            lock(&session).get_mut().0.write.0.abort();
        }
    }
}

impl Wire {
    pub(crate) fn new(read: Box<dyn AsyncRead + Send + Unpin>, write: Lower) -> Self {
        Self { read, write, written: 0 }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.write.0.poll_write_vectored(cx, bytes))?;
        self.written = self.written.wrapping_add(written as u64);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write.0.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write.0.poll_shutdown(cx)
    }
}
