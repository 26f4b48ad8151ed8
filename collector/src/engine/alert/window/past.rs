//! A window that is told what was rolled up of the time before its first frame.
//!
//! What a roll-up does not hold is not made up: of changes it shows that there were some, at least one in a slot, and of
//! a counter how it grew and not where it stood.

use dunlin_shared::id::Epoch;
use dunlin_shared::metric::Kind;
use dunlin_shared::rule::{Function, Operator};
use dunlin_shared::time::MonoMs;

use super::super::past::{Past, Slot};
use super::{Measured, PARTS, Part, Parts, Window, part_of, place};

impl Window {
    /// Slots that lie before every frame that it was told of. `tick_ms` is how often the series is measured.
    pub(in super::super) fn past(&mut self, now: MonoMs, tick_ms: u64, past: &Past) {
        let Some(newest) = past.slots.last() else { return };
        self.turn(now);
        if !matches!(self.over.function, Function::Absent | Function::Last) {
            self.unfold(now);
            let mut before: Option<&Slot> = None;
            for slot in &past.slots {
                self.add_slot(slot, before.replace(slot), (tick_ms, past));
            }
        }
        // Of what was never seen since, only the parts say that it was measured.
        if self.last.is_some() {
            self.flatten(now);
        }
        // Where a counter stood nobody knows; that it was there is enough for what asks whether it is.
        let is_known = past.kind == Kind::Gauge || self.over.function == Function::Absent;
        if is_known && self.last.is_none() {
            let (epoch, mono) = (Epoch(0), newest.to);
            self.last = Some(Measured { value: newest.last, epoch, mono, ran: newest.to });
        }
    }

    /// It was never seen, and something else says that it is not there since then.
    pub(in super::super) fn absent_since(&mut self, since: MonoMs) {
        if self.over.function == Function::Absent && self.last.is_none() {
            self.began = self.began.min(MonoMs(since.0.saturating_sub(self.over.window_ms)));
        }
    }

    /// What was flat gets its parts, as if it had moved now.
    fn unfold(&mut self, now: MonoMs) {
        if self.parts.is_some() {
            return;
        }
        let (function, part_ms) = (self.over.function, self.part_ms());
        let mut parts = Box::new(Parts::new(part_of(now, part_ms)));
        if let (Some(flat), Some(last)) = (self.flat.take(), self.last) {
            let is_of_values = matches!(function, Function::Avg | Function::Min | Function::Max);
            let to = if is_of_values { last.ran.plus(1) } else { last.ran };
            parts.fill(flat.since, to, part_ms, |part, ms| match function {
                Function::Avg => {
                    part.count = flat.count(ms);
                    part.sum = short(last.value * f64::from(part.count));
                }
                Function::Min | Function::Max => (part.sum, part.count) = (short(last.value), 1),
                Function::Rate | Function::Delta => part.count = part.count.saturating_add(ms),
                _ => {}
            });
        }
        self.parts = Some(parts);
    }

    fn add_slot(&mut self, slot: &Slot, before: Option<&Slot>, (tick_ms, past): (u64, &Past)) {
        let (over, part_ms) = (self.over, self.part_ms());
        let Some(part) = self.parts.as_mut().and_then(|parts| parts.at(slot.at(), part_ms)) else { return };
        let measured_ms = u32::try_from(past.measured_ms(slot, tick_ms)).unwrap_or(u32::MAX);
        match over.function {
            Function::Avg => part.add(slot.mean * f64::from(slot.count), slot.count),
            Function::Min => part.keep(slot.min, f32::min),
            Function::Max => part.keep(slot.max, f32::max),
            Function::Rate | Function::Delta if past.kind == Kind::Counter => {
                part.add(past.grown(slot, tick_ms), measured_ms);
            }
            Function::Rate | Function::Delta => {
                let near = before.filter(|before| slot.from.since(before.to) <= over.window_ms);
                if let Some(before) = near {
                    part.add(slot.last - before.last, measured_ms);
                }
            }
            Function::Changes => part.add(0.0, u32::from(changes(slot, before, past.kind))),
            Function::Count { operator, than } if past.kind == Kind::Gauge => {
                part.add(0.0, count_over(slot, operator, than));
            }
            Function::Count { .. } | Function::Absent | Function::Last => {}
        }
    }
}

impl Parts {
    /// The part of a moment, as long as it is in the ring.
    fn at(&mut self, at: MonoMs, part_ms: u64) -> Option<&mut Part> {
        let part = part_of(at, part_ms);
        let is_held = part <= self.newest && part + PARTS >= self.newest;
        is_held.then(|| &mut self.ring[place(part)])
    }
}

impl Part {
    fn add(&mut self, amount: f64, count: u32) {
        self.sum += short(amount);
        self.count = self.count.saturating_add(count);
    }

    fn keep(&mut self, value: f64, join: fn(f32, f32) -> f32) {
        let value = short(value);
        self.sum = if self.count == 0 { value } else { join(self.sum, value) };
        self.count = 1;
    }
}

