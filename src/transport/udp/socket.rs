//! The socket that all sessions of a listener share.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::task::{Context, Poll, Waker, ready};
use std::{io, mem};

use futures::task::AtomicWaker;
use socket2::{SockRef, Socket};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

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
    socket: RwLock<Option<UdpSocket>>,
    pub(crate) counters: Arc<UdpCounters>,
    /// Sessions that wait until the socket takes a datagram: it tells only one task.
    writers: Mutex<Vec<Waker>>,
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
        Self::on(socket::udp(addr, options)?, counters)
    }

    /// Takes a socket that is bound already, and tells where.
    pub(crate) fn on(socket: Socket, counters: Arc<UdpCounters>) -> io::Result<(Arc<Self>, SocketAddr)> {
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket.into())?;
        let addr = socket.local_addr()?;
        let shared = Self {
            socket: RwLock::new(Some(socket)),
            counters,
            writers: Mutex::new(Vec::new()),
            receiver: AtomicWaker::new(),
            unsent: Limiter::new(10),
            deaf: AtomicBool::new(false),
        };
        Ok((Arc::new(shared), addr))
    }

    fn socket(&self) -> RwLockReadGuard<'_, Option<UdpSocket>> {
        self.socket.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a socket that was bound by others what it may lack.
    pub(crate) fn set(&self, options: &BindOptions) {
        if let Some(socket) = &*self.socket() {
            if let Err(error) = socket::udp_options(&SockRef::from(socket), options) {
                tracing::warn!(%error, "a UDP socket keeps its old options");
            }
        }
    }

    /// Goes on in the current runtime; the one before has ended.
    pub(crate) fn move_here(&self) -> io::Result<()> {
        if let Some(socket) = &mut *self.socket.write().unwrap_or_else(PoisonError::into_inner) {
            *socket = UdpSocket::from_std(SockRef::from(&*socket).try_clone()?.into())?;
        }
        Ok(())
    }

    /// The socket once more.
    #[cfg(feature = "handover")]
    pub(crate) fn duplicate(&self) -> io::Result<Option<crate::transport::Duplicate>> {
        use std::os::fd::AsFd;
        let socket = self.socket();
        let Some(socket) = socket.as_ref() else { return Ok(None) };
        let descriptor = socket.as_fd().try_clone_to_owned()?;
        Ok(Some(crate::transport::Duplicate { descriptor, file: None }))
    }

    /// Leaves datagrams where they are from now on. Sending goes on.
    #[cfg(feature = "handover")]
    pub(crate) fn stop_receiving(&self) {
        self.deaf.store(true, Relaxed);
        self.receiver.wake();
    }

    /// Closes the socket.
    pub(crate) fn close(&self) {
        let socket = self.socket.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(socket);
        self.receiver.wake();
        self.wake_writers();
    }

    fn wake_writers(&self) {
        for waker in mem::take(&mut *lock(&self.writers)) {
            waker.wake();
        }
    }

    /// The next datagram, or `None` when the socket is closed. On the way, those are woken who wait to send.
    pub(crate) fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Option<io::Result<SocketAddr>>> {
        self.receiver.register(cx.waker());
        let socket = self.socket();
        let Some(socket) = socket.as_ref() else { return Poll::Ready(None) };
        if !lock(&self.writers).is_empty() && socket.poll_send_ready(cx).is_ready() {
            self.wake_writers();
        }
        if self.deaf.load(Relaxed) {
            return Poll::Pending;
        }
        Poll::Ready(Some(ready!(socket.poll_recv_from(cx, buffer))))
    }

    /// Sends a datagram to a stranger, if the kernel takes it now.
    pub(crate) fn try_send(&self, bytes: &[u8], to: SocketAddr) {
        let socket = self.socket();
        if socket.as_ref().is_some_and(|socket| socket.try_send_to(bytes, to).is_err()) {
            self.counters.send_errors.fetch_add(1, Relaxed);
        }
    }

    /// Sends a datagram. Pending only while the kernel's buffer is full; an error is counted, and the datagram is lost,
    /// as datagrams may be.
    pub(crate) fn poll_send(&self, cx: &Context<'_>, bytes: &[u8], to: SocketAddr) -> Poll<()> {
        let socket = self.socket();
        let Some(socket) = socket.as_ref() else { return Poll::Ready(()) };
        match socket.try_send_to(bytes, to) {
            Ok(_) => Poll::Ready(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                lock(&self.writers).push(cx.waker().clone());
                self.receiver.wake();
                Poll::Pending
            }
            Err(error) => {
                self.counters.send_errors.fetch_add(1, Relaxed);
                if let Some(times) = self.unsent.admit() {
                    let suppressed = suppressed(times);
                    tracing::debug!(%to, %error, bytes = bytes.len(), suppressed, "a datagram could not be sent");
                }
                Poll::Ready(())
            }
        }
    }
}
