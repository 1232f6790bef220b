//! The hand-written servers, and those over tokio-util's `Framed`.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{FutureExt, SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket, UnixListener};
use tokio::sync::mpsc;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::ready;
use crate::peers::Own;
use crate::plan::{Service, Transport};

/// What the hand-written servers read at once. Less makes them slower with large frames.
const READ: usize = 64 << 10;
/// Frames that wait for one member of the hand-written fan-out.
const QUEUE: usize = 1024;
/// As hythe's; with less, ten thousand connections come faster than they are accepted.
const BACKLOG: u32 = 4096;

/// What a hand-written server's connection is made of.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Io for T {}

pub(super) async fn streams(own: Own, service: Service, transport: Transport, socket: &Path) -> Result<()> {
    if transport == Transport::Unix {
        let listener = UnixListener::bind(socket)?;
        ready(&socket.display().to_string())?;
        loop {
            echo(own, listener.accept().await?.0);
        }
    }
    let listener = tcp_listener()?;
    ready(&listener.local_addr()?.to_string())?;
    let members = Members::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        match service {
            Service::Echo => echo(own, stream),
            Service::FanOut => fan_out(stream, &members),
        }
    }
}

pub(super) fn tcp_listener() -> Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    Ok(socket.listen(BACKLOG)?)
}

pub(super) fn echo(own: Own, stream: impl Io) {
    match own {
        Own::Framed => drop(tokio::spawn(framed(stream))),
        Own::FramedFeed => drop(tokio::spawn(framed_feed(stream))),
        Own::HandBytes => drop(tokio::spawn(by_hand_with_bytes(stream))),
        Own::Hand | Own::Hythe | Own::HytheBatched => drop(tokio::spawn(by_hand(stream))),
    }
}

/// Reads what is there, copies all whole frames to one buffer, writes that.
async fn by_hand(mut stream: impl Io) -> Result<()> {
    let mut input = BytesMut::with_capacity(READ);
    let mut output = BytesMut::with_capacity(READ);
    while stream.read_buf(&mut input).await? > 0 {
        while let Some(length) = whole_frame(&input)? {
            output.extend_from_slice(&input[..length]);
            input.advance(length);
        }
        stream.write_all(&output).await?;
        output.clear();
        input.reserve(READ);
    }
    Ok(())
}

/// As `by_hand`, with each message on its own in between.
async fn by_hand_with_bytes(mut stream: impl Io) -> Result<()> {
    let mut input = BytesMut::with_capacity(READ);
    let mut output = BytesMut::with_capacity(READ);
    while stream.read_buf(&mut input).await? > 0 {
        while let Some(length) = whole_frame(&input)? {
            input.advance(4);
            let message: Bytes = input.split_to(length - 4).freeze();
            output.put_u32(message.len() as u32);
            output.extend_from_slice(&message);
        }
        stream.write_all(&output).await?;
        output.clear();
        input.reserve(READ);
    }
    Ok(())
}

/// The length of the frame at the start, prefix included, once it is whole.
fn whole_frame(input: &[u8]) -> Result<Option<usize>> {
    let Some(prefix) = input.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*prefix) as usize;
    ensure!(length <= 1 << 20, "a frame of {length} bytes");
    Ok((input.len() >= 4 + length).then_some(4 + length))
}

async fn framed(stream: impl Io) -> Result<()> {
    let mut framed = Framed::new(stream, LengthDelimitedCodec::new());
    while let Some(frame) = framed.next().await {
        framed.send(frame?.freeze()).await?;
    }
    Ok(())
}

/// As long as there are messages, they are only encoded.
async fn framed_feed(stream: impl Io) -> Result<()> {
    let mut framed = Framed::new(stream, LengthDelimitedCodec::new());
    while let Some(frame) = framed.next().await {
        framed.feed(frame?.freeze()).await?;
        while let Some(Some(frame)) = framed.next().now_or_never() {
            framed.feed(frame?.freeze()).await?;
        }
        SinkExt::<Bytes>::flush(&mut framed).await?;
    }
    Ok(())
}

/// One datagram after the other; no sessions, no limits.
pub(super) async fn datagrams() -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 4 << 20)?;
    ready(&socket.local_addr()?.to_string())?;
    let mut datagram = vec![0; 64 << 10];
    loop {
        let (length, from) = socket.recv_from(&mut datagram).await?;
        socket.send_to(&datagram[..length], from).await?;
    }
}

type Members = Arc<Mutex<Vec<mpsc::Sender<Bytes>>>>;

/// Two tasks: one reads the member's frames and queues them for every member, one writes what is queued for this one,
/// all there is in one write.
fn fan_out(stream: TcpStream, members: &Members) {
    let (mut read, mut write) = stream.into_split();
    let (queue, mut queued) = mpsc::channel::<Bytes>(QUEUE);
    let members = Arc::clone(members);
    members.lock().unwrap_or_else(PoisonError::into_inner).push(queue);
    tokio::spawn(async move {
        let mut output = BytesMut::new();
        while let Some(frame) = queued.recv().await {
            output.extend_from_slice(&frame);
            while let Ok(frame) = queued.try_recv() {
                output.extend_from_slice(&frame);
            }
            write.write_all(&output).await?;
            output.clear();
        }
        Ok::<_, io::Error>(())
    });
    tokio::spawn(async move {
        let mut input = BytesMut::with_capacity(READ);
        while read.read_buf(&mut input).await? > 0 {
            while let Some(length) = whole_frame(&input)? {
                let frame = input.split_to(length).freeze();
                let mut members = members.lock().unwrap_or_else(PoisonError::into_inner);
                members.retain(|member| member.try_send(frame.clone()).is_ok());
            }
            input.reserve(READ);
        }
        Ok::<_, anyhow::Error>(())
    });
}
