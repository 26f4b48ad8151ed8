//! What a function over time remembers of one series: the last stretch of it, in twelfths.
//!
//! Its size does not depend on how often the series has a value, and the window is at most a twelfth longer than it is
//! said to be. Most series that rules read are flat: no container restarts, no disk becomes read-only. Of such a one only
//! since when it is flat is remembered, and the twelfths come when it moves. Time is that in which the collector listened:
//! a pause of its own shortens no window.

mod past;

use std::num::NonZeroU32;

use dunlin_shared::id::Epoch;
use dunlin_shared::metric::Kind;
use dunlin_shared::rule::{Function, Over};
use dunlin_shared::time::MonoMs;

use super::past::is_long;

/// Into how many parts a window is cut.
const PARTS: u64 = 12;
/// How far back a start finds all frames as they came: what a keeper leaves in journals. Longer windows are told the past.
pub const REMEMBERED_MS: u64 = 600_000;

/// A host has some tens of them, and a fleet some hundred thousand.
#[derive(Clone, Debug)]
pub(super) struct Window {
    over: Over,
    kind: Kind,
    /// An agent adds up what the processes of a group used: what a later run counts less did not begin anew.
    is_sum: bool,
    began: MonoMs,
    last: Option<Measured>,
    /// Since when values said the same, while there are no parts.
    flat: Option<Flat>,
    parts: Option<Box<Parts>>,
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

/// A stretch of one value, measured at even times.
#[derive(Clone, Copy, Debug)]
struct Flat {
    since: MonoMs,
    /// How often it was measured; the largest for what was measured once.
    every_ms: NonZeroU32,
}

/// A ring: the newest is the part `newest`, and those before it follow backwards. One more than the window has, since the
/// newest has only begun.
#[derive(Clone, Debug)]
struct Parts {
    newest: u64,
    ring: [Part; 13],
}

/// What fell into one part. What `sum` and `count` are of, the function says.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    sum: f32,
    count: u32,
}

impl Window {
    pub(super) const fn new(over: Over, (kind, is_sum): (Kind, bool), began: MonoMs) -> Self {
        Self { over, kind, is_sum, began, last: None, flat: None, parts: None }
    }

    pub(super) const fn is_long(&self) -> bool {
        is_long(self.over)
    }

    /// A value came.
    pub(super) fn push(&mut self, came: Measured) {
        self.turn(came.ran);
        let last = self.last.replace(came);
        let last = last.filter(|last| came.ran.since(last.ran) <= self.over.window_ms);
        if last.is_none() {
            self.flat = None;
        }
        match self.over.function {
            Function::Absent | Function::Last => {}
            Function::Avg => self.keep(last, came, |part, value| part.sum += value),
            Function::Min => self.keep(last, came, |part, value| part.sum = part.sum.min(value)),
            Function::Max => self.keep(last, came, |part, value| part.sum = part.sum.max(value)),
            Function::Count { operator, than } => {
                self.add(last, came, (0.0, u32::from(operator.compares(came.value, than))));
            }
            Function::Changes => {
                let changed = last.is_some_and(|last| last.value.to_bits() != came.value.to_bits());
                self.add(last, came, (0.0, u32::from(changed)));
            }
            Function::Rate | Function::Delta => {
                if let Some((before, grown)) = last.and_then(|last| Some((last, self.grown(last, came)?))) {
                    self.add(last, came, (grown, passed_ms(before, came)));
                }
            }
        }
    }

    /// What the function comes to now; no number where it has nothing to say.
    pub(super) fn value(&mut self, now: MonoMs) -> f64 {
        self.turn(now);
        let window_ms = self.over.window_ms;
        let last = self.last.filter(|last| now.since(last.ran) <= window_ms);
        match (self.over.function, last, &self.parts) {
            (Function::Absent, ..) => f64::from(u8::from(now.since(self.seen()) >= window_ms)),
            (_, None, _) => f64::NAN,
            (Function::Last | Function::Avg | Function::Min | Function::Max, Some(last), None) => last.value,
            (Function::Last, Some(last), _) => last.value,
            (Function::Changes | Function::Count { .. }, _, None) => 0.0,
            (Function::Rate | Function::Delta, _, None) if self.flat.is_some() => 0.0,
            (Function::Rate | Function::Delta, _, None) => f64::NAN,
            (Function::Avg, _, Some(parts)) => parts.sum() / parts.count(),
            (Function::Min, _, Some(parts)) => parts.extreme(f32::min),
            (Function::Max, _, Some(parts)) => parts.extreme(f32::max),
            (Function::Changes | Function::Count { .. }, _, Some(parts)) => parts.count(),
            (Function::Rate, _, Some(parts)) => parts.sum() * 1_000.0 / parts.count(),
            (Function::Delta, _, Some(parts)) if parts.count() > 0.0 => parts.sum(),
            (Function::Delta, _, Some(_)) => f64::NAN,
        }
    }

