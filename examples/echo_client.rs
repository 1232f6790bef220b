//! Sends messages to an echo server, and prints what comes back.
//!
//! Run it, with `cargo run --example echo` in another terminal:
//!     cargo run --example echo_client tcp://127.0.0.1:9000 hello
//!     cargo run --example echo_client udp://127.0.0.1:9000 hello again
//!     cargo run --example echo_client unix:///tmp/echo.sock
//!
//! Each argument after the endpoint is a message; without any, each line of the standard input is one. The same in
//! Python 3:
//!     python3 -c 'import socket; s = socket.create_connection(("127.0.0.1", 9000)); s.sendall(b"\0\0\0\5hello"); print(s.recv(100))'

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use hythe::codec::{Datagram, LengthDelimited};
use hythe::{Bytes, Connection, Endpoint, connect};
use tokio::time::timeout;

/// A datagram, or its echo, may get lost.
const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo_client: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let Some(endpoint) = args.next() else {
        bail!("where to? For example: cargo run --example echo_client tcp://127.0.0.1:9000 hello");
    };
    let endpoint: Endpoint = endpoint.parse()?;
    // bytes on a stream need a frame around each message, datagrams are messages already
    let mut conn = if endpoint.is_stream() {
        connect(endpoint, LengthDelimited::new()).await?
    } else {
        connect(endpoint, Datagram::new()).await?
    };

    let messages: Vec<String> = args.collect();
    if messages.is_empty() {
        // waiting for the terminal blocks this thread, and nothing else runs on it
        for line in std::io::stdin().lines() {
            echo(&mut conn, line?).await?;
        }
    }
    for message in messages {
        echo(&mut conn, message).await?;
    }
    conn.close().await?;
    Ok(())
}

async fn echo(conn: &mut Connection<Bytes>, message: String) -> anyhow::Result<()> {
    conn.send(message.into()).await?;
    let Ok(reply) = timeout(PATIENCE, conn.recv()).await else {
        bail!("no reply from {} within {PATIENCE:?}", conn.peer());
    };
    let reply = reply?.context("the server has closed the connection")?;
    println!("{}", String::from_utf8_lossy(&reply));
    Ok(())
}
