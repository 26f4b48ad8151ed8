//! What a function over time remembers of one series: the last stretch of it, in twelfths.
//!
//! Its size does not depend on how often the series has a value, and the window is at most a twelfth longer than it is
//! said to be. Time is that in which the collector listened: a pause of its own shortens no window.

use dunlin_shared::id::Epoch;
use dunlin_shared::metric::Kind;
use dunlin_shared::rule::{Function, Over};
use dunlin_shared::time::MonoMs;

/// Into how many parts a window is cut.
const PARTS: u64 = 12;

#[derive(Clone, Debug)]
pub(super) struct Window {
    over: Over,
    kind: Kind,
    /// An agent adds up what the processes of a group used: what a later run counts less did not begin anew.
    is_sum: bool,
    began: MonoMs,
    last: Option<Last>,
    /// The newest is the part `newest`; those before it follow backwards around the ring.
    parts: Box<[Part]>,
    newest: u64,
}

/// A value, and by which clock it was measured when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub(super) value: f64,
    pub(super) epoch: Epoch,
    pub(super) mono: MonoMs,
    /// When it was received.
    pub(super) ran: MonoMs,
}

type Last = Measured;

/// What fell into one part. What `sum` and `count` are of, the function says.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    sum: f32,
    count: u32,
}

impl Window {
    pub(super) fn new(over: Over, (kind, is_sum): (Kind, bool), began: MonoMs) -> Self {
        let is_stretch = !matches!(over.function, Function::Absent | Function::Last);
        // One more than the window has: the newest part has only begun.
        let parts = if is_stretch { vec![Part::default(); 13] } else { Vec::new() };
        let newest = part_of(began, over.window_ms);
        Self { over, kind, is_sum, began, last: None, parts: parts.into(), newest }
    }

    /// A value came.
    pub(super) fn push(&mut self, came: Measured) {
        self.turn(came.ran);
        let last = self.last.replace(came);
        let recent = last.filter(|last| came.ran.since(last.ran) <= self.over.window_ms);
        match self.over.function {
            Function::Absent | Function::Last => {}
            Function::Avg => self.add(came.value, 1),
            Function::Min => self.keep(came.value, f32::min),
            Function::Max => self.keep(came.value, f32::max),
            Function::Count { operator, than } => self.add(0.0, u32::from(operator.compares(came.value, than))),
            Function::Changes => {
                let changed = recent.is_some_and(|last| last.value.to_bits() != came.value.to_bits());
                self.add(0.0, u32::from(changed));
            }
            Function::Rate | Function::Delta => {
                if let Some(last) = recent
                    && let Some(grown) = self.grown(last, came)
                {
                    self.add(grown, passed_ms(last, came));
                }
            }
        }
    }

    /// What the function comes to now; no number where it has nothing to say.
    pub(super) fn value(&mut self, now: MonoMs) -> f64 {
        self.turn(now);
        let window_ms = self.over.window_ms;
        let last = self.last.filter(|last| now.since(last.ran) <= window_ms);
        match self.over.function {
            Function::Absent => {
                let since = self.last.map_or(self.began, |last| last.ran);
                f64::from(u8::from(now.since(since) >= window_ms))
            }
            _ if last.is_none() => f64::NAN,
            Function::Last => last.map_or(f64::NAN, |last| last.value),
            Function::Avg => self.sum() / self.count(),
            Function::Min => self.extreme(f32::min),
            Function::Max => self.extreme(f32::max),
            Function::Changes | Function::Count { .. } => self.count(),
            Function::Rate => self.sum() * 1_000.0 / self.count(),
            Function::Delta if self.count() > 0.0 => self.sum(),
            Function::Delta => f64::NAN,
        }
    }

    /// When it last had a value, or began to wait for one.
    pub(super) fn seen(&self) -> MonoMs {
        self.last.map_or(self.began, |last| last.ran)
    }

    /// By how much it grew. What fell began at nothing in between.
    fn grown(&self, last: Last, came: Measured) -> Option<f64> {
        if self.kind == Kind::Gauge || came.value >= last.value {
            return Some(came.value - last.value);
        }
        let is_other_sum = self.is_sum && came.epoch != last.epoch;
        (!is_other_sum).then_some(came.value.max(0.0))
    }

    /// Brings the ring to the part in which `now` lies.
    fn turn(&mut self, now: MonoMs) {
        let part = part_of(now, self.over.window_ms);
        let len = self.parts.len() as u64;
        let stale = part.saturating_sub(self.newest).min(len);
        for behind in 0..stale {
            let place = self.place(part - behind);
            self.parts[place] = Part::default();
        }
        self.newest = self.newest.max(part);
    }

    fn place(&self, part: u64) -> usize {
        // The remainder is below thirteen.
        usize::try_from(part % self.parts.len() as u64).unwrap_or_default()
    }

    fn add(&mut self, amount: f64, count: u32) {
        let place = self.place(self.newest);
        let part = &mut self.parts[place];
        #[expect(clippy::cast_possible_truncation, reason = "seven digits of what one twelfth adds are enough")]
        let amount = amount as f32;
        part.sum += amount;
        part.count = part.count.saturating_add(count);
    }

    fn keep(&mut self, value: f64, better: fn(f32, f32) -> f32) {
        let place = self.place(self.newest);
        let part = &mut self.parts[place];
        #[expect(clippy::cast_possible_truncation, reason = "seven digits are enough for a threshold")]
        let value = value as f32;
        part.sum = if part.count == 0 { value } else { better(part.sum, value) };
        part.count = 1;
    }

    fn extreme(&self, better: fn(f32, f32) -> f32) -> f64 {
        let had = self.parts.iter().filter(|part| part.count > 0).map(|part| part.sum);
        had.reduce(better).map_or(f64::NAN, round)
    }

    fn sum(&self) -> f64 {
        round_sum(self.parts.iter().map(|part| f64::from(part.sum)).sum())
    }

    fn count(&self) -> f64 {
        self.parts.iter().map(|part| f64::from(part.count)).sum()
    }
}

fn part_of(now: MonoMs, window_ms: u64) -> u64 {
    now.0 / (window_ms / PARTS).max(1)
}

/// By the agent's own clock within a run of it.
fn passed_ms(last: Last, came: Measured) -> u32 {
    let passed = if last.epoch == came.epoch { came.mono.since(last.mono) } else { came.ran.since(last.ran) };
    u32::try_from(passed).unwrap_or(u32::MAX)
}

/// What a short number was before it was shortened, as a person wrote it.
fn round(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

fn round_sum(value: f64) -> f64 {
    let scale = 10f64.powf(6.0 - value.abs().max(1e-9).log10().floor());
    (value * scale).round() / scale
}
