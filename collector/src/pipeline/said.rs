//! What people say of alerts, on its way: their orders, and what follows from those and from the clock for what fires.
//!
//! A silence counts once it is on disk. What it does to alerts is found then, and is written with the next position: a
//! crash in between is made good at the start, when every alert is compared with what it was told.

use std::borrow::Cow;
use std::cell::LazyCell;
use std::collections::HashMap;
use std::sync::Arc;

use dunlin_shared::id::NodeId;
use dunlin_shared::time::WallMs;

use super::Pipeline;
use super::alerts::{AboutNode, about};
use super::known::KnownNodes;
use crate::board::SilenceBoard;
use crate::engine::Engine;
use crate::engine::alert::{Alert, AlertChange, AlertId, AlertState};
use crate::orders::Ticket;
use crate::policy::{Answer, Facts, Reviewed, Turned, What};
use crate::record::NodeKey;
use crate::registry::{Actor, Labels, Registry};
use crate::store::{Said, StoreError};

/// An alert that fires, and what of its node silences rest on.
struct Firing<'a> {
    alert: &'a Alert,
    node: Option<NodeId>,
    labels: Cow<'a, Labels>,
}

impl<'a> Firing<'a> {
    fn new(alert: &'a Alert, known: &'a KnownNodes, registry: &Registry) -> Self {
        let node = alert.node.and_then(|node| known.id(node));
        let labels = node.map_or_else(Cow::default, |node| known.trusted(node, registry));
        Self { alert, node, labels }
    }

    fn facts(&self) -> (AlertId, Facts<'_>) {
        let Alert { rule, subject, .. } = self.alert;
        let facts = Facts { rule: &rule.name, node: self.node, labels: &self.labels, subject, severity: rule.severity };
        (self.alert.id, facts)
    }
}

impl Pipeline {
    /// Decides one order; what is refused is answered at once.
    pub(super) fn say(&mut self, actor: &Actor, what: What, ticket: Ticket<Answer>) {
        let now = self.clock.wall();
        let open = LazyCell::new(|| firing(&self.engine).map(|alert| (alert.id, alert)).collect::<HashMap<_, _>>());
        let decision = self.policy.decide(now, actor, what, |alert| open.contains_key(&alert));
        let answer = match decision.answer {
            Ok(answer) => answer,
            Err(refused) => return ticket.answer(Err(refused)),
        };
        let mut events = Vec::with_capacity(decision.events.len());
        for happened in decision.events {
            if let Some(alert) = open.get(&happened.alert) {
                let acknowledged = self.policy.acknowledgement(alert.id).map(|said| (**said).clone());
                let said = Said { acknowledged, silenced: self.policy.silenced(alert.id) };
                let about = told_about(alert.node, &self.known, &self.registry);
                events.push(self.alerts.tell((now, happened.kind), &about, alert, (&said, Some(&actor.name))));
            }
        }
        drop(open);
        self.silences_changed = true;
        self.alerts.changed();
        self.counter.take_said(now, actor, (decision.changes, events, decision.log), (ticket, answer));
    }

    /// Silences begin and end by the clock.
    pub(super) fn look_at_silences(&mut self) {
        let now = self.clock.wall();
        self.policy.look(now);
        // What is ordered and not on disk yet may still come to nothing.
        if self.counter.is_empty() {
            self.review_silences();
        }
    }

    /// Alerts that are under another silence than they were told to be.
    pub(super) fn review_silences(&mut self) {
        if self.policy.is_touched() {
            self.review(Reviewed::Touched, |_| true);
        }
    }

    /// The same of a node whose labels may be others.
    pub(super) fn review_node(&mut self, node: NodeKey) {
        self.review(Reviewed::All, |alert| alert.node == Some(node));
    }

    /// The same of all of them: their severities may be others.
    pub(super) fn review_all(&mut self) {
        self.review(Reviewed::All, |_| true);
    }

