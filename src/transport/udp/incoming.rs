//! What came with one system call: several datagrams, and of those that the kernel put together each.

use std::net::SocketAddr;

/// What a buffer holds: the largest datagram there is, or as many smaller ones as the kernel puts together. Not a multiple
/// of the page's size: the beginnings of all buffers would share a few lines of the processor's cache.
pub(super) const BUFFER: usize = (64 << 10) + 192;

/// What one buffer got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) from: Option<SocketAddr>,
    pub(super) length: usize,
    /// The size of each datagram in the buffer but the last, where the kernel has put several together.
    pub(super) segment: Option<usize>,
    /// Some of it was lost: bytes, or how long each datagram is.
    pub(super) cut: bool,
}

/// A datagram, as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Datagram<'a> {
    /// Nobody on a connected socket.
    pub(crate) from: Option<SocketAddr>,
    pub(crate) bytes: &'a [u8],
    /// Its end is missing.
    pub(crate) cut: bool,
}

/// Buffers for one receive. They are made when they are first needed, and those that never get anything cost no memory
/// but addresses.
pub(crate) struct Incoming {
    bytes: Vec<u8>,
    #[cfg(target_os = "linux")]
    slots: Vec<super::sys::Slot>,
    got: Vec<Got>,
    /// Which buffer is next, and from where in it.
    next: (usize, usize),
    before: (usize, usize),
    most: usize,
    /// How many buffers the next receive is given.
    wanted: usize,
}

impl Incoming {
    /// With so many buffers at most.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            bytes: Vec::new(),
            #[cfg(target_os = "linux")]
            slots: Vec::new(),
            got: Vec::new(),
            next: (0, 0),
            before: (0, 0),
            most,
            wanted: 2.min(most),
        }
    }

    /// The next datagram of those that came.
    pub(crate) fn next(&mut self) -> Option<Datagram<'_>> {
        let (index, from) = self.next;
        self.before = self.next;
        let got = *self.got.get(index)?;
        let to = got.segment.map_or(got.length, |segment| from.saturating_add(segment)).min(got.length);
        self.next = if to == got.length { (index + 1, 0) } else { (index, to) };
        let start = index * BUFFER;
        let bytes = self.bytes.get(start + from..start + to).unwrap_or_default();
        Some(Datagram { from: got.from, bytes, cut: got.cut })
    }

    /// The datagram that [`next`](Self::next) has just given is given once more. Nothing came in between.
    pub(crate) fn back(&mut self) {
        self.next = self.before;
    }

    /// Makes room for a receive.
    fn prepare(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = vec![0; self.most * BUFFER];
        }
        self.got.clear();
        self.next = (0, 0);
    }

    /// One buffer, for a receive of one datagram, and what becomes of it.
    pub(super) fn one(&mut self) -> (&mut [u8], &mut Vec<Got>) {
        self.prepare();
        (self.bytes.get_mut(..BUFFER).unwrap_or_default(), &mut self.got)
    }

    /// Receives as many as there are. True when there may be more.
    #[cfg(target_os = "linux")]
    pub(super) fn receive(&mut self, socket: std::os::fd::BorrowedFd<'_>) -> std::io::Result<bool> {
        self.prepare();
        let wanted = self.wanted;
        self.slots.resize_with(wanted.max(self.slots.len()), super::sys::Slot::new);
        let slots = self.slots.get_mut(..wanted).unwrap_or_default();
        super::sys::receive(socket, self.bytes.chunks_exact_mut(BUFFER), slots, &mut self.got)?;
        // few where few come, as each costs a little even if it gets nothing
        self.wanted = (2 * self.got.len()).clamp(2, self.most.max(2)).min(self.most);
        Ok(self.got.len() == wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_together_is_taken_apart() {
        let mut incoming = Incoming::new(3);
        incoming.prepare();
        for (index, byte) in incoming.bytes.iter_mut().enumerate() {
            *byte = (index % BUFFER) as u8;
        }
        let got = |length, segment| Got { from: None, length, segment, cut: false };
        incoming.got = vec![got(7, Some(3)), got(0, None), got(6, Some(3))];
        let mut datagrams = Vec::new();
        while let Some(datagram) = incoming.next() {
            datagrams.push(datagram.bytes.to_vec());
        }
        let expected: [&[u8]; 6] = [&[0, 1, 2], &[3, 4, 5], &[6], &[], &[0, 1, 2], &[3, 4, 5]];
        assert_eq!(datagrams, expected);
        assert_eq!(incoming.next(), None);
    }
}