    /// When it last had a value, or began to wait for one.
    pub(super) fn seen(&self) -> MonoMs {
        self.last.map_or(self.began, |last| last.ran)
    }

    /// By how much it grew. What fell began at nothing in between.
    fn grown(&self, last: Measured, came: Measured) -> Option<f64> {
        if self.kind == Kind::Gauge || came.value >= last.value {
            return Some(came.value - last.value);
        }
        let is_other_sum = self.is_sum && came.epoch != last.epoch;
        (!is_other_sum).then_some(came.value.max(0.0))
    }

    /// For functions that add: nothing is added while it is flat.
    fn add(&mut self, last: Option<Measured>, came: Measured, (amount, count): (f64, u32)) {
        let is_growth = matches!(self.over.function, Function::Rate | Function::Delta);
        let moves = if is_growth { amount != 0.0 } else { count > 0 };
        if !moves && self.parts.is_none() {
            let since = last.map_or(came.ran, |last| last.ran);
            self.flat.get_or_insert(Flat::new(since));
            return;
        }
        // Of what was flat, growth has to know how long it was.
        let flat = self.flat.take().filter(|_| is_growth);
        let part_ms = self.part_ms();
        let parts = self.parts.get_or_insert_with(|| Box::new(Parts::new(part_of(came.ran, part_ms))));
        if let (Some(flat), Some(last)) = (flat, last) {
            parts.fill(flat.since, last.ran, part_ms, |part, ms| part.count = part.count.saturating_add(ms));
        }
        let part = parts.newest();
        #[expect(clippy::cast_possible_truncation, reason = "seven digits of what one twelfth adds are enough")]
        let amount = amount as f32;
        part.sum += amount;
        part.count = part.count.saturating_add(count);
    }

    /// For functions of the values themselves: it is flat while they are the same.
    fn keep(&mut self, last: Option<Measured>, came: Measured, join: impl Fn(&mut Part, f32)) {
        #[expect(clippy::cast_possible_truncation, reason = "seven digits are enough for a threshold")]
        let short = |value: f64| value as f32;
        let (is_avg, part_ms) = (self.over.function == Function::Avg, self.part_ms());
        let passed_ms = last.map_or(0, |last| came.ran.since(last.ran));
        // A time at which nothing was measured weighs nothing in an average.
        let is_uneven = is_avg && self.flat.is_some_and(|flat| flat.is_uneven(passed_ms));
        let moves = is_uneven || last.is_some_and(|last| last.value.to_bits() != came.value.to_bits());
        if !moves && self.parts.is_none() {
            let since = last.map_or(came.ran, |last| last.ran);
            self.flat.get_or_insert(Flat::new(since)).hear(passed_ms);
            return;
        }
        let flat = self.flat.take();
        let parts = self.parts.get_or_insert_with(|| Box::new(Parts::new(part_of(came.ran, part_ms))));
        if let (Some(flat), Some(last)) = (flat, last) {
            parts.fill(flat.since, last.ran.plus(1), part_ms, |part, ms| {
                let count = if is_avg { flat.count(ms) } else { 1 };
                #[expect(clippy::cast_precision_loss, reason = "a number of values")]
                let times = if is_avg { count as f32 } else { 1.0 };
                (part.sum, part.count) = (short(last.value) * times, count);
            });
        }
        let part = parts.newest();
        if part.count == 0 {
            part.sum = short(came.value);
        } else {
            join(part, short(came.value));
        }
        part.count = if is_avg { part.count + 1 } else { 1 };
    }

