//! The halves of a byte stream, as its transport has them or with TLS over them: a connection can change from the one to
//! the other while it is open.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use crate::connection::WriteHalf;
#[cfg(feature = "tls")]
use crate::tls::{Lower, TlsRead, TlsWrite};

/// The read half.
pub(crate) enum MaybeTlsRead<R> {
    Plain(R),
    #[cfg(feature = "tls")]
    Tls(TlsRead),
    /// A handshake has it.
    #[cfg(feature = "tls")]
    Away,
}

/// The write half.
pub(crate) enum MaybeTlsWrite<W> {
    Plain(W),
    #[cfg(feature = "tls")]
    Tls(TlsWrite),
    /// A handshake has it.
    #[cfg(feature = "tls")]
    Away,
}

#[cfg(feature = "tls")]
impl<R: AsyncRead + Send + Unpin + 'static> MaybeTlsRead<R> {
    /// Takes what is in the clear out.
    pub(crate) fn take(&mut self) -> Option<Box<dyn AsyncRead + Send + Unpin>> {
        match std::mem::replace(self, Self::Away) {
            Self::Plain(read) => Some(Box::new(read)),
            other => {
                *self = other;
                None
            }
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for MaybeTlsRead<R> {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(read) => Pin::new(read).poll_read(cx, buf),
            #[cfg(feature = "tls")]
            Self::Tls(read) => Pin::new(read).poll_read(cx, buf),
            #[cfg(feature = "tls")]
            Self::Away => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl<W: WriteHalf> WriteHalf for MaybeTlsWrite<W> {
    const MESSAGES: bool = false;

    #[inline]
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(write) => write.poll_write(cx, bytes),
            #[cfg(feature = "tls")]
            Self::Tls(write) => write.poll_write(cx, bytes),
            #[cfg(feature = "tls")]
            Self::Away => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(write) => write.poll_write_vectored(cx, bytes),
            #[cfg(feature = "tls")]
            Self::Tls(write) => write.poll_write_vectored(cx, bytes),
            #[cfg(feature = "tls")]
            Self::Away => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    #[inline]
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(write) => write.poll_flush(cx),
            #[cfg(feature = "tls")]
            Self::Tls(write) => write.poll_flush(cx),
            #[cfg(feature = "tls")]
            Self::Away => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(write) => write.poll_shutdown(cx),
            #[cfg(feature = "tls")]
            Self::Tls(write) => write.poll_shutdown(cx),
            #[cfg(feature = "tls")]
            Self::Away => Poll::Ready(Ok(())),
        }
    }

    fn ends_by_drop(&mut self) -> bool {
        match self {
            Self::Plain(write) => write.ends_by_drop(),
            // there is a word to be said before
            #[cfg(feature = "tls")]
            Self::Tls(_) | Self::Away => false,
        }
    }

    fn has_moved(&mut self) -> bool {
        match self {
            Self::Plain(write) => write.has_moved(),
            #[cfg(feature = "tls")]
            Self::Tls(write) => write.has_moved(),
            #[cfg(feature = "tls")]
            Self::Away => false,
        }
    }

    fn abort(&mut self) {
        match self {
            Self::Plain(write) => write.abort(),
            #[cfg(feature = "tls")]
            Self::Tls(write) => write.abort(),
            #[cfg(feature = "tls")]
            Self::Away => {}
        }
    }

    #[cfg(feature = "tls")]
    fn take_lower(&mut self) -> Option<Lower> {
        match std::mem::replace(self, Self::Away) {
            Self::Plain(write) => Some(Lower::new(write)),
            other => {
                *self = other;
                None
            }
        }
    }

    #[cfg(feature = "tls")]
    fn put_tls(&mut self, write: TlsWrite) {
        *self = Self::Tls(write);
    }
}
