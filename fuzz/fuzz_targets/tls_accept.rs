//! Whatever a client sends instead of a handshake, in pieces of any size, is refused: no panic, no loop, no handshake
//! without a key of the client's own.
#![no_main]

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use hythe::fuzzing::tls_accept;
use hythe::tls::ServerTls;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::runtime::{Builder, Runtime};

static TLS: LazyLock<ServerTls> = LazyLock::new(|| {
    ServerTls::from_pem(include_str!("../data/chain.pem"), include_str!("../data/key.pem"))
        .build()
        .expect("a certificate")
});

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime"));

/// Gives so many bytes at a time, then the end.
struct Pieces {
    bytes: VecDeque<u8>,
    size: usize,
}

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let size = self.size.min(buf.remaining()).min(self.bytes.len());
        for byte in self.bytes.drain(..size) {
            buf.put_slice(&[byte]);
        }
        Poll::Ready(Ok(()))
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((size, bytes)) = input.split_first() else { return };
    let pieces = Pieces { bytes: bytes.iter().copied().collect(), size: usize::from(*size).max(1) };
    assert!(!RUNTIME.block_on(tls_accept(&TLS, pieces)), "a handshake without anybody who can finish it");
});
