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
use super::core::{Core, Remainder, caught, discard};
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
    pub(crate) struct Driver<F> {
        #[pin]
        session: Option<F>,
        #[pin]
        timer: Option<Sleep>,
        ending: Ending,
    }
}

/// Everything but the session.
struct Ending {
    core: Arc<Core>,
    out: Arc<dyn Outlet>,
    watch: Arc<dyn Watch>,
    /// Whatever happens in this task is said in it.
    scope: Scope,
    /// The core knows this task.
    known: bool,
    stage: Stage,
    remainder: Option<Box<dyn Remainder>>,
    /// When a session that was told of the end is dropped; in [`Stage::Linger`], when the peer's end is no longer waited
    /// for. 0 is "not yet set".
    until: u64,
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

impl<F> Driver<F>
where
    F: Future<Output = anyhow::Result<()>>,
{
    pub(crate) fn new(session: F, out: Arc<dyn Outlet>, scope: Scope, watch: Arc<dyn Watch>) -> Self {
        let core = Arc::clone(out.core());
        let ending =
            Ending { core, out, watch, scope, known: false, stage: Stage::Open, remainder: None, until: 0, armed: 0 };
        Self { session: Some(session), timer: None, ending }
    }
}

impl<F> Future for Driver<F>
where
    F: Future<Output = anyhow::Result<()>>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let me = self.project();
        let driven = batch::address(&me.ending.core);
        let scope = me.ending.scope.take();
        let poll = {
            let _inside = scope.enter();
            let _under = polls::begin(me.ending.core.id);
            batch::driving(driven, cx, |cx| drive(me.session, me.timer, &mut *me.ending, cx))
        };
        me.ending.scope = scope;
        poll
    }
}

