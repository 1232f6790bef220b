//! What a session sends: no more than its peer may get, and together with others where that is quicker.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use super::outgoing::Outgoing;
use super::sessions::Session;
use super::socket::UdpShared;
use crate::connection::{WriteHalf, is_gathering};

/// Sends to one peer.
pub(crate) struct UdpWrite {
    pub(super) session: Arc<Session>,
    shared: Arc<UdpShared>,
    /// What it sends by itself, rather than together with other sessions.
    own: Outgoing,
}

impl UdpWrite {
    pub(super) fn new(session: Arc<Session>, shared: Arc<UdpShared>) -> Self {
        Self { session, shared, own: Outgoing::default() }
    }

    fn poll_own(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.own.is_empty() {
            return Poll::Ready(());
        }
        ready!(self.shared.poll_send(cx, &mut self.own));
        // most sessions never do this
        self.own = Outgoing::default();
        Poll::Ready(())
    }
}

impl WriteHalf for UdpWrite {
    const MESSAGES: bool = true;

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.session.may_send(bytes.len()) {
            // nobody asks for a flush where a write is pending
            let _ = self.poll_own(cx);
            self.session.writer.register(cx.waker());
            // a datagram may have come in between
            if !self.session.may_send(bytes.len()) {
                return Poll::Pending;
            }
        }
        if is_gathering() {
            ready!(self.poll_own(cx));
            ready!(self.shared.gather(cx, bytes, self.session.addr));
        } else {
            if self.own.is_full() {
                ready!(self.poll_own(cx));
            }
            self.own.push(Some(self.session.addr), bytes, self.shared.runs_below());
        }
        // an empty answer is an answer as well
        self.session.sent.fetch_add(bytes.len().max(1) as u64, Relaxed);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_own(cx).map(Ok)
    }
}
