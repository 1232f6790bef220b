//! `LengthDelimited`: the same messages for every cut, and no trust in a prefix.

mod codec_support;

use bytes::{Bytes, BytesMut};
use codec_support::*;
use hythe::codec::{CodecError, DEFAULT_MAX_LENGTH, LengthDelimited, Unencodable};
use proptest::prelude::*;
use tokio_util::codec::{Decoder, Encoder};

#[derive(Clone, Copy, Debug)]
struct Options {
    width: Option<usize>,
    little: bool,
    offset: usize,
    adjustment: i64,
    counts_itself: bool,
    limit: usize,
}

impl Options {
    fn codec(self) -> LengthDelimited {
        let codec = LengthDelimited::new()
            .offset(self.offset)
            .adjustment(self.adjustment)
            .counts_itself(self.counts_itself)
            .max_length(self.limit);
        let codec = match self.width {
            Some(width) => codec.prefix_bytes(width),
            None => codec.varint(),
        };
        if self.little { codec.little_endian() } else { codec }
    }
}

fn options() -> impl Strategy<Value = Options> {
    (
        prop::sample::select(vec![Some(1), Some(2), Some(3), Some(4), Some(8), None]),
        any::<bool>(),
        0_usize..5,
        prop_oneof![3 => Just(0), 3 => -12_i64..12, 1 => any::<i64>()],
        any::<bool>(),
        prop_oneof![Just(DEFAULT_MAX_LENGTH), 0_usize..300, Just(usize::MAX)],
    )
        .prop_map(|(width, little, offset, adjustment, counts_itself, limit)| Options {
            width,
            little,
            offset,
            adjustment,
            counts_itself,
            limit,
        })
}

/// Wires that announce small lengths, huge ones and nonsense.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    bytes_of(&[0, 0, 0, 1, 2, 3, 5, 0x7f, 0x80, 0xff], 40)
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn every_option_combination_round_trips(
        options in options(), messages in messages(150), cuts in cuts(),
    ) {
        round_trip(&options.codec(), messages, &cuts);
    }

    #[test]
    fn kept_prefixes_are_the_wire_unchanged(
        options in options(), messages in messages(150), cuts in cuts(),
    ) {
        let limit = options.limit;
        let (sent, wire) = encode_all(&options.codec(), messages);
        let keep = options.codec().keep_prefix(true).max_length(limit.saturating_add(10));
        let kept = decode_every_way(&keep, &wire, &cuts);
        prop_assert!(kept.error.is_none());
        prop_assert_eq!(kept.messages.len(), sent.len());
        let (resent, again) = encode_all(&keep, kept.messages.clone());
        prop_assert_eq!(resent, kept.messages);
        prop_assert_eq!(again, wire);
    }

    #[test]
    fn a_kept_prefix_is_sent_only_if_it_is_right(options in options(), frame in hostile()) {
        round_trip(&options.codec().keep_prefix(true), vec![Bytes::from(frame)], &[]);
    }

    #[test]
    fn any_bytes_give_the_same_for_every_cut(
        options in options(), keep in any::<bool>(), wire in hostile(), cuts in cuts(),
    ) {
        decode_every_way(&options.codec().keep_prefix(keep), &wire, &cuts);
    }

    #[test]
    fn no_message_is_above_the_limit(options in options(), wire in hostile()) {
        let codec = options.codec().max_length(7);
        for message in decode_pieces(&codec, [&wire[..]]).messages {
            prop_assert!(message.len() <= 7);
        }
    }

    #[test]
    fn what_is_refused_to_send_could_not_have_been_read(
        options in options(), len in 0_usize..300,
    ) {
        // Below its limit a codec refuses only what no prefix can announce.
        let mut codec = Options { limit: usize::MAX, ..options }.codec();
        if let Err(error) = codec.encode(Bytes::from(vec![0; len]), &mut BytesMut::new()) {
            let CodecError::NotEncodable(why) = error else { panic!("{error}") };
            let own = if options.counts_itself { options.width.unwrap_or(1) as i128 } else { 0 };
            let least = options.offset as i128 + (i128::from(options.adjustment) - own).max(0);
            match why {
                Unencodable::TooShort { len: said, .. } => {
                    prop_assert_eq!(said, len as u64);
                    prop_assert!((len as i128) < least);
                }
                Unencodable::PrefixOverflow { limit, .. } => {
                    prop_assert!(limit == 0 || limit < len as u64);
                }
                _ => prop_assert!(false, "{}", why),
            }
        }
    }
}

