//! The limits a server or a connection keeps, safe on the open internet by default.
//!
//! | file | what it is |
//! |---|---|
//! | `mod` | [`Limits`], with its presets |
//! | `check` | whether they make sense |
//! | `overload` | what becomes of peers for whom there is no place |
//! | `live` | the limits in force, which can change while a server runs |
//! | `addresses` | how many connections or sessions each address has |
//! | `handshakes` | how many of them are under way |
//! | `budget` | the memory of all buffers together |
//! | `show` | as text |
//! | `worst_case` | what the limits add up to |

mod addresses;
mod budget;
mod check;
mod handshakes;
mod live;
#[cfg(all(test, hythe_model))]
mod models;
mod overload;
mod show;
mod worst_case;

use std::time::Duration;

pub use overload::Overload;

#[cfg(feature = "udp")]
pub(crate) use addresses::Place;
pub(crate) use addresses::{Addresses, Prefix};
pub(crate) use budget::{Budget, Relief, STEP, Waits};
pub(crate) use handshakes::Handshakes;
pub(crate) use live::{Live, micros};

/// What a server and its connections may use, and for how long.
///
/// `Default` is [`Limits::edge`]. Every value is finite: there is no "unlimited". All deadlines run on the monotonic
/// clock and measure progress on the wire.
///
/// ```
/// use std::time::Duration;
/// use hythe::Limits;
///
/// let limits = Limits::edge().with_max_connections(500).with_idle(Duration::from_secs(300));
/// assert_eq!(limits.outbox, 1 << 20);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections open at once, over all stream listeners of a server, from the accept until the descriptor is closed.
    /// Above it there is [`overload`](Self::overload). Default: 10,000, or half of the limit of open files where that is
    /// less.
    pub max_connections: usize,
    /// Of these, how many from one address; an IPv6 /64 network is one address. Further ones are refused. `None`, the
    /// default, leaves it at `max_connections`.
    pub per_address: Option<usize>,
    /// Connections taken a second, over all stream listeners of a server, with as many at once after a quiet second.
    /// Above it there is [`overload`](Self::overload). `None`, the default, takes them as they come.
    pub accept_rate: Option<u32>,
    /// What becomes of peers above `max_connections` and `accept_rate`. Default: they wait in the backlog.
    pub overload: Overload,
    /// Connections the kernel queues before they are accepted, per listener. Default: 4,096.
    pub backlog: u32,
    /// Handshakes under way at once, over all listeners: PROXY headers and TLS. When there are too many, the oldest one is
    /// cut. Default: 256.
    pub handshakes: usize,
    /// For one handshake, from the accept to its end. Default: 5 s.
    pub handshake: Duration,
    /// From the accept to the first byte. Default: 10 s.
    pub first_byte: Duration,
    /// From a message's first byte to its last, however many bytes trickle in between. Default: 30 s.
    pub message: Duration,
    /// Without inbound bytes, while nothing is being handled. Sending does not extend it. Default: 60 s.
    pub idle: Duration,
    /// For a session to handle one message, until it asks for the next one; then its connection is cut with
    /// [`CloseReason::Overrun`](crate::CloseReason::Overrun). `None`, the default, lets it take its time.
    pub handling: Option<Duration>,
    /// A session that has handled one message for so long is reported, once, within a second or so, and goes on. The time
    /// in which it waits for its peer to take what it sent does not count. Default: 5 s.
    pub stall: Duration,
    /// Bytes are waiting and the peer takes none. Default: 30 s.
    pub write_stall: Duration,
    /// After one side has ended its half, without progress on the other. Also how long a session may go on
    /// after its connection was cut. When a session is over and everything is out, its peer's end is awaited for 2 s of
    /// it at most. Default: 10 s.
    pub half_close: Duration,
    /// How long a drain waits for busy connections where the caller names no deadline. Default: 30 s.
    pub drain: Duration,
    /// Bytes of one incoming message that are held before it is whole, whatever the codec allows. Default: 1 MiB.
    pub max_message: usize,
    /// Bytes of outgoing messages that wait in one connection's outbox. Default: 1 MiB.
    pub outbox: usize,
    /// Bytes of all buffers together: of messages that are not whole, of outboxes, and of datagrams that wait. What a
    /// connection holds below 4 KiB is not counted. When there is no more, nobody new is accepted, nothing is read beyond
    /// 4 KiB of a message, an outbox takes one message at a time, and if it stays so, the connection that holds most is
    /// closed, with [`CloseReason::Overloaded`](crate::CloseReason::Overloaded). Default: 256 MiB.
    pub memory: usize,
    /// UDP peers with a session, per listener. Default: 16,384.
    pub udp_sessions: usize,
    /// Of these, how many from one address; an IPv6 /64 network is one address. `None` leaves it at `udp_sessions`.
    /// Default: 4,096.
    pub udp_per_address: Option<usize>,
    /// As [`idle`](Self::idle), for a UDP session. Default: 60 s.
    pub udp_idle: Duration,
    /// Datagrams that wait for one session's handler; further ones are dropped and counted. Default: 64.
    pub udp_queue: usize,
    /// Bytes of datagrams that wait for the handlers of one listener, 256 bytes more charged for each datagram; further
    /// ones are dropped and counted. Default: 64 MiB.
    pub udp_buffer: usize,
    /// The largest datagram taken, in bytes; larger ones are dropped and counted as truncated. Default: 65,507.
    pub max_datagram: usize,
}

