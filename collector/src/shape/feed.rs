//! The feed of events, and the log of who did what.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Moment;

/// One transition. What else it holds depends on its kind, see `docs/events.md`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// What to give as `after` for what follows.
    pub cursor: String,
    pub at: Moment,
    /// Such as `node.down`.
    pub kind: String,
    /// Whom it is about; absent when it is the collector or the whole fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    #[serde(flatten)]
    #[schema(additional_properties)]
    pub more: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Feed {
    pub items: Vec<Event>,
    /// Never null: give it as `after` the next time.
    pub next: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogEntry {
    pub id: u64,
    pub at: Moment,
    /// A token's name, `root` on the collector's own host, `collector` for itself, or a node's name.
    pub actor: String,
    /// The token that was shown.
    pub token: Option<String>,
    pub from: Option<String>,
    /// Such as `token.create`.
    pub action: String,
    pub target: String,
    pub detail: String,
    pub outcome: Outcome,
    /// Why it was refused.
    pub reason: Option<String>,
    /// How often, with this entry: what is refused again and again is not told one by one.
    pub times: u64,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Done,
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogPage {
    /// The newest first.
    pub items: Vec<LogEntry>,
    /// What to give as `after` for older ones; null at the end.
    pub next: Option<String>,
}
