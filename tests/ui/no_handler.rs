//! Something that is no handler at all.

use hythe::Server;
use hythe::codec::Lines;

#[derive(Clone)]
struct Echo;

fn main() {
    let _ = Server::new(Echo).bind("tcp://127.0.0.1:0", Lines::new());
}
