//! Rules over the past of many nodes: read and judged node by node on two threads, so that what is held at a time is the
//! past of two nodes.
//!
//! Its threads are nicer than whatever commits. What it may cost is known before anything is read.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use dunlin_shared::rule::Rule;
use dunlin_shared::sample::Subject;
use dunlin_shared::time::WallMs;
use thiserror::Error;

use crate::block::Measure;
use crate::record::NodeKey;
use crate::stretch::Taken;
use crate::trial::preview::{Firing, Whose, is_read, judge, lead_ms};
use crate::window::{Asked, OpenWindow, ReadError, Window};

/// A day of two thousand nodes at a tick of ten seconds.
pub const FRAMES_MAX: i64 = 20_000_000;
/// Values of a node that may be held, 8 bytes each.
const VALUES_MAX: usize = 4_000_000;
/// Alerts that are kept, about 200 bytes each: what fires so often is told by its count.
const KEPT_MAX: usize = 50_000;
/// As the keeper of the window.
const NICE: i32 = 10;

/// A node whose past is asked for.
#[derive(Clone, Debug)]
pub struct Node {
    pub key: NodeKey,
    pub skew_ms: i64,
    pub whose: Whose,
}

/// What is asked. The rules are all fit for it.
#[derive(Debug)]
pub struct Question<'a> {
    pub rules: &'a [Arc<Rule>],
    pub nodes: &'a [Node],
    pub from: WallMs,
    pub to: WallMs,
}

/// What there would have been.
#[derive(Debug, Default)]
pub struct Previewed {
    /// Each with the place of its node; in the order in which they would have fired.
    pub firings: Vec<(usize, Firing)>,
    /// By the places of rules.
    pub counts: Vec<Count>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub alerts: usize,
    pub nodes: usize,
    pub firing_ms: i64,
}

#[derive(Debug, Error)]
pub enum PreviewError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("it took too long")]
    TooLong,
}

impl Question<'_> {
    /// Frames that it reads, about.
    #[must_use]
    pub fn frames(&self) -> i64 {
        let span_ms = self.to.since(self.from).saturating_add(lead_ms(self.rules)).max(0);
        let of = |node: &Node| span_ms / i64::from(node.whose.interval_ms.max(1)) + 1;
        self.nodes.iter().map(of).fold(0, i64::saturating_add)
    }

    /// `is_late` is asked between nodes.
    pub fn answer(&self, window: &Window, is_late: &(dyn Fn() -> bool + Sync)) -> Result<Previewed, PreviewError> {
        let next = AtomicUsize::new(0);
        let work = || {
            // Without the right to it, they compete like the others.
            rustix::process::setpriority_process(None, NICE).ok();
            let part = self.work(window, &next, is_late);
            if part.is_err() {
                next.store(self.nodes.len(), Relaxed);
            }
            part
        };
        let parts = std::thread::scope(|scope| {
            let threads = [scope.spawn(work), scope.spawn(work)];
            threads.map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
        });
        let mut whole = Previewed { counts: vec![Count::default(); self.rules.len()], ..Previewed::default() };
        for part in parts {
            whole.add(part?);
        }
        whole.firings.sort_by(|(a, one), (b, other)| (one.fired, a).cmp(&(other.fired, b)));
        Ok(whole)
    }

    fn work(
        &self,
        window: &Window,
        next: &AtomicUsize,
        is_late: &(dyn Fn() -> bool + Sync),
    ) -> Result<Previewed, PreviewError> {
        let begins = self.from.plus(-lead_ms(self.rules));
        let mut window = window.open_range(begins, self.to)?;
        let mut part = Previewed { counts: vec![Count::default(); self.rules.len()], ..Previewed::default() };
        loop {
            let at = next.fetch_add(1, Relaxed);
            let Some(node) = self.nodes.get(at) else { return Ok(part) };
            if is_late() {
                return Err(PreviewError::TooLong);
            }
            let firings = self.of_node(&mut window, node, begins)?;
            part.take(at, firings, self);
        }
    }

    fn of_node(&self, window: &mut OpenWindow<'_>, node: &Node, begins: WallMs) -> Result<Vec<Firing>, ReadError> {
        let labels = &node.whose.labels;
        let is_on = |rule: &&Arc<Rule>| rule.is_on(|key| labels.get(key).map(String::as_str));
        let rules: Vec<Arc<Rule>> = self.rules.iter().filter(is_on).map(Arc::clone).collect();
        if rules.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = |subject: &Subject, measure: &Measure| is_read(&rules, subject, measure);
        let taken = Taken { wanted: &wanted, skew_ms: node.skew_ms, values_max: VALUES_MAX };
        let asked = Asked { node: node.key, from: begins, to: self.to, taken, frames_max: usize::MAX };
        let stretches = window.stretches(&asked)?;
        Ok(judge(&rules, &node.whose, &stretches, (self.from, self.to)))
    }
}

impl Previewed {
    fn take(&mut self, node: usize, firings: Vec<Firing>, question: &Question<'_>) {
        let mut rules_here = vec![false; question.rules.len()];
        for firing in firings {
            let Some(place) = question.rules.iter().position(|rule| Arc::ptr_eq(rule, &firing.rule)) else { continue };
            let count = &mut self.counts[place];
            count.alerts += 1;
            count.nodes += usize::from(!std::mem::replace(&mut rules_here[place], true));
            let (began, ended) = (firing.fired.max(question.from), firing.resolved.unwrap_or(question.to));
            count.firing_ms += ended.since(began).max(0);
            if self.firings.len() < KEPT_MAX {
                self.firings.push((node, firing));
            }
        }
    }

    fn add(&mut self, part: Self) {
        self.firings.extend(part.firings);
        for (whole, part) in self.counts.iter_mut().zip(part.counts) {
            whole.alerts += part.alerts;
            whole.nodes += part.nodes;
            whole.firing_ms += part.firing_ms;
        }
    }
}
