//! An echo server that can be watched: Prometheus finds what it counts, and the log tells what happens.
//!
//! Run it:
//!     cargo run --example metrics --features prometheus
//! or with endpoints of your own, that for Prometheus first:
//!     cargo run --example metrics --features prometheus tcp://127.0.0.1:9100 tcp://127.0.0.1:9000 udp://127.0.0.1:9000
//!
//! In another terminal:
//!     cargo run --example echo_client tcp://127.0.0.1:9000 hello
//!     curl http://127.0.0.1:9100/metrics
//!
//! For Prometheus (prometheus.yml):
//!     scrape_configs: [{ job_name: hythe, static_configs: [{ targets: ["127.0.0.1:9100"] }] }]
//! For Grafana there is examples/metrics_dashboard.json: Dashboards, New, Import.
//!
//! With LOG=debug the log tells more, with LOG=trace also the first 64 bytes of each read and write.

use hythe::codec::{Datagram, LengthDelimited};
use hythe::{BindOptions, Bytes, Connection, Endpoint, Handler, Server};

#[derive(Clone)]
struct Echo;

impl Handler for Echo {
    type In = Bytes;
    type Out = Bytes;

    async fn on_message(&mut self, conn: &mut Connection<Bytes>, message: Bytes) -> anyhow::Result<()> {
        conn.send(message).await?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let level: tracing::Level = std::env::var("LOG").as_deref().unwrap_or("info").parse()?;
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).init();

    let mut endpoints: Vec<String> = std::env::args().skip(1).collect();
    if endpoints.is_empty() {
        endpoints = ["tcp://127.0.0.1:9100", "tcp://127.0.0.1:9000", "udp://127.0.0.1:9000"].map(Into::into).into();
    }
    // first, so that it knows the servers from their beginning
    let metrics = hythe::metrics::prometheus(endpoints.remove(0).as_str()).await?;

    let mut server = Server::new(Echo);
    for endpoint in endpoints {
        let options = BindOptions::new().log_bytes(64);
        server = match endpoint.parse()? {
            udp @ Endpoint::Udp(_) => server.bind_with(udp, Datagram::new(), options),
            stream => server.bind_with(stream, LengthDelimited::new(), options),
        };
    }
    let running = server.start().await?;
    metrics.endpoints().iter().chain(running.endpoints()).for_each(|endpoint| println!("listening on {endpoint}"));
    running.until_signal().await?;
    Ok(())
}
