//! Nobody wants to know.

#[derive(Clone, Debug, Default)]
pub(crate) struct Timing {}

impl Timing {
    #[inline]
    pub(crate) fn starts(&self, _: u64) {}

    #[inline]
    pub(crate) fn ends(&self) {}
}
