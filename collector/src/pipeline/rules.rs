//! Other rules, from an order to what they do: a set counts once it is on disk, and files at once, since they are.
//!
//! A crash behind the commit is made good at the start, when alerts are compared with the rules that are in force then.

use std::sync::Arc;

use dunlin_shared::rule::Rule;
use dunlin_shared::time::WallMs;
use serde_json::{Value, json};
use tracing::warn;

use super::Pipeline;
use crate::orders::Ticket;
use crate::registry::{Actor, Done, Refused};
use crate::rules::{Difference, Order, RuleBook};
use crate::store::NewEvent;

/// Names that one event tells; the counts beside them are whole.
const NAMES_MAX: usize = 100;

impl Pipeline {
    /// The rules from the start on. Before it watches.
    #[must_use]
    pub fn with_book(mut self, book: Arc<RuleBook>) -> Self {
        self.show_book(book);
        self
    }

    pub(super) fn order_rules(&mut self, actor: &Actor, order: Order, ticket: Ticket<()>) {
        let Order { book, difference, set } = order;
        if self.ordered_book.is_some() || book.number != self.outlets.rules.load().number + 1 {
            let why = String::from("the rules are others meanwhile; look at them, and try again");
            return ticket.answer(Err(Refused::Conflict(why)));
        }
        let now = self.clock.wall();
        let name = set.as_ref().map(|(name, _)| name.as_str());
        let event = (!difference.is_empty()).then(|| changed(now, &actor.name, name, &difference));
        let Some((name, text)) = set else {
            self.events.extend(event);
            self.take_book(book);
            return ticket.answer(Ok(()));
        };
        let action = if text.is_some() { "rules.apply" } else { "rules.delete" };
        let done = Done::new(action, name.clone(), difference.counts());
        self.counter.take_rules(now, actor, ((name, text), event, done), ticket);
        self.ordered_book = Some(book);
    }

    /// What was ordered is on disk.
    pub(super) fn rules_stored(&mut self) {
        if let Some(book) = self.ordered_book.take() {
            self.take_book(book);
        }
    }

    fn take_book(&mut self, book: Arc<RuleBook>) {
        let rules = book.rules.clone();
        self.show_book(book);
        self.take_rules(rules);
    }

    fn show_book(&mut self, book: Arc<RuleBook>) {
        let before = self.outlets.rules.load_full();
        for (set, lines) in book.left_out.iter().filter(|(set, lines)| before.left_out.get(*set) != Some(lines)) {
            lines.iter().for_each(|line| warn!("the set of rules {set} is left out: {line}"));
            let body = json!({ "set": set, "lines": lines }).to_string();
            self.tell(NewEvent { at: self.clock.wall(), kind: "rules.refused", node: None, body });
        }
        self.outlets.rules.store(book);
    }
}

fn changed(at: WallMs, by: &str, set: Option<&str>, difference: &Difference) -> NewEvent {
    let names = |rules: &mut dyn Iterator<Item = &Arc<Rule>>| -> Value {
        rules.take(NAMES_MAX).map(|rule| rule.name.to_string()).collect()
    };
    let Difference { added, changed, removed, .. } = difference;
    let mut body = json!({
        "by": by,
        "added": names(&mut added.iter()),
        "changed": names(&mut changed.iter().map(|changed| &changed.after)),
        "removed": names(&mut removed.iter()),
        "counts": { "added": added.len(), "changed": changed.len(), "removed": removed.len() },
    });
    if let Some(set) = set {
        body["set"] = Value::from(set);
    }
    NewEvent { at, kind: "rules.changed", node: None, body: body.to_string() }
}
