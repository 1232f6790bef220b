//! An echo server that can be replaced while it runs: the new process takes the listening sockets over from the old one,
//! and nobody who connects in between notices.
//!
//! Run it:
//!     cargo run --example handover --features handover
//! and talk to it in a second terminal; each answer begins with the number of the process that gave it:
//!     nc 127.0.0.1 9000
//! Start it once more in a third terminal, with the same command. The first process says that it has been replaced, ends
//! the connections that are idle, and is gone. Connect again, and the second one answers. All the time, this finds nobody
//! missing:
//!     while echo hello | nc -N 127.0.0.1 9000; do sleep 0.01; done
//!
//! With a path for the handover and endpoints of your own:
//!     cargo run --example handover --features handover /run/app/handover.sock tcp://127.0.0.1:9000 unix:///run/app/echo.sock
//! With sockets that systemd passes (`ListenStream=9000` in the socket unit, and `--features handover,fd`):
//!     handover /run/app/handover.sock fd:3
//!
//! What belongs to nobody else goes into a directory of its own; `/tmp` is for trying it out.

use hythe::codec::Lines;
use hythe::{Connection, Server};

async fn echo(mut conn: Connection<String>) -> anyhow::Result<()> {
    while let Some(line) = conn.recv().await? {
        conn.send(format!("{} {line}", std::process::id())).await?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_else(|| "/tmp/hythe-handover.sock".into());
    let mut endpoints: Vec<String> = arguments.collect();
    if endpoints.is_empty() {
        endpoints = vec!["tcp://127.0.0.1:9000".into()];
    }
    let mut server = Server::serve(echo).handover(path);
    for endpoint in endpoints {
        server = server.bind(endpoint, Lines::new());
    }
    let running = server.start().await?;
    running.endpoints().iter().for_each(|endpoint| println!("listening on {endpoint}"));
    let report = running.until_signal().await?;
    println!("{} connections finished, {} cut", report.finished, report.cut);
    Ok(())
}
