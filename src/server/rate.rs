//! How many connections are taken a second: a bucket of tokens, one for each, filled at the rate, that holds those of one
//! second at most.

use std::time::Duration;

use tokio::time::Instant;

use crate::sync::{Mutex, lock};

#[derive(Default)]
pub(crate) struct Rate(Mutex<Option<Bucket>>);

struct Bucket {
    /// In nanoseconds of filling, so that nothing is lost to rounding.
    filled: Duration,
    since: Instant,
}

impl Rate {
    /// Takes a token; or tells when there will be one.
    pub(crate) fn take(&self, rate: Option<u32>) -> Result<(), Instant> {
        let Some(rate) = rate.filter(|rate| *rate > 0) else { return Ok(()) };
        let each = Duration::from_secs(1) / rate;
        let now = Instant::now();
        let mut bucket = lock(&self.0);
        let bucket = bucket.get_or_insert(Bucket { filled: Duration::from_secs(1), since: now });
        let passed = now.saturating_duration_since(bucket.since);
        bucket.filled = bucket.filled.saturating_add(passed).min(Duration::from_secs(1));
        bucket.since = now;
        match bucket.filled.checked_sub(each) {
            Some(left) => {
                bucket.filled = left;
                Ok(())
            }
            None => Err(now + (each - bucket.filled)),
        }
    }

    /// Nobody came for whom a token was taken.
    pub(crate) fn give_back(&self, rate: Option<u32>) {
        let Some(rate) = rate.filter(|rate| *rate > 0) else { return };
        if let Some(bucket) = &mut *lock(&self.0) {
            bucket.filled = bucket.filled.saturating_add(Duration::from_secs(1) / rate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_holds_the_rate_and_a_quiet_one_fills_it_again() {
        let rate = Rate::default();
        let take = || (0..1000).take_while(|_| rate.take(Some(100)).is_ok()).count();
        assert_eq!(take(), 100);
        assert_eq!(rate.take(Some(100)).unwrap_err() - Instant::now(), Duration::from_millis(10));
        tokio::time::advance(Duration::from_millis(35)).await;
        assert_eq!(take(), 3);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(take(), 100, "more than a second's is never saved");
        assert!(rate.take(None).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_used_is_there_for_the_next() {
        let rate = Rate::default();
        while rate.take(Some(10)).is_ok() {}
        rate.give_back(Some(10));
        assert!(rate.take(Some(10)).is_ok());
        assert!(rate.take(Some(10)).is_err());
    }
}
