//! What rules need beside the log: the rules themselves, who nodes are, and what stands on them.
//!
//! All of it comes from `control.db` and files, so that a restart tells the engine the same again.

use std::collections::HashMap;
use std::sync::Arc;

use dunlin_shared::id::NodeId;
use dunlin_shared::rule::{Known, Rule};
use dunlin_shared::time::WallMs;
use tracing::{info, warn};

use super::Pipeline;
use super::alerts::{AboutNode, about, restored};
use super::standing::{OF_INVENTORY, rows};
use crate::engine::alert::{AlertChange, Past};
use crate::engine::{Effect, Engine};
use crate::record::NodeKey;
use crate::registry::Labels;
use crate::stock::KeptStock;
use crate::store::{AlertRow, NodeRow, StoreError};
use crate::window::PastAsked;

/// What fired so long ago is no flapping.
const FIRES_KEPT_MS: i64 = 3_600_000;

impl Pipeline {
    /// The rules from the start on, and what stood open before it. Before anything is replayed.
    pub fn watching(
        mut self,
        rules: impl IntoIterator<Item = Arc<Rule>>,
        rows: &[NodeRow],
    ) -> Result<Self, StoreError> {
        let now = self.clock.wall();
        self.ran_at = self.control.ran()?.1;
        // What is put back is as it was then, and follows from the log up to there.
        let at = if self.ran_at.0 == 0 { now } else { self.ran_at };
        let rules: Vec<_> = rules.into_iter().collect();
        drop(self.engine.set_rules(at, rules.iter().cloned()));
        self.alerts.ruled_by(self.engine.alerts().rules());
        for row in rows {
            let labels = Arc::new(self.labels(row.key, row.id));
            self.engine.restore_watch(row.key, row.id, labels, row.skew_ms);
        }
        let open = self.control.open_alerts()?;
        let by_name: HashMap<&str, &Arc<Rule>> =
            rules.iter().filter(|rule| rule.is_enabled).map(|rule| (&*rule.name, rule)).collect();
        self.alerts.restore(&open);
        for row in &open {
            match by_name.get(row.rule.as_str()) {
                Some(rule) => self.engine.restore_alert(restored(row, rule)),
                None => self.close_orphan(now, row),
            }
        }
        for row in self.control.alerts_resolved_since(at.plus(-FIRES_KEPT_MS))? {
            self.engine.restore_fires(&row.rule, row.node, &row.subject, row.fires);
        }
        self.tell_inventories(at);
        self.follow_all(at, |engine| engine.resume_watch(at));
        Ok(self)
    }

    /// How far back any rule looks.
    #[must_use]
    pub fn longest_window_ms(&self) -> u64 {
        let rules = self.engine.alerts().rules();
        let overs = rules.flat_map(|rule| rule.terms.iter().filter_map(|term| term.over));
        overs.map(|over| over.window_ms).max().unwrap_or(0)
    }

    /// What is to be read of the window for rules that look further back than the frames that are still there.
    #[must_use]
    pub fn past_asked(&self) -> Option<PastAsked> {
        let highest = self.engine.nodes().map(|view| view.node).max();
        PastAsked::new(self.engine.alerts().reaches(), (self.ran_at, self.engine.ran()), highest)
    }

    /// Somebody reads it, and tells all of it.
    #[must_use]
    pub fn awaiting(mut self, past: Option<&PastAsked>) -> Self {
        if past.is_some() {
            self.engine.await_past();
        }
        self
    }

    pub(super) fn take_past(&mut self, past: &[Past]) {
        for past in past {
            self.engine.past(self.known.tick_ms(past.node), past);
        }
    }

