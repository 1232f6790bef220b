//! Tells each peer who it is, also behind a proxy.
//!
//! ```text
//! cargo run --example whoami -- tcp://127.0.0.1:9000 --proxy 127.0.0.0/8
//! printf 'PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\nhello\n' | nc -N 127.0.0.1 9000
//! ```
//!
//! With `--proxy` every connection must begin with a PROXY header, version 1 or 2, and come from one of those networks;
//! nginx sends one with `proxy_protocol on`, HAProxy with `send-proxy` or `send-proxy-v2`.

use hythe::codec::Lines;
use hythe::proxy::ProxyProtocol;
use hythe::{BindOptions, Connection, Peer, Server};

fn describe(peer: &Peer) -> String {
    let mut text = format!("you are {peer}");
    if let Some(proxied) = peer.proxied() {
        text += &format!(", through a proxy that speaks version {}", proxied.version());
        if let Some(name) = proxied.authority() {
            text += &format!(", asked for {name:?}");
        }
        if let Some(id) = proxied.unique_id() {
            text += &format!(", with the id \"{}\"", id.escape_ascii());
        }
        if proxied.has_checksum() {
            text += ", with a checksum";
        }
        if let Some(tls) = proxied.tls().filter(|tls| tls.is_tls()) {
            text += &format!(", over {} with {}", tls.version().unwrap_or("?"), tls.cipher().unwrap_or("?"));
        }
    }
    text
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut options = BindOptions::new();
    let mut endpoints = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--proxy" {
            let networks = args.next().unwrap_or_default();
            options = options.proxy_protocol(ProxyProtocol::required_from(networks.split(','))?.trust_local(true));
        } else {
            endpoints.push(arg);
        }
    }
    let mut server = Server::serve(|mut conn: Connection<String>| async move {
        while conn.recv().await?.is_some() {
            let text = describe(conn.peer());
            conn.send(text).await?;
        }
        Ok(())
    });
    for endpoint in &endpoints {
        server = server.bind_with(endpoint.as_str(), Lines::new(), options.clone());
    }
    let running = server.start().await?;
    for endpoint in running.endpoints() {
        println!("listening on {endpoint}");
    }
    running.until_signal().await?;
    Ok(())
}
