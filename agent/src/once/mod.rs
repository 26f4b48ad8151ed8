//! One full sample for a terminal or a program: `dunlin-agent once [--json] [--root DIR]`, of what the configuration
//! tells to collect. No network, no state.
//!
//! A counter says little by itself, so two samples are taken, `APART_MS` apart, and what grew is told as a rate beside
//! it. Below a recorded root nothing moves: one sample is taken, and no rates are told. Containers, process groups and
//! services have a table each (`table.rs`); programs get every series (`json.rs`).

mod json;
mod table;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dunlin_shared::inventory::{Facts, Stock};
use dunlin_shared::metric::{Kind, Metric, MetricId, MetricRef, by_id};
use dunlin_shared::sample::Subject;
use dunlin_shared::time::WallMs;

use crate::clock::Clock;
use crate::config::Collect;
use crate::sample::facts::facts;
use crate::sample::{Failure, Sampler};
use crate::sight::judge::{Judged, judge};
use crate::sight::{Own, Sight};
use crate::stats::Stats;

/// Long enough for a rate of a hundredth of a processor, short enough to wait for.
const APART_MS: u64 = 1_000;

#[derive(Debug)]
pub struct Once {
    wall: WallMs,
    facts: Facts,
    rows: Vec<Row>,
    stock: Stock,
    failures: Vec<Failure>,
    judged: Vec<Judged>,
}

#[derive(Debug)]
struct Row {
    subject: Subject,
    metric: &'static Metric,
    value: f64,
    per_second: Option<f64>,
}

/// Takes the sample.
#[must_use]
pub fn once(root: &Path, collect: Collect) -> Once {
    let clock = Clock::start();
    let mut sampler = Sampler::new(root, clock, Arc::new(Stats::default())).collecting(collect);
    let mut taken = sampler.sample(clock.mono(), clock.wall());
    let mut before = None;
    if root == Path::new("/") {
        std::thread::sleep(Duration::from_millis(APART_MS));
        let again = sampler.sample(clock.mono(), clock.wall());
        let first = std::mem::replace(&mut taken.sample, again.sample);
        taken.stock = again.stock;
        // Some things are said once, when they are first seen.
        let said: Vec<String> = taken.failures.iter().map(|failure| failure.error.to_string()).collect();
        taken.failures.extend(again.failures.into_iter().filter(|failure| !said.contains(&failure.error.to_string())));
        before = Some(first);
    }
    let values: HashMap<(&Subject, MetricRef), i64> = before
        .iter()
        .flat_map(|sample| sample.rows().iter().map(|(subject, metric, steps)| ((subject, *metric), *steps)))
        .collect();
    let passed = before.as_ref().map(|before| taken.sample.mono.since(before.mono)).filter(|&ms| ms > 0);
    let rows = taken.sample.rows().iter().filter_map(|(subject, reference, steps)| {
        let metric = by_id(MetricId(reference.raw()))?;
        let value = metric.step.value(*steps);
        let per_second = values.get(&(subject, *reference)).filter(|_| metric.kind == Kind::Counter).zip(passed);
        #[expect(clippy::cast_precision_loss, reason = "about a second")]
        let per_second = per_second.map(|(steps, ms)| (value - metric.step.value(*steps)) * 1e3 / ms as f64);
        Some(Row { subject: subject.clone(), metric, value, per_second })
    });
    let (wall, rows) = (taken.sample.wall, rows.collect());
    let judged = judge(&Sight { at: wall, own: Own::look(), sources: sampler.seeing(&taken.failures) });
    Once { wall, facts: facts(root), rows, stock: taken.stock, failures: taken.failures, judged }
}

/// UTC with milliseconds. Days become a date in eras of 400 years that begin in March, so that the leap day is last.
fn rfc3339(wall: WallMs) -> String {
    let (days, ms) = (wall.0.div_euclid(86_400_000), wall.0.rem_euclid(86_400_000));
    let from_era = days.saturating_add(719_468);
    let (era, day) = (from_era.div_euclid(146_097), from_era.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (date, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z"),
            (1_795_270_423_456, "2026-11-21T14:13:43.456Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(WallMs(ms)), text);
        }
    }

    #[test]
    fn a_recorded_root_is_told_without_rates_and_with_what_is_not_seen() {
        let once = once(Path::new("/nonexistent"), Collect::default());
        assert!(once.rows.iter().all(|row| row.per_second.is_none()));
        let (table, json) = (once.table(), once.json());
        assert!(table.contains("not seen: cpu: /nonexistent/proc/stat cannot be read: No such file"), "{table}");
        assert!(json.contains("\"failures\":[{\"part\":") && json.ends_with("]}\n"), "{json}");
    }
}
