//! A new process takes the listening sockets over from the running one, which then drains.
//!
//! | file | what it is |
//! |---|---|
//! | `protocol` | what they say to each other, as bytes |
//! | `channel` | messages and descriptors over a Unix socket, and who is at its other end |
//! | `take` | the new process: asks for the sockets, and starts with them |
//! | `offer` | the running process: gives them to whoever comes next |
//!
//! Whatever goes wrong before the new process says that it serves leaves the running one as it was: until then it
//! accepts, and it only lets go of sockets of which the other has duplicates. After that word there is nothing left that
//! could fail.
//!
//! The socket over which they meet is handed over like the others, so that its file is there all the time, and whoever
//! comes during a handover waits in its backlog for the process that will be the running one.

mod channel;
mod offer;
mod protocol;
mod take;

use std::time::Duration;

#[cfg(fuzzing)]
pub use protocol::fuzzed;

pub(crate) use offer::Offer;
pub(crate) use take::start;

/// What either side has for each word.
const STEP: Duration = Duration::from_secs(5);
/// What the new process has to bind its endpoints: names may have to be looked up.
const BINDS: Duration = Duration::from_secs(10);
/// What the running one has for its first word: it may be handing over to somebody else, who does not make it.
const FIRST: Duration = Duration::from_secs(30);
