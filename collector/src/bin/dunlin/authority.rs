//! `dunlin authority`: how the fleet's authority stands, and the three steps of a turn to the next one.

use clap::{Args, ValueEnum};
use dunlin_collector::shape::{Authority, AuthorityTurn};

use crate::{Desk, Failure};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Make the next authority; nodes learn it with their next session
    Prepare,
    /// Let it sign; give nodes a week before, so that each of them knows it
    Activate,
    /// Drop the one before; nodes that slept through the turn join again by their key
    Retire,
}

#[derive(Debug, Args)]
pub(crate) struct Turn {
    /// Take this step; without it the authority is shown
    #[arg(value_enum)]
    step: Option<Step>,
}

pub(crate) fn authority(desk: &mut Desk<'_>, turn: &Turn) -> Result<(), Failure> {
    if let Some(step) = turn.step {
        let step = match step {
            Step::Prepare => "prepare",
            Step::Activate => "activate",
            Step::Retire => "retire",
        };
        desk.client.order("POST", &format!("/api/v1/authority/{step}"), None)?;
    }
    let stands: Authority = desk.client.get("/api/v1/authority")?;
    if desk.as_json {
        return Ok(writeln!(desk.out, "{}", serde_json::to_string(&stands).unwrap_or_default())?);
    }
    let next = match stands.turn {
        AuthorityTurn::None => "no turn is under way",
        AuthorityTurn::Prepared => "the next one is prepared, and nodes learn it; then: dunlin authority activate",
        AuthorityTurn::Activated => "the next one signs, the one before is trusted; then: dunlin authority retire",
    };
    writeln!(desk.out, "pin   {}", stands.pin.as_deref().unwrap_or("none: ca.key is missing, so nobody can enrol"))?;
    Ok(writeln!(desk.out, "turn  {next}")?)
}
