//! What a prediction missed, as bits: whether at all, by which power of two, the sign, and the rest.
//!
//! How large a miss is to be expected is known from those before it, fast (the last two) and slowly (the
//! last ten or so), and from how another series of the same part missed in the same row.

mod prior;

use self::prior::PRIMED;
use super::mix::Weights;
use super::range::{Bit, Coder};

/// Sizes of misses in half powers of two, of which those above 2^3.5 share what they learn, odd with odd.
const SIZES: usize = 18;
/// So many sizes tell whether there will be a miss at all; above it hardly ever is none.
const ZERO_SIZES: usize = 24;
/// Steps from the power of two that is expected; those further away share what they learn.
const STEPS: usize = 12;
/// The step that says "more than expected", the first one asked.
const STEP_EXPECTED: usize = 4;
/// Powers of two whose highest bits are learnt one by one; those above share.
const POWERS: usize = 16;
/// Misses are followed up to here; what is larger counts as this.
const FOLLOWED_MAX: u64 = 1 << 50;

/// How another series missed in this row, measured by what was expected of it: 0 for not at all, then
/// by size, twice for the sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Surprise(u8);

impl Surprise {
    pub(super) const NONE: Self = Self(0);
    const ALL: usize = 16;
    pub(super) const SIZES: usize = Self::ALL / 2;

    const fn index(self) -> usize {
        self.0 as usize
    }

    /// Without the sign.
    pub(super) const fn size(self) -> usize {
        (self.0 as usize).div_ceil(2) % Self::SIZES
    }
}

/// What all series of a part have in common; `zero_near` and `step_near` belong to one and start anew with it.
#[derive(Clone, Debug)]
pub(super) struct Model {
    zero_slow: [Bit; ZERO_SIZES],
    zero_fast: [Bit; ZERO_SIZES * 4],
    zero_near: [Bit; Surprise::ALL],
    zero_weights: [Weights; 2],
    step_slow: [[Bit; STEPS]; SIZES],
    step_fast: [[Bit; STEPS]; SIZES * 2],
    step_near: [[Bit; STEPS]; Surprise::ALL],
    step_weights: [Weights; STEPS],
    sign: [Bit; 9],
    first: [[Bit; 4]; POWERS],
    second: [[Bit; 2]; POWERS],
    third: [[Bit; 4]; POWERS],
}

/// One series as it goes on: what it missed by lately.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past {
    /// Mean sizes in 1/16.
    fast: u64,
    slow: u64,
    last: i64,
    before: i64,
}

impl Model {
    pub(super) fn new() -> Self {
        PRIMED.clone()
    }

    /// Another series begins.
    pub(super) fn begin(&mut self) {
        self.zero_near = [Bit::UNKNOWN; Surprise::ALL];
        self.step_near = [[Bit::UNKNOWN; STEPS]; Surprise::ALL];
    }

    /// Codes one miss; `near` is how the series that this one leans on missed.
    #[inline]
    pub(super) fn code(&mut self, coder: &mut impl Coder, past: &Past, near: Option<Surprise>, miss: i64) -> i64 {
        let (slow, fast) = (size_of(past.slow), size_of(past.fast));
        // One that leans on none leans on its own last two.
        let beside = near.map_or(small(past.last) * 4 + small(past.before), Surprise::index);
        let calm = usize::from(past.last == 0) + 2 * usize::from(past.before == 0);
        let zero = [
            &mut self.zero_slow[slow.min(ZERO_SIZES - 1)],
            &mut self.zero_fast[fast.min(ZERO_SIZES - 1) * 4 + calm],
            &mut self.zero_near[beside],
        ];
        if !self.zero_weights[usize::from(near.is_some())].code(coder, zero, miss != 0) {
            return 0;
        }
        let power = self.code_power(coder, past, (slow, fast, beside), bits_of(miss.unsigned_abs()));
        let signs = sign_of(past.last) * 3 + sign_of(past.before);
        let is_negative = coder.bit(&mut self.sign[signs], miss < 0);
        let size = self.code_below(coder, power, slow, miss.unsigned_abs()).cast_signed();
        if is_negative { size.wrapping_neg() } else { size }
    }

