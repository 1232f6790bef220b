//! The PROXY protocol, versions 1 and 2: who the client of a proxy in front of this server is.
//!
//! A TCP proxy or load balancer that forwards a connection begins it with a header that names the client. Whoever may
//! send that header decides who the client is, so it is never guessed whether one comes: a [`ProxyProtocol`] says that
//! an endpoint's connections begin with one and which networks they may come from. Without one the header is not
//! looked for. The specification is HAProxy's
//! [proxy-protocol.txt](https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt).
//!
//! | item | what it is |
//! |---|---|
//! | [`ProxyProtocol`], [`Cidr`] | what an endpoint requires, and the networks it trusts |
//! | [`Proxied`], [`ProxiedAddresses`], [`ProxiedTls`] | what a header said |
//! | [`parse`], [`Progress`] | bytes to header, without I/O |
//! | [`read`] | the same from a stream, and not a byte more than the header |
//! | [`ProxyHeader`] | a header to send |
//! | [`ProxyError`], [`ProxyHeaderError`], [`CidrError`] | what was wrong |
//!
//! ```
//! use hythe::proxy::{DEFAULT_MAX_HEADER, Progress, ProxyHeader, parse};
//!
//! let header = ProxyHeader::v2("192.0.2.7:56324".parse()?, "192.0.2.1:443".parse()?)
//!     .authority("example.com")
//!     .crc32c()
//!     .to_bytes()?;
//!
//! let Progress::Done(proxied, consumed) = parse(&header, DEFAULT_MAX_HEADER)? else { panic!("it is whole") };
//! assert_eq!(consumed, header.len());
//! assert_eq!(proxied.source(), Some("192.0.2.7:56324".parse()?));
//! assert_eq!(proxied.authority(), Some("example.com"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is refused
//!
//! Whatever is not exactly what the specification describes: in version 1 two spaces, a port with a zero in front, an
//! address of the other family, a line end of LF alone; in version 2 an unknown command or family, addresses that do
//! not fit in the length, extensions (TLVs) that run past it, a wrong checksum. Beyond the specification:
//!
//! - A header longer than the limit, as soon as it says so.
//! - An extension of which there can be only one and that comes twice: which one counts would be a guess.
//! - A CR or LF inside a version 1 `UNKNOWN` line, whose text is to be ignored otherwise: it may be the end of
//!   somebody else's line.
//!
//! Where a header has no addresses (`LOCAL` and `UNSPEC`), what follows is to be skipped, whatever it is. It is looked
//! at for extensions all the same, as HAProxy sends them there, but only a wrong checksum is an error.

// Of the crates, ppp 2.3, proxy-header 0.1 and proxy-protocol 0.5, none verifies the checksum, none bounds the length of
// a version 2 header, none says of version 1 how many bytes may be read without taking some that are not the header's,
// and each takes the port "+80"; the last one panics on a version 2 header that is cut off. proxy-protocol-rs 0.8 reads
// past the header and wants Rust 1.88.

// Everything below handles what strangers sent.
#![deny(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used)]

mod cidr;
mod crc;
mod error;
mod parse;
mod policy;
mod proxied;
mod read;
mod tls;
mod tlv;
mod v1;
mod v2;
mod write;

pub use cidr::{Cidr, CidrError};
pub use error::{Excerpt, LinePart, ProxyError, TlvFault};
pub use parse::{Progress, parse};
pub use policy::ProxyProtocol;
pub use proxied::{Proxied, ProxiedAddresses};
pub use read::read;
pub use tls::ProxiedTls;
pub use tlv::kind;
pub use write::{ProxyHeader, ProxyHeaderError};

/// The longest header taken unless told otherwise, in bytes: what every TCP segment has room for (specification, §2).
pub const DEFAULT_MAX_HEADER: usize = 536;
