//! hythe's servers.

use std::path::Path;

use anyhow::{Result, bail};
use bytes::Bytes;
use hythe::codec::{Codec, Datagram, Frames, LengthDelimited};
use hythe::{BindOptions, Connection, Group, Handler, Limits, Overflow, Server, Session};

use super::ready;
use crate::plan::{Service, Transport};

pub(super) async fn run(service: Service, transport: Transport, socket: &Path) -> Result<()> {
    match (service, transport) {
        (Service::Echo, Transport::Udp) => serve(Server::new(Echo), Datagram::new(), transport, socket).await,
        (Service::Echo, _) => serve(Server::new(Echo), LengthDelimited::new(), transport, socket).await,
        (Service::FanOut, _) => {
            let member = Member { group: Group::new(Overflow::Disconnect) };
            serve(Server::new(member), LengthDelimited::new(), transport, socket).await
        }
    }
}

/// The echo by the other door.
pub(super) async fn batched(transport: Transport, socket: &Path) -> Result<()> {
    serve(Server::new(Batches), LengthDelimited::new().batched(), transport, socket).await
}

#[derive(Clone)]
struct Batches;

impl Handler for Batches {
    type In = Frames;
    type Out = Frames;

    async fn on_message(&mut self, conn: &mut Connection<Frames>, messages: Frames) -> Result<()> {
        // one by one, as a handler that looks at them would answer
        conn.send(messages.iter().collect()).await?;
        Ok(())
    }
}

#[derive(Clone)]
struct Echo;

impl Handler for Echo {
    type In = Bytes;
    type Out = Bytes;

    async fn on_message(&mut self, conn: &mut Connection<Bytes>, message: Bytes) -> Result<()> {
        conn.send(message).await?;
        Ok(())
    }
}

#[derive(Clone)]
struct Member {
    group: Group<Bytes>,
}

impl Handler for Member {
    type In = Bytes;
    type Out = Bytes;

    async fn on_open(&mut self, conn: &mut Connection<Bytes>) -> Result<()> {
        self.group.join(conn);
        Ok(())
    }

    async fn on_message(&mut self, _: &mut Connection<Bytes>, message: Bytes) -> Result<()> {
        self.group.send(message);
        Ok(())
    }
}

async fn serve<S, C>(server: Server<S>, codec: C, transport: Transport, socket: &Path) -> Result<()>
where
    S: Session,
    C: Codec<S::In, S::Out>,
{
    let endpoint = match transport {
        Transport::Tcp => "tcp://127.0.0.1:0".to_owned(),
        Transport::Udp => "udp://127.0.0.1:0".to_owned(),
        Transport::Tls => "tls://127.0.0.1:0".to_owned(),
        Transport::Unix => format!("unix://{}", socket.display()),
    };
    // the defaults, but for the number of connections
    let limits = Limits::edge().with_max_connections(20_000);
    let options = BindOptions::new();
    #[cfg(feature = "tls")]
    let options = if transport == Transport::Tls { options.tls(super::tls::hythe(socket)?) } else { options };
    let running = server.limits(limits).bind_with(endpoint.as_str(), codec, options).start().await?;
    let Some(endpoint) = running.endpoints().first().map(ToString::to_string) else { bail!("it listens nowhere") };
    ready(endpoint.split_once("://").map_or("", |(_, address)| address))?;
    std::future::pending().await
}