    /// Brings the ring to the part in which `now` lies. One that is flat by then goes.
    fn turn(&mut self, now: MonoMs) {
        let part_ms = self.part_ms();
        if self.parts.as_mut().is_some_and(|parts| parts.turn(part_of(now, part_ms))) {
            self.flatten(now);
        }
    }

    /// Lets go of the parts where they say no more than that it is flat.
    fn flatten(&mut self, now: MonoMs) {
        let part_ms = self.part_ms();
        let Some(parts) = &self.parts else { return };
        let is_flat = match self.over.function {
            Function::Rate | Function::Delta => parts.ring.iter().all(|part| part.sum == 0.0),
            Function::Changes | Function::Count { .. } => parts.ring.iter().all(|part| part.count == 0),
            Function::Avg if !parts.is_even() => false,
            Function::Min | Function::Max | Function::Avg => self.last.is_some_and(|last| parts.are_all(last.value)),
            Function::Absent | Function::Last => true,
        };
        if is_flat {
            let mut flat = Flat::new(MonoMs(now.0.saturating_sub(self.over.window_ms)));
            flat.hear(part_ms / u64::from(parts.most()).max(1));
            self.parts = None;
            self.flat = self.last.filter(|last| last.ran >= flat.since).map(|_| flat);
        }
    }

    fn part_ms(&self) -> u64 {
        (self.over.window_ms / PARTS).max(1)
    }
}

impl Flat {
    const fn new(since: MonoMs) -> Self {
        Self { since, every_ms: NonZeroU32::MAX }
    }

    /// The same value again, so long after the one before.
    fn hear(&mut self, passed_ms: u64) {
        if let Some(passed_ms) = u32::try_from(passed_ms).ok().and_then(NonZeroU32::new) {
            self.every_ms = self.every_ms.min(passed_ms);
        }
    }

    /// Whether that is far from how often it was measured.
    fn is_uneven(self, passed_ms: u64) -> bool {
        let every_ms = u64::from(self.every_ms.get());
        self.every_ms != NonZeroU32::MAX && (passed_ms > 3 * every_ms || 3 * passed_ms < every_ms)
    }

    /// How many values there were in so long a part of it.
    fn count(self, ms: u32) -> u32 {
        ms.div_ceil(self.every_ms.get()).max(1)
    }
}

impl Parts {
    fn new(newest: u64) -> Self {
        Self { newest, ring: [Part::default(); 13] }
    }

    fn newest(&mut self) -> &mut Part {
        &mut self.ring[place(self.newest)]
    }

    /// Whether another part began.
    fn turn(&mut self, part: u64) -> bool {
        let stale = part.saturating_sub(self.newest).min(self.ring.len() as u64);
        for behind in 0..stale {
            self.ring[place(part - behind)] = Part::default();
        }
        self.newest = self.newest.max(part);
        stale > 0
    }

    /// What was flat from one moment to another, as far as the ring still has it.
    fn fill(&mut self, from: MonoMs, to: MonoMs, part_ms: u64, mut with: impl FnMut(&mut Part, u32)) {
        let oldest = self.newest.saturating_sub(PARTS);
        for part in oldest.max(from.0 / part_ms)..=self.newest.min(to.0 / part_ms) {
            let (begins, ends) = (part * part_ms, (part + 1) * part_ms);
            let ms = ends.min(to.0).saturating_sub(begins.max(from.0));
            if ms > 0 {
                with(&mut self.ring[place(part)], u32::try_from(ms).unwrap_or(u32::MAX));
            }
        }
    }

    /// Whether nothing but this value is in them.
    fn are_all(&self, value: f64) -> bool {
        #[expect(clippy::cast_possible_truncation, reason = "as it was kept")]
        let value = value as f32;
        #[expect(clippy::cast_precision_loss, reason = "a number of values")]
        let is_so = |part: &&Part| part.sum.to_bits() == (value * part.count as f32).to_bits();
        let mut had = self.ring.iter().filter(|part| part.count > 0);
        had.all(|part| is_so(&part))
    }

    /// The most values that a part has.
    fn most(&self) -> u32 {
        self.ring.iter().map(|part| part.count).max().unwrap_or(0)
    }

