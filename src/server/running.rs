//! A server that runs: where it listens, who is connected, and how it ends.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::future::{Either, select};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout, timeout_at};

use super::accept::Control;
use super::hub::{ConnectionInfo, DrainReport, Hub};
use super::listen::Listening;
use super::signal::Signals;
use super::tally::Counters;
use crate::connection::{CloseReason, ConnectionId, wait_closed};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::limits::{FOREVER, Limits};

/// What connections that are cut get for their last words, and a bit.
pub(crate) const LAST_WORDS: Duration = Duration::from_millis(1500);

/// A server that runs. Dropping it stops it at once: ports and names are free when the drop returns, and connections are
/// cut.
///
/// ```
/// # async fn example() -> anyhow::Result<()> {
/// use std::time::Duration;
/// use hythe::{Connection, Server, codec::Lines};
///
/// let running = Server::serve(|mut conn: Connection<String>| async move {
///     while let Some(line) = conn.recv().await? {
///         conn.send(line).await?;
///     }
///     Ok(())
/// })
/// .bind("tcp://127.0.0.1:0", Lines::new())
/// .start()
/// .await?;
///
/// println!("listening on {}", running.endpoints()[0]);
/// let report = running.shutdown(Duration::from_secs(5)).await;
/// assert_eq!(report.cut, 0);
/// # Ok(()) }
/// ```
#[must_use = "the server stops when this is dropped"]
pub struct Running {
    hub: Arc<Hub>,
    runtime: Handle,
    endpoints: Vec<Endpoint>,
    controls: Vec<Arc<dyn Control>>,
    #[cfg(feature = "handover")]
    handed_over: Option<tokio::sync::watch::Receiver<bool>>,
}

impl Running {
    pub(crate) fn start(hub: Arc<Hub>, listening: Vec<Listening>) -> Self {
        let limits = hub.limits.get();
        tracing::info!(?limits, worst_case_memory = limits.worst_case_memory(), "effective limits");
        let mut running = Self {
            hub,
            runtime: Handle::current(),
            endpoints: Vec::new(),
            controls: Vec::new(),
            #[cfg(feature = "handover")]
            handed_over: None,
        };
        for Listening { endpoint, control, task, worker, again, is_further, .. } in listening {
            match &running.hub.crew {
                Some(crew) => crew.post(worker, task, again),
                None => drop(tokio::spawn(task)),
            }
            running.controls.push(control);
            if !is_further {
                tracing::info!(%endpoint, "listening");
                running.hub.tallies.of(&endpoint);
                running.endpoints.push(endpoint);
            }
        }
        running
    }

    /// Begins to offer the sockets to other processes, at a socket of its own.
    #[cfg(feature = "handover")]
    pub(crate) fn offers(
        &mut self,
        offer: super::handover::Offer,
        handed_over: tokio::sync::watch::Receiver<bool>,
        door: Arc<dyn Control>,
    ) {
        tokio::spawn(offer.serve());
        self.controls.push(door);
        self.handed_over = Some(handed_over);
    }

    /// What another process had is this one's: the files of its sockets.
    #[cfg(feature = "handover")]
    pub(crate) fn owns_names(&self) {
        for control in &self.controls {
            control.owns_name(true);
        }
    }

    /// Waits until another process has taken the listening sockets over, as [`Server::handover`](crate::Server::handover)
    /// says. This server accepts nobody any more then, and wants to be [shut down](Self::shutdown):
    /// [`until_signal`](Self::until_signal) does so by itself. Waits for ever where that never happens.
    ///
    /// # Cancel safety
    /// A dropped future loses nothing: once it has happened, it is so whenever it is asked for.
    #[cfg(feature = "handover")]
    pub async fn handed_over(&self) {
        if let Some(mut handed_over) = self.handed_over.clone() {
            if handed_over.wait_for(|handed_over| *handed_over).await.is_ok() {
                return;
            }
        }
        std::future::pending().await
    }