fn drive<F>(
    mut session: Pin<&mut Option<F>>,
    mut timer: Pin<&mut Option<Sleep>>,
    ending: &mut Ending,
    cx: &mut Context<'_>,
) -> Poll<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    if !ending.known {
        ending.known = true;
        ending.core.set_driver(Some(cx.waker().clone()));
    }
    loop {
        poll_session(session.as_mut(), &ending.core, cx);
        let idle = session.is_none();
        if ending.advance(idle, cx) && !idle {
            continue;
        }
        if idle && ending.stage == Stage::Closed {
            return Poll::Ready(());
        }
        match ending.poll_deadline(timer.as_mut(), cx) {
            Poll::Ready(Due::Session) => end_session(session.as_mut(), &ending.core),
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

impl Ending {
    /// Takes the next steps towards the end that can be taken now. True when the connection has just been closed, and
    /// the session may want to know.
    fn advance(&mut self, session_ended: bool, cx: &mut Context<'_>) -> bool {
        loop {
            let broken = self.core.is_broken();
            match self.stage {
                Stage::Closed => return false,
                _ if broken => return self.close(),
                Stage::Open => {
                    if session_ended && !self.core.is_released() {
                        // its connection went to another task, which receives nothing more
                        self.core.start_closing();
                        self.core.wake();
                    }
                    if session_ended || self.core.is_released() {
                        // what a sender adds from here on could come after the end
                        self.out.end();
                        // no more of the session's clocks
                        self.core.deadlines.handles();
                        self.stage = Stage::Flush;
                        continue;
                    }
                    let _ = self.out.poll_flush(cx);
                    if !self.core.is_broken() {
                        return false;
                    }
                }
                Stage::Flush => {
                    if self.out.poll_shutdown(cx).is_pending() {
                        return false;
                    }
                    if !self.core.is_broken() {
                        let lingers = self.core.failure().is_none_or(|failure| failure.reason.lingers());
                        let remainder = self.core.take_remainder();
                        if lingers {
                            self.remainder = remainder;
                        } else {
                            discard(remainder);
                        }
                        self.core.deadlines.half_closes();
                        self.stage = Stage::Linger;
                        self.until = self.core.deadlines.now().saturating_add(micros(LINGER));
                    }
                }
                Stage::Linger => {
                    let over = match &mut self.remainder {
                        Some(remainder) => remainder.ended() || remainder.poll_discard(cx).is_ready(),
                        None => true,
                    };
                    return over && self.close();
                }
            }
        }
    }

    /// Lets go of the transport, and says so.
    fn close(&mut self) -> bool {
        let reason = match self.core.reason() {
            // everything was sent, and only the peer's end awaited: that is no connection that was cut
            CloseReason::Shutdown if self.stage == Stage::Linger => self.core.orderly_reason(),
            reason => reason,
        };
        self.out.release(!reason.flushes());
        discard((self.remainder.take(), self.core.take_remainder()));
        self.stage = Stage::Closed;
        self.until = 0;
        let closed = Closed { reason, ..self.core.sum_up(self.out.totals()) };
        self.watch.ended(&self.core, &closed);
        self.core.close(closed);
        true
    }

    /// Ready when a deadline has passed and was acted upon.
    fn poll_deadline(&mut self, mut timer: Pin<&mut Option<Sleep>>, cx: &mut Context<'_>) -> Poll<Due> {
        // most of the time the timer is early enough for whatever has happened since
        let waits = timer.as_ref().as_pin_ref().is_some_and(|timer| !timer.is_elapsed());
        if !self.core.deadlines.take_earlier() && waits && self.stage == Stage::Open && !self.core.is_disturbed() {
            return Poll::Pending;
        }
        loop {
            let (deadlines, limits) = (&self.core.deadlines, &self.core.limits);
            let mut next = match self.stage {
                Stage::Closed => None,
                // the session has been told of the end: what comes in is of no interest any more
                _ if self.core.failure().is_some() => deadlines.next_out(limits),
                _ => deadlines.next(limits),
            }
            .map(|(at, reason)| (at, Some(reason)));
            if self.stage == Stage::Linger {
                let at = next.map_or(self.until, |(at, _)| at.min(self.until));
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
                Some(armed) => armed.reset(self.core.deadlines.instant(at)),
                None => timer.set(Some(tokio::time::sleep_until(self.core.deadlines.instant(at)))),
            }
            self.armed = at;
            // not by the task's budget: a timer that was not polled never wakes anybody
            let armed = timer.as_mut().as_pin_mut().map(|timer| pin!(unconstrained(timer)).poll(cx));
            if armed.is_none_or(|armed| armed.is_pending()) {
                return Poll::Pending;
            }
            if self.core.deadlines.now() < at {
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
            CloseReason::Idle => self.core.idle(),
            CloseReason::Drained => self.core.ends_freshness(),
            CloseReason::Overrun => self.core.cut(reason),
            CloseReason::HalfCloseTimeout if self.stage == Stage::Linger => {
                self.close();
            }
            _ if self.stage == Stage::Open && self.core.failure().is_none() => self.core.fail(reason),
            // the reason for the end stands, but nothing more can be said to the peer
            _ => {
                self.core.fail(reason);
                self.close();
            }
        }
    }

    /// When the session is dropped, after it has been told of the end: it still holds the connection, or still has a
    /// last word.
    fn patience(&mut self) -> Option<u64> {
        let told = match self.stage {
            Stage::Open => self.core.failure().is_some() && !self.core.is_released(),
            Stage::Flush | Stage::Linger => false,
            Stage::Closed => true,
        };
        if !told {
            return None;
        }
        let patience = if self.core.is_cut() { micros(LAST_WORDS) } else { self.core.limits.half_close() };
        let latest = self.core.deadlines.now().saturating_add(patience);
        self.until = if self.until == 0 { latest } else { self.until.min(latest) };
        Some(self.until)
    }
}

impl Drop for Ending {
    /// The runtime may drop the task before it is through.
    fn drop(&mut self) {
        if self.stage != Stage::Closed {
            let scope = self.scope.take();
            let _inside = scope.enter();
            self.core.fail(CloseReason::Shutdown);
            self.close();
        }
        self.core.set_driver(None);
        self.watch.gone(&self.core);
    }
}
