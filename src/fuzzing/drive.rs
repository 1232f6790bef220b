//! A connection with its task.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::Span;

use crate::codec::Codec;
use crate::connection::{
    Closed, Connection, Core, Driver, Link, MessageIn, MessageSource, Outbox, Prototype, Silence, StreamIn, Watch,
    WriteHalf,
};
use crate::limits::{Limits, Live};
use crate::log::Scope;
use crate::peer::{Peer, PeerAddress};
use crate::transport::MaybeTlsRead;

/// Runs `session` as a server would, with a connection over a byte stream.
pub fn drive<In, Out, C, R, W, F, Fut>(codec: C, (read, write): (R, W), limits: Limits, session: F) -> Driven
where
    In: Send + 'static,
    Out: Send + 'static,
    C: Codec<In, Out>,
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
    F: FnOnce(Connection<In, Out>) -> Fut,
    Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    start(codec, Stream(write), limits, |codec| Box::new(StreamIn::new(MaybeTlsRead::Plain(read), codec, ())), session)
}

/// As [`drive`], over messages, of which invalid ones may be nobody's end. `write` gets each message whole, and says whether
/// it takes it.
pub fn drive_messages<In, Out, C, F, Fut>(
    codec: C,
    (messages, outlives_invalid): (VecDeque<Vec<u8>>, bool),
    write: impl FnMut(&[u8]) -> bool + Send + 'static,
    limits: Limits,
    session: F,
) -> Driven
where
    In: Send + 'static,
    Out: Send + 'static,
    C: Codec<In, Out>,
    F: FnOnce(Connection<In, Out>) -> Fut,
    Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let source = Source(messages, outlives_invalid);
    start(codec, Messages(write), limits, |codec| Box::new(MessageIn::new(source, codec)), session)
}

/// A connection's task, and what is known at its end.
type Driven = Pin<Box<dyn Future<Output = Closed> + Send>>;

fn start<In, Out, C, W, F, Fut>(
    codec: C,
    write: W,
    limits: Limits,
    link: impl FnOnce(C) -> Box<dyn Link<In, Out>>,
    session: F,
) -> Driven
where
    In: Send + 'static,
    Out: Send + 'static,
    C: Codec<In, Out>,
    W: WriteHalf,
    F: FnOnce(Connection<In, Out>) -> Fut,
    Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    static ENDPOINT: OnceLock<Arc<crate::Endpoint>> = OnceLock::new();
    let endpoint = ENDPOINT.get_or_init(|| Arc::new("mem:fuzz".parse().expect("an endpoint")));
    let peer = Peer::new(Arc::clone(endpoint), PeerAddress::Memory(0));
    let core = Arc::new(Core::new(peer, Live::new(limits), Silence::Stream, None));
    let prototype = Prototype::new(codec);
    let out = Outbox::new(core, Arc::clone(&prototype), write);
    let conn = Connection::new(link(prototype.codec()), Arc::clone(&out) as _);
    let end = Arc::new(End::default());
    let driver = Driver::new(session(conn), out, Scope::new(Span::none()), Arc::clone(&end));
    Box::pin(async move {
        driver.await;
        end.0.get().expect("a connection that is over").clone()
    })
}

#[derive(Default)]
struct End(OnceLock<Closed>);

impl Watch for End {
    fn ended(&self, core: &Core, closed: &Closed) {
        assert!(self.0.set(closed.clone()).is_ok(), "{} ended twice", core.id);
    }

    fn gone(&self, core: &Core) {
        assert_eq!(core.limits.memory.used(), 0, "memory that was charged stays");
    }
}

struct Stream<W>(W);

impl<W: AsyncWrite + Unpin + Send + 'static> WriteHalf for Stream<W> {
    const MESSAGES: bool = false;

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

struct Messages<F>(F);

impl<F: FnMut(&[u8]) -> bool + Send + 'static> WriteHalf for Messages<F> {
    const MESSAGES: bool = true;

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if (self.0)(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

struct Source(VecDeque<Vec<u8>>, bool);

impl MessageSource for Source {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<io::Result<BytesMut>>> {
        Poll::Ready(self.0.pop_front().map(|message| Ok(BytesMut::from(&message[..]))))
    }

    fn outlives_invalid(&mut self) -> bool {
        self.1
    }
}
