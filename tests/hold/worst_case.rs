//! Every connection holds what it may: as much as is not counted, and some as much as all together may. What the server
//! uses then is what `Limits::worst_case_memory` says, at most.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hythe::{Bytes, codec};

use crate::crowd::Crowd;
use crate::plan::Plan;
use crate::process::{Server, Setup};
use crate::report::{Report, mib};
use crate::wire;

const MEMORY: usize = 64 << 20;
/// Just below what is counted.
const UNCOUNTED: usize = 4000;
const GREEDY: usize = 80;
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let connections = plan.pick(4000, 1000);
    let setup = Setup::new("echo").with("max_connections", connections + GREEDY + 1).with("memory", MEMORY);
    let mut server = setup.with("message", 60_000).with("first_byte", 60_000).threads().start(plan)?;
    let mut honest = Crowd::new()?;
    honest.open_all(1, server.address(), Ipv4Addr::LOCALHOST, &wire::frame(1, 1).into())?;
    ensure!(honest.wait(PATIENCE, |crowd| crowd.answered == 1)?, "nobody is served");
    let before = server.memory()?.resident;
    let promised: u64 = server.ask("worst_case")?.parse()?;

    let mut part = (codec::DEFAULT_MAX_LENGTH as u32).to_be_bytes().to_vec();
    part.resize(UNCOUNTED, b'x');
    let mut crowd = Crowd::new()?;
    crowd.open_all(connections, server.address(), Ipv4Addr::LOCALHOST, &Bytes::from(part.clone()))?;
    await_bytes(&mut server, &mut crowd, connections * UNCOUNTED)?;
    let small = server.memory()?.most_resident.saturating_sub(before);

    part.resize(codec::DEFAULT_MAX_LENGTH, b'x');
    let greedy = greedy(&server, &part)?;
    let (begin, mut most) = (Instant::now(), 0);
    while begin.elapsed() < plan.seconds(5.0, 3.0) {
        crowd.poll(Duration::from_millis(5))?;
        most = most.max(server.ask("memory")?.parse::<u64>()?);
    }
    let used = server.memory()?.most_resident.saturating_sub(before);
    report.row("resident memory, of what worst_case_memory says", mib(used), mib(promised), used <= promised);
    report.row("counted at most, of the limit", mib(most), mib(MEMORY as u64 * 17 / 16 + (2 << 20)), {
        most as usize >= MEMORY * 9 / 10 && most as usize <= MEMORY * 17 / 16 + (2 << 20)
    });
    report.exactly("parts of 4,000 bytes cut", crowd.ended, 0);
    report.note(format!("{connections} parts of 4,000 bytes: {}, of which none is counted", mib(small)));
    report.note(server.ask("limits")?);
    drop(greedy);
    Ok(())
}

fn await_bytes(server: &mut Server, crowd: &mut Crowd, bytes: usize) -> Result<()> {
    let begin = Instant::now();
    while server.ask("bytes")?.parse::<usize>()? < bytes {
        ensure!(begin.elapsed() < PATIENCE, "the server does not read what was sent");
        crowd.poll(Duration::from_millis(10))?;
    }
    Ok(())
}

/// Those who send all but the last byte of the largest message, or as much as is taken.
fn greedy(server: &Server, part: &[u8]) -> Result<Vec<TcpStream>> {
    let mut streams = Vec::new();
    for _ in 0..GREEDY {
        let mut stream = TcpStream::connect(server.address()).context("one more connection")?;
        stream.set_write_timeout(Some(Duration::from_millis(20)))?;
        // whoever holds most is cut, and what the server does not read does not go out
        let _ = stream.write_all(part);
        streams.push(stream);
    }
    Ok(streams)
}
