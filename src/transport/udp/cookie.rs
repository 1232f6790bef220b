//! Cookies by which a UDP peer proves that it is where its datagrams say.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Makes and checks cookies without keeping anything for the peers: what a protocol sends to an address that it does not
/// know yet, and wants back before it does more, as QUIC does with its Retry tokens (RFC 9000, section 8.1.2).
///
/// A cookie holds for the address, and for the context that it was made with, such as the peer's first message, for
/// between one and two lifetimes. Its keys are this value's own: no other process, nor another value, takes it.
///
/// It is made with the keyed hash of the standard library, twice, so it has 128 bits.
///
/// ```
/// use std::time::Duration;
/// use hythe::udp::Cookies;
///
/// let cookies = Cookies::new(Duration::from_secs(15));
/// let peer = "192.0.2.1:4000".parse().unwrap();
/// let cookie = cookies.make(peer, b"hello");
/// assert!(cookies.check(peer, b"hello", &cookie));
/// assert!(!cookies.check("192.0.2.1:4001".parse().unwrap(), b"hello", &cookie));
/// ```
pub struct Cookies {
    keys: [RandomState; 2],
    since: Instant,
    lifetime: Duration,
}

impl Cookies {
    /// With new keys. A cookie is good for `lifetime` at least, and twice that at most.
    #[must_use]
    pub fn new(lifetime: Duration) -> Self {
        Self { keys: Default::default(), since: Instant::now(), lifetime: lifetime.max(Duration::from_millis(1)) }
    }

    /// A cookie for a peer.
    #[must_use]
    pub fn make(&self, peer: SocketAddr, context: &[u8]) -> [u8; 16] {
        self.at(self.age(), peer, context)
    }

    /// Whether this is a cookie that was made for the peer, and is not too old. It takes as long for a wrong cookie as for
    /// one that is almost right.
    #[must_use]
    pub fn check(&self, peer: SocketAddr, context: &[u8], cookie: &[u8]) -> bool {
        let now = self.age();
        let same = |age| {
            let expected = self.at(age, peer, context);
            let differ = expected.iter().zip(cookie).fold(0, |differ, (a, b)| differ | (a ^ b));
            cookie.len() == expected.len() && differ == 0
        };
        let (this, last) = (same(now), now.checked_sub(1).is_some_and(same));
        this | last
    }

    /// How many lifetimes have passed.
    fn age(&self) -> u128 {
        self.since.elapsed().as_nanos() / self.lifetime.as_nanos().max(1)
    }

    fn at(&self, age: u128, peer: SocketAddr, context: &[u8]) -> [u8; 16] {
        let [first, second] = self.keys.each_ref().map(|key| key.hash_one((age, peer, context)).to_be_bytes());
        let mut cookie = [0; 16];
        for (byte, hash) in cookie.iter_mut().zip(first.into_iter().chain(second)) {
            *byte = hash;
        }
        cookie
    }
}

impl fmt::Debug for Cookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cookies").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_for_one_address_one_context_and_one_time() {
        let cookies = Cookies::new(Duration::from_secs(3600));
        let (peer, other) = ("[2001:db8::1]:7".parse().unwrap(), "[2001:db8::2]:7".parse().unwrap());
        let cookie = cookies.make(peer, b"hello");
        assert!(cookies.check(peer, b"hello", &cookie));
        assert!(!cookies.check(other, b"hello", &cookie));
        assert!(!cookies.check(peer, b"hallo", &cookie));
        assert!(!Cookies::new(Duration::from_secs(3600)).check(peer, b"hello", &cookie));
        for i in 0..16 {
            let mut wrong = cookie;
            wrong[i] ^= 1;
            assert!(!cookies.check(peer, b"hello", &wrong), "byte {i}");
        }
        assert!(!cookies.check(peer, b"hello", &cookie[..15]));
        assert!(!cookies.check(peer, b"hello", b""));
        let longer = [&cookie[..], b"x"].concat();
        assert!(!cookies.check(peer, b"hello", &longer));
    }

    #[test]
    fn a_cookie_outlives_its_lifetime_but_not_the_next() {
        let cookies = Cookies::new(Duration::from_secs(3600));
        let peer = "192.0.2.1:7".parse().unwrap();
        let made_at = |age| cookies.at(age, peer, b"");
        let now = cookies.age();
        assert!(cookies.check(peer, b"", &made_at(now)));
        assert!(!cookies.check(peer, b"", &made_at(now + 1)));
        let older = Cookies { since: Instant::now() - Duration::from_secs(2 * 3600), ..Cookies::new(cookies.lifetime) };
        assert!(older.check(peer, b"", &older.at(1, peer, b"")), "one lifetime ago");
        assert!(!older.check(peer, b"", &older.at(0, peer, b"")), "two lifetimes ago");
    }
}
