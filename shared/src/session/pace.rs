//! A token bucket on virtual time: so many at once, and so many in each period after that.

use crate::time::MonoMs;

#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// A token is as many of these as the period has milliseconds, so that nothing is lost by rounding.
    parts: u64,
    burst: u32,
    per_period: u32,
    period_ms: u32,
    filled_at: MonoMs,
}

impl Bucket {
    #[must_use]
    pub const fn new(now: MonoMs, burst: u32, per_s: u32) -> Self {
        Self::per(now, burst, per_s, 1_000)
    }

    /// So many in each `period_ms`, which is not 0.
    #[must_use]
    pub const fn per(now: MonoMs, burst: u32, per_period: u32, period_ms: u32) -> Self {
        Self { parts: burst as u64 * period_ms as u64, burst, per_period, period_ms, filled_at: now }
    }

    /// Whether there would be one.
    #[must_use]
    pub fn has_one(&self, now: MonoMs) -> bool {
        let mut later = *self;
        later.take(now)
    }

    /// Whether there was one left.
    pub fn take(&mut self, now: MonoMs) -> bool {
        self.take_up_to(now, 1) == 1
    }

    /// As many as there are, and no more than that.
    pub fn take_up_to(&mut self, now: MonoMs, most: u64) -> u64 {
        let (token, full) = (u64::from(self.period_ms), u64::from(self.burst) * u64::from(self.period_ms));
        let fresh = now.since(self.filled_at).saturating_mul(u64::from(self.per_period));
        self.parts = self.parts.saturating_add(fresh).min(full);
        self.filled_at = self.filled_at.max(now);
        let taken = (self.parts / token).min(most);
        self.parts -= taken * token;
        taken
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

    #[test]
    fn nothing_is_lost_between_two_looks_however_often_it_is_asked() {
        let mut bucket = Bucket::per(MonoMs(0), 12, 12, 10_000);
        assert_eq!(bucket.take_up_to(MonoMs(0), 100), 12);
        let taken = (1..=100_000).filter(|&ms| bucket.take(MonoMs(ms))).count();
        assert_eq!(taken, 120);
    }
}
