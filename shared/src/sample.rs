//! What was measured: subjects, the layout of a node's series, and one reading of all of them.
//!
//! A reading is raw: counters as the kernel counts them, quantised to the catalogue's precision.
//! Layouts are shared by reference between readings, so a reading costs eight bytes a series.

use std::fmt;
use std::sync::Arc;

use crate::limits::{OPEN_METRICS_MAX, SERIES_MAX, SUBJECT_NAME_BYTES_MAX, SUBJECTS_MAX};
use crate::metric::{self, Kind, MetricId, MetricRef, OpenMetric, Step, Unit};
use crate::time::{MonoMs, WallMs};

/// The value of a series that has none in this reading.
pub const ABSENT: i64 = i64::MIN;

/// What a series is about. The numbers are on the wire: extend at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SubjectKind {
    Host = 0,
    Fs = 1,
    Disk = 2,
    Net = 3,
    Container = 4,
    Process = 5,
    Unit = 6,
    Service = 7,
    Agent = 8,
}

/// A thing on a node: `host`, `fs:/var`, `container:mysql`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    pub kind: SubjectKind,
    name: Box<str>,
}

/// One line of a layout: which metric of which subject, by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Series {
    pub subject: u16,
    pub metric: MetricRef,
}

/// Which series a reading holds, in which order. A later layout of the same group only appends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    pub subjects: Vec<Subject>,
    pub series: Vec<Series>,
    pub open: Vec<OpenMetric>,
}

/// All values of a node at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The agent's monotonic clock: what rates are computed with.
    pub mono: MonoMs,
    /// The agent's wall clock as it was: right or wrong.
    pub wall: WallMs,
    pub layout: Arc<Layout>,
    /// One for each series of the layout; `ABSENT` where there is none.
    pub values: Vec<i64>,
}

/// What the samplers found in one tick, before it is laid out.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    pub mono: MonoMs,
    pub wall: WallMs,
    rows: Vec<(Subject, MetricRef, i64)>,
    open: Vec<OpenMetric>,
}

impl SubjectKind {
    pub const ALL: [Self; 9] = [
        Self::Host,
        Self::Fs,
        Self::Disk,
        Self::Net,
        Self::Container,
        Self::Process,
        Self::Unit,
        Self::Service,
        Self::Agent,
    ];

    #[must_use]
    pub fn from_raw(raw: u8) -> Option<Self> {
        Self::ALL.get(usize::from(raw)).copied()
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Fs => "fs",
            Self::Disk => "disk",
            Self::Net => "net",
            Self::Container => "container",
            Self::Process => "process",
            Self::Unit => "unit",
            Self::Service => "service",
            Self::Agent => "agent",
        }
    }

    /// Every catalogue name about this kind begins so.
    #[must_use]
    pub fn metric_prefix(self) -> &'static str {
        match self {
            Self::Agent => "agent_",
            Self::Host => "host_",
            Self::Fs => "fs_",
            Self::Disk => "disk_",
            Self::Net => "net_",
            Self::Container => "container_",
            Self::Process => "process_",
            Self::Unit => "unit_",
            Self::Service => "service_",
        }
    }

    #[must_use]
    pub const fn example(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Fs => "fs:/var",
            Self::Disk => "disk:vda",
            Self::Net => "net:eth0",
            Self::Container => "container:mysql",
            Self::Process => "process:mysqld",
            Self::Unit => "unit:nginx.service",
            Self::Service => "service:ID",
            Self::Agent => "agent",
        }
    }

    /// Whether there is one such subject on a node, which then has no name.
    #[must_use]
    pub const fn is_single(self) -> bool {
        matches!(self, Self::Host | Self::Agent)
    }
}

impl Subject {
    pub const HOST: fn() -> Self = || Self { kind: SubjectKind::Host, name: Box::from("") };
    pub const AGENT: fn() -> Self = || Self { kind: SubjectKind::Agent, name: Box::from("") };

    /// `None` when the name is missing, needless, or too long.
    #[must_use]
    pub fn new(kind: SubjectKind, name: &str) -> Option<Self> {
        let fits = name.is_empty() == kind.is_single() && name.len() <= SUBJECT_NAME_BYTES_MAX;
        fits.then(|| Self { kind, name: name.into() })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// From its written form, `kind:name`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':').unwrap_or((text, ""));
        let kind = SubjectKind::ALL.into_iter().find(|known| known.as_str() == kind)?;
        Self::new(kind, name)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        if !self.kind.is_single() {
            write!(f, ":{}", self.name)?;
        }
        Ok(())
    }
}

