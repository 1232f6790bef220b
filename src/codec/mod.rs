//! How bytes become messages.
//!
//! A codec is any [`tokio_util::codec::Decoder`] and [`Encoder`] pair; these are
//! the ones Hythe ships. Each is a small value: clone one to give a fresh
//! connection its own.
//!
//! | codec | a message is | item |
//! |---|---|---|
//! | [`LengthDelimited`] | what a length prefix counts | [`Bytes`] |
//! | [`Lines`] | what stands before LF or CRLF | [`String`] |
//! | [`Delimited`] | what stands before a byte string | [`Bytes`] |
//! | [`Raw`] | whatever has arrived | [`Bytes`] |
//! | [`Datagram`] | one message of a message transport | [`Bytes`] |
//! | [`Text`] | the UTF-8 text in any framing of `Bytes` | [`String`] |
//! | [`Batched`] | as in the codec in it, all that are there at once | [`Frames`] |
//!
//! What all of them promise, [`Raw`]'s boundaries and [`Datagram`]'s apart:
//!
//! - **Cuts do not matter.** The same bytes give the same messages and the same
//!   verdict, however the network cut them.
//! - **Encoding is the inverse of decoding.** A message that would come back
//!   changed is refused with [`CodecError::NotEncodable`], and nothing is written.
//! - **Claims cost nothing.** A limit is checked as soon as the length is known,
//!   and no codec reserves memory for bytes that have not arrived.
//! - **An error is final.** No later call gives another message; close the
//!   connection. (A message refused by an encoder harms nothing.)
//! - **Small messages pin nothing.** A message of up to 256 bytes is a copy, a
//!   longer one shares the receive buffer's memory. ([`Frames`] always do.)
//! - **No message is lost in silence.** When the stream ends inside a message,
//!   `decode_eof` says [`CodecError::Truncated`].
//!
//! ```
//! use bytes::{Bytes, BytesMut};
//! use hythe::codec::{CodecError, LengthDelimited};
//! use tokio_util::codec::{Decoder, Encoder};
//!
//! # fn main() -> Result<(), CodecError> {
//! let mut codec = LengthDelimited::new().max_length(16);
//! let mut wire = BytesMut::new();
//! codec.encode(Bytes::from_static(b"ahoy"), &mut wire)?;
//! assert_eq!(&wire[..], b"\0\0\0\x04ahoy");
//! assert_eq!(codec.decode(&mut wire)?.as_deref(), Some(&b"ahoy"[..]));
//!
//! // A claim of 4 GiB is refused on its fourth byte.
//! wire.extend_from_slice(&[0xff; 4]);
//! let error = codec.decode(&mut wire).unwrap_err();
//! assert_eq!(error.limit_and_seen(), Some((16, 0xffff_ffff)));
//! # Ok(())
//! # }
//! ```
//!
//! [`Bytes`]: bytes::Bytes
//! [`Encoder`]: tokio_util::codec::Encoder

// Everything below handles what strangers sent.
#![deny(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used)]

mod datagram;
mod delimited;
mod error;
mod frames;
mod layout;
mod length;
mod lines;
mod prefix;
mod raw;
mod search;
mod take;
mod text;
mod traits;

pub use datagram::Datagram;
pub use delimited::Delimited;
pub use error::{CodecError, Unencodable};
pub use frames::{Batched, Frames, FramesIter, Framing};
pub use length::LengthDelimited;
pub use lines::Lines;
pub use raw::Raw;
pub use text::Text;
pub use traits::Codec;

/// The longest message a stream codec takes unless told otherwise: 1 MiB, in bytes.
pub const DEFAULT_MAX_LENGTH: usize = 1024 * 1024;
