//! Flush on wait: what a session sends leaves in one write when it waits, for whatever that is; and `batch` does the
//! same elsewhere. A peer of the standard library looks whether there is anything to read yet: on a Unix socket a
//! write has arrived when it returns.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use hythe::codec::{LengthDelimited, Lines};
use hythe::{Bytes, Connection, Endpoint, Group, Overflow, Running, Sender, Server};
use support::{Told, frame, mem, open, start, unframe, within};
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{Notify, oneshot};

const PIPELINED: usize = 64;

/// A peer that several look at.
#[derive(Clone)]
struct Peer(Arc<Mutex<UnixStream>>);

impl Peer {
    fn connect(endpoint: &Endpoint) -> Self {
        let text = endpoint.to_string();
        let stream = UnixStream::connect(text.strip_prefix("unix://").expect("a path")).expect("a connection");
        stream.set_nonblocking(true).expect("set");
        Self(Arc::new(Mutex::new(stream)))
    }

    fn write(&self, bytes: &[u8]) {
        self.0.lock().expect("no panic").write_all(bytes).expect("sent");
    }

    /// What has arrived by now.
    fn arrived(&self) -> Vec<u8> {
        let mut buffer = vec![0; 1 << 16];
        match self.0.lock().expect("no panic").read(&mut buffer) {
            Ok(read) => buffer[..read].to_vec(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    }

    fn messages(&self) -> usize {
        let arrived = self.arrived();
        let (messages, rest) = unframe(&arrived);
        assert!(rest.is_empty(), "torn");
        messages.len()
    }
}

fn socket() -> (TempDir, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let endpoint = format!("unix://{}/s", dir.path().display());
    (dir, endpoint)
}

/// Counts in how many bursts the replies leave, and how many of them before the handler waits.
#[tokio::test]
async fn pipelined_requests_are_answered_in_one_write() {
    let (_dir, endpoint) = socket();
    let (to, mut early) = unbounded_channel();
    let peer: Arc<Mutex<Option<Peer>>> = Arc::default();
    let (watched, _ends) = Told::<Bytes>::new();
    let seen = Arc::clone(&peer);
    let told = watched.on_message(move |conn, message| {
        let peer = seen.lock().expect("no panic").clone();
        let to = to.clone();
        Box::pin(async move {
            conn.send(message).await?;
            let _ = to.send(peer.expect("connected").arrived().len());
            Ok(())
        })
    });
    let (_running, endpoint) = start(Server::new(told), &endpoint, LengthDelimited::new()).await;
    let raw = Peer::connect(&endpoint);
    *peer.lock().expect("no panic") = Some(raw.clone());
    // one write of the peer is one read of ours
    raw.write(&frame(b"request").repeat(PIPELINED));
    for number in 0..PIPELINED {
        let bytes = within("a request", early.recv()).await.expect("a look");
        assert_eq!(bytes, 0, "reply {number} left, or one before it, while there were more requests to handle");
    }
    // on this thread the session's turn is over, so all of it has gone, in one burst
    assert_eq!(raw.messages(), PIPELINED);
    assert_eq!(raw.messages(), 0);
}

#[tokio::test]
async fn a_reply_does_not_wait_for_a_handler_that_waits_for_something_else() {
    for straight in [false, true] {
        let (_dir, endpoint) = socket();
        let go = Arc::new(Notify::new());
        let wait = Arc::clone(&go);
        let (_running, endpoint): (Running, Endpoint) = if straight {
            let server = Server::serve(move |mut conn: Connection<Bytes>| {
                let wait = Arc::clone(&wait);
                async move {
                    while let Some(message) = conn.recv().await? {
                        conn.send(message.clone()).await?;
                        wait.notified().await;
                        conn.send(message).await?;
                    }
                    Ok(())
                }
            });
            start(server, &endpoint, LengthDelimited::new()).await
        } else {
            let (told, _ends) = Told::<Bytes>::new();
            let told = told.on_message(move |conn, message| {
                let wait = Arc::clone(&wait);
                Box::pin(async move {
                    conn.send(message.clone()).await?;
                    wait.notified().await;
                    Ok(conn.send(message).await?)
                })
            });
            start(Server::new(told), &endpoint, LengthDelimited::new()).await
        };
        let peer = Peer::connect(&endpoint);
        peer.write(&frame(b"request"));
        support::until("the first reply", || peer.messages() == 1).await;
        assert_eq!(peer.messages(), 0, "the handler waits still");
        go.notify_one();
        support::until("the second reply", || peer.messages() == 1).await;
    }
}

/// There is no wait after it.
#[tokio::test]
async fn a_reply_goes_out_when_the_session_ends_with_it() {
    let (_dir, endpoint) = socket();
    let server = Server::serve(|mut conn: Connection<Bytes>| async move {
        let message = conn.recv().await?.expect("a message");
        Ok(conn.send(message).await?)
    });
    let (_running, endpoint) = start(server, &endpoint, LengthDelimited::new()).await;
    let peer = Peer::connect(&endpoint);
    peer.write(&frame(b"request"));
    support::until("the reply", || peer.messages() == 1).await;
}

struct Members {
    _dir: TempDir,
    _running: Running,
    endpoint: Endpoint,
    group: Group<Bytes>,
    senders: UnboundedReceiver<Sender<Bytes>>,
}

async fn members() -> Members {
    let (dir, endpoint) = socket();
    let group = Group::new(Overflow::DropNewest);
    let (to, senders) = unbounded_channel();
    let (told, _ends) = Told::<Bytes>::new();
    let all = group.clone();
    let told = told.on_open(move |conn: &mut Connection<Bytes>, ()| {
        all.join(conn);
        let _ = to.send(conn.sender());
        Box::pin(async { Ok(()) })
    });
    let (running, endpoint) = start(Server::new(told), &endpoint, LengthDelimited::new()).await;
    Members { _dir: dir, _running: running, endpoint, group, senders }
}

impl Members {
    async fn peer(&mut self) -> (Peer, Sender<Bytes>) {
        let peer = Peer::connect(&self.endpoint);
        (peer, within("the connection", self.senders.recv()).await.expect("a sender"))
    }
}

#[tokio::test]
async fn outside_of_a_session_each_send_writes_at_once_and_a_batch_at_its_end() {
    let mut members = members().await;
    let (first, sender) = members.peer().await;
    let (second, _) = members.peer().await;
    let message = Bytes::from_static(b"tick");
    for _ in 0..3 {
        sender.try_send(message.clone()).expect("sent");
        assert_eq!(first.messages(), 1);
        assert_eq!(members.group.send(message.clone()).sent, 2);
        assert_eq!((first.messages(), second.messages()), (1, 1));
    }
    let result = hythe::batch(|| {
        for _ in 0..PIPELINED {
            sender.try_send(message.clone()).expect("sent");
            members.group.send(message.clone());
            // a batch in a batch ends with the outer one
            hythe::batch(|| members.group.send(message.clone()));
            assert_eq!((first.messages(), second.messages()), (0, 0));
        }
        "result"
    });
    assert_eq!(result, "result");
    assert_eq!((first.messages(), second.messages()), (3 * PIPELINED, 2 * PIPELINED));
}

#[tokio::test]
async fn what_was_sent_before_a_panic_in_a_batch_goes_out() {
    let mut members = members().await;
    let (peer, sender) = members.peer().await;
    let batch = || {
        hythe::batch(|| {
            sender.try_send(Bytes::from_static(b"before")).expect("sent");
            panic!("a panic on purpose");
        })
    };
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(batch)).is_err());
    assert_eq!(peer.messages(), 1);
    sender.try_send(Bytes::from_static(b"after")).expect("sent");
    assert_eq!(peer.messages(), 1, "there is no batch any more");
}

/// A session that sends to others: they get it when it waits, though it waits for something that does not come.
#[tokio::test]
async fn a_fan_out_leaves_when_the_session_that_sent_it_waits() {
    let mut members = members().await;
    let (listener, _) = members.peer().await;
    let (told, _ends) = Told::<String>::new();
    let (group, seen) = (members.group.clone(), listener.clone());
    let (to, early) = oneshot::channel();
    let to = Mutex::new(Some(to));
    let told = told.on_message(move |_, line| {
        let early: usize = (0..PIPELINED)
            .map(|_| {
                group.send(Bytes::from(line.clone()));
                seen.messages()
            })
            .sum();
        let _ = to.lock().expect("no panic").take().map(|to| to.send(early));
        Box::pin(std::future::pending())
    });
    let (_running, endpoint) = start(Server::new(told), &mem(), Lines::new()).await;
    let mut speaker: Connection<String> = open(&endpoint, Lines::new()).await;
    speaker.send("hello".to_string()).await.expect("sent");
    assert_eq!(within("the handler", early).await, Ok(0), "it left before the session waited");
    support::until("all of it", || listener.messages() == PIPELINED).await;
}
