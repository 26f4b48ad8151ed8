//! `dunlin alert`: one alert on one screen, for whoever is woken by it: what, where, since when, how bad, who does it, and
//! what had changed.

use clap::Args;
use dunlin_collector::client::escaped;
use dunlin_collector::client::table::{Table, bytes, plain, quantity};
use dunlin_collector::client::when::When;
use dunlin_collector::shape::{AlertContext, Event, Series, Top};
use serde_json::Value;

use crate::acknowledge::{self, AlertOrder};
use crate::alerts::named;
use crate::chart::{chart, range};
use crate::feed::more;
use crate::manner::Manner;
use crate::stock::cores;
use crate::{Desk, Failure};

/// Of each list so many lines; all of it is forty.
const SERIES: usize = 4;
const CHANGES: usize = 6;
const OTHERS: usize = 5;
/// A rule of many lines is one here.
const RULE_LETTERS: usize = 400;
const MINUTE_MS: i64 = 60_000;
/// Columns of a chart: the minutes of an hour.
const MINUTES: i64 = 60;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct One {
    #[command(subcommand)]
    order: Option<AlertOrder>,
    /// An id, or its first digits, at least 6
    #[arg(required = true)]
    id: Option<String>,
}

pub(crate) fn explain(desk: &mut Desk<'_>, wanted: &One) -> Result<(), Failure> {
    if let Some(order) = &wanted.order {
        return acknowledge::order(desk, order);
    }
    let id = wanted.id.as_deref().unwrap_or_default();
    let value: Value = desk.client.get(&format!("/api/v1/alerts/{}/context", escaped(id)))?;
    if desk.as_json {
        return Ok(writeln!(desk.out, "{value}")?);
    }
    let context: AlertContext = serde_json::from_value(value).map_err(std::io::Error::from)?;
    for (place, line) in lines(&context, desk.when, &desk.manner).iter().enumerate() {
        let line = plain(line.trim_end());
        let line = if place == 0 { desk.manner.paint(&context.alert.severity, &line) } else { line };
        writeln!(desk.out, "{line}")?;
    }
    Ok(())
}

fn lines(context: &AlertContext, when: &When, manner: &Manner) -> Vec<String> {
    let mut lines = head(context, when, manner);
    let mut part = |mut part: Vec<String>| {
        if !part.is_empty() {
            lines.push(String::new());
            lines.append(&mut part);
        }
    };
    part(course(context, when, manner));
    part(culprits(&context.top));
    part(changes(context, when, manner));
    part(others(context, when, manner));
    lines
}

fn head(context: &AlertContext, when: &When, manner: &Manner) -> Vec<String> {
    let alert = &context.alert;
    let (since, zone) = (when.local(alert.since), when.zone());
    let state = match alert.resolved {
        Some(at) => {
            let why = alert.reason.as_deref().unwrap_or_default().replace('_', " ");
            format!("resolved {} ago ({why}), after it fired at {since} {zone}", when.ago(at))
        }
        None => format!("{} for {}, since {since} {zone}", alert.state, when.ago(alert.since)),
    };
    let mut lines = vec![
        format!("{}  {}", alert.severity.to_uppercase(), manner.summary(alert)),
        format!("{}, {}  {state}", named(alert), alert.subject),
        String::new(),
    ];
    let then = match &context.fired {
        Some(fired) if fired.value_text != context.now.value_text => {
            format!("; it was {} when it fired", fired.value_text)
        }
        _ => String::new(),
    };
    let word = if alert.resolved.is_some() { "at the end" } else { "now" };
    let (value, threshold) = (&context.now.value_text, &context.now.threshold_text);
    lines.push(format!("VALUE    {value} {word}, and the threshold is {threshold}{then}"));
    match &context.rule {
        Some(rule) => {
            let text = |text: &str| -> String {
                let one: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
                one.chars().take(RULE_LETTERS).collect()
            };
            let hold = if rule.hold == "0s" { String::new() } else { format!(", for {}", rule.hold) };
            let clear = rule.clear.as_ref().map(|clear| format!("; it ends when {}", text(clear))).unwrap_or_default();
            lines.push(format!("RULE     {}: {}{hold}{clear}", rule.name, text(&rule.when)));
        }
        None => lines.push(format!("RULE     {}, which is not in force any more", alert.rule)),
    }
    if alert.flapping {
        lines.push(String::from(
            "FLAPS    it comes and goes, and stays open until it is quiet for a quarter of an hour",
        ));
    }
    lines.extend(alert.held.as_ref().map(|held| format!("HELD     the node is {held}: nothing is decided meanwhile")));
    if let Some(by) = &alert.acknowledged {
        lines.push(format!("ACK      {} {} ago: {}", by.who, when.ago(by.when), by.why));
    }
    lines.extend(alert.silenced.as_ref().map(|silence| format!("SILENCE  {silence}")));
    lines.extend(alert.runbook.as_ref().map(|runbook| format!("RUNBOOK  {runbook}")));
    lines.push(format!("ID       {}", alert.id));
    lines
}

