//! `dunlin authority`: how the fleet's authority stands, and the three steps of a turn to the next one.

use clap::{Args, ValueEnum};
use dunlin_collector::shape::{Authority, AuthorityTurn, LogEntry, Moment, Node, Outcome};
use serde_json::json;

use crate::nodes::{List, listed};
use crate::{Desk, Failure};

/// Lines of the log that are looked through for the last step: a step is rare, and people are few.
const LOG_MAX: usize = 10_000;
/// How many of those who would be left behind are named.
const NAMED_MAX: usize = 5;
/// States of nodes that a turn takes nothing from.
const OUT: [&str; 2] = ["revoked", "quarantined"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Make the next authority; nodes learn it with their next session
    Prepare,
    /// Let it sign; give nodes a week before, so that each of them knows it
    Activate,
    /// Drop the one before; nodes that slept through the turn need a join token, and are the same nodes by their key
    Retire,
}

#[derive(Debug, Args)]
pub(crate) struct Turn {
    /// Take this step; without it the authority is shown
    #[arg(value_enum)]
    step: Option<Step>,
    /// Retire the one before though nodes were not seen since the next was prepared: a stolen key cannot wait for them
    #[arg(long)]
    anyway: bool,
}

/// Who would not believe the next authority.
#[derive(Debug)]
struct Behind {
    since: Moment,
    names: Vec<String>,
    nodes: usize,
}

pub(crate) fn authority(desk: &mut Desk<'_>, turn: &Turn) -> Result<(), Failure> {
    if let Some(step) = turn.step {
        if step == Step::Retire && !turn.anyway {
            leave_nobody_behind(desk)?;
        }
        let step = match step {
            Step::Prepare => "prepare",
            Step::Activate => "activate",
            Step::Retire => "retire",
        };
        desk.client.order("POST", &format!("/api/v1/authority/{step}"), None)?;
    }
    let stands: Authority = desk.client.get("/api/v1/authority")?;
    let behind = if stands.turn == AuthorityTurn::None { None } else { behind(desk)? };
    if desk.as_json {
        let mut said = json!(stands);
        said["behind"] = json!(behind.map(|behind| behind.names));
        return Ok(writeln!(desk.out, "{said}")?);
    }
    let next = match stands.turn {
        AuthorityTurn::None => "no turn is under way",
        AuthorityTurn::Prepared => "the next one is prepared, and nodes learn it; then: dunlin authority activate",
        AuthorityTurn::Activated => "the next one signs, the one before is trusted; then: dunlin authority retire",
    };
    writeln!(desk.out, "pin   {}", stands.pin.as_deref().unwrap_or("none: ca.key is missing, so nobody can enrol"))?;
    writeln!(desk.out, "turn  {next}")?;
    match behind {
        Some(behind) => Ok(writeln!(desk.out, "nodes {}", behind.told(desk))?),
        None => Ok(()),
    }
}

fn leave_nobody_behind(desk: &Desk<'_>) -> Result<(), Failure> {
    match behind(desk)? {
        Some(behind) if !behind.names.is_empty() => {
            let told = behind.told(desk);
            let advice = "wait for them, or say --anyway: each then needs a join token";
            Err(Failure::Unsafe(format!("{told}; {advice}")))
        }
        _ => Ok(()),
    }
}

/// Every session is told of the next authority as soon as its agent says something: who was seen since knows it.
fn behind(desk: &Desk<'_>) -> Result<Option<Behind>, Failure> {
    let entries = desk.client.all("/api/v1/log", LOG_MAX)?.into_iter();
    let mut entries = entries.filter_map(|item| serde_json::from_value::<LogEntry>(item).ok());
    let prepared = entries.find(|entry| entry.action == "authority.prepare" && entry.outcome == Outcome::Done);
    let Some(LogEntry { at: since, .. }) = prepared else { return Ok(None) };
    let nodes = listed(desk, &List { labels: Vec::new(), states: Vec::new(), name: None })?;
    Ok(Some(Behind::of(since, nodes)))
}

impl Behind {
    fn of(since: Moment, nodes: Vec<Node>) -> Self {
        let in_turn: Vec<Node> = nodes.into_iter().filter(|node| !OUT.contains(&node.state.as_str())).collect();
        let count = in_turn.len();
        let slept = in_turn.into_iter().filter(|node| node.last_seen.is_none_or(|seen| seen.0 <= since.0));
        let mut names: Vec<String> = slept.map(|node| node.name).collect();
        names.sort();
        Self { since, names, nodes: count }
    }

    fn told(&self, desk: &Desk<'_>) -> String {
        let since = format!("since {} ({})", desk.when.local(self.since), desk.when.zone());
        if self.names.is_empty() {
            return format!("all {} were seen {since} and know the next one", self.nodes);
        }
        let named = self.names.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if self.names.len() > NAMED_MAX { ", ..." } else { "" };
        format!("{} of {} were not seen {since}: {named}{more}", self.names.len(), self.nodes)
    }
}
