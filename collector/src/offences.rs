//! Who did the collector wrong, and when that is told: the first time at once, what follows together. Pure.
//!
//! However many there are and however long it goes on, the feed is told a few lines of each and so many in all. What is
//! not told is not forgotten before it had its turn, as long as there is room for it.

use std::collections::HashMap;
use std::hash::Hash;

use dunlin_shared::session::pace::Bucket;
use dunlin_shared::time::MonoMs;

/// Of the same one it is told so often.
const AGAIN_MS: u64 = 600_000;
/// What falls short of being worth a word within this time is forgotten.
const COUNTS_FOR_MS: u64 = 10_000;
/// Offenders that are told apart; of others the metrics alone know. 200 bytes each.
const KEPT_MAX: usize = 1_024;
/// Lines of one kind of offence that are told at once, and in a minute after that: as `node.noisy` has it.
const LINES_BURST: u32 = 50;
const LINES_PER_MINUTE: u32 = 10;

#[derive(Debug)]
pub(crate) struct Offences<K, V> {
    kept: HashMap<K, Offence<V>>,
    /// How often it must happen to be worth a word.
    least: u64,
    lines: Bucket,
    /// When it is worth to look for what is due.
    look_at: Option<MonoMs>,
}

#[derive(Debug)]
struct Offence<V> {
    since: MonoMs,
    times: u64,
    due: Option<MonoMs>,
    was_told: bool,
    /// Of the last time.
    last: V,
}

/// What is to be told of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told<K, V> {
    pub(crate) who: K,
    /// Since it was told last.
    pub(crate) times: u64,
    pub(crate) last: V,
}

impl<K: Copy + Eq + Hash, V: Clone> Offences<K, V> {
    pub(crate) fn new(least: u64) -> Self {
        let lines = Bucket::per(MonoMs(0), LINES_BURST, LINES_PER_MINUTE, 60_000);
        Self { kept: HashMap::new(), least, lines, look_at: None }
    }

    pub(crate) fn note(&mut self, now: MonoMs, who: K, times: u64, last: V) {
        if !self.kept.contains_key(&who) && self.kept.len() >= KEPT_MAX {
            self.kept.retain(|_, offence| !offence.is_forgotten(now));
            if self.kept.len() >= KEPT_MAX {
                return;
            }
        }
        let fresh = || Offence { since: now, times: 0, due: None, was_told: false, last: last.clone() };
        let offence = self.kept.entry(who).or_insert_with(fresh);
        if offence.is_forgotten(now) {
            *offence = fresh();
        }
        offence.times += times;
        offence.last = last;
        if offence.due.is_none() && (offence.was_told || offence.times >= self.least) {
            let due = if offence.was_told { offence.since.plus(AGAIN_MS) } else { now };
            offence.due = Some(due);
            self.look_at = Some(self.look_at.map_or(due, |at| at.min(due)));
        }
    }

    /// When something is to be told.
    pub(crate) const fn next(&self) -> Option<MonoMs> {
        self.look_at
    }

    /// One that is to be told now.
    pub(crate) fn take_due(&mut self, now: MonoMs) -> Option<Told<K, V>> {
        if self.look_at.is_none_or(|at| now < at) {
            return None;
        }
        let first =
            self.kept.iter().filter_map(|(who, offence)| Some((offence.due?, *who))).min_by_key(|(due, _)| *due);
        let Some((due, who)) = first else {
            self.look_at = None;
            return None;
        };
        if now < due {
            self.look_at = Some(due);
            return None;
        }
        if !self.lines.take(now) {
            self.look_at = Some(now.plus(60_000 / u64::from(LINES_PER_MINUTE)));
            return None;
        }
        let offence = self.kept.get_mut(&who)?;
        let times = std::mem::take(&mut offence.times);
        (offence.due, offence.since, offence.was_told) = (None, now, true);
        Some(Told { who, times, last: offence.last.clone() })
    }
}

impl<V> Offence<V> {
    /// It waits for nothing, and what is counted of it counts no more.
    fn is_forgotten(&self, now: MonoMs) -> bool {
        let counts_for_ms = if self.was_told { AGAIN_MS } else { COUNTS_FOR_MS };
        self.due.is_none() && now >= self.since.plus(counts_for_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(who: u32, times: u64, last: &'static str) -> Option<Told<u32, &'static str>> {
        Some(Told { who, times, last })
    }

    #[test]
    fn the_first_is_told_at_once_and_what_follows_together() {
        let mut offences = Offences::new(1);
        assert_eq!((offences.next(), offences.take_due(MonoMs(9))), (None, None));
        offences.note(MonoMs(10), 7, 1, "a");
        assert_eq!(offences.next(), Some(MonoMs(10)));
        assert_eq!(offences.take_due(MonoMs(10)), told(7, 1, "a"));
        assert_eq!((offences.take_due(MonoMs(10)), offences.next()), (None, None));
        for ms in 11..1_000 {
            offences.note(MonoMs(ms), 7, 2, "b");
        }
        assert_eq!(offences.take_due(MonoMs(5_000)), None);
        offences.note(MonoMs(6_000), 8, 1, "c");
        assert_eq!(offences.take_due(MonoMs(6_000)), told(8, 1, "c"), "another one does not wait");
        assert_eq!(offences.take_due(MonoMs(10 + AGAIN_MS)), told(7, 2 * 989, "b"));
        assert_eq!(offences.take_due(MonoMs(10 * AGAIN_MS)), None);
    }

    #[test]
    fn what_happens_rarely_is_not_worth_a_word() {
        let mut offences = Offences::new(3);
        for at in [0, COUNTS_FOR_MS, COUNTS_FOR_MS + 1, 2 * COUNTS_FOR_MS] {
            offences.note(MonoMs(at), 1, 1, "");
            assert_eq!(offences.take_due(MonoMs(at)), None, "{at}");
        }
        offences.note(MonoMs(2 * COUNTS_FOR_MS + 1), 1, 2, "");
        assert_eq!(offences.take_due(MonoMs(2 * COUNTS_FOR_MS + 1)), told(1, 3, ""));
    }

    #[test]
    fn of_very_many_the_feed_hears_so_many_in_a_minute_and_each_has_its_turn() {
        let mut offences = Offences::new(1);
        (0..200).for_each(|who| offences.note(MonoMs(0), who, 1, ""));
        let lines = |offences: &mut Offences<u32, &'static str>, ms| {
            std::iter::from_fn(|| offences.take_due(MonoMs(ms))).count()
        };
        assert_eq!(lines(&mut offences, 0), 50);
        assert_eq!(lines(&mut offences, 60_000), 10);
        let later: usize = (61..1_000).map(|second| lines(&mut offences, second * 1_000)).sum();
        assert_eq!(later, 140);
    }

    #[test]
    fn many_offenders_do_not_fill_the_memory() {
        let mut offences = Offences::new(2);
        (0..10_000).for_each(|who| offences.note(MonoMs(0), who, 1, ""));
        assert_eq!(offences.kept.len(), KEPT_MAX);
        offences.note(MonoMs(COUNTS_FOR_MS), 20_000, 1, "");
        assert_eq!(offences.kept.len(), 1, "those that count no more are forgotten");
    }
}
