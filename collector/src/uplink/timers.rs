//! When to look at which connection again: one entry for each connection, however often its timer
//! moves.
//!
//! A timer that moves later keeps its earlier entry: the look at that time finds nothing due and arms
//! it anew. A look is therefore never late, sometimes early, and an entry never outlives its connection.

use std::collections::BTreeSet;
use std::time::Instant;

use super::mailbox::Place;

#[derive(Debug, Default)]
pub(super) struct Timers {
    by_time: BTreeSet<(Instant, Place)>,
    armed: Vec<Option<Instant>>,
}

impl Timers {
    /// Sees to it that `place` is due at `at` or before.
    pub(super) fn arm(&mut self, place: Place, at: Instant) {
        if self.armed.len() <= place.0 {
            self.armed.resize(place.0 + 1, None);
        }
        if let Some(armed) = self.armed[place.0] {
            if armed <= at {
                return;
            }
            self.by_time.remove(&(armed, place));
        }
        self.armed[place.0] = Some(at);
        self.by_time.insert((at, place));
    }

    pub(super) fn forget(&mut self, place: Place) {
        if let Some(armed) = self.armed.get_mut(place.0).and_then(Option::take) {
            self.by_time.remove(&(armed, place));
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|&(at, _)| at)
    }

    /// One that is due; it is not armed any more.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Place> {
        let &(at, place) = self.by_time.first()?;
        if at > now {
            return None;
        }
        self.forget(place);
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;

    #[test]
    fn a_timer_moves_earlier_at_once_and_later_by_a_look_in_vain() {
        let start = Clock::start().now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::default();
        timers.arm(Place(3), at(50));
        timers.arm(Place(1), at(20));
        timers.arm(Place(3), at(10));
        timers.arm(Place(1), at(90));
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.pop_due(at(9)), None);
        assert_eq!(timers.pop_due(at(30)), Some(Place(3)));
        assert_eq!(timers.pop_due(at(30)), Some(Place(1)));
        assert_eq!(timers.pop_due(at(1_000)), None);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn what_is_forgotten_is_never_due() {
        let now = Clock::start().now();
        let mut timers = Timers::default();
        timers.arm(Place(0), now);
        timers.forget(Place(0));
        timers.forget(Place(9));
        assert_eq!(timers.pop_due(now), None);
    }
}
