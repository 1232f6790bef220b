//! What the fuzz targets in `fuzz/` need of the inside. Only cargo-fuzz builds it, and it is no part of the interface.
//!
//! | file | what it is |
//! |---|---|
//! | `drive` | a connection with its task, over what the target feeds it |
//! | `limits` | slots, addresses, rate, memory and handshakes, each by itself |
//! | `tls` | the server's side of a handshake |
//! | `udp` | the table of UDP sessions, without a socket |

#![allow(missing_docs, missing_debug_implementations, reason = "nobody but the targets sees it")]

mod drive;
mod limits;
#[cfg(feature = "tls")]
mod tls;
mod udp;

pub use drive::{drive, drive_messages};
pub use limits::{Addresses, Handshake, Handshakes, Memory, Place, Rate, Slot, Slots};
#[cfg(feature = "tls")]
pub use tls::tls_accept;
pub use udp::{Arrival, UdpPeer, UdpTable};
