//! What has to happen between the accept and the connection: nothing, for most listeners.

use tokio::time::timeout;

use super::refusals::Refusal;
use crate::error::BoxError;
use crate::peer::{Peer, PeerAddress};
use crate::proxy::ProxyProtocol;
#[cfg(feature = "tls")]
use crate::tls::{Lower, ServerTls, Wire};
use crate::transport::{BindOptions, ByteStream, MaybeTlsRead, MaybeTlsWrite};

/// The handshakes of a listener, in their order.
pub(crate) struct Greeting {
    proxy: Option<ProxyProtocol>,
    #[cfg(feature = "tls")]
    tls: Option<ServerTls>,
}

/// A stream whose handshakes are through.
pub(crate) struct Greeted<S: ByteStream> {
    pub(crate) read: MaybeTlsRead<S::Read>,
    pub(crate) write: MaybeTlsWrite<S::Write>,
    pub(crate) peer: Peer,
}

/// What went wrong.
pub(crate) struct Unfit {
    pub(crate) why: Refusal,
    pub(crate) error: Option<BoxError>,
}

impl Unfit {
    fn new(why: Refusal, error: impl Into<BoxError>) -> Self {
        Self { why, error: Some(error.into()) }
    }
}

impl Greeting {
    pub(crate) fn new(options: &BindOptions) -> Self {
        Self {
            proxy: options.proxy_protocol.clone(),
            #[cfg(feature = "tls")]
            tls: options.tls.clone(),
        }
    }

    /// Whether there is anything to be done.
    pub(crate) fn is_needed(&self) -> bool {
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            return true;
        }
        self.proxy.is_some()
    }

    /// Whether who accepts knows the peer's address: behind a proxy it does not.
    pub(crate) fn knows_address(&self) -> bool {
        self.proxy.is_none()
    }

    /// Whether who comes from there may come at all.
    pub(crate) fn trusts(&self, address: PeerAddress) -> bool {
        let Some(proxy) = &self.proxy else { return true };
        match address {
            PeerAddress::Ip(addr) => proxy.trusts(addr.ip()),
            _ => proxy.trust_local,
        }
    }

    pub(crate) async fn perform<S: ByteStream>(&self, mut stream: S, mut peer: Peer) -> Result<Greeted<S>, Unfit> {
        if let Some(proxy) = &self.proxy {
            let header = crate::proxy::read(&mut stream, proxy.max_header);
            match timeout(proxy.deadline, header).await {
                Ok(Ok(proxied)) => peer = peer.behind(proxied),
                Ok(Err(error)) => return Err(Unfit::new(Refusal::Handshake, error)),
                Err(_) => return Err(Unfit { why: Refusal::HandshakeTimeout, error: None }),
            }
        }
        let (read, write) = stream.split();
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let wire = Wire::new(Box::new(read), Lower::new(write));
            let secured = Box::pin(tls.accept(wire)).await.map_err(|error| Unfit::new(Refusal::Handshake, error))?;
            let (read, write, info) = secured.over();
            return Ok(Greeted { read, write, peer: peer.with_tls(info) });
        }
        Ok(Greeted { read: MaybeTlsRead::Plain(read), write: MaybeTlsWrite::Plain(write), peer })
    }
}
