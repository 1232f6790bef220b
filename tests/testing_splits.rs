//! Cut bytes: what does not care passes, what does is found, and the message says where and how.

#![cfg(feature = "testing")]

mod testing_support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hythe::codec::{Delimited, LengthDelimited, Lines, Raw};
use hythe::testing::{Script, every_split, every_split_with};
use hythe::{Bytes, BytesMut, CloseReason, Connection, Limits, Server, Session};
use testing_support::{failure, shout};
use tokio_util::codec::{Decoder, Encoder};

fn echo<M: Send + 'static>() -> Server<impl Session<In = M, Out = M>> {
    Server::serve(|mut conn: Connection<M>| async move {
        while let Some(message) = conn.recv().await? {
            conn.send(message).await?;
        }
        Ok(())
    })
}

#[tokio::test]
async fn hythes_own_codecs_do_not_care() {
    let script = Script::new().send("one").recv("ONE").send("").recv("").send_bytes("bye\r\nlost\n");
    every_split(shout, Lines::new(), script.ends(CloseReason::Local)).await;

    let words = ["one", "", "three", "a longer word than the others"];
    let script = || words.into_iter().fold(Script::new(), |script, word| script.send(word));
    let answers = |script| words.into_iter().fold(script, |script: Script<Bytes>, word| script.recv(word));
    every_split(echo, LengthDelimited::new(), answers(script())).await;
    every_split(echo, LengthDelimited::new().varint(), answers(script())).await;
    every_split(echo, LengthDelimited::new().prefix_bytes(8).little_endian(), answers(script())).await;
    every_split(echo, Delimited::new("--"), answers(script())).await;

    // an error is the same one everywhere, and what was whole before it is answered
    let script = script().send_bytes(b"\x7f\xff\xff\xff and more").ends(CloseReason::TooLarge);
    every_split(echo, LengthDelimited::new(), answers(script)).await;
    let script = Script::<String>::new().send_bytes(b"good\n\xff\nlost\n").recv("good").ends(CloseReason::Protocol);
    every_split(echo, Lines::new(), script).await;
    let script = Script::<Bytes>::new().send_bytes(b"\0\0\0\x08half").ends(CloseReason::Truncated);
    every_split(echo, LengthDelimited::new(), script).await;
}

/// Takes what one read brings for a line.
fn naive() -> Server<impl Session<In = Bytes, Out = Bytes>> {
    Server::serve(|mut conn: Connection<Bytes>| async move {
        while let Some(bytes) = conn.recv().await? {
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                conn.send([b"<", line.trim_ascii_end(), b">\n"].concat().into()).await?;
            }
        }
        Ok(())
    })
}

#[tokio::test]
async fn a_handler_that_takes_a_read_for_a_message_is_found() {
    let script = Script::new().send("hello").recv("<hello>").send("you").recv("<you>");
    let text = failure(every_split_with(naive, Raw::new(), Delimited::new("\n"), script)).await;
    let expected = "\
: cut in two after the first byte, the handler does not do what it does in one piece
  sent: b\"h\", then b\"ello\\nyou\\n\"
  answer 1, in one piece: b\"<hello>\"
  answer 1, now:          b\"<h>\"
";
    assert!(text.starts_with("tests/testing_splits.rs:") && text.ends_with(expected), "{text}");
}

/// A codec that swallows a CR at the end of what has arrived.
#[derive(Clone)]
struct Forgetful(Lines);

impl Decoder for Forgetful {
    type Item = String;
    type Error = anyhow::Error;
    fn decode(&mut self, src: &mut BytesMut) -> anyhow::Result<Option<String>> {
        if src.ends_with(b"r") {
            src.truncate(src.len() - 1);
        }
        Ok(self.0.decode(src)?)
    }
}

impl Encoder<String> for Forgetful {
    type Error = anyhow::Error;
    fn encode(&mut self, line: String, dst: &mut BytesMut) -> anyhow::Result<()> {
        Ok(self.0.encode(line, dst)?)
    }
}

