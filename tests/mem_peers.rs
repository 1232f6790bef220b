//! Peers in memory can be told apart, and a connection in memory ends as one of a socket does.

use hythe::codec::{LengthDelimited, Raw};
use hythe::{Bytes, CloseReason, Connection, PeerAddress, Server};
use tokio::sync::mpsc::unbounded_channel;

#[tokio::test]
async fn each_peer_in_memory_has_a_number_of_its_own() {
    let (told, mut addresses) = unbounded_channel();
    let server = Server::serve(move |conn: Connection<Bytes>| {
        let _ = told.send(conn.peer().address());
        async { Ok(()) }
    });
    let _running = server.bind("mem:numbers", Raw::new()).start().await.expect("the server starts");
    let mut numbers = Vec::new();
    for _ in 0..3 {
        let conn: Connection<Bytes> = hythe::connect("mem:numbers", Raw::new()).await.expect("a connection");
        let address = addresses.recv().await.expect("a session");
        assert_eq!(conn.peer().address(), address, "both sides say the same");
        let PeerAddress::Memory(number) = address else { panic!("{address:?}") };
        numbers.push(number);
    }
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
}

#[tokio::test]
async fn an_abort_is_a_reset_to_a_peer_in_memory() {
    let server = Server::serve(|mut conn: Connection<Bytes>| async move {
        conn.recv().await?;
        conn.send(Bytes::from_static(b"half a rep")).await?;
        conn.abort();
        Ok(())
    });
    let _running = server.bind("mem:abort", LengthDelimited::new()).start().await.expect("the server starts");
    let mut conn: Connection<Bytes> = hythe::connect("mem:abort", LengthDelimited::new()).await.expect("a connection");
    conn.send(Bytes::from_static(b"request")).await.expect("sent");
    let error = conn.recv().await.expect_err("no orderly end");
    assert_eq!(error.close_reason(), Some(CloseReason::PeerReset));
}
