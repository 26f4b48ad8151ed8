//! Which silences an alert has to be compared with: those that name something of it outright, and those that name nothing
//! outright.
//!
//! Each silence is filed once, under the rarest of what it names, so that a thousand silences of one label and a rule
//! each are found by the rule.

use std::collections::HashMap;

use dunlin_shared::id::NodeId;

use super::matchers::{Facts, Matchers, exact};
use super::silence::SilenceId;

#[derive(Debug, Default)]
pub(super) struct Index {
    by_node: HashMap<NodeId, Vec<SilenceId>>,
    by_rule: HashMap<Box<str>, Vec<SilenceId>>,
    by_subject: HashMap<Box<str>, Vec<SilenceId>>,
    by_label: HashMap<Box<str>, HashMap<Box<str>, Vec<SilenceId>>>,
    /// With what they are about, so that the many that do not fit are passed over without being looked up.
    rest: Vec<(SilenceId, Matchers)>,
    places: HashMap<SilenceId, Place>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Node(NodeId),
    Rule(Box<str>),
    Subject(Box<str>),
    Label(Box<str>, Box<str>),
    Rest,
}

impl Index {
    pub(super) fn file(&mut self, id: SilenceId, matchers: &Matchers) {
        self.remove(id);
        let named = |text: &str, place: fn(Box<str>) -> Place| place(text.into());
        let node = matchers.node.map(Place::Node);
        let rule = matchers.rule.as_ref().and_then(exact).map(|rule| named(rule, Place::Rule));
        let subject = matchers.subject.as_ref().and_then(exact).map(|subject| named(subject, Place::Subject));
        let labels =
            matchers.labels.iter().filter_map(|(key, value)| Some(Place::Label(key.clone(), exact(value)?.into())));
        let places = [node, rule, subject].into_iter().flatten().chain(labels);
        let place = places.min_by_key(|place| self.at(place).map_or(0, Vec::len)).unwrap_or(Place::Rest);
        let ids = match &place {
            Place::Node(node) => self.by_node.entry(*node).or_default(),
            Place::Rule(rule) => self.by_rule.entry(rule.clone()).or_default(),
            Place::Subject(subject) => self.by_subject.entry(subject.clone()).or_default(),
            Place::Label(key, value) => self.by_label.entry(key.clone()).or_default().entry(value.clone()).or_default(),
            Place::Rest => {
                self.places.insert(id, place);
                return self.rest.push((id, matchers.clone()));
            }
        };
        ids.push(id);
        self.places.insert(id, place);
    }

    pub(super) fn remove(&mut self, id: SilenceId) {
        let Some(place) = self.places.remove(&id) else { return };
        let without = |ids: &mut Vec<SilenceId>| {
            ids.retain(|other| *other != id);
            !ids.is_empty()
        };
        match &place {
            Place::Node(node) => self.by_node.retain(|key, ids| key != node || without(ids)),
            Place::Rule(rule) => self.by_rule.retain(|key, ids| key != rule || without(ids)),
            Place::Subject(subject) => self.by_subject.retain(|key, ids| key != subject || without(ids)),
            Place::Label(key, value) => {
                if let Some(values) = self.by_label.get_mut(key) {
                    values.retain(|other, ids| other != value || without(ids));
                    if values.is_empty() {
                        self.by_label.remove(key);
                    }
                }
            }
            Place::Rest => self.rest.retain(|(other, _)| *other != id),
        }
    }

    /// All that may fit.
    pub(super) fn candidates<'a>(&'a self, alert: &'a Facts<'a>) -> impl Iterator<Item = SilenceId> + use<'a> {
        let labels = alert.labels;
        let by_label = self.by_label.iter().filter_map(move |(key, values)| values.get(labels.get(&**key)?.as_str()));
        let named = [
            alert.node.and_then(|node| self.by_node.get(&node)),
            self.by_rule.get(alert.rule),
            self.by_subject.get(alert.subject),
        ];
        let rest = self.rest.iter().filter(|(_, matchers)| matchers.fit(alert)).map(|(id, _)| id);
        named.into_iter().flatten().chain(by_label).flatten().chain(rest).copied()
    }

    fn at(&self, place: &Place) -> Option<&Vec<SilenceId>> {
        match place {
            Place::Node(node) => self.by_node.get(node),
            Place::Rule(rule) => self.by_rule.get(rule),
            Place::Subject(subject) => self.by_subject.get(subject),
            Place::Label(key, value) => self.by_label.get(key)?.get(value),
            Place::Rest => None,
        }
    }
}
