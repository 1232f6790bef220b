//! The load generator: one thread, raw epoll, no copies. It must cost less than the servers do.

mod connects;
mod datagrams;
#[cfg(feature = "tls")]
mod tls;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::measure::{Sample, Server, Window};
use crate::plan::{Load, Transport};

/// A server that gives nothing for so long is broken.
const PATIENCE: Duration = Duration::from_secs(5);
/// What one read takes at most.
const READ: usize = 256 << 10;

/// Runs a load against a server.
pub(crate) fn run(load: Load, server: &mut Server, warm_up: Duration, length: Duration) -> Result<Sample> {
    match load {
        Load::Echo { connections, size, in_flight } => {
            let stream = Stream::new(size, in_flight);
            let mut conns: Vec<Conn> =
                (0..connections).map(|i| Conn::open(server, i, &stream)).collect::<Result<_>>()?;
            echo(
                &mut conns,
                &stream,
                in_flight as u64,
                &Poller::new(server.cores)?,
                Window::new(server, warm_up, length),
            )
        }
        Load::FanOut { members, size, in_flight } => {
            let stream = Stream::new(size, in_flight);
            let mut conns = join(server, members, &stream)?;
            fan_out(&mut conns, &stream, in_flight, &Poller::new(server.cores)?, Window::new(server, warm_up, length))
        }
        Load::Datagrams { sockets, size, in_flight } => {
            let poller = Poller::new(server.cores)?;
            datagrams::run(sockets, size, in_flight, &poller, Window::new(server, warm_up, length))
        }
        Load::Connect { at_once, size } => {
            let stream = Stream::new(size, 1);
            let (poller, address) = (Poller::new(server.cores)?, server.address.parse()?);
            connects::run(at_once, address, &stream, &poller, Window::new(server, warm_up, length))
        }
        Load::Idle { connections, touched } => idle(server, connections, touched),
    }
}

/// What all connections send: frames of one size whose contents differ, again and again. As the whole stream is known,
/// a position in it is all there is to remember, and what comes back is compared in place.
struct Stream {
    frame: usize,
    /// Bytes after which it repeats.
    period: usize,
    /// Two periods.
    bytes: Vec<u8>,
}

impl Stream {
    fn new(size: usize, in_flight: usize) -> Self {
        let frames = (2 * in_flight).max(8);
        let mut bytes = Vec::new();
        for number in 0..frames {
            bytes.extend_from_slice(&(size as u32).to_be_bytes());
            bytes.extend((0..size).map(|i| (number * 31 + i) as u8));
        }
        let period = bytes.len();
        bytes.extend_from_within(..);
        Self { frame: 4 + size, period, bytes }
    }

    /// `length` bytes, at most a period, from a position on.
    fn slice(&self, position: u64, length: usize) -> &[u8] {
        let start = (position % self.period as u64) as usize;
        &self.bytes[start..start + length]
    }

    fn check(&self, mut position: u64, received: &[u8]) -> Result<()> {
        for part in received.chunks(self.period) {
            ensure!(part == self.slice(position, part.len()), "other bytes came back than were sent");
            position += part.len() as u64;
        }
        Ok(())
    }
}

/// One connection, as positions in the stream.
struct Conn {
    socket: OwnedFd,
    token: u64,
    /// Where in the stream it begins: not all at the same frame, so that a mix-up shows.
    start: u64,
    sent: u64,
    received: u64,
    /// The socket takes no more for now.
    blocked: bool,
}

impl Conn {
    fn open(server: &Server, token: usize, stream: &Stream) -> Result<Self> {
        let socket = match server.transport {
            Transport::Tcp => {
                let socket = tcp(server)?;
                socket.set_nonblocking(true)?;
                socket.into()
            }
            Transport::Udp | Transport::Tls => bail!("no such load"),
            Transport::Unix => {
                let socket = UnixStream::connect(&server.address)?;
                socket.set_nonblocking(true)?;
                socket.into()
            }
        };
        let start = (token * stream.frame) as u64;
        Ok(Self { socket, token: token as u64, start, sent: 0, received: 0, blocked: false })
    }

    /// Whole frames received.
    fn frames(&self, stream: &Stream) -> u64 {
        self.received / stream.frame as u64
    }

    /// Reads once, and checks it. `start` is where the bytes that come begin in the stream.
    fn read(&mut self, stream: &Stream, start: u64, buffer: &mut [u8]) -> Result<()> {
        match rustix::io::read(&self.socket, &mut *buffer) {
            Ok(0) => bail!("the server closed a connection"),
            Ok(read) => {
                stream.check(start + self.received, &buffer[..read])?;
                self.received += read as u64;
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error).context("reading"),
        }
        Ok(())
    }

