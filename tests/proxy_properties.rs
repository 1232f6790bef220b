//! PROXY protocol: what holds of any header and of any bytes.
#![allow(clippy::unwrap_used)] // Tests may.

mod proxy_support;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use hythe::proxy::{Progress, ProxiedAddresses, ProxyError, ProxyHeader, kind, parse};
use proptest::{collection::vec, option, prelude::*};
use proxy_support::{SIGNATURE, accept, cut_with, tlv};

/// Both IPv4 or both IPv6, and not one in the other's clothes.
fn addresses() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let group = || prop_oneof![Just(0), any::<u16>(), 0u16..16];
    let v6 = move || [group(), group(), group(), group(), group(), group(), group(), group()].prop_map(Ipv6Addr::from);
    let plain = |(from, to): (Ipv6Addr, Ipv6Addr)| from.to_ipv4_mapped().is_none() && to.to_ipv4_mapped().is_none();
    let ports = || (any::<u16>(), any::<u16>());
    prop_oneof![
        (any::<(Ipv4Addr, Ipv4Addr)>(), ports())
            .prop_map(|((from, to), (a, b))| (SocketAddr::from((from, a)), SocketAddr::from((to, b)))),
        ((v6(), v6()).prop_filter("mapped", move |both| plain(*both)), ports())
            .prop_map(|((from, to), (a, b))| (SocketAddr::from((from, a)), SocketAddr::from((to, b)))),
    ]
}

/// A Unix socket's name that comes back.
fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(1u8.., 0..=108),
        (vec(any::<u8>(), 0..107), 1u8..).prop_map(|(name, last)| [&[0], &name[..], &[last]].concat()),
    ]
}

/// Everything that a version 2 header can have.
#[derive(Clone, Debug)]
struct Tlvs {
    authority: Option<String>,
    alpn: Option<Vec<u8>>,
    unique_id: Option<Vec<u8>>,
    tls: Option<(u8, u32, Option<String>, Option<String>)>,
    others: Vec<(u8, Vec<u8>)>,
    checksum: bool,
}

prop_compose! {
    fn tlvs()(
        authority in option::of(".{0,20}"),
        alpn in option::of(vec(any::<u8>(), 0..10)),
        unique_id in option::of(vec(any::<u8>(), 0..=128)),
        tls in option::of((any::<u8>(), any::<u32>(), option::of("[ -~]{0,10}"), option::of(".{0,10}"))),
        others in vec((prop_oneof![0xe0u8.., Just(kind::NOOP), 0x06u8..0x20], vec(any::<u8>(), 0..10)), 0..4),
        checksum in any::<bool>(),
    ) -> Tlvs {
        Tlvs { authority, alpn, unique_id, tls, others, checksum }
    }
}