    /// Another set of rules, from now on.
    pub(super) fn take_rules(&mut self, rules: Vec<Arc<Rule>>) {
        let at = self.clock.wall();
        let count = rules.iter().filter(|rule| rule.is_enabled).count();
        let read_before = OF_INVENTORY.map(|known| self.engine.alerts().reads(known));
        self.follow_all(at, |engine| engine.set_rules(at, rules));
        self.alerts.ruled_by(self.engine.alerts().rules());
        if read_before != OF_INVENTORY.map(|known| self.engine.alerts().reads(known)) {
            self.tell_inventories(at);
        }
        self.review_all();
        info!(rules = count, "rules are in force");
    }

    /// What follows from words beside the log.
    pub(super) fn follow_all(&mut self, at: WallMs, work: impl FnOnce(&mut Engine) -> Vec<Effect>) {
        self.is_beside = true;
        for effect in work(&mut self.engine) {
            self.follow(at, effect);
        }
    }

    pub(super) fn introduce_key(&mut self, at: WallMs, node: NodeKey) {
        if let Some(id) = self.known.id(node) {
            self.introduce(at, node, id);
        }
    }

    pub(super) fn introduce(&mut self, at: WallMs, node: NodeKey, id: NodeId) {
        let labels = Arc::new(self.labels(node, id));
        self.follow_all(at, |engine| engine.introduce(at, node, id, &labels));
    }

    /// What stands on a node is another.
    pub(super) fn stands(&mut self, at: WallMs, node: NodeKey, kept: &KeptStock) {
        let alerts = self.engine.alerts();
        if OF_INVENTORY.into_iter().any(|known| alerts.reads(known)) {
            let rows = rows(kept.stock(), |known: Known| alerts.reads(known));
            self.follow_all(at, |engine| engine.stands(at, node, rows));
        }
    }

    pub(super) fn alert(&mut self, at: WallMs, change: &AlertChange) {
        let node = match change {
            AlertChange::Dropped(_) => None,
            AlertChange::Pending(alert)
            | AlertChange::Fired(alert, _)
            | AlertChange::Flaps(alert)
            | AlertChange::Turned(alert)
            | AlertChange::Resolved(alert)
            | AlertChange::Reworded(alert) => alert.node,
        };
        let about = self.about(node);
        let said = self.said_of(at, change);
        let event = self.alerts.follow(at, &about, change, &said);
        match change {
            AlertChange::Fired(alert, _) => {
                let (rule, subject) = (&alert.rule.name, &alert.subject);
                warn!(node = about.name, rule = %rule, subject = %subject, "{} fires", alert.id);
            }
            AlertChange::Resolved(alert) => {
                let (rule, subject) = (&alert.rule.name, &alert.subject);
                info!(node = about.name, rule = %rule, subject = %subject, "{} is resolved", alert.id);
                self.policy.resolved(alert.id);
            }
            _ => {}
        }
        self.events.extend(event);
    }

    /// What a node is labelled with, by whoever said so.
    fn labels(&self, node: NodeKey, id: NodeId) -> Labels {
        let said = self.known.facts(node).map(|facts| facts.labels.clone()).unwrap_or_default();
        self.registry.member(id).map(|member| member.labels(&said)).unwrap_or(said)
    }

    /// What stands on all nodes, when rules begin to read it.
    fn tell_inventories(&mut self, at: WallMs) {
        if !OF_INVENTORY.into_iter().any(|known| self.engine.alerts().reads(known)) {
            return;
        }
        let nodes: Vec<NodeKey> = self.engine.nodes().map(|view| view.node).collect();
        for node in nodes {
            if let Some(kept) = self.kept_stock(node) {
                self.stands(at, node, &kept);
            }
        }
    }

    /// An alert of a rule that is not there any more.
    fn close_orphan(&mut self, at: WallMs, row: &AlertRow) {
        let about = self.about(row.node);
        let said = self.said(row.id);
        let event = self.alerts.orphan(at, &about, row, &said);
        self.policy.resolved(row.id);
        self.events.extend(event);
    }

    fn about(&self, node: Option<NodeKey>) -> AboutNode {
        about(&self.known, node, |id| node.map(|node| self.labels(node, id)).unwrap_or_default())
    }
}
