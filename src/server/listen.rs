//! From an endpoint and a codec to listening sockets, each with the task that serves it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::accept::{Control, Door, accept};
use super::greeting::Greeting;
use super::hub::Hub;
use super::inherited::Inherited;
use super::open::Origin;
use crate::codec::Codec;
use crate::connection::Prototype;
use crate::endpoint::{Endpoint, EndpointError};
use crate::error::{Error, ErrorKind};
use crate::handler::Session;
#[cfg(feature = "fd")]
use crate::transport::given::{Given, Kind};
use crate::transport::{BindOptions, Listener, fits, mem::MemTransport, missing_feature};
#[cfg(any(feature = "tcp", feature = "udp"))]
use {crate::endpoint::HostPort, crate::transport::resolve, std::net::SocketAddr};

/// An endpoint that listens.
pub(crate) struct Listening {
    /// As it was asked for.
    #[cfg_attr(not(feature = "handover"), allow(dead_code, reason = "it names the socket to the next process"))]
    pub(crate) asked: Endpoint,
    pub(crate) endpoint: Endpoint,
    pub(crate) control: Arc<dyn Control>,
    pub(crate) task: Task,
}

pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

type Listens<'a> = Pin<Box<dyn Future<Output = Result<Vec<Listening>, Error>> + Send + 'a>>;

/// An endpoint with a codec, without the type of the codec.
pub(crate) trait Binding<S>: Send {
    fn listen<'a>(self: Box<Self>, hub: &'a Arc<Hub>, session: &'a Arc<S>, inherited: &'a Inherited) -> Listens<'a>
    where
        Self: 'a;

    /// The same, for one more try.
    #[cfg(feature = "handover")]
    fn again(&self) -> Box<dyn Binding<S>>;
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
    fn listen<'a>(
        self: Box<Self>,
        hub: &'a Arc<Hub>,
        session: &'a Arc<S>,
        #[allow(unused_variables, reason = "names inside this process are not handed over")] inherited: &'a Inherited,
    ) -> Listens<'a>
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
            let new = New { hub, session, prototype: Prototype::new(codec), asked: &endpoint, options: &options };
            match &endpoint {
                #[cfg(feature = "tcp")]
                Endpoint::Tcp(at) => new.tcp(at, inherited, Endpoint::tcp).await,
                #[cfg(feature = "tls")]
                Endpoint::Tls(at) => new.tcp(at, inherited, Endpoint::tls).await,
                #[cfg(feature = "udp")]
                Endpoint::Udp(at) => new.udp(at, inherited).await,
                #[cfg(feature = "unix")]
                Endpoint::Unix(_) => new.unix(inherited).map_err(|error| failed(&endpoint, error)),
                #[cfg(feature = "fd")]
                Endpoint::Fd(which) => match inherited.passed(which) {
                    Ok(sockets) => sockets.into_iter().map(|socket| new.passed(socket)).collect(),
                    Err(why) => Err(Error::new(ErrorKind::Bind, format!("{endpoint} {why}"))),
                },
                Endpoint::Mem(name) => {
                    let mem = MemTransport::bind(name, &limits).map_err(|error| failed(&endpoint, error))?;
                    Ok(vec![new.stream(mem, endpoint.clone(), Source::Made)])
                }
                #[allow(unreachable_patterns, reason = "with every transport there is none left")]
                _ => Err(missing_feature(&endpoint)),
            }
        })
    }

    #[cfg(feature = "handover")]
    fn again(&self) -> Box<dyn Binding<S>> {
        let Self { endpoint, codec, options } = self;
        Box::new(Self { endpoint: endpoint.clone(), codec: codec.clone(), options: options.clone() })
    }
}

/// Binds all endpoints, or none.
pub(crate) async fn listen<S>(
    bindings: Vec<Box<dyn Binding<S>>>,
    hub: &Arc<Hub>,
    session: &Arc<S>,
    inherited: &Inherited,
) -> Result<Vec<Listening>, Error> {
    let mut listening = Vec::new();
    for binding in bindings {
        listening.append(&mut binding.listen(hub, session, inherited).await?);
    }
    Ok(listening)
}

fn failed(endpoint: &Endpoint, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Bind, format!("cannot listen on {endpoint}")).because(error)
}

/// Binds every address of a host name. A free port that the system chose for the first is the others' as well.
#[cfg(any(feature = "tcp", feature = "udp"))]
async fn each_address<T>(
    endpoint: &Endpoint,
    at: &HostPort,
    mut bind: impl FnMut(SocketAddr) -> std::io::Result<(T, SocketAddr)>,
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

/// Where a socket comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// It was made here, as it has to be.
    Made,
    /// Somebody else made it: it gets what it may lack when its task begins, and not before that is certain.
    Given,
}

/// What the listeners of one endpoint share.
struct New<'a, S, C> {
    hub: &'a Arc<Hub>,
    session: &'a Arc<S>,
    prototype: Arc<Prototype<C>>,
    asked: &'a Endpoint,
    options: &'a BindOptions,
}

