//! A batched codec brings the messages of the codec in it, however the network cut them.

use bytes::{Bytes, BytesMut};
use hythe::codec::{Batched, CodecError, Delimited, Frames, Framing, LengthDelimited};
use proptest::prelude::*;
use tokio_util::codec::{Decoder, Encoder};

/// All messages of `pieces`, and the error where there is one.
fn decode<C: Decoder<Error = CodecError>>(
    codec: &mut C,
    pieces: &[&[u8]],
    mut take: impl FnMut(C::Item),
) -> Option<CodecError> {
    let mut buffer = BytesMut::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match codec.decode(&mut buffer) {
                Ok(Some(item)) => take(item),
                Ok(None) => break,
                Err(error) => return Some(error),
            }
        }
    }
    loop {
        match codec.decode_eof(&mut buffer) {
            Ok(Some(item)) => take(item),
            Ok(None) => return None,
            Err(error) => return Some(error),
        }
    }
}

fn same<C: Framing>(mut codec: C, mut batched: Batched<C>, wire: &[u8], cuts: &[usize]) {
    let mut pieces = Vec::new();
    let mut rest = wire;
    for cut in cuts {
        let (piece, after) = rest.split_at((*cut).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    let (mut plain, mut frames): (Vec<Bytes>, Vec<Bytes>) = (Vec::new(), Vec::new());
    let error = decode(&mut codec, &pieces, |message| plain.push(message));
    let batched_error = decode(&mut batched, &pieces, |some| {
        assert!(!some.is_empty() && some.len() <= 1024, "{} messages", some.len());
        frames.extend(some.iter().map(Bytes::copy_from_slice));
    });
    assert_eq!(plain, frames);
    assert_eq!(error.map(|error| error.to_string()), batched_error.map(|error| error.to_string()));
}

fn layouts() -> Vec<LengthDelimited> {
    let new = || LengthDelimited::new().max_length(64);
    vec![
        new(),
        new().varint(),
        new().prefix_bytes(1),
        new().prefix_bytes(2).little_endian().counts_itself(true),
        new().prefix_bytes(1).offset(3),
        new().prefix_bytes(2).offset(1).keep_prefix(true),
    ]
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_give_the_same(
        wire in proptest::collection::vec(prop_oneof![3 => 0_u8..4, 1 => any::<u8>()], 0..400),
        cuts in proptest::collection::vec(0_usize..40, 0..20),
    ) {
        for codec in layouts() {
            same(codec.clone(), codec.batched(), &wire, &cuts);
        }
        for delimiter in [&b"\x00"[..], &[1, 1], &[2, 2, 3]] {
            for codec in [Delimited::new(delimiter).max_length(30), Delimited::new(delimiter).lenient_end()] {
                same(codec.clone(), codec.batched(), &wire, &cuts);
            }
        }
    }

    #[test]
    fn what_was_encoded_comes_back(messages in proptest::collection::vec(proptest::collection::vec(4_u8..9, 4..60), 0..50)) {
        let frames = Frames::from_iter(&messages);
        for codec in [LengthDelimited::new(), LengthDelimited::new().varint(), LengthDelimited::new().offset(3)] {
            let mut wire = BytesMut::new();
            codec.clone().batched().encode(frames.clone(), &mut wire).unwrap();
            let mut one_by_one = BytesMut::new();
            for message in &frames {
                codec.clone().encode(Bytes::copy_from_slice(message), &mut one_by_one).unwrap();
            }
            prop_assert_eq!(&wire, &one_by_one);
            let again = codec.batched().decode(&mut wire).unwrap().unwrap_or_default();
            prop_assert_eq!(&again, &frames);
            prop_assert!(wire.is_empty());
        }
    }
}

#[test]
fn messages_before_an_error_come_first() {
    let mut codec = LengthDelimited::new().max_length(3).batched();
    let mut wire = BytesMut::from(&b"\0\0\0\x03one\0\0\0\x00\0\0\0\x04over"[..]);
    let frames = codec.decode(&mut wire).unwrap().unwrap();
    assert_eq!(frames.iter().collect::<Vec<_>>(), [&b"one"[..], b""]);
    assert_eq!(codec.decode(&mut wire).unwrap_err().limit_and_seen(), Some((3, 4)));
}

#[test]
fn a_flood_of_empty_messages_comes_in_bounded_parts() {
    let mut codec = LengthDelimited::new().batched();
    let mut wire = BytesMut::zeroed(4 * 2500);
    let mut counts = Vec::new();
    while let Some(frames) = codec.decode(&mut wire).unwrap() {
        counts.push(frames.len());
    }
    assert_eq!(counts, [1024, 1024, 452]);
}

#[test]
fn an_answer_with_one_message_that_is_refused_is_refused_whole() {
    let mut codec = LengthDelimited::new().max_length(3).batched();
    let mut wire = BytesMut::from("before");
    let error = codec.encode(Frames::from_iter(["one", "four"]), &mut wire).unwrap_err();
    assert!(matches!(error, CodecError::NotEncodable(_)), "{error}");
    assert_eq!(&wire[..], b"before");
}
