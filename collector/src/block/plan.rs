//! How a column is best predicted: the writer's choice, tried out on the moves themselves.
//!
//! Which choice is made is no part of the format: a reader follows what is written.

use super::Effort;
use super::column::Part;
use super::moves::{Base, Expected, LEANS_MAX, Lean, Plan, code_moves};
use super::range::Coder;
use super::residual::{self, Surprise};

/// What naming a column to lean on costs, in half bits.
const LEAN_HALF_BITS: u64 = 16;

/// What a column must tell of another to be named, in 1/256 bits: its name, and what its own past would tell.
const NEAR_GAIN_MIN: i64 = 24 * 256;

/// With fewer there is hardly so much to gain.
const SURPRISES_MIN: usize = 6;

/// What it costs to learn how often two surprises meet, in 1/256 bits.
const LEARNING_COST: i64 = 6 * 256;

/// `moves` are the column's, not yet divided by a unit.
pub(super) fn choose(part: &Part, moves: &[i64], present: &[bool], effort: Effort) -> Plan {
    let mut plan = Plan { unit: unit_of(moves), ..Plan::default() };
    let mut rest: Vec<i64> = moves.iter().map(|by| by / plan.unit).collect();
    let mut own = rest.clone();
    let mut cost;
    (plan.base, cost) = best_base(&rest, &[Base::Nothing, Base::Last, Base::Short, Base::Long]);
    for slot in 0..LEANS_MAX {
        // A thirtieth besides: what the estimate may have made up. What moves seldom has nothing to gain.
        let Some(most) = cost.checked_sub(LEAN_HALF_BITS + cost / 32) else {
            break;
        };
        let Some((lean, base, with)) = best_lean(part, &rest, &plan, most) else {
            break;
        };
        (plan.leans[slot], plan.base, cost) = (Some(lean), base, with);
        subtract(&mut rest, part, lean, present);
    }
    if effort == Effort::Thorough {
        choose_near(part, &mut own, present, &mut plan);
    }
    plan
}

/// The greatest number that all moves are multiples of.
fn unit_of(moves: &[i64]) -> i64 {
    let mut unit = 0_u64;
    for by in moves {
        let mut other = by.unsigned_abs();
        while other != 0 {
            (unit, other) = (other, unit % other);
        }
        if unit == 1 {
            break;
        }
    }
    i64::try_from(unit).unwrap_or(1).max(1)
}

fn best_base(moves: &[i64], bases: &[Base]) -> (Base, u64) {
    let mut best = (Base::Nothing, u64::MAX);
    for &base in bases {
        if let Some(cost) = half_bits(moves.iter().copied(), base, best.1) {
            best = (base, cost);
        }
    }
    best
}

/// About how much the misses take, in half bits; `None` when it is `most` or more.
#[inline]
fn half_bits(moves: impl Iterator<Item = i64>, base: Base, most: u64) -> Option<u64> {
    let mut expected = Expected::new(base);
    let mut sum = 0;
    for by in moves {
        let miss = by.wrapping_sub(expected.next());
        expected.see(miss);
        sum += residual::half_bits(miss);
        if sum >= most {
            return None;
        }
    }
    Some(sum)
}

/// The column to lean on with which the rest takes least, if that is below `most`.
fn best_lean(part: &Part, rest: &[i64], plan: &Plan, mut most: u64) -> Option<(Lean, Base, u64)> {
    let mut best = None;
    for (at, other) in part.lively.iter().enumerate().rev() {
        let back = part.lively.len() - at;
        if plan.leans.iter().flatten().any(|lean| lean.back == back) {
            continue;
        }
        for is_negative in [false, true] {
            let left = |(by, other): (&i64, &i64)| plus_or_minus(*by, *other, is_negative);
            for base in [Base::Nothing, Base::Long] {
                if let Some(cost) = half_bits(rest.iter().zip(&other.moves).map(left), base, most) {
                    (best, most) = (Some((Lean { back, is_negative }, base, cost)), cost);
                }
            }
        }
    }
    best
}

/// What is left of a move when another column says a part of it.
const fn plus_or_minus(by: i64, other: i64, is_negative: bool) -> i64 {
    if is_negative { by.wrapping_add(other) } else { by.wrapping_sub(other) }
}

fn subtract(rest: &mut [i64], part: &Part, lean: Lean, present: &[bool]) {
    let other = &part.lively[part.lively.len() - lean.back];
    for ((by, other), _) in rest.iter_mut().zip(&other.moves).zip(present).filter(|(_, is)| **is) {
        *by = plus_or_minus(*by, *other, lean.is_negative);
    }
}

/// The column whose surprises tell most about this one's.
fn choose_near(part: &Part, moves: &mut [i64], present: &[bool], plan: &mut Plan) {
    let own = code_moves(&mut Nowhere, &mut part.model.clone(), &part.lively, plan, present, moves);
    if own.iter().filter(|&&surprise| surprise != Surprise::NONE).count() < SURPRISES_MIN {
        return;
    }
    let mut most = NEAR_GAIN_MIN;
    for (at, other) in part.lively.iter().enumerate() {
        let gain = told_by(&own, &other.surprises);
        if gain > most {
            (plan.near, most) = (Some(part.lively.len() - at), gain);
        }
    }
}

/// By how much less surprising one column is to who knows another, in 1/256 bits, less what it takes to learn that.
fn told_by(own: &[Surprise], other: &[Surprise]) -> i64 {
    let mut both = [[0_u32; Surprise::SIZES]; Surprise::SIZES];
    for (own, other) in own.iter().zip(other) {
        both[other.size()][own.size()] += 1;
    }
    let of_other = both.map(|row| row.iter().sum());
    let of_own: [u32; Surprise::SIZES] = std::array::from_fn(|at| both.iter().map(|row| row[at]).sum());
    let seen = |counts: &[u32]| counts.iter().map(|&count| i64::from(count > 0)).sum::<i64>();
    let logs = |counts: &[u32]| counts.iter().map(|&count| times_log(count)).sum::<i64>();
    let both = both.as_flattened();
    let gain = logs(both) - logs(&of_own) - logs(&of_other) + times_log(both.iter().sum());
    gain - (seen(both) - seen(&of_own) - seen(&of_other) + 2) * LEARNING_COST
}

/// A count times its logarithm, in 1/256 bits; between powers of two as if on a line.
fn times_log(count: u32) -> i64 {
    let Some(power) = count.checked_ilog2() else {
        return 0;
    };
    let count = i64::from(count);
    count * ((i64::from(power) << 8) + ((count << 8) >> power) - 256)
}

/// Writes nothing: for what coding learns on the way.
#[derive(Debug)]
struct Nowhere;

impl Coder for Nowhere {
    #[inline]
    fn code(&mut self, _: u32, bit: bool) -> bool {
        bit
    }

    #[inline]
    fn plain(&mut self, _: u32, value: u64) -> u64 {
        value
    }
}
