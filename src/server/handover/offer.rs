//! The running process: gives its sockets to whoever comes next.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::sleep;

use super::channel::{Broken, Channel};
use super::protocol::Message;
use super::{BINDS, STEP};
use crate::endpoint::Endpoint;
use crate::server::accept::{Control, Door};
use crate::transport::unix::UnixTransport;

/// After an error of accepting.
const PAUSE: Duration = Duration::from_millis(100);

/// What there is to hand over, and where.
pub(crate) struct Offer {
    door: Arc<Door<UnixTransport>>,
    /// With the endpoints as they were asked for. The door's own is the last.
    sockets: Vec<(Endpoint, Arc<dyn Control>)>,
    handed_over: watch::Sender<bool>,
}

/// How an attempt ended that did not fail.
enum Outcome {
    HandedOver,
    /// Whoever came asked for nothing, as those do who only look whether somebody listens.
    Nothing,
    /// This server has been stopped in the meantime.
    Stopped,
}

impl Offer {
    pub(crate) fn new(
        door: Arc<Door<UnixTransport>>,
        sockets: Vec<(Endpoint, Arc<dyn Control>)>,
        handed_over: watch::Sender<bool>,
    ) -> Self {
        Self { door, sockets, handed_over }
    }

    /// Serves one after the other, until somebody has the sockets, or they are closed.
    pub(crate) async fn serve(self) {
        loop {
            let stream = match poll_fn(|cx| self.door.poll_next(cx)).await {
                None => return,
                Some(Ok(stream)) => stream,
                Some(Err(error)) => {
                    tracing::warn!(%error, "cannot accept for a handover; pausing");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            match self.hand_over(stream).await {
                Ok(Outcome::HandedOver) => {
                    self.handed_over.send_replace(true);
                    return;
                }
                Ok(Outcome::Nothing) => tracing::debug!("somebody looked whether there is a server to take over"),
                Ok(Outcome::Stopped) => return,
                Err(error) => tracing::warn!(%error, "a handover failed; serving on"),
            }
        }
    }

    async fn hand_over(&self, stream: UnixStream) -> Result<Outcome, Broken> {
        let (mut channel, pid) = Channel::new(stream)?;
        let result = self.negotiate(&mut channel, pid).await;
        if let Err(error) = &result {
            // as far as it listens
            let _ = channel.send(&Message::Refused(error.to_string()), STEP).await;
        }
        result
    }

    async fn negotiate(&self, channel: &mut Channel, pid: Option<i32>) -> Result<Outcome, Broken> {
        match self.unless_stopped(self.list(channel)).await {
            None => return Ok(Outcome::Stopped),
            Some(Err(Broken::Ended)) => return Ok(Outcome::Nothing),
            Some(listed) => listed?,
        }
        tracing::info!(pid, sockets = self.sockets.len(), "handing over");
        match self.unless_stopped(channel.expect(&Message::Ready, BINDS)).await {
            None => return Ok(Outcome::Stopped),
            Some(ready) => ready?,
        }
        // whatever happens to this process from here on, it must not remove the files of a process that serves
        self.owns_names(false);
        if let Err(error) = switch(channel).await {
            self.owns_names(true);
            return Err(error);
        }
        for (_, control) in &self.sockets {
            control.hand_over();
        }
        tracing::info!(pid, "handed over");
        // where it does not hear this it has ended, and that is its own affair by now
        let _ = channel.send(&Message::Gone, STEP).await;
        Ok(Outcome::HandedOver)
    }

    /// Nothing comes of it once this server is stopped; the other process sees that it has gone, and does without.
    async fn unless_stopped<T>(&self, step: impl Future<Output = T>) -> Option<T> {
        let closed = pin!(poll_fn(|cx| self.door.poll_closed(cx)));
        match select(pin!(step), closed).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(_) => None,
        }
    }

    /// Sends the sockets to whoever asks for them.
    async fn list(&self, channel: &mut Channel) -> Result<(), Broken> {
        channel.expect(&Message::Hello, STEP).await?;
        let mut count = 0_u16;
        for (asked, control) in &self.sockets {
            let Some(duplicate) = control.duplicate()? else { continue };
            use std::os::fd::AsFd;
            let message = Message::Socket { asked: asked.to_string(), file: duplicate.file };
            channel.send_with(&message, Some(duplicate.descriptor.as_fd()), STEP).await?;
            count = count.saturating_add(1);
        }
        channel.send(&Message::Listed(count), STEP).await
    }

    fn owns_names(&self, owns: bool) {
        for (_, control) in &self.sockets {
            control.owns_name(owns);
        }
    }
}

/// From here on both may accept, until the other has said that it does. Should it do so and not get as far as saying it,
/// both go on until it has ended, and nobody is turned away by either.
async fn switch(channel: &mut Channel) -> Result<(), Broken> {
    channel.send(&Message::Switch, STEP).await?;
    channel.expect(&Message::Serving, STEP).await
}
