//! Connect, echo one frame, close; so many at a time.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};

use super::{Conn, PATIENCE, Poller, Stream};
use crate::measure::{Sample, Window};

/// Addresses of 127.0.0.0/8 to connect from: of one alone the ports would run out, as each rests for a minute.
const ADDRESSES: u32 = 250;

pub(super) fn run(
    at_once: usize,
    server: SocketAddr,
    stream: &Stream,
    poller: &Poller,
    mut window: Window<'_>,
) -> Result<Sample> {
    let mut opened = 0;
    let mut open = |token: usize| -> Result<Conn> {
        let from = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 0, 2)) + opened % ADDRESSES);
        opened += 1;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddr::from((from, 0))).with_context(|| format!("binding to {from}"))?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        // on this machine that takes no waiting: the queue of the listener is long
        connect(&socket, &server).context("connecting")?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        let mut conn = Conn { socket, token: token as u64, start: 0, sent: 0, received: 0, blocked: false };
        poller.add(&conn)?;
        conn.send(stream, 1, poller)?;
        Ok(conn)
    };
    let mut conns: Vec<(Conn, u64)> =
        (0..at_once).map(|token| Ok((open(token)?, window.now()))).collect::<Result<_>>()?;
    let (mut events, mut buffer) = (Vec::with_capacity(1024), vec![0; 4096]);
    let mut heard = window.now();
    loop {
        if let Some(sample) = window.poll()? {
            return Ok(sample);
        }
        for (i, readable) in poller.wait(&mut events)? {
            let (conn, begun) = &mut conns[i];
            if !readable {
                conn.send(stream, 1, poller)?;
                continue;
            }
            conn.read(stream, 0, &mut buffer)?;
            if conn.frames(stream) == 1 {
                heard = window.now();
                window.record(1, heard - *begun);
                // the old one is closed when it is replaced
                conns[i] = (open(i)?, heard);
            }
        }
        ensure!(window.now() - heard < PATIENCE.as_nanos() as u64, "the server is silent: {:?}", Errno::TIMEDOUT);
    }
}
