//! Version 2, binary (specification, §2.2).

use std::net::SocketAddr;

use super::error::ProxyError;
use super::parse::{Progress, not_proxy};
use super::proxied::{Proxied, ProxiedAddresses};
use super::tlv;

/// What a version 2 header begins with.
pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family and transport, length.
pub(super) const FIXED: usize = 16;
pub(super) const LOCAL: u8 = 0x20;
pub(super) const PROXY: u8 = 0x21;
pub(super) const UNSPEC: u8 = 0x00;
pub(super) const TCP_V4: u8 = 0x11;
pub(super) const TCP_V6: u8 = 0x21;
pub(super) const UNIX_STREAM: u8 = 0x31;
/// The length of a Unix socket's name, NULs behind it included.
pub(super) const NAME: usize = 108;

pub(super) fn parse(input: &[u8], limit: usize) -> Result<Progress, ProxyError> {
    if let Some(at) = SIGNATURE.iter().zip(input).position(|(expected, byte)| expected != byte) {
        return Err(not_proxy(input, at));
    }
    let local = match input.get(12) {
        Some(&LOCAL) => true,
        Some(&PROXY) | None => false,
        Some(byte) if byte >> 4 != 2 => return Err(ProxyError::Version { seen: byte >> 4 }),
        Some(byte) => return Err(ProxyError::Command { seen: byte & 0x0f }),
    };
    // Of LOCAL the family is to be ignored.
    let family = input.get(13).copied().unwrap_or(UNSPEC);
    let addresses = match (address_length(family), local) {
        (Some(length), _) => length,
        (None, true) => 0,
        (None, false) => return Err(ProxyError::Family { seen: family }),
    };
    let Some(&[high, low]) = input.get(14..FIXED) else {
        return Ok(Progress::Needs(FIXED.saturating_sub(input.len())));
    };
    let claimed = usize::from(u16::from_be_bytes([high, low]));
    let total = FIXED.saturating_add(claimed);
    if total > limit {
        return Err(ProxyError::TooLong { limit, seen: total });
    }
    if addresses > claimed && !local {
        return Err(ProxyError::TooShort { need: addresses, seen: claimed });
    }
    let Some(header) = input.get(..total) else {
        return Ok(Progress::Needs(total.saturating_sub(input.len())));
    };

    let from = FIXED.saturating_add(addresses);
    let addresses = if local { ProxiedAddresses::Local } else { read_addresses(header, family) };
    let opaque = local || family == UNSPEC;
    let tlvs = match tlv::check(header, from) {
        Ok(()) => header.get(from..).unwrap_or_default(),
        // Not extensions, then, but something else that is to be skipped.
        Err(error) if opaque && !matches!(error, ProxyError::Checksum { .. }) => &[],
        Err(error) => return Err(error),
    };
    let datagrams = !opaque && family & 0x0f == 2;
    Ok(Progress::Done(Proxied::v2(addresses, datagrams, tlvs), total))
}

/// The length of the addresses of a family and transport, `None` where there are no such.
fn address_length(family: u8) -> Option<usize> {
    match family {
        UNSPEC => Some(0),
        0x11 | 0x12 => Some(12),
        0x21 | 0x22 => Some(36),
        0x31 | 0x32 => Some(NAME.saturating_mul(2)),
        _ => None,
    }
}

/// Of a header that is long enough for them.
fn read_addresses(header: &[u8], family: u8) -> ProxiedAddresses {
    let block = header.get(FIXED..).unwrap_or_default();
    match family >> 4 {
        1 => read_ip::<4>(block),
        2 => read_ip::<16>(block),
        3 => read_names(block),
        _ => None,
    }
    .unwrap_or(ProxiedAddresses::Unknown)
}

fn read_ip<const N: usize>(block: &[u8]) -> Option<ProxiedAddresses>
where
    [u8; N]: Into<std::net::IpAddr>,
{
    let (source, block) = block.split_first_chunk::<N>()?;
    let (destination, block) = block.split_first_chunk::<N>()?;
    let (source_port, block) = block.split_first_chunk()?;
    let destination_port = block.first_chunk()?;
    Some(ProxiedAddresses::Ip {
        source: SocketAddr::new((*source).into(), u16::from_be_bytes(*source_port)),
        destination: SocketAddr::new((*destination).into(), u16::from_be_bytes(*destination_port)),
    })
}

fn read_names(block: &[u8]) -> Option<ProxiedAddresses> {
    let (source, block) = block.split_first_chunk::<NAME>()?;
    let destination = block.first_chunk::<NAME>()?;
    Some(ProxiedAddresses::Unix { source: name(source).into(), destination: name(destination).into() })
}

/// A path ends at the first NUL. An abstract name begins with one, and ends before those that fill the field.
fn name(field: &[u8; NAME]) -> &[u8] {
    let end = match field {
        [0, ..] => field.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1)),
        _ => field.iter().position(|byte| *byte == 0).unwrap_or(NAME),
    };
    field.get(..end).unwrap_or_default()
}
