//! The load: one thread that keeps so many messages in flight on each connection.

use std::io::{ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::event::{Timespec, epoll};

use crate::servers::Server;

/// Of one message, without its prefix.
const SIZE: usize = 64;

pub(crate) struct Load {
    pub(crate) name: &'static str,
    /// Of the handler for each message, in microseconds.
    pub(crate) work: u64,
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
}

#[derive(Clone, Copy)]
pub(crate) struct Sample {
    /// Messages a second.
    pub(crate) rate: f64,
    /// Of the server, in microseconds for each message.
    pub(crate) cpu: f64,
}

struct Conn {
    stream: TcpStream,
    /// Bytes that are still to come back.
    awaited: usize,
}

/// Asks for so long, after a fifth of it to warm up.
pub(crate) fn run(load: &Load, server: &Server, length: Duration) -> Result<Sample> {
    let mut frame = (SIZE as u32).to_be_bytes().to_vec();
    frame.resize(4 + SIZE, b'x');
    let batch = frame.repeat(load.in_flight);
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut conns = Vec::new();
    for number in 0..load.connections {
        let mut stream = TcpStream::connect(server.addr)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll::add(&epoll, &stream, epoll::EventData::new_u64(number as u64), epoll::EventFlags::IN)?;
        stream.write_all(&batch)?;
        conns.push(Conn { stream, awaited: batch.len() });
    }
    let mut scratch = vec![0; 256 << 10];
    let mut events = [MaybeUninit::uninit(); 256];
    let (warm, mut bytes) = (Instant::now() + length / 5, 0_u64);
    let mut start = None;
    loop {
        let now = Instant::now();
        match start {
            None if now >= warm => {
                bytes = 0;
                start = Some((now, server.cpu()?));
            }
            Some((begin, cpu)) if now >= begin + length => {
                let messages = bytes as f64 / frame.len() as f64;
                let spent = server.cpu()?.saturating_sub(cpu);
                return Ok(Sample {
                    rate: messages / now.duration_since(begin).as_secs_f64(),
                    cpu: spent.as_secs_f64() * 1e6 / messages,
                });
            }
            _ => {}
        }
        let patience = Timespec { tv_sec: 5, tv_nsec: 0 };
        let (ready, _) = epoll::wait(&epoll, &mut events, Some(&patience))?;
        ensure!(!ready.is_empty(), "the server does not answer");
        for event in ready {
            let number = usize::try_from(event.data.u64())?;
            let conn = &mut conns[number];
            let read = match conn.stream.read(&mut scratch) {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            };
            ensure!(read > 0, "the server has closed a connection");
            bytes += read as u64;
            conn.awaited -= read;
            if conn.awaited == 0 {
                conn.stream.write_all(&batch)?;
                conn.awaited = batch.len();
            }
        }
    }
}
