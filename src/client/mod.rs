//! The client's door to the same [`Connection`].
//!
//! | file | what it is |
//! |---|---|
//! | `mod` | [`connect`], and [`Connect`] for more |
//! | `eyeballs` | the race between the addresses of a name |
//!
//! ```
//! # async fn example() -> Result<(), hythe::Error> {
//! use hythe::codec::LengthDelimited;
//!
//! let mut conn = hythe::connect("tcp://localhost:9000", LengthDelimited::new()).await?;
//! conn.send("hello".into()).await?;
//! let answer = conn.recv().await?;
//! # Ok(()) }
//! ```

#[cfg(feature = "tcp")]
mod eyeballs;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::runtime::Handle;

use crate::codec::Codec;
use crate::connection::{Connection, Core, Link, Outbox, Prototype, Silence, StreamIn, WriteHalf};
use crate::endpoint::{Endpoint, EndpointError};
use crate::error::{Error, ErrorKind};
use crate::limits::{Limits, Live};
use crate::peer::Peer;
#[cfg(feature = "udp")]
use crate::peer::PeerAddress;
use crate::proxy::ProxyHeader;
#[cfg(any(feature = "tcp", feature = "udp"))]
use crate::transport::resolve;
use crate::transport::{ByteStream, MaybeTlsRead, MaybeTlsWrite, fits, mem, missing_feature};
#[cfg(feature = "tls")]
use {
    crate::tls::{ClientTls, Lower, Wire},
    crate::transport::tcp::TcpWrite,
    tokio::net::tcp::OwnedReadHalf,
};

/// Connects to an endpoint, with the codec that the peer speaks, within 10 s. For other options, or a codec whose
/// messages in and out differ, there is [`Connect`].
///
/// A host name is looked up, and its addresses are tried as [RFC 8305] has it, the IPv6 ones first, 250 ms apart.
///
/// [RFC 8305]: https://www.rfc-editor.org/rfc/rfc8305
///
/// # Errors
/// If the endpoint cannot be read, the name gives no address, or no address answers in time.
///
/// # Cancel safety
/// A dropped future leaves nothing behind.
pub async fn connect<C, M>(
    endpoint: impl TryInto<Endpoint, Error: Into<EndpointError>>,
    codec: C,
) -> Result<Connection<M>, Error>
where
    C: Codec<M, M>,
    M: Send + 'static,
{
    Connect::new().open(endpoint, codec).await
}

/// How to connect.
///
/// ```
/// # async fn example() -> Result<(), hythe::Error> {
/// use std::time::Duration;
/// use hythe::{Connect, Connection, codec::Lines};
///
/// let conn: Connection<String> =
///     Connect::new().deadline(Duration::from_secs(2)).open("tcp://localhost:6667", Lines::new()).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Connect {
    limits: Limits,
    deadline: Duration,
    proxy_header: Option<ProxyHeader>,
    #[cfg(feature = "tls")]
    tls: Option<ClientTls>,
}

impl Default for Connect {
    fn default() -> Self {
        Self::new()
    }
}

