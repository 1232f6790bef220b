//! What an endpoint wants of a codec.

use tokio_util::codec::{Decoder, Encoder};

use crate::error::BoxError;

/// A codec that brings `In` and takes `Out`: any pair of tokio-util's [`Decoder`] and [`Encoder`] that can be cloned.
/// There is nothing to implement.
///
/// A connection's owner decodes and encodes with one clone of the codec that its endpoint was bound with, so that a codec
/// may keep the state of a protocol. A [`Sender`](crate::Sender) encodes with another clone, and a
/// [`Group`](crate::Group) encodes a message once for all members: what those two encode must not depend on the messages
/// before.
///
/// ```
/// use bytes::{Buf, BufMut, BytesMut};
/// use hythe::{Connection, Server};
/// use tokio_util::codec::{Decoder, Encoder};
///
/// /// Numbers of four bytes.
/// #[derive(Clone)]
/// struct Numbers;
///
/// impl Decoder for Numbers {
///     type Item = u32;
///     type Error = std::io::Error;
///
///     fn decode(&mut self, src: &mut BytesMut) -> Result<Option<u32>, Self::Error> {
///         Ok((src.len() >= 4).then(|| src.get_u32()))
///     }
/// }
///
/// impl Encoder<u32> for Numbers {
///     type Error = std::io::Error;
///
///     fn encode(&mut self, number: u32, dst: &mut BytesMut) -> Result<(), Self::Error> {
///         dst.put_u32(number);
///         Ok(())
///     }
/// }
///
/// let server = Server::serve(|mut conn: Connection<u32>| async move {
///     while let Some(number) = conn.recv().await? {
///         conn.send(number + 1).await?;
///     }
///     Ok(())
/// })
/// .bind("tcp://127.0.0.1:0", Numbers);
/// ```
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
