//! What becomes of peers for whom there is no place.

use bytes::Bytes;

/// What becomes of peers above [`Limits::max_connections`](crate::Limits::max_connections) and
/// [`Limits::accept_rate`](crate::Limits::accept_rate).
///
/// A peer above [`Limits::per_address`](crate::Limits::per_address) cannot wait, as who it is was only seen when it was
/// accepted: where the others are held, it is reset.
///
/// ```
/// use hythe::{Limits, Overload};
///
/// let limits = Limits::edge().with_overload(Overload::Answer("the room is full\n".into()));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overload {
    /// They wait in the kernel's backlog until there is a place, and know nothing of it.
    #[default]
    Hold,
    /// They are accepted and broken off at once: a TCP peer sees a reset and can go elsewhere.
    Reset,
    /// They are accepted, get these bytes as they are, and the end. Where a handshake would have to come first they are
    /// reset, and so are those that come while 64 others are being answered.
    Answer(Bytes),
}
