//! Datagrams that wait to be sent together, in their order: those of one size to one peer as one run.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

/// What the kernel takes as one run: as many datagrams, and bytes of them with their headers.
const RUN: usize = 64;
const RUN_BYTES: usize = 65_000;
/// With so much waiting it is time to send, in bytes and in runs.
const BYTES: usize = 128 << 10;
const RUNS: usize = 128;
/// What is kept for the next time, and what of a socket that is not shared.
const KEEP: usize = 2 * BYTES;
const SMALL: usize = 2 << 10;

/// Datagrams of one peer. All but the last are of the same size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// None on a connected socket.
    pub(super) to: Option<SocketAddr>,
    pub(super) size: usize,
    pub(super) bytes: usize,
    pub(super) count: usize,
}

#[derive(Default)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    /// What of the bytes has been sent.
    sent: usize,
    runs: VecDeque<Run>,
}

impl Outgoing {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether it is time to send.
    pub(super) fn is_full(&self) -> bool {
        self.runs.len() >= RUNS || self.bytes.len() >= BYTES
    }

    /// Adds a datagram. It may join others if it has fewer than `below` bytes.
    pub(super) fn push(&mut self, to: Option<SocketAddr>, datagram: &[u8], below: usize) {
        let size = datagram.len();
        self.bytes.extend_from_slice(datagram);
        if let Some(last) = self.runs.back_mut() {
            let whole = last.bytes == last.size * last.count;
            let fits = last.count < RUN && last.bytes + size <= RUN_BYTES && last.size < below;
            if last.to == to && whole && fits && (1..=last.size).contains(&size) {
                last.bytes += size;
                last.count += 1;
                return;
            }
        }
        self.runs.push_back(Run { to, size, bytes: size, count: 1 });
    }

    /// The runs in their order, with their bytes.
    pub(super) fn runs(&self) -> impl Iterator<Item = (&Run, &[u8])> {
        let mut at = self.sent;
        self.runs.iter().map(move |run| {
            let from = at;
            at += run.bytes;
            (run, self.bytes.get(from..at).unwrap_or_default())
        })
    }

    /// The first runs are out, or lost.
    pub(super) fn drop_first(&mut self, runs: usize) {
        let gone: usize = self.runs.drain(..runs.min(self.runs.len())).map(|run| run.bytes).sum();
        self.sent += gone;
        if self.runs.is_empty() {
            self.clear();
        }
    }

    /// The first run becomes as many as it has datagrams. False if that is one.
    pub(super) fn split_first(&mut self) -> bool {
        match self.runs.front().copied() {
            Some(run) if run.count > 1 => {
                self.runs.pop_front();
                let mut left = run.bytes;
                let mut parts = Vec::with_capacity(run.count);
                while left > 0 {
                    let size = left.min(run.size);
                    parts.push(Run { size, bytes: size, count: 1, ..run });
                    left -= size;
                }
                parts.into_iter().rev().for_each(|part| self.runs.push_front(part));
                true
            }
            _ => false,
        }
    }

    /// Holds nothing for the next time but what a few small datagrams take.
    pub(super) fn shrink(&mut self) {
        if self.runs.is_empty() && self.bytes.capacity() > SMALL {
            *self = Self::default();
        }
    }

    pub(super) fn clear(&mut self) {
        self.runs.clear();
        self.sent = 0;
        if self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }

