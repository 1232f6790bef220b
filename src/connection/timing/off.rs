//! Nobody wants to know.

use tokio::time::Instant;

#[derive(Clone, Debug, Default)]
pub(crate) struct Timing {}

impl Timing {
    #[inline]
    pub(crate) fn starts(&self, _: u64, _: Instant) {}

    #[inline]
    pub(crate) fn ends(&self, _: Instant) {}
}
