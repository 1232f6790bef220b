//! Finding what ends a message.

use memchr::memchr;

/// Where `needle`, which is not empty, first begins in `haystack`.
///
/// Looks at each byte once for each byte of the needle at worst; the needle is
/// ours, so a peer cannot make that costly.
pub(super) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    loop {
        let tail = haystack.get(from..)?;
        let at = memchr(first, tail)?;
        from = from.saturating_add(at);
        if haystack.get(from..)?.starts_with(needle) {
            return Some(from);
        }
        from = from.saturating_add(1);
    }
}
