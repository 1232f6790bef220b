//! `Lines`: LF and CRLF, however cut.

mod codec_support;

use bytes::BytesMut;
use codec_support::*;
use hythe::codec::{CodecError, DEFAULT_MAX_LENGTH, Lines, Unencodable};
use proptest::{collection::vec, prelude::*};
use tokio_util::codec::{Decoder, Encoder};

fn lines_of(wire: &[u8]) -> Vec<String> {
    let outcome = decode_every_way(&Lines::new(), wire, &[]);
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    outcome.messages
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn lines_round_trip(
        lines in vec("[a-zé\r\n]{0,40}", 0..6), crlf in any::<bool>(),
        limit in 0_usize..60, cuts in cuts(),
    ) {
        let codec = Lines::new().max_length(limit);
        round_trip(&if crlf { codec.crlf() } else { codec }, lines, &cuts);
    }

    #[test]
    fn a_line_is_refused_only_if_it_would_come_back_changed(line in "[ab\r\n]{0,6}") {
        let mut wire = BytesMut::new();
        if Lines::new().encode(line.clone(), &mut wire).is_err() {
            wire.extend_from_slice(format!("{line}\n").as_bytes());
            prop_assert_ne!(decode_pieces(&Lines::new(), [&wire[..]]).messages, [line]);
        }
    }

    #[test]
    fn any_bytes_give_the_same_for_every_cut(
        wire in bytes_of(b"ab\r\r\n\n\xc3\xa9", 60), limit in 0_usize..8, cuts in cuts(),
    ) {
        let outcome = decode_every_way(&Lines::new().max_length(limit), &wire, &cuts);
        prop_assert!(outcome.messages.iter().all(|line| line.len() <= limit));
    }

    #[test]
    fn text_gives_what_the_standard_library_gives(text in "[ab\n]{0,60}(\r\n)?(é\r\n)?") {
        let expected: Vec<&str> = text.lines().collect();
        prop_assert_eq!(lines_of(text.as_bytes()), expected);
    }
}

#[test]
fn both_line_ends_and_empty_lines() {
    assert_eq!(lines_of(b"a\nb\r\n\n\r\nc\n"), ["a", "b", "", "", "c"]);
    assert_eq!(lines_of(b"a\rb\r\r\n"), ["a\rb\r"]);
    assert!(lines_of(b"").is_empty());
}

#[test]
fn the_last_line_needs_no_end() {
    assert_eq!(lines_of(b"a\nb"), ["a", "b"]);
    assert_eq!(lines_of(b"a\nb\r"), ["a", "b"]);
}

#[test]
fn a_character_may_be_cut() {
    assert_eq!(lines_of("żółć\n€\r\n😀".as_bytes()), ["żółć", "€", "😀"]);
}

#[test]
fn what_is_not_utf8_says_where() {
    for wire in [&b"ok\nab\xff\n"[..], b"ok\nab\xff"] {
        let outcome = decode_every_way(&Lines::new(), wire, &[]);
        assert_eq!(outcome.messages, ["ok"]);
        assert!(matches!(outcome.error, Some(CodecError::NotUtf8 { valid_up_to: 2 })));
    }
}

#[test]
fn a_line_without_end_stops_at_the_limit() {
    let mut codec = Lines::new();
    let mut src = BytesMut::new();
    let error = loop {
        src.extend_from_slice(&[b'x'; 4096]);
        match codec.decode(&mut src) {
            Ok(line) => assert_eq!(line, None),
            Err(error) => break error,
        }
    };
    let (limit, seen) = error.limit_and_seen().unwrap();
    assert_eq!(limit, DEFAULT_MAX_LENGTH as u64);
    assert_eq!(seen, limit + 4096);
    assert!(src.capacity() <= 4 * DEFAULT_MAX_LENGTH);
}

#[test]
fn the_limit_does_not_count_the_line_end() {
    let codec = Lines::new().max_length(3);
    for wire in [&b"abc\n"[..], b"abc\r\n", b"abc\r", b"abc"] {
        assert_eq!(decode_every_way(&codec, wire, &[]).messages, ["abc"]);
    }
    for wire in [&b"abcd\n"[..], b"abcd", b"abc\rd", b"abc\r\r\n"] {
        let error = error_of(&codec, wire);
        assert_eq!(error.limit_and_seen().unwrap().0, 3, "{error}");
    }
}

#[test]
fn a_line_that_would_break_is_not_sent() {
    let refusal = |codec: Lines, line: &str| {
        let encoded = codec.clone().encode(line.to_owned(), &mut BytesMut::new());
        encoded.err().map(|error| match error {
            CodecError::NotEncodable(why) => why,
            other => panic!("{other}"),
        })
    };
    let at = |at| Some(Unencodable::Delimiter { at });
    assert_eq!(refusal(Lines::new(), "a\nb"), at(1));
    assert_eq!(refusal(Lines::new(), "ab\r"), at(2));
    assert_eq!(refusal(Lines::new().crlf(), "ab\r"), None);
    assert_eq!(refusal(Lines::new().max_length(1), "ab"), Some(Unencodable::TooLong { limit: 1, len: 2 }));
}

#[test]
fn bytes_without_an_end_are_scanned_only_once() {
    let mut codec = Lines::new();
    let mut src = BytesMut::from("xxxx");
    assert_eq!(codec.decode(&mut src).unwrap(), None);
    // Bytes do not change in a buffer; a line end put there by force goes unseen
    // by a decoder that looks at new bytes only.
    src[1] = b'\n';
    src.extend_from_slice(b"yy");
    assert_eq!(codec.decode(&mut src).unwrap(), None);
    src.extend_from_slice(b"\nz\n");
    assert_eq!(codec.decode(&mut src).unwrap().as_deref(), Some("x\nxxyy"));
    assert_eq!(codec.decode(&mut src).unwrap().as_deref(), Some("z"));
}
