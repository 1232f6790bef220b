//! PROXY protocol, version 2: what is a header, what is none, and what the error says then.
#![allow(clippy::unwrap_used)] // Tests may.

mod proxy_support;

use hythe::proxy::{Progress, ProxiedAddresses, ProxyError, ProxyHeader, ProxyHeaderError, TlvFault, kind, parse};
use proxy_support::{SIGNATURE, V4, accept, addr, cut, cut_with, refuse, tlv, v2, with_tlvs};

/// Sent by an AWS Network Load Balancer for a VPC endpoint; the example is in AWS's elastic-load-balancing-tools.
const AWS: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x54\xac\x1f\x07\x71\xac\x1f\x0a\x1f\xc8\xf2\x00\x50\
    \x03\x00\x04\xe8\xd6\x89\x2d\xea\x00\x17\x01vpce-08d2bf15fac5001c9\x04\x00\x24\
    \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

#[test]
fn addresses_of_each_family_are_read() {
    let proxied = accept(&v2(0x21, 0x11, V4));
    assert_eq!(proxied.version(), 2);
    assert_eq!(proxied.source(), Some(addr("192.0.2.1:256")));
    assert_eq!(proxied.destination(), Some(addr("192.0.2.2:443")));
    assert!(!proxied.is_datagrams() && !proxied.is_local() && !proxied.has_checksum());
    assert!(accept(&v2(0x21, 0x12, V4)).is_datagrams());

    let mut block: Vec<u8> = (1..=32).collect();
    block.extend([0xff, 0xff, 0, 0]);
    let proxied = accept(&v2(0x21, 0x21, &block));
    assert_eq!(proxied.source(), Some(addr("[102:304:506:708:90a:b0c:d0e:f10]:65535")));
    assert_eq!(proxied.destination(), Some(addr("[1112:1314:1516:1718:191a:1b1c:1d1e:1f20]:0")));
    assert!(accept(&v2(0x21, 0x22, &block)).is_datagrams());
}

