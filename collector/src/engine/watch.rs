//! What rules are told of what the engine knows: how nodes are, how many are missing, what stands on them.
//!
//! What is the registry's or lies in `control.db` comes beside the log, like its other words, and is told again after a
//! restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_shared::id::{FrameId, NodeId};
use dunlin_shared::rule::{Known, Rule};
use dunlin_shared::sample::Reading;
use dunlin_shared::time::{MonoMs, WallMs};

use super::alert::{Alert, AlertChange, Alerts, Now, Past, RestoredNode};
use super::{Effect, Engine, Liveness};
use crate::record::{Load, NodeKey};

/// What stands on a node, as far as rules read it: written subjects.
pub type InventoryRows = Vec<(Arc<str>, Known, f64)>;

impl Engine {
    #[must_use]
    pub const fn alerts(&self) -> &Alerts {
        &self.alerts
    }

    /// For how long it has listened: for `control.db`, with each position.
    #[must_use]
    pub const fn ran(&self) -> MonoMs {
        self.listening.now()
    }

    /// Another set of rules.
    pub fn set_rules(&mut self, at: WallMs, rules: impl IntoIterator<Item = Arc<Rule>>) -> Vec<Effect> {
        effects_of(self.alerts.set_rules(self.now(at), rules))
    }

    /// Who a node is and what it is labelled with; said again it changes nothing.
    pub fn introduce(
        &mut self,
        at: WallMs,
        node: NodeKey,
        id: NodeId,
        labels: &Arc<BTreeMap<String, String>>,
    ) -> Vec<Effect> {
        effects_of(self.alerts.introduce(self.now(at), node, id, labels))
    }

    /// What stands on a node.
    pub fn stands(&mut self, at: WallMs, node: NodeKey, rows: InventoryRows) -> Vec<Effect> {
        effects_of(self.alerts.inventory(self.now(at), node, rows))
    }

    /// An alert that `control.db` has.
    pub fn restore_alert(&mut self, alert: Alert) {
        self.alerts.restore(self.listening.now(), alert);
    }

    /// One that was resolved, and may fire again.
    pub fn restore_fires(&mut self, rule: &str, node: Option<NodeKey>, subject: &str, fires: Vec<MonoMs>) {
        self.alerts.restore_fires(rule, node, subject, fires);
    }

    /// How a node was when the collector stopped, who it is, and by how much its clock was off. Nothing is judged yet.
    pub fn restore_watch(
        &mut self,
        node: NodeKey,
        id: NodeId,
        labels: Arc<BTreeMap<String, String>>,
        skew_ms: Option<i64>,
    ) {
        let life = self.roster.get(node);
        self.missing += usize::from(life.is_some_and(|life| life.life == Liveness::Missing));
        let restored = RestoredNode {
            id,
            labels,
            state: life.map(|life| life.shown),
            is_retired: life.is_some_and(|life| life.is_retired),
            newest: self.newest(node),
            skew_seconds: skew_ms.map(seconds),
        };
        self.alerts.restore_node(node, restored);
    }

    /// All nodes, alerts and stocks are there as they were at that time.
    pub fn resume_watch(&mut self, at: WallMs) -> Vec<Effect> {
        let mut changes = Vec::new();
        // Of one whose nodes are all back its end tells.
        if self.missing > 0 {
            changes.extend(self.tell_missing(at));
        }
        changes.extend(self.alerts.resume(self.now(at)));
        effects_of(changes)
    }

    /// A frame that is applied already: functions over time remember it. It is the latest as well: an agent whose newest
    /// frames are all acknowledged sends an older one first when it is back, and that says nothing of now.
    pub fn remember(
        &mut self,
        ran: MonoMs,
        node: NodeKey,
        (id, is_rolled_up): (FrameId, bool),
        reading: &Arc<Reading>,
    ) {
        if self.roster.get(node).is_none() {
            return;
        }
        let known = self.known(node);
        if known.latest.as_ref().is_none_or(|(before, _)| *before < id) {
            known.newest = known.newest.max(Some(id));
            known.latest = Some((id, Arc::clone(reading)));
            self.alerts.remember(ran, node, (id, is_rolled_up), reading);
        }
    }

