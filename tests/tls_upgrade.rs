//! `start_tls`: a connection that begins in the clear goes on encrypted, on either side and on any byte stream, and
//! nothing that was said in the clear is taken for what is encrypted.

#![cfg(all(feature = "tls", feature = "udp", feature = "unix"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod server_support;
mod tls_support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hythe::codec::{LengthDelimited, Lines};
use hythe::tls::{ClientTls, ServerTls};
use hythe::{
    BindOptions, Bytes, CloseReason, Closed, Connect, Connection, ErrorKind, Handler, Limits, Running, Sender, Server,
};
use rustls::pki_types::ServerName;
use server_support::{addr, eventually, within};
use tls_support::{Authority, plain_config};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

/// Echoes lines, and knows STARTTLS.
#[derive(Clone)]
struct Mail {
    tls: ServerTls,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    ends: Mutex<Vec<Closed>>,
    senders: Mutex<Vec<Sender<String>>>,
}

impl Handler for Mail {
    type In = String;
    type Out = String;

    async fn on_open(&mut self, conn: &mut Connection<String>) -> anyhow::Result<()> {
        self.log.senders.lock().unwrap().push(conn.sender());
        Ok(())
    }

    async fn on_message(&mut self, conn: &mut Connection<String>, line: String) -> anyhow::Result<()> {
        self.log.lines.lock().unwrap().push(line.clone());
        if line == "STARTTLS" {
            conn.send("220 go ahead".into()).await?;
            conn.start_tls(&self.tls).await?;
            return Ok(());
        }
        conn.send(format!("{line} {}", conn.peer().tls().is_some())).await?;
        Ok(())
    }

    async fn on_close(self, closed: Closed) {
        self.log.ends.lock().unwrap().push(closed);
    }
}

struct Here {
    running: Running,
    authority: Authority,
    log: Arc<Log>,
}

impl Here {
    async fn new(endpoint: &str, limits: Limits) -> Self {
        let authority = Authority::new();
        let tls = authority.server(&["localhost"]).server_tls().build().unwrap();
        let log = Arc::new(Log::default());
        let server = Server::new(Mail { tls, log: Arc::clone(&log) }).limits(limits);
        let running = server.bind(endpoint, Lines::new()).start().await.unwrap();
        Self { running, authority, log }
    }

    async fn tcp() -> Self {
        Self::new("tcp://127.0.0.1:0", Limits::edge()).await
    }

    fn client_tls(&self) -> ClientTls {
        self.authority.client_tls().server_name("localhost").build().unwrap()
    }

    async fn connect(&self) -> Connection<String> {
        Connect::new().open(&self.running.endpoints()[0], Lines::new()).await.unwrap()
    }

    /// A client in the clear that has been told to go ahead.
    async fn going_ahead(&self) -> BufReader<TcpStream> {
        let mut stream = BufReader::new(TcpStream::connect(addr(&self.running, 0)).await.unwrap());
        stream.write_all(b"STARTTLS\n").await.unwrap();
        assert_eq!(line(&mut stream).await, "220 go ahead");
        stream
    }

    async fn end(&self) -> Closed {
        eventually("the end of a connection", || !self.log.ends.lock().unwrap().is_empty()).await;
        self.log.ends.lock().unwrap().remove(0)
    }
}

async fn line(stream: &mut (impl AsyncBufReadExt + Unpin)) -> String {
    let mut line = String::new();
    within("a line", stream.read_line(&mut line)).await.unwrap();
    line.trim_end().to_owned()
}

async fn ask(conn: &mut Connection<String>, text: &str) -> Option<String> {
    conn.send(text.into()).await.unwrap();
    within("an answer", conn.recv()).await.unwrap()
}

#[tokio::test]
async fn both_sides_go_on_encrypted_over_any_byte_stream() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = format!("unix:{}", dir.path().join("socket").display());
    for endpoint in ["tcp://127.0.0.1:0", path.as_str(), "mem:tls-upgrade"] {
        let here = Here::new(endpoint, Limits::edge()).await;
        let mut conn = here.connect().await;
        assert_eq!(ask(&mut conn, "a").await.as_deref(), Some("a false"));
        assert!(conn.peer().tls().is_none());
        assert_eq!(ask(&mut conn, "STARTTLS").await.as_deref(), Some("220 go ahead"));
        within("the handshake", conn.start_tls(&here.client_tls())).await.unwrap();
        assert_eq!(conn.peer().tls().unwrap().server_name(), Some("localhost"));
        assert_eq!(ask(&mut conn, "b").await.as_deref(), Some("b true"));
        // once is enough
        let error = conn.start_tls(&here.client_tls()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(ask(&mut conn, "c").await.as_deref(), Some("c true"));
        assert!(here.running.connections()[0].peer.tls().is_some());
        conn.close().await.unwrap();
        let closed = here.end().await;
        assert_eq!(closed.reason, CloseReason::PeerClosed, "{endpoint}: the end is said inside");
        assert!(closed.peer.tls().is_some());
        here.running.shutdown(Duration::from_secs(5)).await;
    }
}

