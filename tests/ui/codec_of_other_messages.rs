//! A codec whose messages are not the handler's.

use hythe::codec::LengthDelimited;
use hythe::{Connection, Handler, Server};

#[derive(Clone)]
struct Echo;

impl Handler for Echo {
    type In = String;
    type Out = String;

    async fn on_message(&mut self, conn: &mut Connection<String>, message: String) -> anyhow::Result<()> {
        conn.send(message).await?;
        Ok(())
    }
}

fn main() {
    let _ = Server::new(Echo).bind("tcp://127.0.0.1:0", LengthDelimited::new());
}
