//! What people say of alerts: silences and acknowledgements.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::Moment;

/// A mute with an author and a reason. It changes no alert: an alert that fires under it says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Silence {
    /// Such as `s12`.
    pub id: String,
    #[schema(value_type = SilenceState)]
    pub state: String,
    /// A moment before which the state does not become another; null: it stays as it is.
    pub until: Option<Moment>,
    pub matchers: Matchers,
    pub author: String,
    pub reason: String,
    pub created: Moment,
    pub start: Moment,
    /// null: until somebody ends it.
    pub end: Option<Moment>,
    /// Between start and end it is active in these windows alone; null: all the time.
    pub weekly: Option<Weekly>,
    /// Who ended it before its time.
    pub ended_by: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SilenceState {
    /// It is not active yet, or between two of its windows.
    Pending,
    Active,
    /// It is over.
    Expired,
}

/// What it is about: each of them has to fit, and 1 to 16 are there. In patterns `*` stands for anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Matchers {
    /// Patterns of what the node bears by its token or by an operator. What an agent says of itself does not count.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// A pattern of the rule's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// An id; in a request also a name that one node alone has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// A pattern of the subject, such as `fs:/var*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// `info`, `warning` or `critical`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
}

/// Windows that come again every week, by the clock of a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Weekly {
    /// A name of the IANA database, such as `Europe/Berlin`, or `UTC`.
    pub zone: String,
    /// 1 to 16.
    pub windows: Vec<WeeklyWindow>,
}

/// It begins at the first moment at which the clock shows that day and time, or anything later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WeeklyWindow {
    /// `mon` to `sun`.
    pub days: Vec<String>,
    /// Such as `02:30`.
    pub start: String,
    /// Such as `4h`: whole minutes, at most `7d`.
    pub duration: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SilencePage {
    pub items: Vec<Silence>,
    pub next: Option<String>,
}

/// At most one of `end` and `duration`; only a weekly one may go without.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SilenceRequest {
    pub matchers: Matchers,
    /// For whoever wonders.
    pub reason: String,
    /// Now when absent or past.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Moment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Moment>,
    /// From its start on, such as `2h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weekly: Option<Weekly>,
}

/// What is to be another. At most one of `end` and `duration`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SilenceChange {
    /// null: until somebody ends it, for a weekly one.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Moment>)]
    pub end: Option<Option<Moment>>,
    /// From now on, such as `2h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Who sees to an alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Acknowledgement {
    pub who: String,
    pub when: Moment,
    pub why: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcknowledgeRequest {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// Which alerts are acknowledged: those that fire and that all of it fits. At least one of them is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcknowledgeAllRequest {
    /// Of nodes that bear all of these, as `GET /api/v1/nodes` shows them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// A pattern of the rule's name; `*` is every rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// An id, or a name that one node alone has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// A pattern of the subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Acknowledged {
    pub acknowledged: usize,
    /// Others like these fire still: ask again.
    pub more: bool,
}

/// null is said, and is something else than nothing.
fn said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Moment>>, D::Error> {
    Option::<Moment>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_is_null_is_told_from_one_that_is_not_there() {
        let change = |text: &str| serde_json::from_str::<SilenceChange>(text).map_err(|error| error.to_string());
        assert_eq!(change("{}"), Ok(SilenceChange::default()));
        assert_eq!(change(r#"{"end":null}"#).map(|change| change.end), Ok(Some(None)));
        let open = SilenceChange { end: Some(None), ..SilenceChange::default() };
        assert_eq!(serde_json::to_string(&open).map_err(|error| error.to_string()), Ok(r#"{"end":null}"#.into()));
        assert!(change(r#"{"ends":null}"#).is_err());
    }
}
