//! Sockets that a service manager passes: a script plays systemd, makes the sockets, and becomes the server.

#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use hythe::codec::Lines as LinesCodec;
use hythe::{Error, Server};
use server_support::{Echo, Lines, Process, is_child, tell, within};
use tokio::net::UnixStream;

/// Makes the sockets that `SOCKETS` names, as `kind=address` or `kind=address=name`, on the descriptors from 3 on, and
/// becomes the program that its arguments name. `CLAIM` and `CLAIM_PID` are for lies.
const SYSTEMD: &str = r#"
import os, socket, sys
made, names = [], []
for item in os.environ["SOCKETS"].split():
    kind, address, name = (item.split("=") + [""])[:3]
    if kind == "file":
        s = open("/dev/null")
    elif kind == "unix":
        s = socket.socket(socket.AF_UNIX); s.bind(address); s.listen()
    elif kind == "udp":
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((address, 0))
    else:
        s = socket.socket(); s.bind((address, 0))
        if kind == "tcp": s.listen()
    made.append(os.dup(s.fileno())); names.append(name)
safe = [os.dup2(fd, 50 + i) for i, fd in enumerate(made)]
os.closerange(3, 50)
for i, fd in enumerate(safe): os.dup2(fd, 3 + i, inheritable=True)
os.closerange(50, 100)
os.environ["LISTEN_FDS"] = os.environ.get("CLAIM", str(len(made)))
os.environ["LISTEN_PID"] = os.environ.get("CLAIM_PID", str(os.getpid()))
if any(names): os.environ["LISTEN_FDNAMES"] = ":".join(names)
os.execv(sys.argv[1], sys.argv[1:])
"#;

/// A server process, with the endpoints of `ENDPOINTS`; only what starts it runs it.
#[test]
fn child() {
    if !is_child() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut server = Server::new(Echo);
        for endpoint in std::env::var("ENDPOINTS").unwrap().split_whitespace() {
            server = server.bind(endpoint, LinesCodec::new());
        }
        #[cfg(feature = "handover")]
        if let Ok(path) = std::env::var("HANDOVER") {
            server = server.handover(path);
        }
        match server.start().await {
            Err(error) => tell("failed", told(&error)),
            Ok(running) => {
                let endpoints: Vec<_> = running.endpoints().iter().map(ToString::to_string).collect();
                // told when signals are awaited, which is when the other future has been polled
                let told = async {
                    tell("serving", endpoints.join(" "));
                    tell("inherited by children", inherited_by_children());
                };
                let (served, ()) = tokio::join!(running.until_signal(), told);
                served.unwrap();
            }
        }
    });
    std::process::exit(0);
}

fn told(error: &Error) -> String {
    use std::error::Error as _;
    error.source().map_or(error.to_string(), |cause| format!("{error}: {cause}"))
}

/// Which of the descriptors 3 to 5 are not closed when this process runs another program.
fn inherited_by_children() -> String {
    const O_CLOEXEC: u32 = 0o2_000_000;
    let stays = |number: &u32| {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).map(str::trim);
        flags.is_some_and(|flags| u32::from_str_radix(flags, 8).unwrap() & O_CLOEXEC == 0)
    };
    format!("{:?}", (3..6).filter(stays).collect::<Vec<_>>())
}

/// Python, or the reason why there is nothing to be tested.
fn python() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("SKIPPED: python3 plays the service manager, and is not here");
    }
    found
}

fn start(sockets: &str, endpoints: &str, more: &str) -> Process {
    let environment = format!("export SOCKETS='{sockets}' ENDPOINTS='{endpoints}' {more}; ");
    // the script gets the program and its arguments after itself
    Process::start("child", &format!("{environment} exec python3 -c '{SYSTEMD}' \"$0\" \"$@\"; "))
}

/// Without a service manager.
fn start_plain(endpoints: &str, more: &str) -> Process {
    Process::start("child", &format!("export ENDPOINTS='{endpoints}' {more}; "))
}

async fn echoes(endpoint: &str) {
    let answer = match endpoint.split_once("://").unwrap() {
        ("tcp", addr) => Lines::tcp(addr.parse().unwrap()).await.ask("hello").await,
        ("unix", path) => Lines::new(UnixStream::connect(path).await.unwrap()).ask("hello").await,
        (_, addr) => {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            socket.send_to(b"hello\n", addr.parse::<SocketAddr>().unwrap()).unwrap();
            let mut answer = [0; 10];
            let length = socket.recv(&mut answer).unwrap();
            Some(String::from_utf8_lossy(&answer[..length]).trim().to_owned())
        }
    };
    assert_eq!(answer.as_deref(), Some("hello"), "{endpoint}");
}

