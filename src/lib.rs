//! One handler, every transport.
//!
//! You write a [`Handler`]: what to do with a message. You name a [codec]: how bytes become messages. Hythe
//! gives you the rest of a server, over TCP, UDP, Unix sockets and memory: listeners, connections and framing, bounded
//! memory, deadlines, exact limits, a drain that can be trusted, sessions for UDP peers, and groups that survive a slow
//! member.
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
//! #[tokio::main]
//! async fn main() -> anyhow::Result<()> {
//!     Server::new(Echo)
//!         .bind("tcp://127.0.0.1:9000", LengthDelimited::new())
//!         .bind("udp://127.0.0.1:9000", Datagram::new())
//!         .bind("unix:///tmp/echo.sock", LengthDelimited::new())
//!         .run() // until SIGINT or SIGTERM, then drains
//!         .await?;
//!     Ok(())
//! }
//! ```
//!
//! # Five nouns
//!
//! | noun | what it is |
//! |---|---|
//! | [`Endpoint`] | where: `tcp://127.0.0.1:9000`, `tls://example.org:443`, `udp://[::1]:9000`, `unix:@name`, `mem:name`, `fd:3` |
//! | [codec] | how bytes become messages: any tokio-util `Decoder` and `Encoder` that can be cloned |
//! | [`Connection`] | one peer: `recv`, `send`, `peer`, `close`, `sender`; also a `Stream` and a `Sink` |
//! | [`Handler`] | what to do: one value for each connection, whose fields are the connection's state |
//! | [`Server`], [`connect`] | who runs it: the one binds endpoints to a handler, the other makes a connection |
//!
//! Everything else hangs off one of these: [`Limits`], [`Group`], [`Sender`], [`Peer`], [`Closed`].
//!
//! # Two styles
//!
//! A [`Handler`] has a method for each thing that happens. The straight-line style is one level down, and just as good:
//!
//! ```
//! use hythe::{Bytes, Connection, Server};
//!
//! let server = Server::serve(|mut conn: Connection<Bytes>| async move {
//!     while let Some(message) = conn.recv().await? {
//!         conn.send(message).await?;
//!     }
//!     Ok(())
//! });
//! ```
//!
//! # How a message travels
//!
//! Each connection of a server is one task. It reads into a buffer that it borrows from its thread, decodes, and polls
//! your code. What you send is encoded at once into the connection's outbox, a bounded byte buffer, and written when
//! your code waits: a burst of messages leaves in one write, no message waits longer than the task that sent it, and
//! nobody calls flush. While your code handles a message, nothing is read: that is the backpressure.
//!
//! # Cancel safety
//!
//! [`Connection::recv`] and [`Connection::send`] can be dropped at any `.await`, as `select!` does: what has arrived in
//! part stays in the connection, and a message is sent whole or not at all.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `tcp` | yes | `tcp://` |
//! | `tls` | no | `tls://`, with the module `tls` |
//! | `udp` | yes | `udp://` |
//! | `unix` | yes | `unix:` |
//! | `testing` | no | [`hythe::testing`][testing]: tests of one's own handlers, in memory and under a paused clock |
//! | `fd` | no | `fd:`, sockets that a service manager passes (`LISTEN_FDS`); with the three above |
//! | `handover` | no | `Server::handover`: a new process takes the sockets over from the running one (Linux) |
//! | `metrics` | no | what servers count, through the facade of the crate `metrics` |
//! | `prometheus` | no | an endpoint where Prometheus finds it |
//!
//! `mem:` is always there. No feature changes what another one does.
//!
#![cfg_attr(feature = "testing", doc = "[testing]: crate::testing")]
#![cfg_attr(not(feature = "testing"), doc = "[testing]: https://docs.rs/hythe/latest/hythe/testing")]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod client;
pub mod codec;
pub mod connection;
pub mod endpoint;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod group;
pub mod handler;
mod limits;
mod log;
#[cfg(feature = "metrics")]
pub mod metrics;
mod peer;
pub mod proxy;
pub mod server;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "tls")]
pub mod tls;
mod transport;

pub use client::{Connect, connect};
pub use connection::{
    CloseReason, Closed, Connection, ConnectionId, Delivery, Fault, Overflow, Sender, TrySendError, batch,
};
pub use endpoint::{Endpoint, EndpointError};
pub use error::{Error, ErrorKind};
pub use group::{Delivered, Group};
pub use handler::{Handler, Session};
pub use limits::{Limits, Overload};
pub use peer::{Credentials, Peer, PeerAddress};
pub use server::workers::Workers;
pub use server::{AcceptFailure, ConnectionInfo, Counters, DrainReport, Refusal, Running, Server};
#[cfg(feature = "udp")]
pub use transport::udp;
pub use transport::{BindOptions, Interface};

pub use bytes::{Bytes, BytesMut};
