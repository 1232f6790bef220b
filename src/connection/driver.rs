//! The one task of a server's connection: it polls the session, writes what the session sent whenever that waits,
//! keeps the deadlines, and ends the connection.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::task::unconstrained;
use tokio::time::Sleep;

use super::closed::{CloseReason, Closed, Failure};
use super::core::{Core, caught, discard};
use super::outlet::Outlet;
use super::{batch, polls};
use crate::limits::micros;
use crate::log::Scope;

/// How long a session that is cut may take over its last words.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long the peer's end is awaited after ours, at most: a peer that was sending when we closed has seen it by then.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// Who is told that a connection is over.
pub(crate) trait Watch: Send + Sync {
    /// Its transport is closed.
    fn ended(&self, core: &Core, closed: &Closed);
    /// Its task has ended, too.
    fn gone(&self, core: &Core);
}

pin_project! {
    /// The future of a connection's task.
    pub(crate) struct Driver<F, W: Watch> {
        #[pin]
        session: Option<F>,
        #[pin]
        timer: Option<Sleep>,
        ending: Ending<W>,
    }
}

/// Everything but the session.
struct Ending<W: Watch> {
    out: Arc<dyn Outlet>,
    watch: Arc<W>,
    /// Whatever happens in this task is said in it.
    scope: Scope,
    /// The core knows this task.
    known: bool,
    stage: Stage,
    /// What the timer is set to.
    armed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The session runs.
    Open,
    /// What it sent goes out, then our end.
    Flush,
    /// The peer's end is awaited: closing before would throw away what it has not read yet.
    Linger,
    /// Nothing is open any more; the session may have a last word.
    Closed,
}

impl<F, W> Driver<F, W>
where
    F: Future<Output = anyhow::Result<()>>,
    W: Watch,
{
    pub(crate) fn new(session: F, out: Arc<dyn Outlet>, scope: Scope, watch: Arc<W>) -> Self {
        let ending = Ending { out, watch, scope, known: false, stage: Stage::Open, armed: 0 };
        Self { session: Some(session), timer: None, ending }
    }
}

impl<F, W> Future for Driver<F, W>
where
    F: Future<Output = anyhow::Result<()>>,
    W: Watch,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let me = self.project();
        let driven = batch::address(me.ending.core());
        let scope = me.ending.scope.take();
        let poll = {
            let _inside = scope.enter();
            let _under = polls::begin(me.ending.core().id);
            batch::driving(driven, cx, |cx| drive(me.session, me.timer, &mut *me.ending, cx))
        };
        me.ending.scope = scope;
        poll
    }
}

