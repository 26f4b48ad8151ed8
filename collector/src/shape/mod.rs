//! What the HTTP API says and takes, as JSON: a contract that grows and never breaks.
//!
//! Used by the API and by those who ask it. Times are RFC 3339 in UTC with milliseconds. Plain data; nothing
//! here reads a clock or knows who asks.

mod alert;
mod authority;
mod feed;
mod moment;
mod node;
mod rule;
mod series;
mod silence;
mod stock;
mod token;

pub use alert::{Alert, AlertContext, AlertPage, Compared, Culprit, RuleText, Top};
pub use authority::{Authority, AuthorityTurn};
pub use feed::{Event, Feed, LogEntry, LogPage, Outcome};
pub use moment::Moment;
pub use node::{
    ApprovalRequest, Approved, Facts, LabelChange, Maintenance, MaintenanceRequest, Metric, MetricPage, Node, NodePage,
    QuarantinedMachine, State, Waiting,
};
pub use rule::{
    Rule, RuleChange, RuleDifference, RuleField, RuleFiring, RuleOrigin, RulePage, RulePreview, RulePreviewed, RuleSet,
    RuleSetPage,
};
use serde::{Deserialize, Serialize};
pub use series::{Series, SeriesPage};
pub use silence::{
    AcknowledgeAllRequest, AcknowledgeRequest, Acknowledged, Acknowledgement, Matchers, Silence, SilenceChange,
    SilencePage, SilenceRequest, SilenceState, Weekly, WeeklyWindow,
};
pub use stock::{
    Container, ContainerHealth, ContainerPage, ContainerState, Counts, Port, PortPage, Process, ProcessPage, Protocol,
    PublishedPort, Scope,
};
pub use token::{Role, Token, TokenCreated, TokenPage, TokenRequest};
use utoipa::ToSchema;

/// Why something was not done (RFC 9457, `application/problem+json`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:dunlin:problem:` and a word that stays the same.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// What was wrong with this request, and what would be right.
    pub detail: String,
    /// The ids that an ambiguous name stands for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<String>,
    /// The earliest cursor of the feed, when the one given is no longer good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earliest: Option<String>,
    /// Every mistake in a text that was sent, with its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
}
