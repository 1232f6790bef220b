//! The limits in force. Every connection looks at them when it needs them, so a change is everybody's at once.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::{Budget, Handshakes, Limits, STEP};

/// A duration in the unit of the clocks.
pub(crate) fn micros(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000).saturating_add(duration.subsec_micros().into())
}

macro_rules! live {
    (bytes { $($size:ident),* } micros { $($time:ident),* }) => {
        /// What is looked at for every message is a plain number here.
        #[derive(Debug)]
        pub(crate) struct Live {
            whole: RwLock<Arc<Limits>>,
            pub(crate) memory: Budget,
            pub(crate) handshakes: Arc<Handshakes>,
            $($size: AtomicUsize,)*
            $($time: AtomicU64,)*
            outbox: AtomicUsize,
            /// 0 is "off".
            handling: AtomicU64,
        }

        impl Live {
            pub(crate) fn new(limits: Limits) -> Arc<Self> {
                Arc::new(Self {
                    memory: Budget::new(limits.memory),
                    handshakes: Arc::default(),
                    $($size: AtomicUsize::new(limits.$size),)*
                    $($time: AtomicU64::new(micros(limits.$time)),)*
                    outbox: AtomicUsize::new(limits.outbox),
                    handling: AtomicU64::new(limits.handling.map_or(0, micros)),
                    whole: RwLock::new(Arc::new(limits)),
                })
            }

            /// Puts others into force.
            pub(crate) fn set(&self, limits: Limits) {
                self.memory.set_limit(limits.memory);
                $(self.$size.store(limits.$size, Relaxed);)*
                $(self.$time.store(micros(limits.$time), Relaxed);)*
                self.outbox.store(limits.outbox, Relaxed);
                self.handling.store(limits.handling.map_or(0, micros), Relaxed);
                *self.whole.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(limits);
            }

            $(
                /// In bytes, or how many.
                #[inline]
                #[cfg_attr(not(feature = "udp"), allow(dead_code, reason = "some are of UDP alone"))]
                pub(crate) fn $size(&self) -> usize {
                    self.$size.load(Relaxed)
                }
            )*

            $(
                /// In microseconds.
                #[inline]
                pub(crate) fn $time(&self) -> u64 {
                    self.$time.load(Relaxed)
                }
            )*
        }
    };
}

live! {
    bytes { max_message, max_datagram, udp_sessions, udp_queue, udp_buffer }
    micros { first_byte, message, idle, udp_idle, write_stall, half_close }
}

impl Live {
    /// All of them, as they were last set.
    pub(crate) fn get(&self) -> Arc<Limits> {
        Arc::clone(&self.whole.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What may wait in one outbox, in bytes: less, where memory is short.
    #[inline]
    pub(crate) fn outbox(&self) -> usize {
        let outbox = self.outbox.load(Relaxed);
        if self.memory.is_exhausted() { outbox.min(STEP) } else { outbox }
    }

    /// The time for one message, in microseconds, where there is such a limit.
    #[inline]
    pub(crate) fn handling(&self) -> Option<u64> {
        Some(self.handling.load(Relaxed)).filter(|time| *time > 0)
    }
}
