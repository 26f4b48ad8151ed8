//! `dunlin rules preview`: what rules would have said of the past.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use dunlin_collector::client::escaped;
use dunlin_collector::client::table::{Table, plain};
use dunlin_collector::shape::{RuleFiring, RulePreview};
use serde_json::json;

use super::text_of;
use crate::{Desk, Failure};

/// A little longer than a collector goes on for.
const PREVIEW_TIME: Duration = Duration::from_secs(90);

#[derive(Debug, Args)]
pub(crate) struct Preview {
    /// The file of rules
    file: PathBuf,
    /// From when on: a duration before now, or RFC 3339
    #[arg(long, default_value = "24h")]
    from: String,
    /// Until when; now when absent
    #[arg(long)]
    to: Option<String>,
    /// Only of nodes that bear it; repeated, all of them
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// How many alerts are listed; all are counted
    #[arg(long, default_value = "100")]
    limit: u32,
}

pub(super) fn preview(desk: &mut Desk<'_>, wanted: &Preview) -> Result<(), Failure> {
    let text = text_of(&wanted.file)?;
    let mut path = format!("/api/v1/rules/preview?from={}&limit={}", escaped(&wanted.from), wanted.limit);
    wanted.to.iter().for_each(|to| path.push_str(&format!("&to={}", escaped(to))));
    wanted.labels.iter().for_each(|label| path.push_str(&format!("&label={}", escaped(label))));
    let found: RulePreview = desk.client.send_text("POST", &path, &text, PREVIEW_TIME)?;
    if desk.as_json {
        return Ok(writeln!(desk.out, "{}", json!(found))?);
    }
    let mut table = Table::new(&["FIRED", "FOR", "RULE", "NODE", "SUBJECT", "SUMMARY"]);
    for item in &found.items {
        let lasted = lasted(item, &found);
        let (fired, summary) = (desk.when.local(item.fired), item.summary.clone());
        table.row([fired, lasted, item.rule.clone(), item.name.clone(), item.subject.clone(), summary]);
    }
    if !table.is_empty() {
        table.print(desk.out)?;
        writeln!(desk.out)?;
    }
    let mut counts = Table::new(&["RULE", "ALERTS", "NODES", "FIRING"]).right(&[1, 2, 3]);
    for rule in &found.rules {
        match &rule.not_previewed {
            Some(_) => counts.row([rule.rule.clone(), String::from("?"), String::from("?"), String::from("?")]),
            None => {
                #[expect(clippy::cast_possible_truncation, reason = "a float cast saturates")]
                let firing = span((rule.seconds * 1_000.0) as i64);
                counts.row([rule.rule.clone(), rule.alerts.to_string(), rule.nodes.to_string(), firing]);
            }
        }
    }
    counts.print(desk.out)?;
    for rule in found.rules.iter().filter(|rule| rule.not_previewed.is_some()) {
        let why = rule.not_previewed.as_deref().unwrap_or_default();
        writeln!(desk.out, "{}", plain(&format!("{} was not previewed: {why}", rule.rule)))?;
    }
    let (from, to, zone) = (desk.when.local(found.from), desk.when.local(found.to), desk.when.zone());
    let more = if found.more { "; more fired than are listed" } else { "" };
    Ok(writeln!(desk.out, "{} nodes, {from} to {to} {zone}{more}", found.nodes)?)
}

fn lasted(item: &RuleFiring, found: &RulePreview) -> String {
    match item.resolved {
        Some(resolved) => span(resolved.0.since(item.fired.0)),
        None => format!("{} and on", span(found.to.0.since(item.fired.0))),
    }
}

/// The two largest units that it has.
fn span(ms: i64) -> String {
    let seconds = ms.max(0) / 1_000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_it_fired_is_told_by_two_units() {
        let spans = [-5, 0, 59_999, 60_000, 3_599_000, 3_600_000, 90_000_000].map(span);
        assert_eq!(spans, ["0s", "0s", "59s", "1m 0s", "59m 59s", "1h 0m", "1d 1h"]);
    }
}
