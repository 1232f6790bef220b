//! An echo server: one handler on TCP, UDP and a Unix socket.
//!
//! Run it:
//!     cargo run --example echo
//! or with endpoints of your own:
//!     cargo run --example echo tcp://127.0.0.1:9000 udp://127.0.0.1:9000 unix:///tmp/echo.sock
//!
//! On TCP and Unix sockets a message is preceded by its length, four bytes, big-endian; on UDP it is a datagram.
//! In another terminal:
//!     cargo run --example echo_client tcp://127.0.0.1:9000 hello
//!     printf '\0\0\0\5hello' | nc -N 127.0.0.1 9000 | xxd
//!     python3 -c 'import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.sendto(b"hello", ("127.0.0.1", 9000)); print(s.recv(100))'

use hythe::codec::{Datagram, LengthDelimited};
use hythe::{Bytes, Connection, Endpoint, Handler, Server};

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
    let mut endpoints: Vec<String> = std::env::args().skip(1).collect();
    if endpoints.is_empty() {
        endpoints = ["tcp://127.0.0.1:9000", "udp://127.0.0.1:9000", "unix:///tmp/echo.sock"].map(Into::into).into();
    }
    let mut server = Server::new(Echo);
    for endpoint in endpoints {
        server = match endpoint.parse()? {
            udp @ Endpoint::Udp(_) => server.bind(udp, Datagram::new()),
            stream => server.bind(stream, LengthDelimited::new()),
        };
    }
    let running = server.start().await?;
    running.endpoints().iter().for_each(|endpoint| println!("listening on {endpoint}"));
    running.until_signal().await?;
    Ok(())
}
