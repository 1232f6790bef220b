//! The extensions of a version 2 header: type, length, value (specification, §2.2.1 to §2.2.8).

use super::crc::crc32c;
use super::error::{ProxyError, TlvFault};

/// The types of extensions, and those inside the one for TLS. 0xE0 to 0xEF are free for applications.
pub mod kind {
    /// The protocol above, as in TLS's ALPN.
    pub const ALPN: u8 = 0x01;
    /// The host name that the client asked for, as in TLS's SNI.
    pub const AUTHORITY: u8 = 0x02;
    /// The checksum of the header.
    pub const CRC32C: u8 = 0x03;
    /// Padding.
    pub const NOOP: u8 = 0x04;
    /// The proxy's name for the connection.
    pub const UNIQUE_ID: u8 = 0x05;
    /// The client's TLS; see [`ProxiedTls`](crate::proxy::ProxiedTls).
    pub const TLS: u8 = 0x20;
    /// Inside [`TLS`]: the version.
    pub const TLS_VERSION: u8 = 0x21;
    /// Inside [`TLS`]: the common name in the client's certificate.
    pub const TLS_COMMON_NAME: u8 = 0x22;
    /// Inside [`TLS`]: the cipher.
    pub const TLS_CIPHER: u8 = 0x23;
    /// Inside [`TLS`]: the algorithm that signed the proxy's certificate.
    pub const TLS_SIGNATURE_ALGORITHM: u8 = 0x24;
    /// Inside [`TLS`]: the algorithm of the proxy's key.
    pub const TLS_KEY_ALGORITHM: u8 = 0x25;
    /// Inside [`TLS`]: the group of the key exchange.
    pub const TLS_GROUP: u8 = 0x26;
    /// Inside [`TLS`]: the algorithm that signed the handshake.
    pub const TLS_SIGNATURE_SCHEME: u8 = 0x27;
    /// Inside [`TLS`]: the client's certificate in DER.
    pub const TLS_CLIENT_CERTIFICATE: u8 = 0x28;
    /// The name of the network namespace.
    pub const NETWORK_NAMESPACE: u8 = 0x30;
}

/// The longest [`kind::UNIQUE_ID`].
const UNIQUE_ID: usize = 128;
/// The type and the length in front of a value.
pub(super) const PREFIX: usize = 3;
/// The client's flags and the verification's result in front of the TLVs inside [`kind::TLS`].
pub(super) const TLS_FIXED: usize = 5;

/// One extension.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tlv<'a> {
    /// Where it begins.
    at: usize,
    pub(super) kind: u8,
    pub(super) value: &'a [u8],
}

/// The extensions in a block that begins at the byte `at` of a header. Ends after an error.
#[derive(Clone, Debug)]
pub(super) struct Walk<'a> {
    block: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(block: &'a [u8], at: usize) -> Self {
        Self { block, at }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Result<Tlv<'a>, ProxyError>;

    fn next(&mut self) -> Option<Self::Item> {
        let block = std::mem::take(&mut self.block);
        let at = self.at;
        let (&kind, rest) = block.split_first()?;
        let truncated =
            |need| Some(Err(ProxyError::Tlv { at, kind, fault: TlvFault::Truncated { need, have: block.len() } }));
        let Some((length, rest)) = rest.split_first_chunk() else { return truncated(PREFIX) };
        let length = usize::from(u16::from_be_bytes(*length));
        let need = PREFIX.saturating_add(length);
        let Some((value, rest)) = rest.split_at_checked(length) else { return truncated(need) };
        self.block = rest;
        self.at = at.saturating_add(need);
        Some(Ok(Tlv { at, kind, value }))
    }
}

/// The extensions in a block that [`check`] has seen.
pub(super) fn all(block: &[u8]) -> impl Iterator<Item = Tlv<'_>> {
    Walk::new(block, 0).map_while(Result::ok)
}

/// The first extension of a type in a block that [`check`] has seen.
pub(super) fn find(block: &[u8], kind: u8) -> Option<&[u8]> {
    all(block).find(|tlv| tlv.kind == kind).map(|tlv| tlv.value)
}

