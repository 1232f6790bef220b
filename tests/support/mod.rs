//! What the tests of connections, handlers and groups share.
#![allow(dead_code)] // each test crate uses its own part

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures::future::BoxFuture;
use hythe::codec::{Codec, Raw};
use hythe::{Bytes, Closed, Connect, Connection, Endpoint, Handler, Limits, Running, Server, Session};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// An endpoint in memory that no other test has.
pub(crate) fn mem() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("mem:test-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// An endpoint on a free port.
pub(crate) fn tcp() -> String {
    "tcp://127.0.0.1:0".into()
}

/// Waits for `future`, and says what did not happen. Under a paused clock it is the clock that counts, so that a test
/// which waits for deadlines must ask for more itself.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("did not happen within {PATIENCE:?}: {what}"),
    }
}

/// Waits for `future` under a paused clock: for a day of its time, and not for longer than a minute of ours, as a clock
/// that is paused stands still while a task spins.
pub(crate) async fn paused<T>(what: &'static str, future: impl Future<Output = T>) -> T {
    let (alive, watchdog) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        if watchdog.recv_timeout(2 * PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            eprintln!("a task spins, so that the paused clock stands still: {what}");
            std::process::exit(101);
        }
    });
    let result = tokio::time::timeout(24 * 3600 * SECOND, future).await;
    drop(alive);
    match result {
        Ok(value) => value,
        Err(_) => panic!("did not happen within a day: {what}"),
    }
}

/// Counts the polls of `future`.
pub(crate) async fn counting<T>(polls: Arc<AtomicUsize>, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    poll_fn(|cx| {
        polls.fetch_add(1, Ordering::Relaxed);
        future.as_mut().poll(cx)
    })
    .await
}

/// Waits until `condition` holds, and says what did not come true.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within(what, poll).await;
}

/// Polls `future` at most `times`, each time when it asks for it, and drops it where that was not enough.
pub(crate) async fn poll_at_most<T>(times: u32, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = times;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Starts a server on one endpoint.
pub(crate) async fn start<S, C>(server: Server<S>, endpoint: &str, codec: C) -> (Running, Endpoint)
where
    S: Session,
    C: Codec<S::In, S::Out>,
{
    let running = server.bind(endpoint, codec).start().await.expect("the server starts");
    let endpoint = running.endpoints()[0].clone();
    (running, endpoint)
}

/// Connects with a codec that takes the messages it gives.
pub(crate) async fn open<C, M>(endpoint: &Endpoint, codec: C) -> Connection<M>
where
    C: Codec<M, M>,
    M: Send + 'static,
{
    hythe::connect(endpoint.clone(), codec).await.expect("a connection")
}

/// Connects with limits of one's own.
pub(crate) async fn open_with<C, M>(endpoint: &Endpoint, codec: C, limits: Limits) -> Connection<M>
where
    C: Codec<M, M>,
    M: Send + 'static,
{
    Connect::new().limits(limits).open(endpoint.clone(), codec).await.expect("a connection")
}

/// A peer that sees nothing but bytes.
pub(crate) async fn open_raw(endpoint: &Endpoint) -> Connection<Bytes> {
    open(endpoint, Raw::new()).await
}

/// Everything up to the peer's end, or up to an error.
pub(crate) async fn read_to_end(conn: &mut Connection<Bytes>) -> Vec<u8> {
    let mut all = Vec::new();
    while let Ok(Some(bytes)) = conn.recv().await {
        all.extend_from_slice(&bytes);
    }
    all
}

/// `payload` as `LengthDelimited::new()` writes it.
pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short message");
    [&length.to_be_bytes(), payload].concat()
}

/// The messages in a stream of `LengthDelimited::new()`, and what is left after the last whole one.
pub(crate) fn unframe(mut bytes: &[u8]) -> (Vec<Vec<u8>>, &[u8]) {
    let mut messages = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let Some((message, rest)) = rest.split_at_checked(length) else { break };
        messages.push(message.to_vec());
        bytes = rest;
    }
    (messages, bytes)
}

type Step<M, A> = Arc<dyn for<'a> Fn(&'a mut Connection<M>, A) -> BoxFuture<'a, anyhow::Result<()>> + Send + Sync>;

/// A handler made of closures, which tells how each of its connections ended.
pub(crate) struct Told<M> {
    open: Step<M, ()>,
    message: Step<M, M>,
    closed: UnboundedSender<Closed>,
}

impl<M: Send + 'static> Told<M> {
    pub(crate) fn new() -> (Self, UnboundedReceiver<Closed>) {
        let (closed, ends) = unbounded_channel();
        let told =
            Self { open: Arc::new(|_, ()| Box::pin(ready())), message: Arc::new(|_, _| Box::pin(ready())), closed };
        (told, ends)
    }

    pub(crate) fn on_open<F>(mut self, open: F) -> Self
    where
        F: for<'a> Fn(&'a mut Connection<M>, ()) -> BoxFuture<'a, anyhow::Result<()>> + Send + Sync + 'static,
    {
        self.open = Arc::new(open);
        self
    }

    pub(crate) fn on_message<F>(mut self, message: F) -> Self
    where
        F: for<'a> Fn(&'a mut Connection<M>, M) -> BoxFuture<'a, anyhow::Result<()>> + Send + Sync + 'static,
    {
        self.message = Arc::new(message);
        self
    }

    /// Sends every message back.
    pub(crate) fn echo(self) -> Self {
        self.on_message(|conn, message| Box::pin(async move { Ok(conn.send(message).await?) }))
    }
}

async fn ready() -> anyhow::Result<()> {
    Ok(())
}

impl<M> Clone for Told<M> {
    fn clone(&self) -> Self {
        Self { open: Arc::clone(&self.open), message: Arc::clone(&self.message), closed: self.closed.clone() }
    }
}

impl<M: Send + 'static> Handler for Told<M> {
    type In = M;
    type Out = M;

    async fn on_open(&mut self, conn: &mut Connection<M>) -> anyhow::Result<()> {
        (self.open)(conn, ()).await
    }

    async fn on_message(&mut self, conn: &mut Connection<M>, message: M) -> anyhow::Result<()> {
        (self.message)(conn, message).await
    }

    async fn on_close(self, closed: Closed) {
        let _ = self.closed.send(closed);
    }
}

/// Random numbers that a seed repeats (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).expect("33 bits") % bound
    }

    /// Short ones most of the time, now and then one of up to 4,000 bytes.
    pub(crate) fn length(&mut self) -> usize {
        let bound = [1, 8, 80, 4000][self.below(4)];
        self.below(bound + 1)
    }
}