    /// Sends as much as `send` takes, which is given this and tells how many runs it has taken. A run of several that is
    /// `refused` is tried one by one; a single one is lost. False where the kernel takes no more for now.
    pub(super) fn send_all(
        &mut self,
        mut send: impl FnMut(&Self) -> io::Result<usize>,
        mut refused: impl FnMut(&Run, io::Error),
    ) -> bool {
        let mut told = false;
        while let Some(first) = self.runs.front() {
            match send(self) {
                Ok(runs) => {
                    told = false;
                    self.drop_first(runs.max(1));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // that was an earlier datagram's refusal, told once; this one has not been tried yet
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && !told => told = true,
                Err(error) => {
                    refused(first, error);
                    if !self.split_first() {
                        self.drop_first(1);
                    }
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(port: u16) -> Option<SocketAddr> {
        Some(([127, 0, 0, 1], port).into())
    }

    fn all(outgoing: &Outgoing) -> Vec<(u16, usize, usize)> {
        outgoing.runs().map(|(run, bytes)| (run.to.map_or(0, |to| to.port()), run.count, bytes.len())).collect()
    }

    #[test]
    fn equal_sizes_to_one_peer_are_one_run_and_a_shorter_one_ends_it() {
        let mut outgoing = Outgoing::default();
        for size in [5, 5, 3, 5, 6, 0, 0] {
            outgoing.push(to(1), &vec![1; size], 1500);
        }
        outgoing.push(to(2), &[2; 5], 1500);
        outgoing.push(to(2), &[2; 5], 1500);
        assert_eq!(all(&outgoing), [(1, 3, 13), (1, 1, 5), (1, 1, 6), (1, 1, 0), (1, 1, 0), (2, 2, 10)]);
        assert!(outgoing.split_first());
        assert_eq!(all(&outgoing)[..4], [(1, 1, 5), (1, 1, 5), (1, 1, 3), (1, 1, 5)]);
        assert!(!outgoing.split_first());
    }

    #[test]
    fn a_run_is_as_long_as_the_kernel_takes() {
        let mut outgoing = Outgoing::default();
        for _ in 0..130 {
            outgoing.push(to(1), &[1; 10], 1500);
        }
        assert_eq!(all(&outgoing), [(1, 64, 640), (1, 64, 640), (1, 2, 20)]);
        let mut large = Outgoing::default();
        for _ in 0..60 {
            large.push(to(1), &[1; 1200], 1500);
        }
        assert_eq!(all(&large), [(1, 54, 64_800), (1, 6, 7200)]);
        let mut never = Outgoing::default();
        never.push(to(1), &[1; 10], 0);
        never.push(to(1), &[1; 10], 0);
        assert_eq!(all(&never).len(), 2);
    }

    #[test]
    fn what_is_refused_loses_nothing_else() {
        let mut outgoing = Outgoing::default();
        for (port, size) in [(1, 4), (2, 9), (2, 9), (2, 8), (3, 4)] {
            outgoing.push(to(port), &vec![port as u8; size], 1500);
        }
        let (mut out, mut lost) = (Vec::new(), Vec::new());
        let done = outgoing.send_all(
            |outgoing| {
                let mut taken = 0;
                for (run, bytes) in outgoing.runs() {
                    // runs are not taken at all, nor 8 bytes
                    if run.count > 1 || bytes.len() == 8 {
                        break;
                    }
                    out.push((run.to.map_or(0, |to| to.port()), bytes.len()));
                    taken += 1;
                }
                if taken > 0 { Ok(taken) } else { Err(io::ErrorKind::PermissionDenied.into()) }
            },
            |run, _| lost.push(run.count),
        );
        assert!(done && outgoing.is_empty());
        assert_eq!(out, [(1, 4), (2, 9), (2, 9), (3, 4)]);
        assert_eq!(lost, [3, 1]);
    }

    #[test]
    fn what_the_kernel_has_no_room_for_waits() {
        let mut outgoing = Outgoing::default();
        outgoing.push(to(1), b"first", 0);
        outgoing.push(to(1), b"second", 0);
        let mut calls = 0;
        let done = outgoing.send_all(
            |_| {
                calls += 1;
                if calls == 1 { Ok(1) } else { Err(io::ErrorKind::WouldBlock.into()) }
            },
            |_, _| panic!("nothing is refused"),
        );
        assert!(!done);
        assert_eq!(outgoing.runs().map(|(_, bytes)| bytes.to_vec()).collect::<Vec<_>>(), [b"second"]);
    }
}