    /// From now on long windows say nothing, until `end_past`.
    pub fn await_past(&mut self) {
        self.alerts.await_past();
    }

    /// What was rolled up of a series that long windows are of.
    pub fn past(&mut self, tick_ms: u64, past: &Past) {
        self.alerts.past(self.listening.now(), tick_ms, past);
    }

    /// All of it was told.
    pub fn end_past(&mut self) {
        self.alerts.end_past();
    }

    pub(super) fn now(&self, at: WallMs) -> Now {
        Now { wall: at, ran: self.listening.at(at) }
    }

    /// Whatever changed how nodes are.
    pub(super) fn watch_states(&mut self, at: WallMs, effects: &mut Vec<Effect>) {
        let now = self.now(at);
        let mut changes = Vec::new();
        let mut missing = self.missing;
        let mut is_over = false;
        for effect in effects.iter() {
            match effect {
                Effect::NodeState { node, from, to, .. } if from != to => {
                    changes.extend(self.alerts.state(now, *node, *to));
                }
                Effect::Retired { node, .. } => changes.extend(self.alerts.retire(now, *node)),
                Effect::MassLoss { nodes, .. } => missing = nodes.len(),
                Effect::MassGrew { nodes } => missing += nodes.len(),
                Effect::MassOver { .. } => (missing, is_over) = (0, true),
                _ => {}
            }
        }
        // After a restart those that were back before it are not counted, and the end is told all the same.
        if missing != self.missing || is_over {
            self.missing = missing;
            changes.extend(self.tell_missing(at));
        }
        effects.extend(effects_of(changes));
    }

    fn tell_missing(&mut self, at: WallMs) -> Vec<AlertChange> {
        #[expect(clippy::cast_precision_loss, reason = "a number of nodes")]
        let value = self.missing as f64;
        self.alerts.whole(self.now(at), &[("fleet", Known::FleetNodesMissing, value)])
    }

    pub(super) fn watch_tick(&mut self, at: WallMs, effects: &mut Vec<Effect>) {
        let now = self.now(at);
        effects.extend(effects_of(self.alerts.tick(now)));
    }

    /// How the collector bears up.
    pub(super) fn watch_load(&mut self, at: WallMs, load: Load, effects: &mut Vec<Effect>) {
        let number = |ms: u64| seconds(i64::try_from(ms).unwrap_or(i64::MAX));
        #[expect(clippy::cast_precision_loss, reason = "a count that only its growth is asked of")]
        let refused = load.refused as f64;
        let mut rows = vec![
            ("collector", Known::CollectorCommitSeconds, number(load.commit_ms.into())),
            ("collector", Known::CollectorFramesRefused, refused),
            ("collector", Known::CollectorPausedSeconds, number(self.paused_ms)),
        ];
        let free = load.free_permille.map(|free| f64::from(free) / 1_000.0);
        rows.extend(free.map(|free| ("collector", Known::CollectorDiskFreeRatio, free)));
        effects.extend(effects_of(self.alerts.whole(self.now(at), &rows)));
    }

    pub(super) fn watch_busy(&mut self, at: WallMs, permille: u16, effects: &mut Vec<Effect>) {
        let rows = [("collector", Known::CollectorBusyRatio, f64::from(permille) / 1_000.0)];
        effects.extend(effects_of(self.alerts.whole(self.now(at), &rows)));
    }

    pub(super) fn watch_skew(&mut self, node: NodeKey, at: WallMs, skew_ms: i64, effects: &mut Vec<Effect>) {
        let now = self.now(at);
        effects.extend(effects_of(self.alerts.skew(now, node, seconds(skew_ms))));
    }
}

pub(super) fn effects_of(changes: Vec<AlertChange>) -> Vec<Effect> {
    changes.into_iter().map(|change| Effect::Alert(Box::new(change))).collect()
}

fn seconds(ms: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a clock that is off by more than 2^53 ms is off")]
    let ms = ms as f64;
    ms / 1_000.0
}
