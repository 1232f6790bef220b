//! A PROXY header gets the same verdict however it was cut, never asks for a byte that is not its own, reads back as it
//! was when it is written again, and an error about it stays short and printable.
#![no_main]

use hythe::proxy::{DEFAULT_MAX_HEADER, Progress, Proxied, ProxiedAddresses, ProxyError, ProxyHeader, kind, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let verdict = parse(input, DEFAULT_MAX_HEADER);
    let mut after = 0;
    for end in 0..input.len() {
        let prefix = parse(&input[..end], DEFAULT_MAX_HEADER);
        match (&prefix, &verdict) {
            (Ok(Progress::Needs(more)), Ok(Progress::Done(_, consumed))) => {
                assert!(*more > 0 && end + more <= *consumed, "{more} more after {end} of {consumed}");
            }
            (Ok(Progress::Needs(more)), _) => assert!(*more > 0),
            _ => {
                same(&prefix, &verdict);
                after += 1;
            }
        }
        assert!(after == 0 || !matches!(prefix, Ok(Progress::Needs(_))), "not whole again at {end}");
        // The bytes behind the last that counts are all the same.
        if after == 3 {
            break;
        }
    }
    same(&fed(input), &verdict);
    match &verdict {
        Ok(Progress::Done(proxied, consumed)) => {
            assert!(*consumed <= input.len().min(DEFAULT_MAX_HEADER));
            ask(proxied);
            again(proxied);
        }
        Ok(Progress::Needs(more)) => assert!(*more > 0 && input.len() + more <= DEFAULT_MAX_HEADER),
        Err(error) => {
            let message = error.to_string();
            assert!(message.len() <= 256, "{} bytes: {message:?}", message.len());
            assert!(!message.chars().any(char::is_control), "{message:?}");
            mend(input, error);
        }
    }
});

/// Feeds exactly as much as is needed.
fn fed(input: &[u8]) -> Result<Progress, ProxyError> {
    let mut have = 0;
    loop {
        match parse(&input[..have], DEFAULT_MAX_HEADER)? {
            Progress::Needs(more) if more <= input.len() - have => have += more,
            Progress::Needs(_) => return parse(input, DEFAULT_MAX_HEADER),
            done => return Ok(done),
        }
    }
}

fn same(one: &Result<Progress, ProxyError>, other: &Result<Progress, ProxyError>) {
    match (one, other) {
        (Ok(Progress::Needs(_)), Ok(Progress::Needs(_))) => {}
        (Ok(one), Ok(other)) => assert_eq!(one, other),
        // What has been seen is as much as there was.
        (Err(ProxyError::NotProxy { at: one, .. }), Err(ProxyError::NotProxy { at: other, .. })) => {
            assert_eq!(one, other);
        }
        (Err(one), Err(other)) => assert_eq!(format!("{one:?}"), format!("{other:?}")),
        _ => panic!("{one:?}, {other:?}"),
    }
}

/// What is asked of a header fits together.
fn ask(proxied: &Proxied) {
    assert_eq!(proxied.authority().map(str::as_bytes), proxied.tlv(kind::AUTHORITY));
    assert!(proxied.unique_id().is_none_or(|id| id.len() <= 128));
    assert_eq!(proxied.tls().is_some(), proxied.tlv(kind::TLS).is_some());
    if let Some(tls) = proxied.tls() {
        assert_eq!(tls.version().map(str::as_bytes), tls.tlv(kind::TLS_VERSION));
        assert_eq!(tls.common_name().map(str::as_bytes), tls.tlv(kind::TLS_COMMON_NAME));
        assert_eq!(tls.cipher().map(str::as_bytes), tls.tlv(kind::TLS_CIPHER));
    }
    let shown = format!("{proxied} {proxied:?} {:?}", proxied.tls());
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
}

/// Writes what was read, and reads it.
fn again(proxied: &Proxied) {
    let header = match proxied.addresses() {
        ProxiedAddresses::Ip { source, destination } => ProxyHeader::v2(*source, *destination),
        ProxiedAddresses::Unix { source, destination } => ProxyHeader::v2_unix(&source[..], &destination[..]),
        _ => ProxyHeader::local(),
    };
    let checksum = |kind: &u8| *kind == kind::CRC32C;
    let tlvs: Vec<_> = proxied.tlvs().filter(|(kind, _)| !checksum(kind)).collect();
    let header = tlvs.iter().fold(header, |header, (kind, value)| header.tlv(*kind, *value));
    let header = if proxied.has_checksum() { header.crc32c() } else { header };
    // Of LOCAL the addresses made room that is free now.
    let bytes = header.to_bytes().unwrap_or_else(|error| panic!("{error:?}"));
    let Ok(Progress::Done(read, consumed)) = parse(&bytes, DEFAULT_MAX_HEADER) else { panic!("{bytes:?}") };
    assert_eq!(consumed, bytes.len());
    assert_eq!(read.tlvs().filter(|(kind, _)| !checksum(kind)).collect::<Vec<_>>(), tlvs);
    assert_eq!(read.has_checksum(), proxied.has_checksum());
    match proxied.addresses() {
        ProxiedAddresses::Ip { source, destination } => {
            // Two mapped addresses come back as IPv4.
            let canonical = |addr: &std::net::SocketAddr| (addr.ip().to_canonical(), addr.port());
            assert_eq!(read.source().as_ref().map(canonical), Some(canonical(source)));
            assert_eq!(read.destination().as_ref().map(canonical), Some(canonical(destination)));
            if proxied.version() == 1 {
                let line =
                    ProxyHeader::v1(*source, *destination).to_bytes().unwrap_or_else(|error| panic!("{error:?}"));
                let Ok(Progress::Done(read, _)) = parse(&line, DEFAULT_MAX_HEADER) else { panic!("{line:?}") };
                assert_eq!(read.source().as_ref().map(canonical), Some(canonical(source)));
            }
        }
        ProxiedAddresses::Unix { .. } => assert_eq!(read.addresses(), proxied.addresses()),
        _ => assert!(read.is_local()),
    }
}

/// A checksum cannot be guessed: puts the right one in, after which the header is whole.
fn mend(input: &[u8], error: &ProxyError) {
    let ProxyError::Checksum { seen, computed } = error else { return };
    let wrong = [&[kind::CRC32C, 0, 4], &seen.to_be_bytes()[..]].concat();
    let places = input.windows(7).enumerate().filter(|(_, window)| *window == wrong);
    let mended = places.map(|(at, _)| {
        let mut header = input.to_vec();
        header[at + 3..at + 7].copy_from_slice(&computed.to_be_bytes());
        parse(&header, DEFAULT_MAX_HEADER)
    });
    let done: Vec<_> = mended.filter_map(Result::ok).collect();
    let [Progress::Done(proxied, _)] = &done[..] else { panic!("{done:?}") };
    assert!(proxied.has_checksum());
    ask(proxied);
    again(proxied);
}
