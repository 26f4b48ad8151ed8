//! What the API shows of alerts and of silences: everything that is open or kept, made anew by the pipeline and never
//! changed.

use std::sync::Arc;

use dunlin_shared::id::NodeId;
use dunlin_shared::rule::Rule;
use dunlin_shared::time::WallMs;
use serde::{Deserialize, Serialize};

use crate::engine::alert::{AlertId, AlertState};
use crate::policy::{Acknowledgement, Silence, SilenceId};

#[derive(Clone, Debug, Default)]
pub struct AlertBoard {
    /// By id.
    pub alerts: Vec<Arc<AlertView>>,
}

#[derive(Clone, Debug)]
pub struct AlertView {
    pub id: AlertId,
    pub rule: Arc<Rule>,
    /// `None` when it is about the fleet or the collector.
    pub node: Option<NodeId>,
    pub subject: Arc<str>,
    pub state: AlertState,
    /// As they are now.
    pub value: Option<f64>,
    pub threshold: Option<f64>,
    /// Since when it is in this state.
    pub since: WallMs,
    /// Since when the rule holds.
    pub began: WallMs,
    pub is_flapping: bool,
    pub words: Arc<Words>,
    /// Who sees to it.
    pub acknowledged: Option<Arc<Acknowledgement>>,
    /// The silence that it is under.
    pub silenced: Option<SilenceId>,
}

/// Every silence that is kept, over or not.
#[derive(Clone, Debug, Default)]
pub struct SilenceBoard {
    /// By id, and so by age.
    pub silences: Vec<(SilenceId, Arc<Silence>)>,
}

/// What is said of an alert.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Words {
    pub summary: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary_zh: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runbook: Option<String>,
}

impl AlertBoard {
    #[must_use]
    pub fn alert(&self, id: AlertId) -> Option<&Arc<AlertView>> {
        self.alerts.binary_search_by_key(&id, |alert| alert.id).ok().map(|at| &self.alerts[at])
    }
}

impl SilenceBoard {
    #[must_use]
    pub fn silence(&self, id: SilenceId) -> Option<&Arc<Silence>> {
        self.silences.binary_search_by_key(&id, |(id, _)| *id).ok().map(|at| &self.silences[at].1)
    }
}

impl Words {
    /// What cannot be read says nothing.
    #[must_use]
    pub fn read(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    #[must_use]
    pub fn write(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