/// What the rule reads, minute by minute.
fn course(context: &AlertContext, when: &When, manner: &Manner) -> Vec<String> {
    let mut lines = Vec::new();
    for series in context.series.iter().take(SERIES) {
        let values = minutes(series, context.now.at.0.0);
        let Some((low, high)) = range(&values) else { continue };
        let last = values.iter().rev().find_map(|value| *value).unwrap_or(high);
        let text = |value: f64| quantity(value, &series.unit, series.per_second);
        let subject = if series.subject == "host" { String::new() } else { format!(" of {}", series.subject) };
        let (low, high, last) = (text(low), text(high), text(last));
        lines.push(format!("{}{subject}: {low} to {high}, at last {last}", series.metric));
        lines.push(format!("  |{}|", chart(&values, manner.has_blocks)));
    }
    if !lines.is_empty() {
        let end = if context.alert.resolved.is_some() { when.local(context.now.at) } else { String::from("now") };
        lines.insert(0, format!("THE HOUR UNTIL {}", end.to_uppercase()));
    }
    lines
}

/// A value for each minute of the hour before `end_ms`. Roll-ups have fewer points, each for the minutes that it is of.
fn minutes(series: &Series, end_ms: i64) -> Vec<Option<f64>> {
    let begin = end_ms.div_euclid(MINUTE_MS) - MINUTES + 1;
    let minute = |at: &dunlin_collector::shape::Moment| at.0.0.div_euclid(MINUTE_MS) - begin;
    let steps = series.points.windows(2).map(|pair| minute(&pair[1].0) - minute(&pair[0].0));
    let step = steps.min().unwrap_or(1).max(1);
    let value = |column: i64| {
        let (at, value) = series.points.iter().rev().find(|(at, _)| minute(at) <= column)?;
        value.filter(|_| column - minute(at) < step)
    };
    (0..MINUTES).map(value).collect()
}

/// Side by side, the resource in question on the left.
fn culprits(top: &[Top]) -> Vec<String> {
    let by = |list: &Top| match list.by.as_str() {
        "cpu" => "BY CPU",
        "memory" => "BY MEMORY",
        _ => "BY DISK",
    };
    let amount = |list: &Top, value: f64| match list.unit.as_str() {
        "cores" => cores(Some(value)),
        _ if list.per_second => format!("{}/s", bytes(value)),
        _ => bytes(value),
    };
    let Some(first) = top.first() else { return Vec::new() };
    let second = top.get(1);
    let mut table = match second {
        Some(second) => Table::new(&[by(first), "", "", by(second), ""]).right(&[1, 4]),
        None => Table::new(&[by(first), ""]).right(&[1]),
    };
    let cells = |list: Option<&Top>, row: usize| {
        let item = list.and_then(|list| Some((list, list.items.get(row)?)));
        item.map_or_else(<[String; 2]>::default, |(list, item)| [item.subject.clone(), amount(list, item.value)])
    };
    let rows = first.items.len().max(second.map_or(0, |list| list.items.len()));
    for row in 0..rows {
        let [name, used] = cells(Some(first), row);
        let [other, held] = cells(second, row);
        table.row([name, used, String::new(), other, held]);
    }
    let mut lines = table.lines();
    lines.insert(0, String::from("WHEN IT FIRED"));
    lines
}

