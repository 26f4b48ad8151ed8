//! `dunlin silence`: mutes with an author and a reason.

use std::time::Duration;

use clap::{Args, Subcommand};
use dunlin_collector::client::escaped;
use dunlin_collector::client::table::{Table, labels, plain};
use dunlin_collector::client::tokens::parse_labels;
use dunlin_collector::shape::{Matchers, Moment, Silence, SilenceChange, SilenceRequest, Weekly, WeeklyWindow};
use serde_json::json;

use crate::{Desk, Failure};

/// More than a collector keeps.
const LISTED_MAX: usize = 100_000;
const ANSWER_TIME: Duration = Duration::from_secs(30);
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

#[derive(Debug, Subcommand)]
pub(crate) enum SilenceCommand {
    /// Make one; its id is printed alone on stdout, what it does on stderr
    Add(Box<Add>),
    /// List those that are not over
    List(List),
    /// Show one
    Show(One),
    /// Move its end, or give another reason
    Edit(Edit),
    /// End it before its time
    Expire(One),
}

#[derive(Debug, Args)]
#[command(
    group(clap::ArgGroup::new("about").args(["labels", "rule", "node", "subject", "severity"]).required(true).multiple(true)),
    after_help = "All of what is named has to fit. In LABELS, RULE and SUBJECT * stands for anything."
)]
pub(crate) struct Add {
    /// Alerts of nodes that bear it, by their token or by an operator; repeated, all of them
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Alerts of rules of such a name
    #[arg(long)]
    rule: Option<String>,
    /// Alerts of this node: an id, or a name that one node alone has
    #[arg(long)]
    node: Option<String>,
    /// Alerts about such a subject, such as fs:/var*
    #[arg(long)]
    subject: Option<String>,
    /// info, warning or critical
    #[arg(long)]
    severity: Option<String>,
    /// Why, for whoever wonders
    #[arg(long)]
    reason: String,
    /// When it begins, in RFC 3339; now when absent
    #[arg(long, value_name = "TIME")]
    from: Option<Moment>,
    /// How long, such as 2h
    #[arg(long = "for", value_name = "DURATION")]
    duration: Option<String>,
    /// When it ends, in RFC 3339
    #[arg(long, value_name = "TIME", conflicts_with = "duration")]
    until: Option<Moment>,
    /// Only in such a window of every week, "DAYS START DURATION": "sat,sun 02:00 4h", "mon-fri 22:30 30m", "daily 03:00 1h"; repeated, in any of them
    #[arg(long, value_name = "WINDOW")]
    weekly: Vec<String>,
    /// By whose clock the windows go, such as Europe/Berlin; the zone of this computer when absent
    #[arg(long, requires = "weekly")]
    zone: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Also those that are over
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct One {
    /// Such as s12
    id: String,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("change").args(["duration", "until", "open", "reason"]).required(true).multiple(true)))]
pub(crate) struct Edit {
    /// Such as s12
    id: String,
    /// It ends so long from now, such as 2h
    #[arg(long = "for", value_name = "DURATION")]
    duration: Option<String>,
    /// It ends then, in RFC 3339
    #[arg(long, value_name = "TIME", conflicts_with = "duration")]
    until: Option<Moment>,
    /// It goes on until somebody ends it; for one with weekly windows
    #[arg(long = "open-ended", conflicts_with_all = ["duration", "until"])]
    open: bool,
    #[arg(long)]
    reason: Option<String>,
}

pub(crate) fn silence(desk: &mut Desk<'_>, command: &SilenceCommand) -> Result<(), Failure> {
    match command {
        SilenceCommand::Add(wanted) => add(desk, wanted),
        SilenceCommand::List(wanted) => list(desk, wanted),
        SilenceCommand::Show(wanted) => show(desk, wanted),
        SilenceCommand::Edit(wanted) => {
            let end = if wanted.open { Some(None) } else { wanted.until.map(Some) };
            let change = SilenceChange { end, duration: wanted.duration.clone(), reason: wanted.reason.clone() };
            Ok(desk.client.order("PATCH", &path(&wanted.id), Some(&json!(change)))?)
        }
        SilenceCommand::Expire(wanted) => Ok(desk.client.order("DELETE", &path(&wanted.id), None)?),
    }
}

fn add(desk: &mut Desk<'_>, wanted: &Add) -> Result<(), Failure> {
    let matchers = Matchers {
        labels: parse_labels(&wanted.labels).map_err(Failure::Usage)?,
        rule: wanted.rule.clone(),
        node: wanted.node.clone(),
        subject: wanted.subject.clone(),
        severity: wanted.severity.clone(),
    };
    let windows = wanted.weekly.iter().map(|text| window(text)).collect::<Result<Vec<_>, _>>()?;
    let weekly = if windows.is_empty() { None } else { Some(Weekly { zone: zone(desk, wanted)?, windows }) };
    let request = SilenceRequest {
        matchers,
        reason: wanted.reason.clone(),
        start: wanted.from,
        end: wanted.until,
        duration: wanted.duration.clone(),
        weekly,
    };
    let made: Silence = desk.client.ask("POST", "/api/v1/silences", Some(&json!(request)), ANSWER_TIME)?;
    if desk.as_json {
        return Ok(writeln!(desk.out, "{}", json!(made))?);
    }
    writeln!(desk.out, "{}", plain(&made.id))?;
    let (id, about, lasts) = (&made.id, about(&made.matchers), lasts(desk, &made));
    let said = format!("Silence {id} on {about} is {}, {lasts}. End it with: dunlin silence expire {id}", made.state);
    eprintln!("{}", plain(&said));
    Ok(())
}

