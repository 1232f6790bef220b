//! What the two processes say to each other, as bytes. Nothing here does any I/O.
//!
//! ```text
//! new                                   old
//! Hello                             →
//!                                   ←   Socket, with its descriptor; again for each
//!                                   ←   Listed
//! (binds, with what it got)
//! Ready                             →
//!                                   ←   Switch      (owns no file any more)
//! (begins to accept)
//! Serving                           →
//!                                   ←   Gone        (has stopped accepting, and drains)
//! ```
//!
//! Each message has a header of eight bytes: `hyth`, the version, the kind, and the length of what follows, big-endian.
//! Instead of any message either side may say `Refused`, with its reason in words, or just go.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::transport::unix::FileId;

/// The version of what is said. There is no other one yet, and no need to understand one.
const VERSION: u8 = 1;
const MAGIC: [u8; 4] = *b"hyth";
const HEADER: usize = 8;
/// No message is longer than this, in bytes, the header not counted.
const LONGEST: usize = 512;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// The new process asks for the sockets.
    Hello,
    /// One socket: its descriptor comes with it.
    Socket {
        /// The endpoint as it was asked for.
        asked: String,
        /// The file that names it, where the old process has made that.
        file: Option<FileId>,
    },
    /// There are so many, and no more.
    Listed(u16),
    /// The new process has bound all that it wants, and could accept.
    Ready,
    /// It is to begin.
    Switch,
    /// It has begun.
    Serving,
    /// The old process accepts nobody any more.
    Gone,
    /// It comes to nothing, for this reason.
    Refused(String),
}

/// What is no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// Another program, or none of ours.
    Magic,
    /// A hythe that says other things.
    Version(u8),
    Kind(u8),
    Length(usize),
    Content,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => write!(f, "the other side does not speak this protocol"),
            Self::Version(version) => {
                write!(f, "the other side speaks version {version} of the protocol, this one {VERSION}")
            }
            Self::Kind(kind) => write!(f, "a message of the unknown kind {kind}"),
            Self::Length(length) => write!(f, "a message of {length} bytes, more than {LONGEST}"),
            Self::Content => write!(f, "a message with a wrong content"),
        }
    }
}

impl std::error::Error for Malformed {}

impl Message {
    /// Its name, for the log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Hello => "Hello",
            Self::Socket { .. } => "Socket",
            Self::Listed(_) => "Listed",
            Self::Ready => "Ready",
            Self::Switch => "Switch",
            Self::Serving => "Serving",
            Self::Gone => "Gone",
            Self::Refused(_) => "Refused",
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Hello => 1,
            Self::Socket { .. } => 2,
            Self::Listed(_) => 3,
            Self::Ready => 4,
            Self::Switch => 5,
            Self::Serving => 6,
            Self::Gone => 7,
            Self::Refused(_) => 8,
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut content = BytesMut::new();
        match self {
            Self::Socket { asked, file } => {
                let file = file.unwrap_or(FileId { device: 0, inode: 0 });
                content.put_u64(file.device);
                content.put_u64(file.inode);
                content.put_slice(asked.as_bytes());
            }
            Self::Listed(count) => content.put_u16(*count),
            Self::Refused(why) => content.put_slice(why.as_bytes()),
            Self::Hello | Self::Ready | Self::Switch | Self::Serving | Self::Gone => {}
        }
        // texts are of ours, and shorter; one that is not is cut, and then refused by the other side at worst
        content.truncate(LONGEST);
        let mut bytes = BytesMut::with_capacity(HEADER + content.len());
        bytes.put_slice(&MAGIC);
        bytes.put_u8(VERSION);
        bytes.put_u8(self.kind());
        bytes.put_u16(u16::try_from(content.len()).unwrap_or(u16::MAX));
        bytes.put_slice(&content);
        bytes.freeze()
    }

    /// The next message, if all of it has arrived. After an error the rest has no meaning.
    pub(crate) fn decode(bytes: &mut BytesMut) -> Result<Option<Self>, Malformed> {
        // as much of it as is there: who speaks something else need not send a whole header to be found out
        if bytes.iter().zip(MAGIC).any(|(found, wanted)| *found != wanted) {
            return Err(Malformed::Magic);
        }
        let mut header = bytes.as_ref();
        if header.len() < HEADER {
            return Ok(None);
        }
        header.advance(MAGIC.len());
        let (version, kind, length) = (header.get_u8(), header.get_u8(), usize::from(header.get_u16()));
        if version != VERSION {
            return Err(Malformed::Version(version));
        }
        if length > LONGEST {
            return Err(Malformed::Length(length));
        }
        if header.len() < length {
            return Ok(None);
        }
        bytes.advance(HEADER);
        Self::content(kind, bytes.split_to(length)).map(Some)
    }

    fn content(kind: u8, mut content: BytesMut) -> Result<Self, Malformed> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| Malformed::Content);
        let message = match kind {
            1 => Self::Hello,
            2 => {
                let device = content.try_get_u64().map_err(|_| Malformed::Content)?;
                let inode = content.try_get_u64().map_err(|_| Malformed::Content)?;
                // no file has the number 0
                let file = match (device, inode) {
                    (0, 0) => None,
                    (_, 0) => return Err(Malformed::Content),
                    (device, inode) => Some(FileId { device, inode }),
                };
                return Ok(Self::Socket { asked: text(&content)?, file });
            }
            3 => Self::Listed(content.try_get_u16().map_err(|_| Malformed::Content)?),
            4 => Self::Ready,
            5 => Self::Switch,
            6 => Self::Serving,
            7 => Self::Gone,
            8 => return Ok(Self::Refused(text(&content)?)),
            unknown => return Err(Malformed::Kind(unknown)),
        };
        if content.is_empty() { Ok(message) } else { Err(Malformed::Content) }
    }
}

