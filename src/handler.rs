//! What to do with messages: a [`Handler`], or an async closure, over a [`Connection`].
//!
//! ```
//! use hythe::{Bytes, Closed, Connection, Handler};
//!
//! /// Answers each message with how many there were.
//! #[derive(Clone, Default)]
//! struct Counter {
//!     count: u64,
//! }
//!
//! impl Handler for Counter {
//!     type In = Bytes;
//!     type Out = Bytes;
//!
//!     async fn on_message(&mut self, conn: &mut Connection<Bytes>, _: Bytes) -> anyhow::Result<()> {
//!         self.count += 1;
//!         conn.send(self.count.to_string().into()).await?;
//!         Ok(())
//!     }
//!
//!     async fn on_close(self, closed: Closed) {
//!         println!("{} messages, then {}", self.count, closed.reason);
//!     }
//! }
//! ```

use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::Either;
use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::connection::{CloseReason, Closed, Connection, Core, Event, Failure, caught, wait_closed};
use crate::peer::Peer;
use crate::sync::{Mutex, lock};

/// What to do with a connection's messages. There is one value for each connection: its fields are the connection's
/// state, and nobody else touches them.
///
/// The methods of one value are called one after the other, never at once. While one of them runs, nothing is read:
/// a handler that is slow slows its own peer down, and no memory fills.
///
/// An error from any method closes that connection with [`CloseReason::Handler`], a panic with
/// [`CloseReason::Panic`]. Neither touches another connection.
///
/// Write the methods as `async fn`. What they hold across an `.await` must be `Send`. They must not block their thread:
/// what they have sent is only written when they wait, and other connections share the thread.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a hythe `Handler`",
    label = "not a handler",
    note = "implement `Handler` for it (only `on_message` is required), or give an async closure to `Server::serve`"
)]
pub trait Handler: Send + 'static {
    /// What comes in, as the codec decodes it.
    type In: Send + 'static;
    /// What goes out, as the codec encodes it.
    type Out: Send + 'static;

    /// The connection is there. A greeting or a handshake can be written straight-line here, with
    /// [`Connection::send`] and [`Connection::recv`].
    ///
    /// # Errors
    /// Closes the connection.
    fn on_open(
        &mut self,
        conn: &mut Connection<Self::In, Self::Out>,
    ) -> impl Future<Output = anyhow::Result<()>> + Send {
        let _ = conn;
        async { Ok(()) }
    }

    /// A message came.
    ///
    /// # Errors
    /// Closes the connection.
    fn on_message(
        &mut self,
        conn: &mut Connection<Self::In, Self::Out>,
        message: Self::In,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Nothing came in for [`Limits::idle`](crate::Limits::idle). The default closes; a handler that returns without
    /// closing is called again after as much time.
    ///
    /// # Errors
    /// Closes the connection.
    fn on_idle(
        &mut self,
        conn: &mut Connection<Self::In, Self::Out>,
    ) -> impl Future<Output = anyhow::Result<()>> + Send {
        conn.end(CloseReason::Idle);
        async { Ok(()) }
    }

    /// The server is going, and will cut the connection at `deadline`. Called once, between two messages. The default
    /// has it closed at the next message boundary: what has arrived is still handled, and a peer whose first byte has not
    /// come yet has until one second after the opening to send it, or half of the drain.
    ///
    /// # Errors
    /// Closes the connection.
    fn on_drain(
        &mut self,
        conn: &mut Connection<Self::In, Self::Out>,
        deadline: Instant,
    ) -> impl Future<Output = anyhow::Result<()>> + Send {
        let _ = deadline;
        conn.close_when_idle();
        async { Ok(()) }
    }

    /// The connection is over. Called exactly once for every [`on_open`](Self::on_open) that was called, also after an
    /// error or a panic, when nothing of the connection is open any more.
    fn on_close(self, closed: Closed) -> impl Future<Output = ()> + Send
    where
        Self: Sized,
    {
        let _ = closed;
        async {}
    }
}

/// What a server runs for each connection: a [`Handler`] or an async closure is one.
///
/// It is implemented by what [`Server::new`](crate::Server::new), [`Server::with`](crate::Server::with) and
/// [`Server::serve`](crate::Server::serve) make; there is seldom a need for another.
pub trait Session: Send + Sync + 'static {
    /// What comes in.
    type In: Send + 'static;
    /// What goes out.
    type Out: Send + 'static;

    /// Runs one connection, which ends when the future does. An error is its [`CloseReason::Handler`].
    fn run(&self, conn: Connection<Self::In, Self::Out>) -> impl Future<Output = anyhow::Result<()>> + Send + 'static;
}

/// Clones a handler for each connection. Made by [`Server::new`](crate::Server::new).
#[derive(Debug)]
pub struct Cloned<H>(Mutex<H>);

impl<H> Cloned<H> {
    pub(crate) fn new(prototype: H) -> Self {
        Self(Mutex::new(prototype))
    }
}

