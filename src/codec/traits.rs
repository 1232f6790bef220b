//! What an endpoint wants of a codec.

use tokio_util::codec::{Decoder, Encoder};

use crate::error::BoxError;

/// A codec that brings `In` and takes `Out`: any pair of tokio-util's [`Decoder`] and [`Encoder`] that can be cloned.
/// There is nothing to implement.
///
/// A connection decodes with one clone of the codec that its endpoint was bound with, and encodes with another. State
/// that both directions need must be shared by the clones.
#[diagnostic::on_unimplemented(
    message = "the codec `{Self}` does not carry the messages of this handler: `{In}` in and `{Out}` out",
    label = "a codec for other messages",
    note = "a codec is a `tokio_util::codec::Decoder` whose `Item` is what comes in, and an `Encoder` of what goes out, \
            and it can be cloned"
)]
pub trait Codec<In, Out>:
    Decoder<Item = In, Error: Into<BoxError>> + Encoder<Out, Error: Into<BoxError>> + Clone + Send + 'static
{
}

impl<C, In, Out> Codec<In, Out> for C where
    C: Decoder<Item = In, Error: Into<BoxError>> + Encoder<Out, Error: Into<BoxError>> + Clone + Send + 'static
{
}
