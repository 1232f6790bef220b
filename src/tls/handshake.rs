//! From a byte stream to a TLS connection.

use std::io;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::client::ClientTls;
use super::info::TlsInfo;
use super::server::ServerTls;
use super::stream::{HELD, TlsRead, TlsWrite, Wire, split};
use crate::error::Error;
use crate::transport::{MaybeTlsRead, MaybeTlsWrite};

/// How long, and for how many bytes, a peer that failed is listened to: a close with something unread would be a reset,
/// which overtakes the alert that says why.
const FAREWELL: (Duration, u64) = (Duration::from_millis(500), 64 << 10);

/// Which side of a handshake [`Connection::start_tls`](crate::Connection::start_tls) takes. Nobody has to name it: it is
/// made of a `&ServerTls` or a `&ClientTls`.
#[derive(Clone, Debug)]
pub struct Upgrade(Side);

#[derive(Clone, Debug)]
enum Side {
    Server(ServerTls),
    Client(ClientTls),
}

impl From<&ServerTls> for Upgrade {
    fn from(tls: &ServerTls) -> Self {
        Self(Side::Server(tls.clone()))
    }
}

impl From<&ClientTls> for Upgrade {
    fn from(tls: &ClientTls) -> Self {
        Self(Side::Client(tls.clone()))
    }
}

/// An [`Upgrade`] that knows whom to expect.
pub(crate) enum Named {
    Server(ServerTls),
    Client(ClientTls, ServerName<'static>),
}

impl Upgrade {
    /// `host`: where the connection went to.
    pub(crate) fn named(self, host: Option<&str>) -> Result<Named, Error> {
        match self.0 {
            Side::Server(tls) => Ok(Named::Server(tls)),
            Side::Client(tls) => {
                let name = tls.name_for(host.unwrap_or_default())?;
                Ok(Named::Client(tls, name))
            }
        }
    }
}

impl Named {
    pub(crate) async fn handshake(self, wire: Wire) -> io::Result<Secured> {
        match self {
            Self::Server(tls) => Box::pin(tls.accept(wire)).await,
            Self::Client(tls, name) => Box::pin(tls.connect(name, wire)).await,
        }
    }
}

/// A TLS connection in its two halves.
pub(crate) struct Secured {
    pub(crate) read: TlsRead,
    pub(crate) write: TlsWrite,
    pub(crate) info: TlsInfo,
}

impl Secured {
    /// As halves of a stream that had others before.
    pub(crate) fn over<R, W>(self) -> (MaybeTlsRead<R>, MaybeTlsWrite<W>, TlsInfo) {
        (MaybeTlsRead::Tls(self.read), MaybeTlsWrite::Tls(self.write), self.info)
    }
}

impl ServerTls {
    /// The handshake with a client: a future of some 10 KiB, to be boxed where it is part of another. It takes as long as
    /// the client likes: the deadline is the caller's.
    pub(crate) async fn accept(&self, wire: Wire) -> io::Result<Secured> {
        let acceptor = TlsAcceptor::from(self.config());
        let accept = acceptor.accept_with(wire, |session| session.set_buffer_limit(Some(HELD)));
        match accept.into_fallible().await {
            Ok(stream) => {
                let session = stream.get_ref().1;
                let info = TlsInfo::new(session, session.server_name());
                Ok(secured(TlsStream::Server(stream), info))
            }
            Err((error, wire)) => {
                let _ = tokio::time::timeout(FAREWELL.0, farewell(wire)).await;
                Err(error)
            }
        }
    }
}

impl ClientTls {
    /// The handshake with a server that is to be `name`, as large. The deadline is the caller's.
    pub(crate) async fn connect(&self, name: ServerName<'static>, wire: Wire) -> io::Result<Secured> {
        // an address is not named (RFC 6066, section 3)
        let asked = matches!(name, ServerName::DnsName(_)).then(|| name.to_str().into_owned());
        let connector = TlsConnector::from(self.config().clone());
        let connect = connector.connect_with(name, wire, |session| session.set_buffer_limit(Some(HELD)));
        connect.await.map(|stream| {
            let info = TlsInfo::new(stream.get_ref().1, asked.as_deref());
            secured(TlsStream::Client(stream), info)
        })
    }
}

fn secured(stream: TlsStream<Wire>, info: TlsInfo) -> Secured {
    let (read, write) = split(stream);
    Secured { read, write, info }
}

/// Ends a connection whose handshake failed, so that the peer gets to know why.
async fn farewell(mut wire: Wire) {
    if wire.shutdown().await.is_ok() {
        let _ = tokio::io::copy(&mut wire.take(FAREWELL.1), &mut tokio::io::sink()).await;
    }
}
