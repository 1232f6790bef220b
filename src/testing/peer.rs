//! A peer that a test plays.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use super::observe::{Visit, Visits};
use super::wait::{Place, patiently, settle};
use crate::codec::Codec;
use crate::connection::{Closed, ConnectionId, wait_closed};
use crate::error::BoxError;
use crate::transport::mem::{MemStream, WINDOW};

/// A peer's codec, without its type.
pub(super) trait Speak<In, Out>: Send {
    fn write(&mut self, message: Out, to: &mut BytesMut) -> Result<(), BoxError>;
    fn read(&mut self, from: &mut BytesMut, at_end: bool) -> Result<Option<In>, BoxError>;
}

impl<C, In, Out> Speak<In, Out> for C
where
    C: Codec<In, Out>,
{
    fn write(&mut self, message: Out, to: &mut BytesMut) -> Result<(), BoxError> {
        self.encode(message, to).map_err(Into::into)
    }

    fn read(&mut self, from: &mut BytesMut, at_end: bool) -> Result<Option<In>, BoxError> {
        match at_end {
            true => self.decode_eof(from).map_err(Into::into),
            false if from.is_empty() => Ok(None),
            false => self.decode(from).map_err(Into::into),
        }
    }
}

/// What comes after the bytes that have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    More,
    End,
    Reset,
}

/// A peer of the server under test, made by [`Harness::peer`](super::Harness::peer). It receives `In` and sends `Out`.
///
/// It does what it is told and nothing else: it reads only in the methods that wait for something, up to 4 KiB at a time,
/// and says goodbye only when asked to. What it cannot do fails the test, with the line in the test and what is known of the connection.
///
/// Dropping it closes its socket, as a program that ends does: in order where it has read everything, else with a reset.
pub struct Peer<In, Out = In> {
    stream: MemStream,
    codec: Box<dyn Speak<In, Out>>,
    /// What has arrived and was not asked for yet.
    buffer: BytesMut,
    tail: Tail,
    stalled: bool,
    number: u64,
    visits: Arc<Visits>,
}

impl<In, Out> Peer<In, Out> {
    pub(super) fn new(stream: MemStream, codec: Box<dyn Speak<In, Out>>, visits: Arc<Visits>) -> Self {
        let number = stream.end().number();
        Self { stream, codec, buffer: BytesMut::new(), tail: Tail::More, stalled: false, number, visits }
    }

    /// Sends a message, and waits while the server takes none of it.
    ///
    /// If the server has ended the connection, the message is lost, as it would be with a socket.
    ///
    /// # Panics
    /// If the codec refuses the message, or the server takes nothing for a day.
    ///
    /// # Cancel safety
    /// A dropped future may have sent a part of it.
    #[track_caller]
    pub fn send(&mut self, message: impl Into<Out>) -> impl Future<Output = ()> {
        let place = Location::caller();
        let mut bytes = BytesMut::new();
        if let Err(error) = self.codec.write(message.into(), &mut bytes) {
            panic!("{place}: the peer's codec refused a message: {error}");
        }
        self.write(bytes.freeze(), place)
    }

    /// Sends bytes as they are: a part of a message, several ones, or nonsense.
    ///
    /// # Panics
    /// If the server takes nothing for a day.
    ///
    /// # Cancel safety
    /// A dropped future may have sent a part of them.
    #[track_caller]
    pub fn send_bytes(&mut self, bytes: impl AsRef<[u8]>) -> impl Future<Output = ()> {
        self.write(Bytes::copy_from_slice(bytes.as_ref()), Location::caller())
    }

    async fn write(&mut self, mut bytes: Bytes, place: Place) {
        let known = self.known();
        patiently(place, "room for what the peer sends", known, poll_fn(|cx| self.poll_write(&mut bytes, cx))).await;
    }

