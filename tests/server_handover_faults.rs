//! Whatever a new process does wrong in a handover, the running one serves as if nothing had been.

#![allow(clippy::unwrap_used)] // Tests may.

mod handover_support;
mod server_support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use handover_support::{HELLO, Peer, READY, REFUSED, SERVING, server, serves, told};
use hythe::codec::{Datagram, Lines as LinesCodec, Text};
use hythe::{ErrorKind, Running, Server};
use server_support::{Echo, addr, within};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

/// A server at a directory of its own, with a socket of each kind.
struct Old {
    running: Running,
    dir: tempfile::TempDir,
}

impl Old {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { running: server(dir.path()).start().await.unwrap(), dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("handover")
    }

    async fn connect(&self) -> Peer {
        Peer(within("a connection", UnixStream::connect(self.path())).await.unwrap())
    }

    /// It serves on every endpoint.
    async fn serves(&self) {
        serves(&self.running, self.dir.path()).await;
        assert!(tokio::time::timeout(Duration::ZERO, self.running.handed_over()).await.is_err());
    }

    /// It serves, and the next one that comes can take over.
    async fn serves_on(self) {
        self.serves().await;
        let new = within("the new one", server(self.dir.path()).start()).await.unwrap();
        within("the handover", self.running.handed_over()).await;
        drop(self.running);
        serves(&new, self.dir.path()).await;
    }
}

#[tokio::test]
async fn a_new_process_that_goes_away_changes_nothing() {
    for steps in 0..6 {
        let old = Old::start().await;
        let mut peer = old.connect().await;
        match steps {
            0 => {}
            1 => peer.say(&HELLO[..3]).await,
            2 => peer.say(HELLO).await,
            3 => peer.list().await,
            _ => {
                peer.list().await;
                peer.say(READY).await;
                assert_eq!(peer.hear().await.0, 5, "it may begin");
            }
        }
        drop(peer);
        if steps < 5 {
            old.serves_on().await;
            continue;
        }
        old.serves().await;
        let Old { running, dir } = old;
        drop(running);
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "its files are still its own");
    }
}

#[tokio::test]
async fn a_new_process_that_says_something_else_is_refused() {
    for (words, why) in [
        (b"GET / HTTP/1.1\r\n".as_slice(), "does not speak this protocol"),
        (b"hyth\x02\x01\0\0", "speaks version 2 of the protocol, this one 1"),
        (b"hyth\x01\x2a\0\0", "unknown kind 42"),
        (b"hyth\x01\x01\xff\xff", "a message of 65535 bytes"),
        (READY, "said Ready out of turn"),
    ] {
        let old = Old::start().await;
        let mut peer = old.connect().await;
        peer.say(words).await;
        let refused = peer.refused().await;
        assert!(refused.contains(why), "{refused}");
        old.serves_on().await;
    }
    for (words, why) in [
        (b"\0\0\0\0".as_slice(), "does not speak this protocol"),
        (SERVING, "said Serving out of turn"),
        (REFUSED, "the other process refused: no"),
    ] {
        let old = Old::start().await;
        let mut peer = old.connect().await;
        peer.list().await;
        peer.say(words).await;
        let refused = peer.refused().await;
        assert!(refused.contains(why), "{refused}");

        let mut peer = old.connect().await;
        peer.list().await;
        peer.say(READY).await;
        assert_eq!(peer.hear().await.0, 5);
        old.serves().await;
        peer.say(if words == SERVING { READY } else { words }).await;
        peer.refused().await;
        old.serves_on().await;
    }
}

/// All three at once, as each of them takes its time.
#[tokio::test]
async fn a_new_process_that_hangs_is_given_up() {
    let at_once = async {
        let old = Old::start().await;
        let mut peer = old.connect().await;
        assert!(peer.refused().await.contains("did not answer within 5s"));
        old.serves_on().await;
    };
    let after_the_list = async {
        let old = Old::start().await;
        let mut peer = old.connect().await;
        peer.list().await;
        old.serves().await;
        assert!(peer.refused().await.contains("did not answer within 10s"));
        old.serves_on().await;
    };
    let after_the_switch = async {
        let old = Old::start().await;
        let mut peer = old.connect().await;
        peer.list().await;
        peer.say(READY).await;
        assert_eq!(peer.hear().await.0, 5);
        old.serves().await;
        assert!(peer.refused().await.contains("did not answer within 5s"));
        // too late
        let _ = peer.0.write_all(SERVING).await;
        old.serves_on().await;
    };
    tokio::join!(at_once, after_the_list, after_the_switch);
}

