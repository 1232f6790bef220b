//! The socket that all sessions of a listener share.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::task::{Context, Poll, Waker, ready};
use std::{io, mem};

use futures::task::AtomicWaker;
use socket2::{SockRef, Socket};
use tokio::net::UdpSocket;

use super::incoming::Incoming;
use super::outgoing::{Outgoing, Run};
use super::port::Port;
use crate::connection::{Gathers, gathers};
use crate::limits::Addresses;
use crate::log::{Limiter, suppressed};
use crate::sync::{Mutex, lock};
use crate::transport::{BindOptions, socket};

/// What the sockets of one endpoint have together: what happened to datagrams that no handler saw, and what is limited.
#[derive(Default)]
pub(crate) struct UdpCounters {
    pub(crate) truncated: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) invalid: AtomicU64,
    pub(crate) receive_errors: AtomicU64,
    pub(crate) send_errors: AtomicU64,
    /// How many sessions there are.
    pub(crate) sessions: AtomicUsize,
    /// The bytes that wait for all sessions together.
    pub(crate) waiting: AtomicUsize,
    pub(crate) addresses: Arc<Addresses>,
}

pub(crate) struct UdpShared {
    /// Gone as soon as the listener is closed, whoever still holds this.
    port: RwLock<Option<Port>>,
    pub(crate) counters: Arc<UdpCounters>,
    /// Sessions that wait until the socket takes a datagram: it tells only one task.
    writers: Mutex<Vec<Waker>>,
    /// What several sessions send together.
    outgoing: Mutex<Outgoing>,
    /// There is some: what a session sends by itself comes after it.
    gathered: AtomicBool,
    /// The socket took no more of it.
    blocked: AtomicBool,
    /// The task that receives.
    receiver: AtomicWaker,
    /// How often it is said that a datagram could not be sent.
    unsent: Limiter,
    /// Datagrams are left where they are: another process takes them.
    deaf: AtomicBool,
}

impl UdpShared {
    #[cfg(any(test, fuzzing))]
    pub(crate) fn bind(
        addr: SocketAddr,
        options: &BindOptions,
        counters: Arc<UdpCounters>,
    ) -> io::Result<(Arc<Self>, SocketAddr)> {
        Self::on(socket::udp(addr, options)?, counters, true)
    }

