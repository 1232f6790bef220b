//! `Delimited`: any byte string, however cut and however it overlaps itself.

mod codec_support;

use bytes::{Bytes, BytesMut};
use codec_support::*;
use hythe::codec::{CodecError, DEFAULT_MAX_LENGTH, Delimited, Unencodable};
use proptest::{collection::vec, prelude::*};
use tokio_util::codec::{Decoder, Encoder};

fn delimiter() -> impl Strategy<Value = Vec<u8>> {
    vec(prop::sample::select(b"ab"), 1..5)
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn messages_round_trip(
        delimiter in delimiter(), messages in vec(bytes_of(b"ab", 12), 0..6),
        limit in 0_usize..15, cuts in cuts(),
    ) {
        let messages = messages.into_iter().map(Bytes::from).collect();
        round_trip(&Delimited::new(delimiter).max_length(limit), messages, &cuts);
    }

    #[test]
    fn a_message_is_refused_only_if_it_would_come_back_changed(
        delimiter in delimiter(), message in bytes_of(b"ab", 8),
    ) {
        let mut codec = Delimited::new(&delimiter);
        if codec.encode(Bytes::from(message.clone()), &mut BytesMut::new()).is_err() {
            let wire = [&message[..], &delimiter].concat();
            prop_assert_ne!(decode_pieces(&codec, [&wire[..]]).messages, [message]);
        }
    }

    #[test]
    fn any_bytes_give_the_same_for_every_cut(
        delimiter in delimiter(), wire in bytes_of(b"ab", 60), limit in 0_usize..12,
        lenient in any::<bool>(), cuts in cuts(),
    ) {
        let codec = Delimited::new(delimiter).max_length(limit);
        let codec = if lenient { codec.lenient_end() } else { codec };
        let outcome = decode_every_way(&codec, &wire, &cuts);
        prop_assert!(outcome.messages.iter().all(|message| message.len() <= limit));
    }

    #[test]
    fn text_is_cut_where_the_standard_library_cuts_it(
        delimiter in "[ab]{1,4}", text in "[abc]{0,50}",
    ) {
        let codec = Delimited::new(&delimiter).lenient_end();
        let mut expected: Vec<&str> = text.split(&delimiter).collect();
        if expected.last() == Some(&"") {
            expected.pop();
        }
        prop_assert_eq!(decode_every_way(&codec, text.as_bytes(), &[]).messages, expected);
    }
}

#[test]
fn the_leftmost_delimiter_ends_the_message() {
    let messages = |delimiter: &str, wire: &[u8]| {
        let outcome = decode_every_way(&Delimited::new(delimiter), wire, &[]);
        assert!(outcome.error.is_none());
        outcome.messages
    };
    assert_eq!(messages("aab", b"aaabaab"), ["a", ""]);
    assert_eq!(messages("aa", b"aabaa"), ["", "b"]);
    assert_eq!(messages("abac", b"ababacabac"), ["ab", ""]);
    assert_eq!(messages("\r\n\r\n", b"a\r\n\r\r\n\r\n\r\n\r\n"), ["a\r\n\r", ""]);
    assert_eq!(messages("\0", b"a\0\0b\0"), ["a", "", "b"]);
}

#[test]
fn an_end_without_delimiter_is_truncation_unless_allowed() {
    let strict = Delimited::new(b"--");
    let outcome = decode_every_way(&strict, b"a--bc-", &[]);
    assert_eq!(outcome.messages, ["a"]);
    assert!(matches!(outcome.error, Some(CodecError::Truncated { have: 3, need: None })));
    let outcome = decode_every_way(&strict.lenient_end(), b"a--bc-", &[]);
    assert_eq!(outcome.messages, ["a", "bc-"]);
    assert!(outcome.error.is_none());
}

#[test]
fn a_message_without_end_stops_at_the_limit() {
    let mut codec = Delimited::new(b"\r\n\r\n");
    let mut src = BytesMut::new();
    let error = loop {
        src.extend_from_slice(&[b'\r'; 4096]);
        match codec.decode(&mut src) {
            Ok(message) => assert_eq!(message, None),
            Err(error) => break error,
        }
    };
    let limit = DEFAULT_MAX_LENGTH as u64;
    assert_eq!(error.limit_and_seen(), Some((limit, limit + 4096)));
    assert!(src.capacity() <= 4 * DEFAULT_MAX_LENGTH);
}

#[test]
fn the_limit_does_not_count_the_delimiter() {
    for codec in [Delimited::new(b"\r\n").max_length(3), Delimited::new(b"\r\n").max_length(3).lenient_end()] {
        assert_eq!(decode_every_way(&codec, b"abc\r\n", &[]).messages, ["abc"]);
        for wire in [&b"abcd\r\n"[..], b"abcd", b"abcde"] {
            assert_eq!(error_of(&codec, wire).limit_and_seen().unwrap().0, 3);
        }
    }
}

#[test]
fn a_message_with_a_delimiter_is_not_sent() {
    let refusal = |delimiter: &str, message: &'static str| {
        let encoded = Delimited::new(delimiter).encode(message.into(), &mut BytesMut::new());
        encoded.err().map(|error| match error {
            CodecError::NotEncodable(why) => why,
            other => panic!("{other}"),
        })
    };
    let at = |at| Some(Unencodable::Delimiter { at });
    assert_eq!(refusal("--", "a--b"), at(1));
    assert_eq!(refusal("--", "a-"), at(1)); // `a---` ends after the second dash
    assert_eq!(refusal("aab", "a"), None);
}

#[test]
fn bytes_without_a_delimiter_are_scanned_only_once() {
    let mut codec = Delimited::new("ab");
    let mut src = BytesMut::from("xxxxx");
    assert_eq!(codec.decode(&mut src).unwrap(), None);
    // Bytes do not change in a buffer; a delimiter put there by force goes unseen
    // by a decoder that looks at new bytes and what may run into them only.
    src[2..4].copy_from_slice(b"ab");
    src.extend_from_slice(b"y");
    assert_eq!(codec.decode(&mut src).unwrap(), None);
    src.extend_from_slice(b"abzab");
    let messages = [(); 2].map(|()| codec.decode(&mut src).unwrap().unwrap());
    assert_eq!(messages, [&b"xxabxy"[..], b"z"]);
}

#[test]
#[should_panic(expected = "at least one byte")]
fn an_empty_delimiter_is_refused_at_once() {
    let _ = Delimited::new(b"");
}
