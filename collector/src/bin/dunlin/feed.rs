//! `dunlin events`, `dunlin alerts feed` and `dunlin log`.

use std::time::Duration;

use clap::Args;
use dunlin_collector::client::ClientError;
use dunlin_collector::client::escaped;
use dunlin_collector::client::table::{Table, plain};
use dunlin_collector::shape::{Event, Feed, LogEntry, Moment, Outcome};
use serde_json::{Value, json};

use crate::manner::{Language, Manner};
use crate::{Desk, Failure};

/// What one question waits for, below what the collector allows.
const WAIT: Duration = Duration::from_secs(50);
/// After a collector that could not be reached: the first time, and at most.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Only what happened after this cursor
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// Go on as things happen
    #[arg(long)]
    follow: bool,
    /// Only of this kind, such as node.down or node.*; repeated, any of them
    #[arg(long = "kind")]
    kinds: Vec<String>,
    /// Only about this node
    #[arg(long)]
    node: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AlertFeed {
    /// Only what happened after this cursor
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// Go on as things happen
    #[arg(long)]
    follow: bool,
    /// Everything else that happens as well, as `dunlin events` shows it
    #[arg(long)]
    all: bool,
    /// Only about this node
    #[arg(long)]
    node: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Log {
    /// How many entries, the newest first
    #[arg(long, default_value_t = 50)]
    limit: usize,
}

/// As JSON an event is a line, so that a program can follow them.
pub(crate) fn events(desk: &mut Desk<'_>, wanted: &Events) -> Result<(), Failure> {
    let mut filter = String::new();
    wanted.kinds.iter().for_each(|kind| filter.push_str(&format!("&kind={}", escaped(kind))));
    wanted.node.iter().for_each(|node| filter.push_str(&format!("&node={}", escaped(node))));
    let (mut after, mut pause) = (wanted.after.clone(), AGAIN);
    if !desk.as_json {
        eprintln!("Times are {}.", desk.when.zone());
    }
    loop {
        let mut query = format!("/api/v1/events?limit=1000{filter}");
        after.iter().for_each(|after| query.push_str(&format!("&after={}", escaped(after))));
        if wanted.follow {
            query.push_str(&format!("&wait={}s", WAIT.as_secs()));
        }
        let feed: Feed = match desk.client.wait_for(&query, WAIT) {
            Ok(feed) => feed,
            // Once it was there, it will be again.
            Err(ClientError::Unreachable { .. } | ClientError::Answer { .. }) if wanted.follow && after.is_some() => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(AGAIN_MAX);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        pause = AGAIN;
        let is_end = feed.items.is_empty();
        for event in &feed.items {
            show(desk, event)?;
        }
        desk.out.flush()?;
        after = Some(feed.next);
        if is_end && !wanted.follow {
            if !desk.as_json {
                eprintln!("Go on with --after {}", plain(after.as_deref().unwrap_or_default()));
            }
            return Ok(());
        }
    }
}

pub(crate) fn alert_feed(desk: &mut Desk<'_>, wanted: &AlertFeed) -> Result<(), Failure> {
    let kinds = if wanted.all { Vec::new() } else { vec![String::from("alert.*")] };
    let AlertFeed { after, follow, node, .. } = wanted;
    events(desk, &Events { after: after.clone(), follow: *follow, kinds, node: node.clone() })
}

pub(crate) fn log(desk: &mut Desk<'_>, wanted: &Log) -> Result<(), Failure> {
    let items = desk.client.all("/api/v1/log", wanted.limit.max(1))?;
    if desk.as_json {
        return Ok(writeln!(desk.out, "{}", json!({ "items": items, "next": null }))?);
    }
    let entries: Vec<LogEntry> = items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect();
    let mut table = Table::new(&["TIME", "WHO", "FROM", "ACTION", "TARGET", "OUTCOME", "DETAIL"]);
    for entry in entries {
        let who = match entry.token {
            Some(token) => format!("{} ({token})", entry.actor),
            None => entry.actor,
        };
        let time = desk.when.local(entry.at);
        let outcome = match entry.outcome {
            Outcome::Done => "done",
            Outcome::Refused => "refused",
        };
        let mut detail = entry.reason.unwrap_or(entry.detail);
        if entry.times > 1 {
            detail.push_str(&format!(" ({} times)", entry.times));
        }
        table.row([time, who, entry.from.unwrap_or_default(), entry.action, entry.target, outcome.to_owned(), detail]);
    }
    eprintln!("Times are {}.", desk.when.zone());
    Ok(table.print(desk.out)?)
}

fn show(desk: &mut Desk<'_>, event: &Event) -> Result<(), Failure> {
    if desk.as_json {
        return Ok(writeln!(desk.out, "{}", serde_json::to_string(event).unwrap_or_default())?);
    }
    Ok(writeln!(desk.out, "{}", plain(&line(&desk.when.local(Moment(event.at.0)), event, &desk.manner)))?)
}

fn line(time: &str, event: &Event, manner: &Manner) -> String {
    let name = event.more.get("name").and_then(Value::as_str).or(event.node.as_deref()).unwrap_or("-");
    match event.more.get("alert") {
        Some(alert) => format!("{time}  {:<22} {name}  {}", event.kind, told(alert, manner)),
        None => format!("{time}  {:<22} {name}{}", event.kind, pairs(event, &["name"])),
    }
}

/// An alert, as far as a line has room.
fn told(alert: &Value, manner: &Manner) -> String {
    let text = |key: &str| alert.get(key).and_then(Value::as_str);
    let zh = text("summary_zh").filter(|_| manner.language == Language::Zh);
    let summary = zh.or_else(|| text("summary")).unwrap_or_default();
    let reason = text("reason").map(|reason| format!("  reason={reason}")).unwrap_or_default();
    let of = |key: &str| text(key).unwrap_or("?");
    format!("{} {} {}: {summary}{reason}  id={}", of("severity"), of("rule"), of("subject"), of("id"))
}

/// The kind of an event, and what else it says but of whom and when.
pub(crate) fn more(event: &Event, manner: &Manner) -> String {
    match event.more.get("alert") {
        Some(alert) => format!("{}  {}", event.kind, told(alert, manner)),
        None => format!("{}{}", event.kind, pairs(event, &["name", "happened"])),
    }
}

fn pairs(event: &Event, but: &[&str]) -> String {
    let mut pairs = String::new();
    for (key, value) in event.more.iter().filter(|(key, _)| !but.contains(&key.as_str())) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if !value.is_empty() {
            pairs.push_str(&format!("  {key}={value}"));
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_that_names_whom_it_is_about_and_what_else_is_known() {
        let text = r#"{"cursor":"7-1","at":"2026-11-21T14:00:00Z","kind":"node.gap","node":"an-id","name":"web-1",
            "count":3,"why":""}"#;
        let event: Event = serde_json::from_str(text).expect("an event");
        let manner = Manner::of(None, |_| None, false);
        assert_eq!(line("14:00:00", &event, &manner), "14:00:00  node.gap               web-1  count=3");
    }

    #[test]
    fn an_alert_is_a_line_that_says_what_is_wrong_wherever_it_stands() {
        let text = r#"{"cursor":"7-1","at":"2026-11-21T14:00:00Z","kind":"alert.resolved","node":"an-id","name":"db-1",
            "alert":{"id":"0123","rule":"disk-low","severity":"warning","subject":"fs:/var","summary":"/var is full",
            "summary_zh":"/var 已满","reason":"recovered","value":0.9}}"#;
        let event: Event = serde_json::from_str(text).expect("an event");
        let said =
            "14:00:00  alert.resolved         db-1  warning disk-low fs:/var: /var is full  reason=recovered  id=0123";
        assert_eq!(line("14:00:00", &event, &Manner::of(None, |_| None, false)), said);
        let plain = Manner::of(None, |_| None, false);
        assert!(more(&event, &plain).starts_with("alert.resolved  warning disk-low fs:/var: /var is full"));
        assert!(line("", &event, &Manner::of(Some(Language::Zh), |_| None, false)).contains("/var 已满"));
    }
}
