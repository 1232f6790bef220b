//! The servers whose instructions are counted. Each runs alone in callgrind, on one thread.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use hythe::codec::{Codec, Datagram, LengthDelimited};
use hythe::{Connection, Group, Handler, Overflow, Server, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::callgrind::callgrind_mark;
use crate::plan::{Counted, Service};

/// Messages that were handled so far, and the two at which the count begins and ends.
static HANDLED: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Copy)]
struct Marks {
    begin: u64,
    end: u64,
}

impl Marks {
    fn handled(self) {
        let handled = HANDLED.fetch_add(1, Ordering::Relaxed) + 1;
        if handled == self.begin || handled == self.end {
            callgrind_mark();
        }
    }
}

/// Serves until standard input ends.
pub(crate) fn run(counted: &Counted) -> Result<()> {
    let marks = Marks { begin: counted.begin(), end: counted.end() };
    std::thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let endpoint = counted.endpoint;
        match counted.service {
            Service::Echo => hythe(Server::new(Echo { marks }), endpoint, LengthDelimited::new()).await,
            Service::Datagrams => hythe(Server::new(Echo { marks }), endpoint, Datagram::new()).await,
            Service::FanOut => {
                let member = Member { marks, group: Group::new(Overflow::Disconnect) };
                hythe(Server::new(member), endpoint, LengthDelimited::new()).await
            }
            Service::ByHand => by_hand(marks).await,
        }
    })
}

async fn hythe<S, C>(server: Server<S>, endpoint: &str, codec: C) -> Result<()>
where
    S: Session<In = Bytes, Out = Bytes>,
    C: Codec<Bytes, Bytes>,
{
    let running = server.bind(endpoint, codec).start().await?;
    ready(&running.endpoints().first().context("it listens nowhere")?.to_string())?;
    std::future::pending().await
}

fn ready(endpoint: &str) -> Result<()> {
    println!("{}", endpoint.rsplit('/').next().unwrap_or(endpoint));
    Ok(io::stdout().flush()?)
}

#[derive(Clone)]
struct Echo {
    marks: Marks,
}

impl Handler for Echo {
    type In = Bytes;
    type Out = Bytes;

    async fn on_message(&mut self, conn: &mut Connection<Bytes>, message: Bytes) -> Result<()> {
        self.marks.handled();
        conn.send(message).await?;
        Ok(())
    }
}

#[derive(Clone)]
struct Member {
    marks: Marks,
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
        self.marks.handled();
        self.group.send(message);
        Ok(())
    }
}

/// What one would write without hythe: a `Bytes` for each message, one write for all that a read brought.
async fn by_hand(marks: Marks) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    ready(&listener.local_addr()?.to_string())?;
    loop {
        tokio::spawn(echo_by_hand(listener.accept().await?.0, marks));
    }
}

async fn echo_by_hand(mut stream: TcpStream, marks: Marks) -> Result<()> {
    let (mut input, mut output) = (BytesMut::with_capacity(64 << 10), BytesMut::with_capacity(64 << 10));
    while stream.read_buf(&mut input).await? > 0 {
        while let Some(prefix) = input.first_chunk::<4>() {
            let length = u32::from_be_bytes(*prefix) as usize;
            anyhow::ensure!(length <= 1 << 20, "a message of {length} bytes");
            if input.len() < 4 + length {
                break;
            }
            input.advance(4);
            let message = input.split_to(length).freeze();
            marks.handled();
            output.put_u32(message.len() as u32);
            output.put_slice(&message);
        }
        stream.write_all(&output).await?;
        output.clear();
        input.reserve(64 << 10);
    }
    Ok(())
}
