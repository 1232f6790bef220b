//! What an error of accepting is about.

use std::io;

/// What an error of accepting is about. Its text ([`as_str`](Self::as_str)) is stable: it labels metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AcceptFailure {
    /// The connection that was to be accepted: the next one is, at once.
    Connection,
    /// Descriptors or memory: others must give some back first.
    Exhausted,
    /// Not known: perhaps the next one is accepted, but not at once.
    Unknown,
    /// The listener itself. It accepts no more.
    Fatal,
}

impl AcceptFailure {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Connection, Self::Exhausted, Self::Unknown, Self::Fatal];

    /// A stable, short text, in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Exhausted => "exhausted",
            Self::Unknown => "unknown",
            Self::Fatal => "fatal",
        }
    }
}

/// The numbers of the errors that `std` has no name for.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod number {
    pub(super) const EPROTO: i32 = 71;
    pub(super) const ENONET: i32 = 64;
    pub(super) const ENOPROTOOPT: i32 = 92;
    pub(super) const EHOSTDOWN: i32 = 112;
    pub(super) const ENOBUFS: i32 = 105;
    pub(super) const ENOTSOCK: i32 = 88;
}

/// As Apple's systems and the BSDs have them; none of these has ENONET.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod number {
    pub(super) const EPROTO: i32 = 100;
    pub(super) const ENONET: i32 = i32::MIN;
    pub(super) const ENOPROTOOPT: i32 = 42;
    pub(super) const EHOSTDOWN: i32 = 64;
    pub(super) const ENOBUFS: i32 = 55;
    pub(super) const ENOTSOCK: i32 = 38;
}

/// The same on every Unix.
const EBADF: i32 = 9;
const EFAULT: i32 = 14;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

/// accept(2) of Linux: what is pending on the new socket is reported as if it were an error of accept, and is to be taken
/// as a reason to try again.
pub(crate) fn class(error: &io::Error) -> AcceptFailure {
    use io::ErrorKind as Kind;
    use number::{EHOSTDOWN, ENOBUFS, ENONET, ENOPROTOOPT, ENOTSOCK, EPROTO};
    match (error.kind(), error.raw_os_error()) {
        (_, Some(ENFILE | EMFILE | ENOBUFS)) | (Kind::OutOfMemory, _) => AcceptFailure::Exhausted,
        (_, Some(EBADF | EFAULT | ENOTSOCK)) | (Kind::InvalidInput, _) => AcceptFailure::Fatal,
        (_, Some(EPROTO | ENONET | ENOPROTOOPT | EHOSTDOWN)) => AcceptFailure::Connection,
        (
            Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::Interrupted
            | Kind::NetworkDown
            | Kind::NetworkUnreachable
            | Kind::HostUnreachable
            | Kind::TimedOut
            | Kind::PermissionDenied
            | Kind::Unsupported,
            _,
        ) => AcceptFailure::Connection,
        _ => AcceptFailure::Unknown,
    }
}
