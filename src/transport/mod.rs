//! The transports, in two families: byte streams, over which the codec finds the messages, and message transports, which
//! keep them apart themselves.
//!
//! | file | what it is |
//! |---|---|
//! | `options` | [`BindOptions`], what can be set of a listening socket |
//! | `fit` | whether an endpoint can be used with a codec, and by this build |
//! | `resolve` | from a host name to its addresses |
//! | `socket` | sockets as hythe wants them, made with socket2 |
//! | `tcp`, `unix`, `mem` | byte streams: listeners, and how to connect |
//! | `udp` | datagrams: one socket, and a session for each peer |
//!
//! None of it is public but the options: a new transport must be able to come without breaking anybody.

mod fit;
pub(crate) mod mem;
mod options;
#[cfg(any(feature = "tcp", feature = "udp"))]
mod resolve;
#[cfg(any(feature = "tcp", feature = "udp"))]
pub(crate) mod socket;
#[cfg(feature = "tcp")]
pub(crate) mod tcp;
#[cfg(feature = "udp")]
pub(crate) mod udp;
#[cfg(feature = "unix")]
pub(crate) mod unix;

use std::io;
use std::task::{Context, Poll};

use tokio::io::AsyncRead;

use crate::connection::WriteHalf;
use crate::peer::PeerAddress;

pub use options::{BindOptions, Interface};

pub(crate) use fit::{fits, missing_feature};
#[cfg(feature = "udp")]
pub(crate) use resolve::first as first_address;
#[cfg(any(feature = "tcp", feature = "udp"))]
pub(crate) use resolve::resolve;

/// A listener of a byte stream transport.
pub(crate) trait Listener: Send + 'static {
    type Read: AsyncRead + Unpin + Send + 'static;
    type Write: WriteHalf;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted<Self::Read, Self::Write>>>;
}

/// A byte stream to a peer, in its two halves.
pub(crate) struct Accepted<R, W> {
    pub(crate) read: R,
    pub(crate) write: W,
    pub(crate) address: PeerAddress,
}
