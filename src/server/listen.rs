//! From an endpoint and a codec to listening sockets, each with the task that serves it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::accept::{Control, Door, accept};
use super::greeting::Greeting;
use super::hub::Hub;
use super::open::Origin;
use crate::codec::Codec;
use crate::connection::Prototype;
use crate::endpoint::{Endpoint, EndpointError};
use crate::error::{Error, ErrorKind};
use crate::handler::Session;
use crate::transport::{BindOptions, Listener, fits, mem::MemTransport, missing_feature};
#[cfg(any(feature = "tcp", feature = "udp"))]
use {crate::endpoint::HostPort, crate::transport::resolve, std::net::SocketAddr};

/// An endpoint that listens.
pub(crate) struct Listening {
    pub(crate) endpoint: Endpoint,
    pub(crate) control: Arc<dyn Control>,
    pub(crate) task: Task,
}

pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

type Listens<'a> = Pin<Box<dyn Future<Output = Result<Vec<Listening>, Error>> + Send + 'a>>;

/// An endpoint with a codec, without the type of the codec.
pub(crate) trait Binding<S>: Send {
    fn listen<'a>(self: Box<Self>, hub: &'a Arc<Hub>, session: &'a Arc<S>) -> Listens<'a>
    where
        Self: 'a;
}

/// What [`Server::bind`](crate::Server::bind) was given.
pub(crate) struct Bound<C> {
    pub(crate) endpoint: Result<Endpoint, EndpointError>,
    pub(crate) codec: C,
    pub(crate) options: BindOptions,
}

impl<S, C> Binding<S> for Bound<C>
where
    S: Session,
    C: Codec<S::In, S::Out>,
{
    fn listen<'a>(self: Box<Self>, hub: &'a Arc<Hub>, session: &'a Arc<S>) -> Listens<'a>
    where
        Self: 'a,
    {
        Box::pin(async move {
            let Self { endpoint, codec, options } = *self;
            let endpoint = endpoint.map_err(|error| Error::new(ErrorKind::Endpoint, error.to_string()))?;
            fits::<C>(&endpoint)?;
            #[cfg(feature = "tls")]
            crate::transport::fits_tls(&endpoint, options.tls.is_some(), "`BindOptions::tls`")?;
            let limits = hub.limits.get();
            let new = New { hub, session, prototype: Prototype::new(codec), options: &options };
            match &endpoint {
                #[cfg(feature = "tcp")]
                Endpoint::Tcp(at) => {
                    let bind = |addr| crate::transport::tcp::TcpTransport::bind(addr, &options, &limits);
                    let bound = each_address(&endpoint, at, bind).await?;
                    Ok(bound.into_iter().map(|(tcp, addr)| new.stream(tcp, Endpoint::tcp(addr))).collect())
                }
                #[cfg(feature = "tls")]
                Endpoint::Tls(at) => {
                    let bind = |addr| crate::transport::tcp::TcpTransport::bind(addr, &options, &limits);
                    let bound = each_address(&endpoint, at, bind).await?;
                    Ok(bound.into_iter().map(|(tcp, addr)| new.stream(tcp, Endpoint::tls(addr))).collect())
                }
                #[cfg(feature = "udp")]
                Endpoint::Udp(at) => {
                    use crate::transport::udp::UdpShared;
                    if options.proxy_protocol.is_some() {
                        let text =
                            format!("{endpoint}: the PROXY protocol is read from byte streams, not from datagrams");
                        return Err(Error::new(ErrorKind::Config, text));
                    }
                    let bind = |addr| UdpShared::bind(addr, &options, Arc::clone(&hub.udp));
                    let bound = each_address(&endpoint, at, bind).await?;
                    Ok(bound.into_iter().map(|(udp, addr)| new.datagrams(udp, Endpoint::udp(addr))).collect())
                }
                #[cfg(feature = "unix")]
                Endpoint::Unix(address) => {
                    let unix = crate::transport::unix::UnixTransport::bind(address, &options, &limits)
                        .map_err(|error| failed(&endpoint, error))?;
                    Ok(vec![new.stream(unix, endpoint)])
                }
                Endpoint::Mem(name) => {
                    let mem = MemTransport::bind(name, &limits).map_err(|error| failed(&endpoint, error))?;
                    Ok(vec![new.stream(mem, endpoint)])
                }
                #[allow(unreachable_patterns, reason = "with every transport there is none left")]
                _ => Err(missing_feature(&endpoint)),
            }
        })
    }
}

fn failed(endpoint: &Endpoint, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Bind, format!("cannot listen on {endpoint}")).because(error)
}

/// Binds every address of a host name. A free port that the system chose for the first is the others' as well.
#[cfg(any(feature = "tcp", feature = "udp"))]
async fn each_address<T>(
    endpoint: &Endpoint,
    at: &HostPort,
    bind: impl Fn(SocketAddr) -> std::io::Result<(T, SocketAddr)>,
) -> Result<Vec<(T, SocketAddr)>, Error> {
    let mut bound: Vec<(T, SocketAddr)> = Vec::new();
    for mut addr in resolve(at).await? {
        if let Some((_, first)) = bound.first() {
            addr.set_port(first.port());
        }
        bound.push(bind(addr).map_err(|error| failed(endpoint, error))?);
    }
    Ok(bound)
}

/// What the listeners of one endpoint share.
struct New<'a, S, C> {
    hub: &'a Arc<Hub>,
    session: &'a Arc<S>,
    prototype: Arc<Prototype<C>>,
    options: &'a BindOptions,
}

impl<S, C> New<'_, S, C>
where
    S: Session,
    C: Codec<S::In, S::Out>,
{
    fn origin(&self, endpoint: &Endpoint) -> Arc<Origin<S, C>> {
        Arc::new(Origin {
            hub: Arc::clone(self.hub),
            session: Arc::clone(self.session),
            endpoint: Arc::new(endpoint.clone()),
            prototype: Arc::clone(&self.prototype),
            greeting: Greeting::new(self.options),
            log_bytes: self.options.log_bytes,
        })
    }

    fn stream<L: Listener>(&self, listener: L, endpoint: Endpoint) -> Listening {
        let origin = self.origin(&endpoint);
        let door = Door::new(listener);
        Listening { endpoint, control: Arc::clone(&door) as _, task: Box::pin(accept(door, origin)) }
    }

    #[cfg(feature = "udp")]
    fn datagrams(&self, shared: Arc<crate::transport::udp::UdpShared>, endpoint: Endpoint) -> Listening {
        use super::udp::{UdpControl, receive};
        let origin = self.origin(&endpoint);
        let control = UdpControl::new(shared, self.options.clone());
        Listening { endpoint, control: Arc::clone(&control) as _, task: Box::pin(receive(control, origin)) }
    }
}