/// For the fuzz target: decodes what comes in steps of so many bytes, and gives what an encoder would have said instead,
/// if all of it was right.
#[cfg(fuzzing)]
pub fn fuzzed(bytes: &[u8], step: usize) -> Option<Vec<u8>> {
    let (mut buffer, mut again) = (BytesMut::new(), Vec::new());
    for part in bytes.chunks(step.max(1)) {
        buffer.extend_from_slice(part);
        while let Some(message) = Message::decode(&mut buffer).ok()? {
            again.extend_from_slice(&message.encode());
        }
        assert!(buffer.len() < HEADER + LONGEST, "a whole message was left");
    }
    Some(again)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn messages() -> impl Strategy<Value = Message> {
        let file = proptest::option::of((any::<u64>(), 1..u64::MAX));
        prop_oneof![
            Just(Message::Hello),
            Just(Message::Ready),
            Just(Message::Switch),
            Just(Message::Serving),
            Just(Message::Gone),
            any::<u16>().prop_map(Message::Listed),
            "\\PC{0,100}".prop_map(Message::Refused),
            ("\\PC{0,100}", file).prop_map(|(asked, file)| Message::Socket {
                asked,
                file: file.map(|(device, inode)| FileId { device, inode })
            }),
        ]
    }

    fn decode_all(bytes: &[u8], steps: &[usize]) -> Result<Vec<Message>, Malformed> {
        let (mut buffer, mut found, mut rest) = (BytesMut::new(), Vec::new(), bytes);
        for step in steps.iter().copied().chain(std::iter::once(usize::MAX)) {
            let (now, later) = rest.split_at(step.min(rest.len()));
            buffer.extend_from_slice(now);
            rest = later;
            while let Some(message) = Message::decode(&mut buffer)? {
                found.push(message);
            }
        }
        assert!(bytes.is_empty() || buffer.len() < HEADER + LONGEST, "a whole message was left");
        Ok(found)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_encoded_is_decoded_however_it_is_cut(
            sent in proptest::collection::vec(messages(), 0..8),
            steps in proptest::collection::vec(0..20_usize, 0..40),
        ) {
            let bytes: Vec<u8> = sent.iter().flat_map(|message| message.encode()).collect();
            prop_assert_eq!(decode_all(&bytes, &steps), Ok(sent));
        }

        #[test]
        fn whatever_comes_is_refused_or_waited_for_or_is_what_an_encoder_says(
            version in prop_oneof![9 => Just(VERSION), 1 => any::<u8>()],
            (kind, length) in (0..10_u8, prop_oneof![0..30_u16, any::<u16>()]),
            garbage in proptest::collection::vec(any::<u8>(), 0..1500),
            steps in proptest::collection::vec(0..300_usize, 0..10),
        ) {
            let mut bytes = [MAGIC.as_slice(), &[version, kind], &length.to_be_bytes()].concat();
            bytes.extend(garbage);
            if let Ok(found) = decode_all(&bytes, &steps) {
                let again: Vec<u8> = found.iter().flat_map(|message| message.encode()).collect();
                prop_assert!(bytes.starts_with(&again));
            }
        }
    }

    #[test]
    fn each_flaw_has_its_name() {
        let decode = |bytes: &[u8]| Message::decode(&mut BytesMut::from(bytes));
        assert_eq!(decode(b"GET / HTTP/1.1"), Err(Malformed::Magic));
        assert_eq!(decode(b"G"), Err(Malformed::Magic), "at the first byte");
        assert_eq!(decode(b"hyth\x02\x01\0\0"), Err(Malformed::Version(2)));
        assert_eq!(decode(b"hyth\x01\x00\0\0"), Err(Malformed::Kind(0)));
        assert_eq!(decode(b"hyth\x01\x09\0\0"), Err(Malformed::Kind(9)));
        assert_eq!(decode(b"hyth\x01\x01\xff\xff"), Err(Malformed::Length(65535)), "before it has arrived");
        assert_eq!(decode(b"hyth\x01\x01\0\x01x"), Err(Malformed::Content), "more than a Hello has");
        assert_eq!(decode(b"hyth\x01\x02\0\x04abcd"), Err(Malformed::Content), "less than a Socket has");
        assert_eq!(decode(b"hyth\x01\x03\0\x01x"), Err(Malformed::Content), "half a number");
        assert_eq!(decode(b"hyth\x01\x08\0\x01\xff"), Err(Malformed::Content), "no UTF-8");
        assert_eq!(decode(b"hyth\x01\x01\0"), Ok(None), "not whole");
        assert_eq!(decode(b"hyth\x01\x01\0\0"), Ok(Some(Message::Hello)));
    }

    #[test]
    fn a_text_that_is_too_long_is_cut() {
        let bytes = Message::Refused("x".repeat(5000)).encode();
        assert_eq!(bytes.len(), HEADER + LONGEST);
        assert_eq!(Message::decode(&mut BytesMut::from(bytes.as_ref())), Ok(Some(Message::Refused("x".repeat(512)))));
    }
}
