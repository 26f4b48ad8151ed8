//! A failure that repeats is logged once, and then at every power of two.
//!
//! Several kinds may alternate, as when every collector of a list fails in its own way; each is counted by itself.

/// Kinds that are told apart: the collectors of a long list, and what befalls one of them in turn. Beyond it
/// the kind that was new longest ago is forgotten, and logged again when it returns.
const KINDS_MAX: usize = 16;

#[derive(Debug, Default)]
pub struct Repeats {
    kinds: Vec<(String, u64)>,
}

impl Repeats {
    /// How often it happened since `clear`, when that is worth a line.
    pub fn note(&mut self, what: &str) -> Option<u64> {
        if let Some((_, times)) = self.kinds.iter_mut().find(|(kind, _)| kind == what) {
            *times += 1;
            return times.is_power_of_two().then_some(*times);
        }
        if self.kinds.len() >= KINDS_MAX {
            self.kinds.remove(0);
        }
        self.kinds.push((what.to_owned(), 1));
        Some(1)
    }

    pub fn clear(&mut self) {
        self.kinds.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeating_failure_is_worth_a_line_at_every_power_of_two() {
        let mut repeats = Repeats::default();
        let lines: Vec<u64> = (0..20).filter_map(|_| repeats.note("no answer")).collect();
        assert_eq!(lines, [1, 2, 4, 8, 16]);
        repeats.clear();
        assert_eq!(repeats.note("no answer"), Some(1));
    }

    #[test]
    fn failures_that_take_turns_are_counted_each_by_itself() {
        let mut repeats = Repeats::default();
        let lines: Vec<u64> = ["a", "b"].repeat(8).into_iter().filter_map(|what| repeats.note(what)).collect();
        assert_eq!(lines, [1, 1, 2, 2, 4, 4, 8, 8]);
    }

    #[test]
    fn memory_is_bounded_however_many_kinds_there_are() {
        let mut repeats = Repeats::default();
        for kind in 0..10 * KINDS_MAX {
            assert_eq!(repeats.note(&kind.to_string()), Some(1));
        }
        assert_eq!(repeats.kinds.len(), KINDS_MAX);
    }
}
