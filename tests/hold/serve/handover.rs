//! Answers each message with itself, takes over from the process before, and says at its end what became of its
//! connections.

use std::io::Read;
use std::time::Duration;

use anyhow::{Context, Result};
use hythe::codec::LengthDelimited;
use hythe::{Bytes, Connection, Handler, Server};

use super::{Options, announce};
use crate::wire;

/// Whose messages take longer, so that a handover finds some in hand.
const SLOW: u32 = 50;

#[derive(Clone)]
struct Echo;

impl Handler for Echo {
    type In = Bytes;
    type Out = Bytes;

    async fn on_message(&mut self, conn: &mut Connection<Bytes>, message: Bytes) -> Result<()> {
        if wire::read(&message)?.0 < SLOW {
            tokio::time::sleep(Duration::from_millis(80)).await;
        }
        conn.send(message).await?;
        Ok(())
    }
}

pub(super) async fn serve(options: &Options) -> Result<()> {
    let path = options.text("path").context("where to hand over?")?;
    let server = Server::new(Echo).limits(options.limits()?).bind("tcp://127.0.0.1:0", LengthDelimited::new());
    let running = server.handover(path).start().await?;
    announce(&running);
    // nobody is left who would want it to end well
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(3);
    });
    let report = running.until_signal().await?;
    println!("report {} {} {}", report.finished, report.cut, report.unsent_bytes);
    Ok(())
}
