//! Rules, sets of them, what another set would change, and what rules would have said of the past.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Moment;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rule {
    pub name: String,
    pub enabled: bool,
    /// `info`, `warning` or `critical`
    pub severity: String,
    pub when: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clear: Option<String>,
    /// Such as `5m`
    #[serde(rename = "for")]
    pub for_: String,
    pub keep_firing_for: String,
    /// Labels that a node must bear; `*` stands for anything.
    #[serde(rename = "where")]
    pub where_: BTreeMap<String, String>,
    /// Of which one must fit; none means all.
    pub subjects: Vec<String>,
    pub summary: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary_zh: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runbook: Option<String>,
    pub origin: RuleOrigin,
    /// Alerts that it has open, of those that the caller sees.
    pub open: usize,
}

/// Where a rule comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleOrigin {
    /// `shipped`, `file` or `set`
    pub kind: String,
    /// The file's path or the set's name, and the line; absent for what ships.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RulePage {
    pub items: Vec<Rule>,
    pub next: Option<String>,
}

/// A set of rules that came by the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleSet {
    pub name: String,
    /// Who put it there.
    pub by: String,
    pub at: Moment,
    pub bytes: usize,
    /// Those of it that are in force.
    pub rules: usize,
    /// Why it is left out, a line each; none when it counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// As it was sent; only where one set is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleSetPage {
    pub items: Vec<RuleSet>,
    pub next: Option<String>,
}

/// What another set changes, or would.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleDifference {
    pub set: String,
    /// True when nothing was done.
    pub dry_run: bool,
    pub added: Vec<RuleChange>,
    pub changed: Vec<RuleChange>,
    pub removed: Vec<RuleChange>,
    pub unchanged: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleChange {
    pub name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<RuleField>,
    /// Alerts that the rule had open.
    pub open: usize,
    /// Those of them that it closes at once: it is gone, switched off, or not on their node or subject any more. Where
    /// its condition is another, the rest is judged anew, and ends when that does not hold.
    pub closes: usize,
}

/// A key of a rule, as a person would write it; empty where it is not given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleField {
    pub field: String,
    pub before: String,
    pub after: String,
}

/// What rules would have said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RulePreview {
    pub from: Moment,
    pub to: Moment,
    /// Nodes that were looked at.
    pub nodes: usize,
    pub rules: Vec<RulePreviewed>,
    /// In the order in which they would have fired.
    pub items: Vec<RuleFiring>,
    /// There were more than are listed; the counts beside the rules are whole.
    pub more: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RulePreviewed {
    pub rule: String,
    /// Alerts that there would have been.
    pub alerts: usize,
    /// Nodes that they would have been on.
    pub nodes: usize,
    /// For how long they would have fired together, in seconds.
    pub seconds: f64,
    /// Why the past says nothing of this rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_previewed: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RuleFiring {
    pub rule: String,
    pub severity: String,
    /// The id.
    pub node: String,
    /// The node's name.
    pub name: String,
    pub subject: String,
    /// When the rule began to hold.
    pub began: Moment,
    pub fired: Moment,
    /// null: it would still fire at the end.
    pub resolved: Option<Moment>,
    /// Both sides of its first comparison when it fired.
    pub value: Option<f64>,
    pub threshold: Option<f64>,
    pub summary: String,
}
