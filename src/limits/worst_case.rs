//! What the limits add up to.

use std::thread::available_parallelism;

use super::{Limits, STEP};
use crate::connection::THREAD;

/// A connection without its buffers: its task, its state, a small handler, and what the runtime keeps for it. Measured:
/// 2.5 KiB, and twice that while one is made and another goes.
const CONNECTION: usize = 5 << 10;
/// A handshake under way, with TLS.
const HANDSHAKE: usize = 64 << 10;
/// The buffers of a UDP listener: what one receive may bring, and what is sent together.
const UDP: usize = 3 << 20;
/// A UDP session without what waits for it.
const SESSION: usize = 5 << 10;

impl Limits {
    /// The memory, in bytes, that a server with these limits uses when all of them are reached: for `tcp:`, `unix:` and
    /// `mem:` connections, UDP sessions on one listener, their buffers, and those of as many threads as the machine has
    /// cores. A UDP listener has 3 MiB of buffers for each [worker](crate::Workers) beyond the first. What handlers keep is theirs, and what the kernel keeps in the buffers of its sockets is not in it; TLS adds
    /// up to 64 KiB for each connection, 8 KiB while nothing is under way.
    ///
    /// ```
    /// use hythe::Limits;
    ///
    /// assert!(Limits::edge().worst_case_memory() > Limits::edge().memory);
    /// assert!(Limits::tiny().worst_case_memory() < 64 << 20);
    /// ```
    #[must_use]
    pub fn worst_case_memory(&self) -> usize {
        // below a step a buffer is not counted, one for each direction
        let connections = self.max_connections.saturating_mul(CONNECTION + 2 * STEP);
        let handshakes = self.handshakes.saturating_mul(HANDSHAKE);
        let sessions = self.udp_sessions.saturating_mul(SESSION + 2 * STEP);
        let threads = available_parallelism().map_or(1, usize::from);
        // a thread may be in the middle of one message when the memory is used up
        let threads = threads.saturating_mul(THREAD.saturating_add(self.max_message.saturating_mul(2)));
        let memory = self.memory.saturating_add(self.memory / 16);
        [connections, handshakes, sessions, UDP, threads, memory].into_iter().fold(0, usize::saturating_add)
    }
}
