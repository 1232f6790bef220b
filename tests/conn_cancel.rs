//! `recv` and `send` may be dropped at any await, as `select!` does: no message is lost, doubled or torn, on either
//! end of a connection, whoever else sends on it, however small the outbox and however the bytes are cut.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]

mod support;

use bytes::BufMut;
use futures::FutureExt;
use hythe::codec::{LengthDelimited, Raw};
use hythe::{BindOptions, Bytes, BytesMut, Connection, Limits, Sender, Server};
use support::{Random, frame, mem, open_with, poll_at_most, tcp, unframe, within};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::yield_now;

/// Messages of each sender in each case.
const COUNT: usize = 60;
const CASES: u64 = 25;

/// Who sent a message, which one it is, and bytes that no other message has at the same place.
fn message(source: u8, index: usize, random: &mut Random) -> Bytes {
    let mut message = BytesMut::new();
    message.put_u8(source);
    message.put_u32(u32::try_from(index).expect("few messages"));
    for at in 0..random.length() {
        message.put_u8((at + 7 * index) as u8);
    }
    message.freeze()
}

fn messages(source: u8, seed: u64) -> Vec<Bytes> {
    let mut random = Random::new(seed ^ u64::from(source) << 32);
    (0..COUNT).map(|index| message(source, index, &mut random)).collect()
}

/// The sources of messages: the raw peer, and on the tested side the connection's owner and a sender elsewhere.
const PEER: u8 = 1;
const OWNER: u8 = 2;
const ELSEWHERE: u8 = 3;

/// Receives what the peer sends, and sends, with futures that are dropped after a few polls.
async fn tested(mut conn: Connection<Bytes>, seed: u64) -> anyhow::Result<()> {
    let mut random = Random::new(seed);
    let elsewhere = tokio::spawn(send_elsewhere(conn.sender(), seed));
    let (outgoing, mut sent) = (messages(OWNER, seed), 0);
    let (expected, mut received) = (messages(PEER, seed), Vec::new());
    while sent < outgoing.len() || received.len() < expected.len() {
        let next = outgoing.get(sent).cloned();
        let times = 1 + random.below(3) as u32;
        let wanting = received.len() < expected.len();
        match (random.below(5), next) {
            (0, _) if wanting => {
                let message = poll_at_most(times, conn.recv()).await.transpose()?;
                received.extend(message.map(|message| message.expect("the peer has not ended")));
            }
            (1, _) if wanting => {
                let message = conn.recv().now_or_never().transpose()?;
                received.extend(message.map(|message| message.expect("the peer has not ended")));
            }
            (2, Some(next)) => sent += usize::from(poll_at_most(times, conn.send(next)).await.transpose()?.is_some()),
            (3, Some(next)) => sent += usize::from(poll_at_most(times, conn.feed(next)).await.transpose()?.is_some()),
            _ => tokio::select! {
                biased;
                message = conn.recv(), if wanting => {
                    received.push(message?.expect("the peer has not ended"));
                }
                () = yield_some(times) => {}
            },
        }
        if random.below(3) == 0 {
            yield_now().await;
        }
    }
    anyhow::ensure!(received == expected, "received other messages than were sent");
    elsewhere.await??;
    Ok(conn.close().await?)
}

async fn send_elsewhere(sender: Sender<Bytes>, seed: u64) -> anyhow::Result<()> {
    let mut random = Random::new(seed + 1);
    for message in messages(ELSEWHERE, seed) {
        let times = |random: &mut Random| 1 + random.below(3) as u32;
        while poll_at_most(times(&mut random), sender.send(message.clone())).await.transpose()?.is_none() {
            yield_now().await;
        }
    }
    Ok(())
}

async fn yield_some(times: u32) {
    for _ in 0..times {
        yield_now().await;
    }
}