fn list(desk: &mut Desk<'_>, wanted: &List) -> Result<(), Failure> {
    let states = if wanted.all { "" } else { "?state=active&state=pending" };
    let items = desk.client.all(&format!("/api/v1/silences{states}"), LISTED_MAX)?;
    if desk.as_json {
        return Ok(writeln!(desk.out, "{}", json!({ "items": items, "next": null }))?);
    }
    let silences: Vec<Silence> = items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect();
    let mut table = Table::new(&["ID", "STATE", "ON", "LASTS", "BY", "REASON"]);
    for silence in silences {
        let lasts = lasts(desk, &silence);
        table.row([silence.id, silence.state, about(&silence.matchers), lasts, silence.author, silence.reason]);
    }
    if table.is_empty() {
        eprintln!("Nothing is silenced.");
        return Ok(());
    }
    eprintln!("Times are {}.", desk.when.zone());
    Ok(table.print(desk.out)?)
}

fn show(desk: &mut Desk<'_>, wanted: &One) -> Result<(), Failure> {
    let silence: Silence = desk.client.get(&path(&wanted.id))?;
    if desk.as_json {
        return Ok(writeln!(desk.out, "{}", json!(silence))?);
    }
    let until = silence.until.map(|until| format!(", until {} at least", desk.when.local(until)));
    let mut rows = vec![
        ("silence", silence.id.clone()),
        ("state", format!("{}{}", silence.state, until.unwrap_or_default())),
        ("on", about(&silence.matchers)),
        ("lasts", lasts(desk, &silence)),
        ("reason", silence.reason.clone()),
        ("made", format!("{} by {}", desk.when.local(silence.created), silence.author)),
    ];
    rows.extend(silence.ended_by.map(|by| ("ended", format!("before its time, by {by}"))));
    for (name, text) in rows {
        writeln!(desk.out, "{name:<8} {}", plain(&text))?;
    }
    eprintln!("Times are {}.", desk.when.zone());
    Ok(())
}

/// What it is about, in one line.
fn about(matchers: &Matchers) -> String {
    let named = [
        ("rule", &matchers.rule),
        ("node", &matchers.node),
        ("subject", &matchers.subject),
        ("severity", &matchers.severity),
    ];
    let named = named.into_iter().filter_map(|(name, value)| Some(format!("{name}:{}", value.as_deref()?)));
    let borne = Some(labels(&matchers.labels)).filter(|labels| !labels.is_empty());
    borne.into_iter().chain(named).collect::<Vec<_>>().join(" ")
}

fn lasts(desk: &Desk<'_>, silence: &Silence) -> String {
    let windows = silence.weekly.as_ref().map(|weekly| {
        let window = |window: &WeeklyWindow| format!("{} {} {}", window.days.join(","), window.start, window.duration);
        let windows: Vec<_> = weekly.windows.iter().map(window).collect();
        format!("weekly {} ({}), ", windows.join("; "), weekly.zone)
    });
    let end = silence.end.map_or(String::from("until it is ended"), |end| format!("until {}", desk.when.local(end)));
    let start = (desk.when.now < silence.start.0).then(|| format!("from {} ", desk.when.local(silence.start)));
    format!("{}{}{end}", windows.unwrap_or_default(), start.unwrap_or_default())
}

/// `sat,sun 02:00 4h`; what is in it is for the collector to judge.
fn window(text: &str) -> Result<WeeklyWindow, Failure> {
    let [days, start, duration] = text.split_whitespace().collect::<Vec<_>>()[..] else {
        let what = format!("{text:?} is no window; write \"DAYS START DURATION\" such as \"sat,sun 02:00 4h\"");
        return Err(Failure::Usage(what));
    };
    let days =
        if days == "daily" { vec![String::from("mon-sun")] } else { days.split(',').map(str::to_owned).collect() };
    let days = days.iter().flat_map(|days| range(days)).collect();
    Ok(WeeklyWindow { days, start: start.to_owned(), duration: duration.to_owned() })
}

/// `fri-mon` is four days.
fn range(text: &str) -> Vec<String> {
    let place = |day: &str| DAYS.iter().position(|known| *known == day);
    match text.split_once('-').map(|(first, last)| place(first).zip(place(last))) {
        Some(Some((first, last))) => {
            let count = (last + DAYS.len() - first) % DAYS.len() + 1;
            DAYS.iter().cycle().skip(first).take(count).map(|&day| day.to_owned()).collect()
        }
        _ => vec![text.to_owned()],
    }
}

/// A zone that has no name cannot be told to another computer.
fn zone(desk: &Desk<'_>, wanted: &Add) -> Result<String, Failure> {
    let here = desk.when.zone();
    match &wanted.zone {
        Some(zone) => Ok(zone.clone()),
        None if here == "UTC" || here.contains('/') => Ok(here),
        None => Err(Failure::Usage(String::from("say by whose clock with --zone, such as --zone Europe/Berlin"))),
    }
}

fn path(id: &str) -> String {
    format!("/api/v1/silences/{}", escaped(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_named_one_by_one_in_ranges_or_all_at_once() {
        let days =
            |text: &str| window(&format!("{text} 02:00 4h")).map(|window| window.days.join(",")).unwrap_or_default();
        assert_eq!(days("sat,sun"), "sat,sun");
        assert_eq!(days("mon-fri"), "mon,tue,wed,thu,fri");
        assert_eq!(days("sat-mon,wed"), "sat,sun,mon,wed");
        assert_eq!(days("daily"), "mon,tue,wed,thu,fri,sat,sun");
        assert_eq!(days("fri-fri"), "fri");
        assert_eq!(days("some-day"), "some-day", "the collector says what is wrong with it");
        assert!(window("sat 02:00").is_err());
    }
}