    /// Whether all parts but the newest have about as many values.
    fn is_even(&self) -> bool {
        let newest = place(self.newest);
        let least = self.ring.iter().enumerate().filter(|(at, _)| *at != newest).map(|(_, part)| part.count).min();
        least.is_some_and(|least| u64::from(least) * 10 >= u64::from(self.most()) * 9)
    }

    fn extreme(&self, better: fn(f32, f32) -> f32) -> f64 {
        let had = self.ring.iter().filter(|part| part.count > 0).map(|part| part.sum);
        had.reduce(better).map_or(f64::NAN, round)
    }

    fn sum(&self) -> f64 {
        round_sum(self.ring.iter().map(|part| f64::from(part.sum)).sum())
    }

    fn count(&self) -> f64 {
        self.ring.iter().map(|part| f64::from(part.count)).sum()
    }
}

fn place(part: u64) -> usize {
    // The remainder is below thirteen.
    usize::try_from(part % 13).unwrap_or_default()
}

const fn part_of(now: MonoMs, part_ms: u64) -> u64 {
    now.0 / part_ms
}

/// By the agent's own clock within a run of it.
fn passed_ms(last: Measured, came: Measured) -> u32 {
    let passed = if last.epoch == came.epoch { came.mono.since(last.mono) } else { came.ran.since(last.ran) };
    u32::try_from(passed).unwrap_or(u32::MAX)
}

/// What a short number was before it was shortened, as a person wrote it.
fn round(value: f32) -> f64 {
    round_sum(f64::from(value))
}