    /// Writes all of `bytes`, or loses them where nobody takes them any more.
    pub(super) fn poll_write(&mut self, bytes: &mut Bytes, cx: &mut Context<'_>) -> Poll<()> {
        while !bytes.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, bytes) {
                Poll::Ready(Ok(written)) => drop(bytes.split_to(written)),
                Poll::Ready(Err(_)) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    /// The next message.
    ///
    /// # Panics
    /// If the connection ends instead, or what comes is no message to the codec, or nothing comes for a day.
    ///
    /// # Cancel safety
    /// A dropped future loses nothing.
    #[track_caller]
    pub fn recv(&mut self) -> impl Future<Output = In> {
        let place = Location::caller();
        async move {
            match self.take(place).await {
                Some(message) => message,
                None => panic!("{place}: no message came: {}", self.end().await),
            }
        }
    }

    /// The next message, or `None` at the end: the server has ended its side, or the connection was reset.
    ///
    /// # Panics
    /// If what comes is no message to the codec, or nothing comes for a day.
    ///
    /// # Cancel safety
    /// A dropped future loses nothing.
    #[track_caller]
    pub fn recv_or_end(&mut self) -> impl Future<Output = Option<In>> {
        self.take(Location::caller())
    }

    /// All messages up to the end.
    ///
    /// # Panics
    /// As [`recv_or_end`](Self::recv_or_end).
    #[track_caller]
    pub fn rest(&mut self) -> impl Future<Output = Vec<In>> {
        let place = Location::caller();
        async move {
            let mut all = Vec::new();
            while let Some(message) = self.take(place).await {
                all.push(message);
            }
            all
        }
    }

    async fn take(&mut self, place: Place) -> Option<In> {
        let known = self.known();
        loop {
            if let Some(message) = self.decode(place) {
                return Some(message);
            }
            if self.tail != Tail::More {
                return None;
            }
            patiently(place, "a message", &known, poll_fn(|cx| self.poll_fill(cx))).await;
        }
    }

    /// A message of what has arrived.
    fn decode(&mut self, place: Place) -> Option<In> {
        self.try_decode().unwrap_or_else(|error| panic!("{place}: {error}"))
    }

    pub(super) fn try_decode(&mut self) -> Result<Option<In>, String> {
        let at_end = self.tail == Tail::End;
        let held = self.buffer.len();
        match self.codec.read(&mut self.buffer, at_end) {
            Ok(None) if at_end && !self.buffer.is_empty() => {
                Err(format!("the server ended inside a message, of which this came: {}", text(&self.buffer)))
            }
            Ok(message) => Ok(message),
            Err(error) => Err(format!("the peer's codec cannot read what came: {error} ({held} bytes were there)")),
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.tail != Tail::More
    }

    pub(super) fn was_reset(&self) -> bool {
        self.tail == Tail::Reset
    }

    /// Exactly so many bytes of what the server sends, whatever messages they are.
    ///
    /// # Panics
    /// If the connection ends before, or they do not come for a day.
    ///
    /// # Cancel safety
    /// A dropped future loses nothing.
    #[track_caller]
    pub fn recv_bytes(&mut self, count: usize) -> impl Future<Output = Bytes> {
        let place = Location::caller();
        async move {
            let known = self.known();
            while self.buffer.len() < count {
                if self.tail != Tail::More {
                    let (held, end) = (text(&self.buffer), self.end().await);
                    panic!("{place}: of {count} bytes, only these came: {held}; then {end}");
                }
                patiently(place, "bytes", &known, poll_fn(|cx| self.poll_fill(cx))).await;
            }
            self.buffer.split_to(count).freeze()
        }
    }

    /// Waits for a time, in which nothing may come, not even the end.
    ///
    /// # Panics
    /// If something does.
    #[track_caller]
    pub fn expect_silence(&mut self, time: Duration) -> impl Future<Output = ()> {
        let place = Location::caller();
        async move {
            if self.buffer.is_empty() && self.tail == Tail::More {
                let _ = timeout(time, poll_fn(|cx| self.poll_fill(cx))).await;
            }
            if !self.buffer.is_empty() {
                panic!("{place}: something came where nothing should: {}", text(&self.buffer));
            }
            if self.tail != Tail::More {
                panic!("{place}: the connection ended where nothing should come: {}", self.end().await);
            }
        }
    }

    /// Waits for the end of the connection, and tells how the server saw it. Until then everything that comes is read,
    /// unless the peer is [stalled](Self::stall), and can still be asked for afterwards; to the server's end the peer
    /// answers with its own. The handler's `on_close` has run when this returns.
    ///
    /// # Panics
    /// If the end does not come for a day, or the server refused the peer before there was a session.
    ///
    /// # Cancel safety
    /// A dropped future loses nothing.
    #[track_caller]
    pub fn closed(&mut self) -> impl Future<Output = Closed> {
        self.closed_at(Location::caller())
    }

    /// As [`closed`](Self::closed), and nothing may come before it.
    ///
    /// # Panics
    /// As [`closed`](Self::closed), and if anything comes.
    #[track_caller]
    pub fn expect_end(&mut self) -> impl Future<Output = Closed> {
        let place = Location::caller();
        async move {
            let closed = self.closed_at(place).await;
            if !self.buffer.is_empty() {
                panic!("{place}: something came before the end: {}", text(&self.buffer));
            }
            closed
        }
    }

    pub(super) async fn closed_at(&mut self, place: Place) -> Closed {
        let (visits, number) = (Arc::clone(&self.visits), self.number);
        let over = async {
            let visit = visits.wait(|| visits.find(number)).await;
            let closed = wait_closed(visit.core()).await;
            visits.wait(|| visit.is_over().then_some(())).await;
            closed
        };
        let mut over = pin!(over);
        let known = self.known();
        let closed = poll_fn(|cx| {
            loop {
                if self.tail != Tail::More {
                    self.half_close();
                    if self.visit().is_none() {
                        return Poll::Ready(None);
                    }
                    break;
                }
                if self.stalled || self.poll_fill(cx).is_pending() {
                    break;
                }
            }
            over.as_mut().poll(cx).map(Some)
        });
        match patiently(place, "the end of the connection", known, closed).await {
            Some(closed) => closed,
            None => panic!("{place}: the server refused the peer before there was a session"),
        }
    }

    /// Ends this side: the server reads what was sent, and then the end. It can still answer.
    pub fn half_close(&mut self) {
        self.stream.end().shutdown();
    }

    /// Breaks the connection off. What is on its way is lost, in both directions.
    pub fn reset(&mut self) {
        self.stream.end().reset();
    }

    /// Closes the window: from now on the server can send nothing more. What is on its way can still be received.
    pub fn stall(&mut self) {
        self.set_window(0);
    }

    /// Opens the window again, as wide as it was at first: 64 KiB.
    pub fn resume(&mut self) {
        self.set_window(WINDOW);
    }

    /// Sets how many bytes the server may send beyond what this peer has read. 0 is a stall.
    pub fn set_window(&mut self, bytes: usize) {
        self.stalled = bytes == 0;
        self.stream.end().set_window(bytes);
    }

    /// What this peer has sent and the server has not read yet, in bytes: while a handler is busy, they wait.
    #[must_use]
    pub fn unread_bytes(&self) -> usize {
        self.stream.end().unread()
    }

    /// The connection's id at the server; `None` while the server has not accepted it, such as at a limit.
    #[must_use]
    pub fn id(&self) -> Option<ConnectionId> {
        self.visit().map(|visit| visit.id())
    }

    fn visit(&self) -> Option<Arc<Visit>> {
        self.visits.find(self.number)
    }

    /// Reads once into the buffer. Ready when there is something new, or the end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.tail != Tail::More {
            return Poll::Ready(());
        }
        let mut scratch = [0; 4096];
        let mut read = ReadBuf::new(&mut scratch);
        let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(cx, &mut read) else { return Poll::Pending };
        match result {
            Ok(()) if read.filled().is_empty() => self.tail = Tail::End,
            Ok(()) => self.buffer.extend_from_slice(read.filled()),
            Err(_) => self.tail = Tail::Reset,
        }
        Poll::Ready(())
    }

    /// What is known of the connection, for a message.
    pub(super) fn known(&self) -> impl Fn() -> String + use<In, Out> {
        let (visits, number) = (Arc::clone(&self.visits), self.number);
        move || {
            visits.find(number).map_or_else(|| "the server has not accepted the peer".into(), |visit| visit.describe())
        }
    }

    /// How the server's side ended, for a message.
    async fn end(&mut self) -> String {
        // a server that awaits the peer's end tells after it
        self.half_close();
        settle().await;
        let how = if self.tail == Tail::Reset { "a reset came" } else { "the server ended its side" };
        format!("{how}; {}", self.known()())
    }
}

impl<In, Out> fmt::Debug for Peer<In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({})", self.known()())
    }
}

/// Bytes as a test can read them, and no more of them than one wants to read.
pub(super) fn text(bytes: &[u8]) -> String {
    const MOST: usize = 80;
    match bytes.get(..MOST) {
        Some(start) if bytes.len() > MOST => format!("b\"{}…\" ({} bytes)", start.escape_ascii(), bytes.len()),
        _ => format!("b\"{}\"", bytes.escape_ascii()),
    }
}
