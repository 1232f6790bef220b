//! However a stream is cut, wherever its reads and writes stall, and whenever `recv` and `send` are dropped and called
//! again: the session sees what the codec makes of the whole stream, and what it sends goes out once and in order.
#![no_main]

use std::fmt::Debug;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use arbitrary::Arbitrary;
use bytes::BytesMut;
use hythe::CloseReason;
use hythe::codec::CodecError;
use hythe::fuzzing::drive;
use hythe_fuzz::{Choice, FromBytes, Len, Rest, Script, Told, Visit, decode, echo, limits, reason, run};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};
use tokio_util::codec::{Decoder, Encoder};

struct Read(Vec<u8>, Script);
struct Write(Arc<Mutex<Vec<u8>>>, Script);

impl AsyncRead for Read {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self(wire, script) = self.get_mut();
        let Some(most) = script.next() else {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        let rest = wire.split_off(most.min(wire.len()).min(buffer.remaining()));
        buffer.put_slice(&std::mem::replace(wire, rest));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Write {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self(written, script) = self.get_mut();
        let Some(most) = script.next() else {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        let bytes = &bytes[..most.min(bytes.len())];
        written.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[derive(Arbitrary, Debug)]
struct Input {
    choice: Choice,
    reads: Vec<u8>,
    writes: Vec<u8>,
    patience: Vec<u8>,
    outbox: u16,
    wire: Rest,
}

impl Visit for Input {
    fn visit<C, T>(self, codec: C, limit: usize)
    where
        C: Decoder<Item = T, Error = CodecError> + Encoder<T, Error = CodecError> + Clone + Send + 'static,
        T: Debug + PartialEq + Clone + Len + FromBytes + Send + 'static,
    {
        let (messages, error) = decode(&codec, limit, [&self.wire.0[..]]);
        let (mut answer, mut encoder) = (BytesMut::new(), codec.clone());
        let mut sent = messages.clone();
        sent.retain(|message| encoder.encode(message.clone(), &mut answer).is_ok());

        let told = Arc::new(Mutex::new(Told { messages: Vec::new(), sent: Vec::new(), end: None }));
        let written = Arc::new(Mutex::new(Vec::new()));
        let length = self.wire.0.len();
        let io = (Read(self.wire.0, Script::new(self.reads)), Write(Arc::clone(&written), Script::new(self.writes)));
        let limits = limits().with_outbox(usize::from(self.outbox).max(1));
        let patience = Script::new(self.patience);
        let closed = run(drive(codec, io, limits, |conn| echo(conn, patience, Arc::clone(&told))));

        let told = told.lock().unwrap();
        assert_eq!(told.messages, messages);
        assert_eq!(told.sent, sent);
        assert_eq!(told.end, error.map(reason));
        assert_eq!(closed.reason, told.end.unwrap_or(CloseReason::PeerClosed));
        assert_eq!(closed.messages_in, messages.len() as u64);
        assert!(closed.bytes_in <= length as u64 && (error.is_some() || closed.bytes_in == length as u64));
        let written = written.lock().unwrap();
        assert_eq!(written[..], answer[..written.len()]);
        assert_eq!(closed.bytes_out, written.len() as u64);
        assert_eq!(closed.unsent_bytes, (answer.len() - written.len()) as u64);
        assert!(error.is_some() || closed.unsent_bytes == 0, "{closed:?}");
    }
}

thread_local! {
    static CLOCK: Runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
}

fuzz_target!(|input: Input| {
    CLOCK.with(|clock| {
        let _clock = clock.enter();
        input.choice.clone().visit(input);
    });
});
