//! From an endpoint and a codec to listening sockets, each with the task that serves it.

use std::future::Future;
use std::io;
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
use {
    crate::endpoint::HostPort, crate::transport::resolve, crate::transport::socket, socket2::Socket,
    std::net::SocketAddr,
};

/// An endpoint that listens.
pub(crate) struct Listening {
    /// As it was asked for.
    #[cfg_attr(not(feature = "handover"), allow(dead_code, reason = "it names the socket to the next process"))]
    pub(crate) asked: Endpoint,
    pub(crate) endpoint: Endpoint,
    pub(crate) control: Arc<dyn Control>,
    pub(crate) task: Task,
    /// Whose it is, where there are several workers.
    pub(crate) worker: usize,
    /// Makes its task once more, in the current runtime, when the one before has ended.
    pub(crate) again: Again,
    /// Another socket of the same endpoint comes before it.
    pub(crate) is_further: bool,
}

pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(crate) type Again = Box<dyn Fn() -> io::Result<Task> + Send>;

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
                    Ok(vec![new.stream(mem, new.someone(), &new.origin(endpoint.clone()), Source::Made)])
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

fn failed(endpoint: &Endpoint, error: io::Error) -> Error {
    Error::new(ErrorKind::Bind, format!("cannot listen on {endpoint}")).because(error)
}

