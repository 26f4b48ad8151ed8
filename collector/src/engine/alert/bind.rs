//! Which rules read what of one node: found anew when the node's layout, its inventory, its labels or the rules change,
//! so that a frame only picks numbers from their places.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use dunlin_shared::limits::RULE_TERMS_MAX;
use dunlin_shared::metric::{Kind, MetricId, MetricRef, by_id};
use dunlin_shared::rule::{Function, Known, Over, Rule, Scope, Source, Term};
use dunlin_shared::sample::{ABSENT, Layout, Reading, SubjectKind};
use dunlin_shared::time::MonoMs;

use super::past::Past;
use super::rules::{Chosen, RuleNo, Rules, is_each};
use super::window::{Measured, Window};

/// Whoever asks for what is absent is heard for so long after it was there last: a container that was removed for good
/// is no absence.
pub(super) const ABSENT_FOR_MS_MAX: u64 = 24 * 3_600_000;

/// What the collector knows of a node, by subject. The first two are the node's state and skew.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct KnownRow {
    pub(super) subject: Arc<str>,
    pub(super) known: Known,
    pub(super) value: f64,
}

#[derive(Debug)]
pub(super) struct Bound {
    pub(super) layout: Arc<Layout>,
    pub(super) items: Vec<Item>,
    slots: Vec<Slot>,
    windows: Vec<Kept>,
}

/// One rule on one subject.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) rule: RuleNo,
    pub(super) subject: Arc<str>,
    first: u32,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Nowhere,
    Column(u16),
    Known(u16),
    Window(u16),
}

#[derive(Debug)]
struct Kept {
    /// What it is a window of: two rules that ask the same share it.
    key: u64,
    from: Slot,
    window: Window,
}

/// What a rule finds on a node.
#[derive(Clone, Copy)]
pub(super) struct Here<'a> {
    pub(super) rules: &'a Rules,
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) known: &'a [KnownRow],
    /// Whether it is the fleet and the collector and no node.
    pub(super) is_whole: bool,
    pub(super) now: MonoMs,
}

impl Bound {
    /// `awaited` are windows of a node that had no frame yet.
    pub(super) fn new(
        here: Here<'_>,
        layout: Arc<Layout>,
        (before, awaited): (Option<Self>, Vec<(u64, Window)>),
    ) -> Self {
        let binder = Binder::new(here, &layout);
        let mut found = binder.find(before.as_ref());
        found.retain(|(no, subject)| here.rules.get(*no).is_some_and(|rule| rule.is_about(subject)));
        let mut kept: HashMap<u64, Window> = awaited.into_iter().collect();
        kept.extend(before.into_iter().flat_map(|bound| bound.windows).map(|kept| (kept.key, kept.window)));
        let mut bound = Self { layout: Arc::clone(&layout), items: Vec::new(), slots: Vec::new(), windows: Vec::new() };
        let mut places: HashMap<u64, u16> = HashMap::new();
        for (no, subject) in found {
            let Some(rule) = here.rules.get(no) else { continue };
            let Ok(first) = u32::try_from(bound.slots.len()) else { break };
            for term in rule.terms.iter().take(RULE_TERMS_MAX) {
                let from = binder.slot(rule.scope, term, &subject);
                let slot = match term.over {
                    None => from,
                    Some(over) => {
                        let key = key_of(&term.source, over, &subject);
                        let place = *places.entry(key).or_insert_with(|| {
                            let about = (kind_of(&layout, from, term.kind), is_sum(&subject));
                            let window = kept.remove(&key).unwrap_or_else(|| Window::new(over, about, here.now));
                            bound.windows.push(Kept { key, from, window });
                            u16::try_from(bound.windows.len() - 1).unwrap_or(u16::MAX)
                        });
                        Slot::Window(place)
                    }
                };
                bound.slots.push(slot);
            }
            bound.items.push(Item { rule: no, subject, first });
        }
        bound
    }

    /// A frame came: what functions remember goes on. What is rolled up already is told to long windows by another way.
    pub(super) fn push(
        &mut self,
        reading: Option<&Reading>,
        known: &[KnownRow],
        (came, is_rolled_up): (Measured, bool),
    ) {
        let layout = &self.layout;
        for kept in &mut self.windows {
            if is_rolled_up && kept.window.is_long() {
                continue;
            }
            let value = plain(layout, kept.from, reading, known);
            if value.is_finite() {
                kept.window.push(Measured { value, ..came });
            }
        }
    }

    /// What was before the frames, for the window of this key. Whether there is such a window.
    pub(super) fn past(&mut self, key: u64, now: MonoMs, tick_ms: u64, past: &Past) -> bool {
        let found = self.windows.iter_mut().find(|kept| kept.key == key);
        found.map(|kept| kept.window.past(now, tick_ms, past)).is_some()
    }

