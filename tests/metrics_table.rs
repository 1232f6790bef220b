//! Every name of the documented table is told, with its kind and its labels, and no other; and the numbers are right.

#![cfg(all(feature = "prometheus", feature = "tcp", feature = "udp", feature = "unix"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod metrics_support;
mod support;

use std::collections::BTreeSet;

use hythe::codec::{Datagram, LengthDelimited};
use hythe::{AcceptFailure, Bytes, CloseReason, Connection, Endpoint, Limits, Overload, Refusal, Running, Server};
use metrics_support::{Scraped, documented, scrape};
use support::{Told, mem, open, open_raw, start, tcp, until, within};
use tokio::net::{TcpStream, UdpSocket};

async fn exporter() -> Running {
    hythe::metrics::prometheus("tcp://127.0.0.1:0").await.unwrap()
}

async fn ask(peer: &mut Connection<Bytes>, message: &'static str) {
    peer.send(message.into()).await.unwrap();
    assert_eq!(within("an answer", peer.recv()).await.unwrap().unwrap(), message);
}

/// A value of one listener.
fn at<'a>(endpoint: &'a Endpoint, scraped: &'a Scraped) -> impl Fn(&str, &[(&str, &str)]) -> f64 + 'a {
    let endpoint = endpoint.to_string();
    move |name, labels| {
        let labels: Vec<_> = labels.iter().copied().chain([("endpoint", &*endpoint)]).collect();
        scraped.value(name, &labels).unwrap_or_else(|| panic!("no {name} {labels:?}"))
    }
}

#[tokio::test]
async fn what_is_documented_is_told_and_nothing_else() {
    let exporter = exporter().await;
    let (told, _ends) = Told::new();
    let server = Server::new(told.echo()).bind(tcp().as_str(), LengthDelimited::new());
    let _running = server.bind("udp://127.0.0.1:0", Datagram::new()).start().await.unwrap();

    let scraped = scrape(&exporter).await;
    let documented = documented();
    let names = |all: &mut dyn Iterator<Item = &String>| all.cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&mut documented.keys()), names(&mut scraped.0.keys()));
    for (name, (kind, unit, labels)) in documented {
        let family = &scraped.0[&name];
        assert_eq!(family.kind, kind, "{name}");
        assert!(!family.help.is_empty(), "{name}");
        assert!(unit.is_empty() || name.contains(&unit), "{name} in {unit}");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        for (_, its, _) in &family.samples {
            let its: BTreeSet<_> = its.keys().filter(|label| *label != "le").cloned().collect();
            assert_eq!(its, labels, "{name}");
        }
    }
    let of = |label: &str| -> BTreeSet<String> {
        let samples = scraped.0.values().flat_map(|family| &family.samples);
        samples.filter_map(|(_, labels, _)| labels.get(label).cloned()).collect()
    };
    let refusals = Refusal::ALL.map(Refusal::as_str);
    let reasons: BTreeSet<_> = CloseReason::ALL.map(CloseReason::as_str).into_iter().chain(refusals).collect();
    assert_eq!(of("reason"), reasons.into_iter().map(String::from).collect());
    assert_eq!(of("class"), AcceptFailure::ALL.map(|class| class.as_str().to_owned()).into());
    assert_eq!(of("cause"), ["queue_full", "no_session", "send_error"].map(String::from).into());
}

#[tokio::test]
async fn a_connection_counts_while_it_is_open_and_once() {
    let exporter = exporter().await;
    let (told, _ends) = Told::new();
    let (running, endpoint) = start(Server::new(told.echo()), &tcp(), LengthDelimited::new()).await;
    let mut peer: Connection<Bytes> = open(&endpoint, LengthDelimited::new()).await;
    ask(&mut peer, "hello").await;
    ask(&mut peer, "world!").await;

    let scraped = scrape(&exporter).await;
    let value = at(&endpoint, &scraped);
    assert_eq!(value("hythe_connections_open", &[]), 1.0);
    assert_eq!(value("hythe_connections_accepted_total", &[]), 1.0);
    assert_eq!(value("hythe_connections_closed_total", &[]), 0.0);
    assert_eq!((value("hythe_messages_in_total", &[]), value("hythe_messages_out_total", &[])), (2.0, 2.0));
    assert_eq!((value("hythe_bytes_in_total", &[]), value("hythe_bytes_out_total", &[])), (19.0, 19.0));
    assert_eq!(value("hythe_message_handling_seconds_count", &[]), 1.0, "the first of 64");
    assert!(value("hythe_message_handling_seconds_sum", &[]) > 0.0);
    assert_eq!(value("hythe_message_handling_seconds_bucket", &[("le", "10")]), 1.0);
    let server = endpoint.to_string();
    assert_eq!(
        scraped.value("hythe_connections_limit", &[("server", &server)]),
        Some(running.limits().max_connections as f64)
    );
    assert_eq!(scraped.value("hythe_memory_limit_bytes", &[("server", &server)]), Some(running.limits().memory as f64));

    drop(peer);
    until("the end", || running.counters().open == 0).await;
    for _ in 0..2 {
        let scraped = scrape(&exporter).await;
        let value = at(&endpoint, &scraped);
        assert_eq!((value("hythe_messages_in_total", &[]), value("hythe_bytes_out_total", &[])), (2.0, 19.0));
        assert_eq!(value("hythe_connections_closed_total", &[("reason", "peer_closed")]), 1.0);
        assert_eq!(value("hythe_connections_open", &[]), 0.0);
    }
}

