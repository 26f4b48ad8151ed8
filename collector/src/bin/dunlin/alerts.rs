//! `dunlin alerts`: what is wrong now, the worst first, and of that what has been so for longest.

use std::cmp::Reverse;

use clap::{Args, Subcommand};
use dunlin_collector::client::escaped;
use dunlin_collector::client::table::{Table, plain};
use dunlin_collector::client::tokens::parse_labels;
use dunlin_collector::client::when::When;
use dunlin_collector::shape::Alert;
use serde_json::{Value, json};

use crate::feed::{AlertFeed, alert_feed};
use crate::manner::Manner;
use crate::{Desk, Failure};

/// Of each of ten thousand nodes ten.
const LISTED_MAX: usize = 100_000;
/// Digits of an id that are shown; more where those are not enough to tell two apart.
const DIGITS: usize = 8;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Alerts {
    #[command(subcommand)]
    command: Option<AlertsCommand>,
    /// firing (when absent) or pending; repeated, any of them; or resolved, alone
    #[arg(long = "state")]
    states: Vec<String>,
    /// info, warning or critical; repeated, any of them
    #[arg(long = "severity")]
    severities: Vec<String>,
    /// A rule's name, or with * such as disk-*; repeated, any of them
    #[arg(long = "rule")]
    rules: Vec<String>,
    /// Only of this node: an id, or a name that one node alone has
    #[arg(long)]
    node: Option<String>,
    /// Such as fs:/var, or with * such as fs:*; repeated, any of them
    #[arg(long = "subject")]
    subjects: Vec<String>,
    /// Only of nodes that bear it; repeated, all of them
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum AlertsCommand {
    /// Show what became of alerts, from a cursor on
    Feed(AlertFeed),
}

pub(crate) fn alerts(desk: &mut Desk<'_>, wanted: &Alerts) -> Result<(), Failure> {
    if let Some(AlertsCommand::Feed(feed)) = &wanted.command {
        return alert_feed(desk, feed);
    }
    let items = desk.client.all(&wanted.query()?, LISTED_MAX + 1)?;
    if items.len() > LISTED_MAX {
        return Err(Failure::TooMany(LISTED_MAX));
    }
    let mut found: Vec<(Alert, Value)> =
        items.into_iter().filter_map(|item| Some((serde_json::from_value(item.clone()).ok()?, item))).collect();
    if !wanted.states.iter().any(|state| state == "resolved") {
        found.sort_by_key(|(alert, _)| order(alert));
    }
    let (alerts, items): (Vec<Alert>, Vec<Value>) = found.into_iter().unzip();
    if desk.as_json {
        return Ok(writeln!(desk.out, "{}", json!({ "items": items, "next": null }))?);
    }
    if alerts.is_empty() {
        eprintln!("{}", if wanted.is_narrow() { "No alert is like that." } else { "Nothing is wrong." });
        return Ok(());
    }
    Ok(lines(&alerts, desk.when, &desk.manner).iter().try_for_each(|line| writeln!(desk.out, "{line}"))?)
}

impl Alerts {
    fn query(&self) -> Result<String, Failure> {
        let mut query = String::from("/api/v1/alerts?");
        let mut add = |key: &str, values: &mut dyn Iterator<Item = &String>| {
            values.for_each(|value| query.push_str(&format!("{key}={}&", escaped(value))));
        };
        add("state", &mut self.states.iter());
        add("severity", &mut self.severities.iter());
        add("rule", &mut self.rules.iter());
        add("node", &mut self.node.iter());
        add("subject", &mut self.subjects.iter());
        parse_labels(&self.labels).map_err(Failure::Usage)?;
        add("label", &mut self.labels.iter());
        Ok(query.trim_end_matches(['&', '?']).to_owned())
    }

    fn is_narrow(&self) -> bool {
        let filters = [&self.states, &self.severities, &self.rules, &self.subjects, &self.labels];
        self.node.is_some() || filters.iter().any(|filter| !filter.is_empty())
    }
}

/// The worst first, then what has been so for longest.
pub(crate) fn order(alert: &Alert) -> (Reverse<u8>, dunlin_collector::shape::Moment, String) {
    let severity = match alert.severity.as_str() {
        "critical" => 2,
        "warning" => 1,
        _ => 0,
    };
    (Reverse(severity), alert.since, alert.id.clone())
}

pub(crate) fn lines(alerts: &[Alert], when: &When, manner: &Manner) -> Vec<String> {
    let mut table = Table::new(&["SEVERITY", "SINCE", "NODE", "SUBJECT", "SUMMARY", "ID"]).right(&[1]);
    let digits = digits(alerts);
    for alert in alerts {
        let severity = match alert.state.as_str() {
            "firing" => alert.severity.clone(),
            state => format!("{} ({state})", alert.severity),
        };
        table.row([
            severity,
            when.ago(alert.resolved.unwrap_or(alert.since)),
            named(alert),
            alert.subject.clone(),
            format!("{}{}", manner.summary(alert), remarks(alert)),
            alert.id.chars().take(digits).collect(),
        ]);
    }
    let mut lines = table.lines();
    for (line, alert) in lines.iter_mut().skip(1).zip(alerts) {
        if let Some(rest) = line.strip_prefix(&plain(&alert.severity)) {
            *line = format!("{}{rest}", manner.paint(&alert.severity, &plain(&alert.severity)));
        }
    }
    lines
}

pub(crate) fn named(alert: &Alert) -> String {
    let name = alert.name.as_ref().or(alert.node.as_ref());
    name.cloned().unwrap_or_else(|| String::from("-"))
}

/// What else is to be known at a glance.
fn remarks(alert: &Alert) -> String {
    let mut remarks = Vec::new();
    remarks.extend(alert.reason.as_ref().map(|reason| reason.replace('_', " ")));
    remarks.extend(alert.flapping.then(|| String::from("flapping")));
    remarks.extend(alert.held.as_ref().map(|held| format!("node {held}")));
    remarks.extend(alert.acknowledged.as_ref().map(|by| format!("seen to by {}", by.who)));
    remarks.extend(alert.silenced.as_ref().map(|_| String::from("silenced")));
    if remarks.is_empty() { String::new() } else { format!(" ({})", remarks.join(", ")) }
}

/// How many digits tell these apart.
fn digits(alerts: &[Alert]) -> usize {
    let mut ids: Vec<&str> = alerts.iter().map(|alert| alert.id.as_str()).collect();
    ids.sort_unstable();
    let shared = |pair: &[&str]| pair[0].bytes().zip(pair[1].bytes()).take_while(|(a, b)| a == b).count() + 1;
    ids.windows(2).map(shared).max().unwrap_or(0).max(DIGITS)
}

#[cfg(test)]
pub(crate) mod tests {
    use dunlin_collector::shape::Moment;

    use super::*;
    use crate::manner::Language;

    pub(crate) fn alert(id: &str, severity: &str, since: &str) -> Alert {
        let value = json!({ "id": id, "rule": "memory-high", "severity": severity, "state": "firing",
            "node": "0192f0c1", "name": "db-1", "subject": "host", "value": 0.931, "threshold": 0.9, "since": since,
            "began": "2026-11-21T13:40:00Z", "summary": "db-1 uses 93.1 % of its memory",
            "summary_zh": "db-1 的内存已用 93.1 %", "runbook": "https://wiki.example.net/memory",
            "labels": {}, "acknowledged": null, "silenced": null, "flapping": false, "held": null, "resolved": null,
            "reason": null });
        serde_json::from_value(value).expect("an alert")
    }

    fn when() -> When {
        let now: Moment = "2026-11-21T14:00:00Z".parse().expect("a time");
        When::utc(now.0)
    }

    #[test]
    fn the_worst_stands_first_and_of_that_what_is_oldest() {
        let mut all = [
            alert("aaaaaaaaaaaaaaaaaaaa", "info", "2026-11-21T10:00:00Z"),
            alert("bbbbbbbbbbbbbbbbbbbb", "critical", "2026-11-21T13:50:00Z"),
            alert("cccccccccccccccccccc", "warning", "2026-11-21T13:00:00Z"),
            alert("dddddddddddddddddddd", "critical", "2026-11-21T13:45:00Z"),
        ];
        all.sort_by_key(order);
        let ids: String = all.iter().map(|alert| &alert.id[..1]).collect();
        assert_eq!(ids, "dbca");
    }

    #[test]
    fn a_line_says_what_where_since_when_and_under_which_id() {
        let mut all = [
            alert("0123456789abcdef0123", "critical", "2026-11-21T13:45:00Z"),
            alert("0123456789ffffffffff", "warning", "2026-11-21T13:45:00Z"),
        ];
        all[1].flapping = true;
        all[1].held = Some(String::from("down"));
        (all[1].name, all[1].node) = (None, None);
        let manner = Manner::of(Some(Language::En), |_| None, false);
        let said = [
            "SEVERITY  SINCE  NODE  SUBJECT  SUMMARY                                               ID",
            "critical    15m  db-1  host     db-1 uses 93.1 % of its memory                        0123456789a",
            "warning     15m  -     host     db-1 uses 93.1 % of its memory (flapping, node down)  0123456789f",
        ];
        assert_eq!(lines(&all, &when(), &manner), said);
        let manner = Manner::of(Some(Language::Zh), |_| None, true);
        let said = lines(&all[..1], &when(), &manner);
        assert!(said[1].starts_with("\x1b[1;31mcritical\x1b[0m") && said[1].contains("的内存已用"), "{said:?}");
    }
}