    /// Sends up to the end of a frame, as far as the socket takes it. Gives the numbers of the frames that were begun.
    fn send(&mut self, stream: &Stream, frames: u64, poller: &Poller) -> Result<std::ops::Range<u64>> {
        let (frame, end) = (stream.frame as u64, frames * stream.frame as u64);
        let first = self.sent.div_ceil(frame);
        if self.sent < end {
            let next = stream.slice(self.start + self.sent, (end - self.sent) as usize);
            match rustix::io::write(&self.socket, next) {
                Ok(written) => self.sent += written as u64,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error).context("writing"),
            }
            let blocked = self.sent < end;
            if blocked != self.blocked {
                self.blocked = blocked;
                poller.update(self)?;
            }
        }
        Ok(first..self.sent.div_ceil(frame))
    }
}

struct Poller {
    epoll: OwnedFd,
    /// None, where the load has a core of its own: a load that sleeps must be woken, by the server, and the slower the
    /// server is, the more often.
    timeout: Timespec,
}

impl Poller {
    fn new(cores: Option<(usize, usize)>) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let tv_nsec = if cores.is_some() { 0 } else { 10_000_000 };
        Ok(Self { epoll, timeout: Timespec { tv_sec: 0, tv_nsec } })
    }

    fn add(&self, conn: &Conn) -> Result<()> {
        self.watch(&conn.socket, conn.token)
    }

    fn watch(&self, socket: &impl AsFd, token: u64) -> Result<()> {
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(token), epoll::EventFlags::IN)?)
    }

    fn update(&self, conn: &Conn) -> Result<()> {
        let flags =
            epoll::EventFlags::IN | if conn.blocked { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
        Ok(epoll::modify(&self.epoll, &conn.socket, epoll::EventData::new_u64(conn.token), flags)?)
    }

    /// Waits 10 ms at most. `true` in an event: there is something to read.
    fn wait<'a>(&self, events: &'a mut Vec<epoll::Event>) -> Result<impl Iterator<Item = (usize, bool)> + 'a> {
        events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), Some(&self.timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let readable = |flags: epoll::EventFlags| flags != epoll::EventFlags::OUT;
        Ok(events.iter().map(move |event| (event.data.u64() as usize, readable(event.flags))))
    }
}

/// When frames were sent: the number after the last one of a write, and the time.
type Writes = VecDeque<(u64, u64)>;

fn echo(
    conns: &mut [Conn],
    stream: &Stream,
    in_flight: u64,
    poller: &Poller,
    mut window: Window<'_>,
) -> Result<Sample> {
    let mut writes: Vec<Writes> = vec![Writes::new(); conns.len()];
    let (mut events, mut buffer) = (Vec::with_capacity(1024), vec![0; READ]);
    for (conn, writes) in conns.iter_mut().zip(&mut writes) {
        poller.add(conn)?;
        writes.push_back((conn.send(stream, in_flight, poller)?.end, window.now()));
    }
    let mut heard = window.now();
    loop {
        if let Some(sample) = window.poll()? {
            return Ok(sample);
        }
        for (i, readable) in poller.wait(&mut events)? {
            let (conn, writes) = (&mut conns[i], &mut writes[i]);
            let mut done = conn.frames(stream);
            if readable {
                conn.read(stream, conn.start, &mut buffer)?;
            }
            heard = window.now();
            let frames = conn.frames(stream);
            while done < frames {
                let (end, at) = writes.front_mut().context("a frame came that was never sent")?;
                let until = frames.min(*end);
                window.record(until - done, heard - *at);
                if until == *end {
                    writes.pop_front();
                }
                done = until;
            }
            let begun = conn.send(stream, frames + in_flight, poller)?;
            if !begun.is_empty() {
                writes.push_back((begun.end, heard));
            }
        }
        ensure!(window.now() - heard < PATIENCE.as_nanos() as u64, "the server is silent");
    }
}

