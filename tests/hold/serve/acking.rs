//! Answers each message with itself once it is handled, and says at its end what it has handled.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use hythe::codec::LengthDelimited;
use hythe::{Bytes, Closed, Connection, Handler, Server};

use super::{Options, announce};
use crate::wire;

/// For each client the last message that was handled; they are numbered from 1, and handled in order.
static HANDLED: Mutex<BTreeMap<u32, u32>> = Mutex::new(BTreeMap::new());
/// Why connections ended, and how many bytes of theirs were never sent.
static ENDS: Mutex<BTreeMap<&'static str, (u32, u64)>> = Mutex::new(BTreeMap::new());

#[derive(Clone)]
struct Acking;

impl Handler for Acking {
    type In = Bytes;
    type Out = Bytes;

    async fn on_message(&mut self, conn: &mut Connection<Bytes>, message: Bytes) -> Result<()> {
        let (who, number) = wire::read(&message)?;
        // some take time, so that a signal finds messages in hand and others waiting behind them
        if number % 4 == who % 4 {
            tokio::time::sleep(Duration::from_millis(u64::from(2 + 2 * (who % 8)))).await;
        }
        {
            let mut handled = HANDLED.lock().unwrap_or_else(PoisonError::into_inner);
            let last = handled.entry(who).or_default();
            ensure!(*last + 1 == number, "message {number} of {who} came after {last}");
            *last = number;
        }
        conn.send(message).await?;
        Ok(())
    }

    async fn on_close(self, closed: Closed) {
        let mut ends = ENDS.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, unsent) = ends.entry(closed.reason.as_str()).or_default();
        *count += 1;
        *unsent += closed.unsent_bytes;
    }
}

pub(super) async fn serve(options: &Options) -> Result<()> {
    let server = Server::new(Acking).limits(options.limits()?).bind("tcp://127.0.0.1:0", LengthDelimited::new());
    let running = server.start().await?;
    announce(&running);
    // nobody is left who would want it to end well
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(3);
    });
    let report = running.until_signal().await?;
    println!("report {} {} {}", report.finished, report.cut, report.unsent_bytes);
    for (who, number) in HANDLED.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        println!("handled {who} {number}");
    }
    for (reason, (count, unsent)) in ENDS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        println!("end {reason} {count} {unsent}");
    }
    Ok(())
}