/// No deadline is further away than this (about 30 years): tokio's timers and `Instant` end somewhere.
pub(crate) const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

impl Default for Limits {
    fn default() -> Self {
        Self::edge()
    }
}

macro_rules! setters {
    ($($name:ident: $type:ty => $setter:ident, $doc:literal;)*) => {$(
        #[doc = concat!("Sets ", $doc, ".")]
        #[must_use]
        pub fn $setter(mut self, value: $type) -> Self {
            self.$name = value;
            self
        }
    )*};
}

impl Limits {
    /// For a server on the open internet: the defaults of each field.
    #[must_use]
    pub fn edge() -> Self {
        Self {
            max_connections: max_open_files().map_or(10_000, |files| (files / 2).clamp(1, 10_000)),
            per_address: None,
            accept_rate: None,
            overload: Overload::Hold,
            backlog: 4096,
            handshakes: 256,
            handshake: Duration::from_secs(5),
            first_byte: Duration::from_secs(10),
            message: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            handling: None,
            stall: Duration::from_secs(5),
            write_stall: Duration::from_secs(30),
            half_close: Duration::from_secs(10),
            drain: Duration::from_secs(30),
            max_message: 1 << 20,
            outbox: 1 << 20,
            memory: 256 << 20,
            udp_sessions: 16_384,
            udp_per_address: Some(4096),
            udp_idle: Duration::from_secs(60),
            udp_queue: 64,
            udp_buffer: 64 << 20,
            max_datagram: 65_507,
        }
    }

    /// For peers you run yourself: an hour of silence is fine, messages and outboxes are sixteen times as large.
    #[must_use]
    pub fn internal() -> Self {
        Self {
            first_byte: Duration::from_secs(3600),
            message: Duration::from_secs(300),
            idle: Duration::from_secs(3600),
            max_message: 16 << 20,
            outbox: 16 << 20,
            memory: 1 << 30,
            udp_per_address: None,
            udp_idle: Duration::from_secs(3600),
            udp_queue: 1024,
            udp_buffer: 256 << 20,
            ..Self::edge()
        }
    }

    /// For a small machine: 64 connections, 16 KiB messages, 64 KiB outboxes.
    #[must_use]
    pub fn tiny() -> Self {
        Self {
            max_connections: 64,
            backlog: 64,
            handshakes: 16,
            max_message: 16 << 10,
            outbox: 64 << 10,
            memory: 4 << 20,
            udp_sessions: 64,
            udp_per_address: None,
            udp_queue: 16,
            udp_buffer: 1 << 20,
            max_datagram: 16 << 10,
            ..Self::edge()
        }
    }

    setters! {
        max_connections: usize => with_max_connections, "how many connections are open at once";
        per_address: Option<usize> => with_per_address, "how many connections one address may have";
        accept_rate: Option<u32> => with_accept_rate, "how many connections are taken a second";
        overload: Overload => with_overload, "what becomes of peers for whom there is no place";
        handshakes: usize => with_handshakes, "how many handshakes are under way at once";
        handshake: Duration => with_handshake, "the time for a handshake";
        handling: Option<Duration> => with_handling, "the time for a session to handle one message";
        stall: Duration => with_stall, "the time after which a session that handles one message is reported";
        memory: usize => with_memory, "the bytes of all buffers together";
        udp_per_address: Option<usize> => with_udp_per_address, "the UDP sessions one address may have";
        backlog: u32 => with_backlog, "how many connections the kernel queues";
        first_byte: Duration => with_first_byte, "the time from the accept to the first byte";
        message: Duration => with_message, "the time for a whole message";
        idle: Duration => with_idle, "the time without inbound bytes";
        write_stall: Duration => with_write_stall, "the time without outbound progress";
        half_close: Duration => with_half_close, "the time after one side has ended";
        drain: Duration => with_drain, "the time a drain waits";
        max_message: usize => with_max_message, "the bytes of one incoming message";
        outbox: usize => with_outbox, "the bytes that wait to be sent";
        udp_sessions: usize => with_udp_sessions, "the UDP peers with a session";
        udp_idle: Duration => with_udp_idle, "the time without a datagram from a UDP peer";
        udp_queue: usize => with_udp_queue, "the datagrams that wait for one session";
        udp_buffer: usize => with_udp_buffer, "the bytes of datagrams that wait for all sessions of a listener";
        max_datagram: usize => with_max_datagram, "the largest datagram in bytes";
    }

    /// As the system wants it.
    #[cfg(any(feature = "tcp", feature = "unix"))]
    pub(crate) fn backlog(&self) -> i32 {
        i32::try_from(self.backlog).unwrap_or(i32::MAX)
    }
}

/// The soft limit of open files, where the system tells it.
fn max_open_files() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = text.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}