/// Checks the extensions of a whole header, which begin at the byte `from` of it, and its checksum, if it has one.
pub(super) fn check(header: &[u8], from: usize) -> Result<(), ProxyError> {
    let mut checksum = None;
    let walk = Walk::new(header.get(from..).unwrap_or_default(), from);
    for tlv in walk.clone() {
        let tlv = tlv?;
        match tlv.kind {
            kind::ALPN => {}
            kind::AUTHORITY => tlv.utf8()?,
            kind::CRC32C => {
                tlv.length(4, 4)?;
                checksum = Some(tlv);
            }
            kind::UNIQUE_ID => tlv.length(0, UNIQUE_ID)?,
            kind::TLS => check_tls(tlv)?,
            kind::NETWORK_NAMESPACE => tlv.ascii()?,
            // Padding may repeat, and of the others it is not known.
            _ => continue,
        }
        tlv.first_in(walk.clone())?;
    }
    checksum.map_or(Ok(()), |tlv| check_sum(header, tlv))
}

/// The extensions inside that for TLS are one level deep: nothing in them is looked into.
fn check_tls(tls: Tlv<'_>) -> Result<(), ProxyError> {
    tls.length(TLS_FIXED, usize::from(u16::MAX))?;
    let from = tls.at.saturating_add(PREFIX).saturating_add(TLS_FIXED);
    let walk = Walk::new(tls.value.get(TLS_FIXED..).unwrap_or_default(), from);
    for tlv in walk.clone() {
        let tlv = tlv?;
        match tlv.kind {
            kind::TLS_COMMON_NAME => tlv.utf8()?,
            kind::TLS_VERSION
            | kind::TLS_CIPHER
            | kind::TLS_SIGNATURE_ALGORITHM
            | kind::TLS_KEY_ALGORITHM
            | kind::TLS_GROUP
            | kind::TLS_SIGNATURE_SCHEME => tlv.ascii()?,
            kind::TLS_CLIENT_CERTIFICATE => {}
            _ => continue,
        }
        tlv.first_in(walk.clone())?;
    }
    Ok(())
}

/// The checksum is that of the header with zeros in its place.
fn check_sum(header: &[u8], tlv: Tlv<'_>) -> Result<(), ProxyError> {
    let begin = tlv.at.saturating_add(PREFIX);
    let end = begin.saturating_add(tlv.value.len());
    let before = header.get(..begin).unwrap_or_default();
    let after = header.get(end..).unwrap_or_default();
    let computed = crc32c([before, &[0; 4], after]);
    let seen = tlv.value.first_chunk().map_or(0, |value| u32::from_be_bytes(*value));
    if seen == computed { Ok(()) } else { Err(ProxyError::Checksum { seen, computed }) }
}

impl Tlv<'_> {
    fn wrong(&self, fault: TlvFault) -> ProxyError {
        ProxyError::Tlv { at: self.at, kind: self.kind, fault }
    }

    fn length(&self, least: usize, most: usize) -> Result<(), ProxyError> {
        match self.value.len() {
            seen if (least..=most).contains(&seen) => Ok(()),
            seen => Err(self.wrong(TlvFault::Length { least, most, seen })),
        }
    }

    fn utf8(&self) -> Result<(), ProxyError> {
        match std::str::from_utf8(self.value) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.wrong(TlvFault::NotText { valid_up_to: error.valid_up_to() })),
        }
    }

    fn ascii(&self) -> Result<(), ProxyError> {
        match self.value.iter().position(|byte| !byte.is_ascii()) {
            None => Ok(()),
            Some(valid_up_to) => Err(self.wrong(TlvFault::NotText { valid_up_to })),
        }
    }

    /// Whether it is the first of its type. One pass, and a second one is an error, so that it stays linear.
    fn first_in(&self, walk: Walk<'_>) -> Result<(), ProxyError> {
        match walk.map_while(Result::ok).find(|tlv| tlv.kind == self.kind) {
            Some(first) if first.at < self.at => Err(self.wrong(TlvFault::Repeated)),
            _ => Ok(()),
        }
    }
}
