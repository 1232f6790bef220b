//! From what a listener accepted to a connection with a task of its own.

use std::future::Future;
use std::sync::Arc;

use tokio::time::{Instant, timeout};

use super::greeting::{Greeted, Greeting};
use super::hub::Hub;
use super::refusals::Refusal;
use super::slots::Slot;
use super::workers::Taken;
use crate::codec::Codec;
use crate::connection::{
    Connection, Core, Driver, Link, Outbound, Outbox, Prototype, Silence, StreamIn, Timing, WriteHalf, caught, finish,
};
use crate::endpoint::Endpoint;
use crate::handler::Session;
use crate::limits::{Overload, Prefix};
use crate::log::{Scope, TypeName};
use crate::peer::{Peer, PeerAddress};
use crate::sync::spawn;
use crate::transport::{ByteStream, MaybeTlsRead, MaybeTlsWrite};

/// What one listener's connections have in common.
pub(crate) struct Origin<S, C> {
    pub(crate) hub: Arc<Hub>,
    pub(crate) session: Arc<S>,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) prototype: Arc<Prototype<C>>,
    pub(crate) greeting: Greeting,
    /// As [`BindOptions::log_bytes`](crate::BindOptions::log_bytes).
    pub(crate) log_bytes: usize,
    pub(crate) timing: Timing,
}

/// What a connection has taken of what is limited. Given back when its descriptor is closed.
pub(super) struct Admission {
    hub: Arc<Hub>,
    place: Option<Prefix>,
    _worker: Option<Taken>,
}

impl Admission {
    fn new(hub: &Arc<Hub>, slot: Slot) -> Self {
        Self { hub: Arc::clone(hub), place: None, _worker: slot.keep() }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.hub.addresses.leave(place);
        }
        self.hub.slots.give();
    }
}

/// Starts what drives a connection.
pub(crate) trait Start {
    fn start(self, driver: impl Future<Output = ()> + Send + 'static);
}

/// In a task of its own.
pub(crate) struct Spawned;

impl Start for Spawned {
    fn start(self, driver: impl Future<Output = ()> + Send + 'static) {
        spawn(driver);
    }
}

impl<S, C> Origin<S, C>
where
    S: Session,
    C: Codec<S::In, S::Out>,
{
    /// Takes a stream: opens its connection, or has it do its handshakes first, in a task of its own.
    pub(crate) fn take<T: ByteStream>(self: &Arc<Self>, stream: T, slot: Slot) {
        let address = stream.address();
        let mut admission = Admission::new(&self.hub, slot);
        if !self.greeting.trusts(address) {
            return self.refuse(stream, Refusal::Untrusted);
        }
        if self.greeting.knows_address() && !self.admit(address, &mut admission) {
            return self.refuse(stream, Refusal::Address);
        }
        let peer = Peer::new(Arc::clone(&self.endpoint), address);
        if !self.greeting.is_needed() {
            let (read, write) = stream.split();
            return self.open_stream(MaybeTlsRead::Plain(read), MaybeTlsWrite::Plain(write), peer, admission);
        }
        spawn(Arc::clone(self).greet(stream, peer, admission));
    }

    /// Counts the connection for its address. False if that has too many.
    fn admit(&self, address: PeerAddress, admission: &mut Admission) -> bool {
        let PeerAddress::Ip(addr) = address else { return true };
        admission.place = self.hub.addresses.enter(addr.ip(), self.hub.limits.get().per_address);
        admission.place.is_some()
    }

    pub(crate) fn refuse(&self, stream: impl ByteStream, why: Refusal) {
        let overload = match why {
            Refusal::Connections | Refusal::Address | Refusal::Rate | Refusal::Memory => {
                self.hub.limits.get().overload.clone()
            }
            _ => Overload::Reset,
        };
        let peer = Peer::new(Arc::clone(&self.endpoint), stream.address());
        self.hub.refused(why, &peer, None);
        self.hub.refusals.refuse(stream, &overload, !self.greeting.is_needed());
    }

    async fn greet<T: ByteStream>(self: Arc<Self>, stream: T, peer: Peer, mut admission: Admission) {
        let limits = self.hub.limits.get();
        let (from, since) = (peer.clone(), Instant::now());
        let handshake = timeout(limits.handshake, self.greeting.perform(stream, peer));
        let running = self.hub.limits.handshakes.begin(limits.handshakes);
        if self.hub.is_cut() {
            return;
        }
        let (why, error) = match running.run(handshake).await {
            Some(Ok(Ok(Greeted { read, write, peer }))) => {
                if self.greeting.knows_address() || self.admit(peer.address(), &mut admission) {
                    self.hub.greeted(&peer, since.elapsed());
                    return self.open_stream(read, write, peer, admission);
                }
                (Refusal::Address, None)
            }
            Some(Ok(Err(unfit))) => (unfit.why, unfit.error),
            Some(Err(_)) => (Refusal::HandshakeTimeout, None),
            None => (Refusal::Handshakes, None),
        };
        self.hub.refused(why, &from, error.as_deref());
    }

    fn open_stream<W: WriteHalf>(
        &self,
        read: MaybeTlsRead<impl tokio::io::AsyncRead + Unpin + Send + 'static>,
        write: MaybeTlsWrite<W>,
        peer: Peer,
        admission: Admission,
    ) {
        self.open(peer, Silence::Stream, write, Spawned, |codec, _| Box::new(StreamIn::new(read, codec, admission)));
    }

    /// Starts the task of a connection. A panic of the user's code on the way costs this connection only.
    pub(crate) fn open<W: WriteHalf>(
        &self,
        peer: Peer,
        silence: Silence,
        write: W,
        start: impl Start,
        link: impl FnOnce(C, &Arc<Core>) -> Box<dyn Link<S::In, S::Out>>,
    ) {
        let mut made = None;
        let from = peer.clone();
        let open = || {
            let mut core = Core::new(peer, Arc::clone(&self.hub.limits), silence, None);
            core.timing = self.timing.clone();
            core.show_bytes(self.log_bytes);
            let core = Arc::new(core);
            let span = tracing::info_span!(
                "connection",
                id = %core.id,
                endpoint = %self.endpoint,
                peer = %core.peer(),
                codec = %TypeName(std::any::type_name::<C>()),
            );
            let scope = Scope::new(span);
            let inside = scope.enter();
            let link = link(self.prototype.codec(), &core);
            let out = Outbox::new(Arc::clone(&core), Arc::clone(&self.prototype), write);
            made = Some((Arc::clone(&core), Arc::clone(&out)));
            let conn = Connection::new(link, Arc::clone(&out) as Arc<dyn Outbound<S::Out>>);
            let session = self.session.run(conn);
            self.hub.register(&core);
            drop(inside);
            start.start(Driver::new(session, out, scope, Arc::clone(&self.hub)));
        };
        if let Err(panic) = caught(open) {
            if let Some((core, out)) = made {
                // the session may have given a sender away, or joined a group
                core.fail(panic);
                finish(&*out);
            }
            self.hub.log.not_started(&from);
        }
    }
}
