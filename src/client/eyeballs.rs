//! The race between the addresses of a name (RFC 8305, "happy eyeballs").

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::limits::Limits;

/// How long an address is tried alone before the next one joins: the "Connection Attempt Delay".
const DELAY: Duration = Duration::from_millis(250);

/// Connects to whichever address answers first. The others are let go.
pub(crate) async fn race(addresses: Vec<SocketAddr>, limits: &Limits) -> io::Result<(TcpStream, SocketAddr)> {
    let mut addresses = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    loop {
        if let Some(addr) = addresses.next() {
            let limits = limits.clone();
            attempts.spawn(async move {
                let stream = crate::transport::tcp::connect(addr, &limits).await;
                stream.map(|stream| (stream, addr)).map_err(|error| (error, addr))
            });
        } else if attempts.is_empty() {
            return Err(last);
        }
        // an address that fails gives its time to the next one
        let joined = if addresses.len() > 0 {
            tokio::time::timeout(DELAY, attempts.join_next()).await.unwrap_or(None)
        } else {
            attempts.join_next().await
        };
        match joined {
            Some(Ok(Ok(won))) => return Ok(won),
            Some(Ok(Err((error, addr)))) => last = io::Error::new(error.kind(), format!("{addr}: {error}")),
            Some(Err(error)) => last = io::Error::other(error),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// A listener whose backlog is full answers nobody.
    #[tokio::test]
    async fn an_address_that_does_not_answer_holds_the_next_one_up_for_the_delay_alone() {
        use socket2::{Domain, Socket, Type};
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&addr("127.0.0.1:0").into()).unwrap();
        listener.listen(0).unwrap();
        let deaf = listener.local_addr().unwrap();
        let fill = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&deaf);
            socket
        };
        let _waiting: Vec<_> = (0..8).map(|_| fill()).collect();
        let good = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();

        let addresses = vec![deaf.as_socket().unwrap(), good.local_addr().unwrap()];
        let (begin, limits) = (tokio::time::Instant::now(), Limits::edge());
        let race = tokio::time::timeout(Duration::from_secs(10), race(addresses, &limits));
        let (_, won) = race.await.expect("waits for the first address").unwrap();
        assert_eq!(won, good.local_addr().unwrap());
        assert!(begin.elapsed() >= DELAY, "the first has its time alone");
    }

    #[tokio::test]
    async fn a_refusal_gives_way_to_the_next_address() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let closed = {
            let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            gone.local_addr().unwrap()
        };
        let (_, won) = race(vec![closed, good], &Limits::edge()).await.unwrap();
        assert_eq!(won, good);
        let error = race(vec![closed], &Limits::edge()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains(&closed.to_string()), "{error}");
    }
}
