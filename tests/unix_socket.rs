//! Unix sockets: whose file it is, who may open it at which instant, and who is at the other end.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use hythe::codec::Lines as LinesCodec;
use hythe::{BindOptions, Connection, Error, ErrorKind, Running, Server};
use server_support::{Echo, Lines, Process, is_child, tell};
use tokio::net::UnixStream;

fn text(path: &Path) -> String {
    format!("unix://{}", path.display())
}

async fn bind(path: &Path) -> Result<Running, Error> {
    Server::new(Echo).bind(text(path).as_str(), LinesCodec::new()).start().await
}

async fn echoes(path: &Path) {
    let mut client = Lines::new(UnixStream::connect(path).await.unwrap());
    assert_eq!(client.ask("hello").await.as_deref(), Some("hello"));
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Binding `path` is refused, with `why`, and leaves the directory as it was.
async fn assert_refused(path: &Path, why: &str) {
    let before = fs::symlink_metadata(path).unwrap();
    let error = bind(path).await.expect_err("it was taken over");
    assert_eq!(error.kind(), ErrorKind::Bind);
    assert!(error.to_string().contains(&text(path)), "{error}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains(why), "{cause}");
    let after = fs::symlink_metadata(path).unwrap();
    assert_eq!((before.ino(), before.len(), before.mode()), (after.ino(), after.len(), after.mode()), "it was touched");
    let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with('.')), "left behind: {names:?}");
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    drop(StdListener::bind(&path).unwrap());
    let stale = fs::symlink_metadata(&path).unwrap();
    assert!(stale.file_type().is_socket(), "std leaves the file");
    let _running = bind(&path).await.unwrap();
    echoes(&path).await;
}

#[tokio::test]
async fn a_live_socket_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let live = StdListener::bind(&path).unwrap();
    assert_refused(&path, "another process listens there").await;
    // the probe aside, the other one has not been disturbed
    live.accept().unwrap();
    let client = std::os::unix::net::UnixStream::connect(&path).unwrap();
    live.accept().unwrap();
    drop(client);

    let ours = dir.path().join("ours");
    let _running = bind(&ours).await.unwrap();
    assert_refused(&ours, "another process listens there").await;
    echoes(&ours).await;
}

#[tokio::test]
async fn what_is_no_socket_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let [file, directory, link, dangling] = ["file", "directory", "link", "dangling"].map(|name| dir.path().join(name));
    fs::write(&file, "precious").unwrap();
    fs::create_dir(&directory).unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    std::os::unix::fs::symlink("nowhere", &dangling).unwrap();
    for path in [&file, &directory, &link, &dangling] {
        assert_refused(path, "it is not a socket").await;
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

/// Of those who find the same stale socket at the same time, one gets the path, and keeps it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_many_gets_a_stale_path() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..1000 {
        let path = dir.path().join(format!("sock{round}"));
        drop(StdListener::bind(&path).unwrap());
        let barrier = Arc::new(tokio::sync::Barrier::new(4));
        let mut racers = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let (path, barrier) = (path.clone(), Arc::clone(&barrier));
            racers.spawn(async move {
                barrier.wait().await;
                bind(&path).await.ok()
            });
        }
        let winners: Vec<_> = racers.join_all().await.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "a live socket was replaced");
        echoes(&path).await;
    }
}

/// Binds with a umask of 0, in a process of its own, as the umask is the whole process's.
#[test]
fn child() {
    if !is_child() {
        return;
    }
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (done, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
    let wider = Mutex::new(Vec::new());
    let seen = Mutex::new(std::collections::BTreeSet::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(SeqCst) {
                looks.fetch_add(1, SeqCst);
                for entry in fs::read_dir(dir.path()).unwrap().flatten() {
                    // not every one is there any more
                    let Ok(found) = fs::symlink_metadata(entry.path()) else { continue };
                    let mode = found.permissions().mode() & 0o7777;
                    seen.lock().unwrap().insert(entry.file_name());
                    if mode & !0o600 != 0 {
                        wider.lock().unwrap().push(format!("{:?}: {mode:o}", entry.file_name()));
                    }
                }
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for round in 0..200 {
                let path = dir.path().join(format!("sock{}", round % 2));
                if round % 3 == 0 {
                    let stale = elsewhere.path().join("stale");
                    drop(StdListener::bind(&stale).unwrap());
                    fs::set_permissions(&stale, fs::Permissions::from_mode(0o600)).unwrap();
                    fs::rename(&stale, &path).unwrap();
                }
                let running = bind(&path).await.unwrap();
                assert_eq!(mode(&path), 0o600);
                let before = looks.load(SeqCst);
                server_support::eventually("a look", || looks.load(SeqCst) > before).await;
                drop(running);
            }
        });
        done.store(true, SeqCst);
    });
    let temporary = seen.lock().unwrap().iter().filter(|name| name.to_string_lossy().starts_with('.')).count();
    tell("seen", format!("{} looks, {temporary} temporary names", looks.load(SeqCst)));
    tell("wider", format!("{:?}", wider.lock().unwrap()));
}

