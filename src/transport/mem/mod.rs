//! Connections inside this process, for tests and for parts of a program that talk as if they were apart.
//!
//! | file | what it is |
//! |---|---|
//! | `mod` | the names, listening at them and connecting to them |
//! | `stream` | [`MemStream`], what takes the place of a socket |

mod stream;

use std::collections::HashMap;
use std::io;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use tokio::sync::mpsc;

use super::{ByteStream, Listener};
use crate::endpoint::MemName;
use crate::limits::Limits;
use crate::peer::PeerAddress;
use crate::sync::{Mutex, lock};

pub(crate) use stream::MemStream;
#[cfg(feature = "testing")]
pub(crate) use stream::{End, WINDOW, Weather};
use stream::{MemRead, MemWrite};

static NAMES: LazyLock<Mutex<HashMap<String, mpsc::Sender<MemStream>>>> = LazyLock::new(Mutex::default);

pub(crate) struct MemTransport {
    name: String,
    queue: mpsc::Receiver<MemStream>,
}

impl MemTransport {
    pub(crate) fn bind(name: &MemName, limits: &Limits) -> io::Result<Self> {
        let mut names = lock(&NAMES);
        if names.get(name.as_str()).is_some_and(|queue| !queue.is_closed()) {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "the name is in use in this process"));
        }
        let (sender, queue) = mpsc::channel(limits.backlog as usize);
        names.insert(name.as_str().to_owned(), sender);
        Ok(Self { name: name.as_str().to_owned(), queue })
    }
}

impl Drop for MemTransport {
    fn drop(&mut self) {
        lock(&NAMES).remove(&self.name);
    }
}

impl Listener for MemTransport {
    type Stream = MemStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<MemStream>> {
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "the name is gone");
        self.queue.poll_recv(cx).map(|stream| stream.ok_or_else(gone))
    }
}

impl ByteStream for MemStream {
    type Read = MemRead;
    type Write = MemWrite;

    fn address(&self) -> PeerAddress {
        PeerAddress::Memory(self.end().number())
    }

    fn split(self) -> (MemRead, MemWrite) {
        self.into_halves()
    }

    fn abort(self) {
        self.end().reset();
    }
}

/// Connects to a listener of this process, waiting while its backlog is full.
pub(crate) async fn connect(name: &MemName) -> io::Result<MemStream> {
    let (ours, theirs) = MemStream::pair();
    offer(name, theirs).await?;
    Ok(ours)
}

/// Gives a listener of this process one end of a wire.
pub(crate) async fn offer(name: &MemName, theirs: MemStream) -> io::Result<()> {
    let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens at this name in this process");
    let queue = lock(&NAMES).get(name.as_str()).cloned().ok_or_else(refused)?;
    queue.send(theirs).await.map_err(|_| refused())
}
