//! The transports, in two families: byte streams, over which the codec finds the messages, and message transports, which
//! keep them apart themselves.
//!
//! | file | what it is |
//! |---|---|
//! | `options` | [`BindOptions`], what can be set of a listening socket |
//! | `fit` | whether an endpoint can be used with a codec, and by this build |
//! | `given` | sockets that this process did not make itself |
//! | `resolve` | from a host name to its addresses |
//! | `socket` | sockets as hythe wants them, made with socket2 |
//! | `tcp`, `unix`, `mem` | byte streams: listeners, and how to connect |
//! | `maybe_tls` | the halves of a byte stream, with TLS over them or without |
//! | `udp` | datagrams: one socket, and a session for each peer |
//!
//! None of it is public but the options: a new transport must be able to come without breaking anybody.

mod fit;
#[cfg(any(feature = "fd", feature = "handover"))]
pub(crate) mod given;
mod maybe_tls;
pub(crate) mod mem;
mod options;
#[cfg(any(feature = "tcp", feature = "udp"))]
mod resolve;
#[cfg(any(feature = "tcp", feature = "udp"))]
pub(crate) mod socket;
#[cfg(feature = "tcp")]
pub(crate) mod tcp;
#[cfg(feature = "udp")]
pub mod udp;
#[cfg(feature = "unix")]
pub(crate) mod unix;

use std::io;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::WriteHalf;
use crate::limits::Limits;
use crate::peer::PeerAddress;

pub use options::{BindOptions, Interface};

#[cfg(feature = "tls")]
pub(crate) use fit::fits_tls;
pub(crate) use fit::{fits, missing_feature};
pub(crate) use maybe_tls::{MaybeTlsRead, MaybeTlsWrite};
#[cfg(feature = "udp")]
pub(crate) use resolve::first as first_address;
#[cfg(any(feature = "tcp", feature = "udp"))]
pub(crate) use resolve::resolve;

/// A listener of a byte stream transport.
pub(crate) trait Listener: Send + 'static {
    type Stream: ByteStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Self::Stream>>;
    /// Other limits are in force.
    fn adjust(&self, _: &Limits) {}
    /// Goes on in the current runtime; the one before has ended.
    fn move_here(&mut self) -> io::Result<()> {
        Ok(())
    }
    /// The socket once more, for another process, where it is one that can be given away.
    #[cfg(feature = "handover")]
    fn duplicate(&self) -> io::Result<Option<Duplicate>> {
        Ok(None)
    }
    /// Whether what names it in the file system is this process's, to be removed with the listener.
    #[cfg(feature = "handover")]
    fn owns_name(&mut self, _: bool) {}
}

/// A listening socket for another process.
#[cfg(feature = "handover")]
pub(crate) struct Duplicate {
    pub(crate) descriptor: std::os::fd::OwnedFd,
    /// The file that names it, where this process has made that.
    pub(crate) file: Option<unix::FileId>,
}

/// A byte stream to a peer, as it is before a connection is made of it: a handshake may come first.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    type Read: AsyncRead + Unpin + Send + 'static;
    type Write: WriteHalf;

    /// The peer's address, as far as the transport knows it.
    fn address(&self) -> PeerAddress;
    fn split(self) -> (Self::Read, Self::Write);
    /// Breaks it off, so that the peer can tell this from an end.
    fn abort(self);
}
