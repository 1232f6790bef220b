//! A handler that holds an `Rc` across an await.

use std::rc::Rc;

use hythe::codec::Lines;
use hythe::{Connection, Handler, Server};

#[derive(Clone)]
struct Shouting;

impl Handler for Shouting {
    type In = String;
    type Out = String;

    async fn on_message(&mut self, conn: &mut Connection<String>, message: String) -> anyhow::Result<()> {
        let shared = Rc::new(message.to_uppercase());
        conn.send(message).await?;
        conn.send(shared.to_string()).await?;
        Ok(())
    }
}

fn main() {
    let _ = Server::new(Shouting).bind("tcp://127.0.0.1:0", Lines::new());
}
