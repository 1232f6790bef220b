//! A byte stream inside this process, which ends in all the ways in which a socket does: in order, on one side alone, and
//! by a reset.
//!
//! Tests can put [`Weather`] between a stream and its wire.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::poll_proceed;

use crate::connection::WriteHalf;
use crate::sync::{Mutex, MutexGuard, lock};

/// What each direction holds unless it is told otherwise, in bytes: as much as a socket's buffer would.
pub(crate) const WINDOW: usize = 64 << 10;

/// What comes after the bytes of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    More,
    End,
    Reset,
}

/// One direction: what has been written and not been read.
struct Pipe {
    buffer: BytesMut,
    /// How many bytes it takes while nobody reads.
    window: usize,
    tail: Tail,
    /// Nobody will read any more.
    deaf: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn new() -> Mutex<Self> {
        Mutex::new(Self {
            buffer: BytesMut::new(),
            window: WINDOW,
            tail: Tail::More,
            deaf: false,
            reader: None,
            writer: None,
        })
    }

    /// Why nothing can be written, if nothing can.
    fn refusal(&self) -> Option<io::Error> {
        match self.tail {
            Tail::Reset => Some(reset()),
            Tail::End => Some(io::ErrorKind::BrokenPipe.into()),
            Tail::More => self.deaf.then(|| io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// Changes a direction and wakes whoever waits at it, without its lock.
fn change<T>(pipe: &Mutex<Pipe>, change: impl FnOnce(&mut Pipe) -> T) -> T {
    let mut locked = lock(pipe);
    let result = change(&mut locked);
    let wakers = [locked.reader.take(), locked.writer.take()];
    drop(locked);
    wakers.into_iter().flatten().for_each(Waker::wake);
    result
}

/// Leaves the task at one side of a direction. A waker that it replaces is dropped without the lock, as that may end a
/// task which holds a stream.
fn wait(mut pipe: MutexGuard<'_, Pipe>, at: impl FnOnce(&mut Pipe) -> &mut Option<Waker>, cx: &Context<'_>) {
    let place = at(&mut pipe);
    let known = place.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
    let replaced = if known { None } else { place.replace(cx.waker().clone()) };
    drop(pipe);
    drop(replaced);
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// What happens to bytes between a half and the wire: nothing, unless tests have it otherwise.
pub(crate) trait Weather: Send {
    fn poll_read(&mut self, end: &End, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>>;
    fn poll_write(&mut self, end: &End, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
}

/// One side of the wire, closed when both halves are dropped.
pub(crate) struct End {
    wire: Arc<[Mutex<Pipe>; 2]>,
    side: usize,
    /// Which wire of this process it is.
    number: u64,
}

impl End {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    fn incoming(&self) -> &Mutex<Pipe> {
        &self.wire[self.side]
    }

    fn outgoing(&self) -> &Mutex<Pipe> {
        &self.wire[1 - self.side]
    }

    /// Ends this side: the other one reads what is there, and then the end.
    pub(crate) fn shutdown(&self) {
        change(self.outgoing(), |pipe| {
            if pipe.tail == Tail::More {
                pipe.tail = Tail::End;
            }
        });
    }

    /// Breaks the wire. What is on its way is lost.
    pub(crate) fn reset(&self) {
        for pipe in &*self.wire {
            change(pipe, |pipe| {
                pipe.buffer = BytesMut::new();
                pipe.tail = Tail::Reset;
            });
        }
    }

    /// Reads some bytes, `most` at most.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>, most: usize) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let turn = ready!(poll_proceed(cx));
        let mut pipe = lock(self.incoming());
        if pipe.buffer.is_empty() {
            let result = match pipe.tail {
                Tail::End => Ok(()),
                Tail::Reset => Err(reset()),
                Tail::More => {
                    wait(pipe, |pipe| &mut pipe.reader, cx);
                    return Poll::Pending;
                }
            };
            turn.made_progress();
            return Poll::Ready(result);
        }
        let count = pipe.buffer.len().min(buf.remaining()).min(most);
        buf.put_slice(pipe.buffer.get(..count).unwrap_or_default());
        pipe.buffer.advance(count);
        let writer = pipe.writer.take();
        drop(pipe);
        if let Some(writer) = writer {
            writer.wake();
        }
        turn.made_progress();
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let turn = ready!(poll_proceed(cx));
        let mut pipe = lock(self.outgoing());
        if let Some(error) = pipe.refusal() {
            turn.made_progress();
            return Poll::Ready(Err(error));
        }
        let count = pipe.window.saturating_sub(pipe.buffer.len()).min(bytes.len());
        if count == 0 && !bytes.is_empty() {
            wait(pipe, |pipe| &mut pipe.writer, cx);
            return Poll::Pending;
        }
        pipe.buffer.extend_from_slice(bytes.get(..count).unwrap_or_default());
        let reader = pipe.reader.take();
        drop(pipe);
        if let Some(reader) = reader {
            reader.wake();
        }
        turn.made_progress();
        Poll::Ready(Ok(count))
    }
}

#[cfg(feature = "testing")]
impl End {
    /// How many bytes there are to read; none at the end.
    pub(crate) fn poll_readable(&self, cx: &Context<'_>) -> Poll<usize> {
        let pipe = lock(self.incoming());
        if pipe.buffer.is_empty() && pipe.tail == Tail::More {
            wait(pipe, |pipe| &mut pipe.reader, cx);
            return Poll::Pending;
        }
        Poll::Ready(pipe.buffer.len())
    }

    /// How many bytes can be written; none where an error would tell.
    pub(crate) fn poll_writable(&self, cx: &Context<'_>) -> Poll<usize> {
        let pipe = lock(self.outgoing());
        if pipe.refusal().is_some() {
            return Poll::Ready(0);
        }
        let room = pipe.window.saturating_sub(pipe.buffer.len());
        // also where there is room, as weather may have the writer wait, and a reset ends that
        wait(pipe, |pipe| &mut pipe.writer, cx);
        if room == 0 { Poll::Pending } else { Poll::Ready(room) }
    }

    /// Has this side see an end, whatever the other side still sends.
    pub(crate) fn stop_hearing(&self) {
        change(self.incoming(), |pipe| {
            pipe.buffer = BytesMut::new();
            pipe.tail = Tail::End;
            pipe.deaf = true;
        });
    }

    /// Sets how many bytes the other side may be ahead of this one.
    pub(crate) fn set_window(&self, bytes: usize) {
        change(self.incoming(), |pipe| pipe.window = bytes);
    }

    /// What was sent and not read yet by the other side, in bytes.
    pub(crate) fn unread(&self) -> usize {
        lock(self.outgoing()).buffer.len()
    }

    /// Whether this side would take more bytes.
    pub(crate) fn takes(&self) -> bool {
        let pipe = lock(self.incoming());
        !pipe.deaf && pipe.tail != Tail::Reset && pipe.buffer.len() < pipe.window
    }
}

impl Drop for End {
    /// As a system closes a socket: one that has not read everything resets the other.
    fn drop(&mut self) {
        let unread = change(self.incoming(), |pipe| {
            pipe.deaf = true;
            !std::mem::take(&mut pipe.buffer).is_empty()
        });
        change(self.outgoing(), |pipe| match pipe.tail {
            _ if unread => pipe.tail = Tail::Reset,
            Tail::More => pipe.tail = Tail::End,
            _ => {}
        });
    }
}

/// One end of a wire inside this process.
pub(crate) struct MemStream {
    read: MemRead,
    write: MemWrite,
}

impl MemStream {
    /// The two ends of a new wire.
    pub(crate) fn pair() -> (Self, Self) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let wire = Arc::new([Pipe::new(), Pipe::new()]);
        let end = |side| {
            let end = Arc::new(End { wire: Arc::clone(&wire), side, number });
            Self { read: MemRead { end: Arc::clone(&end), weather: None }, write: MemWrite { end, weather: None } }
        };
        (end(0), end(1))
    }

    pub(crate) fn into_halves(self) -> (MemRead, MemWrite) {
        (self.read, self.write)
    }

    pub(crate) fn end(&self) -> &Arc<End> {
        &self.read.end
    }
}

#[cfg(feature = "testing")]
impl MemStream {
    /// Has what this end reads and writes pass through weather.
    pub(crate) fn with_weather(mut self, read: Box<dyn Weather>, write: Box<dyn Weather>) -> Self {
        self.read.weather = Some(read);
        self.write.weather = Some(write);
        self
    }
}

pub(crate) struct MemRead {
    end: Arc<End>,
    weather: Option<Box<dyn Weather>>,
}

pub(crate) struct MemWrite {
    end: Arc<End>,
    weather: Option<Box<dyn Weather>>,
}

impl AsyncRead for MemRead {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { end, weather } = self.get_mut();
        match weather {
            None => end.poll_read(cx, buf, usize::MAX),
            Some(weather) => weather.poll_read(end, cx, buf),
        }
    }
}

impl WriteHalf for MemWrite {
    const MESSAGES: bool = false;

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.weather {
            None => self.end.poll_write(cx, bytes),
            Some(weather) => weather.poll_write(&self.end, cx, bytes),
        }
    }

    fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end.shutdown();
        Poll::Ready(Ok(()))
    }

    fn abort(&mut self) {
        self.end.reset();
    }
}

impl AsyncRead for MemStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

impl AsyncWrite for MemStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn all(stream: &mut MemStream) -> (Vec<u8>, Option<io::ErrorKind>) {
        let mut read = Vec::new();
        let result = stream.read_to_end(&mut read).await;
        (read, result.err().map(|error| error.kind()))
    }

    #[tokio::test]
    async fn both_directions_pass_and_end_on_their_own() {
        let (mut one, mut other) = MemStream::pair();
        one.write_all(b"question").await.unwrap();
        one.shutdown().await.unwrap();
        assert_eq!(all(&mut other).await, (b"question".to_vec(), None));
        other.write_all(b"answer").await.unwrap();
        drop(other);
        assert_eq!(all(&mut one).await, (b"answer".to_vec(), None));
        assert_eq!(one.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn no_more_is_taken_than_the_window_until_somebody_reads() {
        let (mut one, mut other) = MemStream::pair();
        let writer = tokio::spawn(async move { one.write_all(&vec![7; 5 * WINDOW]).await });
        tokio::task::yield_now().await;
        assert_eq!(lock(other.read.end.incoming()).buffer.len(), WINDOW);
        assert_eq!(all(&mut other).await.0.len(), 5 * WINDOW);
        writer.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_reset_loses_what_is_on_its_way_and_wakes_both_sides() {
        let (mut one, mut other) = MemStream::pair();
        one.write_all(b"lost").await.unwrap();
        let (read, mut write) = one.into_halves();
        let reader = tokio::spawn(async move { { read }.read(&mut [0; 9]).await });
        tokio::task::yield_now().await;
        write.abort();
        let reset = Some(io::ErrorKind::ConnectionReset);
        assert_eq!(reader.await.unwrap().err().map(|error| error.kind()), reset);
        assert_eq!(all(&mut other).await, (Vec::new(), reset));
        assert_eq!(other.write(b"x").await.err().map(|error| error.kind()), reset);
    }

    #[tokio::test]
    async fn who_closes_without_reading_everything_resets_the_other_after_its_last_bytes() {
        let (mut one, mut other) = MemStream::pair();
        one.write_all(b"not read").await.unwrap();
        other.write_all(b"last words").await.unwrap();
        let (read, write) = other.into_halves();
        drop(read);
        assert_eq!(one.read(&mut [0; 99]).await.unwrap(), 10, "half of it is there still");
        drop(write);
        assert_eq!(all(&mut one).await, (Vec::new(), Some(io::ErrorKind::ConnectionReset)));
    }
}
