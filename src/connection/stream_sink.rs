//! A connection as a [`Stream`] and a [`Sink`].

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{Sink, Stream};

use super::handle::Connection;
use super::outlet::{PushError, Until};
use crate::error::{Error, ErrorKind};

// a message is never pinned in its slot
impl<In, Out> Unpin for Connection<In, Out> {}

impl<In, Out> Stream for Connection<In, Out>
where
    In: Send + 'static,
    Out: Send + 'static,
{
    type Item = Result<In, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // after an error the stream is at its end
        if self.spent {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_recv(cx)).transpose();
        self.spent = matches!(next, Some(Err(_)));
        Poll::Ready(next)
    }
}

impl<In, Out> Sink<Out> for Connection<In, Out>
where
    In: Send + 'static,
    Out: Send + 'static,
{
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if !self.promised {
            ready!(self.poll_room(cx))?;
            self.promised = true;
        }
        Poll::Ready(Ok(()))
    }

    fn start_send(mut self: Pin<&mut Self>, message: Out) -> Result<(), Error> {
        let promised = std::mem::take(&mut self.promised);
        match self.put(message, promised) {
            Ok(_) => Ok(()),
            Err(PushError::Encode(error)) => Err(error),
            Err(PushError::Closed(_)) => Err(self.error(self.core.reason())),
            Err(PushError::Full(_)) => {
                Err(Error::new(ErrorKind::Config, "start_send without poll_ready: the outbox is full"))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_until(cx, Until::Empty)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.core.start_closing();
        self.out.end();
        ready!(self.poll_until(cx, Until::Empty))?;
        self.out.poll_shutdown(cx).map(Ok)
    }
}
