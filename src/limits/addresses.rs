//! How many connections each address has.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::num::NonZeroU64;
#[cfg(any(feature = "udp", test))]
use std::sync::Arc;

use crate::sync::{Mutex, lock};

/// What counts as one address: an IPv6 peer has a whole /64 network to itself (RFC 6177), an IPv4 peer one address.
///
/// It is the upper half of the IPv6 address. IPv4 ones are in a network that is reserved and nobody's (RFC 4291, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Prefix(NonZeroU64);

/// `ff:ffff::/32`, with the IPv4 address behind it.
const IPV4: u64 = 0x00ff_ffff << 32;
/// `::/64`, where there is nobody but the host itself, at `::1`.
const SELF: NonZeroU64 = NonZeroU64::MIN;

impl From<IpAddr> for Prefix {
    fn from(addr: IpAddr) -> Self {
        let bits = match addr.to_canonical() {
            IpAddr::V6(addr) => (addr.to_bits() >> 64) as u64,
            IpAddr::V4(addr) => IPV4 | u64::from(addr.to_bits()),
        };
        Self(NonZeroU64::new(bits).unwrap_or(SELF))
    }
}

/// Counts by address, also while there is no limit: there may be one tomorrow.
#[derive(Default)]
pub(crate) struct Addresses(Mutex<HashMap<Prefix, usize>>);

impl Addresses {
    /// Takes a place for `addr`, to be given back by dropping it, if it has less than `limit`.
    #[cfg(any(feature = "udp", test))]
    pub(crate) fn take(self: &Arc<Self>, addr: IpAddr, limit: Option<usize>) -> Option<Place> {
        let prefix = self.enter(addr, limit)?;
        Some(Place { addresses: Arc::clone(self), prefix })
    }

    /// As [`take`](Self::take), to be given back by [`leave`](Self::leave).
    pub(crate) fn enter(&self, addr: IpAddr, limit: Option<usize>) -> Option<Prefix> {
        let prefix = Prefix::from(addr);
        let mut counts = lock(&self.0);
        let count = counts.entry(prefix).or_insert(0);
        if limit.is_some_and(|limit| *count >= limit) {
            return None;
        }
        *count += 1;
        Some(prefix)
    }

    pub(crate) fn leave(&self, prefix: Prefix) {
        let mut counts = lock(&self.0);
        if let Entry::Occupied(mut entry) = counts.entry(prefix) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        if counts.is_empty() {
            // the memory of a peak is not kept
            counts.shrink_to(64);
        }
    }
}

/// One connection of an address.
#[cfg(any(feature = "udp", test))]
pub(crate) struct Place {
    addresses: Arc<Addresses>,
    prefix: Prefix,
}

#[cfg(any(feature = "udp", test))]
impl Drop for Place {
    fn drop(&mut self) {
        self.addresses.leave(self.prefix);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_ipv6_network_is_one_address_and_a_mapped_ipv4_address_is_itself() {
        let addresses = Arc::new(Addresses::default());
        let first = addresses.take(ip("2001:db8::1"), Some(2));
        let second = addresses.take(ip("2001:db8::ffff:1"), Some(2));
        assert!(first.is_some() && second.is_some());
        assert!(addresses.take(ip("2001:db8::2"), Some(2)).is_none());
        assert!(addresses.take(ip("2001:db8:0:1::2"), Some(2)).is_some());
        let mapped = addresses.take(ip("::ffff:192.0.2.1"), Some(1));
        assert!(mapped.is_some());
        assert!(addresses.take(ip("192.0.2.1"), Some(1)).is_none());
        assert!(addresses.take(ip("192.0.2.2"), Some(1)).is_some());
    }

    #[test]
    fn places_come_back_and_are_counted_without_a_limit() {
        let addresses = Arc::new(Addresses::default());
        let places: Vec<_> = (0..3).map(|_| addresses.take(ip("192.0.2.1"), None)).collect();
        assert!(addresses.take(ip("192.0.2.1"), Some(3)).is_none());
        drop(places);
        assert!(lock(&addresses.0).is_empty(), "nothing is kept for who is gone");
    }
}