fn changes(context: &AlertContext, when: &When, manner: &Manner) -> Vec<String> {
    let all = &context.changes;
    let line = |event: &Event| format!("{}  {}", when.local(event.at), more(event, manner));
    let mut lines: Vec<String> = all.iter().take(CHANGES).map(line).collect();
    if !lines.is_empty() {
        lines.insert(0, format!("BEFORE IT, THE LATEST FIRST (times are {})", when.zone()));
    }
    if all.len() > CHANGES {
        lines.push(format!("and {} more: dunlin events --node {}", all.len() - CHANGES, named(&context.alert)));
    }
    lines
}

fn others(context: &AlertContext, when: &When, manner: &Manner) -> Vec<String> {
    let mut table = Table::new(&["", "", "", "", ""]);
    for other in context.others.iter().take(OTHERS) {
        let state = match other.resolved {
            Some(at) => format!("resolved {} ago", when.ago(at)),
            None => format!("{} for {}", other.state, when.ago(other.since)),
        };
        let id: String = other.id.chars().take(8).collect();
        table.row([other.severity.clone(), state, other.subject.clone(), manner.summary(other).to_owned(), id]);
    }
    if table.is_empty() {
        return Vec::new();
    }
    let mut lines = table.lines();
    lines[0] = format!("ALSO ON {}", named(&context.alert));
    let more = context.others.len().saturating_sub(OTHERS);
    if more > 0 {
        lines.push(format!("and {more} more: dunlin alerts --node {}", named(&context.alert)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use dunlin_collector::shape::{Compared, Culprit, Moment, RuleText};
    use dunlin_shared::time::WallMs;
    use serde_json::json;

    use super::*;
    use crate::alerts::tests::alert;
    use crate::manner::Language;

    fn at(text: &str) -> Moment {
        text.parse().expect("a time")
    }

    fn when() -> When {
        When::utc(at("2026-11-21T14:00:00Z").0)
    }

    fn context() -> AlertContext {
        let end = at("2026-11-21T14:00:00Z");
        let points = (0..60).map(|n| (Moment(end.0.plus(-i64::from(59 - n) * 60_000)), Some(f64::from(n) / 64.0)));
        let change = json!({ "cursor": "7-1", "at": "2026-11-21T13:39:00Z", "kind": "container.started", "node": "n",
            "name": "db-1", "container": "import", "happened": "2026-11-21T13:38:59Z" });
        let list = |by: &str, unit: &str, subject: &str, value| Top {
            by: by.to_owned(),
            unit: unit.to_owned(),
            per_second: false,
            items: vec![Culprit { subject: subject.to_owned(), value }],
        };
        let compared = |value: f64, text: &str| Compared {
            at: end,
            value: Some(value),
            threshold: Some(0.9),
            value_text: text.to_owned(),
            threshold_text: String::from("90 %"),
        };
        AlertContext {
            alert: alert("0123456789abcdef0123", "critical", "2026-11-21T13:45:00Z"),
            rule: Some(RuleText {
                name: String::from("memory-high"),
                when: String::from("host_memory_used_ratio\n > 90%"),
                clear: Some(String::from("< 85%")),
                hold: String::from("5m"),
                keep_firing_for: String::from("0s"),
                place: String::from("r.toml:1"),
            }),
            now: compared(0.931, "93.1 %"),
            fired: Some(compared(0.91, "91 %")),
            series: vec![Series {
                node: String::from("n"),
                subject: String::from("host"),
                metric: String::from("host_memory_used_ratio"),
                unit: String::from("ratio"),
                per_second: false,
                points: points.collect(),
            }],
            top: vec![list("memory", "bytes", "container:db", 2e9), list("cpu", "cores", "process:java", 1.5)],
            changes: vec![serde_json::from_value(change).expect("an event")],
            others: vec![alert("fedcba9876543210fedc", "warning", "2026-11-21T13:50:00Z")],
        }
    }

    #[test]
    fn one_screen_says_what_where_since_when_how_bad_by_whom_and_what_had_changed() {
        let manner = Manner::of(Some(Language::En), |_| None, false);
        let said = [
            "CRITICAL  db-1 uses 93.1 % of its memory",
            "db-1, host  firing for 15m, since 2026-11-21 13:45:00 UTC",
            "",
            "VALUE    93.1 % now, and the threshold is 90 %; it was 91 % when it fired",
            "RULE     memory-high: host_memory_used_ratio > 90%, for 5m; it ends when < 85%",
            "RUNBOOK  https://wiki.example.net/memory",
            "ID       0123456789abcdef0123",
            "",
            "THE HOUR UNTIL NOW",
            "host_memory_used_ratio: 0.0 % to 92.2 %, at last 92.2 %",
            "  |_____........,,,,,,,,,--------~~~~~~~~+++++++++********#####|",
            "",
            "WHEN IT FIRED",
            "BY MEMORY                BY CPU",
            "container:db  1.9 GiB    process:java  1.50",
            "",
            "BEFORE IT, THE LATEST FIRST (times are UTC)",
            "2026-11-21 13:39:00  container.started  container=import",
            "",
            "ALSO ON db-1",
            "warning  firing for 10m  host  db-1 uses 93.1 % of its memory  fedcba98",
        ];
        let lines: Vec<String> =
            lines(&context(), &when(), &manner).iter().map(|line| line.trim_end().to_owned()).collect();
        assert_eq!(lines, said);
    }

    #[test]
    fn what_is_over_says_so_and_what_is_not_known_is_left_out() {
        let mut context = context();
        context.alert.state = String::from("resolved");
        context.alert.resolved = Some(at("2026-11-21T13:58:00Z"));
        context.alert.reason = Some(String::from("rule_removed"));
        (context.rule, context.fired) = (None, None);
        context.top.clear();
        context.series.clear();
        context.changes.clear();
        context.others.clear();
        let manner = Manner::of(Some(Language::Zh), |_| None, false);
        let said = lines(&context, &when(), &manner);
        assert_eq!(said[0], "CRITICAL  db-1 的内存已用 93.1 %");
        assert_eq!(said[1], "db-1, host  resolved 2m ago (rule removed), after it fired at 2026-11-21 13:45:00 UTC");
        assert!(said.iter().any(|line| line.contains("not in force any more")) && said.len() < 9, "{said:?}");
    }

    #[test]
    fn much_of_everything_still_fits_on_a_screen() {
        let mut full = context();
        full.changes = vec![full.changes[0].clone(); 20];
        full.others = vec![full.others[0].clone(); 20];
        full.series = vec![full.series[0].clone(); 16];
        full.top.iter_mut().for_each(|list| list.items = vec![list.items[0].clone(); 5]);
        let manner = Manner::of(Some(Language::En), |_| None, false);
        let said = lines(&full, &when(), &manner);
        assert!(said.len() <= 45, "{} lines:\n{}", said.len(), said.join("\n"));
    }

    #[test]
    fn a_roll_up_stands_for_its_minutes_and_a_gap_stays_one() {
        let point = |minute: i64, value| (Moment(WallMs(minute * MINUTE_MS)), value);
        let series = |points| Series { points, ..context().series[0].clone() };
        let rolled = minutes(&series(vec![point(0, Some(1.0)), point(5, Some(2.0)), point(10, None)]), 59 * MINUTE_MS);
        assert_eq!(
            (rolled.len(), rolled[4], rolled[5], rolled[10], rolled[59]),
            (60, Some(1.0), Some(2.0), None, None)
        );
        let sampled = minutes(&series(vec![point(57, Some(1.0)), point(58, Some(3.0))]), 59 * MINUTE_MS);
        assert_eq!((sampled[56], sampled[57], sampled[58], sampled[59]), (None, Some(1.0), Some(3.0), None));
    }
}
