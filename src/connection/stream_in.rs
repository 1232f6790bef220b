//! The incoming side of a byte stream: reads into a buffer of the thread's, and decodes.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::codec::{Decoder, Encoder};
use tokio_util::io::poll_read_buf;

use super::closed::{CloseReason, Failure};
use super::core::{Core, Remainder};
use super::link::{Link, Received, decode_failure, encode_error};
use super::pool;
use super::stage::APART;
use crate::codec::LengthDelimited;
use crate::error::{BoxError, Error};
use crate::limits::STEP;
#[cfg(feature = "tls")]
use crate::tls::TlsRead;
use crate::transport::MaybeTlsRead;

/// With fewer bytes held than this, a read buffer is exchanged for one of their size while the connection waits; with
/// less room than this, it gets more.
const SPARSE: usize = pool::READ / 4;
/// What is read and thrown away at most after the session is over, in bytes.
const DISCARD: u32 = 1 << 20;
/// What a codec's framing may add to [`Limits::max_message`](crate::Limits::max_message).
const FRAMING: usize = 1024;

pub(crate) struct StreamIn<R, C, G = ()> {
    io: MaybeTlsRead<R>,
    codec: C,
    buffer: BytesMut,
    /// The buffer is of the size of what it holds.
    parked: bool,
    /// The codec has not said yet that it needs more than is there.
    fresh: bool,
    ended: bool,
    /// The codec failed; what follows has no meaning.
    spoilt: bool,
    /// What the buffer is charged for, in steps; after the session is over, what was read and thrown away, in bytes.
    charged: u32,
    /// Goes when the transport does.
    _guard: G,
}

impl<R, C, G> StreamIn<R, C, G> {
    pub(crate) fn new(io: MaybeTlsRead<R>, codec: C, guard: G) -> Self {
        Self {
            io,
            codec,
            buffer: BytesMut::new(),
            parked: true,
            fresh: false,
            ended: false,
            spoilt: false,
            charged: 0,
            _guard: guard,
        }
    }

    fn charge(&mut self, core: &Core, bytes: usize) {
        let mut charged = self.charged as usize * STEP;
        core.charge(&mut charged, bytes);
        // a buffer of so many steps that they are no `u32` is 16 TiB
        self.charged = u32::try_from(charged / STEP).unwrap_or(u32::MAX);
    }

    /// What follows has no meaning any more.
    fn spoil(&mut self, failure: Failure) -> Poll<Received> {
        self.fresh = false;
        self.spoilt = true;
        Poll::Ready(Received::Failed(Box::new(failure)))
    }

    /// Before a wait: a whole read buffer is not kept for a few bytes.
    fn park(&mut self) {
        if self.parked || self.buffer.len() >= SPARSE {
            return;
        }
        let held = BytesMut::from(self.buffer.as_ref());
        pool::give_read(std::mem::replace(&mut self.buffer, held));
        self.parked = true;
    }

    /// A buffer with room for a read, and in it what is held.
    fn unpark(&mut self) {
        let held = self.buffer.len();
        if self.parked {
            let mut large = pool::take_read();
            large.extend_from_slice(&self.buffer);
            self.buffer = large;
            self.parked = false;
        } else if self.buffer.capacity() - held < SPARSE {
            self.buffer.reserve(pool::READ.saturating_sub(held).max(SPARSE));
        }
    }
}

impl<R, C, G> StreamIn<R, C, G>
where
    R: AsyncRead + Unpin,
{
    fn poll_read(&mut self, cx: &mut Context<'_>, core: &Arc<Core>) -> Poll<Result<(), Failure>> {
        let mut most = pool::READ;
        if core.limits.memory.is_exhausted() {
            most = STEP.saturating_sub(self.buffer.len());
            if most == 0 {
                // first the waker, as there may be memory before anybody else names it
                core.reader().register(cx.waker());
                core.await_memory();
                return Poll::Pending;
            }
        }
        self.unpark();
        let mut room = (&mut self.buffer).limit(most);
        let Poll::Ready(result) = poll_read_buf(Pin::new(&mut self.io), cx, &mut room) else {
            self.park();
            self.charge(core, self.buffer.capacity());
            return Poll::Pending;
        };
        if self.buffer.capacity() > pool::KEEP || self.charged > 0 {
            // larger than what belongs to the thread
            self.charge(core, self.buffer.capacity());
        }
        match result {
            Ok(0) => self.ended = true,
            Ok(read) => {
                core.count_in(read);
                core.show_read(self.buffer.get(self.buffer.len().saturating_sub(read)..).unwrap_or_default());
            }
            Err(error) => return Poll::Ready(Err(Failure::io(error))),
        }
        self.fresh = true;
        Poll::Ready(Ok(()))
    }
}