#[tokio::test]
async fn a_new_process_that_cannot_bind_fails_and_the_running_one_serves_on() {
    let old = Old::start().await;
    let before: Vec<_> = fs::read_dir(old.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", taken.local_addr().unwrap());
    let error = server(old.dir.path()).bind(endpoint, LinesCodec::new()).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Bind, "{error}");

    let codec = Text::over(Datagram::new());
    let error = server(old.dir.path()).bind("tcp://127.0.0.1:0", codec).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");

    // every address, where the running one has a single one
    let wider = format!("tcp://0.0.0.0:{}", addr(&old.running, 0).port());
    let start = Server::new(Echo).bind(wider, LinesCodec::new()).handover(old.path()).start();
    assert_eq!(start.await.unwrap_err().kind(), ErrorKind::Bind);

    let after: Vec<_> = fs::read_dir(old.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(before, after, "files came or went");
    old.serves_on().await;
}

/// A start that is given up is as good as one that fails.
#[tokio::test]
async fn a_start_that_is_dropped_at_any_point_changes_nothing() {
    let old = Old::start().await;
    for polls in 0..40 {
        let mut start = Box::pin(server(old.dir.path()).start());
        let mut polled = 0;
        let taken = std::future::poll_fn(|cx| {
            polled += 1;
            if polled > polls {
                return std::task::Poll::Ready(None);
            }
            start.as_mut().poll(cx).map(Some)
        });
        if let Some(new) = within("a poll", taken).await {
            let new = new.unwrap();
            within("the handover", old.running.handed_over()).await;
            serves(&new, old.dir.path()).await;
            assert!(polls > 3, "nothing was dropped on the way");
            return;
        }
        drop(start);
        if tokio::time::timeout(Duration::ZERO, old.running.handed_over()).await.is_ok() {
            assert!(polls > 3, "nothing was dropped before the new one had said that it serves");
            return;
        }
        old.serves().await;
    }
    panic!("it never started");
}

/// What is needed to play another user: Python, as whoever has no rights. None, with the reason, where it cannot be had.
fn as_nobody() -> Option<Command> {
    let python = |python: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", python]);
        command
    };
    let works = |name: &&str| {
        let mut command = python(name);
        let quiet = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        rustix::process::geteuid().is_root() && quiet.is_ok_and(|status| status.success())
    };
    let found = ["python3", "/usr/bin/python3"].into_iter().find(works);
    if found.is_none() {
        eprintln!("SKIPPED: another user can be played only by root, with setpriv and python3");
    }
    found.map(|name| {
        let mut command = python(name);
        command.arg("-c");
        command
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_gets_nothing() {
    let Some(mut nobody) = as_nobody() else { return };
    let old = Old::start().await;
    // as if somebody had opened it to all, as it is elsewhere by default
    fs::set_permissions(old.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(old.path(), fs::Permissions::from_mode(0o666)).unwrap();
    let ask = "import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
try: s.send(b'hyth\\1\\1\\0\\0')
except OSError: pass
data, fds, *_ = socket.recv_fds(s, 1000, 10)
print(data, fds)";
    let output = nobody.arg(ask).arg(old.path()).stderr(Stdio::inherit()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("user 65534 is not welcome") && told.trim().ends_with("[]"), "{told}");
    old.serves_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_is_not_taken_over() {
    let Some(mut nobody) = as_nobody() else { return };
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let listen = "import socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
c, _ = s.accept()
print(c.recv(100), flush=True)";
    let child = nobody.arg(listen).arg(dir.path().join("handover")).stdout(Stdio::piped()).spawn().unwrap();
    server_support::eventually("the false server", || dir.path().join("handover").exists()).await;
    // between its bind and its listen there is nobody
    let error = within("a refusal", async {
        loop {
            match server(dir.path()).start().await {
                Err(error) if error.kind() == ErrorKind::Handover => return error,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await;
    assert!(told(&error).contains("belongs to user 65534, and this one to 0"), "{}", told(&error));
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("user 65534 is not welcome") && !told.contains(r"\x01\x01"), "{told}");
}
