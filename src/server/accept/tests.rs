//! Every error that accept(2) names, from a listener that fails as asked.
#![cfg(all(target_os = "linux", feature = "tcp"))]

use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::codec::Lines;
use crate::connection::{Connection, Prototype};
use crate::handler::Served;
use crate::limits::Limits;
use crate::server::greeting::Greeting;
use crate::transport::BindOptions;
use crate::transport::socket::tcp_listeners;
use crate::transport::tcp::{Tcp, TcpTransport};

/// EINTR, ECONNABORTED, EPROTO, ENETDOWN, ENOPROTOOPT, EHOSTDOWN, ENONET, EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH,
/// ETIMEDOUT, EPERM
const CONNECTION: [i32; 12] = [4, 103, 71, 100, 92, 112, 64, 113, 95, 101, 110, 1];
/// EMFILE, ENFILE, ENOBUFS, ENOMEM
const EXHAUSTED: [i32; 4] = [24, 23, 105, 12];
/// EBADF, ENOTSOCK, EINVAL, EFAULT
const FATAL: [i32; 4] = [9, 88, 22, 14];
/// EIO, which accept(2) does not name
const UNKNOWN: i32 = 5;

#[test]
fn errors_are_told_apart() {
    let of = |code| class(&io::Error::from_raw_os_error(code));
    for (codes, expected) in [
        (&CONNECTION[..], AcceptFailure::Connection),
        (&EXHAUSTED, AcceptFailure::Exhausted),
        (&FATAL, AcceptFailure::Fatal),
    ] {
        for code in codes {
            assert_eq!(of(*code), expected, "{}", io::Error::from_raw_os_error(*code));
        }
    }
    assert_eq!(of(UNKNOWN), AcceptFailure::Unknown);
}

/// Fails as often as it is told to, then accepts.
struct Failing {
    tcp: TcpTransport,
    code: i32,
    left: Arc<AtomicUsize>,
}

impl Listener for Failing {
    type Stream = Tcp;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Tcp>> {
        match self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)) {
            Ok(_) => Poll::Ready(Err(io::Error::from_raw_os_error(self.code))),
            Err(_) => self.tcp.poll_accept(cx),
        }
    }
}

/// A server whose listener fails fifty times.
struct Broken {
    hub: Arc<Hub>,
    addr: SocketAddr,
    left: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

fn serve(code: i32) -> Broken {
    let limits = Limits::edge();
    let sockets = tcp_listeners(([127, 0, 0, 1], 0).into(), &BindOptions::new(), &limits, 1).unwrap();
    let (tcp, addr) = TcpTransport::on(sockets.into_iter().next().unwrap()).unwrap();
    let hub = Hub::new(limits, None);
    let session = Served::new(|mut conn: Connection<String>| async move {
        while let Some(line) = conn.recv().await? {
            conn.send(line).await?;
        }
        Ok(())
    });
    let origin = Origin {
        hub: Arc::clone(&hub),
        session: Arc::new(session),
        endpoint: Arc::new(crate::Endpoint::tcp(addr)),
        prototype: Prototype::new(Lines::new()),
        greeting: Greeting::new(&BindOptions::new()),
        log_bytes: 0,
        timing: hub.meters.timing(&crate::Endpoint::tcp(addr)),
    };
    let left = Arc::new(AtomicUsize::new(50));
    let listener = Failing { tcp, code, left: Arc::clone(&left) };
    let task = tokio::spawn(accept(Door::new(0, listener), Arc::new(origin)));
    Broken { hub, addr, left, task }
}

async fn echo(to: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(b"hello\n").await?;
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).await?;
    assert_eq!(&answer, b"hello\n");
    Ok(())
}

#[tokio::test]
async fn fifty_errors_of_connections_hold_nobody_up() {
    for code in CONNECTION {
        let Broken { hub, addr, task, .. } = serve(code);
        let error = io::Error::from_raw_os_error(code);
        let served = tokio::time::timeout(Duration::from_millis(1200), echo(addr)).await;
        served.unwrap_or_else(|_| panic!("{error}: not served in time")).unwrap();
        assert_eq!(hub.counters().accept_errors, 50, "{error}");
        task.abort();
    }
}

/// Each is followed by a pause, of 10 to 640 ms.
#[tokio::test]
async fn fifty_errors_of_exhaustion_are_pauses_after_which_it_serves() {
    for code in EXHAUSTED.into_iter().chain([UNKNOWN]) {
        let error = io::Error::from_raw_os_error(code);
        tokio::time::pause();
        let Broken { addr, left, task, .. } = serve(code);
        let begin = Instant::now();
        while left.load(Relaxed) > 0 {
            assert!(begin.elapsed() < Duration::from_secs(60), "{error}");
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        // where the spare descriptor is tried, it meets every second of them
        assert!(begin.elapsed() >= Duration::from_secs(10), "{error}: no spinning: {:?}", begin.elapsed());
        tokio::time::resume();
        let served = tokio::time::timeout(Duration::from_millis(1200), echo(addr)).await;
        served.unwrap_or_else(|_| panic!("{error}: not served in time")).unwrap();
        task.abort();
    }
}

#[tokio::test]
async fn an_error_of_the_listener_ends_it_once() {
    for code in FATAL {
        let Broken { hub, addr, task, .. } = serve(code);
        let error = io::Error::from_raw_os_error(code);
        tokio::time::timeout(Duration::from_millis(1200), task).await.unwrap_or_else(|_| panic!("{error}")).unwrap();
        assert_eq!(hub.counters().accept_errors, 1, "{error}");
        assert_eq!(echo(addr).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused, "the port is free: {error}");
    }
}
