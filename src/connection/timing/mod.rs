//! How long a session takes over a message; without the feature `metrics`, nobody wants to know.

#[cfg(not(feature = "metrics"))]
mod off;
#[cfg(feature = "metrics")]
mod on;

#[cfg(not(feature = "metrics"))]
pub(crate) use off::Timing;
#[cfg(feature = "metrics")]
pub(crate) use on::Timing;
