//! Messages of one connection that its session, its senders and its groups send: each of them in its own order, whole,
//! and none lost, on several threads.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]

mod support;

use std::collections::HashMap;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use hythe::codec::LengthDelimited;
use hythe::{Bytes, Connection, Group, Limits, Overflow, Server};
use support::{mem, open, start, tcp, within};

const ROUNDS: u32 = 300;

fn numbered(who: &str, number: u32) -> Bytes {
    // of all lengths, so that buffers are cut everywhere
    let padding = "x".repeat(number as usize * 7919 % 3000);
    Bytes::from(format!("{who} {number} {padding}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_sends_what_they_send_stays_in_order() {
    for endpoint in [mem(), tcp()] {
        let server = Server::serve(|mut conn: Connection<Bytes>| async move {
            let group = Group::<Bytes>::new(Overflow::Disconnect);
            group.join(&conn);
            let mut tasks = Vec::new();
            for who in ["task", "thread", "group"] {
                let (sender, group) = (conn.sender(), group.clone());
                let work = async move {
                    for number in 0..ROUNDS {
                        match who {
                            "group" => {
                                group.send(numbered(who, number));
                            }
                            _ => drop(sender.send(numbered(who, number)).await),
                        }
                        if number % 16 == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                };
                tasks.push(match who {
                    "thread" => {
                        let runtime = tokio::runtime::Handle::current();
                        tokio::task::spawn_blocking(move || runtime.block_on(work))
                    }
                    _ => tokio::spawn(work),
                });
            }
            for number in 0..ROUNDS {
                // each way a session has: alone, in a set of futures, and through its own sender
                match number % 3 {
                    0 => conn.send(numbered("session", number)).await?,
                    1 => {
                        let mut set = FuturesUnordered::new();
                        set.push(conn.send(numbered("session", number)).boxed());
                        while let Some(sent) = set.next().await {
                            sent?;
                        }
                    }
                    _ => conn.sender().send(numbered("session", number)).await?,
                }
                if number % 50 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            for task in tasks {
                task.await?;
            }
            for number in ROUNDS..2 * ROUNDS {
                // nobody else is left
                match number % 2 {
                    0 => conn.send(numbered("session", number)).await?,
                    _ => conn.feed(numbered("session", number)).await?,
                }
            }
            Ok(())
        });
        // all of it, as the group would cut who is slow
        let limits = Limits::edge().with_outbox(16 << 20);
        let (_running, endpoint) = start(server.limits(limits), &endpoint, LengthDelimited::new()).await;
        let mut peers = Vec::new();
        for _ in 0..4 {
            peers.push(open::<_, Bytes>(&endpoint, LengthDelimited::new()).await);
        }
        let reads = peers.into_iter().map(|mut peer| async move {
            let mut next = HashMap::<String, u32>::new();
            while let Some(message) = peer.recv().await.expect("no error") {
                let text = std::str::from_utf8(&message).expect("text");
                let mut words = text.split(' ');
                let (who, number) = (words.next().expect("a name"), words.next().expect("a number"));
                let expected = next.entry(who.into()).or_default();
                assert_eq!(number.parse(), Ok(*expected), "of {who}");
                assert_eq!(message, numbered(who, *expected));
                *expected += 1;
            }
            next
        });
        let counts = within("all is read", futures::future::join_all(reads)).await;
        for count in counts {
            assert_eq!(count.get("session"), Some(&(2 * ROUNDS)));
            for who in ["task", "thread", "group"] {
                assert_eq!(count.get(who), Some(&ROUNDS), "{who}: {count:?}");
            }
        }
    }
}
