//! The servers that are compared. Each runs alone in a child process, on one thread.

use std::io::{self, BufRead, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use hythe::codec::LengthDelimited;
use hythe::{Connection, Group, Handler, Limits, Overflow, Server, Session};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};
use tokio::sync::mpsc;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::measure;
use crate::plan::{Peer, Service, Transport};

/// What the hand-written servers read at once. Less makes them slower with large frames.
const READ: usize = 64 << 10;
/// Frames that wait for one member of the hand-written fan-out.
const QUEUE: usize = 1024;
/// As hythe's; with less, ten thousand connections come faster than they are accepted.
const BACKLOG: u32 = 4096;

/// The child's whole life: serves until its standard input ends, which it does when the parent is gone, too.
pub(crate) fn run(
    peer: Peer,
    service: Service,
    transport: Transport,
    socket: &Path,
    core: Option<usize>,
) -> Result<()> {
    if let Some(core) = core {
        measure::pin(core)?;
    }
    measure::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let socket = socket.to_path_buf();
    runtime.block_on(async move {
        match (peer, service) {
            (Peer::Hythe, Service::Echo) => hythe(Server::new(Echo), transport, &socket).await,
            (Peer::Hythe, Service::FanOut) => {
                let member = Member { group: Group::new(Overflow::Disconnect) };
                hythe(Server::new(member), transport, &socket).await
            }
            (Peer::Framed, Service::FanOut) => bail!("there is no canonical fan-out"),
            _ => loops(peer, service, transport, &socket).await,
        }
    })
}

/// Says where the server listens, and from then on answers each line with the CPU time used so far, in nanoseconds.
/// On a thread of its own, which costs the server two wake-ups a run.
fn ready(address: &str) -> Result<()> {
    println!("{address}");
    io::stdout().flush()?;
    std::thread::Builder::new().stack_size(64 << 10).spawn(|| {
        let mut line = String::new();
        while io::stdin().lock().read_line(&mut line).is_ok_and(|read| read > 0) {
            let time = clock_gettime(ClockId::ProcessCPUTime);
            println!("{}", time.tv_sec * 1_000_000_000 + time.tv_nsec);
            line.clear();
        }
        std::process::exit(0);
    })?;
    Ok(())
}

// hythe

#[derive(Clone)]
struct Echo;

impl Handler for Echo {
    type In = Bytes;
    type Out = Bytes;

    async fn on_message(&mut self, conn: &mut Connection<Bytes>, message: Bytes) -> Result<()> {
        conn.send(message).await?;
        Ok(())
    }
}

#[derive(Clone)]
struct Member {
    group: Group<Bytes>,
}

impl Handler for Member {
    type In = Bytes;
    type Out = Bytes;

    async fn on_open(&mut self, conn: &mut Connection<Bytes>) -> Result<()> {
        self.group.join(conn);
        Ok(())
    }

    async fn on_message(&mut self, _: &mut Connection<Bytes>, message: Bytes) -> Result<()> {
        self.group.send(message);
        Ok(())
    }
}

async fn hythe<S: Session<In = Bytes, Out = Bytes>>(
    server: Server<S>,
    transport: Transport,
    socket: &Path,
) -> Result<()> {
    let endpoint = match transport {
        Transport::Tcp => "tcp://127.0.0.1:0".to_owned(),
        Transport::Unix => format!("unix://{}", socket.display()),
    };
    // the defaults, but for the number of connections
    let limits = Limits::edge().with_max_connections(20_000);
    let running = server.limits(limits).bind(endpoint.as_str(), LengthDelimited::new()).start().await?;
    let Some(endpoint) = running.endpoints().first().map(ToString::to_string) else { bail!("it listens nowhere") };
    ready(endpoint.trim_start_matches("tcp://").trim_start_matches("unix://"))?;
    std::future::pending().await
}

// hand-written, and tokio-util's

/// What a hand-written server's connection is made of.
trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Io for T {}

async fn loops(peer: Peer, service: Service, transport: Transport, socket: &Path) -> Result<()> {
    if transport == Transport::Unix {
        let listener = UnixListener::bind(socket)?;
        ready(&socket.display().to_string())?;
        loop {
            echo(peer, listener.accept().await?.0);
        }
    }
    let listener = tcp_listener()?;
    ready(&listener.local_addr()?.to_string())?;
    let members = Members::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        match service {
            Service::Echo => echo(peer, stream),
            Service::FanOut => fan_out(stream, &members),
        }
    }
}

fn tcp_listener() -> Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    Ok(socket.listen(BACKLOG)?)
}

fn echo(peer: Peer, stream: impl Io) {
    if peer == Peer::Framed {
        tokio::spawn(framed(stream));
    } else {
        tokio::spawn(by_hand(stream));
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
