//! Which threads a server is on.
//!
//! By default a server is on those of the runtime in which it is [started](crate::Server::start): every connection is a
//! task of that runtime, and may go on at another of its threads at each `.await`. [`Workers::PerCore`] gives it
//! threads of its own: as many as the process has cores, each with a single-threaded tokio runtime. A connection begins
//! at one of them, and stays there; no task is stolen, and no lock of a runtime is shared. The server and its handlers
//! are the same.
//!
//! ```
//! # async fn example() -> Result<(), hythe::Error> {
//! use hythe::codec::{Datagram, LengthDelimited};
//! use hythe::server::workers::Workers;
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
//! Server::new(Echo)
//!     .workers(Workers::per_core().threads(4).pinned(true))
//!     .bind("tcp://127.0.0.1:9000", LengthDelimited::new())
//!     .bind("udp://127.0.0.1:9000", Datagram::new())
//!     .run()
//!     .await?;
//! # Ok(()) }
//! ```
//!
//! # Which of the two
//!
//! The default is right where a message may cost much more than others: a thread that has nothing to do takes the tasks
//! of one that is busy, which no worker does. Workers pay where messages are many and cost alike, and where the
//! program's own runtime has other work, or is a single-threaded one. A handler that blocks its thread, or computes for
//! long without an `.await`, holds up every connection of its worker: [`tokio::task::spawn_blocking`] is for that, as
//! everywhere.
//!
//! # Where a handler runs
//!
//! All of a connection runs on its worker's thread and inside of its runtime: handshakes, handlers, and what they
//! begin. [`hythe::connect`](crate::connect) and timers work as anywhere; [`tokio::spawn`] in a handler spawns onto the
//! same thread, and `tokio::task::block_in_place` panics there, as in every single-threaded runtime. What a handler has
//! spawned ends, at its next `.await`, with the workers; with the default it may outlive the server.
//!
//! Connections of different workers share what they share otherwise: groups, [`Sender`](crate::Sender)s, and what a
//! handler holds in an `Arc`. Limits, counters and the drain are of the server as a whole, over all workers, and exact.
//!
//! # How peers are spread
//!
//! - **TCP and TLS**: each worker has a listening socket of its own (`SO_REUSEPORT`, Linux), and the kernel shares out
//!   those who connect, by a hash of the addresses. That alone would be uneven, by a half with some ten connections a
//!   worker and a tenth with hundreds; so a worker that has more connections than the one with the fewest, by over an
//!   eighth of those, gives those that it accepts to that one. A connection is given away before its first poll, and
//!   never later: those who stay longer at one worker than at another leave them uneven until others have come.
//! - **Unix sockets, `mem:`, `fd:`**, and on other systems than Linux **TCP** as well: there is one socket, from which
//!   one worker accepts, another one for each endpoint in turn; peers are dealt out in the same way.
//! - **UDP**: each worker has a socket (Linux), and the kernel's hash keeps a peer at one of them. Datagrams are not
//!   given to others: few peers may all be one worker's. An endpoint that joins a multicast group or sends
//!   [broadcasts](crate::BindOptions::broadcast) has one socket, at one worker, as every socket would get a copy of
//!   each datagram; so has `fd:`, and each UDP endpoint on other systems.
//!
//! The [backlog](field@crate::Limits::backlog) is that of each socket. An address that is in use is an error as ever:
//! only sockets of the same server share it, and programs of the same user that set `SO_REUSEPORT` by themselves.
//!
//! # Leaving
//!
//! Workers leave together, when the server ends. Whoever waits in the backlog then, accepted by nobody, is reset, as
//! with any server that ends; nobody is when another process takes over by
//! [`Server::handover`](crate::Server::handover). That hands the sockets of all workers over, with their backlogs,
//! whatever the number of workers there: a server takes as many as the one before had, and deals out who comes. (It
//! then has as many UDP sockets as the one before, so that some of a larger number of workers have none.)
//!
//! After [`Running::shutdown`](crate::Running::shutdown) the threads have ended, but for one that a handler blocks: it
//! is waited for 1.5 s, and ends when the handler returns. Called by a task on one of these threads, `shutdown` returns
//! as ever, and the threads end when [`Running`](crate::Running) is dropped. A drop and
//! [`abort`](crate::Running::abort) do not wait: ports are free at once, and the threads end when the last handler has,
//! within 1.5 s where none blocks.
//!
//! A panic of a handler costs its connection, as ever. One outside of all tasks, as by a waker of one's own that
//! panics, costs the runtime of its worker, with all connections there
//! ([`CloseReason::Shutdown`](crate::CloseReason::Shutdown)). The worker then gets another runtime, and its listeners
//! with whoever waits at them.
//!
//! # Pinning
//!
//! [`PerCore::pinned`] keeps each thread on one core (Linux; elsewhere it changes nothing): the first worker on the
//! first of the cores that the process may use, and so on. That helps where the machine is the server's alone; where
//! others compete for the cores, a pinned thread waits for its own while another one is idle. Threads for blocking
//! calls are not pinned.
//!
//! | file | what it is |
//! |---|---|
//! | `mod` | [`Workers`], what can be chosen |
//! | `crew` | the workers of a server that runs: who is where, and how they leave |
//! | `thread` | one worker's thread, and its runtimes |
//! | `pin` | threads on cores |

mod crew;
mod pin;
mod thread;

pub(crate) use crew::{Crew, Seat, Taken};

/// Which threads accept peers, and run the handlers. See [the module's page](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Workers {
    /// Those of the runtime in which the server is started.
    #[default]
    Ambient,
    /// Threads of the server's own, each with a runtime of its own.
    PerCore(PerCore),
}

impl Workers {
    /// A thread for each core that the process may use, unless [`threads`](PerCore::threads) says otherwise.
    #[must_use]
    pub fn per_core() -> PerCore {
        PerCore::new()
    }
}

/// Threads of the server's own, each with a single-threaded runtime.
///
/// ```
/// use hythe::server::workers::{PerCore, Workers};
///
/// assert_eq!(Workers::per_core(), PerCore::new());
/// let workers = Workers::per_core().threads(4).pinned(true);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PerCore {
    /// How many, 1 to 1,024. Default: `None`, which is [`std::thread::available_parallelism`]. More than there are cores
    /// only cost.
    pub threads: Option<usize>,
    /// Whether each thread stays on one core, on Linux. Default: no.
    pub pinned: bool,
}

impl PerCore {
    /// The defaults of each field.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Sets whether each thread stays on one core.
    #[must_use]
    pub fn pinned(mut self, pinned: bool) -> Self {
        self.pinned = pinned;
        self
    }

    fn count(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}

impl From<PerCore> for Workers {
    fn from(options: PerCore) -> Self {
        Self::PerCore(options)
    }
}
