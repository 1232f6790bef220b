//! Codecs of others plug in as hythe's own do, in and out may differ; and what a peer sends that is no message closes
//! its connection for a reason that says so, with the limit and what was seen.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]

mod support;

use std::error::Error as StdError;
use std::io;

use bytes::{Buf, BufMut};
use hythe::codec::{CodecError, Delimited, LengthDelimited, Lines};
use hythe::{Bytes, BytesMut, CloseReason, Closed, Connect, Connection, Handler, Limits, Server};
use support::{SECOND, Told, mem, open, open_raw, read_to_end, start, tcp, within};
use tokio::sync::mpsc::unbounded_channel;
use tokio_util::codec::{Decoder, Encoder, LengthDelimitedCodec, LinesCodec};

#[tokio::test]
async fn tokio_utils_lines_codec_plugs_in() {
    let (told, _ends) = Told::<String>::new();
    let (_running, endpoint) = start(Server::new(told.echo()), &tcp(), LinesCodec::new_with_max_length(100)).await;
    // hythe's own at the other end: it is the same format
    let mut conn: Connection<String> = open(&endpoint, Lines::new()).await;
    for line in ["hello", "", "wörld"] {
        conn.send(line.to_string()).await.expect("sent");
        assert_eq!(within("an echo", conn.recv()).await.expect("open").as_deref(), Some(line));
    }
}

#[tokio::test]
async fn tokio_utils_length_codec_plugs_in_though_it_gives_other_messages_than_it_takes() {
    struct Echo;
    impl Handler for Echo {
        type In = BytesMut;
        type Out = Bytes;
        async fn on_message(
            &mut self,
            conn: &mut Connection<BytesMut, Bytes>,
            message: BytesMut,
        ) -> anyhow::Result<()> {
            Ok(conn.send(message.freeze()).await?)
        }
    }
    let server = Server::with(|_: &hythe::Peer| Ok(Echo));
    let (_running, endpoint) = start(server, &tcp(), LengthDelimitedCodec::new()).await;
    let mut own: Connection<Bytes> = open(&endpoint, LengthDelimited::new()).await;
    let theirs = Connect::new().open(endpoint.clone(), LengthDelimitedCodec::new()).await;
    let mut theirs: Connection<BytesMut, Bytes> = theirs.expect("a connection");
    for size in [0, 1, 100_000] {
        let message = Bytes::from(vec![7; size]);
        own.send(message.clone()).await.expect("sent");
        assert_eq!(within("an echo", own.recv()).await.expect("open"), Some(message.clone()));
        theirs.send(message.clone()).await.expect("sent");
        assert_eq!(within("an echo", theirs.recv()).await.expect("open"), Some(BytesMut::from(&message[..])));
    }
}

/// Numbers come in, each with a count of those before it goes out; both directions share nothing.
#[derive(Clone, Default)]
struct Numbered {
    sent: u64,
}

impl Decoder for Numbered {
    type Item = i32;
    type Error = io::Error;
    fn decode(&mut self, src: &mut BytesMut) -> io::Result<Option<i32>> {
        Ok((src.len() >= 4).then(|| src.get_i32()))
    }
}