#[test]
fn names_of_unix_sockets_end_at_their_nuls() {
    let name = |bytes: &[u8]| [bytes, &vec![0; 108 - bytes.len()]].concat();
    let full = [b'x'; 108];
    for (field, expected) in [
        (name(b""), &b""[..]),
        (name(b"/run/a.sock"), b"/run/a.sock"),
        (name(b"/run/a\0rest of an older name"), b"/run/a"),
        (name(b"\0abstract"), b"\0abstract"),
        (name(b"\0a\0b"), b"\0a\0b"),
        (full.to_vec(), &full),
    ] {
        let proxied = accept(&v2(0x21, 0x31, &[&field[..], &name(b"/d")].concat()));
        let ProxiedAddresses::Unix { source, destination } = proxied.addresses() else { panic!("{proxied:?}") };
        assert_eq!((&source[..], &destination[..]), (expected, &b"/d"[..]));
        assert_eq!((proxied.source(), proxied.destination()), (None, None));
    }
    let proxied = accept(&v2(0x21, 0x32, &[name(b"\0\x1b[31m"), name(b"")].concat()));
    assert_eq!(proxied.to_string(), r#"unix "\x00\x1b[31m" to "" (PROXY version 2)"#);
    assert!(proxied.is_datagrams());
}

#[test]
fn a_local_connection_keeps_its_own_addresses_whatever_the_block_is() {
    for block in [&b""[..], V4, b"\0", b"\x02\0\x09short", b"\x03\0\x04", &tlv(kind::AUTHORITY, b"\xff")] {
        for family in [0x00, 0x02, 0x11, 0x12, 0x21, 0x31, 0x55, 0xff] {
            let proxied = accept(&v2(0x20, family, block));
            assert!(proxied.is_local());
            assert_eq!((proxied.source(), proxied.destination(), proxied.is_datagrams()), (None, None, false));
        }
    }
    assert_eq!(accept(&v2(0x20, 0, &[])).to_string(), "the proxy itself (PROXY version 2)");
}

#[test]
fn an_unspecified_connection_is_unknown_whatever_the_block_is() {
    for block in [&b""[..], V4, b"\x02\0\x09short"] {
        let proxied = accept(&v2(0x21, 0x00, block));
        assert_eq!(proxied.addresses(), &ProxiedAddresses::Unknown);
    }
}

#[test]
fn extensions_of_a_header_without_addresses_are_read_and_their_checksum_counts() {
    for (command, family, before) in [(0x20, 0x00, &b""[..]), (0x21, 0x00, b""), (0x20, 0x11, V4)] {
        let block = [before, &tlv(kind::UNIQUE_ID, b"id")].concat();
        assert_eq!(accept(&v2(command, family, &block)).unique_id(), Some(&b"id"[..]));
        let block = [before, &tlv(kind::CRC32C, &[0; 4])].concat();
        assert!(matches!(refuse(&v2(command, family, &block)), ProxyError::Checksum { seen: 0, .. }));
    }
    let proxied = accept(&ProxyHeader::local().unique_id("check 7").crc32c().to_bytes().unwrap());
    assert!(proxied.is_local() && proxied.has_checksum());
}

#[test]
fn the_checksum_of_a_load_balancer_is_right_and_of_every_flipped_bit_wrong() {
    let proxied = accept(AWS);
    assert_eq!(proxied.source(), Some(addr("172.31.7.113:51442")));
    assert!(proxied.has_checksum());
    assert_eq!(proxied.tlv(0xea), Some(&b"\x01vpce-08d2bf15fac5001c9"[..]));
    assert_eq!(proxied.tlvs().map(|(kind, _)| kind).collect::<Vec<_>>(), [kind::CRC32C, 0xea, kind::NOOP]);

    for bit in 0..AWS.len() * 8 {
        let mut header = AWS.to_vec();
        header[bit / 8] ^= 1 << (bit % 8);
        let verdict = parse(&header, 536);
        match bit / 8 {
            // Signature, version, command; family or length; type or length of an extension.
            0..12 => assert!(matches!(verdict, Err(ProxyError::NotProxy { .. }))),
            // A length that is larger by a bit has not arrived yet, or is above the limit.
            14..16 if !matches!(verdict, Err(ProxyError::Checksum { .. })) => {}
            // Without the extension nothing is verified: it has to be another type.
            28 => assert!(!verdict.is_ok_and(|verdict| match verdict {
                Progress::Done(proxied, _) => proxied.has_checksum(),
                _ => false,
            })),
            _ => assert!(verdict.is_err(), "bit {bit}"),
        }
    }
    for byte in [16, 20, 24, 27, 31, 34, 40, 60, AWS.len() - 1] {
        let mut header = AWS.to_vec();
        header[byte] ^= 0x10;
        let error = refuse(&header);
        assert!(matches!(error, ProxyError::Checksum { .. }), "byte {byte}: {error:?}");
    }
}

#[test]
fn tls_that_haproxy_reports_is_read() {
    let inner = [tlv(kind::TLS_VERSION, b"TLSv1.3"), tlv(kind::TLS_COMMON_NAME, "Bücher".as_bytes())].concat();
    let proxied = accept(&with_tlvs(&[tlv(kind::TLS, &[&[7, 0, 0, 0, 0], &inner[..]].concat())]));
    let tls = proxied.tls().unwrap();
    assert!(tls.is_tls() && tls.has_certificate() && tls.is_verified());
    assert_eq!((tls.client_flags(), tls.verify_result()), (7, 0));
    assert_eq!((tls.version(), tls.common_name(), tls.cipher()), (Some("TLSv1.3"), Some("Bücher"), None));
    assert_eq!(
        format!("{tls:?}"),
        concat!(
            "ProxiedTls { client_flags: 7, verify_result: 0, ",
            r#"version: Some("TLSv1.3"), common_name: Some("B\xc3\xbccher"), .. }"#
        )
    );

    // No certificate, and HAProxy says 0 all the same.
    let inner = [tlv(0x99, b"?"), tlv(kind::TLS_CIPHER, b"TLS_AES_256_GCM_SHA384"), tlv(0x99, b"!")].concat();
    let proxied = accept(&with_tlvs(&[tlv(kind::TLS, &[&[1, 0, 0, 0, 0], &inner[..]].concat())]));
    let tls = proxied.tls().unwrap();
    assert!(tls.is_tls() && !tls.has_certificate() && !tls.is_verified());
    assert_eq!((tls.version(), tls.cipher()), (None, Some("TLS_AES_256_GCM_SHA384")));
    assert_eq!((tls.tlv(0x99), tls.tlvs().count()), (Some(&b"?"[..]), 3));

    // A certificate in an earlier connection of the session; not valid.
    let proxied = accept(&with_tlvs(&[tlv(kind::TLS, &[5, 0, 0, 1, 2])]));
    let tls = proxied.tls().unwrap();
    assert!(tls.has_certificate() && !tls.is_verified());
    assert_eq!(tls.verify_result(), 258);

    let proxied = accept(&with_tlvs(&[tlv(kind::TLS, &[0; 5])]));
    assert!(!proxied.tls().unwrap().is_tls());
    assert_eq!(accept(&with_tlvs(&[])).tls(), None);
}

#[test]
fn the_tls_extension_is_looked_into_one_level_deep() {
    // What would be extensions inside the one inside is not looked at, well-formed or not.
    let deep = tlv(kind::TLS, &[&[1, 0, 0, 0, 0][..], b"\x21\xff\xff"].concat());
    accept(&with_tlvs(&[tlv(kind::TLS, &[&[1, 0, 0, 0, 0], &deep[..]].concat())]));
}

#[test]
fn unknown_extensions_are_kept_and_padding_may_repeat() {
    let block = [tlv(0xe0, b"1"), tlv(kind::NOOP, b"\0"), tlv(0xe0, b"2"), tlv(kind::NOOP, b""), tlv(0xff, b"")];
    let proxied = accept(&with_tlvs(&block));
    let expected: [(u8, &[u8]); 5] = [(0xe0, b"1"), (4, b"\0"), (0xe0, b"2"), (4, b""), (0xff, b"")];
    assert_eq!(proxied.tlvs().collect::<Vec<_>>(), expected);
    assert_eq!((proxied.tlv(0xe0), proxied.tlv(0xff), proxied.tlv(0xe1)), (Some(&b"1"[..]), Some(&b""[..]), None));
}

#[test]
fn an_extension_that_is_not_exactly_so_is_refused() {
    use TlvFault::{Length, NotText, Repeated, Truncated};
    let tls = |inner: &[u8]| tlv(kind::TLS, &[&[1, 0, 0, 0, 0], inner].concat());
    let twice = |kind, value: &[u8]| [tlv(kind, value), tlv(kind, value)].concat();
    for (block, at, kind, fault) in [
        (b"\x02".to_vec(), 28, kind::AUTHORITY, Truncated { need: 3, have: 1 }),
        (b"\x02\0".to_vec(), 28, kind::AUTHORITY, Truncated { need: 3, have: 2 }),
        (b"\x02\0\x01".to_vec(), 28, kind::AUTHORITY, Truncated { need: 4, have: 3 }),
        (b"\xee\xff\xffabc".to_vec(), 28, 0xee, Truncated { need: 65_538, have: 6 }),
        ([&tlv(0xe0, b"ok")[..], b"\x04\0\x05abcd"].concat(), 33, kind::NOOP, Truncated { need: 8, have: 7 }),
        (tlv(kind::CRC32C, &[0; 3]), 28, kind::CRC32C, Length { least: 4, most: 4, seen: 3 }),
        (tlv(kind::CRC32C, &[0; 5]), 28, kind::CRC32C, Length { least: 4, most: 4, seen: 5 }),
        (tlv(kind::UNIQUE_ID, &[0; 129]), 28, kind::UNIQUE_ID, Length { least: 0, most: 128, seen: 129 }),
        (tlv(kind::TLS, &[0; 4]), 28, kind::TLS, Length { least: 5, most: 65_535, seen: 4 }),
        (tlv(kind::AUTHORITY, b"ok\xff"), 28, kind::AUTHORITY, NotText { valid_up_to: 2 }),
        (tlv(kind::NETWORK_NAMESPACE, "ö".as_bytes()), 28, kind::NETWORK_NAMESPACE, NotText { valid_up_to: 0 }),
        (tls(b"\x21\0\x09short"), 36, kind::TLS_VERSION, Truncated { need: 12, have: 8 }),
        (tls(b"\x22\0"), 36, kind::TLS_COMMON_NAME, Truncated { need: 3, have: 2 }),
        (tls(&tlv(kind::TLS_VERSION, "TLS ü".as_bytes())), 36, kind::TLS_VERSION, NotText { valid_up_to: 4 }),
        (tls(&tlv(kind::TLS_CIPHER, &[0x80])), 36, kind::TLS_CIPHER, NotText { valid_up_to: 0 }),
        (tls(&tlv(kind::TLS_COMMON_NAME, b"a\xc3")), 36, kind::TLS_COMMON_NAME, NotText { valid_up_to: 1 }),
        (tls(&twice(kind::TLS_VERSION, b"1")), 40, kind::TLS_VERSION, Repeated),
        (tls(&twice(kind::TLS_CLIENT_CERTIFICATE, b"1")), 40, kind::TLS_CLIENT_CERTIFICATE, Repeated),
        (twice(kind::AUTHORITY, b"a"), 32, kind::AUTHORITY, Repeated),
        (twice(kind::ALPN, b"a"), 32, kind::ALPN, Repeated),
        (twice(kind::UNIQUE_ID, b"a"), 32, kind::UNIQUE_ID, Repeated),
        (twice(kind::CRC32C, &[0; 4]), 35, kind::CRC32C, Repeated),
        (twice(kind::TLS, &[0; 5]), 36, kind::TLS, Repeated),
        (twice(kind::NETWORK_NAMESPACE, b"a"), 32, kind::NETWORK_NAMESPACE, Repeated),
    ] {
        match refuse(&v2(0x21, 0x11, &[V4, &block[..]].concat())) {
            ProxyError::Tlv { at: a, kind: k, fault: f } => assert_eq!((a, k, f), (at, kind, fault), "{block:02x?}"),
            error => panic!("{block:02x?}: {error:?}"),
        }
    }
}

#[test]
fn a_fixed_part_that_is_not_exactly_so_is_refused() {
    for version in (0..16).filter(|version| *version != 2) {
        let error = refuse(&v2(version << 4 | 1, 0x11, V4));
        assert!(matches!(error, ProxyError::Version { seen } if seen == version), "{error:?}");
    }
    for command in 2..16 {
        let error = refuse(&v2(0x20 | command, 0x11, V4));
        assert!(matches!(error, ProxyError::Command { seen } if seen == command), "{error:?}");
    }
    let known = [0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32];
    for family in (0..=255).filter(|family| !known.contains(family)) {
        let error = refuse(&v2(0x21, family, &[0; 216]));
        assert!(matches!(error, ProxyError::Family { seen } if seen == family), "{error:?}");
    }
    for (family, length) in [(0x11, 12), (0x12, 12), (0x21, 36), (0x22, 36), (0x31, 216), (0x32, 216)] {
        accept(&v2(0x21, family, &vec![0; length]));
        for short in [0, 1, length - 1] {
            let error = refuse(&v2(0x21, family, &vec![0; short]));
            assert!(
                matches!(error, ProxyError::TooShort { need, seen } if (need, seen) == (length, short)),
                "{error:?}"
            );
        }
    }
}

#[test]
fn a_length_above_the_limit_is_refused_before_it_has_arrived() {
    let header = |length: u16| [&SIGNATURE[..], &[0x21, 0x11], &length.to_be_bytes()].concat();
    assert_eq!(cut(&header(520)).unwrap(), Progress::Needs(520));
    for length in [521, 60_000, u16::MAX] {
        let error = refuse(&header(length));
        assert_eq!(error.limit_and_seen(), Some((536, 16 + usize::from(length))));
    }
    assert_eq!(refuse(&header(65_535)).to_string(), "PROXY header too long: limit 536 bytes, seen 65551");

    assert_eq!(cut_with(&header(65_535), 65_551).unwrap(), Progress::Needs(65_535));
    assert_eq!(cut_with(&header(12), 28).unwrap(), Progress::Needs(12));
    assert_eq!(cut_with(&header(12), 27).unwrap_err().limit_and_seen(), Some((27, 28)));
    assert_eq!(cut_with(&v2(0x20, 0, &[]), 0).unwrap_err().limit_and_seen(), Some((0, 16)));
    // The longest header, with what is in it.
    let certificate = vec![7; 2000];
    let tls = tlv(kind::TLS, &[&[7, 0, 0, 0, 0], &tlv(kind::TLS_CLIENT_CERTIFICATE, &certificate)[..]].concat());
    let Ok(Progress::Done(proxied, _)) = parse(&with_tlvs(&[tls]), 4096) else { panic!() };
    assert_eq!(proxied.tls().unwrap().tlv(kind::TLS_CLIENT_CERTIFICATE), Some(&certificate[..]));
}

#[test]
fn a_header_written_is_as_the_specification_has_it() {
    let header = ProxyHeader::v2(addr("192.0.2.1:256"), addr("192.0.2.2:443")).authority("a").alpn("h2");
    let expected = with_tlvs(&[tlv(kind::AUTHORITY, b"a"), tlv(kind::ALPN, b"h2")]);
    assert_eq!(header.to_bytes().unwrap(), expected);
    assert_eq!(ProxyHeader::local().to_bytes().unwrap(), v2(0x20, 0, &[]));

    // The load balancer's, but for the place of the checksum.
    let header = ProxyHeader::v2(addr("172.31.7.113:51442"), addr("172.31.10.31:80"));
    let header = header.tlv(0xea, &b"\x01vpce-08d2bf15fac5001c9"[..]).tlv(kind::NOOP, [0; 36]).crc32c();
    let bytes = header.to_bytes().unwrap();
    assert_eq!((bytes.len(), &bytes[..28]), (AWS.len(), &AWS[..28]));
    assert_eq!(&bytes[28..93], &AWS[35..]);
    assert!(accept(&bytes).has_checksum());

    for (source, destination, family) in [
        ("192.0.2.1:1", "192.0.2.2:2", 0x11),
        ("[::ffff:192.0.2.1]:1", "192.0.2.2:2", 0x11),
        ("192.0.2.1:1", "[2001:db8::1]:2", 0x21),
        ("[2001:db8::1]:1", "[2001:db8::2]:2", 0x21),
    ] {
        let bytes = ProxyHeader::v2(addr(source), addr(destination)).to_bytes().unwrap();
        assert_eq!(bytes[13], family, "{source}");
        accept(&bytes);
    }
}

#[test]
fn a_header_that_would_be_refused_is_not_written() {
    let (from, to) = (addr("192.0.2.1:1"), addr("192.0.2.2:2"));
    let refused = |header: ProxyHeader| header.to_bytes().unwrap_err();
    let v2 = || ProxyHeader::v2(from, to);

    for header in [ProxyHeader::v1(from, to).authority("a"), ProxyHeader::v1_unknown().authority("a").crc32c()] {
        assert!(matches!(refused(header), ProxyHeaderError::TlvInVersion1 { kind: kind::AUTHORITY }));
    }
    assert!(matches!(refused(ProxyHeader::v1(from, to).crc32c()), ProxyHeaderError::TlvInVersion1 { kind: 3 }));
    for (header, expected) in [
        (v2().unique_id([0; 129]), "its value has 129 bytes, not 0 to 128"),
        (v2().authority("a").authority("b"), "it comes twice"),
        (v2().tlv(kind::AUTHORITY, [0xff]), "its value is no text after its first 0 bytes"),
        (v2().tlv(kind::CRC32C, [0; 4]), "wrong checksum"),
        (v2().tlv(kind::CRC32C, [0; 4]).crc32c(), "it comes twice"),
        (ProxyHeader::local().tlv(kind::TLS, []), "its value has 0 bytes, not 5 to 65535"),
        (v2().tlv(0xe0, [0; 506]), "limit 536 bytes, seen 537"),
        (v2().tlv(0xe0, [0; 65_535]), "limit 536 bytes, seen 65566"),
    ] {
        match refused(header) {
            ProxyHeaderError::Refused(error) => assert!(error.to_string().contains(expected), "{error}"),
            error => panic!("{error:?}"),
        }
    }
    assert_eq!(accept(&v2().tlv(0xe0, [0; 505]).to_bytes().unwrap()).tlv(0xe0).unwrap().len(), 505);
    let error = refused(v2().tlv(0xe0, vec![0; 65_536]));
    assert!(matches!(error, ProxyHeaderError::ValueTooLong { kind: 0xe0, len: 65_536 }));
    for name in [&[b'a'; 109][..], b"/a\0", b"\0", b"\0a\0", b"/a\0b"] {
        let error = refused(ProxyHeader::v2_unix(name, "/b"));
        assert!(matches!(error, ProxyHeaderError::UnixName { len } if len == name.len()), "{error:?}");
    }
}
