//! What has to happen between the accept and the connection: nothing, for most listeners.

use crate::peer::Peer;
use crate::transport::{BindOptions, ByteStream};

use super::refusals::Refusal;

/// The handshakes of a listener, in their order.
pub(crate) struct Greeting {}

/// A stream whose handshakes are through.
pub(crate) struct Greeted<S: ByteStream> {
    pub(crate) read: S::Read,
    pub(crate) write: S::Write,
    pub(crate) peer: Peer,
}

/// What went wrong.
pub(crate) struct Unfit {
    pub(crate) why: Refusal,
    pub(crate) error: Box<dyn std::error::Error + Send + Sync>,
}

impl Greeting {
    pub(crate) fn new(_: &BindOptions) -> Self {
        Self {}
    }

    /// Whether there is anything to be done.
    pub(crate) fn is_needed(&self) -> bool {
        false
    }

    /// Whether who accepts knows the peer's address: behind a proxy it does not.
    pub(crate) fn knows_address(&self) -> bool {
        true
    }

    pub(crate) async fn perform<S: ByteStream>(&self, stream: S, peer: Peer) -> Result<Greeted<S>, Unfit> {
        let (read, write) = stream.split();
        Ok(Greeted { read, write, peer })
    }
}