impl Connect {
    /// [`Limits::edge`], and 10 s to connect.
    #[must_use]
    pub fn new() -> Self {
        Self {
            limits: Limits::edge(),
            deadline: Duration::from_secs(10),
            proxy_header: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Sets the limits. Those for messages, the outbox, stalls and half-closed connections apply to a client; its peer
    /// may be silent.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the time for all of it: the look-up of the name, every address, and the handshake.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sends this PROXY header before everything else, in the name of the client that it names. Of the stream transports.
    #[must_use]
    pub fn proxy_header(mut self, header: ProxyHeader) -> Self {
        self.proxy_header = Some(header);
        self
    }

    /// Sets whom to trust, and what to show, of `tls://` endpoints. Default: [`ClientTls::system`], the operating system's
    /// authorities.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// As [`connect`].
    ///
    /// # Cancel safety
    /// A dropped future leaves nothing behind.
    pub async fn open<In, Out, C>(
        &self,
        endpoint: impl TryInto<Endpoint, Error: Into<EndpointError>>,
        codec: C,
    ) -> Result<Connection<In, Out>, Error>
    where
        C: Codec<In, Out>,
        In: Send + 'static,
        Out: Send + 'static,
    {
        let endpoint = endpoint
            .try_into()
            .map_err(|error| Error::new(ErrorKind::Endpoint, Into::<EndpointError>::into(error).to_string()))?;
        fits::<C>(&endpoint)?;
        let header = self.proxy_header.as_ref().map(ProxyHeader::to_bytes).transpose();
        let header =
            header.map_err(|error| Error::new(ErrorKind::Config, "the PROXY header cannot be sent").because(error))?;
        if header.is_some() && !endpoint.is_stream() {
            let text = format!("{endpoint}: a PROXY header goes over a byte stream, not in datagrams");
            return Err(Error::new(ErrorKind::Config, text));
        }
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            crate::transport::fits_tls(&endpoint, true, "`Connect::tls`")?;
        }
        let client = Client {
            limits: self.limits.clone().check()?,
            endpoint: Arc::new(endpoint),
            codec,
            header,
            #[cfg(feature = "tls")]
            tls: self.tls.clone(),
        };
        let Ok(result) = tokio::time::timeout(self.deadline, client.connect()).await else {
            let text = "no connection within the deadline".to_string();
            return Err(Error::new(ErrorKind::Timeout, format!("{text} of {:?}", self.deadline)));
        };
        result
    }
}

/// A connection about to be made.
struct Client<C> {
    limits: Limits,
    endpoint: Arc<Endpoint>,
    codec: C,
    /// What is sent first.
    header: Option<Bytes>,
    #[cfg(feature = "tls")]
    tls: Option<ClientTls>,
}

impl<C> Client<C> {
    async fn connect<In, Out>(self) -> Result<Connection<In, Out>, Error>
    where
        C: Codec<In, Out>,
        In: Send + 'static,
        Out: Send + 'static,
    {
        let endpoint = Arc::clone(&self.endpoint);
        let failed = |error| Error::new(ErrorKind::Connect, format!("cannot connect to {endpoint}")).because(error);
        match &*endpoint {
            #[cfg(feature = "tcp")]
            Endpoint::Tcp(at) => {
                let addresses = resolve(at).await?;
                let (stream, addr) = eyeballs::race(addresses, &self.limits).await.map_err(failed)?;
                self.stream(crate::transport::tcp::Tcp { stream, addr }).await.map_err(failed)
            }
            #[cfg(feature = "tls")]
            Endpoint::Tls(at) => {
                let tls = match &self.tls {
                    Some(tls) => tls.clone(),
                    None => ClientTls::system_later().await?,
                };
                // before anybody is bothered
                let name = tls.name_for(at.host())?;
                let addresses = resolve(at).await?;
                let (stream, addr) = eyeballs::race(addresses, &self.limits).await.map_err(failed)?;
                let (read, write, peer) =
                    self.begin(crate::transport::tcp::Tcp { stream, addr }).await.map_err(failed)?;
                let wire = Wire::new(Box::new(read), Lower::new(write));
                let secured = Box::pin(tls.connect(name, wire)).await.map_err(failed)?;
                let (read, write, info) = secured.over::<OwnedReadHalf, TcpWrite>();
                Ok(self.halves(read, write, peer.with_tls(info)))
            }
            #[cfg(feature = "udp")]
            Endpoint::Udp(at) => {
                let addr = crate::transport::first_address(resolve(at).await?);
                let (source, write) =
                    crate::transport::udp::client::connect(addr, self.limits.max_datagram).map_err(failed)?;
                let peer = Peer::new(Arc::clone(&endpoint), PeerAddress::Ip(addr));
                Ok(self.open(peer, write, |codec| Box::new(crate::connection::MessageIn::new(source, codec))))
            }
            #[cfg(feature = "unix")]
            Endpoint::Unix(address) => {
                let stream = crate::transport::unix::connect(address).await.map_err(failed)?;
                self.stream(stream).await.map_err(failed)
            }
            Endpoint::Fd(_) => Err(Error::new(ErrorKind::Config, format!("{endpoint} can only be listened on"))),
            Endpoint::Mem(name) => self.stream(mem::connect(name).await.map_err(failed)?).await.map_err(failed),
            #[allow(unreachable_patterns, reason = "with every transport there is none left")]
            _ => Err(missing_feature(&endpoint)),
        }
    }

    async fn stream<In, Out>(self, stream: impl ByteStream) -> io::Result<Connection<In, Out>>
    where
        C: Codec<In, Out>,
        In: Send + 'static,
        Out: Send + 'static,
    {
        let (read, write, peer) = self.begin(stream).await?;
        Ok(self.halves(MaybeTlsRead::Plain(read), MaybeTlsWrite::Plain(write), peer))
    }

    /// Sends what comes before everything else.
    async fn begin<S: ByteStream>(&self, mut stream: S) -> io::Result<(S::Read, S::Write, Peer)> {
        if let Some(header) = &self.header {
            stream.write_all(header).await?;
        }
        let peer = Peer::new(Arc::clone(&self.endpoint), stream.address());
        let (read, write) = stream.split();
        Ok((read, write, peer))
    }

    fn halves<In, Out, R, W>(self, read: MaybeTlsRead<R>, write: MaybeTlsWrite<W>, peer: Peer) -> Connection<In, Out>
    where
        C: Codec<In, Out>,
        In: Send + 'static,
        Out: Send + 'static,
        R: AsyncRead + Unpin + Send + 'static,
        W: WriteHalf,
    {
        self.open(peer, write, |codec| Box::new(StreamIn::new(read, codec, ())))
    }

    fn open<In, Out, W>(
        self,
        peer: Peer,
        write: W,
        link: impl FnOnce(C) -> Box<dyn Link<In, Out>>,
    ) -> Connection<In, Out>
    where
        C: Codec<In, Out>,
        In: Send + 'static,
        Out: Send + 'static,
        W: WriteHalf,
    {
        let core = Arc::new(Core::new(peer, Live::new(self.limits), Silence::Allowed, Some(Handle::current())));
        let prototype = Prototype::new(self.codec);
        let out = Outbox::new(core, Arc::clone(&prototype), write);
        Connection::new(link(prototype.codec()), out)
    }
}
