//! What the tests of `hythe::testing` share.
#![allow(dead_code)] // each test crate uses its own part

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use hythe::{Connection, Server, Session};

/// Answers each line in capitals; `bye` with an end, `late` after ten seconds, `fail` with an error.
pub(crate) fn shout() -> Server<impl Session<In = String, Out = String>> {
    Server::serve(|mut conn: Connection<String>| async move {
        while let Some(line) = conn.recv().await? {
            match line.as_str() {
                "bye" => return Ok(()),
                "fail" => anyhow::bail!("on purpose"),
                "late" => tokio::time::sleep(std::time::Duration::from_secs(10)).await,
                _ => {}
            }
            conn.send(line.to_uppercase()).await?;
        }
        Ok(())
    })
}

/// The text of the panic that `test` ends with.
pub(crate) async fn failure(test: impl Future) -> String {
    let panic = AssertUnwindSafe(test).catch_unwind().await.err().expect("a failure");
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast::<&str>().expect("a text").to_string(),
    }
}
