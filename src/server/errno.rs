//! What an error of accepting is about.

use std::io;

/// Whose matter an error is, and so what is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// The connection that was to be accepted: the next one, at once.
    Connection,
    /// Descriptors or memory: others must give some back first.
    Exhausted,
    /// Not known: perhaps the next one, but not at once.
    Unknown,
    /// The listener itself.
    Fatal,
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
pub(crate) fn class(error: &io::Error) -> Class {
    use io::ErrorKind as Kind;
    use number::{EHOSTDOWN, ENOBUFS, ENONET, ENOPROTOOPT, ENOTSOCK, EPROTO};
    match (error.kind(), error.raw_os_error()) {
        (_, Some(ENFILE | EMFILE | ENOBUFS)) | (Kind::OutOfMemory, _) => Class::Exhausted,
        (_, Some(EBADF | EFAULT | ENOTSOCK)) | (Kind::InvalidInput, _) => Class::Fatal,
        (_, Some(EPROTO | ENONET | ENOPROTOOPT | EHOSTDOWN)) => Class::Connection,
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
        ) => Class::Connection,
        _ => Class::Unknown,
    }
}
