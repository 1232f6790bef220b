//! Echoes over TLS, and in the clear beside it.

use std::time::Duration;

use anyhow::{Context, Result};
use hythe::codec::LengthDelimited;
use hythe::tls::ServerTls;
use hythe::{BindOptions, Peer, Server};

use super::echo::Echo;
use super::{Options, answer};

pub(super) async fn serve(options: &Options) -> Result<()> {
    let file = |name| options.text(name).context("where are the certificate and its key?");
    let tls = ServerTls::from_pem_files(file("chain")?, file("key")?).build()?;
    if let Some(millis) = options.get("watch")? {
        tls.watch(Duration::from_millis(millis))?;
    }
    let server = Server::with(|_: &Peer| Ok(Echo::new()))
        .limits(options.limits()?)
        .bind_with("tls://127.0.0.1:0", LengthDelimited::new(), BindOptions::new().tls(tls))
        .bind("tcp://127.0.0.1:0", LengthDelimited::new());
    answer(server.start().await?).await
}