impl Layout {
    /// Name, unit, kind and precision of a reference in this layout; `None` for a catalogue number
    /// that this version does not know.
    #[must_use]
    pub fn describe(&self, metric: MetricRef) -> Option<(&str, Unit, Kind, Step)> {
        match metric.open_index() {
            Some(index) => self.open.get(index).map(|own| (own.name(), own.unit, own.kind, own.step)),
            None => metric::by_id(MetricId(metric.raw())).map(|known| (known.name, known.unit, known.kind, known.step)),
        }
    }

    /// Whether this layout is `earlier` with nothing but additions.
    #[must_use]
    pub fn extends(&self, earlier: &Self) -> bool {
        self.series.starts_with(&earlier.series)
            && self.subjects.starts_with(&earlier.subjects)
            && self.open.starts_with(&earlier.open)
    }
}

impl Reading {
    /// The value of one series in its unit, for what looks at single values.
    #[must_use]
    pub fn value(&self, subject: &Subject, name: &str) -> Option<f64> {
        self.layout.series.iter().zip(&self.values).find_map(|(series, &steps)| {
            let (metric, _, _, step) = self.layout.describe(series.metric)?;
            let hit = steps != ABSENT
                && metric == name
                && self.layout.subjects.get(usize::from(series.subject)) == Some(subject);
            hit.then(|| step.value(steps))
        })
    }
}

impl Sample {
    #[must_use]
    pub fn new(mono: MonoMs, wall: WallMs) -> Self {
        Self { mono, wall, ..Self::default() }
    }

    /// Adds a value of a catalogue metric. What is no number is left out.
    pub fn push(&mut self, subject: &Subject, metric: &'static metric::Metric, value: f64) {
        debug_assert_eq!(subject.kind, metric.subject, "{} is not about {subject}", metric.name);
        if let Some(steps) = metric.step.quantise(value) {
            self.rows.push((subject.clone(), MetricRef::catalogued(metric.id), steps));
        }
    }

    /// Adds a value of the open name space, declaring it when it is new. Whether there was room.
    pub fn push_open(&mut self, subject: &Subject, metric: &OpenMetric, value: f64) -> bool {
        let Some(steps) = metric.step.quantise(value) else {
            return true;
        };
        let index = self.open.iter().position(|known| known == metric).unwrap_or_else(|| {
            self.open.push(metric.clone());
            self.open.len() - 1
        });
        let Ok(index) = u8::try_from(index) else {
            self.open.pop();
            return false;
        };
        self.rows.push((subject.clone(), MetricRef::open(index), steps));
        true
    }

    #[must_use]
    pub fn rows(&self) -> &[(Subject, MetricRef, i64)] {
        &self.rows
    }

    #[must_use]
    pub fn open(&self) -> &[OpenMetric] {
        &self.open
    }
}

// `MetricRef::open` takes the index in a byte.
const _: () = assert!(OPEN_METRICS_MAX == 256);
// A series names its subject in 16 bits.
const _: () = assert!(SUBJECTS_MAX <= 1 << 15 && SERIES_MAX <= 1 << 15);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn subjects_are_written_as_the_vocabulary_says() {
        for kind in SubjectKind::ALL {
            let subject = Subject::parse(kind.example()).expect("every example is a subject");
            assert_eq!(subject.kind, kind);
            assert_eq!(subject.to_string(), kind.example());
            assert_eq!(SubjectKind::from_raw(kind as u8), Some(kind));
        }
    }

    #[test]
    fn the_257th_open_metric_of_a_node_is_turned_away() {
        let mut sample = Sample::default();
        let mut taken = 0;
        for n in 0..300 {
            let metric =
                OpenMetric::new(&format!("x_{n}"), Unit::Count, Kind::Gauge, Step::Each(1)).expect("a good name");
            taken += usize::from(sample.push_open(&Subject::HOST(), &metric, 1.0));
        }
        assert_eq!((taken, sample.open().len()), (OPEN_METRICS_MAX, OPEN_METRICS_MAX));
    }

    proptest! {
        #[test]
        fn subject_parse_never_panics(text: String) {
            if let Some(subject) = Subject::parse(&text) {
                prop_assert_eq!(Subject::parse(&subject.to_string()), Some(subject));
            }
        }
    }
}
