//! A script with its bytes cut in every way: a handler, and its codec, must not care.

use std::fmt::{self, Debug, Write};
use std::future::{Future, poll_fn};
use std::panic::Location;

use bytes::Bytes;

use super::harness::Harness;
use super::observe::describe;
use super::peer::{Peer, text};
use super::script::{Compiled, Script};
use super::wait::{Place, patiently, settle};
use crate::codec::Codec;
use crate::connection::Closed;
use crate::handler::Session;
use crate::server::Server;

/// After so many turns of the tasks the clock has to move as well, for a handler that waits for it.
const TURNS: u32 = 64;
/// For how many milliseconds of that clock the next piece waits for a handler that reads nothing.
const BUSY: u32 = 10_000;

/// Plays a script with its bytes in one piece, then cut in two at every place there is, one byte at a time, and with the
/// answers taken one byte at a time. Each time it is a new server, which must do the same: send the same messages, end
/// the connection for the same reason, and leave nothing behind.
///
/// The pieces are written only after the server has read the one before. A script of `n` bytes is played `n + 2` times,
/// which takes less than a millisecond each, however long the handler waits: the clock is paused.
///
/// ```
/// use hythe::testing::{Script, every_split};
/// use hythe::{CloseReason, Connection, Server, codec::Lines};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let shout = || {
///     Server::serve(|mut conn: Connection<String>| async move {
///         while let Some(line) = conn.recv().await? {
///             conn.send(line.to_uppercase()).await?;
///         }
///         Ok(())
///     })
/// };
/// let script = Script::new()
///     .send("hello")
///     .recv("HELLO")
///     .send_bytes("two\r\nlines\n")
///     .recv("TWO")
///     .recv("LINES")
///     .ends(CloseReason::PeerClosed);
/// every_split(shout, Lines::new(), script).await;
/// # }
/// ```
///
/// # Panics
/// If in one piece the script does not go as it says, or cut anywhere it goes otherwise than in one piece. The message
/// tells where the cut was and what was different. As [`Harness::start`] and [`Harness::finish`], too.
#[track_caller]
pub fn every_split<S, C, M>(server: impl Fn() -> Server<S>, codec: C, script: Script<M>) -> impl Future<Output = ()>
where
    S: Session<In = M, Out = M>,
    C: Codec<M, M>,
    M: PartialEq + Debug + Send + 'static,
{
    play_all(server, codec.clone(), codec, script, Location::caller())
}

/// As [`every_split`], for a codec that gives other messages than it takes: `peers` is its counterpart.
///
/// # Panics
/// As [`every_split`].
#[track_caller]
pub fn every_split_with<S, C, P>(
    server: impl Fn() -> Server<S>,
    codec: C,
    peers: P,
    script: Script<S::In, S::Out>,
) -> impl Future<Output = ()>
where
    S: Session<Out: PartialEq + Debug>,
    C: Codec<S::In, S::Out>,
    P: Codec<S::Out, S::In>,
{
    play_all(server, codec, peers, script, Location::caller())
}

async fn play_all<S, C, P>(
    server: impl Fn() -> Server<S>,
    codec: C,
    mut peers: P,
    script: Script<S::In, S::Out>,
    place: Place,
) where
    S: Session<Out: PartialEq + Debug>,
    C: Codec<S::In, S::Out>,
    P: Codec<S::Out, S::In>,
{
    let prototype = peers.clone();
    let mut script = script.compile(&mut peers).unwrap_or_else(|error| panic!("{place}: {error}"));
    let play = async |script: &Compiled<S::Out>, cut| {
        let test = Harness::launch(server(), codec.clone(), prototype.clone(), place).await;
        let outcome = play(&test, script, cut, place).await;
        let left = test.stop().await;
        assert!(left.is_empty(), "{place}: {cut}: left of the server under test: {}", left.join("; "));
        outcome
    };
    let whole = play(&script, Cut::None).await;
    if let Some(difference) = whole.deviates(&script) {
        panic!("{place}: the script does not go as it says\n{difference}");
    }
    // with everything that is to come
    if script.messages.is_empty() {
        if let Some(turn) = script.turns.last_mut() {
            turn.answers = whole.messages.len();
        }
    }
    let cuts = (1..script.len()).map(Cut::After);
    for cut in cuts.chain([Cut::Bytes, Cut::Answers]) {
        let outcome = play(&script, cut).await;
        if let Some(difference) = whole.differs(&outcome) {
            let sent = script.pieces(cut);
            panic!("{place}: {cut}, the handler does not do what it does in one piece\n{sent}{difference}");
        }
    }
}

/// How the bytes of a script are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    None,
    After(usize),
    Bytes,
    /// Not what is sent, but what comes back.
    Answers,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("in one piece"),
            Self::After(1) => f.write_str("cut in two after the first byte"),
            Self::After(at) => write!(f, "cut in two after {at} bytes"),
            Self::Bytes => f.write_str("byte by byte"),
            Self::Answers => f.write_str("with the answers taken byte by byte"),
        }
    }
}

impl<Received> Compiled<Received> {
    /// Both sides of a cut, for a message.
    fn pieces(&self, cut: Cut) -> String {
        let Cut::After(at) = cut else { return String::new() };
        let mut all = Vec::with_capacity(self.len());
        self.turns.iter().for_each(|turn| all.extend_from_slice(&turn.bytes));
        let (before, after) = all.split_at_checked(at).unwrap_or_default();
        // of the first piece its end is of interest
        let tail = before.get(before.len().saturating_sub(80)..).unwrap_or_default();
        let dots = if tail.len() < before.len() { "…" } else { "" };
        format!("  sent: {dots}b\"{}\", then {}\n", tail.escape_ascii(), text(after))
    }
}

