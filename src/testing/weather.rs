//! [`Faults`] as they happen to the bytes of one connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::time::{Sleep, sleep};

use super::faults::Faults;
use super::random::Random;
use crate::transport::mem::{End, MemStream, Weather};

/// Has the server's end of a wire suffer from `faults`.
pub(super) fn exposed(stream: MemStream, faults: &Faults) -> MemStream {
    let fate = Arc::new(Fate { passed: AtomicU64::new(0), reset: faults.reset.unwrap_or(u64::MAX) });
    let reads = Reads {
        short: Short::new(faults.short_reads, faults.seed),
        delay: faults.delay,
        random: Random::new(faults.seed ^ 1),
        pause: None,
        paused: false,
        left: faults.half_close.unwrap_or(u64::MAX),
        fate: Arc::clone(&fate),
    };
    let writes = Writes {
        short: Short::new(faults.short_writes, faults.seed ^ 2),
        stall: faults.stall,
        pause: None,
        written: 0,
        fate,
    };
    stream.with_weather(Box::new(reads), Box::new(writes))
}

/// What both directions have in common: the reset.
struct Fate {
    passed: AtomicU64,
    reset: u64,
}

impl Fate {
    /// How many bytes may pass before the reset.
    fn left(&self) -> u64 {
        self.reset.saturating_sub(self.passed.load(Relaxed)).max(1)
    }

    fn pass(&self, end: &End, bytes: u64) {
        let before = self.passed.fetch_add(bytes, Relaxed);
        if before < self.reset && before.saturating_add(bytes) >= self.reset {
            end.reset();
        }
    }
}

/// How much one read or write does.
struct Short {
    most: Option<u64>,
    random: Random,
}

impl Short {
    fn new(most: Option<usize>, seed: u64) -> Self {
        Self { most: most.map(|most| most as u64), random: Random::new(seed) }
    }

    fn next(&mut self, bound: u64) -> usize {
        let size = self.most.map_or(u64::MAX, |most| self.random.up_to(most));
        usize::try_from(size.min(bound)).unwrap_or(usize::MAX)
    }
}

type Pause = Option<Pin<Box<Sleep>>>;

/// Ready when `time` has passed since the first call.
fn poll_pause(pause: &mut Pause, time: Duration, cx: &mut Context<'_>) -> Poll<()> {
    ready!(pause.get_or_insert_with(|| Box::pin(sleep(time))).as_mut().poll(cx));
    *pause = None;
    Poll::Ready(())
}

struct Reads {
    short: Short,
    delay: Option<Duration>,
    random: Random,
    pause: Pause,
    /// What is there has been late enough.
    paused: bool,
    /// Bytes before the peer seems to end.
    left: u64,
    fate: Arc<Fate>,
}

impl Weather for Reads {
    fn poll_read(&mut self, end: &End, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let available = ready!(end.poll_readable(cx));
        if let (Some(most), false, false) = (self.delay, self.paused, available == 0) {
            let millis = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
            let time = match self.pause {
                None => Duration::from_millis(self.random.up_to(millis.saturating_add(1)) - 1),
                Some(_) => Duration::ZERO,
            };
            ready!(poll_pause(&mut self.pause, time, cx));
            self.paused = true;
        }
        let most = self.short.next(self.left.min(self.fate.left()));
        let before = buf.filled().len();
        ready!(end.poll_read(cx, buf, most))?;
        let read = (buf.filled().len() - before) as u64;
        if read > 0 {
            // what was sent together arrives together, in however many reads
            self.paused = available as u64 > read;
            self.left -= read;
            if self.left == 0 {
                end.stop_hearing();
            }
            self.fate.pass(end, read);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, end: &End, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        end.poll_write(cx, bytes)
    }
}

struct Writes {
    short: Short,
    stall: Option<(u64, Option<Duration>)>,
    pause: Pause,
    written: u64,
    fate: Arc<Fate>,
}

impl Weather for Writes {
    fn poll_read(&mut self, end: &End, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        end.poll_read(cx, buf, usize::MAX)
    }

    fn poll_write(&mut self, end: &End, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let room = ready!(end.poll_writable(cx));
        let mut bound = self.fate.left();
        match self.stall {
            Some((after, time)) if self.written >= after && room > 0 => {
                // a reset would wake us
                let Some(time) = time else { return Poll::Pending };
                ready!(poll_pause(&mut self.pause, time, cx));
                self.stall = None;
            }
            Some((after, _)) => bound = bound.min(after - self.written),
            None => {}
        }
        let most = self.short.next(bound).min(bytes.len());
        let written = ready!(end.poll_write(cx, bytes.get(..most).unwrap_or_default()))?;
        self.written += written as u64;
        self.fate.pass(end, written as u64);
        Poll::Ready(Ok(written))
    }
}
