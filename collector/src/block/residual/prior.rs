//! What a model believes before it has seen anything: misses fall off exponentially about their mean size.
//!
//! Worked out at build time from sums, products and quotients alone, which are the same everywhere. What is
//! on disks was written with these: another belief is another version of the format.

use super::{Model, POWERS, SIZES, STEP_EXPECTED, STEPS, Surprise, ZERO_SIZES, expected_power};
use crate::block::mix::Weights;
use crate::block::range::Bit;

/// How much of the belief stands after how many sightings: it is worth three of them.
const SEEN: u32 = 3;

pub(super) static PRIMED: Model = Model {
    zero_slow: {
        let mut bits = [Bit::UNKNOWN; ZERO_SIZES];
        let mut size = 0;
        while size < ZERO_SIZES {
            bits[size] = miss_at_all(size);
            size += 1;
        }
        bits
    },
    zero_fast: {
        let mut bits = [Bit::UNKNOWN; ZERO_SIZES * 4];
        let mut at = 0;
        while at < bits.len() {
            bits[at] = miss_at_all(at / 4);
            at += 1;
        }
        bits
    },
    zero_near: [Bit::UNKNOWN; Surprise::ALL],
    zero_weights: [Weights::EVEN; 2],
    step_slow: {
        let mut rows = [[Bit::UNKNOWN; STEPS]; SIZES];
        let mut size = 0;
        while size < SIZES {
            rows[size] = steps(size);
            size += 1;
        }
        rows
    },
    step_fast: {
        let mut rows = [[Bit::UNKNOWN; STEPS]; SIZES * 2];
        let mut at = 0;
        while at < rows.len() {
            rows[at] = steps(at / 2);
            at += 1;
        }
        rows
    },
    step_near: [[Bit::UNKNOWN; STEPS]; Surprise::ALL],
    step_weights: [Weights::EVEN; STEPS],
    sign: [Bit::UNKNOWN; 9],
    first: [[Bit::UNKNOWN; 4]; POWERS],
    second: [[Bit::UNKNOWN; 2]; POWERS],
    third: [[Bit::UNKNOWN; 4]; POWERS],
};

/// The mean that a size in half powers of two stands for.
const fn mean(size: usize) -> f64 {
    if size == 0 {
        return 0.03;
    }
    // The middle of the half power: 2^-0.25 and 2^0.25 of what the whole one counts.
    let middle = if size % 2 == 1 { 1.189_207_115 } else { 1.681_792_830_5 };
    (1_u64 << ((size - 1) / 2)) as f64 * middle / 16.0
}

const fn miss_at_all(size: usize) -> Bit {
    believed(1.0 - 1.0 / (1.0 + 1.5 * mean(size)))
}

const fn steps(size: usize) -> [Bit; STEPS] {
    let mean = if mean(size) < 1.0 { 1.0 } else { mean(size) };
    let expected = expected_power(size);
    let mut bits = [Bit::UNKNOWN; STEPS];
    let mut step = 0;
    while step < STEPS {
        let than = (step + expected).saturating_sub(STEP_EXPECTED);
        bits[step] = if than == 0 {
            Bit::UNKNOWN
        } else if step > STEP_EXPECTED {
            believed(at_least(than, mean) / at_least(than - 1, mean))
        } else if step == STEP_EXPECTED {
            believed(at_least(than, mean))
        } else {
            // Asked when it is known not to be more than one above.
            let more = at_least(than + 1, mean);
            believed((at_least(than, mean) - more) / (1.0 - more))
        };
        step += 1;
    }
    bits
}

/// The part of misses that have more than so many bits.
const fn at_least(bits: usize, mean: f64) -> f64 {
    let part = exp_of_minus(((1_u64 << bits) - 1) as f64 / mean);
    if part < 1e-7 { 1e-7 } else { part }
}

const fn exp_of_minus(x: f64) -> f64 {
    if x > 64.0 {
        return 0.0;
    }
    let mut power = 1.0 - x / 1024.0;
    let mut squared = 0;
    while squared < 10 {
        power *= power;
        squared += 1;
    }
    power
}

const fn believed(part: f64) -> Bit {
    let part = if part < 0.005 {
        0.005
    } else if part > 0.995 {
        0.995
    } else {
        part
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of 65,536")]
    let set = (part * 65_536.0) as u32;
    Bit::believed(set, SEEN)
}
