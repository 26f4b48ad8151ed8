//! Looks at what rules say of one node now, and takes its alerts one step on.
//!
//! No alert takes a step anywhere else. What ends without one, because its rule or its node goes, is ended in its book.

use std::sync::Arc;

use dunlin_shared::id::FrameId;
use dunlin_shared::rule::{Rule, Verdict};
use dunlin_shared::sample::Reading;

use super::book::Book;
use super::id::AlertId;
use super::life::{Alert, AlertState, Now, Step};
use super::rules::is_of_state;
use super::top::Top;
use super::{AlertChange, Alerts};
use crate::engine::state::NodeState;
use crate::record::NodeKey;

/// What of a node is judged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Looked {
    All,
    /// What asks how the node is.
    State,
}

impl Alerts {
    pub(super) fn look(
        &mut self,
        of: Option<NodeKey>,
        book: &mut Book,
        now: Now,
        looked: Looked,
        changes: &mut Vec<AlertChange>,
    ) {
        self.bind(book, now.ran, of.is_none());
        self.judge(of, book, now, (looked, None), changes);
    }

    pub(super) fn judge(
        &mut self,
        of: Option<NodeKey>,
        book: &mut Book,
        now: Now,
        (looked, before): (Looked, Option<&Reading>),
        changes: &mut Vec<AlertChange>,
    ) {
        let Some(mut bound) = book.bound.take() else { return };
        // What was measured before a node went silent says nothing of now.
        let latest = book.latest.clone().filter(|_| book.state.is_heard());
        let reading = latest.as_ref().map(|(_, reading)| &**reading);
        for place in 0..bound.items.len() {
            let (no, subject) = (bound.items[place].rule, Arc::clone(&bound.items[place].subject));
            let Some(rule) = self.rules.get(no).cloned() else { continue };
            let is_of_state = of.is_none() || is_of_state(&rule);
            if looked == Looked::State && !is_of_state {
                continue;
            }
            let values = bound.values(place, rule.terms.len(), (reading, &book.known, now.ran, self.awaited.is_some()));
            let when = rule.when.judge(&values);
            // What is not measured while nobody is heard is not gone.
            if when == Verdict::Unknown && of.is_some() && !book.state.is_heard() {
                continue;
            }
            let may_fire = is_of_state || book.state.is_heard() && book.state != NodeState::Maintenance;
            let at = book.open.iter().position(|alert| alert.subject == subject && alert.rule.name == rule.name);
            let at = match at {
                Some(at) => at,
                None if when == Verdict::Holds && (may_fire || rule.for_ms > 0) && !book.is_retired => {
                    let mut begun = self.begin(of, book, &rule, subject, now);
                    // It is told with them.
                    (begun.value, begun.threshold) = rule.when.shown(&values);
                    book.open.push(begun);
                    if rule.for_ms > 0 || !may_fire {
                        changes.push(AlertChange::Pending(book.open[book.open.len() - 1].clone()));
                    }
                    book.open.len() - 1
                }
                None => continue,
            };
            let alert = &mut book.open[at];
            if when != Verdict::Unknown {
                (alert.value, alert.threshold) = rule.when.shown(&values);
            }
            let clear = rule.clear.as_ref().map(|clear| clear.judge(&values));
            let over = alert.over;
            let step = alert.step(now.ran, when, clear, may_fire);
            if step == Step::Stays && over != alert.over {
                changes.push(AlertChange::Turned(alert.clone()));
            }
            self.carry_out(of, book, at, step, (now, before), changes);
        }
        book.bound = Some(bound);
        if looked == Looked::All && book.state.is_heard() {
            self.end_unseen(book, now, changes);
        }
    }

    fn begin(&self, of: Option<NodeKey>, book: &Book, rule: &Arc<Rule>, subject: Arc<str>, now: Now) -> Alert {
        // Of the fleet there is no frame: the moment stands for it.
        let began = match (of, book.newest) {
            (Some(_), Some(id)) => id,
            _ => FrameId::new(0, now.wall.0.unsigned_abs()),
        };
        let key = (rule.name.clone(), of, Arc::clone(&subject));
        Alert {
            id: AlertId::of(&rule.name, book.id, &subject, began),
            rule: Arc::clone(rule),
            node: of,
            subject,
            state: AlertState::Pending,
            began: now,
            fired: None,
            resolved: None,
            value: None,
            threshold: None,
            is_flapping: false,
            over: None,
            seen: now.ran,
            fires: self.fired.get(&key).cloned().unwrap_or_default(),
        }
    }

    fn carry_out(
        &mut self,
        of: Option<NodeKey>,
        book: &mut Book,
        at: usize,
        step: Step,
        (now, before): (Now, Option<&Reading>),
        changes: &mut Vec<AlertChange>,
    ) {
        match step {
            Step::Stays => {}
            Step::Drops => changes.push(AlertChange::Dropped(book.open.remove(at).id)),
            Step::Fires => {
                let flaps = book.open[at].fire(now);
                let top = book.latest.as_ref().map(|(_, reading)| Top::of(reading, before)).unwrap_or_default();
                changes.push(AlertChange::Fired(book.open[at].clone(), Box::new(top)));
                if flaps {
                    changes.push(AlertChange::Flaps(book.open[at].clone()));
                }
            }
            Step::Resolves(why) => {
                let mut alert = book.open.remove(at);
                alert.resolve(now.wall, why);
                let key = (alert.rule.name.clone(), of, Arc::clone(&alert.subject));
                if alert.fires.is_empty() {
                    self.fired.remove(&key);
                } else {
                    self.fired.insert(key, alert.fires.clone());
                }
                return changes.push(AlertChange::Resolved(alert));
            }
        }
        if let Some(alert) = book.open.get(at).filter(|alert| of.is_none() || is_of_state(&alert.rule))
            && let Some(due) = alert.next_look().filter(|due| *due > now.ran)
        {
            self.due.insert((due, of));
        }
    }

    /// What is measured no more has no item, and nobody judged it.
    fn end_unseen(&mut self, book: &mut Book, now: Now, changes: &mut Vec<AlertChange>) {
        let mut at = 0;
        while let Some(alert) = book.open.get_mut(at) {
            let (of, id) = (alert.node, alert.id);
            match alert.step_unseen(now.ran) {
                Step::Stays => {}
                step => self.carry_out(of, book, at, step, (now, None), changes),
            }
            if book.open.get(at).is_some_and(|alert| alert.id == id) {
                at += 1;
            }
        }
    }
}
