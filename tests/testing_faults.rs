//! Faults do what they say, the same ones each time, and a handler survives all of them.

#![cfg(feature = "testing")]

mod testing_support;

use std::time::Duration;

use hythe::codec::{Delimited, LengthDelimited, Lines, Raw};
use hythe::testing::{Faults, Harness, with_faults};
use hythe::{Bytes, CloseReason, Closed, Connection, Server};
use testing_support::{failure, shout};
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// The sizes of the reads that 1000 bytes come in.
async fn sizes_with(faults: Faults) -> Vec<usize> {
    let server = Server::serve(|mut conn: Connection<Bytes>| async move {
        while let Some(bytes) = conn.recv().await? {
            conn.send(format!("{}\n", bytes.len()).into()).await?;
        }
        Ok(())
    });
    let test = Harness::start_with(server, Raw::new(), Delimited::new("\n")).await;
    let mut peer = test.faulty_peer(&faults).await;
    peer.send_bytes([7; 1000]).await;
    peer.half_close();
    let sizes = peer.rest().await;
    test.finish().await;
    sizes.iter().map(|size| std::str::from_utf8(size).expect("text").parse().expect("a number")).collect()
}

#[tokio::test]
async fn short_reads_are_short_and_lose_nothing() {
    assert_eq!(sizes_with(Faults::none()).await.len(), 1);
    let sizes = sizes_with(Faults::none().short_reads(7)).await;
    assert_eq!(sizes.iter().sum::<usize>(), 1000);
    assert!((1..=7).all(|size| sizes.contains(&size)), "{sizes:?}");
    assert!(sizes.iter().all(|size| (1..=7).contains(size)), "{sizes:?}");
    assert_eq!(sizes_with(Faults::none().short_reads(1)).await.len(), 1000);
}

#[tokio::test]
async fn a_delay_is_within_its_bound_and_what_was_sent_together_arrives_together() {
    let test = Harness::start(shout(), Lines::new()).await;
    let mut peer = test.faulty_peer(&Faults::none().short_reads(1).delay(SECOND)).await;
    let mut delays = Vec::new();
    for _ in 0..40 {
        let sent = Instant::now();
        peer.send("one").await;
        peer.send("two").await;
        assert_eq!(peer.recv().await, "ONE");
        let delay = sent.elapsed();
        assert_eq!(peer.recv().await, "TWO");
        assert_eq!(sent.elapsed(), delay);
        delays.push(delay.as_millis());
    }
    assert!(delays.iter().all(|delay| *delay <= 1001), "{delays:?}");
    for part in [0..250, 250..500, 500..750, 750..1002] {
        assert!(delays.iter().any(|delay| part.contains(delay)), "{delays:?}");
    }
    test.finish().await;
}

/// How a conversation of ten messages with [`shout`] goes: the answers, when each came, and the end.
async fn ten(faults: &Faults) -> (Vec<String>, Vec<u64>, Closed) {
    let test = Harness::start(shout(), Lines::new()).await;
    let started = Instant::now();
    let mut peer = test.faulty_peer(faults).await;
    let (mut answers, mut times) = (Vec::new(), Vec::new());
    for number in 0..10 {
        peer.send(format!("message {number}")).await;
    }
    while let Some(answer) = peer.recv_or_end().await {
        answers.push(answer);
        times.push(started.elapsed().as_secs());
        if answers.len() == 10 {
            peer.half_close();
        }
    }
    let closed = peer.closed().await;
    test.finish().await;
    (answers, times, closed)
}

#[tokio::test]
async fn each_fault_does_what_it_says() {
    // a message is 10 bytes on the wire
    let (answers, times, closed) = ten(&Faults::none().short_writes(3)).await;
    assert_eq!((answers.len(), times[9], closed.reason), (10, 0, CloseReason::PeerClosed));

    let (answers, times, closed) = ten(&Faults::none().stall(45, 20 * SECOND)).await;
    assert_eq!((answers.len(), closed.reason), (10, CloseReason::PeerClosed));
    assert_eq!(times, [0, 0, 0, 0, 20, 20, 20, 20, 20, 20]);

    let (answers, _, closed) = ten(&Faults::none().zero_window(45)).await;
    assert_eq!((answers.len(), closed.reason), (4, CloseReason::WriteStalled));
    assert_eq!((closed.bytes_out, closed.unsent_bytes, closed.duration.as_secs()), (45, 55, 30));

    let (answers, _, closed) = ten(&Faults::none().half_close(50)).await;
    assert_eq!((answers.len(), closed.reason, closed.bytes_in), (5, CloseReason::PeerClosed, 50));

    // what is on its way is lost
    let (answers, _, closed) = ten(&Faults::none().reset(45)).await;
    assert_eq!((answers.len(), closed.reason, closed.bytes_in), (0, CloseReason::PeerReset, 45));
    let (_, _, closed) = ten(&Faults::none().reset(145)).await;
    assert_eq!((closed.reason, closed.bytes_in + closed.bytes_out), (CloseReason::PeerReset, 145));

    let test = Harness::start(shout(), Lines::new()).await;
    let mut peer = test.faulty_peer(&Faults::none().stall(2, 40 * SECOND)).await;
    peer.send("hello").await;
    assert_eq!(peer.recv_bytes(2).await, "HE");
    let closed = peer.closed().await;
    assert_eq!((closed.reason, closed.duration.as_secs()), (CloseReason::WriteStalled, 30), "a stall that is too long");
    test.finish().await;
}

