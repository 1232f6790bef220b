//! Certificates change while a server runs, and nobody notices but by the new certificate.

#![cfg(all(feature = "tls", feature = "udp", feature = "unix"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;
mod tls_support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use hythe::codec::Lines;
use hythe::tls::ServerTls;
use hythe::{BindOptions, Connect, Connection, Running, Server};
use server_support::{Echo, addr, within};
use tempfile::TempDir;
use tls_support::{Authority, Identity, plain_config, plain_connect};
use tokio::runtime::Handle;

struct Here {
    dir: TempDir,
    authority: Authority,
    tls: ServerTls,
    running: Running,
}

impl Here {
    async fn new() -> Self {
        let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
        let (chain, key) = authority.server(&["localhost"]).write(dir.path());
        let tls = ServerTls::from_pem_files(chain, key).build().unwrap();
        let options = BindOptions::new().tls(tls.clone());
        let server = Server::new(Echo).bind_with("tls://127.0.0.1:0", Lines::new(), options);
        Self { dir, authority, tls, running: server.start().await.unwrap() }
    }

    fn addr(&self) -> SocketAddr {
        addr(&self.running, 0)
    }

    /// The certificate that a new client is shown.
    async fn shown(&self) -> Vec<u8> {
        let config = plain_config(&self.authority, rustls::ALL_VERSIONS);
        let stream = within("a handshake", plain_connect(self.addr(), "localhost", config)).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }

    fn identity(&self) -> Identity {
        self.authority.server(&["localhost"])
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    async fn comes_into_use(&self, identity: &Identity) -> Duration {
        let begin = Instant::now();
        within("the new certificate", async { while self.shown().await != identity.der {} }).await;
        begin.elapsed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_change_under_load_and_no_handshake_fails() {
    let here = Here::new().await;
    let client = here.authority.client_tls().server_name("localhost").build().unwrap();
    let mut old: Connection<String> =
        Connect::new().tls(client).open(format!("tls://{}", here.addr()), Lines::new()).await.unwrap();
    let (stop, handshakes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (stop, handshakes) = (Arc::clone(&stop), Arc::clone(&handshakes));
            let (config, to) = (plain_config(&here.authority, rustls::ALL_VERSIONS), here.addr());
            tokio::spawn(async move {
                while !stop.load(SeqCst) {
                    within("a handshake", plain_connect(to, "localhost", config.clone())).await.unwrap();
                    handshakes.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    let (mut good, mut slowest) = (here.identity(), Duration::ZERO);
    good.write(here.dir.path());
    assert!(here.tls.reload().unwrap());
    for swap in 0..50 {
        if swap % 5 == 4 {
            // a key that was written in part
            here.write("key.pem", &good.key[..good.key.len() / 2]);
            let error = here.tls.reload().unwrap_err().to_string();
            assert!(error.contains("key.pem is no valid PEM"), "{error}");
            assert_eq!(here.shown().await, good.der, "the last good one stays");
        } else {
            good = here.identity();
            good.write(here.dir.path());
            assert!(here.tls.reload().unwrap());
            let begin = Instant::now();
            assert_eq!(here.shown().await, good.der, "the very next handshake has it");
            slowest = slowest.max(begin.elapsed());
        }
    }
    stop.store(true, SeqCst);
    for task in load {
        task.await.unwrap();
    }
    let handshakes = handshakes.load(SeqCst);
    println!("50 swaps, 10 of them broken: {handshakes} handshakes beside them, none failed; in use after {slowest:?}");
    assert!(handshakes > 50 && slowest < Duration::from_secs(1));
    old.send("hello".into()).await.unwrap();
    assert_eq!(within("an answer", old.recv()).await.unwrap().as_deref(), Some("hello"), "open connections stay");
}

#[tokio::test]
async fn a_ticket_from_before_a_reload_is_of_no_use_after_it() {
    let here = Here::new().await;
    let client = here.authority.client_tls().server_name("localhost").build().unwrap();
    for resumed in [false, true, false, true] {
        let connect = Connect::new().tls(client.clone());
        let mut conn: Connection<String> = connect.open(format!("tls://{}", here.addr()), Lines::new()).await.unwrap();
        conn.send("hello".into()).await.unwrap();
        assert_eq!(within("an answer", conn.recv()).await.unwrap().as_deref(), Some("hello"));
        assert_eq!(conn.peer().tls().unwrap().is_resumed(), resumed);
        if resumed {
            here.identity().write(here.dir.path());
            assert!(here.tls.reload().unwrap());
        }
    }
}

#[tokio::test]
async fn watched_files_are_used_when_they_have_changed() {
    let here = Here::new().await;
    here.tls.watch(Duration::from_millis(20)).unwrap();
    // one after the other: in between they do not fit
    let next = here.identity();
    let before = here.shown().await;
    here.write("key.pem", &next.key);
    let until = Instant::now() + Duration::from_millis(250);
    while Instant::now() < until {
        assert_eq!(here.shown().await, before, "the last good one stays");
    }
    here.write("chain.pem", &next.chain);
    println!("in use after {:?}", here.comes_into_use(&next).await);
    // by another file put in the place of the old one, as most tools do it
    let next = here.identity();
    for (name, text) in [("chain.pem", &next.chain), ("key.pem", &next.key)] {
        here.write("new", text);
        std::fs::rename(here.dir.path().join("new"), here.dir.path().join(name)).unwrap();
    }
    here.comes_into_use(&next).await;
    // a second watch takes the place of the first
    here.tls.watch(Duration::from_millis(10)).unwrap();
    let next = here.identity();
    next.write(here.dir.path());
    here.comes_into_use(&next).await;
}

#[tokio::test]
async fn a_watched_file_that_is_away_for_a_while_is_used_when_it_is_back() {
    let here = Here::new().await;
    here.tls.watch(Duration::from_millis(20)).unwrap();
    let before = here.shown().await;
    std::fs::remove_file(here.dir.path().join("chain.pem")).unwrap();
    let until = Instant::now() + Duration::from_millis(250);
    while Instant::now() < until {
        assert_eq!(here.shown().await, before);
    }
    let next = here.identity();
    next.write(here.dir.path());
    here.comes_into_use(&next).await;
}

#[tokio::test]
async fn the_watching_ends_with_the_last_handle() {
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let here = Here::new().await;
    here.tls.watch(Duration::from_millis(10)).unwrap();
    here.tls.watch(Duration::from_secs(3600)).unwrap();
    assert!(tasks() > before);
    here.running.shutdown(Duration::from_secs(5)).await;
    drop(here);
    within("no task is left", async {
        while tasks() > before {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}
