//! What a line tells, as what is kept here: which node, which series, how many steps; or why not.
//!
//! Nodes and series get numbers, so that a sample is four of them. Nothing is decided by a guess: what has two meanings
//! is refused.

use std::collections::HashMap;

use dunlin_shared::id::NodeId;
use dunlin_shared::limits::HOST_NAME_BYTES_MAX;
use dunlin_shared::metric::{Kind, OpenMetric, QUANTISED_MAX, Step, Unit, by_name};
use dunlin_shared::sample::Subject;
use dunlin_shared::time::WallMs;

use super::lines::short;
use crate::block::Measure;
use crate::clock::Clock;
use crate::record::NodeKey;
use crate::registry::Registry;
use crate::shape::Moment;
use crate::store::NodeRow;

/// 2000-01-01: a clock that shows less was never set.
const EARLIEST: WallMs = WallMs(946_684_800_000);
/// Series of all nodes by metric and subject alone; more than any fleet has.
const SERIES_MAX: usize = 1_000_000;
const UNITS: [Unit; 7] =
    [Unit::Count, Unit::Ratio, Unit::Bytes, Unit::Seconds, Unit::Celsius, Unit::Hertz, Unit::Cores];

/// What a line tells of one sample, in its own words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'a> {
    /// May be empty, when the name is not.
    pub(super) node: &'a str,
    pub(super) name: &'a str,
    pub(super) subject: &'a str,
    pub(super) metric: &'a str,
    /// `None` where it is not told.
    pub(super) unit: Option<&'a str>,
    pub(super) kind: Option<Kind>,
    pub(super) at: WallMs,
    pub(super) value: f64,
}

/// One sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sample {
    /// By its place among the judge's.
    pub(super) node: u32,
    pub(super) at: WallMs,
    pub(super) series: u32,
    pub(super) steps: i64,
}

/// Where samples go.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) id: NodeId,
    pub(super) key: NodeKey,
    pub(super) name: String,
    /// It was not known here.
    pub(super) is_new: bool,
    pub(super) interval_ms: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Judge {
    pub(super) targets: Vec<Target>,
    pub(super) series: Vec<(Subject, Measure)>,
    by_words: HashMap<String, u32>,
    series_by_words: HashMap<String, u32>,
    by_id: HashMap<NodeId, u32>,
    forgotten: Vec<NodeId>,
    known: Vec<(NodeId, NodeKey, String)>,
    next_key: NodeKey,
    now: WallMs,
    words: String,
}

impl Judge {
    pub(super) fn new(rows: &[NodeRow], registry: &Registry, next_key: NodeKey, now: WallMs) -> Self {
        let is_forgotten = |id| registry.member(id).is_some_and(|member| member.is_forgotten);
        let (gone, here): (Vec<&NodeRow>, Vec<&NodeRow>) = rows.iter().partition(|row| is_forgotten(row.id));
        Self {
            targets: Vec::new(),
            series: Vec::new(),
            by_words: HashMap::new(),
            series_by_words: HashMap::new(),
            by_id: HashMap::new(),
            forgotten: gone.iter().map(|row| row.id).collect(),
            known: here.iter().map(|row| (row.id, row.key, row.name.clone())).collect(),
            next_key,
            now,
            words: String::new(),
        }
    }

    pub(super) fn sample(&mut self, told: &Told<'_>) -> Result<Sample, String> {
        let node = self.node(told)?;
        let series = self.series_of(told)?;
        if told.at < EARLIEST {
            return Err(format!(
                "{} is before 2000, when nothing was measured; times are seconds since 1970 in OpenMetrics, and RFC 3339 in CSV",
                Moment(told.at)
            ));
        }
        if told.at > self.now {
            return Err(format!(
                "the time lies in the future, behind {}; nothing is measured before it happens",
                Moment(self.now)
            ));
        }
        let about = self.series[series as usize].1.about();
        let steps = about.and_then(|about| about.step.quantise(told.value)).filter(|_| told.value.is_finite());
        let Some(steps) = steps else {
            return Err(format!("the value is {}; leave out what is not known, and write a number else", told.value));
        };
        if steps.abs() >= QUANTISED_MAX {
            return Err(format!("the value {} is larger than what can be kept of {}", told.value, told.metric));
        }
        Ok(Sample { node, at: told.at, series, steps })
    }

    fn node(&mut self, told: &Told<'_>) -> Result<u32, String> {
        self.words.clear();
        self.words.extend([told.node, "\n", told.name]);
        if let Some(node) = self.by_words.get(&self.words) {
            return Ok(*node);
        }
        let node = self.target(told)?;
        self.by_words.insert(self.words.clone(), node);
        Ok(node)
    }