impl Tlvs {
    fn put_on(&self, mut header: ProxyHeader) -> ProxyHeader {
        for (kind, value) in &self.others {
            header = header.tlv(*kind, value.clone());
        }
        if let Some(name) = &self.authority {
            header = header.authority(name);
        }
        if let Some(protocol) = &self.alpn {
            header = header.alpn(protocol.clone());
        }
        if let Some(id) = &self.unique_id {
            header = header.unique_id(id.clone());
        }
        if let Some((client, verify, version, name)) = &self.tls {
            let mut value = [&[*client][..], &verify.to_be_bytes()].concat();
            value.extend(version.iter().flat_map(|version| tlv(kind::TLS_VERSION, version.as_bytes())));
            value.extend(name.iter().flat_map(|name| tlv(kind::TLS_COMMON_NAME, name.as_bytes())));
            header = header.tlv(kind::TLS, value);
        }
        if self.checksum { header.crc32c() } else { header }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_line_written_is_read_back((source, destination) in addresses()) {
        let header = ProxyHeader::v1(source, destination).to_bytes().unwrap();
        let proxied = accept(&header);
        prop_assert_eq!(proxied.addresses(), &ProxiedAddresses::Ip { source, destination });
        prop_assert_eq!(proxied.version(), 1);
    }

    #[test]
    fn a_header_with_all_its_extensions_is_read_back(
        (source, destination) in addresses(),
        names in option::of((name(), name())),
        tlvs in tlvs(),
    ) {
        let (header, expected) = match names {
            None => (ProxyHeader::v2(source, destination), ProxiedAddresses::Ip { source, destination }),
            Some((source, destination)) => (
                ProxyHeader::v2_unix(&source[..], &destination[..]),
                ProxiedAddresses::Unix { source: source.into(), destination: destination.into() },
            ),
        };
        let bytes = match tlvs.put_on(header).to_bytes() {
            Ok(bytes) => bytes,
            Err(error) => {
                // 128 bytes of everything do not fit beside two names.
                let error = format!("{error:?}");
                prop_assert!(error.contains("TooLong { limit: 536"), "{}", error);
                return Ok(());
            }
        };
        let proxied = accept(&bytes);
        prop_assert_eq!(proxied.addresses(), &expected);
        prop_assert_eq!(proxied.version(), 2);
        prop_assert_eq!(proxied.authority(), tlvs.authority.as_deref());
        prop_assert_eq!(proxied.alpn(), tlvs.alpn.as_deref());
        prop_assert_eq!(proxied.unique_id(), tlvs.unique_id.as_deref());
        prop_assert_eq!(proxied.has_checksum(), tlvs.checksum);
        let tls = proxied.tls().map(|tls| {
            let text = |text: Option<&str>| text.map(str::to_owned);
            (tls.client_flags(), tls.verify_result(), text(tls.version()), text(tls.common_name()))
        });
        prop_assert_eq!(tls, tlvs.tls);
        for (kind, value) in &tlvs.others {
            prop_assert!(proxied.tlvs().any(|found| found == (*kind, &value[..])));
        }
    }

    #[test]
    fn a_header_with_a_checksum_and_a_wrong_byte_is_not_read(
        (source, destination) in addresses(),
        tlvs in tlvs(),
        at in any::<prop::sample::Index>(),
        flip in 1u8..,
    ) {
        let header = Tlvs { checksum: true, ..tlvs }.put_on(ProxyHeader::v2(source, destination));
        let mut bytes = header.to_bytes().unwrap().to_vec();
        // Not the extension itself: without it there is nothing to verify by.
        let at = at.index(bytes.len() - 7);
        bytes[at] ^= flip;
        match parse(&bytes, 536) {
            // A longer header than has arrived.
            Ok(Progress::Needs(_)) => prop_assert!((14..16).contains(&at)),
            Ok(Progress::Done(proxied, _)) => {
                // Something that is to be skipped where it makes no sense, or the extension is part of another one.
                let skipped = proxied.source().is_none() || !proxied.has_checksum();
                prop_assert!(skipped, "byte {} of {:?}", at, proxied);
            }
            Err(_) => {}
        }
    }

    #[test]
    fn a_wrong_checksum_is_refused((source, destination) in addresses(), tlvs in tlvs(), flip in 1u32..) {
        let header = Tlvs { checksum: true, ..tlvs }.put_on(ProxyHeader::v2(source, destination));
        let mut bytes = header.to_bytes().unwrap().to_vec();
        let sum = bytes.last_chunk_mut().unwrap();
        let right = u32::from_be_bytes(*sum);
        *sum = (right ^ flip).to_be_bytes();
        let verdict = cut_with(&bytes, 536);
        let wrong = matches!(verdict, Err(ProxyError::Checksum { seen, computed }) if (seen, computed) == (right ^ flip, right));
        prop_assert!(wrong, "{:?}", verdict);
    }

    #[test]
    fn any_bytes_get_one_verdict_however_cut(bytes in vec(any::<u8>(), 0..300), limit in 0usize..600) {
        let _ = cut_with(&bytes, limit);
    }

    #[test]
    fn any_bytes_after_the_signature_get_one_verdict_however_cut(
        command in prop_oneof![Just(0x20), Just(0x21), any::<u8>()],
        family in prop_oneof![Just(0), Just(0x11), Just(0x21), Just(0x31), any::<u8>()],
        length in 0u16..260,
        rest in vec(prop_oneof![0u8..8, Just(0x20), any::<u8>()], 0..300),
    ) {
        let bytes = [&SIGNATURE[..], &[command, family], &length.to_be_bytes(), &rest].concat();
        let _ = cut_with(&bytes, 536);
    }

    #[test]
    fn any_line_gets_one_verdict_however_cut(
        start in "PROXY (TCP4|TCP6|UNKNOWN) ",
        rest in "[0-9a-f:. \r\n]{0,100}",
        end in "(\r\n|\n|)",
    ) {
        let _ = cut_with(format!("{start}{rest}{end}").as_bytes(), 536);
    }

    #[test]
    fn any_form_of_an_ipv6_address_needs_no_more_than_it_has(text in "[0-9a-f]{0,2}(:[0-9a-f]{0,2}){1,7}([.][0-9]){0,3}") {
        let _ = cut_with(format!("PROXY TCP6 {text} ::1 1 1\r\n").as_bytes(), 536);
    }
}
