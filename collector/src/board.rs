//! What the API shows of alerts and of silences: everything that is open or kept, made anew by the pipeline and never
//! changed.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;

use dunlin_shared::id::NodeId;
use dunlin_shared::rule::{Known, Rule, Severity, Source};
use dunlin_shared::time::WallMs;
use serde::{Deserialize, Serialize};

use crate::engine::alert::{AlertId, AlertState};
use crate::policy::{Acknowledgement, Silence, SilenceId};

#[derive(Clone, Debug, Default)]
pub struct AlertBoard {
    /// By id.
    pub alerts: Vec<Arc<AlertView>>,
    /// Those that are in force, by name.
    pub rules: Arc<[Arc<Rule>]>,
    /// How many fire on each node on which any does.
    firing: HashMap<NodeId, usize>,
}

#[derive(Clone, Debug, PartialEq)]
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

/// What was so when an alert fired, and what took most of its node then: written subjects with cores, bytes, and bytes a
/// second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AtFiring {
    pub value: Option<f64>,
    pub threshold: Option<f64>,
    pub cpu: Vec<(String, f64)>,
    pub memory: Vec<(String, f64)>,
    pub disk: Vec<(String, f64)>,
}

impl AlertBoard {
    #[must_use]
    pub fn new(mut alerts: Vec<Arc<AlertView>>, rules: Arc<[Arc<Rule>]>) -> Self {
        alerts.sort_unstable_by_key(|alert| alert.id);
        let mut firing = HashMap::new();
        for node in alerts.iter().filter_map(|alert| alert.firing_on()) {
            *firing.entry(node).or_insert(0) += 1;
        }
        Self { alerts, rules, firing }
    }

    /// The same with these alerts as they are now; `None` for one that is not open any more.
    #[must_use]
    pub fn with(&self, changed: &BTreeMap<AlertId, Option<Arc<AlertView>>>) -> Self {
        let mut firing = self.firing.clone();
        let mut alerts = Vec::with_capacity(self.alerts.len() + changed.len());
        let mut from = 0;
        for (id, now) in changed {
            let at = from + self.alerts[from..].partition_point(|alert| alert.id < *id);
            alerts.extend_from_slice(&self.alerts[from..at]);
            let before = self.alerts.get(at).filter(|alert| alert.id == *id);
            from = at + usize::from(before.is_some());
            if let Some(node) = before.and_then(|alert| alert.firing_on())
                && let Entry::Occupied(mut count) = firing.entry(node)
            {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
            if let Some(node) = now.as_ref().and_then(|alert| alert.firing_on()) {
                *firing.entry(node).or_insert(0) += 1;
            }
            alerts.extend(now.clone());
        }
        alerts.extend_from_slice(&self.alerts[from..]);
        Self { alerts, rules: Arc::clone(&self.rules), firing }
    }

    #[must_use]
    pub fn alert(&self, id: AlertId) -> Option<&Arc<AlertView>> {
        self.alerts.binary_search_by_key(&id, |alert| alert.id).ok().map(|at| &self.alerts[at])
    }

    #[must_use]
    pub fn alerts_in(&self, range: &RangeInclusive<AlertId>) -> &[Arc<AlertView>] {
        let from = self.alerts.partition_point(|alert| alert.id < *range.start());
        let to = self.alerts.partition_point(|alert| alert.id <= *range.end());
        &self.alerts[from..to.max(from)]
    }

    #[must_use]
    pub fn rule(&self, name: &str) -> Option<&Arc<Rule>> {
        self.rules.binary_search_by(|rule| (*rule.name).cmp(name)).ok().map(|at| &self.rules[at])
    }

    #[must_use]
    pub fn firing_on(&self, node: NodeId) -> usize {
        self.firing.get(&node).copied().unwrap_or(0)
    }

    /// How many alerts there are of each kind, also of those of which there is none.
    #[must_use]
    pub fn counts(&self) -> Vec<(AlertState, Severity, usize)> {
        let mut counts = Vec::new();
        for state in [AlertState::Pending, AlertState::Firing] {
            for severity in Severity::ALL {
                let is_such = |alert: &&Arc<AlertView>| alert.state == state && alert.rule.severity == severity;
                counts.push((state, severity, self.alerts.iter().filter(is_such).count()));
            }
        }
        counts
    }
}

impl AlertView {
    /// The node on which it fires.
    fn firing_on(&self) -> Option<NodeId> {
        self.node.filter(|_| self.state == AlertState::Firing)
    }

    /// Whether it asks how its node is: such an alert goes on when nothing is heard of the node.
    #[must_use]
    pub fn asks_for_state(&self) -> bool {
        self.rule.terms.iter().any(|term| term.source == Source::Known(Known::NodeState))
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

impl AtFiring {
    /// `None` before it fired, and of what cannot be read.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    #[must_use]
    pub fn write(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use dunlin_shared::rule::file::parse;
    use proptest::prelude::*;

    use super::*;

    const NODES: u8 = 4;

    fn view(rule: &Arc<Rule>, id: u8, state: AlertState) -> Arc<AlertView> {
        Arc::new(AlertView {
            id: AlertId::from_bytes([id; 10]),
            rule: Arc::clone(rule),
            node: (id > 0).then(|| NodeId::from_bytes([id % NODES; 16])),
            subject: "host".into(),
            state,
            value: None,
            threshold: None,
            since: WallMs(0),
            began: WallMs(0),
            is_flapping: false,
            words: Arc::default(),
            acknowledged: None,
            silenced: None,
        })
    }

    proptest! {
        #[test]
        fn a_board_with_changes_is_the_board_made_of_what_there_is(
            rounds in prop::collection::vec(prop::collection::btree_map(0_u8..20, 0_u8..3, 0..8), 1..12)
        ) {
            let text = "[[rule]]\nname = \"a\"\nwhen = 'host_load1 > 1'\nsummary = \"s\"\n";
            let rule = Arc::new(parse("a.toml", text).expect("it is right").remove(0));
            let mut board = AlertBoard::default();
            let mut open = BTreeMap::new();
            for round in rounds {
                let changed: BTreeMap<_, _> = round.into_iter().map(|(id, what)| {
                    let state = [None, Some(AlertState::Pending), Some(AlertState::Firing)][usize::from(what)];
                    (AlertId::from_bytes([id; 10]), state.map(|state| view(&rule, id, state)))
                }).collect();
                board = board.with(&changed);
                for (id, now) in changed {
                    match now {
                        Some(now) => open.insert(id, now),
                        None => open.remove(&id),
                    };
                }
                let whole = AlertBoard::new(open.values().cloned().collect(), Arc::default());
                prop_assert_eq!(&board.alerts, &whole.alerts);
                prop_assert_eq!(&board.firing, &whole.firing);
            }
        }
    }
}
