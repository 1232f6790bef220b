//! Answers each message with itself.

use std::sync::atomic::Ordering::Relaxed;

use anyhow::Result;
use hythe::codec::LengthDelimited;
use hythe::{Bytes, Closed, Connection, Handler, Peer, Server};

use super::{GAUGES, Inside, Options, answer};

pub(super) struct Echo {
    _inside: Inside,
}

impl Echo {
    pub(super) fn new() -> Self {
        Self { _inside: Inside::enter() }
    }
}

impl Handler for Echo {
    type In = Bytes;
    type Out = Bytes;

    async fn on_open(&mut self, _: &mut Connection<Bytes>) -> Result<()> {
        GAUGES.opens.fetch_add(1, Relaxed);
        Ok(())
    }

    async fn on_message(&mut self, conn: &mut Connection<Bytes>, message: Bytes) -> Result<()> {
        conn.send(message).await?;
        Ok(())
    }

    async fn on_close(self, _: Closed) {
        GAUGES.closes.fetch_add(1, Relaxed);
    }
}

pub(super) async fn serve(options: &Options) -> Result<()> {
    let mut server = Server::with(|_: &Peer| Ok(Echo::new())).limits(options.limits()?);
    for _ in 0..options.get("listeners")?.unwrap_or(1) {
        server = server.bind("tcp://127.0.0.1:0", LengthDelimited::new());
    }
    answer(server.start().await?).await
}
