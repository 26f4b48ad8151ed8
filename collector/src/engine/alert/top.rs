//! What took most of a node at the moment at which an alert fired: its processes and containers, by processor and memory.

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
}

impl Top {
    /// `before` is the reading before it, when it is of the same run.
    #[must_use]
    pub fn of(reading: &Reading, before: Option<&Reading>) -> Self {
        let memory = ["process_memory_bytes", "container_memory_used_bytes"];
        let cpu = ["process_cpu_seconds", "container_cpu_seconds"];
        let used = values(reading, &memory).into_iter().collect();
        let passed_s = before.map_or(0.0, |before| ms(reading.mono.since(before.mono)));
        let earlier = before.map(|before| values(before, &cpu)).unwrap_or_default();
        let busy = values(reading, &cpu).into_iter().filter_map(|(subject, now)| {
            let before = earlier.get(&subject)?;
            (now > *before && passed_s > 0.0).then(|| (subject, ((now - before) / passed_s * 1e3).round() / 1e3))
        });
        Self { cpu: largest(busy.collect()), memory: largest(used) }
    }
}

fn ms(ms: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a time between two frames is far below 2^53 ms")]
    let ms = ms as f64;
    ms / 1_000.0
}

/// By written subject.
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
            found.insert(subject.to_string().into_boxed_str(), step.value(steps));
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
