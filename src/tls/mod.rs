//! TLS: `tls://` endpoints, and the upgrade of a connection that began in the clear.
//!
//! | file | what it is |
//! |---|---|
//! | `server`, `sni` | [`ServerTls`], a server's certificates; which of them a client gets |
//! | `watch` | looks after the files of these |
//! | `client`, `roots` | [`ClientTls`], whom a client trusts; what the operating system trusts |
//! | `pem` | [`Pem`], certificates and keys as text, and what can be wrong with it |
//! | `handshake`, `stream` | from a TCP connection to a TLS connection; its two halves |
//! | `info` | [`TlsInfo`], what a handshake agreed upon |
//!
//! ```no_run
//! # async fn example() -> Result<(), hythe::Error> {
//! use std::time::Duration;
//! use hythe::tls::ServerTls;
//!
//! let tls = ServerTls::from_pem_files("/etc/app/chain.pem", "/etc/app/key.pem").build()?;
//! tls.watch(Duration::from_secs(1))?; // renewed certificates are used from then on
//! # Ok(()) }
//! ```
//!
//! # What is spoken
//!
//! TLS 1.2 and 1.3 by [rustls](https://docs.rs/rustls), with forward secrecy and authenticated encryption only: no
//! older version, no renegotiation, no compression, no early data ("0-RTT": what comes so could be a replay).
//!
//! The cryptography is that of [ring](https://docs.rs/ring), always, whatever other parts of a program have rustls use.
//! It builds in seconds with nothing but a C compiler, on every system that hythe runs on; aws-lc-rs, the other choice,
//! wants more tools. What is lost by that is the key exchange against quantum computers (X25519MLKEM768).
//!
//! # The end of a connection
//!
//! An end without `close_notify` can have been made by anybody on the way (RFC 8446, section 6.1), so it is a truncation.
//! A connection that is closed here always says `close_notify` first, unless it is aborted.
//!
//! One side can end its half and still receive, as over TCP, with TLS 1.3. With TLS 1.2 peers are to end at once when the
//! other side has (RFC 5246, section 7.2.1).
//!
//! # What it costs
//!
//! What connections and servers count in bytes is what was sent inside, not what that became on the wire. A connection
//! that is encrypted takes 8 KiB more than another, and up to 64 KiB while much is under way; the
//! [memory of all buffers](crate::Limits::memory) does not include them.

mod client;
mod handshake;
mod info;
mod pem;
mod roots;
mod server;
mod sni;
mod stream;
#[cfg(test)]
mod tests;
mod watch;

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::version::{TLS12, TLS13};

use crate::connection::CloseReason;
use crate::error::{Error, ErrorKind};

pub use client::{ClientTls, ClientTlsBuilder};
pub use handshake::Upgrade;
pub use info::{TlsInfo, TlsVersion};
pub use pem::Pem;
pub use server::{ServerTls, ServerTlsBuilder};

pub(crate) use handshake::Secured;
pub(crate) use stream::{Lower, TlsRead, TlsWrite, Wire};

static VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// Never the process-wide default: what that is depends on who else is in the program.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())))
}

/// Names for ALPN are of 1 to 255 bytes (RFC 7301, section 3.1).
fn alpn_protocols(names: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, Error> {
    match names.iter().find(|name| !(1..=255).contains(&name.len())) {
        None => Ok(names.to_vec()),
        Some(name) => {
            let text = format!("a protocol's name for ALPN has 1 to 255 bytes: {} are no name", name.len());
            Err(Error::new(ErrorKind::Config, text))
        }
    }
}

/// Why a connection is closed after this error, if that is one of TLS.
pub(crate) fn reason(error: &io::Error) -> Option<CloseReason> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::AlertReceived(_) => CloseReason::PeerReset,
        _ => CloseReason::Protocol,
    })
}