impl<R, C, G, Out> Link<C::Item, Out> for StreamIn<R, C, G>
where
    R: AsyncRead + Unpin + Send + 'static,
    G: Send + 'static,
    C: Decoder + Encoder<Out> + Send + 'static,
    Out: 'static,
    <C as Decoder>::Error: Into<BoxError>,
    <C as Encoder<Out>>::Error: Into<BoxError>,
{
    fn poll_recv(&mut self, cx: &mut Context<'_>, core: &Arc<Core>, slot: &mut Option<C::Item>) -> Poll<Received> {
        loop {
            if self.fresh {
                let result = match self.ended {
                    false if self.buffer.is_empty() => Ok(None),
                    false => self.codec.decode(&mut self.buffer),
                    true => self.codec.decode_eof(&mut self.buffer),
                };
                match result {
                    Ok(message @ Some(_)) => {
                        *slot = message;
                        return Poll::Ready(Received::Message);
                    }
                    Ok(None) => self.fresh = false,
                    Err(error) => return self.spoil(decode_failure(error.into(), self.ended)),
                }
                let limit = core.limits.max_message().saturating_add(FRAMING);
                if self.buffer.len() > limit {
                    let text = format!("a message is over the limit of {limit} bytes: {} are here", self.buffer.len());
                    return self.spoil(Failure::new(CloseReason::TooLarge, text));
                }
            }
            if self.spoilt {
                return Poll::Ready(Received::End);
            }
            if self.ended {
                if self.buffer.is_empty() {
                    return Poll::Ready(Received::End);
                }
                let text = format!("{} bytes of an incomplete message were left at the end", self.buffer.len());
                return self.spoil(Failure::new(CloseReason::Truncated, text));
            }
            if let Err(failure) = ready!(self.poll_read(cx, core)) {
                return self.spoil(failure);
            }
        }
    }

    fn holds_part(&self) -> bool {
        !self.buffer.is_empty()
    }

    #[inline]
    fn encode(&mut self, message: Out, buffer: &mut BytesMut) -> Result<(), Error> {
        self.codec.encode(message, buffer).map_err(encode_error)
    }

    #[inline]
    fn encode_apart(&mut self, message: Out, buffer: &mut BytesMut) -> Result<Option<Bytes>, Error> {
        // what is encrypted is copied in any case
        if matches!(self.io, MaybeTlsRead::Plain(_)) {
            let known = (&self.codec as &dyn Any).downcast_ref::<LengthDelimited>();
            let large = (&message as &dyn Any).downcast_ref::<Bytes>().filter(|message| message.len() >= APART);
            if let (Some(codec), Some(message)) = (known, large) {
                if codec.encode_head(message.len(), buffer) {
                    return Ok(Some(message.clone()));
                }
            }
        }
        self.codec.encode(message, buffer).map(|()| None).map_err(encode_error)
    }

    #[cfg(feature = "tls")]
    fn take_stream(&mut self) -> Option<Box<dyn AsyncRead + Send + Unpin>> {
        self.io.take()
    }

    #[cfg(feature = "tls")]
    fn put_tls(&mut self, read: TlsRead) {
        self.io = MaybeTlsRead::Tls(read);
    }

    fn into_remainder(mut self: Box<Self>, core: &Core) -> Box<dyn Remainder> {
        self.buffer = BytesMut::new();
        self.charge(core, 0);
        self
    }
}

impl<R, C, G> Remainder for StreamIn<R, C, G>
where
    R: AsyncRead + Unpin + Send,
    G: Send,
    C: Send,
{
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 4096];
        while !self.ended && self.charged < DISCARD {
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => self.charged += buffer.filled().len() as u32,
                _ => self.ended = true,
            }
        }
        Poll::Ready(())
    }

    fn ended(&self) -> bool {
        self.ended
    }
}
