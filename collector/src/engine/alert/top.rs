//! What took most of a node at the moment at which an alert fired: its processes and containers, by processor, memory and
//! disks.

use std::collections::HashMap;

use dunlin_shared::metric::{MetricId, MetricRef, by_name};
use dunlin_shared::sample::{ABSENT, Reading, SubjectKind};

/// How many of each are kept: the culprit is among the first, and ten thousand alerts may fire at once.
const KEPT: usize = 5;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Top {
    /// Written subjects and cores.
    pub cpu: Vec<(Box<str>, f64)>,
    /// Written subjects and bytes.
    pub memory: Vec<(Box<str>, f64)>,
    /// Written subjects and bytes a second, read and written.
    pub disk: Vec<(Box<str>, f64)>,
}

impl Top {
    /// `before` is the reading before it, when it is of the same run.
    #[must_use]
    pub fn of(reading: &Reading, before: Option<&Reading>) -> Self {
        let memory = ["process_memory_bytes", "container_memory_used_bytes"];
        let cpu = ["process_cpu_seconds", "container_cpu_seconds"];
        let disk = ["process_read_bytes", "process_written_bytes", "container_read_bytes", "container_written_bytes"];
        let rates = |metrics: &[&str]| before.map(|before| rates(before, reading, metrics)).unwrap_or_default();
        let used = values(reading, &memory).into_iter().collect();
        Self { cpu: largest(rates(&cpu)), memory: largest(used), disk: largest(rates(&disk)) }
    }
}

/// By how much each grew in a second, to the thousandth.
fn rates(before: &Reading, reading: &Reading, metrics: &[&str]) -> Vec<(Box<str>, f64)> {
    let passed_s = ms(reading.mono.since(before.mono));
    let earlier = values(before, metrics);
    let rate = |(subject, now): (Box<str>, f64)| {
        let before = earlier.get(&subject)?;
        (now > *before && passed_s > 0.0).then(|| (subject, ((now - before) / passed_s * 1e3).round() / 1e3))
    };
    values(reading, metrics).into_iter().filter_map(rate).collect()
}

fn ms(ms: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a time between two frames is far below 2^53 ms")]
    let ms = ms as f64;
    ms / 1_000.0
}

/// By written subject, what of these there is of one together.
fn values(reading: &Reading, metrics: &[&str]) -> HashMap<Box<str>, f64> {
    let wanted: Vec<(MetricRef, _)> = metrics
        .iter()
        .filter_map(|name| by_name(name))
        .map(|metric| (MetricRef::catalogued(MetricId(metric.id.0)), metric.step))
        .collect();
    let mut found = HashMap::new();
    for (series, &steps) in reading.layout.series.iter().zip(&reading.values) {
        let step = wanted.iter().find(|(metric, _)| *metric == series.metric).map(|(_, step)| *step);
        let subject = reading.layout.subjects.get(usize::from(series.subject));
        if let Some((step, subject)) = step.zip(subject).filter(|_| steps != ABSENT) {
            debug_assert!(matches!(subject.kind, SubjectKind::Process | SubjectKind::Container));
            *found.entry(subject.to_string().into_boxed_str()).or_insert(0.0) += step.value(steps);
        }
    }
    found
}

fn largest(mut all: Vec<(Box<str>, f64)>) -> Vec<(Box<str>, f64)> {
    // By name where they are the same, so that the order follows from what was measured.
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    all.retain(|(_, amount)| *amount > 0.0);
    all.truncate(KEPT);
    all
}
