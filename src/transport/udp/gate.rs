//! Who may have a UDP session: asked before there is anything of it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

/// What becomes of a datagram from an address that has no session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Entry {
    /// Its session is opened. Until the peer has answered, it gets three times the bytes that it sent at most.
    Open,
    /// Its session is opened, and the peer has proven its address, as with one of [`Cookies`](super::Cookies).
    Proven,
    /// These bytes are sent to it, and nothing is kept. More than three times the bytes that it sent are not sent.
    Answer(Bytes),
    /// It is dropped, and counted.
    Drop,
}

type Ask = dyn Fn(SocketAddr, &[u8]) -> Entry + Send + Sync;

/// Asks the user's function.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Ask>);

impl Gate {
    pub(crate) fn new(ask: impl Fn(SocketAddr, &[u8]) -> Entry + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    pub(crate) fn ask(&self, from: SocketAddr, datagram: &[u8]) -> Entry {
        (self.0)(from, datagram)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}
