//! Models of the outbox: senders, groups and the session send at once, while the transport blocks and unblocks.
//!
//! Each ends when the peer has everything that was taken. Where nobody would write what waits, or nobody would wake
//! whoever can go on, that never comes: shuttle finds all threads blocked.

mod memory;
mod outbox;
mod pipe;

use std::future::Future;
use std::sync::{Arc, Weak};

use futures::channel::oneshot;
use shuttle::future::JoinHandle;
use tracing::Span;

pub(crate) use pipe::{Messages, Pipe, Stream};

use super::{
    Closed, Connection, Core, Driver, Outbound, Outbox, Prototype, Sender, Silence, StreamIn, Watch, WriteHalf,
};
use crate::codec::Lines;
use crate::limits::{Limits, Live};
use crate::log::Scope;
use crate::peer::{Peer, PeerAddress};
use crate::transport::MaybeTlsRead;

/// Nobody is told.
struct Alone;

impl Watch for Alone {
    fn ended(&self, _: &Core, _: &Closed) {}
    fn gone(&self, _: &Core) {}
}

/// A connection, as a server would make it.
struct Served<W: WriteHalf> {
    pipe: Arc<Pipe>,
    /// Held by nobody else, a session's messages go to its stage first.
    out: Weak<Outbox<Lines, W>>,
    driver: JoinHandle<()>,
    /// Has the session end.
    end: oneshot::Sender<()>,
}

impl<W: WriteHalf> Served<W> {
    /// Starts a connection with `session`, which ends when it is told to.
    fn start<F>(limits: Limits, pipe: &Arc<Pipe>, write: W, session: impl FnOnce(Connection<String>) -> F) -> Self
    where
        F: Future<Output = Connection<String>> + Send + 'static,
    {
        let (end, ended) = oneshot::channel();
        let session = |conn| {
            let session = session(conn);
            async {
                let _conn = session.await;
                let _ = ended.await;
                Ok(())
            }
        };
        let peer = Peer::new(Arc::new("mem:model".parse().unwrap()), PeerAddress::Memory(0));
        let core = Arc::new(Core::new(peer, Live::new(limits), Silence::Allowed, None));
        let out = Outbox::new(core, Prototype::new(Lines::new()), write);
        let link = Box::new(StreamIn::new(MaybeTlsRead::Plain(pipe.stream()), Lines::new(), ()));
        let conn = Connection::new(link, Arc::clone(&out) as _);
        let driver = Driver::new(session(conn), Arc::clone(&out) as _, Scope::new(Span::none()), Arc::new(Alone));
        let out = Arc::downgrade(&out);
        Self { pipe: Arc::clone(pipe), out, driver: shuttle::future::spawn(driver), end }
    }

    fn out(&self) -> Arc<Outbox<Lines, W>> {
        self.out.upgrade().unwrap()
    }

    fn sender(&self) -> Sender<String> {
        Sender::new(self.out() as Arc<dyn Outbound<String>>)
    }

    /// After `messages` were taken: all of them arrive though nobody does anything more. Then the connection ends, and
    /// its peer.
    fn finish(self, peer: shuttle::thread::JoinHandle<Vec<Vec<u8>>>, much: usize) -> Vec<Vec<u8>> {
        self.pipe.wait_read(much);
        self.out().assert_quiet_is_true();
        self.end.send(()).unwrap();
        let seen = peer.join().unwrap();
        shuttle::future::block_on(self.driver).unwrap();
        seen
    }
}

/// The messages of a stream.
fn lines(bytes: &[Vec<u8>]) -> Vec<String> {
    let text = String::from_utf8(bytes.concat()).unwrap();
    let whole = |line: &str| line.len() == 2 && line.ends_with(|c: char| c.is_ascii_digit());
    assert!(text.lines().all(whole) && (text.is_empty() || text.ends_with('\n')), "torn: {text:?}");
    text.lines().map(ToOwned::to_owned).collect()
}

/// Of `seen`, what `sender` sent.
fn of(sender: &str, seen: &[String]) -> Vec<String> {
    seen.iter().filter(|message| message.starts_with(sender)).cloned().collect()
}
