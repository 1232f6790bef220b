//! `Raw`, `Datagram`, `Text` and `CodecError`.

mod codec_support;

use std::{error::Error, io};

use bytes::{Bytes, BytesMut};
use codec_support::*;
use hythe::codec::{CodecError, Datagram, Delimited, LengthDelimited, Raw, Text, Unencodable};
use proptest::{collection::vec, prelude::*};
use tokio_util::codec::{Decoder, Encoder};

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn raw_keeps_every_byte_in_order(wire in vec(any::<u8>(), 0..200), cuts in cuts()) {
        let mut src = BytesMut::new();
        let (mut raw, mut back) = (Raw::new(), Vec::new());
        let mut rest = &wire[..];
        for cut in cuts {
            let (piece, after) = rest.split_at(cut % (rest.len() + 1));
            rest = after;
            src.extend_from_slice(piece);
            match raw.decode(&mut src).unwrap() {
                Some(message) => back.extend_from_slice(&message),
                None => prop_assert!(piece.is_empty()),
            }
        }
        src.extend_from_slice(rest);
        if let Some(message) = raw.decode_eof(&mut src).unwrap() {
            back.extend_from_slice(&message);
        }
        prop_assert_eq!(back, wire);
        prop_assert!(raw.decode_eof(&mut src).unwrap().is_none());
    }

    #[test]
    fn text_round_trips_over_every_framing(texts in vec(".{0,30}", 0..5), cuts in cuts()) {
        round_trip(&Text::over(LengthDelimited::new()), texts.clone(), &cuts);
        round_trip(&Text::over(LengthDelimited::new().varint()), texts.clone(), &cuts);
        round_trip(&Text::over(Delimited::new("\0")), texts, &cuts);
    }

    #[test]
    fn text_of_any_bytes_gives_the_same_for_every_cut(
        wire in bytes_of(b"\x01\x02a\xc3\xa9", 40), cuts in cuts(),
    ) {
        decode_every_way(&Text::over(LengthDelimited::new().prefix_bytes(1)), &wire, &cuts);
    }
}

#[test]
fn one_datagram_is_one_message_and_so_is_the_empty_one() {
    let mut codec = Datagram::new();
    for datagram in ["one", "", "two\n"] {
        let mut wire = BytesMut::new();
        codec.encode(Bytes::from(datagram), &mut wire).unwrap();
        assert_eq!(wire, datagram);
        let message = codec.decode(&mut wire).unwrap();
        assert_eq!(message.as_deref(), Some(datagram.as_bytes()));
        assert!(wire.is_empty());
    }
    assert!(codec.decode_eof(&mut BytesMut::new()).unwrap().is_none());
}

#[test]
fn datagrams_have_a_limit_in_both_directions() {
    let limit = Datagram::UDP_MAX_LENGTH;
    let whole = Bytes::from(vec![0; limit]);
    Datagram::new().encode(whole, &mut BytesMut::new()).unwrap();

    let over = vec![0; limit + 1];
    let seen = Some((limit as u64, limit as u64 + 1));
    let error = Datagram::new().decode(&mut BytesMut::from(&over[..])).unwrap_err();
    assert!(matches!(error, CodecError::TooLong { .. }));
    assert_eq!(error.limit_and_seen(), seen);
    let error = Datagram::new().encode(over.into(), &mut BytesMut::new()).unwrap_err();
    assert!(error.is_not_encodable());
    assert_eq!(error.limit_and_seen(), seen);
}

#[test]
fn text_is_one_datagram_unless_told_otherwise() {
    let mut codec = Text::new();
    let mut wire = BytesMut::new();
    assert_eq!(codec.decode(&mut wire).unwrap().as_deref(), Some(""));
    codec.encode("zażółć".to_owned(), &mut wire).unwrap();
    assert_eq!(codec.decode(&mut wire).unwrap().as_deref(), Some("zażółć"));
}

#[test]
fn text_that_is_not_utf8_is_final_and_gives_no_later_message() {
    let codec = Text::over(LengthDelimited::new().prefix_bytes(1));
    let outcome = decode_every_way(&codec, b"\x02ok\x03ab\xff\x02no", &[]);
    assert_eq!(outcome.messages, ["ok"]);
    assert!(matches!(outcome.error, Some(CodecError::NotUtf8 { valid_up_to: 2 })));
}

#[test]
fn text_reports_the_errors_of_its_framing() {
    let codec = Text::over(LengthDelimited::new().max_length(3));
    assert!(error_of(&codec, b"\0\0\0\x02a").is_truncated());
    assert_eq!(error_of(&codec, b"\0\0\0\x04").limit_and_seen(), Some((3, 4)));
}

#[test]
fn errors_say_what_the_limit_and_what_was_seen() {
    let shown = |error: CodecError| error.to_string();
    let (limit, seen) = (10, 99);
    assert_eq!(shown(CodecError::TooLong { limit, seen }), "message too long: limit 10 bytes, seen 99");
    assert_eq!(
        shown(CodecError::Truncated { have: 3, need: Some(9) }),
        "stream ended inside a message: 3 bytes arrived of 9"
    );
    assert_eq!(shown(Unencodable::TooLong { limit, len: 11 }.into()), "message cannot be sent: limit 10 bytes, has 11");
    let io = CodecError::from(io::Error::other("broken"));
    assert_eq!(io.to_string(), "I/O error");
    assert_eq!(io.source().unwrap().to_string(), "broken");
}

#[test]
fn a_large_message_leaves_no_memory_behind() {
    let mut codec = LengthDelimited::new();
    let mut src = BytesMut::new();
    codec.encode(Bytes::from(vec![1; 1 << 20]), &mut src).unwrap();
    drop(codec.decode(&mut src).unwrap().unwrap());
    // The buffer's unused tail is the transport's; of the message nothing is left.
    assert!(src.is_empty());
    assert!(src.capacity() <= AHEAD, "{}", src.capacity());
}

#[test]
fn a_small_message_does_not_hold_the_receive_buffer() {
    let mut src = BytesMut::with_capacity(AHEAD);
    src.extend_from_slice(&[&[0, 0, 0, 64][..], &[7; 64]].concat());
    let message = LengthDelimited::new().decode(&mut src).unwrap().unwrap();
    assert!(src.try_reclaim(AHEAD), "the buffer is shared");
    assert_eq!(message, [7; 64][..]);
}

#[test]
fn codecs_can_be_cloned_sent_and_shown() {
    fn check<C: Clone + Send + Sync + std::fmt::Debug + 'static>(_: C) {}
    check(LengthDelimited::new());
    check(hythe::codec::Lines::new());
    check(Delimited::new("x"));
    check(Raw::new());
    check(Datagram::new());
    check(Text::new());
}
