//! Thousands of clients on one thread.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hythe::Bytes;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

use crate::wire::Inbox;

/// What one poll takes at most: an attack's step is to be short.
const EVENTS: usize = 16;

/// How a connection ended, from its client's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// The server's end came.
    Closed,
    /// A reset.
    Reset,
    /// It was never made.
    Refused,
    /// We closed it.
    Ours,
}

/// One client.
pub(crate) struct Member {
    /// Nothing once it has ended.
    socket: Option<Socket>,
    /// Sent as soon as it is connected.
    hello: Bytes,
    inbox: Inbox,
    /// Just before it was asked to connect.
    pub(crate) began: Instant,
    pub(crate) connected: Option<Instant>,
    /// When the first message came.
    pub(crate) answered: Option<Instant>,
    pub(crate) ended: Option<(Instant, End)>,
    /// The messages that came.
    pub(crate) messages: Vec<Vec<u8>>,
    /// It reads nothing for now.
    deaf: bool,
}

impl Member {
    pub(crate) fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    /// Bytes of a message that never became whole.
    pub(crate) fn torn(&self) -> usize {
        self.inbox.left()
    }

    fn end(&mut self, how: End) {
        self.socket = None;
        self.ended = Some((Instant::now(), how));
    }
}

pub(crate) struct Crowd {
    poll: OwnedFd,
    pub(crate) members: Vec<Member>,
    /// How many are connected, have been answered, have ended.
    pub(crate) connected: usize,
    pub(crate) answered: usize,
    pub(crate) ended: usize,
}

impl Crowd {
    pub(crate) fn new() -> Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { poll, members: Vec::new(), connected: 0, answered: 0, ended: 0 })
    }

    /// Begins a connection from one of this machine's addresses.
    pub(crate) fn open(&mut self, to: SocketAddr, from: Ipv4Addr, hello: &Bytes) -> Result<usize> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if from != Ipv4Addr::LOCALHOST {
            socket.bind(&SocketAddr::new(from.into(), 0).into())?;
        }
        let began = Instant::now();
        let result = socket.connect(&to.into());
        let number = self.members.len();
        let token = epoll::EventData::new_u64(number as u64);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&self.poll, &socket, token, flags)?;
        let mut member = Member {
            socket: Some(socket),
            hello: hello.clone(),
            inbox: Inbox::default(),
            began,
            connected: None,
            answered: None,
            ended: None,
            messages: Vec::new(),
            deaf: false,
        };
        match result {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                member.end(End::Refused);
                self.ended += 1;
            }
            Err(error) => return Err(error).context("connecting"),
        }
        self.members.push(member);
        Ok(number)
    }

    /// As many as `count`, at once.
    pub(crate) fn open_all(&mut self, count: usize, to: SocketAddr, from: Ipv4Addr, hello: &Bytes) -> Result<()> {
        (0..count).try_for_each(|_| self.open(to, from, hello).map(drop))
    }

    /// Sends, where the member is still there; what the socket does not take at once is an error.
    pub(crate) fn send(&mut self, number: usize, bytes: &[u8]) -> Result<()> {
        let member = &mut self.members[number];
        let Some(socket) = &mut member.socket else { return Ok(()) };
        match socket.write(bytes) {
            Ok(written) => ensure!(written == bytes.len(), "a socket took {written} bytes of {}", bytes.len()),
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                member.end(End::Reset);
                self.ended += 1;
            }
            Err(error) => return Err(error).context("writing"),
        }
        Ok(())
    }

    /// Ends our side of a member; the server's end is still to come.
    pub(crate) fn finish(&self, number: usize) -> Result<()> {
        match &self.members[number].socket {
            // not connected any more: its end is on the way
            Some(socket) => Ok(socket.shutdown(Shutdown::Write).or_else(|error| match error.kind() {
                ErrorKind::NotConnected => Ok(()),
                _ => Err(error),
            })?),
            None => Ok(()),
        }
    }

    /// Has a member read nothing, or read again.
    pub(crate) fn deafen(&mut self, number: usize, deaf: bool) -> Result<()> {
        self.members[number].deaf = deaf;
        if deaf { Ok(()) } else { self.take(number, epoll::EventFlags::IN) }
    }

    /// Closes a member.
    pub(crate) fn close(&mut self, number: usize) {
        let member = &mut self.members[number];
        if member.is_open() {
            member.end(End::Ours);
            self.ended += 1;
        }
    }

    /// Takes what has happened, after waiting for it up to a time; how much that was.
    pub(crate) fn poll(&mut self, wait: Duration) -> Result<usize> {
        let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS);
        match epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            self.take(event.data.u64() as usize, event.flags)?;
        }
        Ok(events.len())
    }

    /// Polls until a condition holds, or not in time.
    pub(crate) fn wait(&mut self, time: Duration, mut until: impl FnMut(&Self) -> bool) -> Result<bool> {
        let deadline = Instant::now() + time;
        while !until(self) {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            self.poll(Duration::from_millis(5))?;
        }
        Ok(true)
    }

    fn take(&mut self, number: usize, flags: epoll::EventFlags) -> Result<()> {
        let member = &mut self.members[number];
        let Some(socket) = &mut member.socket else { return Ok(()) };
        if member.connected.is_none() {
            if !flags.intersects(epoll::EventFlags::OUT | epoll::EventFlags::ERR | epoll::EventFlags::HUP) {
                return Ok(());
            }
            if socket.take_error()?.is_some() {
                member.end(End::Refused);
                self.ended += 1;
                return Ok(());
            }
            member.connected = Some(Instant::now());
            self.connected += 1;
            // where the server has closed it already, the read below tells
            let _ = socket.write(&member.hello);
        }
        if member.deaf {
            return Ok(());
        }
        let mut buffer = [0; 4096];
        let end = loop {
            match socket.read(&mut buffer) {
                Ok(0) => break End::Closed,
                Ok(read) => member.inbox.extend(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break End::Ours,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break End::Reset,
            }
        };
        while let Some(message) = member.inbox.take() {
            member.messages.push(message);
            if member.answered.is_none() {
                member.answered = Some(Instant::now());
                self.answered += 1;
            }
        }
        if end != End::Ours {
            member.end(end);
            self.ended += 1;
        }
        Ok(())
    }
}
