//! A node as the API shows it, and what may be asked of one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Moment;
use super::feed::Event;
use super::stock::Counts;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    pub id: String,
    pub name: String,
    #[schema(value_type = State)]
    pub state: String,
    /// Since when it is in this state.
    pub since: Moment,
    /// null for a node that enrolled and said nothing yet.
    pub last_seen: Option<Moment>,
    /// The operator's over the token's over the agent's.
    pub labels: BTreeMap<String, String>,
    /// null until the agent has sent them.
    pub facts: Option<Facts>,
    /// The agent's; empty until it said so.
    pub version: String,
    /// The agent's wall clock less the collector's.
    pub skew_ms: Option<i64>,
    pub enrolled: Moment,
    pub interval_ms: Option<u32>,
    /// It is forgotten soon after it is gone.
    pub ephemeral: bool,
    pub maintenance: Option<Maintenance>,
    /// How many alerts fire on it.
    #[serde(default)]
    pub alerts: usize,
    /// Other machines that said to be this node, and may not.
    pub quarantined: Vec<QuarantinedMachine>,
    /// The values asked for with `value=`; what a node does not have is left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, f64>,
    /// How much stands on it; only with one node, and once its agent told that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// The last events about it, newest first; only with one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<Event>>,
}

/// How a node is, as one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Up,
    Suspect,
    Down,
    Stopped,
    Unknown,
    Maintenance,
    Pending,
    Held,
    Quarantined,
    Revoked,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Facts {
    pub host_name: String,
    pub os: String,
    pub kernel: String,
    pub architecture: String,
    pub cpus: u16,
    pub memory_bytes: u64,
    pub boot_id: String,
}

/// Planned downtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Maintenance {
    /// null: until someone ends it.
    pub until: Option<Moment>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuarantinedMachine {
    pub boot_id: String,
    /// The name that it gave.
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodePage {
    pub items: Vec<Node>,
    /// What to give as `after` for the rest; null at the end.
    pub next: Option<String>,
}

/// One series that a node has now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Metric {
    pub subject: String,
    pub metric: String,
    pub unit: String,
    /// `gauge`, or `counter`: what grows until it begins anew.
    pub kind: String,
    pub value: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MetricPage {
    pub items: Vec<Metric>,
    pub next: Option<String>,
    /// When the node measured them, by its own clock.
    pub at: Option<Moment>,
}

/// An operator's labels; null takes one away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelChange {
    pub labels: BTreeMap<String, Option<String>>,
}

/// At most one of `until` and `duration`; neither means until someone ends it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MaintenanceRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Moment>,
    /// Such as `2h` or `90s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// For the feed and the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Which nodes that wait are let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalRequest {
    pub state: Waiting,
    /// Only those that bear all of these, as `GET /api/v1/nodes` shows them: also what the agent says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How many at most: 1 to 1000, 1000 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// What a node waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Waiting {
    /// It has a certificate of ours, and the collector does not know it any more.
    Held,
    /// Its token asks for a person.
    Pending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Approved {
    pub approved: usize,
    /// Others like these wait still: ask again.
    pub more: bool,
}

impl State {
    pub const ALL: [Self; 10] = [
        Self::Up,
        Self::Suspect,
        Self::Down,
        Self::Stopped,
        Self::Unknown,
        Self::Maintenance,
        Self::Pending,
        Self::Held,
        Self::Quarantined,
        Self::Revoked,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Stopped => "stopped",
            Self::Unknown => "unknown",
            Self::Maintenance => "maintenance",
            Self::Pending => "pending",
            Self::Held => "held",
            Self::Quarantined => "quarantined",
            Self::Revoked => "revoked",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}
