//! A handshake, with whatever a client may send.

use std::io;
use std::task::{Context, Poll};

use tokio::io::AsyncRead;

use crate::connection::WriteHalf;
use crate::tls::{Lower, ServerTls, Wire};

/// Runs the server's side of a handshake over what `read` gives. Whether it came to its end.
pub async fn tls_accept(tls: &ServerTls, read: impl AsyncRead + Send + Unpin + 'static) -> bool {
    tls.accept(Wire::new(Box::new(read), Lower::new(Sink))).await.is_ok()
}

/// Takes everything.
struct Sink;

impl WriteHalf for Sink {
    const MESSAGES: bool = false;

    fn poll_write(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }
}