#[test]
fn the_mode_is_0600_at_every_instant() {
    let process = Process::start("child", "umask 0; ");
    let seen = process.told("seen");
    assert_eq!(process.told("wider"), "[]", "after {seen}");
}

#[tokio::test]
async fn another_mode_can_be_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    for wanted in [0o660, 0o666, 0o600] {
        let path = dir.path().join(format!("{wanted:o}"));
        let options = BindOptions::new().unix_mode(wanted);
        let _running =
            Server::new(Echo).bind_with(text(&path).as_str(), LinesCodec::new(), options).start().await.unwrap();
        assert_eq!(mode(&path), wanted, "whatever the umask");
        echoes(&path).await;
    }
}

#[tokio::test]
async fn the_longest_path_works() {
    let dir = tempfile::tempdir().unwrap();
    let left = 107 - dir.path().as_os_str().len() - 1;
    let path = dir.path().join("p".repeat(left));
    assert_eq!(path.as_os_str().len(), 107);
    let running = bind(&path).await.unwrap();
    echoes(&path).await;
    let mut client: Connection<String> = hythe::connect(text(&path).as_str(), LinesCodec::new()).await.unwrap();
    client.send("hello".into()).await.unwrap();
    assert_eq!(client.recv().await.unwrap().as_deref(), Some("hello"));
    drop(running);
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
}

#[tokio::test]
async fn a_file_that_is_anothers_by_now_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let running = bind(&path).await.unwrap();
    fs::rename(&path, dir.path().join("moved")).unwrap();
    let other = StdListener::bind(&path).unwrap();
    drop(running);
    assert!(fs::symlink_metadata(&path).is_ok(), "another's socket was removed");
    drop(other);
}

#[tokio::test]
async fn the_peer_is_known_by_its_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let running = bind(&path).await.unwrap();
    let _client = UnixStream::connect(&path).await.unwrap();
    server_support::eventually("the connection", || running.counters().open == 1).await;
    let peer = running.connections().remove(0).peer;
    let credentials = peer.credentials().unwrap();
    let me = fs::metadata("/proc/self").unwrap();
    assert_eq!(credentials.pid, Some(i32::try_from(std::process::id()).unwrap()));
    assert_eq!((credentials.uid, credentials.gid), (me.uid(), me.gid()));
    assert_eq!(peer.socket_addr(), None);
}

#[tokio::test]
async fn an_abstract_name_works_and_belongs_to_one() {
    let name = format!("unix:@hythe-test-{}", std::process::id());
    let start = || Server::new(Echo).bind(name.as_str(), LinesCodec::new()).start();
    let running = start().await.unwrap();
    assert_eq!(running.endpoints()[0].to_string(), name);
    let mut client: Connection<String> = hythe::connect(name.as_str(), LinesCodec::new()).await.unwrap();
    client.send("hello".into()).await.unwrap();
    assert_eq!(client.recv().await.unwrap().as_deref(), Some("hello"));
    assert_eq!(start().await.unwrap_err().kind(), ErrorKind::Bind);
}

/// The working directory is the whole process's, so this goes by a path that is relative to where the tests run.
#[tokio::test]
async fn a_relative_path_works() {
    let dir = tempfile::tempdir().unwrap();
    let up = "../".repeat(std::env::current_dir().unwrap().components().count() - 1);
    let path = Path::new(&up).join(dir.path().strip_prefix("/").unwrap()).join("sock");
    assert!(path.is_relative());
    let endpoint = format!("unix:{}", path.display());
    let running = Server::new(Echo).bind(endpoint.as_str(), LinesCodec::new()).start().await.unwrap();
    echoes(&path).await;
    drop(running);
    assert!(!path.exists());
}
