//! The rules that are enabled, and which of them read what: a frame meets only those that read something in it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use dunlin_shared::metric::MetricId;
use dunlin_shared::rule::{Function, Known, Rule, Scope, Source, Term};
use dunlin_shared::sample::Subject;

/// A rule's place among those that are enabled.
pub(super) type RuleNo = u32;

#[derive(Debug, Default)]
pub(super) struct Rules {
    list: Vec<Arc<Rule>>,
    by_metric: HashMap<MetricId, Vec<RuleNo>>,
    by_open: HashMap<Box<str>, Vec<RuleNo>>,
    by_known: HashMap<Known, Vec<RuleNo>>,
    /// Those that ask whether something is absent: it may be of nothing that is measured.
    absence: Vec<RuleNo>,
    /// By a label of one value that each of these asks for: of ten thousand rules for one role each, a node looks at its own.
    by_label: HashMap<Box<str>, HashMap<Box<str>, Vec<RuleNo>>>,
    /// Those that ask for no such label.
    others: Vec<RuleNo>,
}

/// Which rules are on a node, a bit each.
#[derive(Debug)]
pub(super) struct Chosen(Vec<u64>);

impl Rules {
    /// Sorted by name, so that what follows does not depend on the order of files.
    pub(super) fn new(rules: impl IntoIterator<Item = Arc<Rule>>) -> Self {
        let mut list: Vec<_> = rules.into_iter().filter(|rule| rule.is_enabled).collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        let mut rules = Self::default();
        for (no, rule) in (0..).zip(&list) {
            for term in &rule.terms {
                let readers = match &term.source {
                    Source::Catalogued(id) => rules.by_metric.entry(*id).or_default(),
                    Source::Open(name) => rules.by_open.entry(name.clone()).or_default(),
                    Source::Known(known) => rules.by_known.entry(*known).or_default(),
                };
                if readers.last() != Some(&no) {
                    readers.push(no);
                }
            }
            if rule.terms.iter().any(is_absence) {
                rules.absence.push(no);
            }
            match rule.labels.iter().find(|(_, pattern)| !pattern.as_str().contains('*')) {
                Some((key, value)) => {
                    rules.by_label.entry(key.clone()).or_default().entry(value.as_str().into()).or_default().push(no);
                }
                None => rules.others.push(no),
            }
        }
        rules.list = list;
        rules
    }

    pub(super) fn get(&self, no: RuleNo) -> Option<&Arc<Rule>> {
        self.list.get(no as usize)
    }

    pub(super) fn by_name(&self, name: &str) -> Option<(RuleNo, &Arc<Rule>)> {
        let at = self.list.binary_search_by(|rule| (*rule.name).cmp(name)).ok()?;
        Some((RuleNo::try_from(at).ok()?, &self.list[at]))
    }

    pub(super) fn of_metric(&self, id: MetricId) -> &[RuleNo] {
        self.by_metric.get(&id).map_or(&[], Vec::as_slice)
    }

    pub(super) fn of_open(&self, name: &str) -> &[RuleNo] {
        self.by_open.get(name).map_or(&[], Vec::as_slice)
    }

    pub(super) fn of_known(&self, known: Known) -> &[RuleNo] {
        self.by_known.get(&known).map_or(&[], Vec::as_slice)
    }

    pub(super) fn absence(&self) -> &[RuleNo] {
        &self.absence
    }

    /// Those that are on a node which bears these labels; all of them where there is no node.
    pub(super) fn on(&self, labels: Option<&BTreeMap<String, String>>) -> Chosen {
        let words = self.list.len().div_ceil(64);
        let Some(labels) = labels else { return Chosen(vec![u64::MAX; words]) };
        let mut chosen = Chosen(vec![0; words]);
        let of_label = labels.iter().filter_map(|(key, value)| self.by_label.get(key.as_str())?.get(value.as_str()));
        for &no in of_label.flatten().chain(&self.others) {
            if self.get(no).is_some_and(|rule| rule.is_on(|key| labels.get(key).map(String::as_str))) {
                chosen.put(no);
            }
        }
        chosen
    }

    /// What of the inventory is read by any of them.
    pub(super) fn reads(&self, known: Known) -> bool {
        self.by_known.contains_key(&known)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.list.iter()
    }
}

impl Chosen {
    pub(super) fn has(&self, no: RuleNo) -> bool {
        self.0.get(no as usize / 64).is_some_and(|word| word >> (no % 64) & 1 == 1)
    }

    fn put(&mut self, no: RuleNo) {
        if let Some(word) = self.0.get_mut(no as usize / 64) {
            *word |= 1 << (no % 64);
        }
    }
}

pub(super) fn is_absence(term: &Term) -> bool {
    term.over.is_some_and(|over| over.function == Function::Absent)
}

/// Whether it goes on when nothing is heard of a node: it asks how the node is.
pub(super) fn is_of_state(rule: &Rule) -> bool {
    rule.terms.iter().any(|term| term.source == Source::Known(Known::NodeState))
}

/// Whether it reads what stands on a node, and so hears of it at once when its subject is there no more.
pub(super) fn is_of_inventory(rule: &Rule) -> bool {
    let is_listed = |term: &Term| matches!(&term.source, Source::Known(known) if known.scope() != Scope::Node);
    matches!(rule.scope, Scope::Port | Scope::Kind(_)) && rule.terms.iter().any(is_listed)
}

/// Whether a subject is of those that the rule has an alert for each of.
pub(super) fn is_each(scope: Scope, subject: &Subject) -> bool {
    match scope {
        Scope::Kind(kind) => kind == subject.kind,
        Scope::Any => true,
        Scope::Node | Scope::Port | Scope::Fleet | Scope::Collector => false,
    }
}

#[cfg(test)]
mod tests {
    use dunlin_shared::rule::file::parse;

    use super::*;

    #[test]
    fn a_node_is_asked_about_by_the_rules_that_its_labels_fit_and_by_no_other() {
        let rule = |n: usize| {
            let labels = match n % 4 {
                0 => String::new(),
                1 => format!("where = {{ rack = \"r{}\" }}\n", n % 3),
                2 => format!("where = {{ rack = \"r*\", role = \"{}\" }}\n", n % 5),
                _ => String::from("where = { role = \"*\" }\n"),
            };
            format!("[[rule]]\nname = \"n{n}\"\nwhen = 'node_state == down'\nsummary = \"x\"\n{labels}")
        };
        let text: String = (0..200).map(rule).collect();
        let rules = Rules::new(parse("rules.toml", &text).expect("all are right").into_iter().map(Arc::new));
        let pairs = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        for labels in [&[][..], &[("rack", "r1")], &[("rack", "r1"), ("role", "2")], &[("role", "9")], &[("env", "r1")]]
        {
            let labels = pairs(labels);
            let chosen = rules.on(Some(&labels));
            for (no, rule) in (0..).zip(rules.iter()) {
                let is_on = rule.is_on(|key| labels.get(key).map(String::as_str));
                assert_eq!(chosen.has(no), is_on, "{} on {labels:?}", rule.name);
            }
            assert!(!chosen.has(200) && rules.on(None).has(199));
        }
    }
}
