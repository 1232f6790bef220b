//! UDP: one socket for all peers of a listener, and a session for each of them.
//!
//! | file | what it is |
//! |---|---|
//! | `socket` | the shared socket: receive, send, and who waits to send |
//! | `sessions` | which peers there are, which go when there are too many, and a peer's queue |
//! | `client` | a socket connected to one peer |

pub(crate) mod client;
mod sessions;
mod socket;

pub(crate) use sessions::{Arrival, Sessions};
pub(crate) use socket::{UdpCounters, UdpShared};
