//! When a node that nobody has seen for long retires.
//!
//! Days are counted on a calendar that is set once after a start and then advances with the ticks, so
//! that a wall clock that jumps retires nobody.

use dunlin_shared::time::{MonoMs, WallMs};

use super::liveness::Listening;
use super::roster::Life;

/// How long nodes may be unseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retiring {
    pub after_ms: u64,
    /// For nodes that come and go by design.
    pub ephemeral_after_ms: u64,
}

const HOUR_MS: u64 = 3_600_000;
/// Who was not there when the collector was away has so long to come back, or its own time where that
/// is shorter: longer than any back-off.
const AFTER_START_MS: u64 = HOUR_MS;
/// Days need not be looked at each second.
const EVERY_MS: u64 = 60_000;

#[derive(Debug, Default)]
pub(super) struct Calendar {
    rule: Retiring,
    today: Option<WallMs>,
    looked: MonoMs,
}

impl Default for Retiring {
    fn default() -> Self {
        Self { after_ms: 30 * 24 * HOUR_MS, ephemeral_after_ms: HOUR_MS }
    }
}

impl Calendar {
    pub(super) const fn set_rule(&mut self, rule: Retiring) {
        self.rule = rule;
    }

    pub(super) const fn started(&mut self, at: WallMs, now: MonoMs) {
        self.today = Some(at);
        self.looked = now;
    }

    /// Whether it is time to look who retires.
    pub(super) fn tick(&mut self, at: WallMs, elapsed_ms: u64, now: MonoMs) -> bool {
        let elapsed_ms = i64::try_from(elapsed_ms).unwrap_or(i64::MAX);
        self.today = Some(self.today.map_or(at, |today| today.plus(elapsed_ms)));
        let is_time = now.since(self.looked) >= EVERY_MS;
        if is_time {
            self.looked = now;
        }
        is_time
    }

    pub(super) fn retires(&self, listening: &Listening, life: &Life) -> bool {
        let after_ms = if life.is_ephemeral { self.rule.ephemeral_after_ms } else { self.rule.after_ms };
        let unseen_ms = self.today.map_or(0, |today| today.since(life.last_seen));
        life.is_gone()
            && u64::try_from(unseen_ms).is_ok_and(|unseen_ms| unseen_ms >= after_ms)
            && listening.for_ms() >= after_ms.min(AFTER_START_MS)
    }
}
