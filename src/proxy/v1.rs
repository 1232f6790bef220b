//! Version 1, a line of text (specification, §2.1).
//!
//! The line is read from left to right and the first byte that is wrong ends it, so that the verdict does not depend on
//! how much has arrived.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::error::{Excerpt, LinePart, ProxyError};
use super::parse::{Progress, not_proxy};
use super::proxied::{Proxied, ProxiedAddresses};

/// The longest line that the specification has, its end included.
pub(super) const LONGEST: usize = 107;

pub(super) fn parse(input: &[u8]) -> Result<Progress, ProxyError> {
    let mut scan = Scan { line: input.get(..LONGEST).unwrap_or(input), at: 0 };
    match scan.header() {
        Ok(addresses) => Ok(Progress::Done(Proxied::v1(addresses), scan.at)),
        Err(Stop::Wrong(error)) => Err(error),
        Err(Stop::Short(least)) => match LONGEST.saturating_sub(input.len()) {
            0 => Err(ProxyError::TooLong { limit: LONGEST, seen: LONGEST.saturating_add(1) }),
            room => Ok(Progress::Needs(least.min(room))),
        },
    }
}

/// Why reading stopped.
enum Stop {
    /// The line is not whole; at least so many bytes are missing.
    Short(usize),
    Wrong(ProxyError),
}

struct Scan<'a> {
    line: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn header(&mut self) -> Result<ProxiedAddresses, Stop> {
        // The least after each text: that of the shortest line which begins so.
        self.literal(b"PROXY ", 9, not_proxy)?;
        let protocol = self.at;
        let wrong = |line: &[u8], at| wrong(LinePart::Protocol, line, protocol, at);
        match self.byte() {
            None => Err(Stop::Short(9)),
            Some(b'U') => {
                self.literal(b"UNKNOWN", 2, wrong)?;
                self.unknown(protocol)
            }
            Some(_) => {
                self.literal(b"TCP", 13, wrong)?;
                match self.byte() {
                    None => Err(Stop::Short(13)),
                    Some(b'6') => {
                        self.literal(b"6 ", 11, wrong)?;
                        self.addresses::<Ipv6Addr>()
                    }
                    Some(_) => {
                        self.literal(b"4 ", 21, wrong)?;
                        self.addresses::<Ipv4Addr>()
                    }
                }
            }
        }
    }

    fn addresses<A: Field + Into<IpAddr>>(&mut self) -> Result<ProxiedAddresses, Stop> {
        let source: A = self.field(LinePart::Source, b' ', A::LEAST.saturating_add(7))?;
        let destination: A = self.field(LinePart::Destination, b' ', 6)?;
        let source_port: u16 = self.field(LinePart::SourcePort, b' ', 4)?;
        let destination_port: u16 = self.field(LinePart::DestinationPort, b'\r', 2)?;
        self.line_feed()?;
        Ok(ProxiedAddresses::Ip {
            source: SocketAddr::new(source.into(), source_port),
            destination: SocketAddr::new(destination.into(), destination_port),
        })
    }

    /// What stands between `UNKNOWN` and the line's end is to be ignored.
    fn unknown(&mut self, protocol: usize) -> Result<ProxiedAddresses, Stop> {
        if let Some(byte) = self.byte() {
            if !matches!(byte, b' ' | b'\r') {
                return Err(Stop::Wrong(wrong(LinePart::Protocol, self.line, protocol, self.at)));
            }
        }
        loop {
            match self.byte() {
                None => return Err(Stop::Short(2)),
                Some(b'\n') => return Err(Stop::Wrong(wrong(LinePart::End, self.line, self.at, self.at))),
                Some(b'\r') => break,
                Some(_) => self.step(),
            }
        }
        self.step();
        self.line_feed()?;
        Ok(ProxiedAddresses::Unknown)
    }

    /// The LF after a CR.
    fn line_feed(&mut self) -> Result<(), Stop> {
        let carriage_return = self.at.saturating_sub(1);
        self.literal(b"\n", 0, |line, at| wrong(LinePart::End, line, carriage_return, at))
    }

    /// `text`, after which at least `after` bytes have to come.
    fn literal(&mut self, text: &[u8], after: usize, wrong: impl Fn(&[u8], usize) -> ProxyError) -> Result<(), Stop> {
        for (done, expected) in text.iter().enumerate() {
            match self.byte() {
                None => return Err(Stop::Short(text.len().saturating_sub(done).saturating_add(after))),
                Some(byte) if byte == *expected => self.step(),
                Some(_) => return Err(Stop::Wrong(wrong(self.line, self.at))),
            }
        }
        Ok(())
    }

    /// A field and the byte that ends it. `after` counts that byte.
    fn field<T: Field>(&mut self, part: LinePart, end: u8, after: usize) -> Result<T, Stop> {
        let start = self.at;
        loop {
            let text = self.line.get(start..self.at).unwrap_or_default();
            match self.byte() {
                None => return Err(Stop::Short(T::missing(text).saturating_add(after))),
                Some(byte) if byte == end => {
                    let value = std::str::from_utf8(text).ok().and_then(T::read);
                    let value = value.ok_or_else(|| Stop::Wrong(wrong(part, self.line, start, self.at)))?;
                    self.step();
                    return Ok(value);
                }
                Some(byte) if T::allows(byte) && text.len() < T::MOST => self.step(),
                Some(_) => return Err(Stop::Wrong(wrong(part, self.line, start, self.at))),
            }
        }
    }

    fn byte(&self) -> Option<u8> {
        self.line.get(self.at).copied()
    }

    fn step(&mut self) {
        self.at = self.at.saturating_add(1);
    }
}