    /// An alert of this rule was open by then: what it waits for was not there.
    pub(super) fn absent_since(&mut self, (no, subject): (RuleNo, &str), terms: usize, since: MonoMs) {
        let Some(item) = self.items.iter().find(|item| item.rule == no && *item.subject == *subject) else { return };
        for slot in self.slots.iter().skip(item.first as usize).take(terms) {
            if let Slot::Window(place) = slot
                && let Some(kept) = self.windows.get_mut(usize::from(*place))
            {
                kept.window.absent_since(since);
            }
        }
    }

    fn windows_of(&self, item: &Item, terms: usize) -> impl Iterator<Item = &Window> {
        let slots = self.slots.iter().skip(item.first as usize).take(terms);
        slots.filter_map(|slot| match slot {
            Slot::Window(place) => self.windows.get(usize::from(*place)).map(|kept| &kept.window),
            _ => None,
        })
    }

    /// What the rule of an item reads, in the order of its terms. While the past is awaited, what asks for it is unknown.
    pub(super) fn values(
        &mut self,
        item: usize,
        terms: usize,
        (reading, known, now, awaits_past): (Option<&Reading>, &[KnownRow], MonoMs, bool),
    ) -> [f64; RULE_TERMS_MAX] {
        let mut values = [f64::NAN; RULE_TERMS_MAX];
        let first = self.items[item].first as usize;
        for (value, slot) in values.iter_mut().zip(self.slots.iter().skip(first).take(terms)) {
            *value = match *slot {
                Slot::Window(place) => {
                    let kept = self.windows.get_mut(usize::from(place)).filter(|kept| !(awaits_past && kept.is_told()));
                    kept.map_or(f64::NAN, |kept| kept.window.value(now))
                }
                slot => plain(&self.layout, slot, reading, known),
            };
        }
        values
    }
}

impl Kept {
    /// Whether its past is told: of what the collector knows itself nothing is rolled up.
    fn is_told(&self) -> bool {
        self.window.is_long() && !matches!(self.from, Slot::Known(_))
    }
}

/// Finds what rules read in a layout and in what is known.
struct Binder<'a> {
    here: Here<'a>,
    /// Rules that are on this node.
    chosen: Chosen,
    layout: &'a Layout,
    subjects: Vec<Arc<str>>,
    columns: HashMap<(Arc<str>, Name<'a>), u16>,
    rows: HashMap<(Arc<str>, Known), u16>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Name<'a> {
    Catalogued(MetricId),
    Open(&'a str),
}

impl<'a> Binder<'a> {
    fn new(here: Here<'a>, layout: &'a Layout) -> Self {
        let subjects: Vec<Arc<str>> = layout.subjects.iter().map(|subject| subject.to_string().into()).collect();
        let mut columns = HashMap::with_capacity(layout.series.len());
        for (place, series) in (0..).zip(&layout.series) {
            if let Some((subject, name)) = subjects.get(usize::from(series.subject)).zip(name_of(layout, series.metric))
            {
                columns.insert((Arc::clone(subject), name), place);
            }
        }
        let rows = (0..).zip(here.known).map(|(place, row)| ((Arc::clone(&row.subject), row.known), place)).collect();
        let chosen = here.rules.on((!here.is_whole).then_some(here.labels));
        Self { here, chosen, layout, subjects, columns, rows }
    }

    /// Every rule that reads something here, with the subjects that it is on.
    fn find(&self, before: Option<&Bound>) -> BTreeSet<(RuleNo, Arc<str>)> {
        let rules = self.here.rules;
        let mut found = BTreeSet::new();
        for series in &self.layout.series {
            let place = usize::from(series.subject);
            let Some((subject, written)) = self.layout.subjects.get(place).zip(self.subjects.get(place)) else {
                continue;
            };
            let readers = match name_of(self.layout, series.metric) {
                Some(Name::Open(name)) => rules.of_open(name),
                Some(Name::Catalogued(id)) => rules.of_metric(id),
                None => &[],
            };
            for (no, rule) in self.on_node(readers) {
                if is_each(rule.scope, subject) {
                    found.insert((no, Arc::clone(written)));
                } else if rule.scope == Scope::Node && subject.kind.is_single() {
                    found.insert((no, of_node(rule)));
                }
            }
        }
        for row in self.here.known {
            for (no, rule) in self.on_node(rules.of_known(row.known)) {
                if rule.scope == row.known.scope() {
                    let subject = if rule.scope == Scope::Node { of_node(rule) } else { Arc::clone(&row.subject) };
                    found.insert((no, subject));
                }
            }
        }
        if !self.here.is_whole {
            for (no, rule) in self.on_node(rules.absence()) {
                found.extend(self.absent(no, rule, before).into_iter().map(|subject| (no, subject)));
            }
        }
        found
    }

    fn on_node<'b>(&'b self, readers: &'b [RuleNo]) -> impl Iterator<Item = (RuleNo, &'b Arc<Rule>)> {
        readers.iter().filter(|no| self.chosen.has(**no)).filter_map(|no| Some((*no, self.here.rules.get(*no)?)))
    }

    /// What a rule waits for that is not here: what it names outright, and what was here before.
    fn absent(&self, no: RuleNo, rule: &Rule, before: Option<&Bound>) -> Vec<Arc<str>> {
        if rule.scope == Scope::Node {
            return vec![of_node(rule)];
        }
        let named = rule.subjects.iter().filter(|pattern| !pattern.as_str().contains('*'));
        let mut subjects: Vec<Arc<str>> = named.map(|pattern| pattern.as_str().into()).collect();
        let items = before.into_iter().flat_map(|bound| bound.items.iter().map(move |item| (bound, item)));
        for (bound, item) in items.filter(|(_, item)| item.rule == no) {
            let mut windows = bound.windows_of(item, rule.terms.len());
            if windows.any(|window| self.here.now.since(window.seen()) < ABSENT_FOR_MS_MAX) {
                subjects.push(Arc::clone(&item.subject));
            }
        }
        subjects
    }

    fn slot(&self, scope: Scope, term: &Term, subject: &Arc<str>) -> Slot {
        let column = |subject: &str, name| self.columns.get(&(Arc::from(subject), name)).copied().map(Slot::Column);
        let slot = match &term.source {
            Source::Catalogued(id) => {
                let single = by_id(*id).map(|metric| metric.subject).filter(|kind| kind.is_single());
                column(single.map_or(&**subject, |kind| kind.as_str()), Name::Catalogued(*id))
            }
            Source::Open(name) if scope == Scope::Node => column(SubjectKind::Host.as_str(), Name::Open(name)),
            Source::Open(name) => column(subject, Name::Open(name)),
            Source::Known(known) => {
                let subject = if known.scope() == Scope::Node { SubjectKind::Host.as_str() } else { subject };
                self.rows.get(&(Arc::from(subject), *known)).copied().map(Slot::Known)
            }
        };
        slot.unwrap_or(Slot::Nowhere)
    }
}

