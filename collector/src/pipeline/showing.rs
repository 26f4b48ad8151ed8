//! Makes the board of alerts that people read: of the one before, with what is another since then.
//!
//! Ten thousand open alerts are looked at when the clock ticks, for their values move. In between only those that
//! something became of are looked at, and what was made of an alert before serves again for as long as it is true.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use dunlin_shared::rule::Rule;

use super::known::KnownNodes;
use crate::board::{AlertBoard, AlertView, Words};
use crate::engine::Engine;
use crate::engine::alert::{Alert, AlertId};
use crate::policy::Policy;
use crate::record::NodeKey;

/// What of the board is not as things are.
#[derive(Debug, Default)]
pub(super) enum Stale {
    #[default]
    Nothing,
    /// These alerts, each with its node.
    Some(HashMap<AlertId, Option<NodeKey>>),
    All,
}

/// What a view is made of beside the alert itself.
pub(super) struct Sources<'a> {
    pub(super) engine: &'a Engine,
    pub(super) known: &'a KnownNodes,
    pub(super) policy: &'a Policy,
    pub(super) words: &'a HashMap<AlertId, Arc<Words>>,
    /// By name.
    pub(super) rules: &'a Arc<[Arc<Rule>]>,
}

impl Stale {
    pub(super) const fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    pub(super) fn note(&mut self, alert: AlertId, node: Option<NodeKey>) {
        match self {
            Self::All => {}
            Self::Some(alerts) => drop(alerts.insert(alert, node)),
            Self::Nothing => *self = Self::Some(HashMap::from([(alert, node)])),
        }
    }
}

impl Sources<'_> {
    /// The board as it is to be; `None` when the one before is right.
    pub(super) fn board(&self, before: &AlertBoard, stale: Stale) -> Option<AlertBoard> {
        match stale {
            Stale::Nothing => None,
            Stale::Some(alerts) => {
                let alerts = alerts.into_iter().map(|(id, node)| {
                    let alert = self.engine.alerts().one(node, id);
                    (id, alert.map(|alert| self.view(before, alert)))
                });
                Some(before.with(&alerts.collect::<BTreeMap<_, _>>()))
            }
            Stale::All => {
                let alerts = self.engine.alerts().open().map(|alert| self.view(before, alert));
                Some(AlertBoard::new(alerts.collect(), Arc::clone(self.rules)))
            }
        }
    }

    fn view(&self, before: &AlertBoard, alert: &Alert) -> Arc<AlertView> {
        let made = AlertView {
            id: alert.id,
            rule: Arc::clone(&alert.rule),
            node: alert.node.and_then(|node| self.known.id(node)),
            subject: Arc::clone(&alert.subject),
            state: alert.state,
            value: alert.value,
            threshold: alert.threshold,
            since: alert.fired.unwrap_or(alert.began).wall,
            began: alert.began.wall,
            is_flapping: alert.is_flapping,
            words: self.words.get(&alert.id).cloned().unwrap_or_default(),
            acknowledged: self.policy.acknowledgement(alert.id).cloned(),
            silenced: self.policy.silenced(alert.id),
        };
        match before.alert(alert.id) {
            Some(known) if **known == made => Arc::clone(known),
            _ => Arc::new(made),
        }
    }
}