impl<S, C> New<'_, S, C>
where
    S: Session,
    C: Codec<S::In, S::Out>,
{
    #[cfg(feature = "tcp")]
    async fn tcp(
        &self,
        at: &HostPort,
        inherited: &Inherited,
        name: impl Fn(SocketAddr) -> Endpoint,
    ) -> Result<Vec<Listening>, Error> {
        use crate::transport::tcp::TcpTransport;
        let limits = self.hub.limits.get();
        let bind = |addr| match inherited.tcp(self.asked, addr) {
            Some(socket) => TcpTransport::on(socket).map(|(tcp, addr)| ((tcp, Source::Given), addr)),
            None => TcpTransport::bind(addr, self.options, &limits).map(|(tcp, addr)| ((tcp, Source::Made), addr)),
        };
        let bound = each_address(self.asked, at, bind).await?;
        Ok(bound.into_iter().map(|((tcp, source), addr)| self.stream(tcp, name(addr), source)).collect())
    }

    #[cfg(feature = "udp")]
    async fn udp(&self, at: &HostPort, inherited: &Inherited) -> Result<Vec<Listening>, Error> {
        use crate::transport::udp::UdpShared;
        self.only_streams_are_proxied()?;
        let bind = |addr| match inherited.udp(self.asked, addr) {
            Some(socket) => UdpShared::on(socket, Arc::default()).map(|(udp, addr)| ((udp, Source::Given), addr)),
            None => UdpShared::bind(addr, self.options, Arc::default()).map(|(udp, addr)| ((udp, Source::Made), addr)),
        };
        let bound = each_address(self.asked, at, bind).await?;
        Ok(bound.into_iter().map(|((udp, source), addr)| self.datagrams(udp, Endpoint::udp(addr), source)).collect())
    }

    #[cfg(feature = "udp")]
    fn only_streams_are_proxied(&self) -> Result<(), Error> {
        if self.options.proxy_protocol.is_none() {
            return Ok(());
        }
        let text = format!("{}: the PROXY protocol is read from byte streams, not from datagrams", self.asked);
        Err(Error::new(ErrorKind::Config, text))
    }

    #[cfg(all(feature = "fd", feature = "tls"))]
    fn only_tcp_is_encrypted(&self) -> Result<(), Error> {
        if self.options.tls.is_none() {
            return Ok(());
        }
        let text = format!("{} is no TCP socket, so it takes no `BindOptions::tls`", self.asked);
        Err(Error::new(ErrorKind::Config, text))
    }

    #[cfg(feature = "unix")]
    fn unix(&self, inherited: &Inherited) -> std::io::Result<Vec<Listening>> {
        use crate::transport::unix::UnixTransport;
        let Endpoint::Unix(address) = self.asked else { return Ok(Vec::new()) };
        let (unix, source) = match inherited.unix(self.asked, self.options) {
            Some((socket, file)) => (UnixTransport::on(socket, file)?, Source::Given),
            None => (UnixTransport::bind(address, self.options, &self.hub.limits.get())?, Source::Made),
        };
        Ok(vec![self.stream(unix, self.asked.clone(), source)])
    }

    /// A socket that a service manager made. What it has as a file is the service manager's.
    #[cfg(feature = "fd")]
    fn passed(&self, Given { socket, kind }: Given) -> Result<Listening, Error> {
        use crate::transport::{tcp::TcpTransport, udp::UdpShared, unix::UnixTransport};
        let failed = |error| failed(self.asked, error);
        match kind {
            Kind::Tcp(addr) => {
                fits::<C>(&Endpoint::tcp(addr))?;
                let (tcp, addr) = TcpTransport::on(socket).map_err(failed)?;
                #[cfg(feature = "tls")]
                if self.options.tls.is_some() {
                    return Ok(self.stream(tcp, Endpoint::tls(addr), Source::Given));
                }
                Ok(self.stream(tcp, Endpoint::tcp(addr), Source::Given))
            }
            Kind::Udp(_) => {
                self.only_streams_are_proxied()?;
                #[cfg(feature = "tls")]
                self.only_tcp_is_encrypted()?;
                let (udp, addr) = UdpShared::on(socket, Arc::default()).map_err(failed)?;
                Ok(self.datagrams(udp, Endpoint::udp(addr), Source::Given))
            }
            Kind::Unix(endpoint) => {
                let endpoint = endpoint.unwrap_or_else(|| self.asked.clone());
                fits::<C>(&endpoint)?;
                #[cfg(feature = "tls")]
                self.only_tcp_is_encrypted()?;
                let unix = UnixTransport::on(socket, None).map_err(failed)?;
                Ok(self.stream(unix, endpoint, Source::Given))
            }
        }
    }

    fn origin(&self, endpoint: &Endpoint) -> Arc<Origin<S, C>> {
        Arc::new(Origin {
            hub: Arc::clone(self.hub),
            session: Arc::clone(self.session),
            endpoint: Arc::new(endpoint.clone()),
            prototype: Arc::clone(&self.prototype),
            greeting: Greeting::new(self.options),
            log_bytes: self.options.log_bytes,
            timing: self.hub.meters.timing(endpoint),
        })
    }

    fn stream<L: Listener>(&self, listener: L, endpoint: Endpoint, source: Source) -> Listening {
        let origin = self.origin(&endpoint);
        let door = Door::new(listener);
        let control: Arc<dyn Control> = Arc::clone(&door) as _;
        let task = async move {
            if source == Source::Given {
                door.adjust(&origin.hub.limits.get());
            }
            accept(door, origin).await;
        };
        Listening { asked: self.asked.clone(), endpoint, control, task: Box::pin(task) }
    }

    #[cfg(feature = "udp")]
    fn datagrams(
        &self,
        shared: Arc<crate::transport::udp::UdpShared>,
        endpoint: Endpoint,
        source: Source,
    ) -> Listening {
        use super::udp::{UdpControl, receive};
        let origin = self.origin(&endpoint);
        self.hub.tallies.of(&endpoint).counts_datagrams(&shared.counters);
        let options = (source == Source::Given).then(|| self.options.clone());
        let control = UdpControl::new(Arc::clone(&shared), self.options.clone());
        let task_control = Arc::clone(&control);
        let task = async move {
            if let Some(options) = options {
                shared.set(&options);
            }
            receive(task_control, origin).await;
        };
        Listening { asked: self.asked.clone(), endpoint, control, task: Box::pin(task) }
    }
}
