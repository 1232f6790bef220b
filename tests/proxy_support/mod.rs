//! Feeds headers to the parser, whole and cut.
#![allow(dead_code, clippy::unwrap_used)] // Each test crate uses its own part.

use std::net::SocketAddr;

use hythe::proxy::{DEFAULT_MAX_HEADER, Progress, Proxied, ProxyError, parse};

pub(crate) const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// 192.0.2.1:256 to 192.0.2.2:443.
pub(crate) const V4: &[u8; 12] = &[192, 0, 2, 1, 192, 0, 2, 2, 1, 0, 1, 187];

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A version 2 header of these parts, its length right.
pub(crate) fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, block].concat()
}

/// One extension, its length right.
pub(crate) fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind], &length[..], value].concat()
}

/// A version 2 header for TCP over IPv4 with extensions.
pub(crate) fn with_tlvs(tlvs: &[Vec<u8>]) -> Vec<u8> {
    v2(0x21, 0x11, &[V4, &tlvs.concat()[..]].concat())
}

/// What the bytes are when they are a whole header and nothing more, cut in every way.
pub(crate) fn accept(input: &[u8]) -> Proxied {
    match cut(input) {
        Ok(Progress::Done(proxied, consumed)) => {
            assert_eq!(consumed, input.len());
            proxied
        }
        other => panic!("{}: {other:?}", input.escape_ascii()),
    }
}

/// Why the bytes are refused, cut in every way.
pub(crate) fn refuse(input: &[u8]) -> ProxyError {
    match cut(input) {
        Err(error) => error,
        other => panic!("{}: {other:?}", input.escape_ascii()),
    }
}

pub(crate) fn cut(input: &[u8]) -> Result<Progress, ProxyError> {
    cut_with(input, DEFAULT_MAX_HEADER)
}

/// Parses `input` and every prefix of it, and what is taken when exactly as much is fed as is needed, and checks that
/// all verdicts are the same.
pub(crate) fn cut_with(input: &[u8], limit: usize) -> Result<Progress, ProxyError> {
    let verdict = parse(input, limit);
    if let Err(error) = &verdict {
        let message = error.to_string();
        assert!(
            message.len() <= 200 && message.chars().all(|c| c.is_ascii_graphic() || c == ' ' || c == '…'),
            "{message}"
        );
    }
    let mut over = false;
    for end in 0..=input.len() {
        let prefix = parse(&input[..end], limit);
        match (&prefix, &verdict) {
            (Ok(Progress::Needs(0)), _) => panic!("0 more after {end}"),
            (Ok(Progress::Needs(more)), Ok(Progress::Done(_, consumed))) => {
                assert!(!over && end + more <= *consumed, "{more} more after {end} of {consumed}");
            }
            (Ok(Progress::Needs(_)), _) => assert!(!over, "not whole again at {end}"),
            _ => {
                over = true;
                assert_eq!(key(&prefix), key(&verdict), "the first {end} bytes");
            }
        }
    }
    assert_eq!(key(&fed(input, limit)), key(&verdict), "fed as needed");
    verdict
}

/// Feeds exactly as much as is needed, over and over.
fn fed(input: &[u8], limit: usize) -> Result<Progress, ProxyError> {
    let mut have = 0;
    loop {
        match parse(&input[..have], limit)? {
            Progress::Needs(more) if have + more <= input.len() => have += more,
            Progress::Needs(_) => return parse(input, limit),
            done => return Ok(done),
        }
    }
}

/// What has to be the same. How much more is needed, and how much of a stranger's text has been seen, is not.
fn key(verdict: &Result<Progress, ProxyError>) -> String {
    match verdict {
        Ok(Progress::Done(proxied, consumed)) => {
            format!("{proxied:?} {:?} {consumed}", proxied.tlvs().collect::<Vec<_>>())
        }
        Ok(_) => "not whole".to_owned(),
        Err(ProxyError::NotProxy { at, .. }) => format!("not a header at {at}"),
        Err(error) => format!("{error:?}"),
    }
}
