//! What becomes of alerts outside of the engine: their rows, their events, and the board that people read.
//!
//! The engine decides; here its decisions get words. A summary is written when the alert begins and when it fires, with
//! the values of that moment, and stays as it was told.

use std::collections::HashMap;
use std::sync::Arc;

use dunlin_shared::id::NodeId;
use dunlin_shared::rule::{Fields, Rule};
use dunlin_shared::time::WallMs;
use serde_json::{Value, json};

use super::known::KnownNodes;
use super::showing::{Sources, Stale};
use crate::board::{AlertBoard, AtFiring, Words};
use crate::engine::Engine;
use crate::engine::alert::{Alert, AlertChange, AlertId, AlertState, Resolution, Top};
use crate::policy::Policy;
use crate::record::NodeKey;
use crate::registry::Labels;
use crate::shape::Moment;
use crate::store::{AlertRow, AlertUpdate, NewEvent, Said};

#[derive(Debug, Default)]
pub(super) struct OpenAlerts {
    words: HashMap<AlertId, Arc<Words>>,
    /// Rows that are not on disk yet; of each alert the newest.
    waiting: HashMap<AlertId, AlertUpdate>,
    /// Those that are in force, by name.
    rules: Arc<[Arc<Rule>]>,
    /// What is open, or what is said of it, is another than the board shows.
    stale: Stale,
}

/// Who an alert is about, as it is told.
#[derive(Clone, Debug, Default)]
pub(super) struct AboutNode {
    pub(super) id: Option<NodeId>,
    pub(super) name: String,
    pub(super) labels: Labels,
}

