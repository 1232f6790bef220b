//! A transport of the models: it takes little at a time, and only when the peer has read what was there.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use shuttle::sync::Condvar;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::WriteHalf;
use crate::peer::PeerAddress;
use crate::sync::{Mutex, lock};
use crate::transport::ByteStream;

/// Both ends of it.
pub(crate) struct Pipe {
    /// What it takes before the peer has to read, in bytes or messages.
    room: usize,
    state: Mutex<State>,
    /// Told when something was written, or the end.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// What was written and not read yet; on a stream, one by one.
    inside: Vec<Vec<u8>>,
    read: usize,
    /// Whoever has asked last is told, as with a socket.
    writer: Option<Waker>,
    reader: Option<Waker>,
    input: Vec<u8>,
    ended: bool,
}

impl Pipe {
    pub(crate) fn new(room: usize) -> Arc<Self> {
        Arc::new(Self { room, state: Mutex::default(), changed: Condvar::new() })
    }

    /// What the peer has to say.
    pub(crate) fn with_input(room: usize, input: &[u8]) -> Arc<Self> {
        let pipe = Self::new(room);
        lock(&pipe.state).input = input.to_vec();
        pipe
    }

    /// The peer reads until the end: bytes, one by one, or messages.
    pub(crate) fn read(&self) -> Vec<Vec<u8>> {
        let mut seen = Vec::new();
        loop {
            let mut state = lock(&self.state);
            while state.inside.is_empty() {
                if state.ended {
                    return seen;
                }
                state = self.changed.wait(state).unwrap();
            }
            let inside = std::mem::take(&mut state.inside);
            state.read += inside.len();
            let writer = state.writer.take();
            drop(state);
            self.changed.notify_all();
            seen.extend(inside);
            if let Some(writer) = writer {
                writer.wake();
            }
        }
    }

    /// Waits until the peer has read so much.
    pub(crate) fn wait_read(&self, much: usize) {
        let mut state = lock(&self.state);
        while state.read < much {
            state = self.changed.wait(state).unwrap();
        }
    }

    pub(crate) fn stream(self: &Arc<Self>) -> Stream {
        Stream(Arc::clone(self))
    }

    fn poll_write(&self, cx: &mut Context<'_>, write: impl FnOnce(&mut State, usize) -> usize) -> Poll<usize> {
        let mut state = lock(&self.state);
        let room = self.room.saturating_sub(state.inside.len());
        if room == 0 {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let written = write(&mut state, room);
        drop(state);
        self.changed.notify_all();
        Poll::Ready(written)
    }

    fn end(&self) {
        let mut state = lock(&self.state);
        state.ended = true;
        let reader = state.reader.take();
        drop(state);
        self.changed.notify_all();
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// Our end of a pipe, as a byte stream. What the peer says is followed by its end once it has seen ours.
pub(crate) struct Stream(Arc<Pipe>);

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0.state);
        if state.input.is_empty() && !state.ended {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let length = buffer.remaining().min(state.input.len());
        buffer.put_slice(&state.input.drain(..length).collect::<Vec<_>>());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        WriteHalf::poll_write(self.get_mut(), cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        WriteHalf::poll_shutdown(self.get_mut(), cx)
    }
}

impl WriteHalf for Stream {
    const MESSAGES: bool = false;

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let write = |state: &mut State, room: usize| {
            let taken = bytes.iter().take(room).map(|byte| vec![*byte]);
            state.inside.extend(taken);
            bytes.len().min(room)
        };
        self.0.poll_write(cx, write).map(Ok)
    }

    fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.end();
        Poll::Ready(Ok(()))
    }

    fn abort(&mut self) {
        self.0.end();
    }
}

impl ByteStream for Stream {
    type Read = Self;
    type Write = Self;

    fn address(&self) -> PeerAddress {
        PeerAddress::Memory(0)
    }

    fn split(self) -> (Self, Self) {
        let read = Self(Arc::clone(&self.0));
        (read, self)
    }

    fn abort(self) {
        self.0.end();
    }
}

/// Our end of a pipe, as a message transport.
pub(crate) struct Messages(pub(crate) Arc<Pipe>);

impl WriteHalf for Messages {
    const MESSAGES: bool = true;

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let write = |state: &mut State, _| {
            state.inside.push(bytes.to_vec());
            bytes.len()
        };
        self.0.poll_write(cx, write).map(Ok)
    }

    fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.end();
        Poll::Ready(Ok(()))
    }

    fn abort(&mut self) {
        self.0.end();
    }
}