/// Connects one member after the other. Each sends a frame and awaits it, so that it is known to be a member; all that
/// were there before get that frame as well.
fn join(server: &Server, members: usize, stream: &Stream) -> Result<Vec<Conn>> {
    let hello = stream.slice(0, stream.frame);
    let mut sockets: Vec<TcpStream> = Vec::new();
    let mut received = vec![0; stream.frame * members];
    for _ in 0..members {
        let mut socket = tcp(server)?;
        socket.write_all(hello)?;
        socket.read_exact(&mut received[..stream.frame])?;
        sockets.push(socket);
    }
    let mut conns = Vec::new();
    for (i, mut socket) in sockets.into_iter().enumerate() {
        let later = stream.frame * (members - 1 - i);
        socket.read_exact(&mut received[..later])?;
        ensure!(received[..later].chunks(stream.frame).all(|frame| frame == hello), "other bytes came than were sent");
        socket.set_nonblocking(true)?;
        conns.push(Conn { socket: socket.into(), token: i as u64, start: 0, sent: 0, received: 0, blocked: false });
    }
    Ok(conns)
}

fn fan_out(
    conns: &mut [Conn],
    stream: &Stream,
    in_flight: usize,
    poller: &Poller,
    mut window: Window<'_>,
) -> Result<Sample> {
    let members = conns.len();
    // of the frames that are under way, by number modulo `in_flight`: how many members still lack it, when it was sent
    let (mut lacking, mut sent) = (vec![members; in_flight], vec![0; in_flight]);
    let place = |frame: u64| (frame % in_flight as u64) as usize;
    // the first frame that somebody lacks
    let mut base = 0;
    let (mut events, mut buffer) = (Vec::with_capacity(1024), vec![0; READ]);
    for conn in &*conns {
        poller.add(conn)?;
    }
    let mut heard = window.now();
    loop {
        if let Some(sample) = window.poll()? {
            return Ok(sample);
        }
        for frame in conns[0].send(stream, base + in_flight as u64, poller)? {
            sent[place(frame)] = window.now();
        }
        for (i, readable) in poller.wait(&mut events)? {
            if !readable {
                continue;
            }
            let before = conns[i].frames(stream);
            conns[i].read(stream, 0, &mut buffer)?;
            heard = window.now();
            let frames = conns[i].frames(stream);
            ensure!(frames * stream.frame as u64 <= conns[0].sent, "a frame came that was never sent");
            for frame in before..frames {
                lacking[place(frame)] -= 1;
                window.record(1, heard - sent[place(frame)]);
            }
            let full = base;
            while lacking[place(base)] == 0 {
                lacking[place(base)] = members;
                base += 1;
            }
            if base > full {
                for frame in conns[0].send(stream, base + in_flight as u64, poller)? {
                    sent[place(frame)] = heard;
                }
            }
        }
        ensure!(window.now() - heard < PATIENCE.as_nanos() as u64, "the server is silent");
    }
}

/// What idle connections add to the server's resident memory.
fn idle(server: &Server, connections: usize, touched: bool) -> Result<Sample> {
    let (descriptors, before) = (server.descriptors()?, server.resident()?);
    let stream = Stream::new(64, 1);
    let mut held: Vec<Box<dyn std::any::Any>> = Vec::with_capacity(connections);
    #[cfg(feature = "tls")]
    let tls = (server.transport == Transport::Tls).then(|| tls::config(&server.certificate)).transpose()?;
    for _ in 0..connections {
        let mut socket = tcp(server)?;
        #[cfg(feature = "tls")]
        if let Some(tls) = &tls {
            let mut socket = tls::connect(tls, socket)?;
            touch(&mut socket, &stream)?;
            held.push(Box::new(socket));
            continue;
        }
        if touched {
            touch(&mut socket, &stream)?;
        }
        held.push(Box::new(socket));
    }
    let patience = Instant::now() + PATIENCE;
    while server.descriptors()? < descriptors + connections {
        ensure!(Instant::now() < patience, "the server has not accepted all connections");
        std::thread::sleep(Duration::from_millis(20));
    }
    // the last one accepted gets its task
    std::thread::sleep(Duration::from_millis(100));
    let grown = server.resident()?.saturating_sub(before);
    ensure!(server.descriptors()? >= descriptors + connections, "the server has closed connections");
    Ok(Sample { cost: grown as f64 / connections as f64, ..Sample::default() })
}

/// One frame there and back.
fn touch(socket: &mut (impl Read + Write), stream: &Stream) -> Result<()> {
    let frame = stream.slice(0, stream.frame);
    let mut back = vec![0; stream.frame];
    socket.write_all(frame)?;
    socket.read_exact(&mut back)?;
    ensure!(back == frame, "other bytes came back than were sent");
    Ok(())
}

fn tcp(server: &Server) -> Result<TcpStream> {
    let socket = TcpStream::connect(&server.address).with_context(|| format!("connecting to {}", server.address))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}
