//! What functions over long times make of roll-ups after a start: windows that reach further back than the frames that
//! are still there as they came.
//!
//! Pure: roll-ups come as arguments. Until all of them are there a long window says nothing, so that no rule fires, and
//! no alert ends, by the few minutes that are known at once. What came is counted once: a window holds of roll-ups what
//! lies before the frames that it was told of.

use std::collections::HashMap;
use std::sync::Arc;

use dunlin_shared::metric::{Kind, Step, by_id};
use dunlin_shared::rule::{Function, Over, Rule, Source};
use dunlin_shared::time::MonoMs;

use super::rules::is_of_state;
use super::window::{REMEMBERED_MS, Window};
use super::{Alerts, bind};
use crate::record::NodeKey;

/// Whoever waits for what is absent is told of the last of it, and so long before the window as anybody waits for it.
const ABSENT_BEYOND_MS: u64 = bind::ABSENT_FOR_MS_MAX;

/// What a series came to within a slot. Of a counter it is of rates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slot {
    /// By the time in which the collector listened.
    pub from: MonoMs,
    pub to: MonoMs,
    pub min: f64,
    pub max: f64,
    pub mean: f64,
    pub last: f64,
    pub count: u32,
}

/// One series of a node, in slots that follow each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    pub node: NodeKey,
    pub source: Source,
    /// As it is written.
    pub subject: Arc<str>,
    pub kind: Kind,
    pub step: Step,
    pub slots: Vec<Slot>,
}

/// A metric whose past is to be told, and how far back.
#[derive(Clone, Debug)]
pub struct Reach {
    pub metric: String,
    pub back_ms: u64,
    source: Source,
    rules: Vec<Arc<Rule>>,
}

impl Reach {
    /// Whether any rule asks for that subject.
    #[must_use]
    pub fn asks(&self, subject: &str) -> bool {
        self.source.is_of_node() || self.rules.iter().any(|rule| rule.is_about(subject))
    }
}

impl Past {
    /// For how long a slot was measured: so many values, one each tick.
    pub(super) fn measured_ms(&self, slot: &Slot, tick_ms: u64) -> u64 {
        u64::from(slot.count).saturating_mul(tick_ms).min(slot.to.since(slot.from))
    }

    /// By how much it grew within a slot: whole steps, as it was counted.
    pub(super) fn grown(&self, slot: &Slot, tick_ms: u64) -> f64 {
        let grown = slot.mean * ms(self.measured_ms(slot, tick_ms)) / 1_000.0;
        self.step.quantise(grown).map_or(grown, |steps| self.step.value(steps))
    }
}

impl Slot {
    /// In the middle of it.
    pub(super) const fn at(&self) -> MonoMs {
        MonoMs(self.from.0 + self.to.since(self.from) / 2)
    }

    /// Which part of its values lies at its greatest, were there only two of them.
    pub(super) fn high_part(&self) -> f64 {
        let spread = self.max - self.min;
        if spread > 0.0 { ((self.mean - self.min) / spread).clamp(0.0, 1.0) } else { 1.0 }
    }
}

fn ms(ms: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a slot is far below 2^53 ms")]
    let ms = ms as f64;
    ms
}

impl Alerts {
    /// Metrics of which the past is told: by rules that look further back than the frames that are still there.
    #[must_use]
    pub fn reaches(&self) -> Vec<Reach> {
        let mut reaches: Vec<Reach> = Vec::new();
        for (rule, term) in self.rules.iter().flat_map(|rule| rule.terms.iter().map(move |term| (rule, term))) {
            let Some(over) = term.over.filter(|over| is_long(*over)) else { continue };
            let metric = match &term.source {
                Source::Catalogued(id) => by_id(*id).map(|metric| metric.name.to_owned()),
                Source::Open(name) => Some(name.to_string()),
                Source::Known(_) => None,
            };
            let Some(metric) = metric else { continue };
            let beyond_ms = if over.function == Function::Absent { ABSENT_BEYOND_MS } else { 0 };
            let back_ms = over.window_ms + beyond_ms;
            let at = reaches.iter().position(|reach| reach.metric == metric).unwrap_or_else(|| {
                reaches.push(Reach { metric, back_ms, source: term.source.clone(), rules: Vec::new() });
                reaches.len() - 1
            });
            reaches[at].back_ms = reaches[at].back_ms.max(back_ms);
            reaches[at].rules.push(Arc::clone(rule));
        }
        reaches
    }

    /// From now on long windows say nothing, until `end_past`.
    pub fn await_past(&mut self) {
        let mut awaited: HashMap<Source, Vec<Over>> = HashMap::new();
        for term in self.rules.iter().flat_map(|rule| &rule.terms) {
            let Some(over) = term.over.filter(|over| is_long(*over)) else { continue };
            // Two rules that ask the same share a window.
            let overs = awaited.entry(term.source.clone()).or_default();
            if !overs.contains(&over) {
                overs.push(over);
            }
        }
        self.awaited = Some(awaited);
    }

    /// What is there of a series' past. `tick_ms` is how often the node measures.
    pub fn past(&mut self, now: MonoMs, tick_ms: u64, past: &Past) {
        let overs = self.awaited.as_ref().and_then(|awaited| awaited.get(&past.source)).cloned().unwrap_or_default();
        let Some(mut book) = self.take(Some(past.node)) else { return };
        for over in overs {
            let key = bind::key_of(&past.source, over, &past.subject);
            if book.bound.as_mut().is_some_and(|bound| bound.past(key, now, tick_ms, past)) {
                continue;
            }
            // A node that was silent for long has no windows before its next frame.
            let is_new = book.awaited.iter().all(|(known, _)| *known != key);
            if book.latest.is_none() && is_new {
                let mut window = Window::new(over, (past.kind, bind::is_sum(&past.subject)), now);
                window.past(now, tick_ms, past);
                book.awaited.push((key, window));
            }
        }
        self.put(Some(past.node), book);
    }

    /// All that is there was told. An alert that is open because something is absent says itself since when it is.
    pub fn end_past(&mut self) {
        if self.awaited.take().is_none() {
            return;
        }
        for book in self.books.iter_mut().flatten() {
            let Some(bound) = &mut book.bound else { continue };
            for alert in book.open.iter().filter(|alert| !is_of_state(&alert.rule)) {
                if let Some((no, rule)) = self.rules.by_name(&alert.rule.name) {
                    bound.absent_since((no, &alert.subject), rule.terms.len(), alert.began.ran);
                }
            }
        }
    }
}

/// Whether it reaches further back than the frames that a start finds.
pub(super) const fn is_long(over: Over) -> bool {
    over.window_ms > REMEMBERED_MS
}
