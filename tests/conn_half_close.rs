//! A connection ends in order: after the peer's end there is still an answer, a close and a drop send what waits, the
//! last reply is not lost to a reset; and an end that is out of order can be told from one that is not.

#![cfg(all(feature = "tcp", feature = "unix", feature = "testing"))]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use hythe::codec::LengthDelimited;
use hythe::testing::Harness;
use hythe::{Bytes, CloseReason, Connection, Endpoint, Limits, Running, Server};
use support::{SECOND, Told, frame, start, tcp, unframe, within};
use tokio::task::spawn_blocking;

/// More than the buffers on the way hold.
const LARGE: usize = 4 << 20;

/// A peer made of nothing but the standard library.
trait StdPeer: Read + Write + Send + 'static {
    fn end(&self);
    fn patience(&self, time: Duration);
}

impl StdPeer for TcpStream {
    fn end(&self) {
        self.shutdown(Shutdown::Write).expect("ended");
    }
    fn patience(&self, time: Duration) {
        self.set_read_timeout(Some(time)).expect("set");
    }
}

impl StdPeer for UnixStream {
    fn end(&self) {
        self.shutdown(Shutdown::Write).expect("ended");
    }
    fn patience(&self, time: Duration) {
        self.set_read_timeout(Some(time)).expect("set");
    }
}

fn std_tcp(endpoint: &Endpoint) -> TcpStream {
    let address = endpoint.to_string();
    TcpStream::connect(address.trim_start_matches("tcp://")).expect("a connection")
}

fn std_peer(endpoint: &Endpoint) -> Box<dyn StdPeer> {
    let text = endpoint.to_string();
    let peer: Box<dyn StdPeer> = match text.strip_prefix("unix://") {
        Some(path) => Box::new(UnixStream::connect(path).expect("a connection")),
        None => Box::new(std_tcp(endpoint)),
    };
    peer.patience(20 * SECOND);
    peer
}

/// Collects all messages, and answers when the peer has ended.
fn answer_at_the_end() -> Server<impl hythe::Session<In = Bytes, Out = Bytes>> {
    Server::serve(|mut conn: Connection<Bytes>| async move {
        let mut all = Vec::new();
        while let Some(message) = conn.recv().await? {
            all.push(message);
        }
        for message in all {
            conn.send(message).await?;
        }
        conn.send(Bytes::from(vec![b'x'; LARGE])).await?;
        Ok(())
    })
}

#[tokio::test]
async fn after_the_peers_end_every_reply_is_delivered() {
    let dir = tempfile::tempdir().expect("a directory");
    for endpoint in [tcp(), format!("unix://{}/s", dir.path().display())] {
        let codec = LengthDelimited::new().max_length(2 * LARGE);
        let (_running, endpoint) = start(answer_at_the_end(), &endpoint, codec).await;
        let mut peer = std_peer(&endpoint);
        let talk = move || {
            for number in 0..100u8 {
                peer.write_all(&frame(&[number; 50])).expect("sent");
            }
            peer.end();
            let mut all = Vec::new();
            peer.read_to_end(&mut all).map(|_| all)
        };
        let all = within("the replies", spawn_blocking(talk)).await.expect("no panic").expect("an orderly end");
        let (messages, rest) = unframe(&all);
        assert_eq!((messages.len(), rest), (101, &b""[..]));
        assert!((0..100u8).zip(&messages).all(|(number, message)| *message == [number; 50]));
        assert_eq!(messages[100].len(), LARGE);
    }
}

#[tokio::test]
async fn after_the_peers_end_send_still_works_in_memory() {
    let told = Told::<Bytes>::new().0.on_message(|conn, message| {
        Box::pin(async move {
            assert_eq!(conn.recv().await?, None, "the peer has ended");
            conn.send(message).await?;
            Ok(conn.flush().await?)
        })
    });
    let test = Harness::start(Server::new(told), LengthDelimited::new()).await;
    let mut peer = test.peer().await;
    peer.send("one").await;
    peer.half_close();
    assert_eq!(peer.recv().await, "one");
    let closed = peer.expect_end().await;
    assert_eq!((closed.reason, closed.bytes_out, closed.unsent_bytes), (CloseReason::PeerClosed, 7, 0), "{closed:?}");
    test.finish().await;
}

