//! What can be measured: the catalogue's types, look-up, and quantisation.
//!
//! The table itself is `catalogue.rs`. A metric's number is on the wire and on disks: it is never
//! given to another metric, and a metric that is dropped leaves its number unused.

mod catalogue;

pub use catalogue::CATALOGUE;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::METRIC_NAME_BYTES_MAX;
use crate::sample::SubjectKind;

/// A metric's number in the catalogue; below `OPEN_FIRST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetricId(pub u16);

/// A catalogue metric, or the index of one that the node declared itself (`x_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetricRef(u16);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Unit {
    Count,
    Ratio,
    Bytes,
    Seconds,
    Celsius,
    Hertz,
    Cores,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A value that stands for itself.
    Gauge,
    /// A value that only grows within an epoch; rates are derived by the collector.
    Counter,
}

/// The precision to which a value is kept. Coarser than what the kernel reports where nobody would
/// act on the difference, so that a host at rest sends nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Step {
    /// Whole multiples of so many units.
    Each(u32),
    /// So many parts of one unit.
    Per(u32),
}

/// One line of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub id: MetricId,
    pub name: &'static str,
    pub subject: SubjectKind,
    pub unit: Unit,
    pub kind: Kind,
    pub step: Step,
    pub help: &'static str,
}

/// A metric of the open name space, declared by a node on first use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OpenMetric {
    name: Box<str>,
    pub unit: Unit,
    pub kind: Kind,
    pub step: Step,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MetricError {
    #[error(
        "{0:?} is no name of the open name space; it is x_ and then a-z, 0-9 and _, {METRIC_NAME_BYTES_MAX} bytes at most"
    )]
    OpenName(String),
    #[error("a precision of zero")]
    ZeroStep,
}

/// The first reference that means a declared metric.
const OPEN_FIRST: u16 = 0x8000;

/// Quantised values stay within 2^61, so that differences and their zigzag fit 64 bits.
pub const QUANTISED_MAX: i64 = 1 << 61;

impl MetricRef {
    #[must_use]
    pub const fn catalogued(id: MetricId) -> Self {
        debug_assert!(id.0 < OPEN_FIRST, "catalogue numbers stay below the open name space");
        Self(id.0)
    }

    #[must_use]
    pub const fn open(index: u8) -> Self {
        Self(OPEN_FIRST + index as u16)
    }

    #[must_use]
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }

    #[must_use]
    pub const fn raw(self) -> u16 {
        self.0
    }

    /// The index among the node's declarations, if it is one of those.
    #[must_use]
    pub fn open_index(self) -> Option<usize> {
        self.0.checked_sub(OPEN_FIRST).map(usize::from)
    }
}

impl OpenMetric {
    pub fn new(name: &str, unit: Unit, kind: Kind, step: Step) -> Result<Self, MetricError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let rest = name.strip_prefix("x_").unwrap_or_default();
        if rest.is_empty() || name.len() > METRIC_NAME_BYTES_MAX || !rest.bytes().all(plain) {
            return Err(MetricError::OpenName(name.chars().take(METRIC_NAME_BYTES_MAX).collect()));
        }
        if matches!(step, Step::Each(0) | Step::Per(0)) {
            return Err(MetricError::ZeroStep);
        }
        Ok(Self { name: name.into(), unit, kind, step })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Step {
    /// To the nearest step; `None` for what is no number. What is too large stays at the largest.
    #[must_use]
    pub fn quantise(self, value: f64) -> Option<i64> {
        let steps = match self {
            Self::Each(units) => value / f64::from(units),
            Self::Per(parts) => value * f64::from(parts),
        };
        if steps.is_nan() {
            return None;
        }
        // A float cast saturates, and the clamp then brings it within bounds.
        #[expect(clippy::cast_possible_truncation, reason = "saturates, and is clamped")]
        let whole = steps.round() as i64;
        Some(whole.clamp(-QUANTISED_MAX, QUANTISED_MAX))
    }

    #[must_use]
    pub fn value(self, steps: i64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits are more than any precision promised")]
        let steps = steps as f64;
        match self {
            Self::Each(units) => steps * f64::from(units),
            Self::Per(parts) => steps / f64::from(parts),
        }
    }
}

impl Unit {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Ratio => "ratio",
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
            Self::Celsius => "celsius",
            Self::Hertz => "hertz",
            Self::Cores => "cores",
        }
    }
}

