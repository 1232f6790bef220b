//! A connection that is given up before everything was sent ends with a reset, whatever it ends for: to the peer, a part of
//! a reply and then an orderly end would be a whole one.

#![cfg(all(feature = "testing", feature = "tcp"))]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use hythe::codec::LengthDelimited;
use hythe::testing::Harness;
use hythe::{Bytes, CloseReason, Connection, Limits, Server, Session};
use support::{SECOND, frame, start, tcp, within};
use tokio::task::spawn_blocking;

#[derive(Clone, Copy, Debug)]
enum End {
    Return,
    Fail,
    Panic,
    Nonsense,
    Wait,
}

const ENDS: [End; 5] = [End::Return, End::Fail, End::Panic, End::Nonsense, End::Wait];

/// Answers the first message with `size` bytes, and ends somehow.
fn server(end: End, size: usize) -> Server<impl Session<In = Bytes, Out = Bytes>> {
    Server::serve(move |mut conn: Connection<Bytes>| async move {
        conn.recv().await?;
        conn.send(vec![7; size].into()).await?;
        match end {
            End::Return => {}
            End::Fail => anyhow::bail!("on purpose"),
            End::Panic => panic!("on purpose"),
            End::Nonsense | End::Wait => drop(conn.recv().await?),
        }
        Ok(())
    })
}

#[tokio::test]
async fn a_peer_that_reads_too_late_sees_a_reset() {
    for end in ENDS {
        let test = Harness::start(server(end, 300_000), LengthDelimited::new()).await;
        let mut peer = test.peer().await;
        peer.send("request").await;
        if matches!(end, End::Nonsense) {
            peer.send_bytes([0x7f, 0xff, 0xff, 0xff]).await;
        }
        tokio::time::sleep(100 * SECOND).await;
        assert_eq!(peer.recv_or_end().await, None, "{end:?}");
        let closed = peer.closed().await;
        let expected = match end {
            End::Fail => CloseReason::Handler,
            End::Panic => CloseReason::Panic,
            End::Nonsense => CloseReason::TooLarge,
            End::Return | End::Wait => CloseReason::WriteStalled,
        };
        assert_eq!((closed.reason, closed.duration.as_secs()), (expected, 30), "{end:?}");
        assert!(closed.unsent_bytes > 0, "{end:?}");
        test.finish().await;
    }
}

#[tokio::test]
async fn a_tcp_peer_that_reads_too_late_sees_a_reset() {
    const LARGE: usize = 16 << 20;
    for end in ENDS {
        let limits = Limits::edge().with_write_stall(Duration::from_millis(100)).with_half_close(SECOND);
        let codec = LengthDelimited::new().max_length(LARGE);
        let (running, endpoint) = start(server(end, LARGE).limits(limits), &tcp(), codec).await;
        let mut peer = TcpStream::connect(endpoint.to_string().trim_start_matches("tcp://")).expect("a connection");
        peer.write_all(&frame(b"request")).expect("sent");
        if matches!(end, End::Nonsense) {
            peer.write_all(&[0x7f, 0xff, 0xff, 0xff]).expect("sent");
        }
        support::until("it is given up", || running.counters().closed == 1).await;
        let read = spawn_blocking(move || peer.read_to_end(&mut Vec::new()));
        let error = within("the reset", read).await.expect("no panic").expect_err("no orderly end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{end:?}");
    }
}