/// What a session does after it has sent the last reply.
#[derive(Clone, Copy, Debug)]
enum Last {
    Return,
    Close,
    DropAndGoOn,
    Fail,
    Panic,
}

/// A server that sends one large reply to the first message, whatever else the peer sent, and then ends somehow.
async fn last_reply(last: Last, endpoint: &str) -> (Running, Endpoint) {
    let server = Server::serve(move |mut conn: Connection<Bytes>| async move {
        let _ = conn.recv().await?;
        conn.send(Bytes::from(vec![b'x'; LARGE])).await?;
        match last {
            Last::Return => {}
            Last::Close => conn.close().await?,
            Last::DropAndGoOn => {
                drop(conn);
                tokio::time::sleep(5 * SECOND).await;
            }
            Last::Fail => anyhow::bail!("on purpose"),
            Last::Panic => panic!("on purpose"),
        }
        Ok(())
    });
    start(server, endpoint, LengthDelimited::new().max_length(LARGE)).await
}

/// As above, of a handler: it lets go of the connection after it has failed, not before.
async fn last_reply_of_a_handler(last: Last, endpoint: &str) -> (Running, Endpoint) {
    let (told, _) = Told::<Bytes>::new();
    let told = told.on_message(move |conn, _| {
        Box::pin(async move {
            conn.send(Bytes::from(vec![b'x'; LARGE])).await?;
            match last {
                Last::Return | Last::DropAndGoOn | Last::Close => conn.close().await?,
                Last::Fail => anyhow::bail!("on purpose"),
                Last::Panic => panic!("on purpose"),
            }
            Ok(())
        })
    });
    start(Server::new(told), endpoint, LengthDelimited::new().max_length(LARGE)).await
}

/// Sends a request and `more`, then reads to the end.
async fn request_and_more(endpoint: &Endpoint, more: usize) -> std::io::Result<Vec<u8>> {
    let mut peer = std_peer(endpoint);
    let talk = move || {
        peer.write_all(&frame(b"request"))?;
        peer.write_all(&frame(&vec![0; more]))?;
        let mut all = Vec::new();
        peer.read_to_end(&mut all).map(|_| all)
    };
    within("the reply", spawn_blocking(talk)).await.expect("no panic")
}

