//! How long to wait before the next attempt: exponential, with full jitter once the cap is reached.
//!
//! Ten thousand agents that lose their collector at once must not come back at once; the jitter
//! spreads them over the whole cap. The random number comes from the caller.

/// The delay grows from `first_ms` and doubles up to `cap_ms`.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first_ms: u64,
    cap_ms: u64,
    attempts: u32,
}

impl Backoff {
    #[must_use]
    pub const fn new(first_ms: u64, cap_ms: u64) -> Self {
        Self { first_ms, cap_ms, attempts: 0 }
    }

    /// The next delay. `random` is uniform over all of `u64`.
    ///
    /// Below the cap the delay lies between half and all of the step, so that early attempts are
    /// prompt; at the cap it lies anywhere between `first_ms` and the cap.
    pub fn next_ms(&mut self, random: u64) -> u64 {
        let step_ms = self.first_ms.saturating_mul(1 << self.attempts.min(32)).min(self.cap_ms);
        self.attempts = self.attempts.saturating_add(1);
        let floor_ms = if step_ms < self.cap_ms { step_ms / 2 } else { self.first_ms.min(step_ms) };
        floor_ms + scale(random, step_ms - floor_ms)
    }

    /// After an attempt that held: the next failure starts small again.
    pub const fn reset(&mut self) {
        self.attempts = 0;
    }

    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }
}

/// A number from 0 to `max`, both included, from uniform bits.
#[must_use]
pub const fn scale(random: u64, max: u64) -> u64 {
    ((random as u128 * (max as u128 + 1)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn delays_double_up_to_the_cap_and_start_anew_after_a_reset() {
        let mut backoff = Backoff::new(200, 30_000);
        let highest: Vec<u64> = (0..10).map(|_| backoff.next_ms(u64::MAX)).collect();
        assert_eq!(highest, [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
        backoff.reset();
        assert_eq!(backoff.next_ms(0), 100);
    }

    #[test]
    fn at_the_cap_delays_spread_over_all_of_it() {
        let mut backoff = Backoff::new(200, 30_000);
        for _ in 0..20 {
            backoff.next_ms(0);
        }
        assert_eq!((backoff.next_ms(0), backoff.next_ms(u64::MAX)), (200, 30_000));
    }

    proptest! {
        #[test]
        fn no_delay_exceeds_the_cap(first in 0u64..5_000, cap in 1u64..100_000, randoms: Vec<u64>) {
            let mut backoff = Backoff::new(first, cap);
            for random in randoms {
                prop_assert!(backoff.next_ms(random) <= cap);
            }
        }
    }
}