    /// The number of bits of a size: from what is expected upwards or downwards, a step at a time.
    #[inline]
    fn code_power(
        &mut self,
        coder: &mut impl Coder,
        past: &Past,
        (slow, fast, beside): (usize, usize, usize),
        power: usize,
    ) -> usize {
        let expected = expected_power(slow);
        let by_slow = shared_size(slow);
        // The step asked first follows from the slow size: the fast one may say only so much else.
        let by_fast = shared_size(fast.clamp(slow.saturating_sub(3), slow + 6)) * 2 + usize::from(past.last == 0);
        let mut is_above = |than: usize| {
            let step = (than + STEP_EXPECTED).saturating_sub(expected).min(STEPS - 1);
            let opinions = [
                &mut self.step_slow[by_slow][step],
                &mut self.step_fast[by_fast][step],
                &mut self.step_near[beside][step],
            ];
            self.step_weights[step].code(coder, opinions, power > than)
        };
        let mut found = expected;
        if is_above(found) {
            found += 1;
            while found < 64 && is_above(found) {
                found += 1;
            }
        } else {
            while found > 1 && !is_above(found - 1) {
                found -= 1;
            }
        }
        found
    }

    /// The bits below the highest: those that are not evenly spread are learnt, the rest is plain.
    #[inline]
    fn code_below(&mut self, coder: &mut impl Coder, power: usize, slow: usize, size: u64) -> u64 {
        let (mut value, mut left) = (1_u64, power - 1);
        let row = power.min(POWERS - 1);
        let against = (power + 1).saturating_sub(expected_power(slow)).min(3);
        for depth in 0..3 {
            // A third bit is uneven only where there are few below it.
            if left == 0 || (depth == 2 && power > 6) {
                break;
            }
            left -= 1;
            let learnt = match depth {
                0 => &mut self.first[row][against],
                1 => &mut self.second[row][(value & 1) as usize],
                _ => &mut self.third[row][(value & 3) as usize],
            };
            value = value << 1 | u64::from(coder.bit(learnt, size >> left & 1 == 1));
        }
        if left > 0 {
            #[expect(clippy::cast_possible_truncation, reason = "63 at most")]
            let rest = coder.plain(left as u32, size & ((1 << left) - 1));
            value = value << left | rest;
        }
        value
    }
}

impl Past {
    pub(super) const fn new() -> Self {
        Self { fast: 16, slow: 16, last: 0, before: 0 }
    }

    /// Takes in a miss, and says what a surprise it was.
    #[inline]
    pub(super) fn see(&mut self, miss: i64) -> Surprise {
        let size = miss.unsigned_abs().min(FOLLOWED_MAX) << 4;
        let surprise = if miss == 0 {
            Surprise::NONE
        } else {
            let expected = size_of((self.slow * 3 + self.fast) >> 2);
            let over = ((size_of(size) + 6).saturating_sub(expected) / 2).min(5);
            #[expect(clippy::cast_possible_truncation, reason = "5 at most")]
            Surprise(1 + 2 * over as u8 + u8::from(miss < 0))
        };
        self.fast = (self.fast + size) >> 1;
        self.slow = self.slow + (size >> 3) - (self.slow >> 3);
        (self.before, self.last) = (self.last, miss);
        surprise
    }
}

const fn bits_of(size: u64) -> usize {
    (u64::BITS - size.leading_zeros()) as usize
}

fn small(miss: i64) -> usize {
    miss.unsigned_abs().min(3) as usize
}

const fn sign_of(miss: i64) -> usize {
    match miss.signum() {
        -1 => 0,
        0 => 1,
        _ => 2,
    }
}

/// Half powers of two of what is counted in 1/16; 0 for nothing.
#[inline]
const fn size_of(sixteenths: u64) -> usize {
    let Some(power) = sixteenths.checked_ilog2() else {
        return 0;
    };
    if power == 0 {
        return 1;
    }
    (1 + 2 * power) as usize + (sixteenths >> (power - 1) & 1) as usize
}

/// The number of bits that a miss probably has.
#[inline]
const fn expected_power(size: usize) -> usize {
    let power = size.div_ceil(2).saturating_sub(4);
    if power == 0 { 1 } else { power }
}

/// Misses of every larger size are spread alike about it.
#[inline]
const fn shared_size(size: usize) -> usize {
    if size < 16 { size } else { 16 + (size & 1) }
}

/// About what a miss takes, in half bits.
#[inline]
pub(super) const fn half_bits(miss: i64) -> u64 {
    let size = miss.unsigned_abs();
    let size = if size < FOLLOWED_MAX { size } else { FOLLOWED_MAX };
    (size_of(size << 4) as u64).saturating_sub(6)
}
