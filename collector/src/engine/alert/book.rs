//! What is known of one node, or of the fleet, and the alerts that are open on it.
//!
//! Of one rule and one subject at most one alert is open. An alert leaves the book only with a change that says what became
//! of it: resolved when it fired, dropped when it did not.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_shared::id::{FrameId, NodeId};
use dunlin_shared::rule::{Known, Rule};
use dunlin_shared::sample::Reading;

use super::AlertChange;
use super::bind::{Bound, KnownRow};
use super::life::{Alert, AlertState, Now, Resolution};
use super::rules::{RuleNo, Rules, is_of_state};
use super::window::Window;
use crate::engine::state::NodeState;

/// One node.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) id: Option<NodeId>,
    pub(super) labels: Arc<BTreeMap<String, String>>,
    pub(super) state: NodeState,
    /// It is taken for gone: nothing begins until it is heard again.
    pub(super) is_retired: bool,
    /// Names what no frame begins, also when what it held is long gone.
    pub(super) newest: Option<FrameId>,
    pub(super) latest: Option<(FrameId, Arc<Reading>)>,
    pub(super) known: Vec<KnownRow>,
    pub(super) bound: Option<Bound>,
    /// Windows that were told a past, of a node that had no frame since.
    pub(super) awaited: Vec<(u64, Window)>,
    /// What is bound is to be found anew.
    pub(super) is_stale: bool,
    pub(super) open: Vec<Alert>,
}

impl Book {
    pub(super) fn know_state(&mut self) {
        #[expect(clippy::cast_precision_loss, reason = "one of ten states")]
        let value = self.state as usize as f64;
        self.know("host", Known::NodeState, value);
    }

    pub(super) fn know(&mut self, subject: &str, known: Known, value: f64) {
        match self.known.iter_mut().find(|row| &*row.subject == subject && row.known == known) {
            Some(row) => row.value = value,
            None => {
                self.known.push(KnownRow { subject: subject.into(), known, value });
                self.is_stale = true;
            }
        }
    }

    /// What was on its way when a node fell silent begins anew when it is back.
    pub(super) fn drop_pending(&mut self, changes: &mut Vec<AlertChange>) {
        let is_dropped = |alert: &Alert| alert.state == AlertState::Pending && !is_of_state(&alert.rule);
        let dropped = self.open.iter().filter(|alert| is_dropped(alert)).map(|alert| AlertChange::Dropped(alert.id));
        changes.extend(dropped);
        self.open.retain(|alert| !is_dropped(alert));
    }

    pub(super) fn renumber(&mut self, before: &Rules, after: &Rules) {
        let Some(bound) = &mut self.bound else { return };
        bound.items.retain_mut(|item| {
            let number =
                |rule: &Arc<Rule>| Some(after.by_name(&rule.name).filter(|(_, after)| after.terms == rule.terms)?.0);
            before.get(item.rule).and_then(number).map(|no: RuleNo| item.rule = no).is_some()
        });
    }

    /// Alerts of rules that are not on this node any more, by its labels or theirs.
    pub(super) fn close_strays(&mut self, now: Now, changes: &mut Vec<AlertChange>) {
        let labels = Arc::clone(&self.labels);
        let is_stray = |alert: &Alert| {
            let is_on = alert.node.is_none() || alert.rule.is_on(|key| labels.get(key).map(String::as_str));
            !is_on || !alert.rule.is_about(&alert.subject)
        };
        let (strays, open): (Vec<_>, Vec<_>) = self.open.drain(..).partition(is_stray);
        self.open = open;
        strays.into_iter().for_each(|alert| end(alert, now, Resolution::RuleChanged, changes));
    }
}

pub(super) fn end(mut alert: Alert, now: Now, why: Resolution, changes: &mut Vec<AlertChange>) {
    if alert.state == AlertState::Firing {
        alert.resolve(now.wall, why);
        changes.push(AlertChange::Resolved(alert));
    } else {
        changes.push(AlertChange::Dropped(alert.id));
    }
}
