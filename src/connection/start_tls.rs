//! From a connection in the clear to an encrypted one, while it is open.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::closed::{CloseReason, Failure};
use super::core::Core;
use super::handle::Connection;
use crate::error::{Error, ErrorKind};
use crate::tls::{Secured, Upgrade, Wire};

impl<In, Out> Connection<In, Out>
where
    In: Send + 'static,
    Out: Send + 'static,
{
    /// Goes on encrypted, on a connection that began in the clear, after both sides have agreed to do so, as with
    /// `STARTTLS`: on the server's side with a [`ServerTls`](crate::tls::ServerTls), on the client's with a
    /// [`ClientTls`](crate::tls::ClientTls), whose server is the endpoint's host if it has no name of its own. From here on
    /// [`peer`](Self::peer) tells what the handshake agreed upon.
    ///
    /// What was sent so far still goes out in the clear, then the handshake begins, within
    /// [`Limits::handshake`](crate::Limits::handshake) and, of a server, as one of
    /// [`Limits::handshakes`](crate::Limits::handshakes). What [senders](crate::Sender) and groups send meanwhile waits,
    /// and goes out encrypted.
    ///
    /// Whatever has come in after the last message that was received was not encrypted, and could have been put there by
    /// anybody on the way to be taken for something that was (CVE-2011-0411): then there is no handshake, and the
    /// connection is closed with [`CloseReason::Protocol`]. Protocols also have to forget what was said before.
    ///
    /// ```no_run
    /// use hythe::tls::ServerTls;
    /// use hythe::{Connection, Handler};
    ///
    /// #[derive(Clone)]
    /// struct Mail {
    ///     tls: ServerTls,
    /// }
    ///
    /// impl Handler for Mail {
    ///     type In = String;
    ///     type Out = String;
    ///
    ///     async fn on_message(&mut self, conn: &mut Connection<String>, line: String) -> anyhow::Result<()> {
    ///         match line.as_str() {
    ///             "STARTTLS" if conn.peer().tls().is_none() => {
    ///                 conn.send("220 go ahead".into()).await?;
    ///                 conn.start_tls(&self.tls).await?;
    ///             }
    ///             _ => conn.send("502 not implemented".into()).await?,
    ///         }
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it is no byte stream in the clear, or the client has no name for the server; that leaves
    /// the connection as it was. Any other error ends it, a failed handshake with [`CloseReason::Handshake`].
    ///
    /// # Cancel safety
    /// If the future is dropped before it is ready, the connection is closed with [`CloseReason::Handshake`].
    pub async fn start_tls(&mut self, tls: impl Into<Upgrade>) -> Result<(), Error> {
        let tls = tls.into().named(self.core.peer().endpoint().host())?;
        self.check()?;
        let owned = self.owned.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(link) = &mut owned.link else { return Err(Error::closed(self.core.reason())) };
        if owned.slot.is_some() || link.holds_part() {
            let text = "more came after what asked for TLS, and could be taken for what is encrypted";
            self.core.fail(Failure::new(CloseReason::Protocol, text));
            return Err(self.error(CloseReason::Protocol));
        }
        let Some(read) = link.take_stream() else {
            let text = format!("{}: TLS can be started on a byte stream in the clear only", self.core.peer());
            return Err(Error::new(ErrorKind::Config, text));
        };
        let unfinished = Unfinished(Some(&self.core));
        let Some((write, waits)) = self.out.take_half() else {
            return Err(self.error(self.core.reason()));
        };
        let handshake = async {
            let mut wire = Wire::new(read, write);
            wire.write_all(&waits).await?;
            wire.flush().await?;
            tls.handshake(wire).await
        };
        match within_limits(&self.core, handshake).await {
            Ok(Secured { read, write, info }) => {
                unfinished.done();
                link.put_tls(read);
                self.core.upgrade(info);
                self.out.put_tls(write);
                self.check()
            }
            Err(failure) => {
                self.core.fail(failure);
                Err(self.error(self.core.reason()))
            }
        }
    }
}

/// Until the handshake is over, or the connection.
async fn within_limits<T>(core: &Core, handshake: impl Future<Output = std::io::Result<T>>) -> Result<T, Failure> {
    let limits = core.limits.get();
    let handshake = {
        let _context = core.runtime().map(Handle::enter);
        timeout(limits.handshake, handshake)
    };
    let mut running = pin!(core.limits.handshakes.begin(limits.handshakes).run(handshake));
    let over = poll_fn(|cx| {
        core.writer().register(cx.waker());
        if core.is_broken() {
            return Poll::Ready(None);
        }
        running.as_mut().poll(cx).map(Some)
    });
    let why = |text: String| Err(Failure::new(CloseReason::Handshake, text));
    match over.await {
        Some(Some(Ok(Ok(done)))) => Ok(done),
        Some(Some(Ok(Err(error)))) => Err(Failure::new(CloseReason::Handshake, error)),
        Some(Some(Err(_))) => why(format!("it was not through within {:?}", limits.handshake)),
        Some(None) => why("there were too many handshakes".into()),
        None => Err(core.reason().into()),
    }
}

/// A handshake under way: without its end the connection is of no use.
struct Unfinished<'a>(Option<&'a Core>);

impl Unfinished<'_> {
    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(core) = self.0 {
            core.fail(Failure::new(CloseReason::Handshake, "it was given up"));
        }
    }
}
