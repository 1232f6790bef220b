//! One peer: messages in, messages out, and an orderly end.
//!
//! ```text
//!  Connection ── recv ──▶ Link: transport's read half, codec, a buffer borrowed from the thread
//!      │
//!      └──────── send ──▶ Outbox: bounded buffer, transport's write half ◀── Sender, Group
//!                            ▲
//!             Driver ── flush when the session waits, deadlines, end
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `handle`, `sending`, `stream_sink` | [`Connection`], what users hold: receiving and the end, sending, traits of `futures` |
//! | `start_tls` | from a connection in the clear to an encrypted one |
//! | `sender` | [`Sender`], to send from elsewhere |
//! | `core`, `rare`, `traffic` | what everybody shares: flags; the end, and what few need; what has gone over it |
//! | `link`, `stream_in`, `message_in` | the codec on the read half, of byte streams and of message transports |
//! | `outlet`, `outbox`, `pending` | the outgoing side: as others see it, its lock, what is under it |
//! | `batch`, `pump` | who writes it when: a session that waits; a task where there is no session |
//! | `stage`, `roll` | what a session sends on its own connection; what goes to many, once |
//! | `gather` | what goes over one socket for several connections, together |
//! | `driver` | the one task of a server's connection |
//! | `in_place` | such a task polled by whoever brought it a message |
//! | `polls`, `timing` | which connection each thread is polling; how long a message takes |
//! | `charge` | what its buffers take of the memory of all |
//! | `deadlines`, `closed`, `pool` | clocks; reasons and totals; buffers of a thread |
//!
//! # What an idle connection takes
//!
//! In bytes on the heap, over TCP with [`LengthDelimited`](crate::codec::LengthDelimited) and a handler without state. It is
//! the same before the first message and after: buffers belong to the thread while no connection needs them.
//!
//! | part | | with `tls` or `metrics` |
//! |---|---|---|
//! | task: the session, which holds the [`Connection`] and its handler, the timer, the end | 408 | 408 |
//! | what tokio adds to it, to a multiple of 128 | 104 | 104 |
//! | tokio's registration of the socket | 304 | 304 |
//! | read half: the codec, a buffer where something is held, what is taken of the limits | 104 | 112 |
//! | outbox: the write half, a buffer where something waits | 168 | 176 |
//! | core: flags, clocks, totals, the peer | 248 | 272 |
//! | together | 1336 | 1376 |
//!
//! What only some need, and all at their end, is made then: `rare`. An allocator adds its own: with glibc's, and the entry in
//! the server's table, 10,000 connections took 1.41 KiB each (November 2026). The fields of a handler and what its methods
//! hold across an `.await` are part of the task.
//!
//! ```
//! # async fn example() -> Result<(), hythe::Error> {
//! use hythe::codec::Lines;
//!
//! let mut conn = hythe::connect("tcp://127.0.0.1:9000", Lines::new()).await?;
//! conn.send("hello".to_string()).await?;
//! while let Some(line) = conn.recv().await? {
//!     println!("{line}");
//! }
//! # Ok(()) }
//! ```

mod batch;
mod charge;
mod closed;
mod core;
mod deadlines;
mod driver;
#[cfg(feature = "udp")]
mod gather;
mod handle;
#[cfg(feature = "udp")]
mod in_place;
mod link;
#[cfg(feature = "udp")]
mod message_in;
#[cfg(all(test, hythe_model))]
pub(crate) mod models;
mod outbox;
mod outlet;
mod pending;
mod polls;
mod pool;
mod pump;
mod rare;
mod roll;
mod sender;
mod sending;
mod stage;
#[cfg(feature = "tls")]
mod start_tls;
mod stream_in;
mod stream_sink;
mod timing;
mod traffic;

pub use batch::batch;
pub(crate) use batch::share;
pub use closed::{CloseReason, Closed, Fault};
pub use core::ConnectionId;
pub use handle::Connection;
pub use sender::{Delivery, Overflow, Sender, TrySendError};

pub(crate) use closed::Failure;
pub(crate) use core::{Core, Leave, caught};
pub(crate) use deadlines::Silence;
pub(crate) use driver::{Driver, Watch};
#[cfg(feature = "udp")]
pub(crate) use gather::{Gathers, add as gathers, gather, is_gathering};
pub(crate) use handle::{Event, wait_closed};
#[cfg(feature = "udp")]
pub(crate) use in_place::{Place, Polled, lodge};
pub(crate) use link::Link;
#[cfg(feature = "udp")]
pub(crate) use message_in::{MessageIn, MessageSource};
pub(crate) use outbox::{Outbox, Prototype};
pub(crate) use outlet::{Outbound, Pushed, WriteHalf};
pub(crate) use polls::{Poll, Thread};
pub(crate) use pool::THREAD;
pub(crate) use pump::finish;
pub(crate) use roll::Shared;
pub(crate) use stream_in::StreamIn;
pub(crate) use timing::Timing;
