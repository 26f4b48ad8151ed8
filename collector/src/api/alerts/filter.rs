//! Which alerts a caller wants, and may see.

use dunlin_shared::id::NodeId;
use dunlin_shared::rule::{Pattern, Severity};

use super::super::Api;
use super::super::caller::Caller;
use super::super::nodes;
use super::super::params::{Params, short};
use super::super::problem::Problem;
use super::is_seen;
use crate::engine::alert::AlertState;
use crate::registry::Labels;
use crate::store::KeptAlert;
use crate::view::FleetView;

/// From which of the two places.
#[derive(Debug)]
pub(super) enum Wanted {
    /// The board; those that are in one of these states.
    Open(Vec<AlertState>),
    /// The database.
    Over,
}

#[derive(Debug)]
pub(super) struct Filter {
    severities: Vec<Severity>,
    rules: Vec<Pattern>,
    subjects: Vec<Pattern>,
    labels: Labels,
    pub(super) node: Option<NodeId>,
}

impl Filter {
    pub(super) fn take(params: &mut Params, api: &Api, caller: &Caller) -> Result<(Wanted, Self), Problem> {
        let wanted = wanted(&params.all("state"))?;
        let severity = |text: &String| {
            let wrong =
                || Problem::bad_request(format!("severity is {:?}; it is info, warning or critical", short(text)));
            Severity::parse(text).ok_or_else(wrong)
        };
        let severities = params.all("severity").iter().map(severity).collect::<Result<_, _>>()?;
        let patterns = |texts: Vec<String>| texts.iter().map(|text| Pattern::new(text)).collect();
        let (rules, subjects) = (patterns(params.all("rule")), patterns(params.all("subject")));
        let labels = params.labels()?;
        let node = match params.one("node")? {
            // What was wrong with a node that is gone is there for those who see everything.
            Some(word) => match word.parse() {
                Ok(id) if !caller.is_limited() => Some(id),
                _ => Some(nodes::find(&api.published.fleet.load(), caller, &word)?.id),
            },
            None => None,
        };
        Ok((wanted, Self { severities, rules, subjects, labels, node }))
    }

    pub(super) fn wants(
        &self,
        caller: &Caller,
        fleet: &FleetView,
        node: Option<NodeId>,
        (severity, rule, subject): (Severity, &str, &str),
    ) -> bool {
        let fits =
            |patterns: &[Pattern], text: &str| patterns.is_empty() || patterns.iter().any(|pattern| pattern.fits(text));
        let is_such = (self.severities.is_empty() || self.severities.contains(&severity))
            && fits(&self.rules, rule)
            && fits(&self.subjects, subject)
            && self.node.is_none_or(|wanted| node == Some(wanted));
        is_such && self.is_borne(fleet, node) && is_seen(caller, fleet, node)
    }

    pub(super) fn wants_kept(&self, caller: &Caller, fleet: &FleetView, kept: &KeptAlert) -> bool {
        let row = &kept.row;
        let severity = Severity::parse(&row.severity).unwrap_or_default();
        self.wants(caller, fleet, kept.node.as_ref().map(|(id, _)| *id), (severity, &row.rule, &row.subject))
    }

    fn is_borne(&self, fleet: &FleetView, node: Option<NodeId>) -> bool {
        if self.labels.is_empty() {
            return true;
        }
        let Some(node) = node.and_then(|id| fleet.node(id)) else { return false };
        self.labels.iter().all(|(key, value)| node.about.labels.get(key) == Some(value))
    }
}

fn wanted(words: &[String]) -> Result<Wanted, Problem> {
    let mut states = Vec::new();
    for text in words {
        let wrong = || Problem::bad_request(format!("state is {:?}; it is pending, firing or resolved", short(text)));
        states.push(AlertState::parse(text).ok_or_else(wrong)?);
    }
    let is_over = |state: &AlertState| *state == AlertState::Resolved;
    match states.iter().filter(|state| is_over(state)).count() {
        0 if states.is_empty() => Ok(Wanted::Open(vec![AlertState::Firing])),
        0 => Ok(Wanted::Open(states)),
        over if over == states.len() => Ok(Wanted::Over),
        _ => Err(Problem::bad_request(
            "state=resolved stands alone: what is over is listed by when it ended, and what is open by id",
        )),
    }
}