/// What came of a script.
struct Outcome<Received> {
    messages: Vec<Received>,
    /// What was no message.
    error: Option<String>,
    reset: bool,
    closed: Closed,
}

async fn play<In, Out>(test: &Harness<In, Out>, script: &Compiled<Out>, cut: Cut, place: Place) -> Outcome<Out>
where
    In: Send + 'static,
    Out: Send + 'static,
{
    let mut player = Player { peer: test.peer().await, messages: Vec::new(), error: None, place };
    if cut == Cut::Answers {
        player.peer.set_window(1);
    }
    let mut sent = 0;
    for turn in &script.turns {
        let mut bytes = turn.bytes.clone().freeze();
        while !bytes.is_empty() {
            let size = match cut {
                Cut::Bytes => 1,
                Cut::After(at) if at > sent => (at - sent).min(bytes.len()),
                _ => bytes.len(),
            };
            sent += size;
            player.write(bytes.split_to(size)).await;
        }
        for _ in 0..turn.answers {
            player.receive().await;
        }
    }
    // a handler that ends by itself has done so before the peer's end comes
    settle().await;
    player.peer.half_close();
    while player.receive().await {}
    let Player { mut peer, messages, error, .. } = player;
    Outcome { messages, error, reset: peer.was_reset(), closed: peer.closed_at(place).await }
}

struct Player<In, Out> {
    peer: Peer<In, Out>,
    messages: Vec<In>,
    error: Option<String>,
    place: Place,
}

impl<In, Out> Player<In, Out> {
    /// Writes a piece, and waits until the server has read it. What comes in the meantime is read as well.
    async fn write(&mut self, mut piece: Bytes) {
        let known = self.peer.known();
        let write = poll_fn(|cx| {
            while !self.peer.has_ended() && self.peer.poll_fill(cx).is_ready() {}
            self.peer.poll_write(&mut piece, cx)
        });
        patiently(self.place, "room for what the peer sends", known, write).await;
        for turn in 0..TURNS + BUSY {
            if self.peer.unread_bytes() == 0 || self.peer.has_ended() {
                break;
            }
            match turn < TURNS {
                true => tokio::task::yield_now().await,
                false => settle().await,
            }
            poll_fn(|cx| {
                while !self.peer.has_ended() && self.peer.poll_fill(cx).is_ready() {}
                std::task::Poll::Ready(())
            })
            .await;
        }
    }

    /// Receives a message; false where there is none.
    async fn receive(&mut self) -> bool {
        while self.error.is_none() {
            match self.peer.try_decode() {
                Ok(Some(message)) => {
                    self.messages.push(message);
                    return true;
                }
                Ok(None) if self.peer.has_ended() => break,
                Ok(None) => {
                    let known = self.peer.known();
                    patiently(self.place, "a message", known, poll_fn(|cx| self.peer.poll_fill(cx))).await;
                }
                Err(error) => self.error = Some(error),
            }
        }
        false
    }
}

impl<Received: PartialEq + Debug> Outcome<Received> {
    /// In what it is not as the script says.
    fn deviates(&self, script: &Compiled<Received>) -> Option<String> {
        let messages = match script.messages.is_empty() {
            true => None,
            false => first_difference("the script", &script.messages, "there came", &self.messages),
        };
        let end = script.reason.filter(|reason| *reason != self.closed.reason).map(|reason| {
            format!(
                "  the end, in the script: {} ({reason})\n  the end that came:      {}\n",
                reason.as_str(),
                self.end()
            )
        });
        let difference = messages.unwrap_or_default() + &end.unwrap_or_default();
        (!difference.is_empty()).then(|| difference + &self.footnote())
    }

    /// In what another one is not the same.
    fn differs(&self, other: &Self) -> Option<String> {
        let mut difference =
            first_difference("in one piece", &self.messages, "now", &other.messages).unwrap_or_default();
        let same = self.closed.reason == other.closed.reason
            && self.reset == other.reset
            && self.error.is_some() == other.error.is_some();
        if !same {
            let _ = write!(
                difference,
                "  the end, in one piece: {}\n  the end, now:          {}\n",
                self.end(),
                other.end()
            );
        }
        (!difference.is_empty()).then(|| difference + &other.footnote())
    }

    fn end(&self) -> String {
        let reset = if self.reset { ", seen as a reset" } else { "" };
        format!("{}{reset}", describe(&self.closed))
    }

    fn footnote(&self) -> String {
        self.error.as_ref().map(|error| format!("  {error}\n")).unwrap_or_default()
    }
}

/// The first message that is not the same, as both have it.
fn first_difference<M: PartialEq + Debug>(one: &str, these: &[M], other: &str, those: &[M]) -> Option<String> {
    let index = (0..these.len().max(those.len())).find(|index| these.get(*index) != those.get(*index))?;
    let show = |message: Option<&M>| message.map_or_else(|| "none".into(), |message| format!("{message:?}"));
    let (this, that) = (show(these.get(index)), show(those.get(index)));
    let width = one.len().max(other.len()) + 1;
    let line = |whose: &str, what| format!("  answer {}, {:width$} {what}\n", index + 1, format!("{whose}:"));
    Some(line(one, this) + &line(other, that))
}
