//! The messages: 64 bytes behind a length of four, numbered, so that each is unlike the others.

use anyhow::{Result, ensure};

/// Bytes of a message.
pub(crate) const SIZE: usize = 64;

/// A message of [`SIZE`] bytes with its length: who sends it, and the how many-eth it is.
pub(crate) fn frame(who: u32, number: u32) -> Vec<u8> {
    let mut message = Vec::with_capacity(SIZE);
    message.extend_from_slice(&who.to_be_bytes());
    message.extend_from_slice(&number.to_be_bytes());
    message.extend((8..SIZE).map(|i| (number as usize).wrapping_mul(31).wrapping_add(i) as u8));
    framed(&message)
}

/// A message with its length.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = (message.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    bytes
}

/// Who sent a message, and the how many-eth it is.
pub(crate) fn read(message: &[u8]) -> Result<(u32, u32)> {
    let number = |at: usize| message.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
    let (Some(who), Some(which)) = (number(0), number(4)) else { anyhow::bail!("a message of {}", message.len()) };
    ensure!(frame(who, which).get(4..) == Some(message), "a message that nobody sent");
    Ok((who, which))
}

/// What has come in and has not been taken.
#[derive(Default)]
pub(crate) struct Inbox(Vec<u8>);

impl Inbox {
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole message, without its length.
    pub(crate) fn take(&mut self) -> Option<Vec<u8>> {
        let (head, rest) = self.0.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*head) as usize;
        let message = rest.get(..length)?.to_vec();
        self.0.drain(..4 + length);
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
        Some(message)
    }

    /// Bytes of a message that is not whole.
    pub(crate) fn left(&self) -> usize {
        self.0.len()
    }
}
