//! Several opinions on one bit, weighed by how well each has done: logistic mixing.
//!
//! Opinions are added up as log-odds, and the weights follow the error. Tables are made at build time
//! from integers, so that both ends of a file's life agree to the last bit.

use super::range::{Bit, Coder};

/// Log-odds are kept in 1/256 and within this: odds of 1 to 3,000.
const ODDS_MAX: i32 = 2047;

/// How fast weights follow: a shift of an error of 12 bits times odds of 12 bits. 9 to 11 measure alike.
const PACE_SHIFT: u32 = 10;

/// The weights of three opinions, in 1/65,536.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weights([i32; 3]);

impl Weights {
    /// A little more than their mean: opinions that agree are surer than each alone.
    pub(super) const EVEN: Self = Self([26_000; 3]);

    /// Codes a bit by what three others have learnt, and lets all learn.
    #[inline]
    pub(super) fn code(&mut self, coder: &mut impl Coder, opinions: [&mut Bit; 3], bit: bool) -> bool {
        let odds = [odds(*opinions[0]), odds(*opinions[1]), odds(*opinions[2])];
        let sum = odds.iter().zip(self.0).map(|(&odds, weight)| i64::from(odds) * i64::from(weight)).sum::<i64>();
        let clamped = (sum >> 16).clamp(-i64::from(ODDS_MAX), i64::from(ODDS_MAX));
        let set = PROBABILITIES[((clamped + i64::from(ODDS_MAX) + 1).cast_unsigned() & 0xfff) as usize];
        let bit = coder.code(u32::from(set).clamp(3, 4093) << 4, bit);
        let error = if bit { 4095 } else { 0 } - i32::from(set);
        for (weight, odds) in self.0.iter_mut().zip(odds) {
            *weight =
                (*weight + ((odds * error + (1 << (PACE_SHIFT - 1))) >> PACE_SHIFT)).clamp(-WEIGHT_MAX, WEIGHT_MAX);
        }
        for opinion in opinions {
            opinion.learn(bit);
        }
        bit
    }
}

/// Keeps what a hostile file can make of the weights within 32 bits.
const WEIGHT_MAX: i32 = 1 << 24;

#[inline]
fn odds(bit: Bit) -> i32 {
    i32::from(ODDS[(bit.set() >> 4) as usize])
}

/// The probability of 4,096 that log-odds stand for: a line between 33 points of the logistic curve.
const fn probability(odds: i32) -> i32 {
    const POINTS: [i32; 33] = [
        1, 2, 3, 6, 10, 16, 27, 45, 73, 120, 194, 310, 488, 747, 1101, 1546, 2047, 2549, 2994, 3348, 3607, 3785, 3901,
        3975, 4022, 4050, 4068, 4079, 4085, 4089, 4092, 4093, 4094,
    ];
    let from_end = odds + ODDS_MAX + 1;
    let (at, past) = ((from_end >> 7).cast_unsigned() as usize, from_end & 127);
    (POINTS[at] * (128 - past) + POINTS[at + 1] * past + 64) >> 7
}

static PROBABILITIES: [u16; 4096] = {
    let mut table = [0_u16; 4096];
    let mut odds = -ODDS_MAX - 1;
    while odds <= ODDS_MAX {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to 4,094")]
        let probability = probability(odds) as u16;
        table[(odds + ODDS_MAX + 1).cast_unsigned() as usize] = probability;
        odds += 1;
    }
    table
};

/// The other way round: the lowest log-odds of each probability.
static ODDS: [i16; 4096] = {
    let mut table = [0_i16; 4096];
    let (mut odds, mut at) = (-ODDS_MAX, 0);
    while at < table.len() {
        while odds < ODDS_MAX && (probability(odds).cast_unsigned() as usize) < at {
            odds += 1;
        }
        #[expect(clippy::cast_possible_truncation, reason = "within 12 bits")]
        let of_it = odds as i16;
        table[at] = of_it;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odds_are_those_of_the_probability() {
        assert!(ODDS.is_sorted());
        assert!(PROBABILITIES.is_sorted());
        for set in 1..4094_u16 {
            let back =
                PROBABILITIES[usize::try_from(i32::from(ODDS[usize::from(set)]) + ODDS_MAX + 1).expect("positive")];
            assert!(back.abs_diff(set) <= 1 + set.min(4095 - set) / 100, "{set} became {back}");
        }
        assert_eq!(odds(Bit::UNKNOWN), 1);
    }
}