    fn review(&mut self, which: Reviewed, is_looked_at: impl Fn(&Alert) -> bool) {
        let now = self.clock.wall();
        let (known, registry) = (&self.known, &self.registry);
        let alerts = firing(&self.engine).filter(|alert| is_looked_at(alert));
        let alerts: Vec<_> = alerts.map(|alert| Firing::new(alert, known, registry)).collect();
        let turned = self.policy.review(now, which, alerts.iter().map(Firing::facts));
        if turned.is_empty() {
            return;
        }
        let by_id: HashMap<_, _> = alerts.iter().map(|firing| (firing.alert.id, firing.alert)).collect();
        for Turned { alert: id, from, to } in turned {
            self.silenced.insert(id, to);
            let kind = match (from, to) {
                (None, Some(_)) => "alert.silenced",
                (Some(_), None) => "alert.unsilenced",
                // It goes on being silent: nobody has to do anything about it.
                _ => continue,
            };
            if let Some(alert) = by_id.get(&id) {
                let acknowledged = self.policy.acknowledgement(id).map(|said| (**said).clone());
                let about = told_about(alert.node, known, registry);
                let event = self.alerts.tell((now, kind), &about, alert, (&Said { acknowledged, silenced: to }, None));
                self.is_beside = true;
                self.events.push(event);
            }
        }
        self.alerts.changed();
        self.view_changed = true;
    }

    /// What is said of an alert that changes: one that fires may do so under a silence.
    pub(super) fn said_of(&mut self, at: WallMs, change: &AlertChange) -> Said {
        let alert = match change {
            AlertChange::Dropped(_) | AlertChange::Pending(_) => return Said::default(),
            AlertChange::Fired(alert, _) => {
                let firing = Firing::new(alert, &self.known, &self.registry);
                let (id, facts) = firing.facts();
                if let Some(under) = self.policy.fired(at, id, &facts) {
                    self.silenced.insert(id, Some(under));
                }
                alert
            }
            AlertChange::Flaps(alert)
            | AlertChange::Turned(alert)
            | AlertChange::Resolved(alert)
            | AlertChange::Reworded(alert) => alert,
        };
        self.said(alert.id)
    }

    pub(super) fn said(&self, alert: AlertId) -> Said {
        let acknowledged = self.policy.acknowledgement(alert).map(|said| (**said).clone());
        Said { acknowledged, silenced: self.policy.silenced(alert) }
    }

    /// Nothing of what was asked for is on disk.
    pub(super) fn unsay(&mut self) -> Result<(), StoreError> {
        let stored = self.control.policy(self.clock.wall())?;
        let open: HashMap<_, _> = firing(&self.engine).map(|alert| (alert.id, ())).collect();
        self.policy.read_anew(stored, |alert| open.contains_key(&alert));
        self.silences_changed = true;
        self.alerts.changed();
        Ok(())
    }

    /// What is over for long leaves with the next write.
    pub(super) fn drop_silences(&mut self) {
        let dropped = self.policy.drop_oldest(self.clock.wall());
        self.silences_changed |= !dropped.is_empty();
        self.counter.ordered.said.extend(dropped);
    }

    pub(super) fn show_silences(&mut self) {
        if std::mem::take(&mut self.silences_changed) {
            let silences = self.policy.silences().map(|(id, silence)| (id, Arc::clone(silence))).collect();
            self.outlets.silences.store(Arc::new(SilenceBoard { silences }));
        }
    }
}

fn firing(engine: &Engine) -> impl Iterator<Item = &Alert> {
    engine.alerts().open().filter(|alert| alert.state == AlertState::Firing)
}

/// As the feed tells it, with all of its labels.
fn told_about(node: Option<NodeKey>, known: &KnownNodes, registry: &Registry) -> AboutNode {
    about(known, node, |id| {
        let said = node.and_then(|node| known.facts(node)).map(|facts| facts.labels.clone()).unwrap_or_default();
        registry.member(id).map(|member| member.labels(&said)).unwrap_or(said)
    })
}
