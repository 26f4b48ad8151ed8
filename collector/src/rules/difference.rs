//! What another book of rules changes, as a person reads it: names, and of each field what it was and what it is.

use std::cmp::Ordering;
use std::sync::Arc;

use dunlin_shared::rule::Rule;

use super::{Origin, RuleBook};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    pub added: Vec<Arc<Rule>>,
    pub changed: Vec<Changed>,
    pub removed: Vec<Arc<Rule>>,
    pub unchanged: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    pub before: Arc<Rule>,
    pub after: Arc<Rule>,
    pub fields: Vec<FieldChange>,
}

/// As it is written in a file; empty where it is not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldChange {
    pub field: &'static str,
    pub before: String,
    pub after: String,
}

impl Difference {
    /// Both are by name.
    #[must_use]
    pub fn between(before: &RuleBook, after: &RuleBook) -> Self {
        let mut difference = Self::default();
        let (mut old, mut new) = (before.rules.iter().peekable(), after.rules.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return difference,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.name.cmp(&new.name),
            };
            let before = if order.is_le() { old.next() } else { None };
            let after = if order.is_ge() { new.next() } else { None };
            difference.take(before, after);
        }
    }

    fn take(&mut self, before: Option<&Arc<Rule>>, after: Option<&Arc<Rule>>) {
        match (before, after) {
            (Some(before), Some(after)) => {
                let fields = if Arc::ptr_eq(before, after) { Vec::new() } else { fields(before, after) };
                if fields.is_empty() {
                    self.unchanged += 1;
                } else {
                    self.changed.push(Changed { before: Arc::clone(before), after: Arc::clone(after), fields });
                }
            }
            (Some(before), None) => self.removed.push(Arc::clone(before)),
            (None, Some(after)) => self.added.push(Arc::clone(after)),
            (None, None) => {}
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }

    /// For the log: `2 added, 1 changed, 0 removed`.
    #[must_use]
    pub fn counts(&self) -> String {
        format!("{} added, {} changed, {} removed", self.added.len(), self.changed.len(), self.removed.len())
    }
}

fn fields(before: &Rule, after: &Rule) -> Vec<FieldChange> {
    let pairs = written(before).into_iter().zip(written(after));
    let other = pairs.filter(|((_, before), (_, after))| before != after);
    other.map(|((field, before), (_, after))| FieldChange { field, before, after }).collect()
}

/// The keys of a rule as a person would write them; the line on which it stands is none of them.
fn written(rule: &Rule) -> [(&'static str, String); 12] {
    let quoted = |text: &str| format!("{text:?}");
    let option = |text: Option<String>| text.unwrap_or_default();
    let labels = rule.labels.iter().map(|(key, value)| format!("{key} = {:?}", value.as_str()));
    let labels = labels.collect::<Vec<_>>().join(", ");
    let subjects = rule.subjects.iter().map(|subject| quoted(subject.as_str())).collect::<Vec<_>>().join(", ");
    let origin = Origin::of(rule);
    [
        ("enabled", rule.is_enabled.to_string()),
        ("severity", quoted(rule.severity.as_str())),
        ("when", rule.when_text.to_string()),
        ("clear", option(rule.clear_text.as_ref().map(ToString::to_string))),
        ("for", quoted(&duration(rule.for_ms))),
        ("keep_firing_for", quoted(&duration(rule.keep_firing_ms))),
        ("where", if labels.is_empty() { labels } else { format!("{{ {labels} }}") }),
        ("subject", subjects),
        ("summary", quoted(&rule.summary.to_string())),
        ("summary_zh", option(rule.summary_zh.as_ref().map(|summary| quoted(&summary.to_string())))),
        ("runbook", option(rule.runbook.as_deref().map(quoted))),
        ("origin", format!("{} {}", origin.kind(), origin.name()).trim_end().to_owned()),
    ]
}

/// In the largest unit of which it is a whole number.
#[must_use]
pub(crate) fn duration(ms: u64) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    let unit = units.into_iter().find(|(_, unit_ms)| ms > 0 && ms.is_multiple_of(*unit_ms));
    match unit {
        Some((unit, unit_ms)) => format!("{}{unit}", ms / unit_ms),
        None if ms == 0 => "0s".to_owned(),
        None => format!("{ms}ms"),
    }
}
