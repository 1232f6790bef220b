//! What is measured: each codec, both ways, with payloads of several sizes.

use std::any::Any;
use std::fmt::Debug;
use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use hythe::codec::{Datagram, Delimited, LengthDelimited, Lines, Raw, Text};
use tokio_util::codec::{Decoder, Encoder};

/// What one read brings at most, and how many frames of it.
const READ: usize = 64 << 10;
const FRAMES: usize = 64;

/// The work of a case, ready to be done once. Gives what must not be freed while the clock runs.
pub(crate) type Work = Box<dyn FnOnce() -> Box<dyn Any>>;

pub(crate) struct Case {
    /// As in `LengthDelimited, 4 bytes: decode 64 B`.
    pub(crate) name: String,
    /// Frames in each buffer.
    pub(crate) frames: usize,
    prepare: Box<dyn Fn(usize) -> Work>,
}

impl Case {
    /// Makes work of so many buffers, which hold `frames` frames each.
    pub(crate) fn prepare(&self, buffers: usize) -> Work {
        (self.prepare)(buffers)
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    stream(&mut all, "LengthDelimited, 4 bytes", LengthDelimited::new(), payload);
    stream(&mut all, "LengthDelimited, varint", LengthDelimited::new().varint(), payload);
    stream(&mut all, "Lines", Lines::new(), text);
    stream(&mut all, "Delimited, 1 byte", Delimited::new("\0"), payload);
    stream(&mut all, "Delimited, 4 bytes", Delimited::new("\r\n\r\n"), payload);
    stream(&mut all, "Text over LengthDelimited", Text::over(LengthDelimited::new()), text);
    messages(&mut all, "Raw", &Raw::new(), payload);
    messages(&mut all, "Datagram", &Datagram::new(), payload);
    messages(&mut all, "Text", &Text::new(), text);
    all
}

/// Letters, so that nothing looks like a delimiter.
fn text(size: usize) -> String {
    ('a'..='z').cycle().take(size).collect()
}

fn payload(size: usize) -> Bytes {
    text(size).into()
}

/// A codec for streams: many frames in what one read brings.
fn stream<C>(all: &mut Vec<Case>, name: &str, codec: C, message: fn(usize) -> C::Item)
where
    C: Decoder + Encoder<<C as Decoder>::Item, Error = <C as Decoder>::Error> + Clone + 'static,
    C::Item: Clone + 'static,
    <C as Decoder>::Error: Debug,
{
    for size in [16, 64, 1 << 10, 16 << 10] {
        both(all, name, &codec, message, size, (READ / size).min(FRAMES));
    }
}

/// A codec whose message is whatever has arrived at once: one in each buffer.
fn messages<C>(all: &mut Vec<Case>, name: &str, codec: &C, message: fn(usize) -> C::Item)
where
    C: Decoder + Encoder<<C as Decoder>::Item, Error = <C as Decoder>::Error> + Clone + 'static,
    C::Item: Clone + 'static,
    <C as Decoder>::Error: Debug,
{
    for size in [64, 1 << 10, 16 << 10] {
        both(all, name, codec, message, size, 1);
    }
}

fn both<C>(all: &mut Vec<Case>, name: &str, codec: &C, message: fn(usize) -> C::Item, size: usize, frames: usize)
where
    C: Decoder + Encoder<<C as Decoder>::Item, Error = <C as Decoder>::Error> + Clone + 'static,
    C::Item: Clone + 'static,
    <C as Decoder>::Error: Debug,
{
    let bytes = if size < 1024 { format!("{size} B") } else { format!("{} KiB", size >> 10) };
    let own = codec.clone();
    let prepare = Box::new(move |buffers| {
        let mut codec = own.clone();
        let mut wire = BytesMut::new();
        for _ in 0..frames {
            codec.encode(message(size), &mut wire).expect("a message that fits");
        }
        let mut read: Vec<BytesMut> = (0..buffers).map(|_| BytesMut::from(&wire[..])).collect();
        let work = move || -> Box<dyn Any> {
            decode(&mut codec, &mut read, frames);
            Box::new(read)
        };
        Box::new(work) as Work
    });
    all.push(Case { name: format!("{name}: decode {bytes}"), frames, prepare });

    let own = codec.clone();
    let prepare = Box::new(move |buffers| {
        let mut codec = own.clone();
        let sent: Vec<C::Item> = vec![message(size); buffers * frames];
        // as an outbox: it has its room already
        let mut outbox = BytesMut::with_capacity(frames * (size + 16));
        let work = move || -> Box<dyn Any> {
            encode(&mut codec, sent, &mut outbox, frames);
            Box::new(outbox)
        };
        Box::new(work) as Work
    });
    all.push(Case { name: format!("{name}: encode {bytes}"), frames, prepare });
}

#[inline(never)]
fn decode<C>(codec: &mut C, read: &mut [BytesMut], frames: usize)
where
    C: Decoder,
    C::Error: Debug,
{
    for buffer in read {
        for _ in 0..frames {
            let message = codec.decode(buffer).expect("a valid frame");
            assert!(black_box(message).is_some(), "a whole frame");
        }
    }
}

/// The outbox is emptied whenever it has what one read brought.
#[inline(never)]
fn encode<T, C>(codec: &mut C, sent: Vec<T>, outbox: &mut BytesMut, frames: usize)
where
    C: Encoder<T>,
    C::Error: Debug,
{
    for (i, message) in sent.into_iter().enumerate() {
        if i % frames == 0 {
            outbox.clear();
        }
        codec.encode(message, black_box(&mut *outbox)).expect("a message that fits");
    }
}
