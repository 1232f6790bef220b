//! The crate's error: what was being done, what kind of failure it was, and the cause.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::{fmt, io};

use crate::connection::CloseReason;

/// A boxed cause, as codecs hand it over.
pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

/// What a hythe operation failed with.
///
/// It prints its own level only; the cause is in [`source`](StdError::source), so that `anyhow` and others print the
/// chain without repeating it.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    what: Cow<'static, str>,
    source: Option<BoxError>,
}

/// What an [`Error`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The text of an endpoint could not be read.
    Endpoint,
    /// Options contradict each other, or the endpoint and the codec do not fit.
    Config,
    /// A listening socket could not be made.
    Bind,
    /// A server that runs could not be taken over. It serves on.
    Handover,
    /// A host name gave no address.
    Resolve,
    /// No connection could be made.
    Connect,
    /// A deadline passed.
    Timeout,
    /// A message could not be encoded, or what the peer sent could not be decoded.
    Codec,
    /// The connection is closed, for this reason.
    Closed(CloseReason),
    /// The operating system reported an error.
    Io,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, what: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner { kind, what: what.into(), source: None }))
    }

    pub(crate) fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn closed(reason: CloseReason) -> Self {
        Self::new(ErrorKind::Closed(reason), "")
    }

    /// What it is about.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Why the connection was closed, where that is what the error says.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        match self.0.kind {
            ErrorKind::Closed(reason) => Some(reason),
            _ => None,
        }
    }

    /// Whether a deadline passed: of the connect, or one of the connection's own.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        match self.0.kind {
            ErrorKind::Timeout => true,
            ErrorKind::Closed(reason) => reason.is_timeout(),
            _ => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.kind {
            ErrorKind::Closed(reason) => write!(f, "the connection is closed: {reason}"),
            _ => f.write_str(&self.0.what),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.0.kind).field("what", &self.0.what);
        if let Some(source) = &self.0.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<io::Error> for Error {
    fn from(source: io::Error) -> Self {
        Self::new(ErrorKind::Io, "the operating system reported an error").because(source)
    }
}
