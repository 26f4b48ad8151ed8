//! What a scenario counted and what it found: one row of the table that ends a run.
//!
//! A violation is a promise that did not hold. What only kept a scenario from being carried out is an error instead.

use std::fmt::{self, Display};
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Report {
    scenario: &'static str,
    counts: Vec<(&'static str, String)>,
    violations: Vec<String>,
}

/// Times of one kind, such as that from a start to `ready`.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Report {
    pub(crate) const fn new(scenario: &'static str) -> Self {
        Self { scenario, counts: Vec::new(), violations: Vec::new() }
    }

    pub(crate) fn count(&mut self, what: &'static str, value: impl Display) {
        self.counts.push((what, value.to_string()));
    }

    pub(crate) fn violation(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    /// A promise: what is said when it does not hold.
    pub(crate) fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(otherwise());
        }
    }

    /// What a part counted, and its violations, each with a word that tells the part.
    pub(crate) fn absorb(&mut self, prefix: &str, part: Self) {
        self.counts.extend(part.counts);
        self.violations.extend(part.violations.into_iter().map(|violation| format!("{prefix}{violation}")));
    }

    /// The violations of a part alone.
    pub(crate) fn blame(&mut self, prefix: &str, part: Self) {
        self.absorb(prefix, Self { counts: Vec::new(), ..part });
    }

    pub(crate) const fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_clean() { "ok" } else { "VIOLATED" };
        write!(f, "{:<11} {verdict:<9}", self.scenario)?;
        for (what, value) in &self.counts {
            write!(f, " {what}={value}")?;
        }
        for violation in &self.violations {
            write!(f, "\n{:11}   {violation}", "")?;
        }
        Ok(())
    }
}

impl Times {
    pub(crate) fn note(&mut self, time: Duration) {
        let at = self.0.partition_point(|known| *known < time);
        self.0.insert(at, time);
    }

    pub(crate) fn max(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }

    pub(crate) fn median(&self) -> Duration {
        self.0.get(self.0.len() / 2).copied().unwrap_or_default()
    }
}

impl Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1}/{:.1}s", self.median().as_secs_f64(), self.max().as_secs_f64())
    }
}
