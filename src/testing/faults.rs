//! What can go wrong on the way between a peer and a handler.

use std::fmt;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::Duration;

use futures::FutureExt;

use super::random::Random;

/// What goes wrong on a peer's connection, as the server sees it: chosen one by one, or by a seed.
///
/// The same faults do the same to the same bytes each time: together with the paused clock, a failure repeats.
///
/// ```
/// use std::time::Duration;
/// use hythe::testing::Faults;
///
/// let faults = Faults::none().short_reads(3).stall(100, Duration::from_secs(2)).reset(500);
/// assert_eq!(
///     faults.to_string(),
///     "reads of 3 bytes at most; after 100 bytes out nothing is taken for 2s; a reset after 500 bytes",
/// );
/// assert!(faults.end_it());
///
/// assert_eq!(Faults::from_seed(7), Faults::from_seed(7));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    pub(super) seed: u64,
    pub(super) short_reads: Option<usize>,
    pub(super) short_writes: Option<usize>,
    pub(super) delay: Option<Duration>,
    pub(super) stall: Option<(u64, Option<Duration>)>,
    pub(super) half_close: Option<u64>,
    pub(super) reset: Option<u64>,
}

impl Faults {
    /// None: the connection is as good as any in memory.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Some, of every kind, as the seed has it. One seed in sixteen gives none at all; two in five give an end before
    /// its time, see [`end_it`](Self::end_it).
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut faults = Self { seed, ..Self::default() };
        if random.one_in(16) {
            return faults;
        }
        // small numbers more often than large ones, as these are the ones that hurt
        let mut bytes = |bounds: &[u64]| {
            let most = random.pick(bounds);
            random.up_to(most)
        };
        let (short_reads, short_writes) = (bytes(&[1, 4, 16, 64]), bytes(&[1, 4, 16, 64]));
        let [stall, half_close, window, reset] = [(); 4].map(|()| bytes(&[8, 64, 512, 4096]));
        if random.one_in(2) {
            faults.short_reads = usize::try_from(short_reads).ok();
        }
        if random.one_in(2) {
            faults.short_writes = usize::try_from(short_writes).ok();
        }
        if random.one_in(3) {
            faults.delay = Some(Duration::from_millis(random.up_to(500)));
        }
        if random.one_in(4) {
            faults.stall = Some((stall, Some(Duration::from_millis(random.up_to(5000)))));
        }
        match random.up_to(15) {
            1 | 2 => faults.half_close = Some(half_close),
            3 => faults.stall = Some((window, None)),
            4..=6 => faults.reset = Some(reset),
            _ => {}
        }
        faults
    }

    /// No read brings more than `most` bytes; how many each does is up to the seed.
    #[must_use]
    pub fn short_reads(mut self, most: usize) -> Self {
        self.short_reads = Some(most.max(1));
        self
    }

    /// No write takes more than `most` bytes; how many each does is up to the seed.
    #[must_use]
    pub fn short_writes(mut self, most: usize) -> Self {
        self.short_writes = Some(most.max(1));
        self
    }

    /// What the peer sends takes up to `most` time on its way; how long is up to the seed, each time that nothing was on
    /// its way before.
    #[must_use]
    pub fn delay(mut self, most: Duration) -> Self {
        self.delay = Some(most);
        self
    }

    /// After so many bytes out, nothing is taken for a time.
    #[must_use]
    pub fn stall(mut self, after: u64, time: Duration) -> Self {
        self.stall = Some((after, Some(time)));
        self
    }

    /// After so many bytes out, nothing is taken any more: the peer's window stays closed.
    #[must_use]
    pub fn zero_window(mut self, after: u64) -> Self {
        self.stall = Some((after, None));
        self
    }

    /// After so many bytes in, 1 at least, the peer seems to have ended its side.
    #[must_use]
    pub fn half_close(mut self, after: u64) -> Self {
        self.half_close = Some(after.max(1));
        self
    }

    /// After so many bytes in and out together, 1 at least, the connection is reset.
    #[must_use]
    pub fn reset(mut self, after: u64) -> Self {
        self.reset = Some(after.max(1));
        self
    }

    /// The seed that these faults came from, and that decides the size of each read and write; 0 where none was given.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether they may end the connection before its work is done: by a reset, a half-close or a window that stays
    /// closed. If not, all messages must get through; of faults that were chosen one by one, a stall can be too long for
    /// the server's limits all the same.
    #[must_use]
    pub fn end_it(&self) -> bool {
        self.reset.is_some() || self.half_close.is_some() || matches!(self.stall, Some((_, None)))
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.seed != 0 {
            parts.push(format!("seed {}", self.seed));
        }
        if let Some(most) = self.short_reads {
            parts.push(format!("reads of {most} bytes at most"));
        }
        if let Some(most) = self.short_writes {
            parts.push(format!("writes of {most} bytes at most"));
        }
        if let Some(most) = self.delay {
            parts.push(format!("what comes in is up to {most:?} late"));
        }
        match self.stall {
            Some((after, Some(time))) => parts.push(format!("after {after} bytes out nothing is taken for {time:?}")),
            Some((after, None)) => parts.push(format!("after {after} bytes out nothing is taken any more")),
            None => {}
        }
        if let Some(after) = self.half_close {
            parts.push(format!("the peer's end after {after} bytes in"));
        }
        if let Some(after) = self.reset {
            parts.push(format!("a reset after {after} bytes"));
        }
        match parts.is_empty() {
            true => f.write_str("no faults"),
            false => f.write_str(&parts.join("; ")),
        }
    }
}

/// Runs a test with the faults of each seed, one after the other. If one fails, its faults are printed, and how to run it
/// alone.
///
/// ```
/// use hythe::testing::{Harness, with_faults};
/// use hythe::{Bytes, Connection, Server, codec::LengthDelimited};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// with_faults(1..50, async |faults| {
///     let server = Server::serve(|mut conn: Connection<Bytes>| async move {
///         while let Some(word) = conn.recv().await? {
///             conn.send(word.to_ascii_uppercase().into()).await?;
///         }
///         Ok(())
///     });
///     let test = Harness::start(server, LengthDelimited::new()).await;
///     let mut peer = test.faulty_peer(&faults).await;
///     for word in ["one", "two", "three"] {
///         peer.send(word).await;
///     }
///     peer.half_close();
///     let answers = peer.rest().await;
///     // what comes is right and in order; and all of it comes, unless a fault ends the connection
///     assert!(answers.iter().zip(["ONE", "TWO", "THREE"]).all(|(came, right)| came == right));
///     assert!(answers.len() == 3 || faults.end_it());
///     test.finish().await;
/// })
/// .await;
/// # }
/// ```
///
/// # Panics
/// If the test does, in the same way.
pub async fn with_faults(seeds: impl IntoIterator<Item = u64>, test: impl AsyncFn(Faults)) {
    for seed in seeds {
        let faults = Faults::from_seed(seed);
        if let Err(panic) = AssertUnwindSafe(test(faults.clone())).catch_unwind().await {
            eprintln!("the test failed with these faults: {faults}");
            eprintln!("to run it with them alone: with_faults([{seed}], …)");
            resume_unwind(panic);
        }
    }
}
