//! The halves of a TLS connection, without the connection above them.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::handshake::Secured;
use super::stream::{HELD, Lower, TlsRead, TlsWrite, Wire};
use super::{ClientTls, Pem, ServerTls};
use crate::connection::WriteHalf;
use crate::transport::ByteStream;
use crate::transport::tcp::Tcp;

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl Count {
    async fn woken(&self) {
        let woken = async {
            while self.0.load(SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), woken).await.expect("not woken");
    }
}

fn tls() -> (ServerTls, ClientTls) {
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let server = ServerTls::from_pem(own.pem(), key.serialize_pem()).build().unwrap();
    (server, ClientTls::builder().only_roots(Pem::text(own.pem())).build().unwrap())
}

/// Two ends, whose sockets hold little.
async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpSocket::new_v4().unwrap();
    listener.set_send_buffer_size(4096).unwrap();
    listener.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = listener.listen(1).unwrap();
    let client = TcpSocket::new_v4().unwrap();
    client.set_recv_buffer_size(4096).unwrap();
    let client = client.connect(listener.local_addr().unwrap()).await.unwrap();
    (listener.accept().await.unwrap().0, client)
}

fn wire(stream: TcpStream) -> Wire {
    let addr = stream.peer_addr().unwrap();
    let (read, write) = Tcp { stream, addr }.split();
    Wire::new(Box::new(read), Lower::new(write))
}

async fn pair() -> (Secured, Secured) {
    let (server, client) = tls();
    let (ours, theirs) = sockets().await;
    let name = client.name_for("localhost").unwrap();
    let (server, client) = tokio::join!(server.accept(wire(ours)), client.connect(name, wire(theirs)));
    (server.ok().unwrap(), client.ok().unwrap())
}

async fn read(half: &mut TlsRead, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; most];
    let read = tokio::time::timeout(Duration::from_secs(10), half.read(&mut bytes)).await.expect("nothing to read")?;
    bytes.truncate(read);
    Ok(bytes)
}

async fn write(half: &mut TlsWrite, bytes: &[u8]) {
    let written = poll_fn(|cx| half.poll_write(cx, bytes)).await.unwrap();
    assert_eq!(written, bytes.len());
    poll_fn(|cx| half.poll_flush(cx)).await.unwrap();
}

/// Writes until the half takes no more; how much it took.
fn fill(half: &mut TlsWrite, cx: &mut Context<'_>) -> usize {
    let mut taken = 0;
    while let Poll::Ready(written) = half.poll_write(cx, &[7; 4096]) {
        taken += written.unwrap();
    }
    taken
}

/// Polled with a waker, it has nothing to read.
fn waits(half: &mut TlsRead, waker: &Waker) {
    let mut bytes = [0; 16];
    let polled = Pin::new(half).poll_read(&mut Context::from_waker(waker), &mut ReadBuf::new(&mut bytes));
    assert!(polled.is_pending());
}

#[tokio::test]
async fn what_was_taken_is_out_when_a_flush_is_ready_and_not_before() {
    let (mut server, mut client) = pair().await;
    let mut noop = Context::from_waker(Waker::noop());
    let taken = fill(&mut server.write, &mut noop);
    assert!(taken > HELD);
    assert!(server.write.poll_flush(&mut noop).is_pending(), "the socket is full, and some of it waits here");
    assert!(server.write.has_moved());
    assert!(!server.write.has_moved(), "nothing since");
    let reader = tokio::spawn(async move {
        let mut seen = 0;
        while seen < taken {
            seen += read(&mut client.read, 4096).await.unwrap().len();
        }
        seen
    });
    poll_fn(|cx| server.write.poll_flush(cx)).await.unwrap();
    assert!(server.write.has_moved());
    assert_eq!(reader.await.unwrap(), taken);
}

#[tokio::test]
async fn a_write_with_any_waker_leaves_the_readers_task_known_and_the_other_way_round() {
    let (mut server, mut client) = pair().await;
    let reads = Arc::new(Count::default());
    let reader = Waker::from(Arc::clone(&reads));
    waits(&mut server.read, &reader);
    fill(&mut server.write, &mut Context::from_waker(Waker::noop()));
    assert!(server.write.poll_flush(&mut Context::from_waker(Waker::noop())).is_pending());
    write(&mut client.write, b"hello").await;
    reads.woken().await;
    assert_eq!(read(&mut server.read, 16).await.unwrap(), b"hello");

    let writes = Arc::new(Count::default());
    fill(&mut server.write, &mut Context::from_waker(Waker::noop()));
    assert!(server.write.poll_flush(&mut Context::from_waker(&Waker::from(Arc::clone(&writes)))).is_pending());
    waits(&mut server.read, &reader);
    tokio::spawn(async move { while read(&mut client.read, 4096).await.is_ok() {} });
    writes.woken().await;
}

#[tokio::test]
async fn a_shutdown_says_close_notify_after_all_that_was_written() {
    let (mut server, mut client) = pair().await;
    let taken = fill(&mut server.write, &mut Context::from_waker(Waker::noop()));
    assert!(server.write.poll_shutdown(&mut Context::from_waker(Waker::noop())).is_pending());
    let reader = tokio::spawn(async move {
        let mut seen = 0;
        loop {
            match read(&mut client.read, 4096).await.unwrap().len() {
                0 => return (seen, client),
                some => seen += some,
            }
        }
    });
    poll_fn(|cx| server.write.poll_shutdown(cx)).await.unwrap();
    let (seen, mut client) = reader.await.unwrap();
    assert_eq!(seen, taken);
    // the other direction is open still
    write(&mut client.write, b"late").await;
    assert_eq!(read(&mut server.read, 16).await.unwrap(), b"late");
}

#[tokio::test]
async fn an_end_without_close_notify_is_no_end() {
    let (mut server, mut client) = pair().await;
    // with something unread, the end would be a reset
    write(&mut server.write, b"hello").await;
    assert_eq!(read(&mut client.read, 16).await.unwrap(), b"hello");
    drop(client);
    assert_eq!(read(&mut server.read, 16).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn an_abort_is_a_reset() {
    let (mut server, mut client) = pair().await;
    server.write.abort();
    drop(server);
    assert_eq!(read(&mut client.read, 16).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_handshake_tells_what_was_agreed_upon() {
    let (server, client) = pair().await;
    assert_eq!(server.info.server_name(), Some("localhost"));
    assert_eq!(client.info.server_name(), Some("localhost"));
    assert_eq!(client.info.cipher_suite(), server.info.cipher_suite());
    assert!(client.info.cipher_suite().starts_with("TLS_"), "{:?}", client.info);
    assert_eq!((client.info.peer_certificates().len(), server.info.peer_certificates().len()), (1, 0));
}

#[tokio::test]
async fn whoever_speaks_something_else_is_told_by_an_alert() {
    let (server, _) = tls();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    peer.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let accept =
        tokio::spawn(async move { server.accept(wire(listener.accept().await.unwrap().0)).await.err().unwrap() });
    let mut answer = Vec::new();
    peer.read_to_end(&mut answer).await.expect("a reset");
    assert_eq!(answer.first(), Some(&21), "an alert: {answer:?}");
    drop(peer);
    assert_eq!(accept.await.unwrap().kind(), io::ErrorKind::InvalidData);
}
