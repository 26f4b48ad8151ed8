//! One full sample for a terminal or a program: `dunlin-agent once [--json] [--root DIR]`. No network, no state.
//!
//! A counter says little by itself, so two samples are taken, `APART_MS` apart, and what grew is told as a rate beside
//! it. Below a recorded root nothing moves: one sample is taken, and no rates are told.
//! The JSON: `at`, `facts`, `series` of `subject, metric, unit, kind, value, per_second`, `ports` of `network, protocol,
//! address, scope, port, process, container, user`, `sources` of `name, working, says, left_out`, `failures` of `part, message`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dunlin_shared::inventory::{Facts, Item, Port, Source, Stock};
use dunlin_shared::metric::{Kind, Metric, MetricId, MetricRef, Unit, by_id};
use dunlin_shared::sample::Subject;
use dunlin_shared::time::WallMs;

use crate::chain::chain;
use crate::clock::Clock;
use crate::json::{list, quoted};
use crate::sample::facts::facts;
use crate::sample::{Failure, Sampler};
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
pub fn once(root: &Path) -> Once {
    let clock = Clock::start();
    let mut sampler = Sampler::new(root, clock, Arc::new(Stats::default()));
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
    Once { wall, facts: facts(root), rows, stock: taken.stock, failures: taken.failures }
}

impl Once {
    /// For people: a line a series, with its unit, and what is not seen at the end.
    #[must_use]
    pub fn table(&self) -> String {
        let Facts { host_name, os, kernel, cpus, memory_bytes, .. } = &self.facts;
        let mut text = format!(
            "{} at {}: {os}, Linux {kernel}, {cpus} processors, {}\n\n",
            if host_name.is_empty() { "this host" } else { host_name },
            rfc3339(self.wall),
            bytes(float(*memory_bytes)),
        );
        let subjects: Vec<String> = self.rows.iter().map(|row| row.subject.to_string()).collect();
        let wide = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
        let subject_width = wide(&mut subjects.iter().map(|subject| subject.chars().count()));
        let metric_width = wide(&mut self.rows.iter().map(|row| row.metric.name.len()));
        for (row, subject) in self.rows.iter().zip(&subjects) {
            let value = shown(row.metric.unit, row.value);
            let rate = row.per_second.map(|rate| format!("  {}/s", shown(row.metric.unit, rate))).unwrap_or_default();
            let name = row.metric.name;
            // Writing to a string cannot fail.
            writeln!(text, "{subject:subject_width$}  {name:metric_width$}  {value:>14}{rate}").ok();
        }
        for item in self.stock.items() {
            item_line(&mut text, item);
        }
        for Failure { part, error } in &self.failures {
            writeln!(text, "\nnot seen: {part}: {}", chain(error)).ok();
        }
        text
    }

    /// For programs: one object on one line.
    #[must_use]
    pub fn json(&self) -> String {
        let facts = &self.facts;
        let mut text = format!(
            "{{\"at\":{},\"facts\":{{\"host_name\":{},\"os\":{},\"kernel\":{},\"architecture\":{},\"cpus\":{},\"memory_bytes\":{}}},\"series\":[",
            quoted(&rfc3339(self.wall)),
            quoted(&facts.host_name),
            quoted(&facts.os),
            quoted(&facts.kernel),
            quoted(&facts.architecture),
            facts.cpus,
            facts.memory_bytes,
        );
        for (number, row) in self.rows.iter().enumerate() {
            let rate = row.per_second.map_or_else(|| String::from("null"), |rate| rate.to_string());
            let comma = if number > 0 { "," } else { "" };
            write!(
                text,
                "{comma}{{\"subject\":{},\"metric\":{},\"unit\":\"{}\",\"kind\":\"{}\",\"value\":{},\"per_second\":{rate}}}",
                quoted(&row.subject.to_string()),
                quoted(row.metric.name),
                row.metric.unit.as_str(),
                row.metric.kind.as_str(),
                row.value,
            )
            .ok();
        }
        text.push_str("],\"ports\":[");
        list(&mut text, self.stock.items().filter_map(port_json));
        text.push_str("],\"sources\":[");
        list(&mut text, self.stock.items().filter_map(source_json));
        text.push_str("],\"failures\":[");
        for (number, Failure { part, error }) in self.failures.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            write!(text, "{comma}{{\"part\":{},\"message\":{}}}", quoted(part), quoted(&chain(error))).ok();
        }
        text.push_str("]}\n");
        text
    }
}

/// Writing to a string cannot fail.
fn item_line(text: &mut String, item: &Item) {
    match item {
        Item::Port(Port { place, scope, process, container, user }) => {
            write!(text, "port {place}  {}", scope.as_str()).ok();
            for (what, name) in [("process", process), ("container", container), ("user", user)] {
                if let Some(name) = name {
                    write!(text, "  {what} {name}").ok();
                }
            }
            text.push('\n');
        }
        Item::Source(Source { name, is_working, says, left_out }) => {
            if !is_working || !says.is_empty() || *left_out > 0 {
                let state = if *is_working { "works" } else { "does not work" };
                writeln!(text, "source {name}  {state}, {left_out} left out  {says}").ok();
            }
        }
        Item::Container(_) | Item::Group(_) | Item::Unit(_) => {}
    }
}

fn port_json(item: &Item) -> Option<String> {
    let Item::Port(Port { place, scope, process, container, user }) = item else { return None };
    let name = |name: &Option<Box<str>>| name.as_deref().map_or_else(|| String::from("null"), quoted);
    Some(format!(
        "{{\"network\":{},\"protocol\":\"{}\",\"address\":\"{}\",\"scope\":\"{}\",\"port\":{},\"process\":{},\"container\":{},\"user\":{}}}",
        name(&place.network),
        place.protocol.as_str(),
        place.address,
        scope.as_str(),
        place.port,
        name(process),
        name(container),
        name(user),
    ))
}

fn source_json(item: &Item) -> Option<String> {
    let Item::Source(Source { name, is_working, says, left_out }) = item else { return None };
    let (name, says) = (quoted(name), quoted(says));
    Some(format!("{{\"name\":{name},\"working\":{is_working},\"says\":{says},\"left_out\":{left_out}}}"))
}

fn shown(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Bytes => bytes(value),
        Unit::Ratio => format!("{:.1} %", value * 100.0),
        Unit::Seconds => format!("{value:.2} s"),
        Unit::Celsius => format!("{value} °C"),
        Unit::Hertz => format!("{value} Hz"),
        Unit::Count | Unit::Cores if value.fract().abs() > 0.0 => format!("{value:.2}"),
        Unit::Count | Unit::Cores => format!("{value}"),
    }
}

fn bytes(value: f64) -> String {
    let (mut value, mut unit) = (value, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if value.abs() < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    if unit == "B" { format!("{value:.0} B") } else { format!("{value:.1} {unit}") }
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

#[expect(clippy::cast_precision_loss, reason = "sizes of memory")]
const fn float(n: u64) -> f64 {
    n as f64
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
        let once = once(Path::new("/nonexistent"));
        assert!(once.rows.iter().all(|row| row.per_second.is_none()));
        let (table, json) = (once.table(), once.json());
        assert!(table.contains("not seen: cpu: /nonexistent/proc/stat cannot be read: No such file"), "{table}");
        assert!(json.contains("\"failures\":[{\"part\":") && json.ends_with("]}\n"), "{json}");
    }

    #[test]
    fn sizes_have_the_unit_that_a_person_reads() {
        assert_eq!([0.0, 1023.0, 1536.0, 3e9].map(bytes), ["0 B", "1023 B", "1.5 KiB", "2.8 GiB"]);
    }
}
