//! What the servers under callgrind get to do. It runs outside of callgrind, and waits for each burst.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::callgrind;
use crate::plan::{Counted, Service};

/// A server that gives nothing for so long is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ends the server whatever happens.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Instructions for each message.
pub(crate) fn count(counted: &Counted) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let mut command = callgrind::command(folder.path())?;
    let child = command.args(["--serve", counted.name]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut server = Server(child.context("starting valgrind")?);
    let mut address = String::new();
    let output = server.0.stdout.take().context("no pipe")?;
    BufReader::new(output).read_line(&mut address)?;
    load(counted, address.trim_end()).with_context(|| format!("{}, at {address:?}", counted.name))?;
    drop(server);
    let counts = callgrind::counts(folder.path())?;
    let [_, count] = counts[..] else { anyhow::bail!("{} marks", counts.len()) };
    Ok(count as f64 / counted.messages() as f64)
}

fn load(counted: &Counted, address: &str) -> Result<()> {
    // one more: the count ends inside the last burst, and is written before its answers
    let bursts = Counted::WARM_UP + counted.bursts + 1;
    let mut message = vec![b'x'; counted.size];
    if counted.service == Service::Datagrams {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(address)?;
        for _ in 0..bursts * counted.burst {
            socket.send(&message)?;
            ensure!(socket.recv(&mut message)? == counted.size, "another datagram came back");
        }
        return Ok(());
    }
    let mut frame = (counted.size as u32).to_be_bytes().to_vec();
    frame.append(&mut message);
    let burst = frame.repeat(counted.burst as usize);
    let mut back = vec![0; burst.len()];
    if counted.fresh {
        for _ in 0..bursts {
            let mut stream = connect(address)?;
            exchange(std::slice::from_mut(&mut stream), &burst, &mut back)?;
            // the server's side is closed when this ends
            stream.shutdown(std::net::Shutdown::Write)?;
            ensure!(stream.read(&mut back)? == 0, "more came back");
        }
        return Ok(());
    }
    let mut streams = Vec::new();
    for _ in 0..counted.connections {
        streams.push(connect(address)?);
        if counted.service == Service::FanOut {
            // so that it is known to be a member: the newest one speaks, all get it
            let last = streams.len() - 1;
            streams[last].write_all(&frame)?;
            for stream in &mut streams {
                stream.read_exact(&mut back[..frame.len()])?;
            }
        }
    }
    for _ in 0..bursts {
        exchange(&mut streams, &burst, &mut back)?;
    }
    Ok(())
}

fn connect(address: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The first one writes; all get the same back.
fn exchange(streams: &mut [TcpStream], burst: &[u8], back: &mut [u8]) -> Result<()> {
    streams[0].write_all(burst)?;
    for stream in streams {
        stream.read_exact(back)?;
        ensure!(back == burst, "other bytes came back than were sent");
    }
    Ok(())
}
