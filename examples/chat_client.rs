//! A terminal client for the chat: sends the lines that are typed, prints the lines that come.
//!
//! Run it, with `cargo run --example chat` in another terminal:
//!     cargo run --example chat_client
//!     cargo run --example chat_client -- tcp://127.0.0.1:9001 --nick ann
//!     cargo run --example chat_client unix:///tmp/chat.sock
//!
//! Type `/help` for what the server knows; Ctrl-D or Ctrl-C leaves. It speaks plain lines, as these do:
//!     nc 127.0.0.1 9001
//!     python3 -c 'import socket; s = socket.create_connection(("127.0.0.1", 9001)); s.sendall(b"hello\n"); print(s.recv(1000))'

use std::io::stdin;
use std::process::ExitCode;

use anyhow::{Context, bail};
use hythe::codec::Lines;
use hythe::{Connection, connect};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chat_client: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let (endpoint, nick) = arguments()?;
    let mut conn: Connection<String> = connect(endpoint, Lines::new()).await?;
    if let Some(nick) = nick {
        conn.send(format!("/nick {nick}")).await?;
    }
    let mut typed = typed();
    loop {
        tokio::select! {
            line = conn.recv() => match line.context("the server is gone")? {
                Some(line) => println!("{}", printable(&line)),
                None => bail!("the server has closed the connection"),
            },
            line = typed.recv() => match line {
                Some(line) => conn.send(line).await?,
                None => break,
            },
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    conn.close().await?;
    Ok(())
}

fn arguments() -> anyhow::Result<(String, Option<String>)> {
    let (mut endpoint, mut nick) = ("tcp://127.0.0.1:9001".to_string(), None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--nick" => nick = Some(args.next().context("--nick wants a name")?),
            option if option.starts_with('-') => bail!("there is no option {option}; there is --nick NAME"),
            _ => endpoint = arg,
        }
    }
    Ok((endpoint, nick))
}

/// The lines of the terminal. They are read on a thread of their own, which does not keep the program from ending.
fn typed() -> mpsc::Receiver<String> {
    let (lines, typed) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in stdin().lines().map_while(Result::ok) {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    typed
}

/// What comes is shown, not obeyed.
fn printable(line: &str) -> String {
    line.chars().filter(|c| !c.is_control() || *c == '\t').collect()
}
