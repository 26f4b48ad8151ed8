//! A token bucket on virtual time: so many at once, and so many a second after that.

use crate::time::MonoMs;

#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    milli_tokens: u64,
    burst: u32,
    per_s: u32,
    filled_at: MonoMs,
}

impl Bucket {
    pub(super) const fn new(now: MonoMs, burst: u32, per_s: u32) -> Self {
        Self { milli_tokens: burst as u64 * 1_000, burst, per_s, filled_at: now }
    }

    /// Whether there was one left.
    pub(super) fn take(&mut self, now: MonoMs) -> bool {
        let fresh = now.since(self.filled_at).saturating_mul(u64::from(self.per_s));
        self.milli_tokens = self.milli_tokens.saturating_add(fresh).min(u64::from(self.burst) * 1_000);
        self.filled_at = self.filled_at.max(now);
        match self.milli_tokens.checked_sub(1_000) {
            Some(left) => {
                self.milli_tokens = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_a_burst_and_then_its_rate_and_a_clock_that_stands_still_gives_nothing() {
        let mut bucket = Bucket::new(MonoMs(1_000), 5, 2);
        let at = |bucket: &mut Bucket, ms| (0..20).filter(|_| bucket.take(MonoMs(ms))).count();
        assert_eq!(at(&mut bucket, 1_000), 5);
        assert_eq!(at(&mut bucket, 2_000), 2);
        assert_eq!(at(&mut bucket, 500), 0);
        assert_eq!(at(&mut bucket, 1_000_000), 5);
    }
}