impl OpenAlerts {
    /// Another set of rules is in force.
    pub(super) fn ruled_by<'a>(&mut self, rules: impl Iterator<Item = &'a Arc<Rule>>) {
        let mut rules: Vec<_> = rules.cloned().collect();
        rules.sort_by(|a, b| a.name.cmp(&b.name));
        self.rules = rules.into();
        self.stale = Stale::All;
    }

    /// As `control.db` has them.
    pub(super) fn restore(&mut self, rows: &[AlertRow]) {
        for row in rows {
            self.words.insert(row.id, Arc::new(Words::read(&row.words)));
        }
        self.stale = Stale::All;
    }

    /// What the feed tells of a change; rows wait until they are written.
    pub(super) fn follow(
        &mut self,
        at: WallMs,
        about: &AboutNode,
        change: &AlertChange,
        said: &Said,
    ) -> Option<NewEvent> {
        let (alert, top) = match change {
            AlertChange::Dropped(id) => {
                self.stale.note(*id, None);
                self.words.remove(id);
                self.waiting.insert(*id, AlertUpdate::Delete(*id));
                return None;
            }
            AlertChange::Fired(alert, top) => (alert, at_firing(alert, top).write()),
            AlertChange::Pending(alert)
            | AlertChange::Flaps(alert)
            | AlertChange::Turned(alert)
            | AlertChange::Resolved(alert)
            | AlertChange::Reworded(alert) => (alert, String::new()),
        };
        self.stale.note(alert.id, alert.node);
        let says_anew = matches!(change, AlertChange::Pending(_) | AlertChange::Fired(..) | AlertChange::Reworded(_));
        let words = match self.words.get(&alert.id) {
            Some(words) if !says_anew => Arc::clone(words),
            _ => Arc::new(words(alert, about)),
        };
        let row = row(alert, &words, top);
        let told = |kind| NewEvent { at, kind, node: about.id, body: body(&row, about, (&words, said)).to_string() };
        let event = change.event().map(told);
        self.keep(row);
        if alert.state == AlertState::Resolved {
            self.words.remove(&alert.id);
        } else {
            self.words.insert(alert.id, words);
        }
        event
    }

    /// What people said of an alert that fires; `by` is who said it now.
    pub(super) fn tell(
        &mut self,
        (at, kind): (WallMs, &'static str),
        about: &AboutNode,
        alert: &Alert,
        (said, by): (&Said, Option<&str>),
    ) -> NewEvent {
        self.stale.note(alert.id, alert.node);
        let none = Arc::default();
        let words = self.words.get(&alert.id).unwrap_or(&none);
        let mut body = body(&row(alert, words, String::new()), about, (words, said));
        if let Some(by) = by {
            body["by"] = Value::String(by.to_owned());
        }
        NewEvent { at, kind, node: about.id, body: body.to_string() }
    }

    /// An alert of a rule that is not there any more.
    pub(super) fn orphan(&mut self, at: WallMs, about: &AboutNode, row: &AlertRow, said: &Said) -> Option<NewEvent> {
        self.words.remove(&row.id);
        self.stale.note(row.id, row.node);
        if row.fired.is_none() {
            self.waiting.insert(row.id, AlertUpdate::Delete(row.id));
            return None;
        }
        let resolved = Some((at, Resolution::RuleRemoved));
        let row = AlertRow { state: AlertState::Resolved, resolved, ..row.clone() };
        let body = body(&row, about, (&Words::read(&row.words), said)).to_string();
        self.keep(row);
        Some(NewEvent { at, kind: "alert.resolved", node: about.id, body })
    }

    /// Whether the board shows what is not so any more.
    pub(super) const fn is_changed(&self) -> bool {
        !self.stale.is_nothing()
    }

    /// What is said of alerts is another, or their values have moved.
    pub(super) fn changed(&mut self) {
        self.stale = Stale::All;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn updates(&self) -> Vec<AlertUpdate> {
        self.waiting.values().cloned().collect()
    }

    pub(super) fn stored(&mut self) {
        self.waiting.clear();
    }

    /// What waits for a disk that is full is one row an alert, and no more than is open or was of late.
    pub(super) fn drop_beyond(&mut self, max: usize) -> usize {
        let over = self.waiting.len().saturating_sub(max);
        let resolved =
            |update: &AlertUpdate| matches!(update, AlertUpdate::Put(row) if row.state == AlertState::Resolved);
        let dropped: Vec<_> = self.waiting.iter().filter(|(_, update)| resolved(update)).map(|(id, _)| *id).collect();
        dropped.iter().take(over).for_each(|id| drop(self.waiting.remove(id)));
        over.min(dropped.len())
    }

    /// The board that is to stand in place of this one, when it is not right any more.
    pub(super) fn board(
        &mut self,
        before: &AlertBoard,
        (engine, known, policy): (&Engine, &KnownNodes, &Policy),
    ) -> Option<AlertBoard> {
        let stale = std::mem::take(&mut self.stale);
        let sources = Sources { engine, known, policy, words: &self.words, rules: &self.rules };
        sources.board(before, stale)
    }

    /// What took most of the node when it fired was written then, and is not written over.
    fn keep(&mut self, mut row: AlertRow) {
        if row.top.is_empty()
            && let Some(AlertUpdate::Put(before)) = self.waiting.get_mut(&row.id)
        {
            row.top = std::mem::take(&mut before.top);
        }
        self.waiting.insert(row.id, AlertUpdate::Put(Box::new(row)));
    }
}

fn words(alert: &Alert, about: &AboutNode) -> Words {
    let rule: &Rule = &alert.rule;
    let label = |key: &str| about.labels.get(key).map(String::as_str);
    let fields = Fields {
        node: &about.name,
        subject: &alert.subject,
        rule: &rule.name,
        severity: rule.severity,
        value: alert.value,
        threshold: alert.threshold,
        shown_as: &rule.shown_as,
        for_ms: rule.for_ms,
        label: &label,
    };
    Words {
        summary: rule.summary.render(&fields),
        summary_zh: rule.summary_zh.as_ref().map(|summary| summary.render(&fields)),
        runbook: rule.runbook.as_ref().map(ToString::to_string),
    }
}

fn row(alert: &Alert, words: &Words, top: String) -> AlertRow {
    AlertRow {
        id: alert.id,
        rule: alert.rule.name.to_string(),
        node: alert.node,
        subject: alert.subject.to_string(),
        severity: alert.rule.severity.as_str().to_owned(),
        state: alert.state,
        began: alert.began,
        fired: alert.fired,
        resolved: alert.resolved,
        value: alert.value,
        threshold: alert.threshold,
        is_flapping: alert.is_flapping,
        fires: alert.fires().to_vec(),
        over: alert.over(),
        words: words.write(),
        top,
    }
}

/// The shape of an alert, as the API shows it.
fn body(row: &AlertRow, about: &AboutNode, (words, said): (&Words, &Said)) -> Value {
    let mut told = json!({
        "id": row.id.to_string(),
        "rule": row.rule,
        "severity": row.severity,
        "state": row.state.as_str(),
        "node": about.id.map(|id| id.to_string()),
        "subject": row.subject,
        "value": row.value,
        "threshold": row.threshold,
        "since": Moment(row.fired.unwrap_or(row.began).wall).to_string(),
        "summary": words.summary,
        "summary_zh": words.summary_zh,
        "runbook": words.runbook,
        "labels": about.labels,
        "acknowledged": said.acknowledged.as_ref().map(|said| {
            json!({ "who": said.by, "when": Moment(said.at).to_string(), "why": said.why })
        }),
        "silenced": said.silenced.map(|id| id.to_string()),
    });
    if let Some((at, why)) = row.resolved {
        told["resolved"] = Value::String(Moment(at).to_string());
        told["reason"] = Value::String(why.as_str().to_owned());
    }
    let mut body = json!({ "alert": told });
    if about.id.is_some() {
        body["name"] = Value::String(about.name.clone());
    }
    body
}

fn at_firing(alert: &Alert, top: &Top) -> AtFiring {
    let list = |all: &[(Box<str>, f64)]| all.iter().map(|(subject, amount)| (subject.to_string(), *amount)).collect();
    let Alert { value, threshold, .. } = *alert;
    AtFiring { value, threshold, cpu: list(&top.cpu), memory: list(&top.memory), disk: list(&top.disk) }
}

/// What the engine is to go on with, of a row whose rule is still there.
pub(super) fn restored(row: &AlertRow, rule: &Arc<Rule>) -> Alert {
    Alert::restored(
        (row.id, Arc::clone(rule), row.node, row.subject.as_str().into()),
        (row.state, row.began, row.fired),
        (row.value, row.threshold, row.is_flapping),
        (row.fires.clone(), row.over),
    )
}

/// Who an alert is about.
pub(super) fn about(known: &KnownNodes, node: Option<NodeKey>, labels: impl FnOnce(NodeId) -> Labels) -> AboutNode {
    let Some(node) = node else { return AboutNode::default() };
    let id = known.id(node);
    AboutNode { id, name: known.name(node).to_owned(), labels: id.map(labels).unwrap_or_default() }
}