impl Kind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
        }
    }
}

/// The catalogue is sorted by number; both look-ups are for set-up, not for every sample.
#[must_use]
pub fn by_id(id: MetricId) -> Option<&'static Metric> {
    CATALOGUE.binary_search_by_key(&id, |metric| metric.id).ok().map(|i| &CATALOGUE[i])
}

#[must_use]
pub fn by_name(name: &str) -> Option<&'static Metric> {
    CATALOGUE.iter().find(|metric| metric.name == name)
}

/// `docs/metrics.md`, made from the table; a test compares it with the committed copy.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# Metrics\n\nMade from the catalogue in `shared/src/metric/catalogue.rs`; `make docs` writes it anew.\n\n\
         A node may also send metrics of its own, named `x_*`. It declares each with its unit on first use.\n",
    );
    let mut listed: Vec<&Metric> = CATALOGUE.iter().collect();
    // A metric that came later stands with those of its subject.
    listed.sort_by_key(|metric| CATALOGUE.iter().position(|first| first.subject == metric.subject));
    let mut subject = None;
    for metric in listed {
        if subject != Some(metric.subject) {
            subject = Some(metric.subject);
            let example = metric.subject.example();
            page.push_str(&format!(
                "\n## `{example}`\n\n| metric | unit | kind | precision | what it is |\n|---|---|---|---|---|\n"
            ));
        }
        let (unit, kind) = (metric.unit.as_str(), metric.kind.as_str());
        let step = match metric.step {
            Step::Each(units) => units.to_string(),
            Step::Per(parts) => format!("1/{parts}"),
        };
        page.push_str(&format!("| `{}` | {unit} | {kind} | {step} | {} |\n", metric.name, metric.help));
    }
    page
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn catalogue_is_sorted_named_once_and_explained() {
        assert!(CATALOGUE.windows(2).all(|pair| pair[0].id < pair[1].id), "numbers ascend");
        let names: HashSet<_> = CATALOGUE.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), CATALOGUE.len(), "each name stands once");
        for metric in CATALOGUE {
            assert!(metric.name.starts_with(metric.subject.metric_prefix()), "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
            assert!(!matches!(metric.step, Step::Each(0) | Step::Per(0)), "{}", metric.name);
            assert!(metric.id.0 < OPEN_FIRST);
            assert_eq!(by_id(metric.id).map(|found| found.name), Some(metric.name));
        }
    }

    #[test]
    fn documented_list_is_the_catalogue() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        let committed = std::fs::read_to_string(path).expect("docs/metrics.md is committed");
        assert!(committed == reference(), "docs/metrics.md is not what the catalogue says; run `make docs`");
    }

    #[test]
    fn names_outside_the_open_space_are_refused() {
        for name in ["", "x_", "host_load1", "x_Upper", "x_sp ace", "x_ü"] {
            assert!(OpenMetric::new(name, Unit::Count, Kind::Gauge, Step::Each(1)).is_err(), "{name:?}");
        }
        assert_eq!(OpenMetric::new("x_a", Unit::Count, Kind::Gauge, Step::Per(0)), Err(MetricError::ZeroStep));
    }

    #[test]
    fn what_is_no_number_is_absent_and_what_is_too_large_saturates() {
        assert_eq!(Step::Per(100).quantise(f64::NAN), None);
        assert_eq!(Step::Per(100).quantise(f64::INFINITY), Some(QUANTISED_MAX));
        assert_eq!(Step::Each(4096).quantise(8200.0), Some(2));
    }

    proptest! {
        #[test]
        fn a_value_comes_back_within_half_a_step(value in -1e12f64..1e12, n in 1u32..100_000, per: bool) {
            let (step, size) = if per { (Step::Per(n), 1.0 / f64::from(n)) } else { (Step::Each(n), f64::from(n)) };
            let back = step.value(step.quantise(value).expect("a number"));
            prop_assert!((back - value).abs() <= size * 0.5 + value.abs() * 1e-12);
        }
    }
}