/// What an alert on a node as a whole is about.
fn of_node(rule: &Rule) -> Arc<str> {
    let is_of_agent = |term: &Term| match &term.source {
        Source::Catalogued(id) => by_id(*id).is_some_and(|metric| metric.subject == SubjectKind::Agent),
        Source::Open(_) | Source::Known(_) => false,
    };
    let is_of_agent = rule.terms.iter().all(is_of_agent);
    if is_of_agent { SubjectKind::Agent.as_str().into() } else { SubjectKind::Host.as_str().into() }
}

fn name_of(layout: &Layout, metric: MetricRef) -> Option<Name<'_>> {
    match metric.open_index() {
        Some(index) => layout.open.get(index).map(|own| Name::Open(own.name())),
        None => Some(Name::Catalogued(MetricId(metric.raw()))),
    }
}

/// The value as it is; no number where there is none.
fn plain(layout: &Layout, slot: Slot, reading: Option<&Reading>, known: &[KnownRow]) -> f64 {
    let value = match slot {
        Slot::Column(place) => reading.and_then(|reading| {
            let place = usize::from(place);
            let steps = *reading.values.get(place).filter(|steps| **steps != ABSENT)?;
            let (_, _, _, step) = layout.describe(layout.series.get(place)?.metric)?;
            Some(step.value(steps))
        }),
        Slot::Known(place) => known.get(usize::from(place)).map(|row| row.value),
        Slot::Nowhere | Slot::Window(_) => None,
    };
    value.unwrap_or(f64::NAN)
}

fn kind_of(layout: &Layout, slot: Slot, said: Kind) -> Kind {
    match slot {
        Slot::Column(place) => {
            let series = layout.series.get(usize::from(place));
            series.and_then(|series| layout.describe(series.metric)).map_or(said, |(_, _, kind, _)| kind)
        }
        _ => said,
    }
}

/// An agent adds up what the processes of these used.
pub(super) fn is_sum(subject: &str) -> bool {
    subject.starts_with("process:") || subject.starts_with("unit:")
}

pub(super) fn key_of(source: &Source, over: Over, subject: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    source.hash(&mut hasher);
    if !source.is_of_node() {
        subject.hash(&mut hasher);
    }
    over.window_ms.hash(&mut hasher);
    std::mem::discriminant(&over.function).hash(&mut hasher);
    if let Function::Count { operator, than } = over.function {
        (operator, than.to_bits()).hash(&mut hasher);
    }
    hasher.finish()
}
