//! `dunlin rules`: what is in force and what another set of rules changes, asked of a collector; and rules that are checked
//! and tried right here, without one.

mod local;
mod past;

use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use dunlin_collector::client::escaped;
use dunlin_collector::client::table::{Table, labels, plain};
use dunlin_collector::shape::{Rule, RuleChange, RuleDifference, RuleOrigin};
use serde_json::json;

pub(crate) use self::local::{check, test};
use crate::{Desk, Failure};

/// As many as a collector takes.
const LISTED_MAX: usize = 10_000;
/// Ten thousand rules on a busy machine.
const APPLY_TIME: Duration = Duration::from_secs(60);

/// What of a condition a list shows: with the rest of a line it fits a terminal.
const WHEN_MAX: usize = 60;

#[derive(Debug, Subcommand)]
pub(crate) enum RulesCommand {
    /// List the rules that are in force
    List,
    /// Show one rule
    Show {
        /// Its name
        name: String,
    },
    /// Put a file of rules in force as a set, and show what that changes
    Apply(Apply),
    /// Delete a set of rules that was applied
    Delete(Delete),
    /// Try rules by texts that say what is measured and what is to fire; no collector is asked
    Test {
        /// Files of trials; docs/rules.md says what stands in one
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
    /// Look whether a file of rules is right; no collector is asked
    Check {
        /// Files of rules
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
    /// Show what rules would have said of the past; they are not put in force
    Preview(past::Preview),
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// The file of rules
    file: PathBuf,
    /// What the set is called; without it, as the file without its ending
    #[arg(long, value_name = "NAME")]
    set: Option<String>,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// Only show what would change
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The set's name, as `dunlin rules list` shows it
    set: String,
}

impl RulesCommand {
    /// What is done here, and needs no collector.
    pub(crate) fn here(&self) -> Option<Result<(), Failure>> {
        match self {
            Self::Test { files } => Some(test(files)),
            Self::Check { files } => Some(check(files)),
            _ => None,
        }
    }
}

pub(crate) fn rules(desk: &mut Desk<'_>, command: &RulesCommand) -> Result<(), Failure> {
    match command {
        RulesCommand::List => list(desk),
        RulesCommand::Show { name } => show(desk, name),
        RulesCommand::Apply(wanted) => apply(desk, wanted),
        RulesCommand::Delete(wanted) => delete(desk, wanted),
        RulesCommand::Preview(wanted) => past::preview(desk, wanted),
        RulesCommand::Test { files } => test(files),
        RulesCommand::Check { files } => check(files),
    }
}

fn list(desk: &mut Desk<'_>) -> Result<(), Failure> {
    let items = desk.client.all("/api/v1/rules", LISTED_MAX)?;
    if desk.as_json {
        return Ok(writeln!(desk.out, "{}", json!({ "items": items, "next": null }))?);
    }
    let rules = items.into_iter().filter_map(|item| serde_json::from_value::<Rule>(item).ok());
    let mut table = Table::new(&["NAME", "SEVERITY", "OPEN", "FOR", "WHERE", "ORIGIN", "WHEN"]).right(&[2]);
    for rule in rules {
        let state = if rule.enabled { rule.severity } else { String::from("off") };
        let when = rule.when.split_whitespace().collect::<Vec<_>>().join(" ");
        let origin = origin(&rule.origin);
        // Whole it stands in `rules show`.
        let is_long = when.chars().count() > WHEN_MAX;
        let when = if is_long { when.chars().take(WHEN_MAX).chain("...".chars()).collect() } else { when };
        table.row([rule.name, state, rule.open.to_string(), rule.for_, labels(&rule.where_), origin, when]);
    }
    Ok(table.print(desk.out)?)
}

fn show(desk: &mut Desk<'_>, name: &str) -> Result<(), Failure> {
    let rule: Rule = desk.client.get(&format!("/api/v1/rules/{}", escaped(name)))?;
    if desk.as_json {
        return Ok(writeln!(desk.out, "{}", json!(rule))?);
    }
    let option = |text: Option<String>| text.unwrap_or_default();
    let lines = [
        ("name", rule.name),
        ("enabled", if rule.enabled { String::from("yes") } else { String::from("no") }),
        ("severity", rule.severity),
        ("when", rule.when),
        ("clear", option(rule.clear)),
        ("for", rule.for_),
        ("keep_firing_for", rule.keep_firing_for),
        ("where", labels(&rule.where_)),
        ("subjects", rule.subjects.join(", ")),
        ("summary", rule.summary),
        ("summary_zh", option(rule.summary_zh)),
        ("runbook", option(rule.runbook)),
        ("origin", origin(&rule.origin)),
        ("open alerts", rule.open.to_string()),
    ];
    for (key, text) in lines.into_iter().filter(|(_, text)| !text.is_empty()) {
        // A condition may stand on several lines.
        for (at, line) in text.lines().enumerate() {
            writeln!(desk.out, "{:<16} {}", if at == 0 { key } else { "" }, plain(line))?;
        }
    }
    Ok(())
}

fn apply(desk: &mut Desk<'_>, wanted: &Apply) -> Result<(), Failure> {
    let text = text_of(&wanted.file)?;
    let set = match &wanted.set {
        Some(set) => set.clone(),
        None => wanted.file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default(),
    };
    let path = format!("/api/v1/rules?set={}", escaped(&set));
    let would: RuleDifference = desk.client.send_text("PUT", &format!("{path}&dry_run=true"), &text, APPLY_TIME)?;
    if wanted.dry_run {
        return told(desk, &would);
    }
    if !wanted.yes {
        if !io::stdin().is_terminal() {
            let what = "nobody is there to be asked; look with --dry-run, then say --yes";
            return Err(Failure::Usage(String::from(what)));
        }
        print_difference(desk, &would)?;
        write!(desk.out, "Apply? [y/N] ")?;
        desk.out.flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Ok(writeln!(desk.out, "Nothing was done.")?);
        }
    }
    let did: RuleDifference = desk.client.send_text("PUT", &path, &text, APPLY_TIME)?;
    // What was shown and agreed to is not shown again.
    if wanted.yes || did.added != would.added || did.changed != would.changed || did.removed != would.removed {
        return told(desk, &did);
    }
    Ok(writeln!(desk.out, "Applied.")?)
}

fn delete(desk: &mut Desk<'_>, wanted: &Delete) -> Result<(), Failure> {
    let path = format!("/api/v1/rule-sets/{}", escaped(&wanted.set));
    let did: RuleDifference = desk.client.ask("DELETE", &path, None, APPLY_TIME)?;
    told(desk, &did)
}

fn told(desk: &mut Desk<'_>, difference: &RuleDifference) -> Result<(), Failure> {
    if desk.as_json {
        return Ok(writeln!(desk.out, "{}", json!(difference))?);
    }
    print_difference(desk, difference)
}

fn print_difference(desk: &mut Desk<'_>, difference: &RuleDifference) -> Result<(), Failure> {
    for line in lines_of(difference) {
        writeln!(desk.out, "{}", plain(&line))?;
    }
    Ok(())
}

/// As `diff` has it: what goes behind `-`, what comes behind `+`, and each field of what is other.
fn lines_of(difference: &RuleDifference) -> Vec<String> {
    let RuleDifference { set, dry_run, added, changed, removed, unchanged } = difference;
    let mut lines = Vec::new();
    lines.extend(removed.iter().map(|change| format!("- {}{}", change.name, alerts(change))));
    for change in changed {
        lines.push(format!("~ {}{}", change.name, alerts(change)));
        for field in &change.fields {
            let sides = [("-", &field.before), ("+", &field.after)];
            let sides = sides.into_iter().filter(|(_, side)| !side.is_empty());
            lines.extend(sides.map(|(sign, side)| {
                let side = side.split_whitespace().collect::<Vec<_>>().join(" ");
                format!("    {sign} {} = {side}", field.field)
            }));
        }
    }
    lines.extend(added.iter().map(|change| format!("+ {}", change.name)));
    let would = if *dry_run { "would be " } else { "" };
    let counts = (added.len(), changed.len(), removed.len());
    lines.push(format!(
        "{set}: {would}{} added, {} changed, {} removed, {unchanged} unchanged",
        counts.0, counts.1, counts.2
    ));
    lines
}

fn alerts(change: &RuleChange) -> String {
    match (change.open, change.closes) {
        (0, _) => String::new(),
        (open, 0) => format!("  ({open} open alerts)"),
        (open, closes) if open == closes => format!("  (closes {closes} open alerts)"),
        (open, closes) => format!("  (closes {closes} of {open} open alerts)"),
    }
}

fn origin(origin: &RuleOrigin) -> String {
    match &origin.place {
        Some(place) => format!("{} {place}", origin.kind),
        None => origin.kind.clone(),
    }
}

/// What cannot be read is wrong usage, as what is wrong in it.
fn text_of(file: &Path) -> Result<String, Failure> {
    let cannot = |error: io::Error| Failure::Usage(format!("{} cannot be read: {error}", file.display()));
    fs::read_to_string(file).map_err(cannot)
}

#[cfg(test)]
mod tests {
    use dunlin_collector::shape::RuleField;

    use super::*;

    #[test]
    fn a_difference_is_read_like_a_diff() {
        let change = |name: &str, open, closes, fields| RuleChange { name: name.to_owned(), fields, open, closes };
        let field = |field: &str, before: &str, after: &str| RuleField {
            field: field.to_owned(),
            before: before.to_owned(),
            after: after.to_owned(),
        };
        let difference = RuleDifference {
            set: String::from("web"),
            dry_run: true,
            added: vec![change("new", 0, 0, vec![])],
            changed: vec![change(
                "busy",
                3,
                1,
                vec![field("when", "host_load1\n  > 8", "host_load1 > 9"), field("for", "", "\"5m\"")],
            )],
            removed: vec![change("old", 2, 2, vec![]), change("older", 0, 0, vec![])],
            unchanged: 7,
        };
        let expected = [
            "- old  (closes 2 open alerts)",
            "- older",
            "~ busy  (closes 1 of 3 open alerts)",
            "    - when = host_load1 > 8",
            "    + when = host_load1 > 9",
            "    + for = \"5m\"",
            "+ new",
            "web: would be 1 added, 1 changed, 2 removed, 7 unchanged",
        ];
        assert_eq!(lines_of(&difference), expected);
    }
}
