//! An echo server for lines, encrypted: from the first byte, and on request after `STARTTLS`.
//!
//! Make a certificate, and run it:
//!     openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost \
//!         -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE \
//!         -keyout key.pem -out chain.pem
//!     cargo run --features tls --example tls chain.pem key.pem
//! or with endpoints of your own, and with clients that must have a certificate of an authority:
//!     cargo run --features tls --example tls chain.pem key.pem --clients ca.pem tls://127.0.0.1:9443 tcp://127.0.0.1:9025
//!
//! In another terminal:
//!     openssl s_client -quiet -CAfile chain.pem -connect localhost:9443
//! On the other port the same, after a line that is `STARTTLS`. The files are watched: put new ones in their place, and
//! the next client gets them.

use std::time::Duration;

use anyhow::Context;
use hythe::codec::Lines;
use hythe::tls::{Pem, ServerTls};
use hythe::{BindOptions, Connection, Endpoint, Handler, Server};

#[derive(Clone)]
struct Echo {
    tls: ServerTls,
}

impl Handler for Echo {
    type In = String;
    type Out = String;

    async fn on_message(&mut self, conn: &mut Connection<String>, line: String) -> anyhow::Result<()> {
        match (line.as_str(), conn.peer().tls()) {
            ("STARTTLS", None) => {
                conn.send("go ahead".into()).await?;
                conn.start_tls(&self.tls).await?;
            }
            ("WHO", Some(info)) => {
                let certificates = info.peer_certificates().len();
                let name = info.server_name().unwrap_or("-");
                let text = format!("{} {} {name} {certificates}", info.version(), info.cipher_suite());
                conn.send(text).await?;
            }
            _ => conn.send(line).await?,
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    let usage = "usage: tls CHAIN KEY [--clients CA] [ENDPOINT…]";
    let (chain, key) = (arguments.next().context(usage)?, arguments.next().context(usage)?);
    let mut tls = ServerTls::from_pem_files(chain, key);
    if arguments.next_if(|argument| argument == "--clients").is_some() {
        tls = tls.client_auth_required(Pem::file(arguments.next().context(usage)?));
    }
    let tls = tls.build()?;
    tls.watch(Duration::from_secs(1))?;

    let mut endpoints: Vec<String> = arguments.collect();
    if endpoints.is_empty() {
        endpoints = ["tls://127.0.0.1:9443", "tcp://127.0.0.1:9025"].map(Into::into).into();
    }
    let mut server = Server::new(Echo { tls: tls.clone() });
    for endpoint in endpoints {
        server = match endpoint.parse()? {
            encrypted @ Endpoint::Tls(_) => {
                server.bind_with(encrypted, Lines::new(), BindOptions::new().tls(tls.clone()))
            }
            clear => server.bind(clear, Lines::new()),
        };
    }
    let running = server.start().await?;
    running.endpoints().iter().for_each(|endpoint| println!("listening on {endpoint}"));
    running.until_signal().await?;
    Ok(())
}
