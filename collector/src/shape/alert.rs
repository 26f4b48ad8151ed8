//! An alert as the API shows it, and what explains one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::feed::Event;
use super::silence::Acknowledgement;
use super::{Moment, Series};

/// One rule on one subject, from the moment at which it holds until it does not any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Alert {
    /// Twenty hexadecimal digits, which follow from what began it.
    pub id: String,
    pub rule: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// `pending`, `firing` or `resolved`.
    pub state: String,
    /// The id; null when it is about the fleet or the collector.
    pub node: Option<String>,
    /// The node's name.
    pub name: Option<String>,
    pub subject: String,
    /// Both sides of the rule's first comparison: as they are now, or were at the end.
    pub value: Option<f64>,
    pub threshold: Option<f64>,
    /// Since when it is pending; once it fired, since when it fires.
    pub since: Moment,
    /// Since when the rule holds.
    pub began: Moment,
    pub summary: String,
    /// In Chinese, where the rule has it.
    pub summary_zh: Option<String>,
    pub runbook: Option<String>,
    /// The node's.
    pub labels: BTreeMap<String, String>,
    /// Who sees to it, or did.
    pub acknowledged: Option<Acknowledgement>,
    /// The id of the silence that it is under, or was last.
    pub silenced: Option<String>,
    /// It comes and goes, and stays open until it has been quiet for a quarter of an hour.
    pub flapping: bool,
    /// Why nothing is decided about it for now: the state of its node, such as `down` or `maintenance`.
    pub held: Option<String>,
    pub resolved: Option<Moment>,
    /// Why it is over: `recovered`, `gone`, `rule_removed`, `rule_changed` or `node_gone`.
    pub reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AlertPage {
    pub items: Vec<Alert>,
    /// What to give as `after` for the rest; null at the end.
    pub next: Option<String>,
}

/// An alert that explains itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AlertContext {
    pub alert: Alert,
    /// The rule that opened it, as it is in force; null when there is none of that name any more.
    pub rule: Option<RuleText>,
    /// What is compared now, or was at the end.
    pub now: Compared,
    /// What was compared when it fired; null before.
    pub fired: Option<Compared>,
    /// What the rule reads, over the last hour of the alert: a point a minute, counters as rates.
    pub series: Vec<Series>,
    /// What took most of the node when it fired; the resource in question first.
    pub top: Vec<Top>,
    /// What happened on the node from 10 minutes before it began until it fired, newest first.
    pub changes: Vec<Event>,
    /// Other alerts of the node that were open within the last hour of this one.
    pub others: Vec<Alert>,
}

/// A rule as a person wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleText {
    pub name: String,
    pub when: String,
    /// What ends an alert, where it is not only that `when` does not hold.
    pub clear: Option<String>,
    /// For how long it holds before it fires, such as `5m`.
    #[serde(rename = "for")]
    pub hold: String,
    /// For how long it goes on firing after the end.
    pub keep_firing_for: String,
    /// Where it is written, such as `/etc/dunlin/rules.d/disk.toml:12`.
    pub place: String,
}

/// Both sides of a rule's first comparison, and as a person reads them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Compared {
    pub at: Moment,
    pub value: Option<f64>,
    pub threshold: Option<f64>,
    pub value_text: String,
    pub threshold_text: String,
}

/// Processes and containers, the largest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Top {
    /// `cpu`, `memory` or `disk`.
    pub by: String,
    pub unit: String,
    /// True when the values are how much in a second.
    pub per_second: bool,
    pub items: Vec<Culprit>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Culprit {
    /// Such as `process:mysqld`.
    pub subject: String,
    pub value: f64,
}
