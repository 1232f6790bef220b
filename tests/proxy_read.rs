//! PROXY protocol: reading a header from a stream, and nothing else.
#![allow(clippy::unwrap_used)] // Tests may.

mod proxy_support;

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hythe::proxy::{DEFAULT_MAX_HEADER, ProxyError, ProxyHeader, kind, read};
use proxy_support::{addr, tlv, with_tlvs};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf, duplex};
use tokio::time::timeout;

/// Gives at most `step` bytes at a time, and counts how it was asked.
struct Source<'a> {
    bytes: &'a [u8],
    step: usize,
    reads: usize,
    largest: usize,
}

impl<'a> Source<'a> {
    fn new(bytes: &'a [u8], step: usize) -> Self {
        Self { bytes, step, reads: 0, largest: 0 }
    }
}

impl AsyncRead for Source<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.reads += 1;
        self.largest = self.largest.max(buf.remaining());
        let (now, rest) = self.bytes.split_at(self.step.min(buf.remaining()).min(self.bytes.len()));
        buf.put_slice(now);
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

fn headers() -> Vec<Vec<u8>> {
    let (from, to) = (addr("192.168.0.1:56324"), addr("192.168.0.11:443"));
    let v6 = (addr("[2001:db8::1]:1"), addr("[2001:db8:1:2:3:4:5:6]:65535"));
    vec![
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN but a very long text\r\n".to_vec(),
        ProxyHeader::v1(from, to).to_bytes().unwrap().into(),
        ProxyHeader::v1(v6.0, v6.1).to_bytes().unwrap().into(),
        b"PROXY TCP6 :: :: 0 0\r\n".to_vec(),
        ProxyHeader::local().to_bytes().unwrap().into(),
        ProxyHeader::v2(from, to).to_bytes().unwrap().into(),
        ProxyHeader::v2(v6.0, v6.1).authority("example.com").unique_id([7; 128]).crc32c().to_bytes().unwrap().into(),
        with_tlvs(&[tlv(0xe0, &[1; 505])]),
    ]
}

#[tokio::test]
async fn what_follows_a_header_is_left_in_the_stream() {
    for header in headers() {
        for step in [1, 2, 3, 7, 64, usize::MAX] {
            // The rest begins like a header itself.
            let bytes = [&header[..], &header, b"hello"].concat();
            let mut source = Source::new(&bytes, step);
            read(&mut source, DEFAULT_MAX_HEADER).await.unwrap();
            assert_eq!(source.bytes, [&header[..], b"hello"].concat(), "{} by {step}", header.escape_ascii());
        }
    }
}

#[tokio::test]
async fn a_header_that_has_arrived_takes_few_reads() {
    for header in headers() {
        let mut source = Source::new(&header, usize::MAX);
        read(&mut source, DEFAULT_MAX_HEADER).await.unwrap();
        assert!(source.reads <= 12, "{} reads for {}", source.reads, header.escape_ascii());
    }
}

#[tokio::test]
async fn an_end_inside_a_header_says_how_much_has_arrived() {
    for header in headers() {
        for end in 0..header.len() {
            let error = read(&mut &header[..end], DEFAULT_MAX_HEADER).await.unwrap_err();
            assert!(matches!(error, ProxyError::Truncated { have } if have == end), "{error:?}");
            assert!(error.is_truncated());
        }
    }
}

/// Why the bytes are refused, long before the peer would send more.
async fn refused(io: &mut (impl AsyncRead + Unpin)) -> ProxyError {
    let read = timeout(Duration::from_secs(10), read(io, DEFAULT_MAX_HEADER)).await;
    read.expect("it is refused at once").unwrap_err()
}

#[tokio::test]
async fn what_is_no_header_is_refused_while_the_peer_waits() {
    let (mut ours, mut peer) = duplex(64);
    peer.write_all(b"GET /").await.unwrap();
    let error = refused(&mut ours).await;
    assert_eq!(error.to_string(), r#"not a PROXY header from byte 0 on: "GET /""#);

    peer.write_all(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff").await.unwrap();
    let error = refused(&mut ours).await;
    assert_eq!(error.limit_and_seen(), Some((DEFAULT_MAX_HEADER, 65_551)));
}

#[tokio::test]
async fn the_protocol_above_goes_on_where_the_header_ends() {
    let (mut ours, mut peer) = duplex(1024);
    let header = ProxyHeader::v2(addr("192.0.2.1:1"), addr("192.0.2.2:2")).crc32c().to_bytes().unwrap();
    peer.write_all(&[&header[..], b"hello"].concat()).await.unwrap();
    drop(peer);
    assert_eq!(read(&mut ours, DEFAULT_MAX_HEADER).await.unwrap().source(), Some(addr("192.0.2.1:1")));
    let mut rest = String::new();
    ours.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "hello");
}

#[tokio::test]
async fn no_memory_is_reserved_for_what_is_only_claimed() {
    let mut header = with_tlvs(&[tlv(kind::NOOP, &[0; 60_000])]);
    header.truncate(200);
    let mut source = Source::new(&header, 50);
    let error = read(&mut source, 65_551).await.unwrap_err();
    assert!(matches!(error, ProxyError::Truncated { have: 200 }));
    assert!(source.largest <= 512, "asked for {} bytes", source.largest);
}

#[test]
fn an_error_of_the_transport_is_handed_on() {
    struct Broken;
    impl AsyncRead for Broken {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }
    let outcome = pin!(read(&mut Broken, DEFAULT_MAX_HEADER)).poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(Err(ProxyError::Io(error))) = outcome else { panic!("{outcome:?}") };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}