    fn target(&mut self, told: &Told<'_>) -> Result<u32, String> {
        let id: Option<NodeId> = match told.node {
            "" => None,
            text => Some(text.parse().map_err(|error: dunlin_shared::id::NodeIdError| error.to_string())?),
        };
        if id.is_none() && told.name.is_empty() {
            return Err(String::from("neither a node's id nor its name is given; one of both is needed"));
        }
        if told.name.len() > HOST_NAME_BYTES_MAX {
            return Err(format!("the node's name is longer than {HOST_NAME_BYTES_MAX} bytes"));
        }
        if let Some(id) = id.filter(|id| self.forgotten.contains(id)) {
            return Err(format!("node {id} was forgotten here, and nobody could be shown its samples"));
        }
        if let Some(node) = id.and_then(|id| self.by_id.get(&id)) {
            return Ok(*node);
        }
        let found = self.known.iter().find(|(known, ..)| Some(*known) == id).cloned();
        let found = match found {
            Some(found) => Some(found),
            None => self.by_name(told.name)?,
        };
        if let Some((id, key, name)) = found {
            return Ok(self.place(Target { id, key, name, is_new: false, interval_ms: None }));
        }
        let made_before = self.targets.iter().position(|one| one.is_new && id.is_none() && one.name == told.name);
        if let Some(at) = made_before {
            return Ok(u32::try_from(at).unwrap_or(u32::MAX));
        }
        let random = || Clock::random().ok_or_else(|| String::from("the system gives no random numbers"));
        let id = match id {
            Some(id) => id,
            None => NodeId::v7(self.now.0.unsigned_abs(), random()?),
        };
        let name = if told.name.is_empty() { id.to_string() } else { told.name.to_owned() };
        let key = self.next_key;
        self.next_key = NodeKey(key.0 + 1);
        Ok(self.place(Target { id, key, name, is_new: true, interval_ms: None }))
    }

    fn by_name(&self, name: &str) -> Result<Option<(NodeId, NodeKey, String)>, String> {
        let mut found = self.known.iter().filter(|(.., known)| !name.is_empty() && known == name);
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => {
                Err(format!("several nodes have the name {:?} here, and none the id of the line", short(name)))
            }
            (one, _) => Ok(one.cloned()),
        }
    }

    fn place(&mut self, target: Target) -> u32 {
        let next = u32::try_from(self.targets.len()).unwrap_or(u32::MAX);
        let node = *self.by_id.entry(target.id).or_insert(next);
        if node == next {
            self.targets.push(target);
        }
        node
    }

    fn series_of(&mut self, told: &Told<'_>) -> Result<u32, String> {
        self.words.clear();
        let kind = told.kind.map_or("", Kind::as_str);
        self.words.extend([told.metric, "\n", told.unit.unwrap_or_default(), "\n", kind, "\n", told.subject]);
        if let Some(series) = self.series_by_words.get(&self.words) {
            return Ok(*series);
        }
        if self.series.len() == SERIES_MAX {
            return Err(format!("this would be more than {SERIES_MAX} series; split the file"));
        }
        let subject = Subject::parse(told.subject).ok_or_else(|| {
            format!("the subject is {:?}; write for example host, fs:/var or net:eth0", short(told.subject))
        })?;
        let measure = measure(told, &subject)?;
        let series = u32::try_from(self.series.len()).unwrap_or(u32::MAX);
        self.series.push((subject, measure));
        self.series_by_words.insert(self.words.clone(), series);
        Ok(series)
    }
}

fn measure(told: &Told<'_>, subject: &Subject) -> Result<Measure, String> {
    let name = told.metric;
    let differs = |what: &str, here: &str| Err(format!("{name} has the {what} {here} here, and another in the file"));
    if let Some(metric) = by_name(name) {
        if told.kind.is_some_and(|kind| kind != metric.kind) {
            return differs("kind", metric.kind.as_str());
        }
        if told.unit.is_some_and(|unit| unit != metric.unit.as_str()) {
            return differs("unit", metric.unit.as_str());
        }
        if subject.kind != metric.subject {
            let example = metric.subject.example();
            return Err(format!("{name} is about subjects such as {example}, and not about {}", short(told.subject)));
        }
        return Ok(Measure::Catalogued(metric.id));
    }
    if !name.starts_with("x_") {
        let name = short(name);
        return Err(format!(
            "there is no metric {name:?}; docs/metrics.md lists them, and what is not there is named x_*"
        ));
    }
    let unit = told.unit.unwrap_or(Unit::Count.as_str());
    let unit = UNITS
        .into_iter()
        .find(|known| known.as_str() == unit)
        .ok_or_else(|| format!("the unit is {:?}; it is one of {}", short(unit), UNITS.map(Unit::as_str).join(", ")))?;
    let kind = told.kind.unwrap_or(Kind::Gauge);
    OpenMetric::new(name, unit, kind, precision(unit)).map(Measure::Open).map_err(|error| error.to_string())
}

/// To which precision a metric is kept that no catalogue has: an export does not tell it.
const fn precision(unit: Unit) -> Step {
    match unit {
        Unit::Bytes => Step::Each(1),
        Unit::Count | Unit::Hertz => Step::Per(1_000),
        Unit::Ratio | Unit::Seconds | Unit::Celsius | Unit::Cores => Step::Per(1_000_000),
    }
}
