//! What becomes of a new process where the running one, which it wants to take over, goes wrong: somebody serves.

#![allow(clippy::unwrap_used)] // Tests may.

mod handover_support;
mod server_support;

use std::fs;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use handover_support::{HEADER, LISTED, Peer, REFUSED, SWITCH, server, serves, socket, told};
use hythe::ErrorKind;
use server_support::{addr, within};
use tokio::net::UnixListener;

/// A running process of our making.
struct False {
    dir: tempfile::TempDir,
    door: UnixListener,
    tcp: TcpListener,
}

impl False {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let door = UnixListener::bind(dir.path().join("handover")).unwrap();
        Self { dir, door, tcp: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    async fn asked(&self) -> Peer {
        let (stream, _) = within("a new process", self.door.accept()).await.unwrap();
        let mut peer = Peer(stream);
        assert_eq!(peer.hear().await, (1, vec![]));
        peer
    }

    fn send_sockets(&self, peer: &Peer) {
        peer.send(&socket("tcp://127.0.0.1:0"), self.tcp.as_fd());
        let path = self.dir.path().join("handover");
        let file = fs::symlink_metadata(&path).unwrap();
        let mut message = socket(&format!("unix://{}", path.display()));
        message[HEADER..HEADER + 8].copy_from_slice(&file.dev().to_be_bytes());
        message[HEADER + 8..HEADER + 16].copy_from_slice(&file.ino().to_be_bytes());
        peer.send(&message, self.door.as_fd());
    }

    /// Until the new process says that it serves.
    async fn switched(&self) -> Peer {
        let mut peer = self.asked().await;
        self.send_sockets(&peer);
        peer.say(LISTED).await;
        assert_eq!(peer.hear().await.0, 4);
        peer.say(SWITCH).await;
        assert_eq!(peer.hear().await.0, 6);
        peer
    }
}

#[tokio::test]
async fn a_running_process_that_says_something_else_is_not_taken_over() {
    let null = fs::File::open("/dev/null").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = socket("tcp://127.0.0.1:0");
    for (why, words, descriptor) in [
        ("does not speak this protocol", b"220 mail ESMTP\r\n".as_slice(), None),
        ("speaks version 9 of the protocol, this one 1", b"hyth\x09\x03\0\0", None),
        ("the other process refused: no", REFUSED, None),
        ("said Switch out of turn", SWITCH, None),
        ("are not those that were announced", LISTED, None),
        ("are not those that were announced", socket.as_slice(), None),
        ("are not those that were announced", LISTED, Some(tcp.as_fd())),
        ("what was sent as tcp://127.0.0.1:0 is not a socket", socket.as_slice(), Some(null.as_fd())),
    ] {
        let old = False::start();
        let answer = async {
            let mut peer = old.asked().await;
            match descriptor {
                Some(descriptor) => peer.send(words, descriptor),
                None => peer.say(words).await,
            }
            peer
        };
        let (new, _peer) = tokio::join!(server(old.dir.path()).start(), answer);
        let error = new.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Handover);
        assert!(told(&error).contains(why), "{}", told(&error));
        assert!(old.dir.path().join("handover").exists() && !old.dir.path().join("sock").exists());
    }
}

#[tokio::test]
async fn a_running_process_that_hangs_is_not_taken_over() {
    let old = False::start();
    let answer = async {
        let peer = old.asked().await;
        old.send_sockets(&peer);
        peer
    };
    let begin = Instant::now();
    let (new, _peer) = tokio::join!(server(old.dir.path()).start(), answer);
    assert!(told(&new.unwrap_err()).contains("did not answer within 5s"));
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn where_the_running_process_has_ended_the_new_one_does_without() {
    for steps in 0..3 {
        let old = False::start();
        let dir = old.dir.path().to_owned();
        let given = old.tcp.local_addr().unwrap();
        let answer = async {
            let mut peer = old.asked().await;
            if steps > 0 {
                old.send_sockets(&peer);
            }
            if steps > 1 {
                peer.say(LISTED).await;
                assert_eq!(peer.hear().await.0, 4);
            }
            // a process that is killed leaves its files
            let False { dir, door, tcp } = old;
            drop((peer, door, tcp));
            dir
        };
        let (new, _dir) = tokio::join!(server(&dir).start(), answer);
        let new = new.unwrap();
        serves(&new, &dir).await;
        assert_ne!(addr(&new, 0), given, "a socket of its own");
        drop(new);
        assert!(fs::read_dir(&dir).unwrap().next().is_none(), "its files are its own");
    }
}

/// It was asked to go, and cannot say any more that it does, or takes its time.
#[tokio::test]
async fn after_the_switch_somebody_has_to_serve() {
    for hangs in [false, true] {
        let old = False::start();
        let answer = async {
            let peer = old.switched().await;
            hangs.then_some(peer)
        };
        let (new, _peer) = tokio::join!(server(old.dir.path()).start(), answer);
        let new = new.unwrap();
        serves(&new, old.dir.path()).await;
        assert_eq!(addr(&new, 0), old.tcp.local_addr().unwrap(), "the socket that was given");
        drop(new);
        assert!(fs::read_dir(old.dir.path()).unwrap().next().is_none(), "the files are the new one's");
    }
}

#[tokio::test]
async fn after_the_switch_the_running_process_has_the_last_word() {
    let old = False::start();
    let answer = async {
        let mut peer = old.switched().await;
        peer.say(REFUSED).await;
        peer
    };
    let (new, _peer) = tokio::join!(server(old.dir.path()).start(), answer);
    assert!(told(&new.unwrap_err()).contains("the other process refused: no"));
    assert!(old.dir.path().join("handover").exists(), "it is the running one's");
    assert!(!old.dir.path().join("sock").exists(), "it was the new one's");
    // nobody else accepts on it
    old.tcp.set_nonblocking(true).unwrap();
    let _client = std::net::TcpStream::connect(old.tcp.local_addr().unwrap()).unwrap();
    server_support::eventually("the connection", || old.tcp.accept().is_ok()).await;
}
