//! A header from a stream.

use tokio::io::{AsyncRead, AsyncReadExt};

use super::error::ProxyError;
use super::parse::{Progress, parse};
use super::proxied::Proxied;

/// Reads a header, and nothing of what follows it: the stream goes on with the client's first byte.
///
/// `limit` is that of [`parse`]. There is no deadline in here; put one around it.
///
/// ```
/// use hythe::proxy::{DEFAULT_MAX_HEADER, read};
/// use tokio::io::AsyncReadExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut stream = &b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nhello"[..];
/// let proxied = read(&mut stream, DEFAULT_MAX_HEADER).await?;
/// assert_eq!(proxied.to_string(), "192.168.0.1:56324 to 192.168.0.11:443 (PROXY version 1)");
///
/// let mut rest = String::new();
/// stream.read_to_string(&mut rest).await?;
/// assert_eq!(rest, "hello");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// What is [not a header](super#what-is-refused), [`Truncated`](ProxyError::Truncated) if the stream ends before the
/// header does, and [`Io`](ProxyError::Io).
///
/// # Cancel safety
/// None: what was read is lost. Close the connection.
pub async fn read<R: AsyncRead + Unpin>(io: &mut R, limit: usize) -> Result<Proxied, ProxyError> {
    // Grows with what arrives, not with what is claimed.
    let mut have = Vec::with_capacity(128);
    loop {
        match parse(&have, limit)? {
            Progress::Done(proxied, _) => return Ok(proxied),
            Progress::Needs(least) => {
                let most = u64::try_from(least).unwrap_or(u64::MAX);
                if (&mut *io).take(most).read_buf(&mut have).await? == 0 {
                    return Err(ProxyError::Truncated { have: have.len() });
                }
            }
        }
    }
}