#[tokio::test]
async fn the_last_reply_is_delivered_though_the_peer_sent_more_than_was_read() {
    let dir = tempfile::tempdir().expect("a directory");
    for last in [Last::Return, Last::Close, Last::DropAndGoOn, Last::Fail, Last::Panic] {
        for endpoint in [tcp(), format!("unix://{}/s", dir.path().display())] {
            for handler in [false, true] {
                let (_running, endpoint) = match handler {
                    true => last_reply_of_a_handler(last, &endpoint).await,
                    false => last_reply(last, &endpoint).await,
                };
                let what = format!("{last:?}, handler: {handler}, {endpoint}");
                // as much as the kernel holds for a peer that writes everything before it reads
                let more = if endpoint.to_string().starts_with("tcp") { 600_000 } else { 100_000 };
                let all = request_and_more(&endpoint, more).await;
                let all = all.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(all.len(), LARGE + 4, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn a_refusal_is_delivered_though_the_peer_goes_on_sending() {
    let server = Server::serve(|mut conn: Connection<Bytes>| async move {
        let error = conn.recv().await.expect_err("too large");
        assert_eq!(error.close_reason(), Some(CloseReason::TooLarge));
        conn.send(Bytes::from(vec![b'x'; LARGE])).await?;
        Ok(())
    });
    let (_running, endpoint) = start(server, &tcp(), LengthDelimited::new().max_length(LARGE)).await;
    let mut peer = std_tcp(&endpoint);
    let talk = move || {
        // a claim of 1 GiB, and a part of it
        peer.write_all(&[0x40, 0, 0, 0])?;
        peer.write_all(&[0; 600_000])?;
        let mut all = Vec::new();
        peer.read_to_end(&mut all).map(|_| all)
    };
    let all = within("the refusal", spawn_blocking(talk)).await.expect("no panic").expect("no reset");
    assert_eq!(all.len(), LARGE + 4);
}

#[tokio::test]
async fn an_abort_is_a_reset_to_a_tcp_peer() {
    for by_sender in [false, true] {
        let (told, mut ends) = Told::<Bytes>::new();
        let told = told.on_message(move |conn, message| {
            Box::pin(async move {
                conn.send(message).await?;
                if by_sender {
                    conn.sender().abort()
                } else {
                    conn.abort()
                }
                Ok(())
            })
        });
        let (_running, endpoint) = start(Server::new(told), &tcp(), LengthDelimited::new()).await;
        let mut peer = std_tcp(&endpoint);
        peer.patience(20 * SECOND);
        let talk = move || {
            peer.write_all(&frame(b"request")).expect("sent");
            peer.read_to_end(&mut Vec::new())
        };
        let error = within("the reset", spawn_blocking(talk)).await.expect("no panic").expect_err("no orderly end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "by its sender: {by_sender}");
        let closed = within("the end", ends.recv()).await.expect("a connection");
        assert_eq!(closed.reason, CloseReason::Aborted);
    }
}

#[tokio::test]
async fn an_end_inside_a_message_is_no_orderly_end() {
    let (told, mut ends) = Told::<Bytes>::new();
    let (_running, endpoint) = start(Server::new(told.echo()), &tcp(), LengthDelimited::new()).await;
    let whole = frame(b"message");
    for cut in [0, 1, 4, 5, whole.len() - 1, whole.len()] {
        let mut peer = std_tcp(&endpoint);
        peer.write_all(&[&whole, &whole[..cut]].concat()).expect("sent");
        peer.end();
        let closed = within("the end", ends.recv()).await.expect("a connection");
        let orderly = cut == 0 || cut == whole.len();
        assert_eq!(
            closed.reason,
            if orderly { CloseReason::PeerClosed } else { CloseReason::Truncated },
            "{cut} bytes"
        );
        assert_eq!(closed.cause.is_none(), orderly);
        assert_eq!(closed.messages_in, 1 + u64::from(cut == whole.len()));
    }
}

#[tokio::test]
async fn a_reset_is_no_orderly_end() {
    let (told, mut ends) = Told::<Bytes>::new();
    let (_running, endpoint) = start(Server::new(told.echo()), &tcp(), LengthDelimited::new()).await;
    let peer = std_tcp(&endpoint);
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("set");
    drop(peer);
    let closed = within("the end", ends.recv()).await.expect("a connection");
    assert_eq!(closed.reason, CloseReason::PeerReset);
}

/// The linger is bounded: in time, and in what a peer can make us read.
#[tokio::test]
async fn a_peer_that_does_not_end_is_left_after_the_grace() {
    for (more, half_close, wanted) in [(0, 10, 2), (10, 10, 2), (10, 1, 1), (LARGE, 10, 0)] {
        let told = Told::<Bytes>::new().0.on_message(|conn, _| Box::pin(async move { Ok(conn.close().await?) }));
        let limits = Limits::edge().with_half_close(half_close * SECOND);
        let test = Harness::start(Server::new(told).limits(limits), LengthDelimited::new()).await;
        let mut peer = test.peer().await;
        // which does not read, and so does not know
        peer.stall();
        peer.send("request").await;
        peer.send_bytes(vec![0; more]).await;
        let closed = peer.closed().await;
        assert_eq!(closed.reason, CloseReason::Local);
        assert_eq!(closed.duration.as_secs(), wanted, "{more} bytes more, {half_close} s");
        test.finish().await;
    }
}
