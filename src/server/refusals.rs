//! Whom the server turned away, and why.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::limits::Overload;
use crate::transport::ByteStream;

/// How many are being answered at once, and for how long each.
const ANSWERS: usize = 64;
const ANSWER: Duration = Duration::from_secs(1);
/// What a refused peer may send before its end, in bytes: to close without reading it would be a reset.
const DISCARD: usize = 64 << 10;

/// Why a peer was turned away before there was a connection. Its text ([`as_str`](Self::as_str)) is stable: it labels
/// metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// There were [`Limits::max_connections`](crate::Limits::max_connections), and peers are not held.
    Connections,
    /// Its address had [`Limits::per_address`](crate::Limits::per_address).
    Address,
    /// More came than [`Limits::accept_rate`](crate::Limits::accept_rate), and peers are not held.
    Rate,
    /// [`Limits::memory`](crate::Limits::memory) was used up, and peers are not held.
    Memory,
    /// Its handshake was the oldest of more than [`Limits::handshakes`](crate::Limits::handshakes).
    Handshakes,
    /// Its handshake took longer than [`Limits::handshake`](crate::Limits::handshake).
    HandshakeTimeout,
    /// Its handshake failed.
    Handshake,
    /// It had to send a PROXY header, and is not one of those that may.
    Untrusted,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Connections,
        Self::Address,
        Self::Rate,
        Self::Memory,
        Self::Handshakes,
        Self::HandshakeTimeout,
        Self::Handshake,
        Self::Untrusted,
    ];

    /// A stable, short text: lower case, words joined by `_`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Address => "address",
            Self::Rate => "rate",
            Self::Memory => "memory",
            Self::Handshakes => "handshakes",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Handshake => "handshake",
            Self::Untrusted => "untrusted",
        }
    }
}

/// Answers those that are to be answered.
pub(crate) struct Refusals(Arc<Semaphore>);

impl Default for Refusals {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ANSWERS)))
    }
}

impl Refusals {
    /// Turns a peer away. What it is told goes out as it is, so it must not need a handshake before.
    pub(crate) fn refuse(&self, stream: impl ByteStream, overload: &Overload, plain: bool) {
        let Overload::Answer(answer) = overload else { return stream.abort() };
        match Arc::clone(&self.0).try_acquire_owned() {
            Ok(turn) if plain => {
                let answer = answer.clone();
                tokio::spawn(async move {
                    let _ = timeout(ANSWER, say(stream, answer)).await;
                    drop(turn);
                });
            }
            _ => stream.abort(),
        }
    }
}

/// Sends the answer and the end, and awaits the peer's, so that nothing of the answer is thrown away.
async fn say(mut stream: impl ByteStream, answer: Bytes) -> std::io::Result<()> {
    stream.write_all(&answer).await?;
    stream.shutdown().await?;
    let (mut scratch, mut discarded) = ([0; 1024], 0);
    while discarded < DISCARD {
        match stream.read(&mut scratch).await? {
            0 => break,
            read => discarded += read,
        }
    }
    Ok(())
}