#[tokio::test]
async fn what_came_in_the_clear_behind_the_command_is_not_taken() {
    let here = Here::tcp().await;
    let mut stream = BufReader::new(TcpStream::connect(addr(&here.running, 0)).await.unwrap());
    stream.write_all(b"STARTTLS\nDELETE everything\n").await.unwrap();
    assert_eq!(line(&mut stream).await, "220 go ahead");
    assert_eq!(within("the end", stream.read(&mut [0; 16])).await.unwrap(), 0);
    drop(stream);
    assert_eq!(here.end().await.reason, CloseReason::Protocol);
    // a part of a line is as bad
    let mut stream = TcpStream::connect(addr(&here.running, 0)).await.unwrap();
    stream.write_all(b"STARTTLS\nDELETE every").await.unwrap();
    assert_eq!(here.end().await.reason, CloseReason::Protocol);
    assert_eq!(*here.log.lines.lock().unwrap(), ["STARTTLS", "STARTTLS"], "nothing else was heard");
}

#[tokio::test]
async fn a_client_does_not_take_what_came_in_the_clear_behind_the_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = format!("tcp://{}", listener.local_addr().unwrap());
    let server = async {
        let mut stream = listener.accept().await.unwrap().0;
        stream.write_all(b"220 go ahead\n250 you may trust me\n").await.unwrap();
        stream
    };
    let connect = Connect::new();
    let (mut server, conn) = tokio::join!(server, connect.open(to, Lines::new()));
    let mut conn: Connection<String> = conn.unwrap();
    assert_eq!(within("the answer", conn.recv()).await.unwrap().as_deref(), Some("220 go ahead"));
    let tls = Authority::new().client_tls().server_name("localhost").build().unwrap();
    let error = within("the refusal", conn.start_tls(&tls)).await.unwrap_err();
    assert_eq!(error.close_reason(), Some(CloseReason::Protocol));
    assert!(within("nothing more", conn.recv()).await.is_err());
    drop(conn);
    let mut bytes = Vec::new();
    within("the end", server.read_to_end(&mut bytes)).await.unwrap();
    assert!(bytes.is_empty(), "no ClientHello");
}

#[tokio::test]
async fn what_others_send_meanwhile_waits_and_goes_out_encrypted_in_order() {
    let here = Here::tcp().await;
    let stream = here.going_ahead().await;
    let sender = here.log.senders.lock().unwrap().pop().unwrap();
    eventually("the handshake has begun", || here.running.counters().handshakes == 1).await;
    for i in 0..100 {
        sender.send(i.to_string()).await.unwrap();
    }
    let config = Arc::new(plain_config(&here.authority, rustls::ALL_VERSIONS));
    let name = ServerName::try_from("localhost").unwrap();
    // in the clear there was nothing: it would be taken for a ServerHello here
    let stream = within("the handshake", TlsConnector::from(config).connect(name, stream)).await.unwrap();
    let mut stream = BufReader::new(stream);
    for i in 0..100 {
        assert_eq!(line(&mut stream).await, i.to_string());
    }
}

#[tokio::test]
async fn a_handshake_that_does_not_come_to_an_end_ends_the_connection() {
    let limits = Limits::edge().with_handshake(Duration::from_millis(1500)).with_handshakes(1);
    let here = Here::new("tcp://127.0.0.1:0", limits).await;
    let first = here.going_ahead().await;
    let second = here.going_ahead().await;
    let text = |closed: &Closed| closed.cause.as_ref().unwrap().to_string();
    let closed = here.end().await;
    assert_eq!((closed.reason, text(&closed).as_str()), (CloseReason::Handshake, "there were too many handshakes"));
    let closed = here.end().await;
    assert_eq!((closed.reason, text(&closed).as_str()), (CloseReason::Handshake, "it was not through within 1.5s"));
    drop((first, second));
    assert_eq!(here.running.counters().handshakes, 0);
}

#[tokio::test]
async fn garbage_in_place_of_a_handshake_ends_the_connection() {
    let here = Here::tcp().await;
    let mut stream = here.going_ahead().await;
    stream.write_all(b"EHLO example.org\r\n").await.unwrap();
    assert_eq!(here.end().await.reason, CloseReason::Handshake);
    // the alert came before the end
    let mut alert = Vec::new();
    let _ = within("the end", stream.read_to_end(&mut alert)).await;
    assert_eq!(alert.first(), Some(&21));
}

#[tokio::test]
async fn a_server_that_is_not_trusted_ends_it_on_both_sides() {
    let here = Here::tcp().await;
    let mut conn = here.connect().await;
    assert_eq!(ask(&mut conn, "STARTTLS").await.as_deref(), Some("220 go ahead"));
    let other = Authority::new().client_tls().server_name("localhost").build().unwrap();
    let error = within("the refusal", conn.start_tls(&other)).await.unwrap_err();
    assert_eq!(error.close_reason(), Some(CloseReason::Handshake));
    let closed = here.end().await;
    assert_eq!(closed.reason, CloseReason::Handshake);
    assert!(closed.cause.unwrap().to_string().contains("UnknownCA"));
}

