//! Who runs the handlers: binds endpoints, accepts, keeps the limits, drains.
//!
//! | file | what it is |
//! |---|---|
//! | `mod` | [`Server`], the builder |
//! | `listen` | from an endpoint and a codec to a listening socket |
//! | `handover/` | from the server of one process to that of the next |
//! | `inherited`, `listen_fds` | sockets that the server before, or a service manager, has made |
//! | `accept`, `udp` | the loops that take new peers |
//! | `errno` | what an error of accepting is about |
//! | `greeting` | what comes before a connection |
//! | `open` | from an accepted peer to a connection with its task |
//! | `descriptors` | room for all of their descriptors |
//! | `slots`, `rate` | how many connections: over all, in a second |
//! | `refusals` | who was turned away, and how |
//! | `hub` | what all of them share: which connections there are |
//! | `tally` | what each listener has counted, and [`Counters`], the sum |
//! | `log`, `meters` | what is said of peers, and how often; what is told of the counters |
//! | `watch`, `stalls` | a thread that looks for sessions that do not return or block their thread |
//! | `workers/` | which threads all of it is on |
//! | `running`, `signal` | [`Running`], and how it ends |
//!
//! ```no_run
//! use hythe::codec::{Datagram, LengthDelimited};
//! use hythe::{Bytes, Connection, Handler, Server};
//!
//! #[derive(Clone)]
//! struct Echo;
//!
//! impl Handler for Echo {
//!     type In = Bytes;
//!     type Out = Bytes;
//!
//!     async fn on_message(&mut self, conn: &mut Connection<Bytes>, message: Bytes) -> anyhow::Result<()> {
//!         conn.send(message).await?;
//!         Ok(())
//!     }
//! }
//!
//! # async fn example() -> Result<(), hythe::Error> {
//! Server::new(Echo)
//!     .bind("tcp://127.0.0.1:9000", LengthDelimited::new())
//!     .bind("udp://127.0.0.1:9000", Datagram::new())
//!     .bind("unix:///tmp/echo.sock", LengthDelimited::new())
//!     .run()
//!     .await?;
//! # Ok(()) }
//! ```
#![doc = include_str!("log.md")]

mod accept;
#[cfg(target_os = "linux")]
mod descriptors;
mod errno;
mod greeting;
#[cfg(feature = "handover")]
mod handover;
mod hub;
mod inherited;
mod listen;
#[cfg(feature = "fd")]
mod listen_fds;
mod log;
mod meters;
#[cfg(all(test, hythe_model))]
mod models;
mod open;
mod rate;
mod refusals;
mod running;
mod signal;
#[cfg(all(test, feature = "tcp", not(hythe_model)))]
mod sizes;
mod slots;
mod stalls;
mod tally;
#[cfg(feature = "udp")]
mod udp;
mod watch;
pub mod workers;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use crate::codec::Codec;
use crate::connection::Connection;
use crate::endpoint::{Endpoint, EndpointError};
use crate::error::{Error, ErrorKind};
use crate::handler::{Built, Cloned, Handler, Served, Session};
use crate::limits::Limits;
use crate::peer::Peer;
use crate::transport::BindOptions;
use hub::Hub;
use inherited::Inherited;
use listen::{Binding, Bound, listen};
use signal::Signals;
use workers::{Crew, Workers};

pub use errno::AcceptFailure;
#[cfg(all(fuzzing, feature = "handover"))]
#[doc(hidden)]
pub use handover::fuzzed as fuzzed_handover;
pub use hub::{ConnectionInfo, DrainReport};

#[cfg(fuzzing)]
pub(crate) mod inside {
    //! For the fuzz targets.
    pub(crate) use super::rate::Rate;
    pub(crate) use super::slots::{Slot, Slots};
}

pub use refusals::Refusal;
pub use running::Running;
pub use tally::Counters;

#[cfg(feature = "prometheus")]
pub(crate) use {meters::set_upkeep, watch::publish};

/// Binds endpoints to a handler, and runs it for every peer that comes.
///
/// The codec belongs to the endpoint, not to the handler: the same chat takes lines from a terminal and frames from
/// another program.
#[must_use = "a server does nothing until it is started"]
pub struct Server<S> {
    session: S,
    limits: Limits,
    bindings: Vec<Box<dyn Binding<S>>>,
    workers: Workers,
    #[cfg(feature = "handover")]
    handover: Option<Result<Endpoint, EndpointError>>,
}

