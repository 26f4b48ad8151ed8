//! How a column is best predicted: the writer's choice, tried out on the moves themselves.
//!
//! Which choice is made is no part of the format: a reader follows what is written.

use super::column::{Base, Expected, LEANS_MAX, Lean, Part, Plan, code_moves};
use super::range::Coder;
use super::{Effort, residual};

/// Lively columns back that are looked at, for leaning on and for nearness.
const BACK_MAX: usize = 16;
const NEAR_BACK_MAX: usize = 5;

/// What naming a column costs, in half bits and in 1/256 bits.
const LEAN_HALF_BITS: u64 = 16;
const NEAR_COST: u64 = 6 * 256;

/// `moves` are the column's, not yet divided by a unit.
pub(super) fn choose(part: &Part, moves: &[i64], present: &[bool], effort: Effort) -> Plan {
    let mut plan = Plan { unit: unit_of(moves), ..Plan::default() };
    let mut rest: Vec<i64> = moves.iter().map(|by| by / plan.unit).collect();
    let own = rest.clone();
    let mut cost;
    (plan.base, cost) = best_base(&rest, &[Base::Nothing, Base::Last, Base::Short, Base::Long]);
    for slot in 0..LEANS_MAX {
        let Some((lean, base, with)) = best_lean(part, &rest, &plan) else {
            break;
        };
        // Halves and a thirtieth: a gain that the estimate cannot have made up.
        if with + LEAN_HALF_BITS + cost / 32 > cost {
            break;
        }
        (plan.leans[slot], plan.base, cost) = (Some(lean), base, with);
        subtract(&mut rest, part, lean, present);
    }
    if effort == Effort::Thorough {
        choose_near(part, &own, present, &mut plan);
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
    let costs = bases.iter().map(|&base| (base, half_bits(moves.iter().copied(), base)));
    costs.min_by_key(|&(_, cost)| cost).unwrap_or((Base::Nothing, 0))
}

/// About how much the misses take, in half bits.
fn half_bits(moves: impl Iterator<Item = i64>, base: Base) -> u64 {
    let mut expected = Expected::new(base);
    let mut sum = 0;
    for by in moves {
        let miss = by.wrapping_sub(expected.next());
        expected.see(miss);
        sum += residual::half_bits(miss);
    }
    sum
}

fn best_lean(part: &Part, rest: &[i64], plan: &Plan) -> Option<(Lean, Base, u64)> {
    let mut best: Option<(Lean, Base, u64)> = None;
    for (at, other) in part.lively.iter().enumerate().rev().take(BACK_MAX) {
        let back = part.lively.len() - at;
        if plan.leans.iter().flatten().any(|lean| lean.back == back) {
            continue;
        }
        for is_negative in [false, true] {
            let left =
                |(by, other): (&i64, &i64)| if is_negative { by.wrapping_add(*other) } else { by.wrapping_sub(*other) };
            for base in [Base::Nothing, Base::Long] {
                let cost = half_bits(rest.iter().zip(&other.moves).map(left), base);
                if best.is_none_or(|(_, _, least)| cost < least) {
                    best = Some((Lean { back, is_negative }, base, cost));
                }
            }
        }
    }
    best
}

fn subtract(rest: &mut [i64], part: &Part, lean: Lean, present: &[bool]) {
    let other = &part.lively[part.lively.len() - lean.back];
    for ((by, other), _) in rest.iter_mut().zip(&other.moves).zip(present).filter(|(_, is)| **is) {
        *by = if lean.is_negative { by.wrapping_add(*other) } else { by.wrapping_sub(*other) };
    }
}

/// Tries the nearest few columns, and those leant on, by coding for nothing but the length.
fn choose_near(part: &Part, moves: &[i64], present: &[bool], plan: &mut Plan) {
    let leans = plan.leans.iter().flatten().map(|lean| lean.back);
    let mut candidates: Vec<usize> = (1..=part.lively.len().min(NEAR_BACK_MAX)).chain(leans).collect();
    candidates.sort_unstable();
    candidates.dedup();
    let mut least = (None, cost(part, moves, present, plan));
    for back in candidates {
        plan.near = Some(back);
        let with = cost(part, moves, present, plan) + NEAR_COST;
        if with < least.1 {
            least = (Some(back), with);
        }
    }
    plan.near = least.0;
}

/// What the moves would take next in the part, in 1/256 bits.
fn cost(part: &Part, moves: &[i64], present: &[bool], plan: &Plan) -> u64 {
    let (mut tally, mut model, mut moves) = (Tally::default(), part.model.clone(), moves.to_vec());
    code_moves(&mut tally, &mut model, &part.lively, plan, present, &mut moves);
    tally.cost
}

/// Writes nothing, and counts what it would take in 1/256 bits, to a tenth of a bit each.
#[derive(Debug, Default)]
struct Tally {
    cost: u64,
}

impl Coder for Tally {
    #[inline]
    fn code(&mut self, set: u32, bit: bool) -> bool {
        let part = if bit { set } else { 0x1_0000 - set };
        // The logarithm as a line between powers of two.
        let power = part.ilog2();
        self.cost += u64::from((17 << 8) - (power << 8) - ((part << 8) >> power));
        bit
    }

    #[inline]
    fn plain(&mut self, count: u32, value: u64) -> u64 {
        self.cost += u64::from(count) << 8;
        value
    }
}
