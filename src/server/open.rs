//! From what a listener accepted to a connection with a task of its own.

use std::sync::Arc;

use tokio::io::AsyncRead;

use super::hub::Hub;
use super::slots::Slot;
use crate::codec::Codec;
use crate::connection::{
    Connection, Core, Driver, Link, Outbound, Outbox, Prototype, StreamIn, WriteHalf, caught, finish,
};
use crate::endpoint::Endpoint;
use crate::handler::Session;
use crate::limits::Limits;
use crate::peer::{Peer, PeerAddress};
use crate::transport::Accepted;

/// What one listener's connections have in common.
pub(crate) struct Origin<S, C> {
    pub(crate) hub: Arc<Hub>,
    pub(crate) session: Arc<S>,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) prototype: Arc<Prototype<C>>,
    pub(crate) limits: Arc<Limits>,
}

impl<S, C> Origin<S, C>
where
    S: Session,
    C: Codec<S::In, S::Out>,
{
    pub(crate) fn open_stream<R, W>(&self, accepted: Accepted<R, W>, slot: Slot)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: WriteHalf,
    {
        let Accepted { read, write, address } = accepted;
        self.open(address, write, |codec, _| Box::new(StreamIn::new(read, codec, Some(Box::new(slot)))));
    }

    /// Starts the task of a connection. A panic of the user's code on the way costs this connection only.
    pub(crate) fn open<W: WriteHalf>(
        &self,
        address: PeerAddress,
        write: W,
        link: impl FnOnce(C, &Arc<Core>) -> Box<dyn Link<S::In, S::Out>>,
    ) {
        let mut made = None;
        let open = || {
            let peer = Peer::new(Arc::clone(&self.endpoint), address);
            let core = Arc::new(Core::new(peer, Arc::clone(&self.limits), None));
            let link = link(self.prototype.codec(), &core);
            let out = Outbox::new(Arc::clone(&core), Arc::clone(&self.prototype), self.prototype.codec(), write);
            made = Some((Arc::clone(&core), Arc::clone(&out)));
            let conn = Connection::new(link, Arc::clone(&out) as Arc<dyn Outbound<S::Out>>);
            let session = self.session.run(conn);
            self.hub.register(&core);
            tokio::spawn(Driver::new(session, out, Arc::clone(&self.hub) as _));
        };
        if let Err(panic) = caught(open) {
            if let Some((core, out)) = made {
                // the session may have given a sender away, or joined a group
                core.fail(panic);
                finish(&*out);
            }
            tracing::warn!(?address, endpoint = %self.endpoint, "a session could not be started: a panic");
        }
    }
}
