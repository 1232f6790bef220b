//! The receive loop of a UDP endpoint: each peer's datagrams go to its session, which is a connection as any other.

use std::future::{Future, poll_fn};
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::task::yield_now;

use super::accept::Control;
use super::open::{Origin, Start};
use crate::codec::Codec;
use crate::connection::{MessageIn, Polled, Silence, caught, gather, lodge};
use crate::handler::Session;
use crate::peer::{Peer, PeerAddress};
use crate::sync::spawn;
use crate::transport::BindOptions;
use crate::transport::udp::{
    AMPLIFICATION, Arrival, Datagram, Entry, Incoming, Offer, Session as UdpSession, Sessions, UdpShared,
};

/// How many buffers one receive fills at most.
const BATCH: usize = 32;
/// After so many datagrams other tasks get their turn.
const TURN: usize = 64;
/// How often what came at once may wait until sessions that are too quickly sent to have had their turn.
const PAUSES: u32 = 16;
/// For so long sessions are polled one after the other; the others are left to their tasks, on other threads.
const AT_ONCE: Duration = Duration::from_micros(500);
/// After one that took longer than that alone, all are, for as long, and for so long at most.
const LONGEST: Duration = Duration::from_secs(1);
/// After so many errors in a row the socket is left alone for a moment.
const ERRORS: u32 = 64;

/// A UDP endpoint, as the server controls it.
pub(crate) struct UdpControl {
    shared: Arc<UdpShared>,
    options: BindOptions,
    stopped: AtomicBool,
}

impl UdpControl {
    pub(crate) fn new(shared: Arc<UdpShared>, options: BindOptions) -> Arc<Self> {
        Arc::new(Self { shared, options, stopped: AtomicBool::new(false) })
    }

    /// What is to become of a datagram that would open a session.
    fn entry(&self, from: SocketAddr, datagram: &[u8]) -> Entry {
        // nobody can be answered at port 0
        if from.port() < self.options.min_source_port.max(1) {
            return Entry::Drop;
        }
        match &self.options.gate {
            None => Entry::Open,
            Some(gate) => caught(|| gate.ask(from, datagram)).unwrap_or(Entry::Drop),
        }
    }
}

impl Control for UdpControl {
    fn stop(&self) {
        // those who have a session still need the socket
        self.stopped.store(true, Relaxed);
    }

    fn close(&self) {
        self.shared.close();
    }

    fn wake(&self) {}

    #[cfg(feature = "handover")]
    fn duplicate(&self) -> std::io::Result<Option<crate::transport::Duplicate>> {
        self.shared.duplicate()
    }

    #[cfg(feature = "handover")]
    fn hand_over(&self) {
        self.stop();
        self.shared.stop_receiving();
    }
}

/// The task of the session, which may be polled where its datagrams come in.
struct Lodged(Arc<UdpSession>);

impl Start for Lodged {
    fn start(self, driver: impl Future<Output = ()> + Send + 'static) {
        let (place, resident) = lodge(driver);
        self.0.lives_at(place);
        spawn(resident);
    }
}

/// Receives until the socket is closed.
pub(crate) async fn receive<S, C>(control: Arc<UdpControl>, origin: Arc<Origin<S, C>>)
where
    S: Session,
    C: Codec<S::In, S::Out>,
{
    let sessions = Sessions::new(Arc::clone(&control.shared), Arc::clone(&origin.hub.limits));
    let mut incoming = Incoming::new(BATCH);
    let mut desk = Desk {
        control: &control,
        origin: &origin,
        sessions,
        touched: Vec::new(),
        last: None,
        careful: None,
        again: false,
    };
    let (mut turn, mut errors) = (0, 0);
    loop {
        if turn >= TURN {
            turn = 0;
            yield_now().await;
        }
        let received = poll_fn(|cx| {
            let poll = control.shared.poll_receive(cx, &mut incoming);
            if poll.is_pending() {
                turn = 0;
            }
            poll
        });
        match received.await {
            None => return,
            Some(Ok(())) => errors = 0,
            Some(Err(error)) => {
                // such as the refusal of an earlier answer: some peer's, never the socket's end
                control.shared.counters.receive_errors.fetch_add(1, Relaxed);
                origin.hub.log.receiving_failed(&origin.endpoint, &error);
                (turn, errors) = (turn + 1, errors + 1);
                if errors >= ERRORS {
                    errors = 0;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                continue;
            }
        }
        let mut pauses = PAUSES;
        loop {
            let (datagrams, paused) = gather(|| desk.deliver(&mut incoming, pauses > 0));
            turn += datagrams;
            if !paused {
                break;
            }
            (turn, pauses) = (0, pauses - 1);
            yield_now().await;
        }
    }
}

/// Where datagrams are handed out.
struct Desk<'a, S, C> {
    control: &'a UdpControl,
    origin: &'a Origin<S, C>,
    sessions: Arc<Sessions>,
    /// Those that got something.
    touched: Vec<Arc<UdpSession>>,
    /// Whose the last datagram was: the next is often of the same.
    last: Option<Arc<UdpSession>>,
    /// Until then all sessions are left to their tasks: one has held up all.
    careful: Option<Instant>,
    /// The next datagram was seen before.
    again: bool,
}

