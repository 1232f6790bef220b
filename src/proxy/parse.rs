//! Which of the two versions it is.

use super::error::{Excerpt, ProxyError};
use super::proxied::Proxied;
use super::{v1, v2};

/// The shortest header there is: `PROXY UNKNOWN\r\n`.
const SHORTEST: usize = 15;

/// How far a header has come.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third")]
pub enum Progress {
    /// It is not whole. At least so many more bytes belong to it, and never 0: whoever reads at most so many next
    /// takes none of what follows the header.
    Needs(usize),
    /// It is whole: what it says, and its length in bytes.
    Done(Proxied, usize),
}

/// Reads a header from the start of `input`, which may go on after it.
///
/// `limit` is the longest version 2 header taken, in bytes; [`DEFAULT_MAX_HEADER`](super::DEFAULT_MAX_HEADER) unless
/// proxies send more, such as client certificates. A version 1 header has at most 107 bytes.
///
/// The same bytes give the same verdict however they were cut: a prefix of a header always
/// [needs](Progress::Needs) more, and what is wrong is refused at the first byte that is, of version 2 at the latest
/// when its claimed length is there. Nothing is allocated but what has arrived.
///
/// ```
/// use hythe::proxy::{DEFAULT_MAX_HEADER, Progress, parse};
///
/// let input = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET / HTTP/1.1\r\n";
/// let Progress::Done(proxied, 47) = parse(input, DEFAULT_MAX_HEADER)? else { panic!("it is whole") };
/// assert_eq!(proxied.source(), Some("192.168.0.1:56324".parse().unwrap()));
///
/// // The port in front of the line's end has a digit at least.
/// assert_eq!(parse(&input[..42], DEFAULT_MAX_HEADER)?, Progress::Needs(3));
/// # Ok::<(), hythe::proxy::ProxyError>(())
/// ```
///
/// # Errors
/// What is [not a header](super#what-is-refused), never [`Truncated`](ProxyError::Truncated) or
/// [`Io`](ProxyError::Io).
pub fn parse(input: &[u8], limit: usize) -> Result<Progress, ProxyError> {
    match input.first() {
        None => Ok(Progress::Needs(SHORTEST)),
        Some(b'P') => v1::parse(input),
        Some(b'\r') => v2::parse(input, limit),
        Some(_) => Err(not_proxy(input, 0)),
    }
}

pub(super) fn not_proxy(input: &[u8], at: usize) -> ProxyError {
    ProxyError::NotProxy { at, seen: Excerpt::new(input) }
}
