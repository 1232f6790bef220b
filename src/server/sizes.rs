//! What the parts of an idle connection take: the table on the page of `connection`.

use super::hub::Hub;
use super::open::Admission;
use crate::Bytes;
use crate::codec::LengthDelimited;
use crate::connection::{Connection, Core, Driver, Outbox, StreamIn};
use crate::handler::{Cloned, Handler, Session};
use crate::transport::{ByteStream, MaybeTlsWrite, tcp::Tcp};

#[derive(Clone)]
struct Echo;

impl Handler for Echo {
    type In = Bytes;
    type Out = Bytes;

    async fn on_message(&mut self, conn: &mut Connection<Bytes>, message: Bytes) -> anyhow::Result<()> {
        conn.send(message).await?;
        Ok(())
    }
}

/// That of the task that drives what a session returns, without tokio's part.
fn task<F>(_: impl FnOnce(&'static Cloned<Echo>, Connection<Bytes>) -> F) -> usize {
    size_of::<Driver<F, Hub>>()
}

/// In an [`Arc`].
const fn shared<T>() -> usize {
    size_of::<T>() + 2 * size_of::<usize>()
}

#[test]
fn no_part_takes_more_than_its_documentation_says() {
    let page = include_str!("../connection/mod.rs");
    let column = if cfg!(any(feature = "tls", feature = "metrics")) { 2 } else { 1 };
    let said = |part: &str| {
        let row = page.lines().find_map(|line| line.strip_prefix("//! | ")?.strip_prefix(part));
        let cell = row.and_then(|row| row.split('|').nth(column));
        cell.and_then(|cell| cell.trim().parse::<usize>().ok()).unwrap_or_else(|| panic!("no row for {part}"))
    };
    type Read = <Tcp as ByteStream>::Read;
    type Write = MaybeTlsWrite<<Tcp as ByteStream>::Write>;
    let parts = [
        ("task", task(|session, conn| session.run(conn))),
        ("read half", size_of::<StreamIn<Read, LengthDelimited, Admission>>()),
        ("outbox", shared::<Outbox<LengthDelimited, Write>>()),
        ("core", shared::<Core>()),
    ];
    for (part, size) in parts {
        println!("{part}: {size}");
        assert!(size <= said(part), "{part} takes {size} bytes, and is said to take {}", said(part));
    }
}
