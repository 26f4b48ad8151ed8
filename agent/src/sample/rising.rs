//! A counter that never falls, followed across whatever made its source begin anew.
//!
//! A service that is started again has another control group, whose counters begin at zero. The collector makes rates of
//! what it is told, and a counter only grows within an epoch: what was used before stays in the sum.

/// Follows one counter.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rising {
    total: f64,
    last: f64,
}

impl Rising {
    /// The source stands at `now`; a source that stands below where it stood began anew.
    pub(super) fn follow(&mut self, now: f64) -> f64 {
        self.total += if now >= self.last { now - self.last } else { now };
        self.last = now;
        self.total
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_begins_anew_goes_on_from_where_it_stood() {
        let mut rising = Rising::default();
        let told = [5.0, 7.0, 1.0, 1.0, 4.0].map(|now| rising.follow(now));
        assert_eq!(told, [5.0, 7.0, 8.0, 8.0, 11.0]);
    }

    proptest! {
        #[test]
        fn it_never_falls(values in proptest::collection::vec(0.0..1e9_f64, 0..50)) {
            let mut rising = Rising::default();
            let told: Vec<_> = values.into_iter().map(|now| rising.follow(now)).collect();
            prop_assert!(told.windows(2).all(|pair| pair[0] <= pair[1]));
        }
    }
}