/// Binds every address of a host name. A free port that the system chose for the first is the others' as well.
#[cfg(any(feature = "tcp", feature = "udp"))]
async fn each_address<T>(
    endpoint: &Endpoint,
    at: &HostPort,
    mut bind: impl FnMut(SocketAddr) -> io::Result<(T, SocketAddr)>,
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
        let bind = |addr| {
            let (sockets, source) = match inherited.tcp(self.asked, addr) {
                none if none.is_empty() => {
                    (socket::tcp_listeners(addr, self.options, &limits, self.workers())?, Source::Made)
                }
                sockets => (sockets, Source::Given),
            };
            self.share_out(sockets, TcpTransport::on).map(|(shares, addr)| ((shares, source), addr))
        };
        let mut listening = Vec::new();
        for ((shares, source), addr) in each_address(self.asked, at, bind).await? {
            let origin = self.origin(name(addr));
            let new = shares.into_iter().map(|(tcp, worker)| self.stream(tcp, worker, &origin, source));
            one_endpoint(&mut listening, new);
        }
        Ok(listening)
    }

    #[cfg(feature = "udp")]
    async fn udp(&self, at: &HostPort, inherited: &Inherited) -> Result<Vec<Listening>, Error> {
        use crate::transport::udp::UdpShared;
        self.only_streams_are_proxied()?;
        let bind = |addr| {
            let (sockets, source) = match inherited.udp(self.asked, addr) {
                none if none.is_empty() => (socket::udp_sockets(addr, self.options, self.workers())?, Source::Made),
                sockets => (sockets, Source::Given),
            };
            // what is limited for an endpoint is so over all of its sockets
            let (counters, ours) = (Arc::default(), source == Source::Made);
            let shares = self.share_out(sockets, |socket| UdpShared::on(socket, Arc::clone(&counters), ours));
            shares.map(|(shares, addr)| ((shares, source), addr))
        };
        let mut listening = Vec::new();
        for ((shares, source), addr) in each_address(self.asked, at, bind).await? {
            let origin = self.origin(Endpoint::udp(addr));
            let new = shares.into_iter().map(|(udp, worker)| self.datagrams(udp, worker, &origin, source));
            one_endpoint(&mut listening, new);
        }
        Ok(listening)
    }

    /// How many sockets of an endpoint are of use.
    #[cfg(any(feature = "tcp", feature = "udp"))]
    fn workers(&self) -> usize {
        self.hub.crew.as_ref().map_or(1, |crew| crew.len())
    }

    /// Whose turn it is to have a socket that there is only once.
    fn someone(&self) -> usize {
        self.hub.crew.as_ref().map_or(0, |crew| crew.next())
    }

    /// Makes something that belongs to a worker's runtime.
    #[cfg(any(feature = "tcp", feature = "udp", feature = "unix"))]
    fn within<T>(&self, worker: usize, make: impl FnOnce() -> T) -> T {
        match &self.hub.crew {
            Some(crew) => crew.within(worker, make),
            None => make(),
        }
    }

    /// Gives the sockets of one address to the workers, in turn, each as what `on` makes of it.
    #[cfg(any(feature = "tcp", feature = "udp"))]
    fn share_out<T>(
        &self,
        sockets: Vec<Socket>,
        on: impl Fn(Socket) -> io::Result<(T, SocketAddr)>,
    ) -> io::Result<(Vec<(T, usize)>, SocketAddr)> {
        let (mut shares, mut at) = (Vec::new(), None);
        for socket in sockets {
            let worker = self.someone();
            let (share, addr) = self.within(worker, || on(socket))?;
            shares.push((share, worker));
            at = Some(addr);
        }
        at.map(|at| (shares, at)).ok_or_else(|| io::Error::other("no socket was made"))
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
    fn unix(&self, inherited: &Inherited) -> io::Result<Vec<Listening>> {
        use crate::transport::unix::UnixTransport;
        let Endpoint::Unix(address) = self.asked else { return Ok(Vec::new()) };
        let worker = self.someone();
        let make = || -> io::Result<_> {
            match inherited.unix(self.asked, self.options) {
                Some((socket, file)) => Ok((UnixTransport::on(socket, file)?, Source::Given)),
                None => Ok((UnixTransport::bind(address, self.options, &self.hub.limits.get())?, Source::Made)),
            }
        };
        let (unix, source) = self.within(worker, make)?;
        Ok(vec![self.stream(unix, worker, &self.origin(self.asked.clone()), source)])
    }

    /// A socket that a service manager made. What it has as a file is the service manager's.
    #[cfg(feature = "fd")]
    fn passed(&self, Given { socket, kind }: Given) -> Result<Listening, Error> {
        use crate::transport::{tcp::TcpTransport, udp::UdpShared, unix::UnixTransport};
        let failed = |error| failed(self.asked, error);
        // it is accepted from by one worker, and those who come are dealt out
        let worker = self.someone();
        match kind {
            Kind::Tcp(addr) => {
                fits::<C>(&Endpoint::tcp(addr))?;
                let (tcp, addr) = self.within(worker, || TcpTransport::on(socket)).map_err(failed)?;
                #[cfg(feature = "tls")]
                if self.options.tls.is_some() {
                    return Ok(self.stream(tcp, worker, &self.origin(Endpoint::tls(addr)), Source::Given));
                }
                Ok(self.stream(tcp, worker, &self.origin(Endpoint::tcp(addr)), Source::Given))
            }
            Kind::Udp(_) => {
                self.only_streams_are_proxied()?;
                #[cfg(feature = "tls")]
                self.only_tcp_is_encrypted()?;
                let (udp, addr) =
                    self.within(worker, || UdpShared::on(socket, Arc::default(), false)).map_err(failed)?;
                Ok(self.datagrams(udp, worker, &self.origin(Endpoint::udp(addr)), Source::Given))
            }
            Kind::Unix(endpoint) => {
                let endpoint = endpoint.unwrap_or_else(|| self.asked.clone());
                fits::<C>(&endpoint)?;
                #[cfg(feature = "tls")]
                self.only_tcp_is_encrypted()?;
                let unix = self.within(worker, || UnixTransport::on(socket, None)).map_err(failed)?;
                Ok(self.stream(unix, worker, &self.origin(endpoint), Source::Given))
            }
        }
    }

    fn origin(&self, endpoint: Endpoint) -> Arc<Origin<S, C>> {
        Arc::new(Origin {
            hub: Arc::clone(self.hub),
            session: Arc::clone(self.session),
            timing: self.hub.meters.timing(&endpoint),
            endpoint: Arc::new(endpoint),
            prototype: Arc::clone(&self.prototype),
            greeting: Greeting::new(self.options),
            log_bytes: self.options.log_bytes,
        })
    }

    fn stream<L: Listener>(&self, listener: L, worker: usize, origin: &Arc<Origin<S, C>>, source: Source) -> Listening {
        let door = Door::new(worker, listener);
        let control: Arc<dyn Control> = Arc::clone(&door) as _;
        let endpoint = (*origin.endpoint).clone();
        let (same_door, same_origin) = (Arc::clone(&door), Arc::clone(origin));
        let again = move || {
            if let Err(error) = same_door.move_here() {
                // its socket must not keep its share of the peers
                same_door.close();
                return Err(error);
            }
            Ok(Box::pin(accept(Arc::clone(&same_door), Arc::clone(&same_origin))) as Task)
        };
        let origin = Arc::clone(origin);
        let task = async move {
            if source == Source::Given {
                door.adjust(&origin.hub.limits.get());
            }
            accept(door, origin).await;
        };
        let (asked, task, again) = (self.asked.clone(), Box::pin(task), Box::new(again));
        Listening { asked, endpoint, control, task, worker, again, is_further: false }
    }

    #[cfg(feature = "udp")]
    fn datagrams(
        &self,
        shared: Arc<crate::transport::udp::UdpShared>,
        worker: usize,
        origin: &Arc<Origin<S, C>>,
        source: Source,
    ) -> Listening {
        use super::udp::{UdpControl, receive};
        let endpoint = (*origin.endpoint).clone();
        self.hub.tallies.of(&endpoint).counts_datagrams(&shared.counters);
        let options = (source == Source::Given).then(|| self.options.clone());
        let control = UdpControl::new(Arc::clone(&shared), self.options.clone());
        let (same, same_control, same_origin) = (Arc::clone(&shared), Arc::clone(&control), Arc::clone(origin));
        let again = move || {
            if let Err(error) = same.move_here() {
                // its socket must not keep its share of the peers
                same.close();
                return Err(error);
            }
            Ok(Box::pin(receive(Arc::clone(&same_control), Arc::clone(&same_origin))) as Task)
        };
        let (task_control, origin) = (Arc::clone(&control), Arc::clone(origin));
        let task = async move {
            if let Some(options) = options {
                shared.set(&options);
            }
            receive(task_control, origin).await;
        };
        let (asked, task, again) = (self.asked.clone(), Box::pin(task), Box::new(again));
        Listening { asked, endpoint, control, task, worker, again, is_further: false }
    }
}

/// Adds the sockets of one endpoint.
#[cfg(any(feature = "tcp", feature = "udp"))]
fn one_endpoint(listening: &mut Vec<Listening>, sockets: impl Iterator<Item = Listening>) {
    for (index, mut socket) in sockets.enumerate() {
        socket.is_further = index > 0;
        listening.push(socket);
    }
}
