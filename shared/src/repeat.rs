//! A failure that repeats is logged once, and then at every power of two.

#[derive(Debug, Default)]
pub struct Repeats {
    what: String,
    times: u64,
}

impl Repeats {
    /// How often it happened in a row, when that is worth a line.
    pub fn note(&mut self, what: &str) -> Option<u64> {
        if self.what != what {
            what.clone_into(&mut self.what);
            self.times = 0;
        }
        self.times += 1;
        self.times.is_power_of_two().then_some(self.times)
    }

    pub fn clear(&mut self) {
        *self = Self::default();
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
        assert_eq!(repeats.note("refused"), Some(1));
        repeats.clear();
        assert_eq!(repeats.note("refused"), Some(1));
    }
}
