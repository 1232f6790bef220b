//! Messages and descriptors over a Unix socket, and who is at its other end.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use rustix::{cmsg_space, process};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::protocol::{Malformed, Message};

/// Descriptors that may wait for their messages: more than ever do, as each comes with the first byte of its own.
const HELD: usize = 16;

pub(crate) struct Channel {
    stream: UnixStream,
    received: BytesMut,
    descriptors: VecDeque<OwnedFd>,
}

/// Why nothing more comes of a channel.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The other side has gone.
    Ended,
    /// It says nothing, or takes nothing, for this long.
    Late(Duration),
    /// What it says makes no sense.
    Malformed(Malformed),
    /// It said this message, and another one was due.
    Unexpected(&'static str),
    /// It does not want to, for this reason.
    Refused(String),
    /// A descriptor is missing, or is one too many.
    Descriptors,
    /// It belongs to this user, who has no business here.
    User(u32),
    Io(io::Error),
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ended => write!(f, "the other process has closed the connection"),
            Self::Late(limit) => write!(f, "the other process did not answer within {limit:?}"),
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::Unexpected(name) => write!(f, "the other process said {name} out of turn"),
            // one line, whatever it is
            Self::Refused(why) => write!(f, "the other process refused: {}", why.escape_debug()),
            Self::Descriptors => write!(f, "the descriptors that came are not those that were announced"),
            Self::User(uid) => write!(f, "the other process belongs to user {uid}, and this one to {}", me()),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Broken {}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::BrokenPipe | Kind::ConnectionReset | Kind::NotConnected => Self::Ended,
            _ => Self::Io(error),
        }
    }
}

fn me() -> u32 {
    process::geteuid().as_raw()
}

impl Channel {
    /// Takes a connection, if the user at its other end is this process's own, or root; with the number of the process
    /// there. The system vouches for both, as they were when it connected, or began to listen.
    pub(crate) fn new(stream: UnixStream) -> Result<(Self, Option<i32>), Broken> {
        let peer = stream.peer_cred()?;
        if peer.uid() != me() && peer.uid() != 0 {
            let _ = stream.try_write(&Message::Refused(format!("user {} is not welcome", peer.uid())).encode());
            return Err(Broken::User(peer.uid()));
        }
        Ok((Self { stream, received: BytesMut::new(), descriptors: VecDeque::new() }, peer.pid()))
    }

    /// Says something.
    pub(crate) async fn send(&self, message: &Message, within: Duration) -> Result<(), Broken> {
        self.send_with(message, None, within).await
    }

    /// Says something, and gives a descriptor with it.
    pub(crate) async fn send_with(
        &self,
        message: &Message,
        mut descriptor: Option<BorrowedFd<'_>>,
        within: Duration,
    ) -> Result<(), Broken> {
        let mut bytes = message.encode();
        let all = async {
            while bytes.has_remaining() {
                let write = || write(self.stream.as_fd(), &bytes, descriptor);
                let written = self.stream.async_io(Interest::WRITABLE, write).await?;
                // it goes with the first byte
                descriptor = None;
                bytes.advance(written);
            }
            Ok(())
        };
        timeout(within, all).await.unwrap_or(Err(Broken::Late(within)))
    }

    /// The next message, with a descriptor if it is one that has any.
    pub(crate) async fn receive(&mut self, within: Duration) -> Result<(Message, Option<OwnedFd>), Broken> {
        let message = timeout(within, self.next()).await.unwrap_or(Err(Broken::Late(within)))?;
        match message {
            Message::Refused(why) => Err(Broken::Refused(why)),
            Message::Socket { .. } => match self.descriptors.pop_front() {
                Some(descriptor) => Ok((message, Some(descriptor))),
                None => Err(Broken::Descriptors),
            },
            // one read brings those of one message only
            _ if self.descriptors.is_empty() => Ok((message, None)),
            _ => Err(Broken::Descriptors),
        }
    }

    /// Waits for this very message.
    pub(crate) async fn expect(&mut self, wanted: &Message, within: Duration) -> Result<(), Broken> {
        let (message, _) = self.receive(within).await?;
        if message == *wanted { Ok(()) } else { Err(Broken::Unexpected(message.name())) }
    }

    async fn next(&mut self) -> Result<Message, Broken> {
        loop {
            if let Some(message) = Message::decode(&mut self.received).map_err(Broken::Malformed)? {
                return Ok(message);
            }
            let (received, descriptors) = (&mut self.received, &mut self.descriptors);
            let read = || read(self.stream.as_fd(), received, descriptors);
            if self.stream.async_io(Interest::READABLE, read).await? == 0 {
                return Err(Broken::Ended);
            }
        }
    }
}

fn write(stream: BorrowedFd<'_>, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let rights = descriptor.as_slice();
    if !rights.is_empty() && !control.push(SendAncillaryMessage::ScmRights(rights)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // a peer that has gone is an error, and no signal
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

fn read(stream: BorrowedFd<'_>, bytes: &mut BytesMut, descriptors: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(HELD))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = [0; 1024];
    let result = recvmsg(stream, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let messages = control.drain();
    let rights = messages.filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights),
        _ => None,
    });
    descriptors.extend(rights.flatten());
    // some were lost: there were too many, or this process may not have more
    if result.flags.contains(ReturnFlags::CTRUNC) || descriptors.len() > HELD {
        return Err(io::Error::other("descriptors were lost: too many, or the limit of open files is reached"));
    }
    bytes.extend_from_slice(buffer.get(..result.bytes).unwrap_or_default());
    Ok(result.bytes)
}
