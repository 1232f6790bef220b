//! What a peer says, and what it gets for it.

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::peer::Speak;
use crate::connection::CloseReason;

/// One side of a conversation: what a peer sends and what it receives, step by step. [`every_split`](super::every_split)
/// plays it.
///
/// After the last step the peer ends its side, and awaits the server's end.
///
/// ```
/// use hythe::CloseReason;
/// use hythe::testing::Script;
///
/// let script = Script::<String>::new()
///     .send("hello")
///     .recv("HELLO")
///     .send_bytes("two lines\nat once\n")
///     .recv("TWO LINES")
///     .recv("AT ONCE")
///     .ends(CloseReason::PeerClosed);
/// ```
#[must_use = "a script does nothing until it is played"]
pub struct Script<Sent, Received = Sent> {
    steps: Vec<Step<Sent, Received>>,
    pub(super) reason: Option<CloseReason>,
}

enum Step<Sent, Received> {
    Send(Sent),
    Bytes(Bytes),
    Recv(Received),
}

impl<Sent, Received> Script<Sent, Received> {
    /// Without a step: a peer that connects and ends.
    pub fn new() -> Self {
        Self { steps: Vec::new(), reason: None }
    }

    /// The peer sends a message.
    pub fn send(mut self, message: impl Into<Sent>) -> Self {
        self.steps.push(Step::Send(message.into()));
        self
    }

    /// The peer sends bytes as they are.
    pub fn send_bytes(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.steps.push(Step::Bytes(Bytes::copy_from_slice(bytes.as_ref())));
        self
    }

    /// The peer receives a message, and only then goes on.
    ///
    /// A script that names one such message names all of them. One that names none leaves it to the first run, with
    /// everything in one piece, to tell what there is to receive.
    pub fn recv(mut self, message: impl Into<Received>) -> Self {
        self.steps.push(Step::Recv(message.into()));
        self
    }

    /// The connection ends for this reason. A script that does not say so leaves that to the first run as well.
    pub fn ends(mut self, reason: CloseReason) -> Self {
        self.reason = Some(reason);
        self
    }

    /// The same with the messages that are sent as bytes.
    pub(super) fn compile(self, codec: &mut dyn Speak<Received, Sent>) -> Result<Compiled<Received>, String> {
        let mut turns = Vec::new();
        let mut turn = Turn::default();
        let mut messages = Vec::new();
        for step in self.steps {
            // what is sent after something was received is another turn
            let sends = !matches!(step, Step::Recv(_));
            if sends && turn.answers > 0 {
                turns.push(std::mem::take(&mut turn));
            }
            match step {
                Step::Send(message) => codec
                    .write(message, &mut turn.bytes)
                    .map_err(|error| format!("the peer's codec refused a message of the script: {error}"))?,
                Step::Bytes(bytes) => turn.bytes.extend_from_slice(&bytes),
                Step::Recv(message) => {
                    turn.answers += 1;
                    messages.push(message);
                }
            }
        }
        turns.push(turn);
        Ok(Compiled { turns, messages, reason: self.reason })
    }
}

/// A script as it is played.
pub(super) struct Compiled<Received> {
    pub(super) turns: Vec<Turn>,
    /// All that the peer receives, if the script says so.
    pub(super) messages: Vec<Received>,
    pub(super) reason: Option<CloseReason>,
}

/// What is sent together, and how many messages are received before there is more.
#[derive(Default)]
pub(super) struct Turn {
    pub(super) bytes: BytesMut,
    pub(super) answers: usize,
}

impl<Received> Compiled<Received> {
    /// All bytes that the peer sends.
    pub(super) fn len(&self) -> usize {
        self.turns.iter().map(|turn| turn.bytes.len()).sum()
    }
}

impl<Sent, Received> Default for Script<Sent, Received> {
    fn default() -> Self {
        Self::new()
    }
}

impl<Sent, Received> fmt::Debug for Script<Sent, Received> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Script({} steps)", self.steps.len())
    }
}