    /// Where it listens, in the order of the binds. Port 0 has become the port that the system chose; a host name, its
    /// addresses.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.hub.counters()
    }

    /// How many slots of [`Limits::max_connections`](crate::Limits::max_connections) are taken.
    #[cfg(feature = "testing")]
    pub(crate) fn slots(&self) -> usize {
        self.hub.slots.used()
    }

    /// The connections that are open now, in the order of their opening.
    #[must_use]
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.hub.connections()
    }

    /// Has one connection closed as a drain would: at its next message boundary, and cut after `within`. False where
    /// there is no such connection.
    pub fn drain_connection(&self, id: ConnectionId, within: Duration) -> bool {
        let Some(core) = self.hub.find(id) else { return false };
        let deadline = after(within);
        core.start_drain(deadline);
        self.runtime.spawn(async move {
            if timeout_at(deadline, wait_closed(&core)).await.is_err() {
                core.cut(CloseReason::Shutdown);
            }
        });
        true
    }

    /// Accepts nobody new, until [`resume`](Self::resume). Ports stay bound: TCP and Unix peers wait in the backlog,
    /// datagrams of new UDP peers are dropped and counted.
    pub fn pause(&self) {
        self.hub.paused.store(true, Relaxed);
    }

    /// Accepts again.
    pub fn resume(&self) {
        self.hub.paused.store(false, Relaxed);
        for control in &self.controls {
            control.wake();
        }
    }

    /// Drains: stops accepting and frees the ports, tells every connection
    /// ([`Handler::on_drain`](crate::Handler::on_drain)), lets idle ones end at once and busy ones finish, and cuts
    /// what is left after `within`. Ends when every connection has.
    ///
    /// A connection that was opened less than a second ago, and on which no byte has come yet, is not idle: its peer was
    /// told that it is connected, and is about to speak. It has until one second after its opening, or half of `within`
    /// where that is less.
    ///
    /// # Cancel safety
    /// A dropped future leaves the drain under way, but without the cut at its end; call it again for that.
    pub async fn shutdown(&self, within: Duration) -> DrainReport {
        let deadline = after(within);
        tracing::info!(connections = self.hub.counters().open, ?within, "draining");
        for control in &self.controls {
            control.stop();
        }
        self.hub.start_drain(deadline);
        if timeout_at(deadline, self.hub.emptied()).await.is_err() {
            self.hub.cut();
            let _ = timeout(LAST_WORDS, self.hub.emptied()).await;
        }
        self.close();
        self.dismiss().await;
        let report = self.hub.report();
        tracing::info!(finished = report.finished, cut = report.cut, unsent_bytes = report.unsent_bytes, "drained");
        report
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> Limits {
        (*self.hub.limits.get()).clone()
    }

    /// Puts other limits into force, at once and for all: connections that are open keep to the new deadlines and sizes
    /// from here on. Nobody is thrown out by a lower number of connections, but nobody is taken either before there are
    /// fewer. The sockets that are open keep the kernel's side of
    /// [`write_stall`](Limits::write_stall).
    ///
    /// # Errors
    /// If a limit makes no sense; then those before stay in force.
    pub fn set_limits(&self, limits: Limits) -> Result<(), Error> {
        let limits = limits.check()?;
        tracing::info!(?limits, worst_case_memory = limits.worst_case_memory(), "other limits");
        #[cfg(target_os = "linux")]
        {
            // which can take a moment
            let connections = limits.max_connections;
            self.runtime.spawn_blocking(move || super::descriptors::make_room(connections));
        }
        self.hub.set_limits(limits);
        for control in &self.controls {
            control.adjust(&self.hub.limits.get());
        }
        Ok(())
    }

    /// Stops at once: frees the ports and cuts every connection.
    pub fn abort(&self) {
        self.close();
        self.hub.start_drain(Instant::now());
        self.hub.cut();
        if let Some(crew) = &self.hub.crew {
            crew.leave_after(&self.hub);
        }
    }

    /// Ends the workers, who have nothing left to do, and waits for that; not for those whose thread a handler blocks.
    async fn dismiss(&self) {
        // whoever asks for it on one of their threads would end in the middle of this
        if let Some(crew) = self.hub.crew.as_ref().filter(|crew| !crew.is_here()) {
            if timeout(LAST_WORDS, crew.leave()).await.is_err() {
                tracing::warn!("a worker's thread does not end: a handler blocks it");
            }
        }
    }

    fn close(&self) {
        for control in &self.controls {
            control.close();
        }
    }

    /// Runs until SIGINT or SIGTERM, or until another process has taken over; then drains for
    /// [`Limits::drain`](crate::Limits::drain). A second signal, or one after a handover, cuts what is left.
    ///
    /// # Errors
    /// If the signals cannot be listened to.
    pub async fn until_signal(self) -> Result<DrainReport, Error> {
        Ok(self.until(Signals::new()?).await)
    }

    pub(crate) async fn until(self, mut signals: Signals) -> DrainReport {
        #[cfg(feature = "handover")]
        select(pin!(signals.next()), pin!(self.handed_over())).await;
        #[cfg(not(feature = "handover"))]
        signals.next().await;
        let drain = pin!(self.shutdown(self.hub.limits.get().drain));
        let again = pin!(signals.next());
        match select(drain, again).await {
            Either::Left((report, _)) => report,
            Either::Right(((), drain)) => {
                tracing::warn!("a signal during the drain: stopping at once");
                self.abort();
                // a handler that blocks its thread is not waited for
                timeout(LAST_WORDS, drain).await.unwrap_or_else(|_| self.hub.report())
            }
        }
    }
}

/// A time from now, however long it is until then.
fn after(within: Duration) -> Instant {
    Instant::now() + within.min(FOREVER)
}

impl Drop for Running {
    fn drop(&mut self) {
        self.abort();
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}
