//! 1,000 connections that claim the largest message and send 1 KiB of it: memory grows by what has come, not by what was
//! claimed.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hythe::{Bytes, codec};

use crate::crowd::Crowd;
use crate::plan::Plan;
use crate::process::{Server, Setup};
use crate::report::{Report, mib};
use crate::wire;

const CONNECTIONS: usize = 1000;
const SENT: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    for (name, limit) in [("", None), ("with 4 GiB of address space, ", Some(4_u64 << 30))] {
        let mut setup = Setup::new("echo").threads();
        if let Some(bytes) = limit {
            setup = setup.with("address_space", bytes);
        }
        let mut server = setup.start(plan)?;
        // what a server has in any case: buffers, and for each thread an arena of the allocator (64 MiB of address space)
        server.ask("stall 1")?;
        echoes(&server, 200)?;
        let before = server.memory()?;
        let (crowd, read) = claim(&mut server)?;
        let after = server.memory()?;
        let resident = after.most_resident.saturating_sub(before.resident);
        let space = after.most_space.saturating_sub(before.space);
        report.row(format!("{name}resident memory grows by"), mib(resident), "≤ 64 MiB", resident <= 64 << 20);
        report.row(format!("{name}address space grows by"), mib(space), "≤ 256 MiB", space <= 256 << 20);
        let serves = echoes(&server, 50);
        let ended = server.ended()?;
        let figure = match (&serves, ended) {
            (_, Some(status)) => status.to_string(),
            (Err(error), _) => error.to_string(),
            (Ok(()), None) => "yes".into(),
        };
        report.row(format!("{name}others are served"), figure, "yes", serves.is_ok() && ended.is_none());
        report.exactly(format!("{name}bytes that the server has read"), read, CONNECTIONS * SENT);
        report.exactly(format!("{name}claims cut"), crowd.ended, 0);
        let shown = [before.resident, before.space].map(mib);
        report.note(format!("{name}before: {} resident, {} of address space", shown[0], shown[1]));
    }
    Ok(())
}

/// Connections that are served, and closed again.
fn echoes(server: &Server, count: usize) -> Result<()> {
    let mut crowd = Crowd::new()?;
    crowd.open_all(count, server.address(), Ipv4Addr::LOCALHOST, &wire::frame(1, 1).into())?;
    ensure!(crowd.wait(PATIENCE, |crowd| crowd.answered == count)?, "{} of {count} were served", crowd.answered);
    Ok(())
}

/// All claims, once the server has read all that was sent, or does not; how much it has read.
fn claim(server: &mut Server) -> Result<(Crowd, usize)> {
    let mut message = (codec::DEFAULT_MAX_LENGTH as u32).to_be_bytes().to_vec();
    message.resize(SENT, b'x');
    let mut crowd = Crowd::new()?;
    crowd.open_all(CONNECTIONS, server.address(), Ipv4Addr::LOCALHOST, &Bytes::from(message))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        crowd.poll(Duration::from_millis(10))?;
        let read: usize = server.ask("bytes")?.parse()?;
        if read == CONNECTIONS * SENT || Instant::now() >= deadline {
            return Ok((crowd, read));
        }
    }
}
