//! Echoes, and panics in one place for the peers of one address, or for one message.

use std::str::FromStr;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Result, bail};
use hythe::codec::{CodecError, LengthDelimited};
use hythe::{Bytes, BytesMut, Closed, Connection, Handler, Peer, PeerAddress, Server};
use tokio::time::Instant;
use tokio_util::codec::{Decoder, Encoder};

use super::{GAUGES, Inside, Options, answer};
use crate::panics::{DOOMED, FATAL};

/// Where it panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Factory,
    Open,
    Message,
    Idle,
    Drain,
    Close,
    Decode,
    Encode,
    Drop,
}

impl Place {
    pub(crate) const ALL: [Self; 9] = [
        Self::Factory,
        Self::Open,
        Self::Message,
        Self::Idle,
        Self::Drain,
        Self::Close,
        Self::Decode,
        Self::Encode,
        Self::Drop,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Factory => "factory",
            Self::Open => "on_open",
            Self::Message => "on_message",
            Self::Idle => "on_idle",
            Self::Drain => "on_drain",
            Self::Close => "on_close",
            Self::Decode => "decode",
            Self::Encode => "encode",
            Self::Drop => "drop",
        }
    }
}

impl FromStr for Place {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|place| place.name() == text) {
            Some(place) => Ok(place),
            None => bail!("there is no place {text}"),
        }
    }
}

struct Panicky {
    /// Where this one panics.
    place: Option<Place>,
    _inside: Inside,
}

impl Panicky {
    fn new(place: Place, peer: &Peer) -> Self {
        let doomed = matches!(peer.address(), PeerAddress::Ip(at) if at.ip() == DOOMED);
        let panicky = Self { place: doomed.then_some(place), _inside: Inside::enter() };
        panicky.reaches(Place::Factory);
        panicky
    }

    fn reaches(&self, place: Place) {
        if self.place == Some(place) {
            panic!("in {}", place.name());
        }
    }
}

impl Handler for Panicky {
    type In = Bytes;
    type Out = Bytes;

    async fn on_open(&mut self, _: &mut Connection<Bytes>) -> Result<()> {
        GAUGES.opens.fetch_add(1, Relaxed);
        self.reaches(Place::Open);
        Ok(())
    }

    async fn on_message(&mut self, conn: &mut Connection<Bytes>, message: Bytes) -> Result<()> {
        if message == FATAL {
            self.reaches(Place::Message);
        }
        conn.send(message).await?;
        Ok(())
    }

    async fn on_idle(&mut self, _: &mut Connection<Bytes>) -> Result<()> {
        self.reaches(Place::Idle);
        Ok(())
    }

    async fn on_drain(&mut self, conn: &mut Connection<Bytes>, _: Instant) -> Result<()> {
        self.reaches(Place::Drain);
        conn.close_when_idle();
        Ok(())
    }

    async fn on_close(self, _: Closed) {
        GAUGES.closes.fetch_add(1, Relaxed);
        self.reaches(Place::Close);
    }
}

impl Drop for Panicky {
    fn drop(&mut self) {
        // not on the way out of another panic: that would be the end of the process
        self.reaches(Place::Drop);
    }
}

/// A codec that panics over one message.
#[derive(Clone)]
struct Trapped {
    inner: LengthDelimited,
    place: Place,
}

impl Decoder for Trapped {
    type Item = Bytes;
    type Error = CodecError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Bytes>, CodecError> {
        let message = self.inner.decode(src)?;
        if self.place == Place::Decode && message.as_deref() == Some(FATAL) {
            panic!("in decode");
        }
        Ok(message)
    }
}

impl Encoder<Bytes> for Trapped {
    type Error = CodecError;

    fn encode(&mut self, message: Bytes, dst: &mut BytesMut) -> Result<(), CodecError> {
        if self.place == Place::Encode && message == FATAL {
            panic!("in encode");
        }
        self.inner.encode(message, dst)
    }
}

pub(super) async fn serve(options: &Options) -> Result<()> {
    let place: Place = options.get("place")?.unwrap_or(Place::Message);
    let server = Server::with(move |peer: &Peer| Ok(Panicky::new(place, peer)));
    let codec = Trapped { inner: LengthDelimited::new(), place };
    answer(server.limits(options.limits()?).bind("tcp://127.0.0.1:0", codec).start().await?).await
}