#[tokio::test]
async fn a_codec_that_loses_a_byte_at_one_cut_is_found_there() {
    let script = Script::new().send("hello").recv("HELLO").send("world").recv("WORLD");
    let text = failure(every_split_with(shout, Forgetful(Lines::new()), Lines::new(), script)).await;
    for part in ["cut in two after 9 bytes", "sent: b\"hello\\nwor\", then b\"ld\\n\"", "\"WORLD\"", "\"WOLD\""] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// As it should be, but for the end: an error where nothing is left of a message at the end.
#[derive(Clone)]
struct Strict {
    held: bool,
}

impl Decoder for Strict {
    type Item = Bytes;
    type Error = io::Error;
    fn decode(&mut self, src: &mut BytesMut) -> io::Result<Option<Bytes>> {
        // remembers that a message came in two parts
        self.held |= src.len() == 1;
        Ok((src.len() >= 2).then(|| src.split_to(2).freeze()))
    }
    fn decode_eof(&mut self, src: &mut BytesMut) -> io::Result<Option<Bytes>> {
        if self.held && src.is_empty() { Err(io::Error::other("on purpose")) } else { self.decode(src) }
    }
}

impl Encoder<Bytes> for Strict {
    type Error = io::Error;
    fn encode(&mut self, message: Bytes, dst: &mut BytesMut) -> io::Result<()> {
        dst.extend_from_slice(&message);
        Ok(())
    }
}

#[tokio::test]
async fn an_end_for_another_reason_is_found() {
    let script = Script::new().send("ab").recv("ab");
    let text = failure(every_split_with(echo, Strict { held: false }, LengthDelimited::new().prefix_bytes(1), script));
    // the peers' codec does not speak what comes: the script is wrong, and that is said first
    let text = text.await;
    assert!(text.contains("the script does not go as it says"), "{text}");

    let script = Script::new().send("ab").send("cd").recv("abcd").ends(CloseReason::PeerClosed);
    let text = failure(every_split_with(echo, Strict { held: false }, Raw::new(), script)).await;
    for part in
        ["cut in two after the first byte", "the end, in one piece: peer_closed", "the end, now:          protocol"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn a_script_that_does_not_go_as_it_says_is_told_so() {
    let text = failure(every_split(shout, Lines::new(), Script::new().send("a").recv("B"))).await;
    let expected =
        ": the script does not go as it says\n  answer 1, the script:  \"B\"\n  answer 1, there came:  \"A\"\n";
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(squeeze(&text).ends_with(&squeeze(expected)), "{text}");

    let script = Script::<String>::new().send("a").recv("A").recv("B");
    let text = squeeze(&failure(every_split(shout, Lines::new(), script)).await);
    assert!(text.contains("answer 2, the script: \"B\" answer 2, there came: none"), "{text}");

    let script = Script::<String>::new().send("a").recv("A").send("b");
    let text = squeeze(&failure(every_split(shout, Lines::new(), script)).await);
    assert!(text.contains("answer 2, the script: none answer 2, there came: \"B\""), "{text}");

    let script = Script::<String>::new().send("a").recv("A").ends(CloseReason::Handler);
    let text = squeeze(&failure(every_split(shout, Lines::new(), script)).await);
    assert!(
        text.contains("the end, in the script: handler (the session failed) the end that came: peer_closed"),
        "{text}"
    );

    let script = Script::<String>::new().send("two\nlines");
    let text = failure(every_split(shout, Lines::new(), script)).await;
    assert!(text.contains("the peer's codec refused a message of the script"), "{text}");
}

/// Which cuts there are, and that each has a server of its own.
#[tokio::test]
async fn each_run_has_a_new_server_and_there_is_one_for_every_cut() {
    let servers = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&servers);
    let server = move || {
        count.fetch_add(1, Ordering::Relaxed);
        let seen = Arc::new(AtomicUsize::new(0));
        Server::serve(move |mut conn: Connection<String>| {
            let seen = Arc::clone(&seen);
            async move {
                while conn.recv().await?.is_some() {
                    conn.send(seen.fetch_add(1, Ordering::Relaxed).to_string()).await?;
                }
                Ok(())
            }
        })
    };
    every_split(server, Lines::new(), Script::new().send("12345678").send("0").recv("0").recv("1")).await;
    assert_eq!(
        servers.load(Ordering::Relaxed),
        1 + 10 + 2,
        "in one piece, 10 cuts of 11 bytes, byte by byte both ways"
    );
}

/// A script without answers: the first run says what there is to come. And a handler that takes its time.
#[tokio::test]
async fn a_script_may_leave_the_answers_to_the_first_run() {
    let script = Script::<String>::new().send("one").send("late").send("two").send("fail");
    every_split(shout, Lines::new(), script).await;
    every_split(shout, Lines::new(), Script::new()).await;
}

#[tokio::test]
async fn what_a_run_leaves_behind_is_found() {
    let server = || {
        Server::serve(|mut conn: Connection<String>| async move {
            while conn.recv().await?.is_some() {
                tokio::spawn(std::future::pending::<()>());
            }
            Ok(())
        })
        .limits(Limits::tiny())
    };
    let text = failure(every_split(server, Lines::new(), Script::<String>::new().send("one"))).await;
    assert!(text.contains("in one piece: left of the server under test: 1 tasks"), "{text}");
}
