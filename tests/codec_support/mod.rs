//! Feeds bytes to a codec in pieces, as a network would.
#![allow(dead_code)] // Each test crate uses its own part.

use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use hythe::codec::CodecError;
use proptest::{collection::vec, prelude::*};
use tokio_util::codec::{Decoder, Encoder};

pub(crate) const AHEAD: usize = 64 * 1024;

/// Everything a stream came to: its messages, and the error that ended it.
#[derive(Debug)]
pub(crate) struct Outcome<T> {
    pub(crate) messages: Vec<T>,
    pub(crate) error: Option<CodecError>,
}

impl<T> Outcome<T> {
    /// Which error; not what it had seen, which can depend on the cuts.
    pub(crate) fn verdict(&self) -> Option<String> {
        let kind = |e| format!("{e:?}").split([' ', '(']).next().map(str::to_owned);
        self.error.as_ref().and_then(kind)
    }
}

/// Decodes `pieces` with a clone of `codec`, the end of the stream included, and
/// checks on the way that no memory is reserved ahead and that errors are final.
pub(crate) fn decode_pieces<'a, C>(codec: &C, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome<C::Item>
where
    C: Decoder<Error = CodecError> + Clone,
    C::Item: Debug,
{
    let mut codec = codec.clone();
    let mut src = BytesMut::new();
    let mut messages = Vec::new();
    for piece in pieces {
        src.extend_from_slice(piece);
        loop {
            let bound = src.capacity().max(src.len() + AHEAD);
            let decoded = codec.decode(&mut src);
            assert!(src.capacity() <= bound, "reserved ahead: {}", src.capacity());
            match decoded {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => {
                    assert_final(&mut codec, &mut src);
                    let error = Some(error);
                    return Outcome { messages, error };
                }
            }
        }
    }
    loop {
        match codec.decode_eof(&mut src) {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => {
                assert!(src.is_empty(), "bytes were dropped in silence");
                let error = None;
                return Outcome { messages, error };
            }
            Err(error) => {
                assert_final(&mut codec, &mut src);
                let error = Some(error);
                return Outcome { messages, error };
            }
        }
    }
}

fn assert_final<C>(codec: &mut C, src: &mut BytesMut)
where
    C: Decoder<Error = CodecError>,
    C::Item: Debug,
{
    for _ in 0..3 {
        let again = codec.decode(src);
        assert!(!matches!(again, Ok(Some(_))), "{again:?} after an error");
        let end = codec.decode_eof(src);
        assert!(!matches!(end, Ok(Some(_))), "{end:?} after an error");
    }
}

/// Decodes `wire` whole, cut once at every place, byte by byte, and at `cuts`, and
/// checks that all agree.
pub(crate) fn decode_every_way<C>(codec: &C, wire: &[u8], cuts: &[usize]) -> Outcome<C::Item>
where
    C: Decoder<Error = CodecError> + Clone,
    C::Item: Debug + PartialEq,
{
    let whole = decode_pieces(codec, [wire]);
    let check = |outcome: Outcome<C::Item>, how: &str| {
        assert_eq!(outcome.messages, whole.messages, "{how}");
        assert_eq!(outcome.verdict(), whole.verdict(), "{how}");
    };
    if wire.len() <= 512 {
        for at in 0..=wire.len() {
            let (a, b) = wire.split_at(at);
            check(decode_pieces(codec, [a, b]), &format!("cut at {at}"));
        }
    }
    check(decode_pieces(codec, wire.chunks(1)), "byte by byte");

    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (wire.len() + 1)).collect();
    cuts.extend([0, wire.len()]);
    cuts.sort_unstable();
    let pieces = cuts.windows(2).map(|w| &wire[w[0]..w[1]]);
    check(decode_pieces(codec, pieces), &format!("cut at {cuts:?}"));
    whole
}

/// Encodes what it can of `messages`; gives those it could, and the wire.
pub(crate) fn encode_all<C, T>(codec: &C, messages: Vec<T>) -> (Vec<T>, BytesMut)
where
    C: Encoder<T, Error = CodecError> + Clone,
    T: Clone,
{
    let mut codec = codec.clone();
    let mut wire = BytesMut::new();
    let mut sent = Vec::new();
    for message in messages {
        let before = wire.clone();
        match codec.encode(message.clone(), &mut wire) {
            Ok(()) => sent.push(message),
            Err(error) => {
                assert!(error.is_not_encodable(), "{error}");
                assert_eq!(wire, before, "a refused message wrote something");
            }
        }
    }
    (sent, wire)
}

/// Encodes `messages`, decodes them every way, and checks that they came back.
pub(crate) fn round_trip<C, T>(codec: &C, messages: Vec<T>, cuts: &[usize]) -> Vec<T>
where
    C: Encoder<T, Error = CodecError> + Decoder<Item = T, Error = CodecError> + Clone,
    T: Clone + Debug + PartialEq,
{
    let (sent, wire) = encode_all(codec, messages);
    let back = decode_every_way(codec, &wire, cuts);
    assert!(back.error.is_none(), "{:?}", back.error);
    assert_eq!(back.messages, sent);
    sent
}

/// Decodes `wire` in one piece and expects an error.
pub(crate) fn error_of<C>(codec: &C, wire: &[u8]) -> CodecError
where
    C: Decoder<Error = CodecError> + Clone,
    C::Item: Debug + PartialEq,
{
    let outcome = decode_every_way(codec, wire, &[]);
    outcome.error.expect("an error")
}

pub(crate) fn cuts() -> impl Strategy<Value = Vec<usize>> {
    vec(any::<usize>(), 0..12)
}

/// Bytes of which any of `alphabet` is likely, so that what matters is frequent.
pub(crate) fn bytes_of(alphabet: &'static [u8], len: usize) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![6 => prop::sample::select(alphabet), 1 => any::<u8>()];
    vec(byte, 0..len)
}

pub(crate) fn messages(len: usize) -> impl Strategy<Value = Vec<Bytes>> {
    vec(vec(any::<u8>(), 0..len).prop_map(Bytes::from), 0..6)
}

pub(crate) fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}
