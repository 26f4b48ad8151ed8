//! A sample for people: a line a series of the host, a table each for containers, process groups, services and ports, and
//! what is not seen at the end.
//!
//! Made for 80 columns: names are cut with a `~`, and the column that may be long stands last. Programs read `--json`.

use std::collections::HashMap;
use std::fmt::Write as _;

use dunlin_shared::inventory::{Container, ContainerState, Facts, Health, Item, Port};
use dunlin_shared::metric::Unit;
use dunlin_shared::sample::SubjectKind;

use super::{Once, Row, rfc3339};
use crate::chain::chain;
use crate::sample::Failure;
use crate::sight::State;

/// What stands before the numbers of a table.
const NAME_CHARS: usize = 24;
/// Addresses of IPv6 have up to 39, and a protocol and a port beside them.
const PLACE_CHARS: usize = 51;
/// Kinds that have tables of their own.
const TABLED: [SubjectKind; 3] = [SubjectKind::Container, SubjectKind::Process, SubjectKind::Unit];

/// What the series say, by kind and name of the subject and by metric.
struct Values<'a>(HashMap<(SubjectKind, &'a str, &'static str), &'a Row>);

impl Once {
    #[must_use]
    pub fn table(&self) -> String {
        let Facts { host_name, os, kernel, cpus, memory_bytes, .. } = &self.facts;
        let mut text = format!(
            "{} at {}: {os}, Linux {kernel}, {cpus} processors, {}\n\n",
            if host_name.is_empty() { "this host" } else { host_name },
            rfc3339(self.wall),
            bytes(float(*memory_bytes)),
        );
        self.series(&mut text);
        let rows = self.rows.iter().map(|row| ((row.subject.kind, row.subject.name(), row.metric.name), row));
        let values = Values(rows.collect());
        self.containers(&mut text, &values);
        self.groups(&mut text, &values);
        self.services(&mut text, &values);
        self.ports(&mut text);
        self.not_seen(&mut text);
        text
    }

    fn series(&self, text: &mut String) {
        let rows = || self.rows.iter().filter(|row| !TABLED.contains(&row.subject.kind));
        let subjects: Vec<String> = rows().map(|row| cut(&row.subject.to_string(), NAME_CHARS)).collect();
        let subject_width = subjects.iter().map(|subject| subject.chars().count()).max().unwrap_or(0);
        let metric_width = rows().map(|row| row.metric.name.len()).max().unwrap_or(0);
        for (row, subject) in rows().zip(&subjects) {
            let value = shown(row.metric.unit, row.value);
            let rate = row.per_second.map(|rate| format!("  {}/s", shown(row.metric.unit, rate))).unwrap_or_default();
            let name = row.metric.name;
            // Writing to a string cannot fail.
            writeln!(text, "{subject:subject_width$}  {name:metric_width$}  {value:>11}{rate}").ok();
        }
    }

    fn containers(&self, text: &mut String, values: &Values<'_>) {
        let rows = self.stock.items().filter_map(|item| {
            let Item::Container(one) = item else { return None };
            let of = |metric| values.value(SubjectKind::Container, &one.name, metric);
            Some(vec![
                cut(&one.name, NAME_CHARS),
                values.cores(SubjectKind::Container, &one.name, "container_cpu_seconds"),
                of("container_memory_used_bytes"),
                of("container_memory_limit_bytes"),
                condition(one),
                if one.image.is_empty() { String::from("-") } else { one.image.to_string() },
            ])
        });
        columns(text, &["CONTAINER", "CORES", "MEMORY", "LIMIT", "STATE", "IMAGE"], 1..4, rows.collect());
    }

    fn groups(&self, text: &mut String, values: &Values<'_>) {
        let mut groups: Vec<_> = self
            .stock
            .items()
            .filter_map(|item| match item {
                Item::Group(one) => Some((values.rate(SubjectKind::Process, &one.name, "process_cpu_seconds"), one)),
                _ => None,
            })
            .collect();
        // The busiest first.
        groups.sort_by(|(a, _), (b, _)| b.unwrap_or(0.0).total_cmp(&a.unwrap_or(0.0)));
        let rows = groups.into_iter().map(|(_, one)| {
            let of = |metric| values.value(SubjectKind::Process, &one.name, metric);
            let whose = one.container.as_deref().map(|name| format!("container {name}"));
            let whose = whose.or_else(|| one.unit.as_deref().map(str::to_owned));
            let whose = whose.or_else(|| one.user.as_deref().map(|name| format!("user {name}")));
            vec![
                cut(&one.name, NAME_CHARS),
                of("process_count"),
                values.cores(SubjectKind::Process, &one.name, "process_cpu_seconds"),
                of("process_memory_bytes"),
                of("process_threads"),
                of("process_files_open"),
                whose.unwrap_or_default(),
            ]
        });
        columns(text, &["PROCESSES", "COUNT", "CORES", "MEMORY", "THREADS", "FILES", "OF"], 1..6, rows.collect());
    }

