//! Networks in CIDR form, and whom a `ProxyProtocol` trusts.
#![allow(clippy::unwrap_used)] // Tests may.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use hythe::proxy::{Cidr, CidrError, DEFAULT_MAX_HEADER, ProxyProtocol};
use proptest::prelude::*;

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn refused(text: &str) -> CidrError {
    match text.parse::<Cidr>() {
        Ok(network) => panic!("{text:?} was accepted as {network}"),
        Err(error) => error,
    }
}

#[test]
fn a_network_holds_what_shares_its_prefix() {
    for (network, inside, outside) in [
        (
            "10.0.0.0/8",
            vec!["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"],
            vec!["9.255.255.255", "11.0.0.0", "::a00:0"],
        ),
        ("192.0.2.128/25", vec!["192.0.2.128", "192.0.2.255"], vec!["192.0.2.127", "192.0.3.0"]),
        ("192.0.2.1", vec!["192.0.2.1", "::ffff:192.0.2.1"], vec!["192.0.2.0", "192.0.2.2", "::192.0.2.1"]),
        ("0.0.0.0/0", vec!["0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4"], vec!["::", "::1"]),
        ("::1/128", vec!["::1"], vec!["::", "::2", "0.0.0.1"]),
        ("2001:db8::/33", vec!["2001:db8::", "2001:db8:7fff::1"], vec!["2001:db8:8000::", "2001:db7:ffff::"]),
        ("fe80::/10", vec!["fe80::1", "febf::1"], vec!["fec0::1"]),
        ("::/0", vec!["::", "ffff::"], vec!["1.2.3.4", "::ffff:1.2.3.4"]),
        ("::ffff:10.0.0.0/104", vec!["10.1.2.3", "::ffff:10.1.2.3"], vec!["11.0.0.0", "::ffff:11.0.0.0"]),
    ] {
        for address in inside {
            assert!(cidr(network).contains(ip(address)), "{address} in {network}");
        }
        for address in outside {
            assert!(!cidr(network).contains(ip(address)), "{address} in {network}");
        }
    }
}

#[test]
fn a_network_prints_in_one_form() {
    for (text, printed) in [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("192.0.2.1", "192.0.2.1/32"),
        ("::1", "::1/128"),
        ("2001:DB8:0:0::/32", "2001:db8::/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::ffff:1.2.3.4", "1.2.3.4/32"),
        ("::/64", "::/64"),
    ] {
        assert_eq!(cidr(text).to_string(), printed);
        assert_eq!(cidr(printed), cidr(text));
    }
    assert_eq!(format!("{:?}", cidr("10.0.0.0/8")), "Cidr(10.0.0.0/8)");
}

#[test]
fn an_address_alone_is_a_network_of_one() {
    assert_eq!(Cidr::from(Ipv4Addr::LOCALHOST), cidr("127.0.0.1/32"));
    assert_eq!(Cidr::from(Ipv6Addr::LOCALHOST), cidr("::1/128"));
    assert_eq!(Cidr::from(ip("::ffff:127.0.0.1")), cidr("127.0.0.1"));
    assert_eq!((cidr("::1").network(), cidr("::1").prefix()), (ip("::1"), 128));
}

