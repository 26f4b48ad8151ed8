//! Whose turn it is: the collectors of the configuration, and until when one of them wants to be left alone.
//!
//! Pure. Invariant: whoever asked to be left alone is asked again in time, and nobody waits for it while there is another.

use dunlin_shared::time::MonoMs;

#[derive(Debug)]
pub(super) struct Turns {
    names: Vec<String>,
    at: usize,
    /// Of each of them.
    away_until: Vec<MonoMs>,
}

impl Turns {
    /// Begins with the one at `first`.
    pub(super) fn new(names: Vec<String>, first: usize) -> Self {
        let away_until = vec![MonoMs(0); names.len()];
        Self { names, at: first, away_until }
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// The one whose turn it is. A configuration names one at least.
    pub(super) fn now(&self) -> &str {
        self.names.get(self.at).map_or("", String::as_str)
    }

    /// Passes the turn on, and leaves the one that had it alone for so long. When the next may be asked.
    pub(super) fn pass(&mut self, now: MonoMs, away_ms: u64) -> MonoMs {
        if let Some(until) = self.away_until.get_mut(self.at) {
            *until = now.plus(away_ms);
        }
        let count = self.names.len();
        let others = (1..=count).map(|step| (self.at + step) % count);
        let at_once = others.clone().find(|&at| self.away_until[at] <= now);
        self.at = at_once.or_else(|| others.min_by_key(|&at| self.away_until[at])).unwrap_or(0);
        self.away_until.get(self.at).copied().unwrap_or(now).max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(count: usize) -> Turns {
        Turns::new((0..count).map(|n| n.to_string()).collect(), 0)
    }

    #[test]
    fn each_has_its_turn_and_one_alone_is_waited_for() {
        let mut three = turns(3);
        let order: Vec<String> = (0..4)
            .map(|_| {
                assert_eq!(three.pass(MonoMs(5), 0), MonoMs(5));
                three.now().to_owned()
            })
            .collect();
        assert_eq!(order, ["1", "2", "0", "1"]);
        let mut one = turns(1);
        assert_eq!((one.pass(MonoMs(5), 0), one.pass(MonoMs(5), 700)), (MonoMs(5), MonoMs(705)));
        assert_eq!(one.now(), "0");
    }

    #[test]
    fn who_is_left_alone_is_passed_over_until_its_time_or_until_all_are() {
        let mut two = turns(2);
        assert_eq!((two.pass(MonoMs(0), 10_000), two.now()), (MonoMs(0), "1"));
        assert_eq!((two.pass(MonoMs(100), 0), two.now()), (MonoMs(100), "1"), "the other is still away");
        assert_eq!((two.pass(MonoMs(200), 30_000), two.now()), (MonoMs(10_000), "0"), "who comes back first");
        assert_eq!((two.pass(MonoMs(10_000), 0), two.now()), (MonoMs(10_000), "0"));
        assert_eq!((two.pass(MonoMs(40_000), 0), two.now()), (MonoMs(40_000), "1"));
    }
}
