//! Datagrams: every socket keeps so many in flight, and sends as many as have come back, with one system call.

use std::io::IoSlice;
use std::net::UdpSocket;

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::net::{MMsgHdr, RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmmsg, sockopt};

use super::{PATIENCE, Poller};
use crate::measure::{Sample, Window};

/// What has not come back after so many nanoseconds is lost; under strace, which makes a server slow, after ten times
/// as many.
const LOST: u64 = 200_000_000;
/// Datagrams whose times are kept.
const KEPT: usize = 1024;

/// One socket. Its datagrams are numbered; the number is their first eight bytes.
struct Sender {
    socket: UdpSocket,
    /// The next one to be sent.
    next: u64,
    /// The next one to come back.
    due: u64,
    /// When the last one came back, or all were given up.
    heard: u64,
    times: Vec<u64>,
}

impl Sender {
    fn open(address: &str) -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(address).with_context(|| format!("connecting to {address}"))?;
        socket.set_nonblocking(true)?;
        sockopt::set_socket_recv_buffer_size(&socket, 4 << 20)?;
        Ok(Self { socket, next: 0, due: 0, heard: 0, times: vec![0; KEPT] })
    }

    /// Sends until so many are in flight.
    fn send(&mut self, slots: &mut [Vec<u8>], now: u64) -> Result<()> {
        let missing = slots.len() - (self.next - self.due) as usize;
        let slots = &mut slots[..missing];
        for (slot, number) in slots.iter_mut().zip(self.next..) {
            slot[..8].copy_from_slice(&number.to_be_bytes());
        }
        let slices: Vec<[IoSlice<'_>; 1]> = slots.iter().map(|slot| [IoSlice::new(slot)]).collect();
        let mut nothing: Vec<SendAncillaryBuffer<'_, '_, '_>> =
            slices.iter().map(|_| SendAncillaryBuffer::default()).collect();
        let mut headers: Vec<MMsgHdr<'_>> =
            slices.iter().zip(&mut nothing).map(|(slice, nothing)| MMsgHdr::new(slice, nothing)).collect();
        let sent = match sendmmsg(&self.socket, &mut headers, SendFlags::empty()) {
            Ok(sent) => sent as u64,
            Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => 0,
            Err(error) => return Err(error).context("sending"),
        };
        for number in self.next..self.next + sent {
            self.times[number as usize % KEPT] = now;
        }
        self.next += sent;
        Ok(())
    }
}

pub(super) fn run(
    sockets: usize,
    size: usize,
    in_flight: usize,
    poller: &Poller,
    mut window: Window<'_>,
) -> Result<Sample> {
    ensure!(size >= 8 && in_flight <= KEPT, "a number does not fit");
    let address = window.address().to_owned();
    let lost = if window.traced() { 10 * LOST } else { LOST };
    let mut senders: Vec<Sender> = (0..sockets).map(|_| Sender::open(&address)).collect::<Result<_>>()?;
    for (token, sender) in senders.iter().enumerate() {
        poller.watch(&sender.socket, token as u64)?;
    }
    let mut slots: Vec<Vec<u8>> = (0..in_flight).map(|i| (0..size).map(|at| (i + at) as u8).collect()).collect();
    let (mut events, mut buffer) = (Vec::with_capacity(1024), vec![0; size + 1]);
    let mut heard = window.now();
    let mut looked = 0;
    loop {
        if let Some(sample) = window.poll()? {
            return Ok(sample);
        }
        let now = window.now();
        if now - looked > lost / 8 || looked == 0 {
            looked = now;
            for sender in &mut senders {
                if now - sender.heard > lost || sender.next == 0 {
                    window.lose(sender.next - sender.due);
                    (sender.due, sender.heard) = (sender.next, now);
                    sender.send(&mut slots, now)?;
                }
            }
        }
        for (i, _) in poller.wait(&mut events)? {
            let sender = &mut senders[i];
            // as many as are in flight: then it is another one's turn
            for _ in 0..in_flight {
                let length = match recv(&sender.socket, &mut *buffer, RecvFlags::empty()) {
                    Ok((length, _)) => length,
                    Err(Errno::AGAIN | Errno::INTR) => break,
                    Err(error) => return Err(error).context("receiving"),
                };
                let number = buffer.first_chunk().map(|first| u64::from_be_bytes(*first)).unwrap_or(u64::MAX);
                ensure!(length == size && number < sender.next, "another datagram came back than was sent");
                // what comes after it was given up has been counted
                let Some(skipped) = number.checked_sub(sender.due) else { continue };
                heard = window.now();
                window.lose(skipped);
                window.record(1, heard - sender.times[number as usize % KEPT]);
                (sender.due, sender.heard) = (number + 1, heard);
            }
            sender.send(&mut slots, heard)?;
        }
        ensure!(window.now() - heard < PATIENCE.as_nanos() as u64, "the server is silent");
    }
}
