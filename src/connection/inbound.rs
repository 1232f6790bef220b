//! The incoming side of a connection, whatever the transport and the codec.

use std::error::Error as StdError;
use std::task::{Context, Poll};

use super::closed::{CloseReason, Failure};
use super::core::{Core, Remainder};
use crate::codec::CodecError;
use crate::error::BoxError;

/// Where messages come from.
pub(crate) trait Inbound<In>: Remainder {
    /// The next message, or `None` after the peer's end.
    ///
    /// What has arrived stays here while nobody polls, so that dropping whoever waits loses nothing.
    fn poll_recv(&mut self, cx: &mut Context<'_>, core: &Core) -> Poll<Result<Option<In>, Failure>>;
    /// Whether a part of a message is held.
    fn holds_part(&self) -> bool;
    fn into_remainder(self: Box<Self>) -> Box<dyn Remainder>;
}

/// What a decoder's error means for the connection.
pub(crate) fn decode_failure(error: BoxError) -> Failure {
    let mut reason = CloseReason::Protocol;
    let mut next: Option<&(dyn StdError + 'static)> = Some(error.as_ref());
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<CodecError>() {
            if error.is_truncated() {
                reason = CloseReason::Truncated;
            } else if error.limit_and_seen().is_some() {
                reason = CloseReason::TooLarge;
            }
            break;
        }
        next = error.source();
    }
    Failure::new(reason, error)
}
