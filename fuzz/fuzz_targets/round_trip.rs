//! What an encoder takes comes back from the decoder, however it was cut; what it refuses leaves nothing behind.
#![no_main]

use std::fmt::Debug;

use bytes::BytesMut;
use hythe::codec::CodecError;
use hythe_fuzz::{Choice, FromBytes, Len, Visit, decode, pieces};
use libfuzzer_sys::fuzz_target;
use tokio_util::codec::{Decoder, Encoder};

struct Check<'a> {
    cuts: &'a [u8],
    messages: &'a [Vec<u8>],
}

impl Visit for Check<'_> {
    fn visit<C, T>(self, codec: C, limit: usize)
    where
        C: Decoder<Item = T, Error = CodecError> + Encoder<T, Error = CodecError> + Clone + Send + 'static,
        T: Debug + PartialEq + Clone + Len + FromBytes + Send + 'static,
    {
        let (mut encoder, mut wire, mut sent) = (codec.clone(), BytesMut::new(), Vec::new());
        for message in self.messages {
            let message = T::from_bytes(message);
            let before = wire.len();
            match encoder.encode(message.clone(), &mut wire) {
                Ok(()) => sent.push(message),
                Err(error) => {
                    assert!(error.is_not_encodable(), "{error}");
                    assert_eq!(wire.len(), before, "a refused message wrote something");
                }
            }
        }
        assert_eq!(decode(&codec, limit, pieces(&wire, self.cuts)), (sent, None));
    }
}

fuzz_target!(|input: (Choice, Vec<u8>, Vec<Vec<u8>>)| {
    let (choice, cuts, messages) = input;
    choice.visit(Check { cuts: &cuts, messages: &messages });
});
