//! Large messages, which are written from where they are, arrive whole and in their place among small ones.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]

mod support;

use hythe::codec::LengthDelimited;
use hythe::{Bytes, Connection, Limits, Server};
use support::{Random, mem, open_raw, start, tcp, within};

/// Sizes around the one from which a message is not copied, and some that no socket takes at once.
const SIZES: [usize; 8] = [0, 1, 100, 8191, 8192, 10_000, 70_000, 300_000];

fn echo() -> Server<impl hythe::Session<In = Bytes, Out = Bytes>> {
    let server = Server::serve(|mut conn: Connection<Bytes>| async move {
        while let Some(message) = conn.recv().await? {
            conn.send(message).await?;
        }
        Ok(())
    });
    server.limits(Limits::edge().with_outbox(300_000))
}

#[tokio::test]
async fn messages_of_all_sizes_come_back_whole_and_in_their_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let unix = format!("unix://{}", dir.path().join("sock").display());
    for endpoint in [tcp(), unix, mem()] {
        let (running, endpoint) = start(echo(), &endpoint, LengthDelimited::new()).await;
        let mut client: Connection<Bytes> = open_raw(&endpoint).await;
        let mut random = Random::new(11);
        let mut wire = Vec::new();
        for number in 0..200_u32 {
            let message = vec![number as u8; SIZES[random.below(SIZES.len())]];
            wire.extend_from_slice(&support::frame(&message));
        }
        let mut sent = 0;
        let mut back: Vec<u8> = Vec::new();
        // what comes back is only read when there is a lot of it, or nothing left to send: the server's socket fills up
        while back.len() < wire.len() {
            if sent < wire.len() && sent - back.len() < 1_000_000 {
                let next = wire.len().min(sent + 1 + random.below(100_000));
                within("a send", client.send(Bytes::copy_from_slice(&wire[sent..next]))).await.expect("open");
                sent = next;
            } else {
                back.extend_from_slice(&within("an answer", client.recv()).await.expect("open").expect("bytes"));
            }
        }
        assert!(back == wire, "{endpoint}: other bytes came back");
        client.close().await.expect("an end in order");
        support::until("the end", || running.counters().open == 0).await;
        let counters = running.counters();
        assert_eq!((counters.bytes_in, counters.bytes_out), (wire.len() as u64, wire.len() as u64), "{endpoint}");
        assert_eq!((counters.messages_in, counters.messages_out), (200, 200), "{endpoint}");
    }
}