#[test]
fn long_messages_survive_many_cuts() {
    let messages: Vec<Bytes> = [0, 1, 256, 257, 70_000, 3, 200_000].map(|len| Bytes::from(vec![len as u8; len])).into();
    let (_, wire) = encode_all(&LengthDelimited::new(), messages.clone());
    for size in [7, 1_000, 4_096, 65_536, 100_000] {
        let back = decode_pieces(&LengthDelimited::new(), wire.chunks(size));
        assert!(back.error.is_none());
        assert_eq!(back.messages, messages);
    }
}

#[test]
fn claims_above_the_limit_are_named_and_cost_no_memory() {
    let limit = DEFAULT_MAX_LENGTH as u64;
    let gib = 1_u32 << 30;
    let new = LengthDelimited::new;
    let cases = [
        (new(), gib.to_be_bytes().to_vec(), u64::from(gib)),
        (new().little_endian(), gib.to_le_bytes().to_vec(), u64::from(gib)),
        (new().prefix_bytes(8), vec![0xff; 8], u64::MAX),
        (new().prefix_bytes(8).adjustment(i64::MAX), vec![0xff; 8], u64::MAX),
        (new().prefix_bytes(8).offset(1).counts_itself(true), vec![0xff; 9], u64::MAX - 7),
        (new().varint(), [&[0xff; 9][..], &[1]].concat(), u64::MAX),
    ];
    for (codec, wire, claim) in cases {
        let mut src = BytesMut::from(&wire[..]);
        let capacity = src.capacity();
        let error = codec.clone().decode(&mut src).unwrap_err();
        assert!(matches!(error, CodecError::TooLong { .. }), "{error}");
        assert_eq!(error.limit_and_seen(), Some((limit, claim)), "{codec:?}");
        assert_eq!(src.capacity(), capacity);
        error_of(&codec, &wire);
    }
}

#[test]
fn a_claim_within_the_limit_reserves_nothing() {
    let mut codec = LengthDelimited::new().max_length(usize::MAX);
    let mut src = BytesMut::from(&[0xff, 0xff, 0xff, 0xff, 1][..]);
    let capacity = src.capacity();
    assert!(codec.decode(&mut src).unwrap().is_none());
    assert_eq!(src.capacity(), capacity);
}

#[test]
fn the_limit_holds_after_adjustment_and_exactly() {
    for (adjustment, at_limit) in [(0, 100), (6, 94), (-6, 106)] {
        let codec = LengthDelimited::new().adjustment(adjustment).max_length(100);
        let wire = |value: u32| [&value.to_be_bytes()[..], &[0; 101]].concat();
        let mut src = BytesMut::from(&wire(at_limit)[..]);
        assert_eq!(codec.clone().decode(&mut src).unwrap().unwrap().len(), 100);
        let error = error_of(&codec, &wire(at_limit + 1));
        assert_eq!(error.limit_and_seen(), Some((100, 101)));
    }
    let offset = LengthDelimited::new().prefix_bytes(1).offset(2).max_length(4);
    assert_eq!(error_of(&offset, b"ab\x03cde").limit_and_seen(), Some((4, 5)));
}

#[test]
fn a_length_below_zero_names_the_value_and_the_least() {
    let new = || LengthDelimited::new().prefix_bytes(1);
    for (codec, least) in [
        (new().adjustment(-5), 5),
        (new().counts_itself(true), 1),
        (new().adjustment(-5).counts_itself(true), 6),
        (new().adjustment(i64::MIN), 1 << 63),
    ] {
        let error = error_of(&codec, &[0, 9, 9, 9]);
        assert!(matches!(error, CodecError::BadLength { value: 0, least: l } if l == least), "{error}");
    }
}

#[test]
fn varints_are_those_of_protobuf() {
    // The encoding guide's own example, and the edges.
    for (len, prefix) in [
        (0_usize, &[0][..]),
        (1, &[1]),
        (127, &[0x7f]),
        (128, &[0x80, 1]),
        (150, &[0x96, 1]),
        (16_384, &[0x80, 0x80, 1]),
    ] {
        let (_, wire) = encode_all(&LengthDelimited::new().varint(), vec![Bytes::from(vec![7; len])]);
        assert_eq!(&wire[..prefix.len()], prefix);
        assert_eq!(wire.len(), prefix.len() + len);
    }
}

