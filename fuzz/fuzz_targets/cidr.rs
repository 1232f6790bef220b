//! No text makes the parser panic; a network prints text that parses to itself, and holds its first and last address and
//! not those beside them; an error stays short and printable.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hythe::proxy::{Cidr, CidrError};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match text.parse::<Cidr>() {
        Ok(network) => check(network),
        Err(error) => {
            let message = error.to_string();
            assert!(message.len() <= 256, "{} bytes: {message:?}", message.len());
            assert!(!message.chars().any(char::is_control), "{message:?}");
            if let CidrError::HostBits { network, .. } = error {
                check(network);
            }
        }
    }
});

fn check(network: Cidr) {
    let printed = network.to_string();
    assert_eq!(printed.parse::<Cidr>().as_ref(), Ok(&network), "{printed:?}");
    let (first, prefix) = (network.network(), u32::from(network.prefix()));
    let (last, before, after) = match first {
        IpAddr::V4(ip) => {
            let first = ip.to_bits();
            let last = first | u32::MAX.checked_shr(prefix).unwrap_or(0);
            let other = |bits: Option<u32>| bits.map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits)));
            (IpAddr::from(Ipv4Addr::from_bits(last)), other(first.checked_sub(1)), other(last.checked_add(1)))
        }
        IpAddr::V6(ip) => {
            let first = ip.to_bits();
            let last = first | u128::MAX.checked_shr(prefix).unwrap_or(0);
            let other = |bits: Option<u128>| bits.map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits)));
            (IpAddr::from(Ipv6Addr::from_bits(last)), other(first.checked_sub(1)), other(last.checked_add(1)))
        }
    };
    assert!(network.contains(first), "{network}");
    // IPv4 written as IPv6 is in no network of IPv6.
    assert!(network.contains(last) || last.to_canonical().is_ipv4() != first.is_ipv4(), "{network}: {last}");
    for outside in [before, after].into_iter().flatten() {
        assert!(!network.contains(outside), "{network}: {outside}");
    }
}