fn drive<F, W>(
    mut session: Pin<&mut Option<F>>,
    mut timer: Pin<&mut Option<Sleep>>,
    ending: &mut Ending<W>,
    cx: &mut Context<'_>,
) -> Poll<()>
where
    F: Future<Output = anyhow::Result<()>>,
    W: Watch,
{
    if !ending.known {
        ending.known = true;
        ending.core().set_driver(Some(cx.waker().clone()));
    }
    loop {
        poll_session(session.as_mut(), ending.core(), cx);
        let idle = session.is_none();
        if ending.advance(idle, cx) && !idle {
            continue;
        }
        if idle && ending.stage == Stage::Closed {
            return Poll::Ready(());
        }
        match ending.poll_deadline(timer.as_mut(), cx) {
            Poll::Ready(Due::Session) => end_session(session.as_mut(), ending.core()),
            Poll::Ready(Due::Connection) => {}
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// Which part of the whole is over its time.
enum Due {
    Session,
    Connection,
}

/// Polls the session, if it still runs. Its error and its panic end the connection, and nothing else.
fn poll_session<F>(mut session: Pin<&mut Option<F>>, core: &Arc<Core>, cx: &mut Context<'_>)
where
    F: Future<Output = anyhow::Result<()>>,
{
    let Some(running) = session.as_mut().as_pin_mut() else { return };
    match caught(|| running.poll(cx)) {
        Ok(Poll::Pending) => {
            core.deadlines.suspends();
            return;
        }
        Ok(Poll::Ready(Ok(()))) => {}
        Ok(Poll::Ready(Err(error))) => core.fail(Failure::new(CloseReason::Handler, error)),
        Err(panic) => core.fail(panic),
    }
    end_session(session, core);
}

/// Drops the session. A panic in a `Drop` of its own is as good as any other.
fn end_session<F>(mut session: Pin<&mut Option<F>>, core: &Arc<Core>) {
    if let Err(panic) = caught(|| session.set(None)) {
        core.fail(panic);
    }
}

impl<W: Watch> Ending<W> {
    fn core(&self) -> &Arc<Core> {
        self.out.core()
    }

    /// Takes the next steps towards the end that can be taken now. True when the connection has just been closed, and
    /// the session may want to know.
    fn advance(&mut self, session_ended: bool, cx: &mut Context<'_>) -> bool {
        loop {
            let broken = self.core().is_broken();
            match self.stage {
                Stage::Closed => return false,
                _ if broken => return self.close(),
                Stage::Open => {
                    if session_ended && !self.core().is_released() {
                        // its connection went to another task, which receives nothing more
                        self.core().start_closing();
                        self.core().wake();
                    }
                    if session_ended || self.core().is_released() {
                        // what a sender adds from here on could come after the end
                        self.out.end();
                        // no more of the session's clocks
                        self.core().deadlines.handles();
                        self.stage = Stage::Flush;
                        continue;
                    }
                    let _ = self.out.poll_flush(cx);
                    if !self.core().is_broken() {
                        return false;
                    }
                }
                Stage::Flush => {
                    if self.out.poll_shutdown(cx).is_pending() {
                        return false;
                    }
                    let core = self.out.core();
                    if !core.is_broken() {
                        if core.failure().is_some_and(|failure| !failure.reason.lingers()) {
                            discard(core.take_remainder());
                        }
                        core.deadlines.half_closes();
                        core.ends_at(core.deadlines.now().saturating_add(micros(LINGER)));
                        self.stage = Stage::Linger;
                    }
                }
                Stage::Linger => {
                    return self.core().poll_remainder(cx).is_ready() && self.close();
                }
            }
        }
    }

    /// Lets go of the transport, and says so.
    fn close(&mut self) -> bool {
        let reason = match self.core().reason() {
            // everything was sent, and only the peer's end awaited: that is no connection that was cut
            CloseReason::Shutdown if self.stage == Stage::Linger => self.core().orderly_reason(),
            reason => reason,
        };
        self.out.release(!reason.flushes());
        discard(self.core().take_remainder());
        self.stage = Stage::Closed;
        self.core().ends_at(0);
        let closed = Closed { reason, ..self.core().sum_up(self.out.totals()) };
        self.watch.ended(self.core(), &closed);
        self.core().close(closed);
        true
    }

    /// Ready when a deadline has passed and was acted upon.
    fn poll_deadline(&mut self, mut timer: Pin<&mut Option<Sleep>>, cx: &mut Context<'_>) -> Poll<Due> {
        // most of the time the timer is early enough for whatever has happened since
        let waits = timer.as_ref().as_pin_ref().is_some_and(|timer| !timer.is_elapsed());
        if !self.core().deadlines.take_earlier() && waits && self.stage == Stage::Open && !self.core().is_disturbed() {
            return Poll::Pending;
        }
        loop {
            let core = self.out.core();
            let (deadlines, limits) = (&core.deadlines, &core.limits);
            let mut next = match self.stage {
                Stage::Closed => None,
                // the session has been told of the end: what comes in is of no interest any more
                _ if self.core().failure().is_some() => deadlines.next_out(limits),
                _ => deadlines.next(limits),
            }
            .map(|(at, reason)| (at, Some(reason)));
            if self.stage == Stage::Linger {
                let at = next.map_or(core.end(), |(at, _)| at.min(core.end()));
                next = Some((at, Some(CloseReason::HalfCloseTimeout)));
            }
            if let Some(patience) = self.patience() {
                next = next.filter(|(at, _)| *at <= patience).or(Some((patience, None)));
            }
            let Some((at, what)) = next else { return Poll::Pending };
            match timer.as_mut().as_pin_mut() {
                // a timer that is too early is left alone: most deadlines are moved on before they pass
                Some(armed) if self.armed <= at && !armed.is_elapsed() => return Poll::Pending,
                Some(_) if self.armed == at => {}
                Some(armed) => armed.reset(self.core().deadlines.instant(at)),
                None => timer.set(Some(tokio::time::sleep_until(self.core().deadlines.instant(at)))),
            }
            self.armed = at;
            // not by the task's budget: a timer that was not polled never wakes anybody
            let armed = timer.as_mut().as_pin_mut().map(|timer| pin!(unconstrained(timer)).poll(cx));
            if armed.is_none_or(|armed| armed.is_pending()) {
                return Poll::Pending;
            }
            if self.core().deadlines.now() < at {
                continue;
            }
            return Poll::Ready(match what {
                None => Due::Session,
                Some(reason) => {
                    self.expire(reason);
                    Due::Connection
                }
            });
        }
    }

    fn expire(&mut self, reason: CloseReason) {
        match reason {
            CloseReason::Idle => self.core().idle(),
            CloseReason::Drained => self.core().ends_freshness(),
            CloseReason::Overrun => self.core().cut(reason),
            CloseReason::HalfCloseTimeout if self.stage == Stage::Linger => {
                self.close();
            }
            _ if self.stage == Stage::Open && self.core().failure().is_none() => self.core().fail(reason),
            // the reason for the end stands, but nothing more can be said to the peer
            _ => {
                self.core().fail(reason);
                self.close();
            }
        }
    }

    /// When the session is dropped, after it has been told of the end: it still holds the connection, or still has a
    /// last word.
    fn patience(&self) -> Option<u64> {
        let core = self.core();
        let told = match self.stage {
            Stage::Open => core.failure().is_some() && !core.is_released(),
            Stage::Flush | Stage::Linger => false,
            Stage::Closed => true,
        };
        if !told {
            return None;
        }
        let patience = if self.core().is_cut() { micros(LAST_WORDS) } else { self.core().limits.half_close() };
        let latest = self.core().deadlines.now().saturating_add(patience);
        let at = match core.end() {
            0 => latest,
            at => at.min(latest),
        };
        core.ends_at(at);
        Some(at)
    }
}

impl<W: Watch> Drop for Ending<W> {
    /// The runtime may drop the task before it is through.
    fn drop(&mut self) {
        if self.stage != Stage::Closed {
            let scope = self.scope.take();
            let _inside = scope.enter();
            self.core().fail(CloseReason::Shutdown);
            self.close();
        }
        self.core().set_driver(None);
        self.watch.gone(self.core());
    }
}