#[tokio::test]
async fn a_seed_says_everything() {
    for seed in 1..40 {
        let faults = Faults::from_seed(seed);
        assert_eq!(faults, Faults::from_seed(seed));
        let (answers, times, closed) = ten(&faults).await;
        for _ in 0..2 {
            let (again, times_again, closed_again) = ten(&faults).await;
            assert_eq!((&again, &times_again), (&answers, &times), "{faults}");
            let totals = |closed: &Closed| (closed.reason, closed.bytes_in, closed.bytes_out, closed.messages_out);
            assert_eq!(totals(&closed_again), totals(&closed), "{faults}");
        }
    }
}

#[test]
fn the_seeds_bring_faults_of_every_kind() {
    let texts: Vec<_> = (1..400).map(|seed| Faults::from_seed(seed).to_string()).collect();
    for (part, least) in [
        ("reads of", 100),
        ("writes of", 100),
        ("late", 80),
        ("nothing is taken for", 50),
        ("nothing is taken any more", 10),
        ("the peer's end after", 30),
        ("a reset after", 50),
    ] {
        let count = texts.iter().filter(|text| text.contains(part)).count();
        assert!(count >= least, "{part}: {count} of {}", texts.len());
    }
    let none = texts.iter().filter(|text| text.split("; ").count() == 1).count();
    assert!((10..80).contains(&none), "{none} without any");
    let end_it = (1..400).filter(|seed| Faults::from_seed(*seed).end_it()).count();
    assert!((120..200).contains(&end_it), "{end_it} end it");
}

/// In any weather: what comes is right, in order, and whole; it is everything, unless a fault ends it; and nothing is
/// left.
#[tokio::test]
async fn an_echo_survives_every_weather() {
    let echo = || {
        Server::serve(|mut conn: Connection<Bytes>| async move {
            while let Some(message) = conn.recv().await? {
                conn.send(message).await?;
            }
            Ok(())
        })
    };
    let mut ends = std::collections::HashMap::new();
    let count = std::cell::RefCell::new(&mut ends);
    with_faults(1..300, async |faults| {
        let test = Harness::start(echo(), LengthDelimited::new()).await;
        let mut peer = test.faulty_peer(&faults).await;
        let sent: Vec<_> = (0..20).map(|number| Bytes::from(vec![number; usize::from(number) * 37 % 200])).collect();
        for message in &sent {
            peer.send(message.clone()).await;
        }
        peer.half_close();
        let received = peer.rest().await;
        assert!(sent.starts_with(&received), "{received:?}");
        assert!(received == sent || faults.end_it(), "{} of 20 came", received.len());
        let closed = peer.closed().await;
        *count.borrow_mut().entry(closed.reason).or_insert(0) += 1;
        // others do not notice
        let mut healthy = test.peer().await;
        healthy.send("hello").await;
        assert_eq!(healthy.recv().await, "hello");
        test.finish().await;
    })
    .await;
    for reason in
        [CloseReason::PeerClosed, CloseReason::PeerReset, CloseReason::HalfCloseTimeout, CloseReason::Truncated]
    {
        assert!(ends.contains_key(&reason), "{ends:?}");
    }
    assert_eq!(ends.len(), 4, "{ends:?}");
}

#[tokio::test]
async fn a_test_that_fails_in_some_weather_fails() {
    let tried = std::cell::Cell::new(0);
    let text = failure(with_faults(1..300, async |faults| {
        tried.set(faults.seed());
        assert!(!faults.end_it(), "on purpose");
    }))
    .await;
    assert_eq!(text, "on purpose");
    assert!(Faults::from_seed(tried.get()).end_it());
    assert!((1..tried.get()).all(|seed| !Faults::from_seed(seed).end_it()));
}
