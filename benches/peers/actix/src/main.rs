//! actix-server. It gives a service the stream and nothing more, so that this is the hand-written loop in its worker.

use actix_rt::net::{TcpStream, UnixStream};
use actix_server::Server;
use actix_service::fn_service;
use bytes::{Buf, BytesMut};
use common::{Task, whole_frames};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const READ: usize = 64 << 10;

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut input = BytesMut::with_capacity(READ);
    let mut output = BytesMut::with_capacity(READ);
    while stream.read_buf(&mut input).await? > 0 {
        let whole = whole_frames(&input).ok_or(std::io::ErrorKind::InvalidData)?;
        output.extend_from_slice(&input[..whole]);
        input.advance(whole);
        stream.write_all(&output).await?;
        output.clear();
        input.reserve(READ);
    }
    Ok(())
}

#[actix_rt::main]
async fn main() -> std::io::Result<()> {
    let task = Task::from_args();
    let server = Server::build().workers(1).max_concurrent_connections(20_000).disable_signals();
    let listener = task.listener()?;
    let server = if task.mode == "unix" {
        server.listen_uds("echo", listener.into(), || fn_service(|stream: UnixStream| echo(stream)))?
    } else {
        let service = || {
            fn_service(async |stream: TcpStream| {
                stream.set_nodelay(true)?;
                echo(stream).await
            })
        };
        server.listen("echo", listener.into(), service)?
    };
    server.run().await
}