/// Whether any value within a slot differs from the one before it.
fn changes(slot: &Slot, before: Option<&Slot>, kind: Kind) -> bool {
    match kind {
        Kind::Counter => slot.max > 0.0,
        Kind::Gauge => {
            let first = before.map_or(slot.min, |before| before.last);
            [slot.min, slot.max, slot.last].iter().any(|value| value.to_bits() != first.to_bits())
        }
    }
}

/// How many values of a slot compare so: all, none, or as many as there were of two values with its mean.
fn count_over(slot: &Slot, operator: Operator, than: f64) -> u32 {
    let [low, high] = [slot.min, slot.max].map(|value| operator.compares(value, than));
    let high_part = slot.high_part();
    let part = f64::from(u8::from(high)) * high_part + f64::from(u8::from(low)) * (1.0 - high_part);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a count")]
    let count = (f64::from(slot.count) * part).round() as u32;
    // What compares so at one end does so once at least, and not always.
    count.max(u32::from(low || high)).min(slot.count.saturating_sub(u32::from(low != high)))
}

#[expect(clippy::cast_possible_truncation, reason = "seven digits of what one twelfth holds are enough")]
const fn short(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dunlin_shared::metric::Step;
    use dunlin_shared::rule::{Over, Source};
    use proptest::prelude::*;

    use super::*;
    use crate::record::NodeKey;

    const HOUR_MS: u64 = 3_600_000;
    const WINDOW_MS: u64 = 6 * HOUR_MS;
    const SLOT_MS: u64 = 300_000;
    const TICK_MS: u64 = 10_000;
    /// Late enough that the ring was turned.
    const FIRST_MS: u64 = 10 * HOUR_MS;

    fn measured(at: u64, value: f64) -> Measured {
        Measured { value, epoch: Epoch(1), mono: MonoMs(at), ran: MonoMs(at) }
    }

    /// As they are rolled up: of a counter by the rates of its pairs.
    fn rolled(values: &[(u64, f64)], kind: Kind) -> Past {
        let points: Vec<(u64, f64)> = match kind {
            Kind::Gauge => values.to_vec(),
            Kind::Counter => {
                let rate = |pair: &[(u64, f64)]| (pair[1].1 - pair[0].1) * 1e3 / (pair[1].0 - pair[0].0) as f64;
                values.windows(2).map(|pair| (pair[1].0, rate(pair))).collect()
            }
        };
        let slot = |points: &[(u64, f64)]| {
            let from = points[0].0 / SLOT_MS * SLOT_MS;
            let of = || points.iter().map(|(_, value)| *value);
            Slot {
                from: MonoMs(from),
                to: MonoMs(from + SLOT_MS),
                min: of().fold(f64::INFINITY, f64::min),
                max: of().fold(f64::NEG_INFINITY, f64::max),
                mean: of().sum::<f64>() / points.len() as f64,
                last: of().next_back().expect("it has some"),
                count: u32::try_from(points.len()).expect("few"),
            }
        };
        let slots = points.chunk_by(|a, b| a.0 / SLOT_MS == b.0 / SLOT_MS).map(slot).collect();
        let (source, subject) = (Source::Open("x_any".into()), Arc::from("host"));
        Past { node: NodeKey(1), source, subject, kind, step: Step::Each(1), slots }
    }

    /// The same series in a window that saw all of it, and in one that was told what lies before the cut.
    fn both(function: Function, kind: Kind, values: &[(u64, f64)], cut: usize) -> (f64, f64) {
        let window = || Window::new(Over { function, window_ms: WINDOW_MS }, (kind, false), MonoMs(0));
        let (mut whole, mut told) = (window(), window());
        values.iter().for_each(|(at, value)| whole.push(measured(*at, *value)));
        values[cut..].iter().for_each(|(at, value)| told.push(measured(*at, *value)));
        let now = MonoMs(values.last().map_or(0, |(at, _)| *at));
        told.past(now, TICK_MS, &rolled(&values[..cut], kind));
        (whole.value(now), told.value(now))
    }

    /// Two levels for a while each, with times at which nothing is measured. Each stretch begins with a slot.
    fn stretches() -> impl Strategy<Value = Vec<(u64, f64)>> {
        let stretch = (prop_oneof![Just(Some(3.0)), Just(Some(8.0)), Just(None)], 1u64..15);
        prop::collection::vec(stretch, 6..16).prop_map(|stretches| {
            let (mut at, mut values) = (FIRST_MS, Vec::new());
            for (value, slots) in stretches {
                for tick in 0..slots * SLOT_MS / TICK_MS {
                    values.extend(value.map(|value| (at + tick * TICK_MS, value)));
                }
                at += slots * SLOT_MS;
            }
            values
        })
    }

    proptest! {
        #[test]
        fn what_was_rolled_up_says_what_its_values_say(values in stretches(), cut in 0.1f64..0.95) {
            prop_assume!(values.len() > 200);
            // Journals end with slots here: what lies in one slot is told in one way.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
            let cut = (values.len() as f64 * cut) as usize;
            let cut = (cut..values.len() - 1).find(|at| values[*at].0 % SLOT_MS == 0);
            prop_assume!(cut.is_some());
            let cut = cut.expect("it is some");
            let above = Function::Count { operator: Operator::Greater, than: 5.0 };
            for function in [Function::Avg, Function::Min, Function::Max, above] {
                let (whole, told) = both(function, Kind::Gauge, &values, cut);
                prop_assert!((whole - told).abs() <= whole.abs() / 1e4, "{function:?}: {told} and not {whole}");
            }
            let (whole, told) = both(Function::Changes, Kind::Gauge, &values, cut);
            prop_assert!(told <= whole + 1.0 && (told > 0.0 || whole <= 1.0), "{told} changes of {whole}");
            // Of a counter that grows so much with each tick; what grew between both is not known.
            let mut sum = 0.0;
            let counted: Vec<_> = values.iter().map(|(at, value)| { sum += value; (*at, sum) }).collect();
            let gapless = counted.windows(2).all(|pair| pair[1].0 - pair[0].0 == TICK_MS);
            if gapless {
                let (whole, told) = both(Function::Delta, Kind::Counter, &counted, cut);
                prop_assert!((0.0..=16.0).contains(&(whole - told).round()), "it grew by {told} and not {whole}");
                let (whole, told) = both(Function::Rate, Kind::Counter, &counted, cut);
                prop_assert!((whole - told).abs() <= 0.02, "{told} a second and not {whole}");
            }
        }
    }

    #[test]
    fn what_did_not_move_before_takes_no_parts_either() {
        let values: Vec<_> = (0..2_160).map(|tick| (FIRST_MS + tick * TICK_MS, 1.0)).collect();
        let cut = 2_100;
        for (function, kind, value) in [
            (Function::Min, Kind::Gauge, 1.0),
            (Function::Avg, Kind::Gauge, 1.0),
            (Function::Delta, Kind::Counter, 0.0),
        ] {
            let mut window = Window::new(Over { function, window_ms: WINDOW_MS }, (kind, false), MonoMs(0));
            values[cut..].iter().for_each(|(at, value)| window.push(measured(*at, *value)));
            let now = MonoMs(values[values.len() - 1].0);
            window.past(now, TICK_MS, &rolled(&values[..cut], kind));
            // An average knows by then that no part of the window lacks values.
            assert_eq!((window.parts.is_some(), window.value(now)), (function == Function::Avg, value), "{function:?}");
        }
    }

    #[test]
    fn growth_is_told_in_whole_steps_and_of_as_long_as_was_measured() {
        // One restart in six hours, kept as a rate of thirteen digits.
        let slot = |at: u64, mean: f64, count| Slot {
            from: MonoMs(at),
            to: MonoMs(at + SLOT_MS),
            min: 0.0,
            max: mean,
            mean,
            last: 0.0,
            count,
        };
        let slots = vec![slot(FIRST_MS, 0.003_332_8, 30), slot(FIRST_MS + SLOT_MS, 0.099_98, 1)];
        let past = Past { slots, ..rolled(&[], Kind::Counter) };
        let window = |function| Window::new(Over { function, window_ms: WINDOW_MS }, (Kind::Counter, false), MonoMs(0));
        let now = MonoMs(FIRST_MS + 2 * SLOT_MS);
        let mut delta = window(Function::Delta);
        delta.past(now, TICK_MS, &past);
        assert!(delta.value(now).is_nan(), "nothing is measured yet");
        delta.push(measured(now.0, 2.0));
        assert_eq!(delta.value(now), 2.0);
        delta.push(measured(now.0 + TICK_MS, 5.0));
        assert_eq!(delta.value(now.plus(TICK_MS)), 5.0);
    }

    #[test]
    fn what_asks_for_the_last_value_and_whether_it_is_there_is_told_when_that_was() {
        let at = FIRST_MS;
        let past = rolled(&[(at, 4.0), (at + TICK_MS, 5.0)], Kind::Gauge);
        let window = |function| Window::new(Over { function, window_ms: WINDOW_MS }, (Kind::Gauge, false), MonoMs(at));
        let now = MonoMs(at + 5 * HOUR_MS);
        let (mut last, mut absent) = (window(Function::Last), window(Function::Absent));
        for window in [&mut last, &mut absent] {
            window.past(now, TICK_MS, &past);
        }
        assert_eq!((last.value(now), absent.value(now)), (5.0, 0.0));
        let later = MonoMs(at + WINDOW_MS + SLOT_MS);
        assert_eq!(absent.value(later), 1.0);
        assert!(last.value(later.plus(1)).is_nan());
        let mut never = window(Function::Absent);
        never.past(now, TICK_MS, &rolled(&[], Kind::Gauge));
        assert_eq!(never.value(now), 0.0, "a node that is new has not been without it for long");
        never.absent_since(now);
        assert_eq!(never.value(now), 1.0, "unless an alert says so");
    }
}