impl<H: Handler + Clone> Session for Cloned<H> {
    type In = H::In;
    type Out = H::Out;

    fn run(&self, conn: Connection<H::In, H::Out>) -> impl Future<Output = anyhow::Result<()>> + Send + 'static {
        let handler = lock(&self.0).clone();
        handle(handler, conn)
    }
}

/// Builds a handler for each connection. Made by [`Server::with`](crate::Server::with).
pub struct Built<F>(F);

impl<F> Built<F> {
    pub(crate) fn new(factory: F) -> Self {
        Self(factory)
    }
}

impl<F> std::fmt::Debug for Built<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Built")
    }
}

impl<F, H> Session for Built<F>
where
    F: Fn(&Peer) -> anyhow::Result<H> + Send + Sync + 'static,
    H: Handler,
{
    type In = H::In;
    type Out = H::Out;

    fn run(&self, conn: Connection<H::In, H::Out>) -> impl Future<Output = anyhow::Result<()>> + Send + 'static {
        match (self.0)(conn.peer()) {
            Ok(handler) => Either::Left(handle(handler, conn)),
            Err(cause) => Either::Right(async move {
                conn.end(Failure::new(CloseReason::Refused, cause));
                Ok(())
            }),
        }
    }
}

/// Calls a function for each connection. Made by [`Server::serve`](crate::Server::serve).
pub struct Served<F, In, Out> {
    function: F,
    messages: PhantomData<fn(In) -> Out>,
}

impl<F, In, Out> Served<F, In, Out> {
    pub(crate) fn new(function: F) -> Self {
        Self { function, messages: PhantomData }
    }
}

impl<F, In, Out> std::fmt::Debug for Served<F, In, Out> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Served")
    }
}

impl<F, Fut, In, Out> Session for Served<F, In, Out>
where
    F: Fn(Connection<In, Out>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    In: Send + 'static,
    Out: Send + 'static,
{
    type In = In;
    type Out = Out;

    fn run(&self, conn: Connection<In, Out>) -> impl Future<Output = anyhow::Result<()>> + Send + 'static {
        (self.function)(conn)
    }
}

/// A handler's whole life.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` holds its arguments twice, and each connection that idles with it"
)]
fn handle<H: Handler>(
    mut handler: H,
    mut conn: Connection<H::In, H::Out>,
) -> impl Future<Output = anyhow::Result<()>> + Send {
    async move {
        conn.core().watch_idle();
        let core = Guarded { core: Arc::clone(conn.core()), run: Some(talk(&mut handler, &mut conn)) }.await;
        drop(conn);
        // so that it is gone before the handler hears of it
        let closed = async move { wait_closed(&core).await }.await;
        handler.on_close(closed).await;
        Ok(())
    }
}

pin_project! {
    /// Runs the handler until the connection ends: by itself, by the handler's error or panic, or because it broke while
    /// the handler waited for something else. The future of the handler is gone afterwards, the handler is not.
    struct Guarded<F> {
        #[pin]
        run: Option<F>,
        core: Arc<Core>,
    }
}

impl<F: Future<Output = anyhow::Result<()>>> Future for Guarded<F> {
    type Output = Arc<Core>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Arc<Core>> {
        let mut me = self.project();
        let poll = || match me.run.as_mut().as_pin_mut() {
            Some(running) => running.poll(cx),
            None => Poll::Ready(Ok(())),
        };
        let mut result = caught(poll);
        if matches!(result, Ok(Poll::Pending)) {
            if me.core.failure().is_none() {
                return Poll::Pending;
            }
            result = Ok(Poll::Ready(Ok(())));
        }
        // dropped here, as that may panic as well
        if let Err(panic) = caught(|| me.run.set(None)) {
            result = Err(panic);
        }
        match result {
            Ok(Poll::Ready(Err(error))) => me.core.fail(Failure::new(CloseReason::Handler, error)),
            Ok(_) => {}
            Err(panic) => me.core.fail(panic),
        }
        Poll::Ready(Arc::clone(me.core))
    }
}

#[expect(clippy::manual_async_fn, reason = "as above")]
fn talk<'a, H: Handler>(
    handler: &'a mut H,
    conn: &'a mut Connection<H::In, H::Out>,
) -> impl Future<Output = anyhow::Result<()>> + Send + 'a {
    async move {
        handler.on_open(conn).await?;
        let mut told = false;
        loop {
            match poll_fn(|cx| conn.poll_event(cx, !told)).await {
                Event::Message => {
                    let Some(message) = conn.take_message() else { continue };
                    handler.on_message(conn, message).await?;
                }
                Event::Idle => {
                    handler.on_idle(conn).await?;
                    conn.core().forgive_silence();
                }
                Event::Drain => {
                    told = true;
                    if let Some(deadline) = conn.draining() {
                        handler.on_drain(conn, deadline).await?;
                    }
                }
                // on_close will tell why
                Event::End | Event::Failed(_) => return Ok(()),
            }
        }
    }
}
