//! How often joins from one network may be refused, and what the registry is told of it. Pure.
//!
//! Nobody guesses a token; what is limited is the trouble of trying. Whoever joins by a key that is known
//! brings no token and is never held up here.

use std::collections::HashMap;

use dunlin_shared::time::MonoMs;
use dunlin_shared::wire::join::JoinReason;

use super::admission::Prefix;

/// Refused joins that a network may have at once, and how long each counts: a rack of hosts with an old
/// token, and one try in two seconds after that.
const BURST: u32 = 30;
const COUNTS_FOR_MS: u64 = 2_000;
/// Networks that are told apart. Beyond it all others share one budget; 100 bytes each.
const PREFIXES_MAX: usize = 4_096;
/// The registry hears of refusals so often, for each reason.
const NOTE_AFTER_MS: u64 = 10_000;

#[derive(Debug, Default)]
pub(super) struct Guesses {
    by_prefix: HashMap<Prefix, Bucket>,
    others: Bucket,
    notes: [Note; JoinReason::ALL.len()],
}

/// When the last of its refusals no longer counts.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    empty_at: MonoMs,
}

#[derive(Clone, Copy, Debug, Default)]
struct Note {
    times: u64,
    due: Option<MonoMs>,
}

impl Guesses {
    /// How long a join with a token from there has to wait; 0 when it may be tried.
    pub(super) fn pause_ms(&self, now: MonoMs, prefix: Prefix) -> u64 {
        let bucket = match self.by_prefix.get(&prefix) {
            Some(bucket) => *bucket,
            None if self.by_prefix.len() >= PREFIXES_MAX => self.others,
            None => return 0,
        };
        let full_ms = u64::from(BURST - 1) * COUNTS_FOR_MS;
        bucket.empty_at.since(now).saturating_sub(full_ms)
    }

    /// A join from there was refused for what it brought.
    pub(super) fn refused(&mut self, now: MonoMs, prefix: Prefix) {
        if !self.by_prefix.contains_key(&prefix) && self.by_prefix.len() >= PREFIXES_MAX {
            self.by_prefix.retain(|_, bucket| now < bucket.empty_at);
        }
        let has_room = self.by_prefix.len() < PREFIXES_MAX || self.by_prefix.contains_key(&prefix);
        let bucket = if has_room { self.by_prefix.entry(prefix).or_default() } else { &mut self.others };
        bucket.empty_at = bucket.empty_at.max(now).plus(COUNTS_FOR_MS);
    }

    /// A refusal that the registry is to hear of; the first at once, others later and together.
    pub(super) fn note(&mut self, now: MonoMs, reason: JoinReason) {
        let note = &mut self.notes[reason as usize];
        note.times += 1;
        note.due.get_or_insert(now);
    }

    pub(super) fn next(&self) -> Option<MonoMs> {
        self.notes.iter().filter(|note| note.times > 0).filter_map(|note| note.due).min()
    }

    /// What is to be told now.
    pub(super) fn take_due(&mut self, now: MonoMs) -> Option<(JoinReason, u64)> {
        let notes = JoinReason::ALL.into_iter().zip(&mut self.notes);
        let (reason, note) = notes.filter(|(_, note)| note.times > 0).find(|(_, note)| note.due <= Some(now))?;
        note.due = Some(now.plus(NOTE_AFTER_MS));
        Some((reason, std::mem::take(&mut note.times)))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn network(n: u16) -> Prefix {
        let [high, low] = n.to_be_bytes();
        Prefix::of(Ipv4Addr::new(10, high, low, 1).into())
    }

    #[test]
    fn a_network_that_is_refused_too_often_has_to_wait_and_others_do_not() {
        let mut guesses = Guesses::default();
        for _ in 0..BURST {
            assert_eq!(guesses.pause_ms(MonoMs(0), network(1)), 0);
            guesses.refused(MonoMs(0), network(1));
        }
        assert_eq!(guesses.pause_ms(MonoMs(0), network(1)), COUNTS_FOR_MS);
        assert_eq!(guesses.pause_ms(MonoMs(0), network(2)), 0);
        assert_eq!(guesses.pause_ms(MonoMs(COUNTS_FOR_MS), network(1)), 0, "one try every so often");
    }

    #[test]
    fn many_networks_do_not_fill_the_memory() {
        let mut guesses = Guesses::default();
        for n in 0..6_000 {
            guesses.refused(MonoMs(0), network(n));
        }
        assert_eq!(guesses.by_prefix.len(), PREFIXES_MAX);
        assert!(guesses.pause_ms(MonoMs(0), network(9_000)) > 0, "all others share one budget");
        guesses.refused(MonoMs(60_000), network(9_001));
        assert_eq!(guesses.by_prefix.len(), 1, "those whose refusals count no longer are forgotten");
    }

    #[test]
    fn the_registry_hears_of_the_first_refusal_at_once_and_of_others_together() {
        let mut guesses = Guesses::default();
        assert_eq!(guesses.next(), None);
        guesses.note(MonoMs(5), JoinReason::UnknownToken);
        assert_eq!(guesses.next(), Some(MonoMs(5)));
        assert_eq!(guesses.take_due(MonoMs(5)), Some((JoinReason::UnknownToken, 1)));
        assert_eq!((guesses.take_due(MonoMs(5)), guesses.next()), (None, None));
        for _ in 0..7 {
            guesses.note(MonoMs(6), JoinReason::UnknownToken);
        }
        guesses.note(MonoMs(7), JoinReason::NoToken);
        assert_eq!(guesses.take_due(MonoMs(7)), Some((JoinReason::NoToken, 1)));
        assert_eq!(guesses.take_due(MonoMs(8)), None);
        assert_eq!(guesses.next(), Some(MonoMs(5 + NOTE_AFTER_MS)));
        assert_eq!(guesses.take_due(MonoMs(5 + NOTE_AFTER_MS)), Some((JoinReason::UnknownToken, 7)));
    }
}
