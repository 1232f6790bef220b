//! Tests of your own handler: peers in memory, a clock that does not make you wait, bytes cut everywhere, faults, leaks.
//!
//! Ten minutes, from nothing. Add the feature to the dependencies of your tests:
//!
//! ```toml
//! [dev-dependencies]
//! hythe = { version = "0.1", features = ["testing"] }
//! tokio = { version = "1", features = ["macros", "rt"] }
//! ```
//!
//! # A handler, and its first test
//!
//! Here is a handler with enough in it to go wrong. It adds up the numbers that a peer sends, a line each, answers `sum`
//! and says goodbye to `bye`:
//!
//! ```
//! use hythe::{Connection, Handler};
//!
//! #[derive(Clone, Default)]
//! struct Adder {
//!     sum: i64,
//! }
//!
//! impl Handler for Adder {
//!     type In = String;
//!     type Out = String;
//!
//!     async fn on_message(&mut self, conn: &mut Connection<String>, line: String) -> anyhow::Result<()> {
//!         match line.as_str() {
//!             "sum" => conn.send(self.sum.to_string()).await?,
//!             "bye" => {
//!                 conn.send("goodbye".into()).await?;
//!                 conn.close().await?;
//!             }
//!             number => self.sum += number.parse::<i64>()?,
//!         }
//!         Ok(())
//!     }
//! }
//! ```
//!
//! A test starts the server that you would start, without an endpoint, and gets peers for it. This, and everything below,
//! is the body of an ordinary `#[tokio::test]`:
//!
//! ```
#![doc = include_str!("adder.txt")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use hythe::testing::Harness;
//! use hythe::{CloseReason, Server, codec::Lines};
//!
//! let test = Harness::start(Server::new(Adder::default()), Lines::new()).await;
//! let mut peer = test.peer().await;
//! peer.send("20").await;
//! peer.send("22").await;
//! peer.send("sum").await;
//! assert_eq!(peer.recv().await, "42");
//!
//! // each connection has a handler of its own
//! let mut other = test.peer().await;
//! other.send("sum").await;
//! assert_eq!(other.recv().await, "0");
//!
//! peer.send("bye").await;
//! assert_eq!(peer.recv().await, "goodbye");
//! assert_eq!(peer.expect_end().await.reason, CloseReason::Local);
//!
//! test.finish().await;
//! # }
//! ```
//!
//! A [`Peer`] speaks the server's codec, and fails the test by itself where something else happens than it was asked for:
//! with the line of the test, and with what the server knows of the connection. [`Peer::closed`] and
//! [`Peer::expect_end`] give the [`Closed`](crate::Closed) that `on_close` got. [`Harness::finish`] stops the server and
//! checks that nothing of it is left.
//!
//! # Time
//!
//! The clock is tokio's, and paused: when everybody waits, it goes to the next moment for which somebody does. A minute
//! of silence is over at once, and takes a minute exactly. `tokio::time::sleep` lets time pass:
//!
//! ```
#![doc = include_str!("adder.txt")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! # use hythe::testing::Harness;
//! # use hythe::{CloseReason, Server, codec::Lines};
//! use std::time::Duration;
//!
//! let test = Harness::start(Server::new(Adder::default()), Lines::new()).await;
//! let mut peer = test.peer().await;
//! tokio::time::sleep(Duration::from_secs(5)).await;
//! peer.send("1").await;
//! peer.expect_silence(Duration::from_secs(59)).await;
//!
//! // the handler has not heard from the peer for `Limits::idle`
//! let closed = peer.closed().await;
//! assert_eq!((closed.reason, closed.duration.as_secs()), (CloseReason::Idle, 65));
//! # test.finish().await;
//! # }
//! ```
//!
//! Where only the order matters and not the time, [`settle`] lets everybody run who can.
//!
//! # Peers that misbehave
//!
//! | a peer that | is played by |
//! |---|---|
//! | sends half a message, or nonsense | [`send_bytes`](Peer::send_bytes) |
//! | ends its side, and still listens | [`half_close`](Peer::half_close) |
//! | breaks off | [`reset`](Peer::reset), or a drop |
//! | reads nothing | [`stall`](Peer::stall), and [`resume`](Peer::resume) |
//! | reads little by little | [`set_window`](Peer::set_window) |
//! | drips its bytes | `send_bytes` and `sleep` |
//! | says nothing | [`closed`](Peer::closed) at once |
//!
//! ```
#![doc = include_str!("adder.txt")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! # use hythe::testing::Harness;
//! # use hythe::{CloseReason, Server, codec::Lines};
//! let test = Harness::start(Server::new(Adder::default()), Lines::new()).await;
//!
//! // an error of the handler closes its connection, and no other
//! let mut peer = test.peer().await;
//! peer.send("twenty").await;
//! let closed = peer.expect_end().await;
//! assert_eq!(closed.reason, CloseReason::Handler);
//! assert_eq!(closed.cause.unwrap().to_string(), "invalid digit found in string");
//!
//! // a line that does not end: `Limits::message` is its time, however many bytes come
//! let mut peer = test.peer().await;
//! for _ in 0..30 {
//!     peer.send_bytes("9").await;
//!     tokio::time::sleep(std::time::Duration::from_secs(1)).await;
//! }
//! assert_eq!(peer.closed().await.reason, CloseReason::MessageTimeout);
//!
//! // a last line without its end is a line, and is answered though the peer has ended its side
//! let mut peer = test.peer().await;
//! peer.send_bytes("1\n2\nsum").await;
//! peer.half_close();
//! assert_eq!(peer.recv().await, "3");
//!
//! let mut peer = test.peer().await;
//! peer.send("1").await;
//! peer.reset();
//! assert_eq!(peer.closed().await.reason, CloseReason::PeerReset);
//! # test.finish().await;
//! # }
//! ```
//!
//! # Every split
//!
//! A network cuts bytes where it likes. [`every_split`] plays a [`Script`] with its bytes cut in two at every place, and
//! one by one, and wants the same to happen each time. It takes a function that makes the server, as each run has a new
//! one. This finds most faults of a codec, and of a handler that does its own framing:
//!
//! ```
#![doc = include_str!("adder.txt")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! # use hythe::{CloseReason, Server, codec::Lines};
//! use hythe::testing::{Script, every_split};
//!
//! let script = Script::new()
//!     .send("20")
//!     .send_bytes("22\r\nsum\n")
//!     .recv("42")
//!     .send("bye")
//!     .recv("goodbye")
//!     .ends(CloseReason::Local);
//! every_split(|| Server::new(Adder::default()), Lines::new(), script).await;
//! # }
//! ```
//!
//! # Faults
//!
//! [`Faults`] happen to the bytes between a peer and the server: short reads and writes, delays, stalls, a half-close, a
//! reset, a window that closes for good. [`with_faults`] runs a test with those of many seeds. What such a test can ask
//! for is what must hold in any weather: here, that no wrong sum is ever told, and that the right one is, unless a fault
//! [ends](Faults::end_it) the connection.
//!
//! ```
#![doc = include_str!("adder.txt")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! # use hythe::{CloseReason, Server, codec::Lines};
//! use hythe::testing::{Harness, with_faults};
//!
//! with_faults(1..100, async |faults| {
//!     let test = Harness::start(Server::new(Adder::default()), Lines::new()).await;
//!     let mut peer = test.faulty_peer(&faults).await;
//!     for number in 1..=10 {
//!         peer.send(number.to_string()).await;
//!     }
//!     peer.send("sum").await;
//!     match peer.recv_or_end().await {
//!         Some(sum) => assert_eq!(sum, "55"),
//!         None => assert!(faults.end_it()),
//!     }
//!     test.finish().await;
//! })
//! .await;
//! # }
//! ```
//!
//! A test that fails prints the seed and what it stands for. Under the paused clock, the same seed fails in the same way:
//! `with_faults([17], …)` runs it alone. A fault of one's own choice is a builder away:
//! `Faults::none().short_reads(1).reset(100)`.
//!
//! # What is left
//!
//! [`Harness::finish`] drains the server, as SIGTERM would, and fails the test if a session has not ended by then, a task
//! is left that was not there before, a connection's slot or its memory did not come back, or a reply was lost. A test
//! that wants more from the drain, or knows that something will be cut, calls [`Harness::drain`] itself before:
//!
//! ```
#![doc = include_str!("adder.txt")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! # use hythe::testing::Harness;
//! # use hythe::{CloseReason, Server, codec::Lines};
//! # use std::time::Duration;
//! let test = Harness::start(Server::new(Adder::default()), Lines::new()).await;
//! let mut peer = test.peer().await;
//! peer.send("1").await;
//! let report = test.drain(Duration::from_secs(5)).await;
//! assert_eq!((report.finished, report.cut), (1, 0));
//! assert_eq!(peer.closed().await.reason, CloseReason::Drained);
//! test.finish().await;
//! # }
//! ```
//!
//! [`LeakCheck`] is the same for servers on real sockets, and counts descriptors as well.
//!
//! # What else there is to know
//!
//! - A handler knows messages only: test it with any codec that has them. One that will run over UDP is tested with
//!   [`LengthDelimited`](crate::codec::LengthDelimited), or whatever is easy to read.
//! - Limits are the server's, and real: `Server::new(…).limits(Limits::tiny())`.
//!   [`Harness::running`] is what [`Server::start`](crate::Server::start) gives: counters, connections, other limits.
//! - A client is tested the other way round: write its server with [`Server::serve`](crate::Server::serve), and have it
//!   connect to [`Harness::endpoint`].
//! - Everything runs in one thread, the test's: [`Harness::start`] refuses a runtime with more. What waits for the world
//!   outside, such as a real socket, finds that no time passes there, while all of it passes here.
//!
//! | file | what it is |
//! |---|---|
//! | `harness`, `observe` | [`Harness`], and how it knows of the connections |
//! | `peer`, `wait` | [`Peer`], and waits that fail with a message |
//! | `script`, `split` | [`Script`] and [`every_split`] |
//! | `faults`, `weather`, `random` | [`Faults`], how they happen, and how a seed chooses them |
//! | `leaks` | [`LeakCheck`] |

mod faults;
mod harness;
mod leaks;
mod observe;
mod peer;
mod random;
mod script;
mod split;
mod wait;
mod weather;

pub use faults::{Faults, with_faults};
pub use harness::Harness;
pub use leaks::LeakCheck;
pub use peer::Peer;
pub use script::Script;
pub use split::{every_split, every_split_with};
pub use wait::settle;
