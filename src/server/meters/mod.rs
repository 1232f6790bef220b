//! Tells a recorder of metrics what a server has counted; without the feature `metrics`, nobody.

#[cfg(not(feature = "metrics"))]
mod off;
#[cfg(feature = "metrics")]
mod on;

#[cfg(not(feature = "metrics"))]
pub(crate) use off::{Meters, upkeep};
#[cfg(feature = "prometheus")]
pub(crate) use on::set_upkeep;
#[cfg(feature = "metrics")]
pub(crate) use on::{Meters, upkeep};

/// What a whole server has now.
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "nobody is told"))]
pub(crate) struct Whole {
    pub(crate) handshakes: u64,
    pub(crate) connections_limit: usize,
    pub(crate) memory: usize,
    pub(crate) memory_limit: usize,
}