/// A part that begins at `start` and is wrong with the byte at `at`.
fn wrong(part: LinePart, line: &[u8], start: usize, at: usize) -> ProxyError {
    ProxyError::Line { part, at: start, seen: Excerpt::new(line.get(start..=at).unwrap_or_default()) }
}

/// An address or a port.
trait Field: Sized {
    /// The shortest text there is.
    const LEAST: usize;
    /// The longest text there is.
    const MOST: usize;

    fn allows(byte: u8) -> bool;
    /// How many bytes `text`, a part of it, lacks at least.
    fn missing(text: &[u8]) -> usize;
    fn read(text: &str) -> Option<Self>;
}

impl Field for Ipv4Addr {
    const LEAST: usize = 7;
    const MOST: usize = 15;

    fn allows(byte: u8) -> bool {
        byte.is_ascii_digit() || byte == b'.'
    }

    fn missing(text: &[u8]) -> usize {
        let dots = 3_usize.saturating_sub(text.iter().filter(|byte| **byte == b'.').count());
        let digit = text.last().is_none_or(|byte| *byte == b'.');
        dots.saturating_mul(2).saturating_add(usize::from(digit))
    }

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Field for Ipv6Addr {
    const LEAST: usize = 2;
    /// With the last 32 bits as an IPv4 address. The specification does not have that form, but `inet_ntop` writes it
    /// for mapped addresses, and HAProxy sends it.
    const MOST: usize = 45;

    fn allows(byte: u8) -> bool {
        byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')
    }

    fn missing(text: &[u8]) -> usize {
        let colons = text.iter().filter(|byte| **byte == b':').count();
        let far = text.contains(&b'.') || text.windows(2).any(|pair| pair == b"::");
        match text.last() {
            None => 2,
            Some(_) if far => 0,
            Some(b':') => 1,
            Some(_) if colons >= 7 => 0,
            Some(_) => 2,
        }
    }

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// A port.
impl Field for u16 {
    const LEAST: usize = 1;
    const MOST: usize = 5;

    fn allows(byte: u8) -> bool {
        byte.is_ascii_digit()
    }

    fn missing(text: &[u8]) -> usize {
        usize::from(text.is_empty())
    }

    fn read(text: &str) -> Option<Self> {
        let leading_zero = text.len() > 1 && text.starts_with('0');
        if leading_zero { None } else { text.parse().ok() }
    }
}