#[tokio::test]
async fn a_handshake_that_is_given_up_ends_the_connection() {
    let here = Here::tcp().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut conn: Connection<String> =
        Connect::new().open(format!("tcp://{}", listener.local_addr().unwrap()), Lines::new()).await.unwrap();
    let tls = here.client_tls();
    assert!(size_of_val(&conn.start_tls(&tls)) < 2048, "it is a part of every handler that calls it");
    tokio::select! {
        biased;
        _ = conn.start_tls(&tls) => panic!("nobody answers"),
        () = std::future::ready(()) => {}
    }
    let error = conn.send("in the clear?".into()).await.unwrap_err();
    assert_eq!(error.close_reason(), Some(CloseReason::Handshake));
    let mut stream = listener.accept().await.unwrap().0;
    drop(conn);
    let mut bytes = Vec::new();
    let _ = within("the end", stream.read_to_end(&mut bytes)).await;
    assert!(!String::from_utf8_lossy(&bytes).contains("clear"));
}

#[tokio::test]
async fn where_there_is_no_stream_or_no_name_the_connection_stays_as_it_is() {
    let here = Here::new("mem:tls-nameless", Limits::edge()).await;
    let mut conn = here.connect().await;
    let nameless = here.authority.client_tls().build().unwrap();
    let error = conn.start_tls(&nameless).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(ask(&mut conn, "a").await.as_deref(), Some("a false"));

    let running = Server::new(server_support::Echo).bind("udp://127.0.0.1:0", Lines::new()).start().await.unwrap();
    let mut conn: Connection<String> = Connect::new().open(&running.endpoints()[0], Lines::new()).await.unwrap();
    let error = conn.start_tls(&here.client_tls()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(ask(&mut conn, "a").await.as_deref(), Some("a"));
}

#[tokio::test]
async fn on_an_encrypted_connection_it_is_refused() {
    let authority = Authority::new();
    let tls = authority.server(&["localhost"]).server_tls().build().unwrap();
    let server = Server::new(Mail { tls: tls.clone(), log: Arc::default() });
    let options = BindOptions::new().tls(tls);
    let running = server.bind_with("tls://127.0.0.1:0", Lines::new(), options).start().await.unwrap();
    let connect = Connect::new().tls(authority.client_tls().server_name("localhost").build().unwrap());
    let mut conn: Connection<String> = connect.open(&running.endpoints()[0], Lines::new()).await.unwrap();
    assert_eq!(ask(&mut conn, "STARTTLS").await.as_deref(), Some("220 go ahead"));
    assert_eq!(within("the end", conn.recv()).await.unwrap(), None, "the handler failed");
}

/// In memory the stream holds a known number of bytes, so that for some size there is room for all of a message, and none
/// for the `close_notify` after it. Under a paused clock.
#[tokio::test(start_paused = true)]
async fn an_end_for_which_there_is_no_room_is_waited_for_no_longer_than_a_stall() {
    let authority = Authority::new();
    let tls = authority.server(&["localhost"]).server_tls().build().unwrap();
    let ends = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&ends);
    let session = move |mut conn: Connection<Bytes>| {
        let (tls, log) = (tls.clone(), Arc::clone(&log));
        async move {
            let size: usize = String::from_utf8(conn.recv().await?.unwrap().to_vec())?.parse()?;
            conn.send("go ahead".into()).await?;
            conn.start_tls(&tls).await?;
            conn.send(vec![7; size].into()).await?;
            let flushed = conn.flush().await.is_ok();
            let closed = conn.close().await.is_ok();
            log.lock().unwrap().push((flushed, closed));
            Ok(())
        }
    };
    let server = Server::serve(session).limits(Limits::edge().with_max_connections(200));
    let running = server.bind("mem:tls-last-words", LengthDelimited::new()).start().await.unwrap();
    let client = authority.client_tls().server_name("localhost").build().unwrap();
    let mut clients = Vec::new();
    // 64 KiB, less the tickets, and 22 bytes for each record
    for size in (65_536 - 1000..65_536).step_by(10) {
        let mut conn: Connection<Bytes> =
            Connect::new().open("mem:tls-last-words", LengthDelimited::new()).await.unwrap();
        conn.send(size.to_string().into()).await.unwrap();
        conn.recv().await.unwrap();
        conn.start_tls(&client).await.unwrap();
        clients.push(conn);
    }
    while running.counters().open > 0 {
        assert!(ends.lock().unwrap().len() <= clients.len());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(running.connections().iter().all(|open| open.age < Duration::from_secs(120)), "for ever");
    }
    let ends = ends.lock().unwrap();
    assert!(ends.contains(&(true, true)) && ends.contains(&(false, false)), "{ends:?}");
    assert!(ends.contains(&(true, false)), "no size left room for the message alone: {ends:?}");
}
