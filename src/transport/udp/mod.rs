//! UDP: one socket for all peers of a listener, and a session for each of them.
//!
//! A session costs memory, and anybody can write any address into a datagram. Until a peer has answered, its session is
//! the first to go, and gets three times what it sent at most. Who wants more than that asks for a proof before there is
//! a session at all, with [`BindOptions::gate`](crate::BindOptions::gate) and [`Cookies`]:
//!
//! ```
//! # #[derive(Clone)]
//! # struct Game;
//! # impl hythe::Handler for Game {
//! #     type In = hythe::Bytes;
//! #     type Out = hythe::Bytes;
//! #     async fn on_message(&mut self, _: &mut hythe::Connection<hythe::Bytes>, _: hythe::Bytes) -> anyhow::Result<()> { Ok(()) }
//! # }
//! use std::time::Duration;
//! use hythe::udp::{Cookies, Entry};
//! use hythe::{BindOptions, Server, codec::Datagram};
//!
//! let cookies = Cookies::new(Duration::from_secs(15));
//! // "?" asks for a cookie, "!" and the cookie open a session
//! let options = BindOptions::new().gate(move |from, datagram| match datagram.split_first() {
//!     Some((b'?', padding)) if padding.len() >= 16 => Entry::Answer(cookies.make(from, b"").to_vec().into()),
//!     Some((b'!', cookie)) if cookies.check(from, b"", cookie) => Entry::Proven,
//!     _ => Entry::Drop,
//! });
//! let server = Server::new(Game).bind_with("udp://0.0.0.0:9000", Datagram::new(), options);
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `socket` | the shared socket: receive, send, and who waits to send |
//! | `port` | a socket with many datagrams a system call, or one where the system cannot do more |
//! | `incoming`, `outgoing` | what came, and what goes out, with one such call |
//! | `sys` | the calls themselves: all that is unsafe |
//! | `sessions` | which peers there are, which go when there are too many, and a peer's queue |
//! | `write` | what a session sends |
//! | `gate`, `cookie` | who may have a session |
//! | `client` | a socket connected to one peer |

pub(crate) mod client;
mod cookie;
mod gate;
mod incoming;
mod outgoing;
mod port;
mod sessions;
mod socket;
#[cfg(target_os = "linux")]
mod sys;
mod write;

pub use cookie::Cookies;
pub use gate::Entry;

pub(crate) use gate::Gate;
pub(crate) use incoming::{Datagram, Incoming};
pub(crate) use sessions::{AMPLIFICATION, Arrival, Offer, Session, Sessions};
pub(crate) use socket::{UdpCounters, UdpShared};
#[cfg(fuzzing)]
pub(crate) use {sessions::UdpSource, write::UdpWrite};
