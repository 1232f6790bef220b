//! Every decoder gives the same messages and the same verdict for every way of cutting the bytes, never a message above
//! the limit, and none after an error.
#![no_main]

use std::fmt::Debug;

use bytes::BytesMut;
use hythe::codec::{CodecError, Datagram, Text};
use hythe_fuzz::{Choice, FromBytes, Len, Rest, Visit, decode, pieces, raw};
use libfuzzer_sys::fuzz_target;
use tokio_util::codec::{Decoder, Encoder};

struct Check<'a> {
    cuts: &'a [u8],
    wire: &'a [u8],
}

impl Visit for Check<'_> {
    fn visit<C, T>(self, codec: C, limit: usize)
    where
        C: Decoder<Item = T, Error = CodecError> + Encoder<T, Error = CodecError> + Clone + Send + 'static,
        T: Debug + PartialEq + Clone + Len + FromBytes + Send + 'static,
    {
        let whole = decode(&codec, limit, [self.wire]);
        assert_eq!(decode(&codec, limit, pieces(self.wire, self.cuts)), whole, "cut");
        assert_eq!(decode(&codec, limit, self.wire.chunks(1)), whole, "byte by byte");
    }
}

fn datagram(wire: &[u8], limit: usize) {
    match Datagram::new().max_length(limit).decode(&mut BytesMut::from(wire)) {
        Ok(message) => assert_eq!(message.as_deref(), Some(wire)),
        Err(error) => assert_eq!(error.limit_and_seen(), Some((limit as u64, wire.len() as u64))),
    }
    match Text::over(Datagram::new()).decode(&mut BytesMut::from(wire)) {
        Ok(message) => assert_eq!(message.as_deref(), std::str::from_utf8(wire).ok()),
        Err(_) => assert!(std::str::from_utf8(wire).is_err()),
    }
}

fuzz_target!(|input: (Choice, Vec<u8>, Rest)| {
    let (choice, cuts, Rest(wire)) = input;
    choice.visit(Check { cuts: &cuts, wire: &wire });
    raw(&wire, &cuts);
    datagram(&wire, cuts.len());
});