/// To seven digits, which is what the parts hold.
fn round_sum(value: f64) -> f64 {
    let scale = 10f64.powf(6.0 - value.abs().max(1e-9).log10().floor());
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use dunlin_shared::rule::Operator;
    use proptest::prelude::*;

    use super::*;

    const WINDOW_MS: u64 = 120_000;

    /// Frames each ten seconds, some of them without a value.
    fn values() -> impl Strategy<Value = Vec<Option<f64>>> {
        let value = prop_oneof![8 => Just(Some(5.0)), 3 => Just(Some(7.0)), 1 => Just(Some(0.0)), 1 => Just(None)];
        // Long enough to become flat and to move again.
        prop::collection::vec((value, 1usize..20), 1..20)
            .prop_map(|runs| runs.into_iter().flat_map(|(value, count)| vec![value; count]).collect())
    }

    /// What is within the window as the window has it: all parts that it still holds.
    fn within(seen: &[(u64, f64)], now: u64) -> Vec<(u64, f64)> {
        let part_ms = WINDOW_MS / PARTS;
        let oldest = (now / part_ms).saturating_sub(PARTS);
        seen.iter().copied().filter(|(at, _)| at / part_ms >= oldest).collect()
    }

    fn plain(function: Function, seen: &[(u64, f64)], now: u64) -> f64 {
        let here = within(seen, now);
        let Some((last_at, last)) = seen.last().copied().filter(|(at, _)| now - at <= WINDOW_MS) else {
            return f64::NAN;
        };
        let values = || here.iter().map(|(_, value)| *value);
        // Pairs belong to the part of the later one; nothing joins what lies further apart than a window.
        let pairs = || {
            let pairs = seen.windows(2).filter(|pair| pair[1].0 - pair[0].0 <= WINDOW_MS);
            pairs.filter(|pair| !within(&pair[1..], now).is_empty())
        };
        match function {
            Function::Last => last,
            Function::Avg => values().sum::<f64>() / values().count() as f64,
            Function::Min => values().fold(f64::INFINITY, f64::min),
            Function::Max => values().fold(f64::NEG_INFINITY, f64::max),
            Function::Delta => {
                if pairs().next().is_some() {
                    pairs().map(|pair| pair[1].1 - pair[0].1).sum()
                } else {
                    f64::NAN
                }
            }
            Function::Changes => pairs().filter(|pair| pair[0].1 != pair[1].1).count() as f64,
            Function::Count { operator, than } => {
                values().filter(|value| operator.compares(*value, than)).count() as f64
            }
            Function::Rate | Function::Absent => f64::from(u8::try_from(last_at).unwrap_or_default()),
        }
    }

    proptest! {
        #[test]
        fn a_window_says_what_its_values_say_whether_it_is_flat_or_not(values in values()) {
            let above = Function::Count { operator: Operator::Greater, than: 6.0 };
            let functions =
                [Function::Last, Function::Min, Function::Max, Function::Delta, Function::Changes, above];
            for function in functions {
                let over = Over { function, window_ms: WINDOW_MS };
                let mut window = Window::new(over, (Kind::Gauge, false), MonoMs(0));
                let mut seen = Vec::new();
                for (at, value) in (0..).step_by(10_000).zip(&values) {
                    let ran = MonoMs(at);
                    if let Some(value) = *value {
                        window.push(Measured { value, epoch: Epoch(1), mono: ran, ran });
                        seen.push((at, value));
                    }
                    let (said, plain) = (window.value(ran), plain(function, &seen, at));
                    let is_same = said.is_nan() && plain.is_nan() || (said - plain).abs() < 1e-6;
                    prop_assert!(is_same, "{function:?} at {at}: {said} and not {plain}, of {seen:?}");
                }
            }
        }

        #[test]
        fn an_average_and_a_rate_are_near_what_they_are(values in values()) {
            let of = |function, kind| {
                let over = Over { function, window_ms: WINDOW_MS };
                Window::new(over, (kind, false), MonoMs(0))
            };
            let (mut avg, mut rate) = (of(Function::Avg, Kind::Gauge), of(Function::Rate, Kind::Counter));
            let (mut seen, mut counted) = (Vec::new(), 0.0);
            for (at, value) in (0..).step_by(10_000).zip(values.iter().map(|value| value.unwrap_or(5.0))) {
                let ran = MonoMs(at);
                counted += value;
                avg.push(Measured { value, epoch: Epoch(1), mono: ran, ran });
                rate.push(Measured { value: counted, epoch: Epoch(1), mono: ran, ran });
                seen.push((at, value));
                let here = within(&seen, at);
                let mean = here.iter().map(|(_, value)| *value).sum::<f64>() / here.len() as f64;
                prop_assert!((avg.value(ran) - mean).abs() < 0.35, "{} and not {mean}", avg.value(ran));
                let pairs: Vec<_> = here.iter().filter(|(at, _)| *at > 0).collect();
                if let (false, said) = (pairs.is_empty(), rate.value(ran)) {
                    let grown: f64 = pairs.iter().map(|(_, value)| *value).sum::<f64>() / (pairs.len() as f64 * 10.0);
                    prop_assert!((said - grown).abs() < 0.06, "{said} and not {grown} a second");
                }
            }
        }
    }

    #[test]
    fn a_time_at_which_nothing_was_measured_weighs_nothing_in_an_average() {
        for (before, after) in [(4.0, 8.0), (4.0, 4.0)] {
            let mut window =
                Window::new(Over { function: Function::Avg, window_ms: WINDOW_MS }, (Kind::Gauge, false), MonoMs(0));
            let mut push = |at: u64, value: f64| {
                window.push(Measured { value, epoch: Epoch(1), mono: MonoMs(at), ran: MonoMs(at) });
                window.value(MonoMs(at))
            };
            for at in (0..=30_000).step_by(10_000) {
                push(at, before);
            }
            push(80_000, after);
            push(90_000, after);
            assert_eq!(push(100_000, 12.0), (4.0 * before + 2.0 * after + 12.0) / 7.0);
        }
    }

    #[test]
    fn what_does_not_move_takes_no_parts() {
        let over = Over { function: Function::Delta, window_ms: WINDOW_MS };
        let mut window = Window::new(over, (Kind::Counter, false), MonoMs(0));
        let mut push = |at: u64, value: f64| {
            window.push(Measured { value, epoch: Epoch(1), mono: MonoMs(at), ran: MonoMs(at) });
            (window.parts.is_some(), window.value(MonoMs(at)))
        };
        assert!(push(0, 3.0).1.is_nan());
        assert_eq!(push(10_000, 3.0), (false, 0.0));
        assert_eq!(push(20_000, 4.0), (true, 1.0));
        for at in (30_000..=150_000).step_by(10_000) {
            assert!(push(at, 4.0).1 <= 1.0);
        }
        assert_eq!(push(160_000, 4.0), (false, 0.0));
        assert!(size_of::<Window>() <= 112, "{}", size_of::<Window>());
    }
}