impl Encoder<String> for Numbered {
    type Error = io::Error;
    fn encode(&mut self, text: String, dst: &mut BytesMut) -> io::Result<()> {
        if text.contains('\n') {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.sent += 1;
        dst.put_slice(format!("{} {text}\n", self.sent).as_bytes());
        Ok(())
    }
}

#[tokio::test]
async fn a_codec_defined_here_plugs_in_and_each_connection_has_its_own() {
    let server = Server::serve(|mut conn: Connection<i32, String>| async move {
        while let Some(number) = conn.recv().await? {
            conn.send(format!("twice {number} is {}", 2 * number)).await?;
            assert!(conn.send("\n".to_string()).await.is_err(), "refused, and nothing of it was sent");
        }
        Ok(())
    });
    let (_running, endpoint) = start(server, &mem(), Numbered::default()).await;
    for _ in 0..2 {
        let mut peer = open_raw(&endpoint).await;
        for number in [1i32, -7, 21] {
            for byte in number.to_be_bytes() {
                peer.send(vec![byte].into()).await.expect("sent");
            }
        }
        let expected = "1 twice 1 is 2\n2 twice -7 is -14\n3 twice 21 is 42\n";
        let mut wire = Vec::new();
        while wire.len() < expected.len() {
            wire.extend_from_slice(&within("lines", peer.recv()).await.expect("open").expect("bytes"));
        }
        assert_eq!(String::from_utf8(wire).as_deref(), Ok(expected));
    }
}

/// Sends `bytes`, and perhaps the end, to a server with this codec: how does it close?
async fn close_of<C, M>(codec: C, bytes: &[u8], end: bool) -> Closed
where
    C: hythe::codec::Codec<M, M>,
    M: Send + 'static,
{
    let (told, mut ends) = Told::<M>::new();
    let limits = Limits::edge().with_max_message(100_000).with_half_close(SECOND);
    let (_running, endpoint) = start(Server::new(told).limits(limits), &tcp(), codec).await;
    let mut peer = open_raw(&endpoint).await;
    peer.send(bytes.to_vec().into()).await.expect("sent");
    if end {
        peer.close().await.expect("closed");
    } else {
        within("the end", read_to_end(&mut peer)).await;
        drop(peer);
    }
    let closed = within("on_close", ends.recv()).await.expect("a connection");
    assert!(ends.try_recv().is_err(), "one close");
    closed
}

fn codec_error(closed: &Closed) -> &CodecError {
    let cause = closed.cause.as_ref().expect("a cause");
    cause.downcast_ref().unwrap_or_else(|| panic!("not the codec's error: {cause}"))
}

#[tokio::test]
async fn a_message_over_the_limit_closes_with_the_limit_and_what_was_seen() {
    let gib = [0x40, 0, 0, 0, b'x'];
    let closed = close_of(LengthDelimited::new().max_length(1000), &gib, false).await;
    assert_eq!(closed.reason, CloseReason::TooLarge);
    assert_eq!(codec_error(&closed).limit_and_seen(), Some((1000, 1 << 30)));
    let endless = vec![b'x'; 50_000];
    let closed = close_of(Lines::new().max_length(1000), &endless, false).await;
    assert_eq!(closed.reason, CloseReason::TooLarge);
    let (limit, seen) = codec_error(&closed).limit_and_seen().expect("both");
    assert!(limit == 1000 && (1001..=50_000).contains(&seen), "{limit}, {seen}");
    let closed = close_of(Delimited::new("--").max_length(1000), &endless, false).await;
    assert_eq!(closed.reason, CloseReason::TooLarge);
    // and a length that no message has: 2^64 - 1, and a varint that does not end
    let closed = close_of(LengthDelimited::new().prefix_bytes(8), &[0xff; 8], false).await;
    assert_eq!(closed.reason, CloseReason::TooLarge);
    assert_eq!(codec_error(&closed).limit_and_seen().map(|(_, seen)| seen), Some(u64::MAX));
    let closed = close_of(LengthDelimited::new().varint(), &[0xff; 11], false).await;
    assert_eq!(closed.reason, CloseReason::Protocol);
    assert!(matches!(codec_error(&closed), CodecError::BadVarint));
    let closed = close_of(Lines::new(), b"\xff\n", false).await;
    assert_eq!(closed.reason, CloseReason::Protocol);
    assert!(matches!(codec_error(&closed), CodecError::NotUtf8 { valid_up_to: 0 }));
}

/// The straight-line style sees the same, as the source of its error.
#[tokio::test]
async fn recv_tells_the_limit_and_what_was_seen_as_well() {
    let (to, mut errors) = unbounded_channel();
    let server = Server::serve(move |mut conn: Connection<Bytes>| {
        let to = to.clone();
        async move {
            let error = conn.recv().await.expect_err("too large");
            let chain: Vec<_> =
                std::iter::successors(Some(&error as &(dyn StdError + 'static)), |error| (*error).source())
                    .map(ToString::to_string)
                    .collect();
            let _ = to.send((error.close_reason(), chain));
            Ok(())
        }
    });
    let (_running, endpoint) = start(server, &mem(), LengthDelimited::new().max_length(1000)).await;
    let mut peer = open_raw(&endpoint).await;
    peer.send(Bytes::from_static(&[0x40, 0, 0, 0])).await.expect("sent");
    let (reason, chain) = within("the error", errors.recv()).await.expect("an error");
    assert_eq!(reason, Some(CloseReason::TooLarge));
    assert!(chain.iter().any(|text| text.contains("1000") && text.contains("1073741824")), "{chain:?}");
}

/// Takes everything, finds nothing.
#[derive(Clone)]
struct Never;

impl Decoder for Never {
    type Item = Bytes;
    type Error = io::Error;
    fn decode(&mut self, _: &mut BytesMut) -> io::Result<Option<Bytes>> {
        Ok(None)
    }
}

impl Encoder<Bytes> for Never {
    type Error = io::Error;
    fn encode(&mut self, _: Bytes, _: &mut BytesMut) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_codec_that_never_finds_a_message_is_stopped_at_the_connections_limit() {
    let closed = close_of(Never, &vec![0; 500_000], false).await;
    assert_eq!(closed.reason, CloseReason::TooLarge, "{closed:?}");
    assert!((100_000..=100_000 + (64 << 10) + 1024).contains(&closed.bytes_in), "{closed:?}");
    assert_eq!(closed.messages_in, 0);
}

/// What tokio-util's default of `decode_eof` makes of an end inside a message, which has no type of its own.
#[tokio::test]
async fn an_end_inside_a_message_is_one_with_any_codec() {
    for part in [&b"\0\0\0\x09half"[..], b"\0"] {
        let closed = close_of::<_, Bytes>(LengthDelimited::new(), part, true).await;
        assert_eq!(closed.reason, CloseReason::Truncated);
        assert!(matches!(codec_error(&closed), CodecError::Truncated { have, .. } if *have == part.len()));
        let closed = close_of(Never, part, true).await;
        assert_eq!(closed.reason, CloseReason::Truncated, "{closed:?}");
    }
    // a line without an end is a line
    let closed = close_of(LinesCodec::new(), b"whole\nhalf", true).await;
    assert_eq!((closed.reason, closed.messages_in), (CloseReason::PeerClosed, 2));
    let closed = close_of(LinesCodec::new(), b"whole\n\xff", true).await;
    assert_eq!((closed.reason, closed.messages_in), (CloseReason::Protocol, 1), "{closed:?}");
}