#[test]
fn overlong_varints_are_read_up_to_ten_bytes() {
    let codec = LengthDelimited::new().varint();
    let padded = [&[0x81][..], &[0x80; 8], &[0, b'x']].concat();
    assert_eq!(decode_every_way(&codec, &padded, &[]).messages, ["x"]);

    for wire in [
        [&[0x80; 10][..], &[0]].concat(),
        [&[0xff; 10][..], &[1]].concat(),
        [&[0x80; 9][..], &[2]].concat(), // a 65th bit
    ] {
        assert!(matches!(error_of(&codec, &wire), CodecError::BadVarint));
    }
}

#[test]
fn an_end_inside_a_message_says_how_much_is_missing() {
    let codec = LengthDelimited::new();
    for (wire, expected) in
        [(&b"\0\0"[..], (2, None)), (b"\0\0\0\x05ab", (6, Some(9))), (b"\0\0\0\x01a\0\0\0\x05", (4, Some(9)))]
    {
        let error = error_of(&codec, wire);
        assert!(error.is_truncated());
        assert!(matches!(error, CodecError::Truncated { have, need } if (have, need) == expected), "{error}");
    }
    assert!(decode_every_way(&codec, b"\0\0\0\x01a", &[]).error.is_none());
}

#[test]
fn the_offset_is_the_start_of_the_message() {
    let postgres = LengthDelimited::new().offset(1).counts_itself(true);
    let wire = b"Q\0\0\0\x0dselect 1\0X\0\0\0\x04";
    let messages = decode_every_way(&postgres, wire, &[]).messages;
    assert_eq!(messages, [&b"Qselect 1\0"[..], b"X"]);
    assert_eq!(encode_all(&postgres, messages).1, &wire[..]);
}

#[test]
fn what_cannot_be_announced_is_not_sent() {
    let refusal = |codec: LengthDelimited, len: usize| {
        let message = Bytes::from(vec![0; len]);
        match codec.clone().encode(message, &mut BytesMut::new()) {
            Err(CodecError::NotEncodable(why)) => Some(why),
            other => {
                other.expect("no other error");
                None
            }
        }
    };
    let byte = || LengthDelimited::new().prefix_bytes(1);
    assert_eq!(refusal(byte(), 255), None);
    assert_eq!(refusal(byte(), 256), Some(Unencodable::PrefixOverflow { limit: 255, len: 256 }));
    assert_eq!(refusal(byte().counts_itself(true), 254), None);
    assert_eq!(refusal(byte().counts_itself(true), 255), Some(Unencodable::PrefixOverflow { limit: 254, len: 255 }));
    assert_eq!(refusal(LengthDelimited::new().max_length(9), 10), Some(Unencodable::TooLong { limit: 9, len: 10 }));
    assert_eq!(refusal(byte().offset(3), 2), Some(Unencodable::TooShort { least: 3, len: 2 }));
    assert_eq!(refusal(byte().adjustment(4), 3), Some(Unencodable::TooShort { least: 4, len: 3 }));
    assert_eq!(refusal(byte().keep_prefix(true), 3), Some(Unencodable::WrongPrefix { len: 3 }));
}

#[test]
fn byte_order_and_width_may_be_set_in_either_order() {
    let expected = b"\x02\0hi";
    for codec in [
        LengthDelimited::new().little_endian().prefix_bytes(2),
        LengthDelimited::new().prefix_bytes(2).little_endian(),
        LengthDelimited::new().varint().prefix_bytes(2).little_endian(),
    ] {
        assert_eq!(encode_all(&codec, vec![Bytes::from("hi")]).1, &expected[..]);
    }
}

#[test]
#[should_panic(expected = "1, 2, 3, 4 or 8 bytes")]
fn other_widths_are_refused_at_once() {
    let _ = LengthDelimited::new().prefix_bytes(5);
}

#[test]
fn the_state_of_a_connection_is_small() {
    assert!(size_of::<LengthDelimited>() <= 48);
    assert!(size_of::<CodecError>() <= 32);
}