    fn services(&self, text: &mut String, values: &Values<'_>) {
        let failed = |name: &str| {
            self.stock.items().find_map(|item| match item {
                Item::Unit(unit) if &*unit.name == name => Some(format!("failed: {}", unit.result)),
                _ => None,
            })
        };
        let mut names: Vec<&str> = self
            .rows
            .iter()
            .filter(|row| row.subject.kind == SubjectKind::Unit)
            .map(|row| row.subject.name())
            .collect();
        names.sort_unstable();
        names.dedup();
        let rows = names.into_iter().map(|name| {
            let of = |metric| values.value(SubjectKind::Unit, name, metric);
            vec![
                cut(name, 2 * NAME_CHARS),
                values.cores(SubjectKind::Unit, name, "unit_cpu_seconds"),
                of("unit_memory_used_bytes"),
                of("unit_tasks"),
                failed(name).unwrap_or_default(),
            ]
        });
        columns(text, &["UNIT", "CORES", "MEMORY", "TASKS", ""], 1..4, rows.collect());
    }

    fn ports(&self, text: &mut String) {
        let rows = self.stock.items().filter_map(|item| {
            let Item::Port(Port { place, scope, process, container, user }) = item else { return None };
            let name = |name: &Option<Box<str>>| cut(name.as_deref().unwrap_or("-"), NAME_CHARS);
            let whose = [container.as_deref().map(|name| format!("container {name}")), {
                let network = place.network.as_deref().filter(|_| container.is_none());
                network.map(|name| format!("network of {name}"))
            }];
            let place = place.to_string();
            Some(vec![
                cut(&place, PLACE_CHARS),
                scope.as_str().to_owned(),
                name(process),
                name(user),
                whose.into_iter().flatten().next().unwrap_or_default(),
            ])
        });
        columns(text, &["PORT", "SCOPE", "PROCESS", "USER", "IN"], 0..0, rows.collect());
    }

    fn not_seen(&self, text: &mut String) {
        let is_short = |state| matches!(state, State::Partly | State::Refused | State::Failed);
        let short: Vec<_> = self.judged.iter().filter(|one| is_short(one.state) && one.mend.is_some()).collect();
        if !short.is_empty() {
            text.push('\n');
        }
        for one in &short {
            writeln!(text, "not seen whole: {}: {}", one.what, one.text).ok();
        }
        for Failure { part, error } in &self.failures {
            writeln!(text, "\nnot seen: {part}: {}", chain(error)).ok();
        }
        if !short.is_empty() {
            text.push_str("\ndunlin-agent check says what would mend that.\n");
        }
    }
}

impl Values<'_> {
    fn value(&self, kind: SubjectKind, name: &str, metric: &'static str) -> String {
        let row = self.0.get(&(kind, name, metric));
        row.map_or_else(|| String::from("-"), |row| shown(row.metric.unit, row.value))
    }

    fn rate(&self, kind: SubjectKind, name: &str, metric: &'static str) -> Option<f64> {
        self.0.get(&(kind, name, metric))?.per_second
    }

    /// Seconds of a processor in a second.
    fn cores(&self, kind: SubjectKind, name: &str, metric: &'static str) -> String {
        self.rate(kind, name, metric).map_or_else(|| String::from("-"), |cores| format!("{cores:.2}"))
    }
}

fn condition(one: &Container) -> String {
    let mut text = one.state.as_str().to_owned();
    if one.state == ContainerState::Exited
        && let Some(code) = one.exit_code
    {
        text = format!("exited {code}");
    }
    if one.is_oom_killed {
        text.push_str(" oom");
    }
    if one.health != Health::None {
        text = format!("{text} {}", one.health.as_str());
    }
    text
}

/// `right`: columns of numbers. The last one is as long as it is.
fn columns(text: &mut String, heads: &[&str], right: std::ops::Range<usize>, rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    let wide = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0).max(heads[at].len());
    let widths: Vec<usize> = (0..heads.len()).map(wide).collect();
    let head = heads.iter().map(|head| (*head).to_owned()).collect();
    text.push('\n');
    for row in std::iter::once(&head).chain(&rows) {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = if at > 0 { "  " } else { "" };
            if right.contains(&at) {
                write!(line, "{gap}{cell:>width$}").ok();
            } else {
                write!(line, "{gap}{cell:width$}").ok();
            }
        }
        line.retain(|c| !c.is_control());
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

fn cut(name: &str, chars: usize) -> String {
    let is_long = name.chars().count() > chars;
    if is_long { name.chars().take(chars - 1).chain(['~']).collect() } else { name.to_owned() }
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

#[expect(clippy::cast_precision_loss, reason = "sizes of memory")]
const fn float(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_under_each_other_and_long_names_are_cut() {
        let mut text = String::new();
        let row = |name: &str, number: &str, of: &str| vec![cut(name, 8), number.into(), of.into()];
        columns(&mut text, &["NAME", "N", "OF"], 1..2, vec![row("a-very-long-name", "5", "x"), row("ü", "100", "")]);
        assert_eq!(text, "\nNAME        N  OF\na-very-~    5  x\nü         100\n");
        columns(&mut text, &["NAME"], 0..0, Vec::new());
        assert_eq!(text.lines().count(), 4, "nothing has no table");
    }

    #[test]
    fn a_container_says_how_it_is_in_a_word_or_two() {
        let one = |state, exit_code, is_oom_killed, health| {
            condition(&Container { state, exit_code, is_oom_killed, health, ..Container::default() })
        };
        assert_eq!(one(ContainerState::Running, Some(0), false, Health::Healthy), "running healthy");
        assert_eq!(one(ContainerState::Exited, Some(137), true, Health::None), "exited 137 oom");
    }

    #[test]
    fn sizes_have_the_unit_that_a_person_reads() {
        assert_eq!([0.0, 1023.0, 1536.0, 3e9].map(bytes), ["0 B", "1023 B", "1.5 KiB", "2.8 GiB"]);
    }
}