impl<H: Handler + Clone> Server<Cloned<H>> {
    /// A server that clones `handler` for each connection.
    pub fn new(handler: H) -> Self {
        Self::from_session(Cloned::new(handler))
    }
}

impl<F, H> Server<Built<F>>
where
    F: Fn(&Peer) -> anyhow::Result<H> + Send + Sync + 'static,
    H: Handler,
{
    /// A server that has `factory` build a handler for each connection. An error refuses the peer, with
    /// [`CloseReason::Refused`](crate::CloseReason::Refused).
    pub fn with(factory: F) -> Self {
        Self::from_session(Built::new(factory))
    }
}

impl<F, Fut, In, Out> Server<Served<F, In, Out>>
where
    F: Fn(Connection<In, Out>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    In: Send + 'static,
    Out: Send + 'static,
{
    /// A server that calls `function` for each connection: the straight-line style.
    ///
    /// ```
    /// use hythe::{Bytes, Connection, Server};
    ///
    /// let server = Server::serve(|mut conn: Connection<Bytes>| async move {
    ///     while let Some(message) = conn.recv().await? {
    ///         conn.send(message).await?;
    ///     }
    ///     Ok(())
    /// });
    /// ```
    pub fn serve(function: F) -> Self {
        Self::from_session(Served::new(function))
    }
}

#[cfg(feature = "testing")]
impl<S: Session> Server<S> {
    /// Has another session run; `None` where an endpoint is bound to this one already.
    pub(crate) fn map<T: Session>(self, other: impl FnOnce(S) -> T) -> Option<Server<T>> {
        let Self { session, limits, bindings, .. } = self;
        bindings.is_empty().then(|| Server::from_session(other(session)).limits(limits))
    }
}

impl<S: Session> Server<S> {
    /// A server for a [`Session`] of your own making.
    pub fn from_session(session: S) -> Self {
        Self {
            session,
            limits: Limits::default(),
            bindings: Vec::new(),
            workers: Workers::Ambient,
            #[cfg(feature = "handover")]
            handover: None,
        }
    }

    /// Sets the limits. Default: [`Limits::edge`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets which threads accept peers and run the handlers: those of the runtime in which the server is started, which is
    /// the default, or [one a core](workers::Workers::PerCore) of the server's own, as [`workers`] says.
    ///
    /// ```
    /// # use hythe::{Connection, Server, codec::Lines};
    /// use hythe::server::workers::Workers;
    ///
    /// # let echo = |mut conn: Connection<String>| async move {
    /// #     while let Some(line) = conn.recv().await? { conn.send(line).await?; }
    /// #     Ok(())
    /// # };
    /// let server = Server::serve(echo).workers(Workers::per_core());
    /// ```
    pub fn workers(mut self, workers: impl Into<Workers>) -> Self {
        self.workers = workers.into();
        self
    }

    /// Adds an endpoint, as text or ready made, with the codec that its peers speak. Each connection gets
    /// clones of the codec, as [`Codec`] says.
    ///
    /// What is wrong with an endpoint is told by [`start`](Self::start).
    pub fn bind<C>(self, endpoint: impl TryInto<Endpoint, Error: Into<EndpointError>>, codec: C) -> Self
    where
        C: Codec<S::In, S::Out>,
    {
        self.bind_with(endpoint, codec, BindOptions::new())
    }

    /// As [`bind`](Self::bind), with options for the socket.
    pub fn bind_with<C>(
        mut self,
        endpoint: impl TryInto<Endpoint, Error: Into<EndpointError>>,
        codec: C,
        options: BindOptions,
    ) -> Self
    where
        C: Codec<S::In, S::Out>,
    {
        let endpoint = endpoint.try_into().map_err(Into::into);
        self.bindings.push(Box::new(Bound { endpoint, codec, options }));
        self
    }

    /// Takes the listening sockets over from the server that runs at `path`, if there is one, and hands them over to the
    /// next one that comes there: no peer is turned away while one process replaces the other. Linux.
    ///
    /// `path` is that of a Unix socket, which hythe makes, with the mode 0600, and removes. It belongs into a directory
    /// to which only the service's user may write. Both sides go no further if the other's effective user is neither
    /// their own nor root.
    ///
    /// [`start`](Self::start) then asks the running server for its sockets. Each endpoint of this server that has the
    /// same address, path or name as one of them gets that one, with whoever waits in its backlog; the others are bound
    /// anew, and what this server has no endpoint for is closed. Only when all of that is done does the running server
    /// stop accepting, and drain: its [`Running::handed_over`] is ready, and [`run`](Self::run) and
    /// [`Running::until_signal`] return when the drain of [`Limits::drain`] is over. Until then it serves as if nothing
    /// had been, and goes on to do so whatever becomes of the new one: if that cannot bind an endpoint, ends, hangs,
    /// or is another version of hythe that says other things. Each word between them has its deadline.
    ///
    /// Where nobody listens at `path`, the server starts as any other.
    ///
    /// - A TCP or Unix connection stays with the process that accepted it. Peers that connect during the handover are
    ///   accepted by one or the other; those that the old one has accepted last have
    ///   [a second](Running::shutdown) to speak.
    /// - A Unix socket's file stays where it is, and becomes the new server's.
    /// - From the handover on the new server gets all datagrams of a UDP endpoint, also from peers that have a session
    ///   with the old one: they get a new session. The old sessions can only send until the drain has ended them.
    /// - Endpoints at port 0 keep their ports: they are known by their text.
    /// - `mem:` names are those of one process. A socket keeps the buffers that it has.
    ///
    /// ```no_run
    /// # use hythe::{Connection, Server, codec::Lines};
    /// # async fn example() -> Result<(), hythe::Error> {
    /// # let echo = |mut conn: Connection<String>| async move {
    /// #     while let Some(line) = conn.recv().await? { conn.send(line).await?; }
    /// #     Ok(())
    /// # };
    /// // start it, then start it again: the first process ends when its connections have
    /// Server::serve(echo)
    ///     .bind("tcp://127.0.0.1:9000", Lines::new())
    ///     .handover("/run/app/handover.sock")
    ///     .run()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "handover")]
    pub fn handover(mut self, path: impl AsRef<std::path::Path>) -> Self {
        self.handover = Some(Endpoint::unix(path));
        self
    }

    /// Binds all endpoints, or none, and starts to accept.
    ///
    /// # Errors
    /// If an endpoint cannot be read or bound, or does not fit its codec, or a limit makes no sense. With the feature
    /// `handover`, if a running server could not be taken over; then that one serves on. With
    /// [`workers`](Self::workers) of its own, if a thread or its runtime cannot be made.
    ///
    /// # Cancel safety
    /// A dropped future leaves nothing behind. If it was about to take over, the running server serves on, unless it was
    /// told by then that this one serves. Threads that have begun end by themselves.
    pub async fn start(self) -> Result<Running, Error> {
        if self.bindings.is_empty() {
            return Err(Error::new(ErrorKind::Config, "a server needs an endpoint: call bind before start or run"));
        }
        let limits = self.limits.clone().check()?;
        limits.warn();
        #[cfg(target_os = "linux")]
        descriptors::make_room(limits.max_connections);
        let crew = match &self.workers {
            Workers::Ambient => None,
            Workers::PerCore(options) => Some(Crew::start(options).await?),
        };
        let started = self.start_on(Hub::new(limits, crew.clone())).await;
        if let (Err(_), Some(crew)) = (&started, crew) {
            crew.leave().await;
        }
        started
    }

    async fn start_on(self, hub: Arc<Hub>) -> Result<Running, Error> {
        let session = Arc::new(self.session);
        #[cfg(feature = "handover")]
        if let Some(endpoint) = self.handover {
            return handover::start(endpoint, hub, session, self.bindings).await;
        }
        let listening = listen(self.bindings, &hub, &session, &Inherited::default()).await?;
        Ok(Running::start(hub, listening))
    }

    /// Starts, and runs until SIGINT or SIGTERM, or until another process has taken over; then drains for
    /// [`Limits::drain`]. A second signal, or one after a handover, cuts what is left.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn run(self) -> Result<DrainReport, Error> {
        // from the start on: a signal must not come between
        let signals = Signals::new()?;
        Ok(self.start().await?.until(signals).await)
    }
}

impl<S> fmt::Debug for Server<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("limits", &self.limits).finish_non_exhaustive()
    }
}
