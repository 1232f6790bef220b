//! Sockets that a server's endpoints get from elsewhere, instead of making them: from the server before it, or from a
//! service manager.

#[cfg(any(feature = "tcp", feature = "udp"))]
use std::net::SocketAddr;

#[cfg(any(feature = "tcp", feature = "udp", feature = "unix"))]
use socket2::Socket;

#[cfg(any(feature = "tcp", feature = "udp", feature = "unix"))]
use crate::endpoint::Endpoint;
#[cfg(any(feature = "fd", feature = "handover"))]
use crate::transport::given::Given;
#[cfg(feature = "handover")]
use {crate::sync::lock, crate::transport::given::Kind};
#[cfg(feature = "unix")]
use {crate::transport::BindOptions, crate::transport::unix::SocketFile};

/// What the server before this one handed over and no endpoint has taken yet.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    /// Each is taken once, by whoever binds it.
    #[cfg(feature = "handover")]
    handed: crate::sync::Mutex<Vec<Handed>>,
}

/// A socket of the server before.
#[cfg(feature = "handover")]
#[derive(Debug)]
pub(crate) struct Handed {
    /// The endpoint as that server was given it.
    pub(crate) asked: String,
    /// The socket's file, of which that server is the owner.
    pub(crate) file: Option<crate::transport::unix::FileId>,
    pub(crate) given: Given,
}

#[cfg(feature = "handover")]
impl Inherited {
    pub(crate) fn new(handed: Vec<Handed>) -> Self {
        Self { handed: crate::sync::Mutex::new(handed) }
    }

    /// What nobody has a use for.
    pub(crate) fn into_rest(self) -> Vec<Handed> {
        std::mem::take(&mut lock(&self.handed))
    }

    fn take(&self, fits: impl FnMut(&Handed) -> bool) -> Option<Handed> {
        let mut handed = lock(&self.handed);
        let index = handed.iter().position(fits)?;
        Some(handed.remove(index))
    }
}

impl Inherited {
    /// The TCP sockets at `at`: as many as the server before had there, as each has a backlog of its own. At port 0, it
    /// is those of the same address that was asked for by the same text.
    #[cfg(feature = "tcp")]
    pub(crate) fn tcp(&self, asked: &Endpoint, at: SocketAddr) -> Vec<Socket> {
        #[cfg(feature = "handover")]
        return self.ip(asked, at, |kind| if let Kind::Tcp(addr) = kind { Some(*addr) } else { None });
        #[cfg(not(feature = "handover"))]
        return nothing((self, asked, at));
    }

    /// The UDP sockets at `at`, as [`tcp`](Self::tcp).
    #[cfg(feature = "udp")]
    pub(crate) fn udp(&self, asked: &Endpoint, at: SocketAddr) -> Vec<Socket> {
        #[cfg(feature = "handover")]
        return self.ip(asked, at, |kind| if let Kind::Udp(addr) = kind { Some(*addr) } else { None });
        #[cfg(not(feature = "handover"))]
        return nothing((self, asked, at));
    }

    /// The Unix socket of that name, with its file, if that is still there.
    #[cfg(feature = "unix")]
    pub(crate) fn unix(&self, asked: &Endpoint, options: &BindOptions) -> Option<(Socket, Option<SocketFile>)> {
        #[cfg(feature = "handover")]
        {
            let Endpoint::Unix(address) = asked else { return None };
            let text = asked.to_string();
            let handed = self.take(|handed| matches!(handed.given.kind, Kind::Unix(_)) && handed.asked == text)?;
            let Some(path) = address.path() else { return Some((handed.given.socket, None)) };
            let file = handed.file.and_then(|id| SocketFile::of_another(path, id, options));
            if file.is_none() {
                tracing::warn!(endpoint = %asked, "the file is not that of the socket handed over");
            }
            Some((handed.given.socket, Some(file?)))
        }
        #[cfg(not(feature = "handover"))]
        return nothing((self, asked, options));
    }

    /// The sockets that are meant by `fd:`: those that were passed to this process, or else to the server before it.
    #[cfg(feature = "fd")]
    pub(crate) fn passed(&self, which: &crate::endpoint::PassedSocket) -> Result<Vec<Given>, String> {
        let passed = super::listen_fds::take(which);
        #[cfg(feature = "handover")]
        if passed.is_err() {
            let text = format!("fd:{which}");
            let mut found = Vec::new();
            while let Some(handed) = self.take(|handed| handed.asked == text) {
                found.push(handed.given);
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
        passed
    }

    #[cfg(feature = "handover")]
    #[cfg(any(feature = "tcp", feature = "udp"))]
    fn ip(&self, asked: &Endpoint, mut at: SocketAddr, addr: impl Fn(&Kind) -> Option<SocketAddr>) -> Vec<Socket> {
        let asked = asked.to_string();
        let mut sockets = Vec::new();
        loop {
            let mut port = at.port();
            let handed = self.take(|handed| {
                let Some(found) = addr(&handed.given.kind) else { return false };
                if at.port() == 0 {
                    port = found.port();
                    let mut there = at;
                    there.set_port(port);
                    return handed.asked == asked && same(there, found);
                }
                same(at, found)
            });
            let Some(handed) = handed else { return sockets };
            // the others are those of the same port
            at.set_port(port);
            sockets.push(handed.given.socket);
        }
    }
}

/// Whether a socket at `found` is one at `at`. The flow label of an IPv6 address belongs to a connection.
#[cfg(feature = "handover")]
#[cfg(any(feature = "tcp", feature = "udp"))]
fn same(at: SocketAddr, mut found: SocketAddr) -> bool {
    if let (SocketAddr::V6(at), SocketAddr::V6(found)) = (at, &mut found) {
        found.set_flowinfo(at.flowinfo());
    }
    at == found
}

#[cfg(not(feature = "handover"))]
#[cfg(any(feature = "tcp", feature = "udp", feature = "unix"))]
fn nothing<A, T: Default>(_: A) -> T {
    T::default()
}