#[tokio::test]
async fn many_connections_that_come_and_go_under_scrapes_add_up() {
    let exporter = exporter().await;
    let (told, _ends) = Told::new();
    let (running, endpoint) = start(Server::new(told.echo()), &tcp(), LengthDelimited::new()).await;
    let mut last = 0.0;
    for _ in 0..20 {
        let work = async {
            for _ in 0..10 {
                let mut peer: Connection<Bytes> = open(&endpoint, LengthDelimited::new()).await;
                ask(&mut peer, "hello").await;
            }
        };
        let (_, scraped) = tokio::join!(work, scrape(&exporter));
        // the listener is there from the first look on
        let labels = [("endpoint", &*endpoint.to_string())];
        let now = scraped.value("hythe_bytes_in_total", &labels).unwrap();
        assert!(now >= last, "{now} after {last}");
        last = now;
    }
    until("all gone", || running.counters().open == 0).await;
    // also what was never seen while it was open, and after the server itself has gone
    drop(running);
    let scraped = scrape(&exporter).await;
    let value = at(&endpoint, &scraped);
    assert_eq!((value("hythe_bytes_in_total", &[]), value("hythe_bytes_out_total", &[])), (1800.0, 1800.0));
    assert_eq!((value("hythe_messages_in_total", &[]), value("hythe_connections_closed_total", &[])), (200.0, 200.0));
}

#[tokio::test]
async fn what_waits_and_who_works_is_told() {
    let exporter = exporter().await;
    let (told, _ends) = Told::<Bytes>::new();
    let told = told.on_message(|conn, message| {
        Box::pin(async move {
            if message == "work" {
                std::future::pending::<()>().await;
            }
            for _ in 0..100 {
                if conn.try_send(Bytes::from(vec![b'x'; 10_000])).is_err() {
                    break;
                }
            }
            Ok(())
        })
    });
    let (_running, endpoint) = start(Server::new(told), &mem(), LengthDelimited::new()).await;
    let mut works: Connection<Bytes> = open(&endpoint, LengthDelimited::new()).await;
    works.send("work".into()).await.unwrap();
    let mut slow: Connection<Bytes> = open(&endpoint, LengthDelimited::new()).await;
    slow.send("flood".into()).await.unwrap();
    let _idle = open_raw(&endpoint).await;
    for _ in 0..1000 {
        let scraped = scrape(&exporter).await;
        let value = at(&endpoint, &scraped);
        let (all, largest) = (value("hythe_outbox_bytes", &[]), value("hythe_outbox_largest_bytes", &[]));
        if value("hythe_connections_busy", &[]) == 1.0 && all > 500_000.0 && all == largest {
            assert_eq!(value("hythe_connections_open", &[]), 3.0);
            return;
        }
    }
    panic!("it was never told");
}

#[tokio::test]
async fn refusals_and_datagrams_are_told_by_cause() {
    let exporter = exporter().await;
    let (told, _ends) = Told::<Bytes>::new();
    let limits = Limits::edge().with_max_connections(1).with_overload(Overload::Reset).with_max_datagram(100);
    let limits = limits.with_udp_sessions(1);
    let server = Server::new(told.echo()).limits(limits).bind(tcp().as_str(), LengthDelimited::new());
    let running = server.bind("udp://127.0.0.1:0", Datagram::new()).start().await.unwrap();
    let [stream, datagrams] = [0, 1].map(|place| running.endpoints()[place].clone());
    let mut first: Connection<Bytes> = open(&stream, LengthDelimited::new()).await;
    ask(&mut first, "hello").await;
    // it may be reset before it knows that it was connected
    let _second = TcpStream::connect(stream.socket_addr().unwrap()).await;
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    udp.connect(datagrams.socket_addr().unwrap()).await.unwrap();
    udp.send(&[0; 101]).await.unwrap();
    // it answers to the answer, and its session has come to stay
    for _ in 0..2 {
        udp.send(b"hello").await.unwrap();
        within("an answer", udp.recv(&mut [0; 100])).await.unwrap();
    }
    let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    other.send_to(b"hello", datagrams.socket_addr().unwrap()).await.unwrap();
    until("all of it", || {
        let counters = running.counters();
        counters.refused(Refusal::Connections) == 1 && counters.datagrams_refused == 1
    })
    .await;

    let scraped = scrape(&exporter).await;
    let tcp = at(&stream, &scraped);
    assert_eq!(tcp("hythe_connections_refused_total", &[("reason", "connections")]), 1.0);
    assert_eq!(tcp("hythe_connections_refused_total", &[]), 1.0);
    let udp = at(&datagrams, &scraped);
    assert_eq!(udp("hythe_datagrams_truncated_total", &[]), 1.0);
    assert_eq!(udp("hythe_datagrams_dropped_total", &[("cause", "no_session")]), 1.0);
    assert_eq!(udp("hythe_datagrams_dropped_total", &[]), 1.0);
    assert_eq!((udp("hythe_udp_sessions", &[]), udp("hythe_connections_open", &[])), (1.0, 1.0));
}