impl<S, C> Desk<'_, S, C>
where
    S: Session,
    C: Codec<S::In, S::Out>,
{
    /// Hands out what came, and has those who got something handle it. Tells how many datagrams these were, and whether
    /// there are more, whose session is to have some time first.
    fn deliver(&mut self, incoming: &mut Incoming, may_pause: bool) -> (usize, bool) {
        let limit = self.origin.hub.limits.max_datagram();
        let (mut datagrams, mut paused) = (0, false);
        while let Some(Datagram { from, bytes, cut }) = incoming.next() {
            let again = mem::take(&mut self.again);
            datagrams += 1;
            if cut || bytes.len() > limit {
                self.control.shared.counters.truncated.fetch_add(1, Relaxed);
                continue;
            }
            let Some(from) = from else { continue };
            let Some(session) = self.session(from) else {
                self.stranger(from, bytes);
                continue;
            };
            let mut offer = self.sessions.offer(&session, bytes, again);
            if offer == Offer::Full {
                // most of what a quick peer sends at once comes at once
                self.handle(&session, Instant::now());
                offer = self.sessions.offer(&session, bytes, true);
                if offer == Offer::Full {
                    if session.is_roused() && may_pause {
                        (paused, self.again) = (true, true);
                        incoming.back();
                        break;
                    }
                    self.sessions.dropped();
                }
            }
            if offer == Offer::Gone {
                self.stranger(from, bytes);
                continue;
            }
            session.list(&mut self.touched);
            self.last = Some(session);
        }
        self.handle_all();
        (datagrams, paused)
    }

    fn session(&mut self, from: SocketAddr) -> Option<Arc<UdpSession>> {
        match self.last.take() {
            Some(last) if last.is_of(from) => Some(last),
            _ => self.sessions.find(from),
        }
    }

    /// A datagram of an address that has no session.
    fn stranger(&self, from: SocketAddr, bytes: &[u8]) {
        let shut = self.control.stopped.load(Relaxed) || self.origin.hub.paused.load(Relaxed);
        let entry = if shut { Entry::Drop } else { self.control.entry(from, bytes) };
        if let Entry::Answer(answer) = &entry {
            // whoever forges an address must not have us send more to it than may be sent to a stranger
            if answer.len() as u64 <= AMPLIFICATION * bytes.len() as u64 {
                return self.control.shared.try_send(answer, from);
            }
        }
        if let Arrival::New(source, write) = self.sessions.open(from, bytes, entry) {
            let peer = Peer::new(Arc::clone(&self.origin.endpoint), PeerAddress::Ip(from));
            let start = Lodged(source.session());
            self.origin.open(peer, Silence::Datagrams, write, start, |codec, core| {
                source.belongs_to(core);
                Box::new(MessageIn::new(source, codec))
            });
        }
    }

    /// Has all that got something handle it, as long as that goes quickly.
    fn handle_all(&mut self) {
        if self.touched.is_empty() {
            return;
        }
        let began = Instant::now();
        let mut now = began;
        let mut touched = mem::take(&mut self.touched);
        for session in touched.drain(..) {
            session.unlist();
            if now.saturating_duration_since(began) > AT_ONCE {
                session.handle(None);
            } else {
                now = self.handle(&session, now);
            }
        }
        self.touched = touched;
    }

    /// Has a session handle what it got. Tells the time.
    fn handle(&mut self, session: &UdpSession, now: Instant) -> Instant {
        self.careful = self.careful.filter(|until| now < *until);
        let Some(Polled::Here(end)) = session.handle(self.careful.is_none().then_some(now)) else { return now };
        let took = end.saturating_duration_since(now);
        if took > AT_ONCE {
            self.careful = Some(end + took.min(LONGEST));
        }
        end
    }
}