#[test]
fn bits_after_the_prefix_are_an_error_that_names_the_network() {
    for (text, network) in [
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("192.0.2.1/31", "192.0.2.0/31"),
        ("1.2.3.4/0", "0.0.0.0/0"),
        ("2001:db8::1/64", "2001:db8::/64"),
        ("::1/0", "::/0"),
        ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
    ] {
        let error = refused(text);
        let CidrError::HostBits { network: named, .. } = error else { panic!("{error:?}") };
        assert_eq!(named, cidr(network));
        let (_, prefix) = text.split_once('/').unwrap();
        let expected = format!("{text} is no network, as it has bits after the first {prefix}; that is {network}");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn what_is_no_network_is_refused() {
    for text in [
        "",
        "/",
        "/8",
        "10",
        "10.0.0/8",
        "10.0.0.0.0/8",
        "localhost",
        " 10.0.0.0/8",
        "010.0.0.0/8",
        "[::1]/128",
        "fe80::1%eth0",
        "1.2.3.4:80",
        "::g",
    ] {
        assert!(matches!(refused(text), CidrError::Address { .. }), "{text:?}");
    }
    for text in [
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.0/08",
        "10.0.0.0/+8",
        "10.0.0.0/-1",
        "10.0.0.0/ 8",
        "10.0.0.0/8 ",
        "10.0.0.0/8/8",
        "10.0.0.0/255.0.0.0",
        "10.0.0.0/256",
        "10.0.0.0/00",
        "10.0.0.0/99999999999999999999",
        "10.0.0.0/८",
    ] {
        assert!(matches!(refused(text), CidrError::Prefix { most: 32, .. }), "{text:?}");
    }
    assert!(matches!(refused("::/129"), CidrError::Prefix { most: 128, .. }));
    assert_eq!(refused("::/129").to_string(), r#""129" is no prefix; it goes from 0 to 128"#);
    assert_eq!(Cidr::new(ip("1.2.3.4"), 33).unwrap_err(), refused("1.2.3.4/33"));
    assert_eq!(
        refused("a\x1b[31m\nb").to_string(),
        r#""a\x1b[31m\nb" is no network; one is 10.0.0.0/8, or an address alone"#
    );
    assert!(refused(&"x".repeat(9999)).to_string().len() < 150);
}

#[test]
fn a_proxy_protocol_trusts_its_networks_and_nobody_else() {
    let required = ProxyProtocol::required_from(["10.0.0.0/8", "::1"]).unwrap();
    assert_eq!((required.deadline, required.max_header), (Duration::from_secs(5), DEFAULT_MAX_HEADER));
    assert!(!required.trust_local);
    assert!(required.clone().trust_local(true).trust_local);
    for trusted in ["10.1.2.3", "::ffff:10.1.2.3", "::1"] {
        assert!(required.trusts(ip(trusted)), "{trusted}");
    }
    for other in ["11.0.0.1", "127.0.0.1", "::2"] {
        assert!(!required.trusts(ip(other)), "{other}");
    }
    let required = required.deadline(Duration::from_secs(3)).max_header(4096);
    assert_eq!((required.deadline, required.max_header), (Duration::from_secs(3), 4096));

    let nobody = ProxyProtocol::required_from([] as [Cidr; 0]).unwrap();
    assert!(!nobody.trusts(ip("127.0.0.1")) && !nobody.trust_local);
    let local = ProxyProtocol::required_from_local();
    assert!(!local.trusts(ip("127.0.0.1")) && local.trust_local);
}

#[test]
fn networks_are_given_as_texts_addresses_or_themselves() {
    assert_eq!(
        ProxyProtocol::required_from([Ipv4Addr::LOCALHOST]).unwrap(),
        ProxyProtocol::required_from(vec!["127.0.0.1".to_owned()]).unwrap()
    );
    assert_eq!(
        ProxyProtocol::required_from([cidr("::/0")]).unwrap(),
        ProxyProtocol::required_from(Some("::/0")).unwrap()
    );
    let error = ProxyProtocol::required_from(["10.0.0.0/8", "10.1.0.0/8"]).unwrap_err();
    assert!(matches!(error, CidrError::HostBits { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_network_is_what_its_text_says(address in any::<IpAddr>(), prefix in 0u8..=128) {
        let prefix = if address.is_ipv4() { prefix % 33 } else { prefix };
        let network = match Cidr::new(address, prefix) {
            Err(CidrError::HostBits { network, .. }) => network,
            other => other.unwrap(),
        };
        prop_assert_eq!(cidr(&network.to_string()), network);
        prop_assert!(network.contains(network.network()));
        // IPv4 is in no network of IPv6, however it is written.
        prop_assert_eq!(network.contains(address), address.to_canonical().is_ipv4() == network.network().is_ipv4());
        prop_assert_eq!(Cidr::new(network.network(), network.prefix()), Ok(network));
    }

    #[test]
    fn another_address_is_inside_if_and_only_if_the_first_bits_are_the_same(
        bits in any::<u128>(),
        other in any::<u128>(),
        prefix in 0u32..=128,
    ) {
        let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
        let network = Cidr::new(Ipv6Addr::from_bits(bits & mask).into(), prefix as u8).unwrap();
        for address in [other, bits & mask | other & !mask] {
            let same = (0..prefix).all(|bit| (address ^ bits) >> (127 - bit) & 1 == 0);
            prop_assert_eq!(network.contains(Ipv6Addr::from_bits(address).into()), same);
        }
    }

    #[test]
    fn any_text_is_a_network_or_a_short_line(text in ".{0,100}") {
        if let Err(error) = text.parse::<Cidr>() {
            let message = error.to_string();
            prop_assert!(message.len() <= 200 && !message.chars().any(char::is_control), "{}", message);
        }
    }
}
