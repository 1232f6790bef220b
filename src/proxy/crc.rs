//! CRC32c, the checksum of a version 2 header.

/// Castagnoli's polynomial, bits reversed (RFC 4960, appendix B).
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// The checksum of `pieces`, joined. Bit by bit: a header is short and there is one to a connection, so that a table of
/// 1 KiB, or a dependency with `unsafe` instructions, has nothing to win.
pub(super) fn crc32c(pieces: [&[u8]; 3]) -> u32 {
    let mut crc = u32::MAX;
    for byte in pieces.into_iter().flatten() {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn published_checksums_come_out() {
        // The check value of CRC-32/ISCSI, and RFC 3720, appendix B.4.
        assert_eq!(crc32c([b"123456789", b"", b""]), 0xe306_9283);
        assert_eq!(crc32c([&[0; 32], b"", b""]), 0x8a91_36aa);
        assert_eq!(crc32c([&[0xff; 32], b"", b""]), 0x62a8_ab43);
        let ascending: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c([&ascending, b"", b""]), 0x46dd_794e);
        assert_eq!(crc32c([b"", b"", b""]), 0);
    }

    #[test]
    fn pieces_count_as_if_joined() {
        assert_eq!(crc32c([b"12", b"", b"3456789"]), 0xe306_9283);
        assert_eq!(crc32c([b"", b"1234567", b"89"]), 0xe306_9283);
    }
}
