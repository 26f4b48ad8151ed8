//! All rules that a collector judges by: those that come with it, and its operator's own, which override them by name.
//!
//! A set is whole or is not: one mistake in one file leaves the running set as it is.

use std::collections::BTreeMap;

use super::error::RuleError;
use super::file::{Item, read};
use super::{Place, Rule};
use crate::config::nearest;
use crate::limits::{RULE_ERRORS_MAX, RULES_MAX};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleSet {
    /// By name.
    rules: Vec<Rule>,
}

impl RuleSet {
    /// Files with their texts. A rule of `own` overrides one of `shipped` that has its name, and one that has a name and
    /// `enabled = false` and nothing else switches that one off.
    pub fn of(shipped: &[(String, String)], own: &[(String, String)]) -> Result<Self, Vec<RuleError>> {
        let mut errors = Vec::new();
        let shipped = layer(shipped, &mut errors);
        let own = layer(own, &mut errors);
        let mut rules = BTreeMap::new();
        for (name, item) in shipped {
            match item {
                Item::Rule { rule, .. } => {
                    rules.insert(name, *rule);
                }
                Item::Off { .. } => errors.extend(nothing_to_switch_off(&name, item, &BTreeMap::new())),
            }
        }
        // What is missing may be what is wrong.
        let is_right = errors.is_empty();
        for (name, item) in own {
            match (item, rules.get_mut(&name)) {
                (Item::Rule { rule, .. }, _) => {
                    rules.insert(name, *rule);
                }
                (Item::Off { .. }, Some(rule)) => rule.is_enabled = false,
                (item, None) if is_right && errors.len() < RULE_ERRORS_MAX => {
                    errors.extend(nothing_to_switch_off(&name, item, &rules));
                }
                (_, None) => {}
            }
        }
        if rules.len() > RULES_MAX
            && let Some(Rule { place: Place { file, line }, .. }) = rules.values().nth(RULES_MAX)
        {
            let message = format!("{} rules are too many; the limit is {RULES_MAX}", rules.len());
            errors.push(RuleError { file: file.clone(), line: *line, column: 1, message });
        }
        errors.truncate(RULE_ERRORS_MAX);
        if errors.is_empty() { Ok(Self { rules: rules.into_values().collect() }) } else { Err(errors) }
    }

    /// By name.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// By name.
    #[must_use]
    pub fn into_rules(self) -> Vec<Rule> {
        self.rules
    }

    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Rule> {
        self.rules.binary_search_by(|rule| (*rule.name).cmp(name)).ok().map(|place| &self.rules[place])
    }
}

/// All tables of several files, of which no two have one name.
fn layer(files: &[(String, String)], errors: &mut Vec<RuleError>) -> BTreeMap<Box<str>, Item> {
    let mut items: BTreeMap<Box<str>, Item> = BTreeMap::new();
    for (file, text) in files {
        let read = read(file, text).unwrap_or_else(|found| {
            errors.extend(found);
            Vec::new()
        });
        for item in read {
            let (name, place, column) = head(&item);
            if let Some(first) = items.get(name) {
                let (_, Place { file: other, line }, _) = head(first);
                let message = format!("two rules are named {name}; the other is at {other}:{line}");
                errors.push(RuleError { file: place.file.clone(), line: place.line, column, message });
                continue;
            }
            items.insert(name.into(), item);
        }
    }
    items
}

/// The name of a table, and where that stands.
fn head(item: &Item) -> (&str, &Place, usize) {
    match item {
        Item::Rule { rule, column } => (&rule.name, &rule.place, *column),
        Item::Off { name, place, column } => (name, place, *column),
    }
}

fn nothing_to_switch_off(name: &str, item: Item, shipped: &BTreeMap<Box<str>, Rule>) -> Option<RuleError> {
    let Item::Off { place: Place { file, line }, column, .. } = item else { return None };
    let near = nearest(name, shipped.keys().map(ToString::to_string));
    let hint = near.map_or_else(|| "write its when and summary".to_owned(), |near| near.hint("", ""));
    let message = format!("no rule named {name} comes with the collector, so there is none to switch off; {hint}");
    Some(RuleError { file, line, column, message })
}
