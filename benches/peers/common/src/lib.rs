//! What the servers share: their arguments, what they tell, and frames.

use std::io::{Read, Write};

use socket2::{Domain, SockAddr, Socket, Type};

/// The longest frame, in bytes.
pub const LONGEST: usize = 1 << 20;
/// Connections that may wait to be accepted.
pub const BACKLOG: i32 = 4096;

/// What a server has to do.
pub struct Task {
    /// `tcp`, `unix`, `udp` or `fan-out`.
    pub mode: String,
    /// Where a Unix socket goes.
    pub path: String,
}

impl Task {
    /// From the command line: `SERVER MODE PATH`.
    pub fn from_args() -> Self {
        let mut args = std::env::args().skip(1);
        match (args.next(), args.next()) {
            (Some(mode), Some(path)) => Self { mode, path },
            _ => panic!("SERVER tcp|unix|udp|fan-out PATH"),
        }
    }

    /// A listener that does not block, at a free port of 127.0.0.1 or at the path.
    pub fn listener(&self) -> std::io::Result<Socket> {
        let (domain, address) = if self.mode == "unix" {
            (Domain::UNIX, SockAddr::unix(&self.path)?)
        } else {
            (Domain::IPV4, std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
        };
        let socket = Socket::new(domain, Type::STREAM, None)?;
        socket.bind(&address)?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        match address.as_socket() {
            Some(address) => ready(&address.to_string()),
            None => ready(&self.path),
        }
        Ok(socket)
    }
}

/// Tells where the server listens. From now on it ends with its standard input.
pub fn ready(address: &str) {
    println!("{address}");
    std::io::stdout().flush().expect("standard output");
    let thread = std::thread::Builder::new().stack_size(64 << 10);
    let watch = || {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    };
    thread.spawn(watch).expect("a thread");
}

/// How many bytes of whole frames there are at the start of the input, or `None` for a frame that is too long.
pub fn whole_frames(input: &[u8]) -> Option<usize> {
    let mut end = 0;
    while let Some(prefix) = input[end..].first_chunk::<4>() {
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > LONGEST {
            return None;
        }
        if input.len() - end < 4 + length {
            break;
        }
        end += 4 + length;
    }
    Some(end)
}