    /// Takes a socket that is bound already, and tells where. `ours` is one that no other program will read from.
    pub(crate) fn on(socket: Socket, counters: Arc<UdpCounters>, ours: bool) -> io::Result<(Arc<Self>, SocketAddr)> {
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket.into())?;
        let addr = socket.local_addr()?;
        let shared = Self {
            port: RwLock::new(Some(Port::new(socket, ours))),
            counters,
            writers: Mutex::new(Vec::new()),
            outgoing: Mutex::default(),
            gathered: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            receiver: AtomicWaker::new(),
            unsent: Limiter::new(10),
            deaf: AtomicBool::new(false),
        };
        Ok((Arc::new(shared), addr))
    }

    fn port(&self) -> RwLockReadGuard<'_, Option<Port>> {
        self.port.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a socket that was bound by others what it may lack.
    pub(crate) fn set(&self, options: &BindOptions) {
        if let Some(port) = &*self.port() {
            if let Err(error) = socket::udp_options(&SockRef::from(port.socket()), options) {
                tracing::warn!(%error, "a UDP socket keeps its old options");
            }
        }
    }

    /// Goes on in the current runtime; the one before has ended.
    pub(crate) fn move_here(&self) -> io::Result<()> {
        if let Some(port) = &mut *self.port.write().unwrap_or_else(PoisonError::into_inner) {
            port.move_here()?;
        }
        Ok(())
    }

    /// The socket once more.
    #[cfg(feature = "handover")]
    pub(crate) fn duplicate(&self) -> io::Result<Option<crate::transport::Duplicate>> {
        use std::os::fd::AsFd;
        let port = self.port();
        let Some(port) = port.as_ref() else { return Ok(None) };
        let descriptor = port.socket().as_fd().try_clone_to_owned()?;
        Ok(Some(crate::transport::Duplicate { descriptor, file: None }))
    }

    /// Leaves datagrams where they are from now on. Sending goes on.
    #[cfg(feature = "handover")]
    pub(crate) fn stop_receiving(&self) {
        self.deaf.store(true, Relaxed);
        self.receiver.wake();
    }

    /// Closes the socket. What was sent before is out.
    pub(crate) fn close(&self) {
        let mut outgoing = lock(&self.outgoing);
        self.send_outgoing(&mut outgoing);
        let port = self.port.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(outgoing);
        drop(port);
        self.receiver.wake();
        self.wake_writers();
    }

    fn wake_writers(&self) {
        for waker in mem::take(&mut *lock(&self.writers)) {
            waker.wake();
        }
    }

    /// The next datagrams, or `None` when the socket is closed. On the way, those are woken who wait to send.
    pub(crate) fn poll_receive(&self, cx: &mut Context<'_>, incoming: &mut Incoming) -> Poll<Option<io::Result<()>>> {
        self.receiver.register(cx.waker());
        if self.blocked.load(Relaxed) || !lock(&self.writers).is_empty() {
            let mut ready = || {
                let poll = self.port().as_ref().map(|port| port.socket().poll_send_ready(cx));
                matches!(poll, Some(Poll::Ready(Ok(()))))
            };
            // where the kernel takes only a part, this asks once more, and so is told when it takes the rest
            while ready() {
                if self.send_outgoing(&mut lock(&self.outgoing)) {
                    self.wake_writers();
                    break;
                }
            }
        }
        let port = self.port();
        let Some(port) = port.as_ref() else { return Poll::Ready(None) };
        if self.deaf.load(Relaxed) {
            return Poll::Pending;
        }
        Poll::Ready(Some(ready!(port.poll_receive(cx, incoming))))
    }

    /// Sends a datagram to a stranger, if the kernel takes it now.
    pub(crate) fn try_send(&self, bytes: &[u8], to: SocketAddr) {
        let port = self.port();
        if port.as_ref().is_some_and(|port| port.socket().try_send_to(bytes, to).is_err()) {
            self.counters.send_errors.fetch_add(1, Relaxed);
        }
    }

    /// Adds a datagram to what goes out together. Pending only while the kernel's buffer is full.
    pub(super) fn gather(self: &Arc<Self>, cx: &Context<'_>, bytes: &[u8], to: SocketAddr) -> Poll<()> {
        let mut outgoing = lock(&self.outgoing);
        if outgoing.is_full() {
            self.send_outgoing(&mut outgoing);
        }
        if self.blocked.load(Relaxed) {
            return self.waits(cx);
        }
        let Some(below) = self.port().as_ref().map(Port::runs_below) else { return Poll::Ready(()) };
        outgoing.push(Some(to), bytes, below);
        self.gathered.store(true, Release);
        drop(outgoing);
        gathers(self);
        Poll::Ready(())
    }

    /// Sends what one session has for its peer, after what was gathered before. Pending only while the kernel's buffer is
    /// full; an error is counted, and the datagram is lost, as datagrams may be.
    pub(super) fn poll_send(&self, cx: &Context<'_>, own: &mut Outgoing) -> Poll<()> {
        if self.gathered.load(Acquire) && !self.send_outgoing(&mut lock(&self.outgoing)) {
            return self.waits(cx);
        }
        if self.send_all(own) { Poll::Ready(()) } else { self.waits(cx) }
    }

    /// For [`Outgoing::push`].
    pub(super) fn runs_below(&self) -> usize {
        self.port().as_ref().map_or(0, Port::runs_below)
    }

    fn waits(&self, cx: &Context<'_>) -> Poll<()> {
        let mut writers = lock(&self.writers);
        if !writers.last().is_some_and(|last| last.will_wake(cx.waker())) {
            writers.push(cx.waker().clone());
        }
        drop(writers);
        self.receiver.wake();
        Poll::Pending
    }

    /// Sends what was gathered. False where the kernel takes no more for now.
    fn send_outgoing(&self, outgoing: &mut Outgoing) -> bool {
        if outgoing.is_empty() {
            return true;
        }
        let done = self.send_all(outgoing);
        self.blocked.store(!done, Relaxed);
        self.gathered.store(!done, Release);
        done
    }

    fn send_all(&self, outgoing: &mut Outgoing) -> bool {
        let port = self.port();
        let Some(port) = port.as_ref() else {
            outgoing.clear();
            return true;
        };
        port.send_all(outgoing, |run, error| self.lost(run, &error))
    }

    #[cold]
    fn lost(&self, run: &Run, error: &io::Error) {
        self.counters.send_errors.fetch_add(1, Relaxed);
        if let Some(times) = self.unsent.admit() {
            let (to, suppressed) = (run.to.map(tracing::field::display), suppressed(times));
            tracing::debug!(to, %error, bytes = run.bytes, suppressed, "a datagram could not be sent");
        }
    }
}

impl Gathers for UdpShared {
    fn send_gathered(&self) {
        if !self.send_outgoing(&mut lock(&self.outgoing)) {
            self.receiver.wake();
        }
    }
}
