//! What the tests of handovers share: a server to take over, and one side of the conversation, which says what it likes.
#![allow(dead_code, clippy::unwrap_used)] // Each test crate uses its own part.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::path::Path;

use hythe::codec::{Datagram, Lines as LinesCodec, Text};
use hythe::{Error, Running, Server};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UdpSocket, UnixStream};

use crate::server_support::{Echo, Lines, addr, within};

pub(crate) const HELLO: &[u8] = b"hyth\x01\x01\0\0";
pub(crate) const LISTED: &[u8] = b"hyth\x01\x03\0\x02\0\x02";
pub(crate) const READY: &[u8] = b"hyth\x01\x04\0\0";
pub(crate) const SWITCH: &[u8] = b"hyth\x01\x05\0\0";
pub(crate) const SERVING: &[u8] = b"hyth\x01\x06\0\0";
pub(crate) const REFUSED: &[u8] = b"hyth\x01\x08\0\x02no";
pub(crate) const HEADER: usize = 8;

/// A server with a socket of each kind, and one more for the handover.
pub(crate) fn server(dir: &Path) -> Server<impl hythe::Session<In = String, Out = String>> {
    Server::new(Echo)
        .bind("tcp://127.0.0.1:0", LinesCodec::new())
        .bind("udp://127.0.0.1:0", Text::over(Datagram::new()))
        .bind(format!("unix://{}", dir.join("sock").display()), LinesCodec::new())
        .handover(dir.join("handover"))
}

/// It serves on every endpoint.
pub(crate) async fn serves(running: &Running, dir: &Path) {
    assert_eq!(Lines::tcp(addr(running, 0)).await.ask("hello").await.as_deref(), Some("hello"));
    let stream = UnixStream::connect(dir.join("sock")).await.unwrap();
    assert_eq!(Lines::new(stream).ask("hello").await.as_deref(), Some("hello"));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(b"hello", addr(running, 1)).await.unwrap();
    let mut answer = [0; 10];
    assert_eq!(within("a datagram", socket.recv(&mut answer)).await.unwrap(), 5);
}

/// The other side of a handover, which says what it likes.
pub(crate) struct Peer(pub(crate) UnixStream);

impl Peer {
    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// The kind of the next message, and its content. Descriptors that come with it are lost.
    pub(crate) async fn hear(&mut self) -> (u8, Vec<u8>) {
        let mut header = [0; HEADER];
        within("a message", self.0.read_exact(&mut header)).await.unwrap();
        assert_eq!(header[..5], *b"hyth\x01");
        let mut content = vec![0; usize::from(u16::from_be_bytes([header[6], header[7]]))];
        self.0.read_exact(&mut content).await.unwrap();
        (header[5], content)
    }

    /// Says Hello and hears of everything.
    pub(crate) async fn list(&mut self) {
        self.say(HELLO).await;
        for _ in 0..4 {
            assert_eq!(self.hear().await.0, 2);
        }
        assert_eq!(self.hear().await, (3, vec![0, 4]));
    }

    /// What it is told, where it is refused.
    pub(crate) async fn refused(&mut self) -> String {
        let (kind, content) = self.hear().await;
        assert_eq!(kind, 8);
        let mut rest = Vec::new();
        within("the end", self.0.read_to_end(&mut rest)).await.unwrap();
        assert!(rest.is_empty());
        String::from_utf8(content).unwrap()
    }

    pub(crate) fn send(&self, bytes: &[u8], descriptor: BorrowedFd<'_>) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let rights = [descriptor];
        assert!(control.push(SendAncillaryMessage::ScmRights(&rights)));
        let sent = sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::empty()).unwrap();
        assert_eq!(sent, bytes.len());
    }
}

/// A message that announces a socket without a file.
pub(crate) fn socket(asked: &str) -> Vec<u8> {
    let length = u16::try_from(16 + asked.len()).unwrap().to_be_bytes();
    [b"hyth\x01\x02", length.as_slice(), &[0; 16], asked.as_bytes()].concat()
}

/// An error with its cause.
pub(crate) fn told(error: &Error) -> String {
    use std::error::Error as _;
    error.source().map_or(error.to_string(), |cause| format!("{error}: {cause}"))
}