#[tokio::test]
async fn sockets_are_known_by_number_and_by_name_and_for_what_they_are() {
    if !python() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let sockets = format!("tcp=127.0.0.1=http udp=127.0.0.1=dns unix={}=local", path.display());
    let mut process = start(&sockets, "fd:3 fd:dns fd:local", "");
    let serving = process.told("serving");
    let endpoints: Vec<_> = serving.split(' ').collect();
    assert!(endpoints[0].starts_with("tcp://127.0.0.1:") && endpoints[1].starts_with("udp://127.0.0.1:"), "{serving}");
    assert_eq!(endpoints[2], format!("unix://{}", path.display()));
    for endpoint in endpoints {
        echoes(endpoint).await;
    }
    assert_eq!(process.told("inherited by children"), "[]");
    process.signal("TERM");
    assert_eq!(within("the end", process.exit()).await, Some(0));
    assert!(path.exists(), "the file is the service manager's");
}

#[tokio::test]
async fn all_sockets_of_a_name_are_one_endpoint() {
    if !python() {
        return;
    }
    let process = start("tcp=127.0.0.1=web tcp=127.0.0.2=web tcp=127.0.0.1=other", "fd:web", "");
    let serving = process.told("serving");
    let endpoints: Vec<_> = serving.split(' ').collect();
    assert_eq!(endpoints.len(), 2);
    assert!(endpoints[1].starts_with("tcp://127.0.0.2:"), "{serving}");
    for endpoint in endpoints {
        echoes(endpoint).await;
    }
    assert_eq!(process.told("inherited by children"), "[]", "nor the one that nobody wanted");
}

#[tokio::test]
async fn what_cannot_be_served_is_said() {
    if !python() {
        return;
    }
    for (sockets, endpoints, more, why) in [
        ("tcp=127.0.0.1", "fd:4", "", "fd:4 is not among what was passed, which is 3"),
        ("tcp=127.0.0.1=web", "fd:http", "", "fd:http is not among what was passed, which is 3 (web)"),
        ("tcp=127.0.0.1=web", "fd:3 fd:web", "", "fd:web is taken already"),
        ("tcp=127.0.0.1", "fd:3 fd:3", "", "fd:3 is taken already"),
        ("bound=127.0.0.1", "fd:3", "", "fd:3 is not a listening socket"),
        ("file=", "fd:3", "", "fd:3 is not a socket"),
        ("tcp=127.0.0.1", "fd:3", "CLAIM=0", "fd:3 is not among what was passed, which is nothing"),
        ("tcp=127.0.0.1", "fd:3", "CLAIM=x", "fd:3 was not passed: LISTEN_FDS is \"x\", which is no number"),
        ("tcp=127.0.0.1", "fd:3", "CLAIM=4000000000", "fd:3 was not passed: LISTEN_FDS is 4000000000"),
        ("tcp=127.0.0.1", "fd:3", "CLAIM_PID=1", "fd:3 was not passed: LISTEN_PID is for another process, 1"),
        // more is promised than there is: what is there at these numbers is this process's own
        ("tcp=127.0.0.1", "fd:3 fd:30", "CLAIM=100", "fd:30 is not open"),
    ] {
        let process = start(sockets, endpoints, more);
        let told = process.told("failed");
        assert!(told.contains(why), "{told}");
    }
    let process = start_plain("fd:3", "");
    assert_eq!(process.told("failed"), "fd:3 was not passed: LISTEN_FDS is not set");
}

/// Its numbers mean nothing to the next process, but its endpoint does.
#[cfg(feature = "handover")]
#[tokio::test]
async fn a_passed_socket_is_handed_over() {
    if !python() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let handover = format!("HANDOVER='{}'", dir.path().join("handover").display());
    let mut old = start("tcp=127.0.0.1=web udp=127.0.0.1=dns", "fd:web fd:4", &handover);
    let serving = old.told("serving");
    let new = start_plain("fd:web fd:4", &handover);
    assert_eq!(new.told("serving"), serving);
    assert_eq!(within("the end", old.exit()).await, Some(0));
    for endpoint in serving.split(' ') {
        echoes(endpoint).await;
    }
    assert!(Path::new(&dir.path().join("handover")).exists());
}