/// Sends the peer's messages in chunks of any size, and reads slowly: everything up to the end.
async fn raw(mut conn: Connection<Bytes>, seed: u64) -> anyhow::Result<Vec<u8>> {
    let sender = conn.sender();
    let writer = tokio::spawn(async move {
        let mut random = Random::new(seed + 2);
        let mut wire = Bytes::from_iter(messages(PEER, seed).iter().flat_map(|message| frame(message)));
        while !wire.is_empty() {
            let size = (1 + random.length()).min(wire.len());
            sender.send(wire.split_to(size)).await?;
            yield_some(random.below(4) as u32).await;
        }
        anyhow::Ok(())
    });
    let mut random = Random::new(seed + 3);
    let mut wire = Vec::new();
    while let Some(bytes) = conn.recv().await? {
        wire.extend_from_slice(&bytes);
        yield_some(random.below(20) as u32).await;
    }
    writer.await??;
    Ok(wire)
}

/// What the tested side sent is all there, each sender's messages in their order.
fn check(wire: &[u8], seed: u64) -> anyhow::Result<()> {
    let (received, rest) = unframe(wire);
    anyhow::ensure!(rest.is_empty(), "{} bytes of a torn message", rest.len());
    for source in [OWNER, ELSEWHERE] {
        let of_source: Vec<_> = received.iter().filter(|message| message[0] == source).collect();
        anyhow::ensure!(of_source == messages(source, seed).iter().collect::<Vec<_>>(), "messages of {source} differ");
    }
    anyhow::ensure!(received.len() == 2 * COUNT, "{} messages arrived of {}", received.len(), 2 * COUNT);
    Ok(())
}

async fn report<T>(to: UnboundedSender<anyhow::Result<T>>, result: anyhow::Result<T>) -> anyhow::Result<()> {
    let _ = to.send(result);
    Ok(())
}

/// Small buffers in the kernel, so that a write is refused now and then.
fn small_buffers() -> BindOptions {
    BindOptions::new().send_buffer(4096).receive_buffer(4096)
}

fn limits(seed: u64) -> Limits {
    Limits::edge().with_outbox([1, 50, 500, 5_000, 100_000][(seed % 5) as usize])
}

async fn server_side(endpoint: String, seed: u64) -> anyhow::Result<()> {
    let (to, mut results) = unbounded_channel();
    let server = Server::serve(move |conn: Connection<Bytes>| {
        let to = to.clone();
        async move { report(to, tested(conn, seed).await).await }
    });
    let running = server
        .limits(limits(seed))
        .bind_with(endpoint.as_str(), LengthDelimited::new(), small_buffers())
        .start()
        .await?;
    let peer = open_with(&running.endpoints()[0], Raw::new(), Limits::edge()).await;
    let wire = raw(peer, seed).await?;
    results.recv().await.expect("a result of the session")?;
    check(&wire, seed)
}

async fn client_side(endpoint: String, seed: u64) -> anyhow::Result<()> {
    let (to, mut results) = unbounded_channel();
    let server = Server::serve(move |conn: Connection<Bytes>| {
        let to = to.clone();
        async move { report(to, raw(conn, seed).await).await }
    });
    let running = server.bind_with(endpoint.as_str(), Raw::new(), small_buffers()).start().await?;
    let conn = open_with(&running.endpoints()[0], LengthDelimited::new(), limits(seed)).await;
    tested(conn, seed).await?;
    let wire = results.recv().await.expect("a result of the session")?;
    check(&wire, seed)
}

async fn each_case<F: Future<Output = anyhow::Result<()>>>(case: impl Fn(u64) -> F) {
    for seed in 1..=CASES {
        if let Err(error) = within(&format!("case {seed}"), case(seed)).await {
            panic!("case {seed}: {error:#}");
        }
    }
}

#[tokio::test]
async fn a_server_connection_in_memory_loses_doubles_and_tears_nothing() {
    each_case(|seed| server_side(mem(), seed)).await;
}

#[tokio::test]
async fn a_client_connection_in_memory_loses_doubles_and_tears_nothing() {
    each_case(|seed| client_side(mem(), seed)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_connection_on_tcp_loses_doubles_and_tears_nothing() {
    each_case(|seed| server_side(tcp(), seed)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_connection_on_tcp_loses_doubles_and_tears_nothing() {
    each_case(|seed| client_side(tcp(), seed)).await;
}
