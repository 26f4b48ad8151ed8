//! How a lively column moves, row by row: what is predicted of a move, and what that missed by.
//!
//! What is predicted may lean on lively columns before it in the same part: on the sum or difference of
//! their moves in the same row, and for what is left on how well one of them was predicted. All
//! arithmetic wraps, so that any numbers come back as they were.

use std::collections::VecDeque;

use super::column::SORTS;
use super::number::{Numbers, code_tree};
use super::range::{Bit, Coder};
use super::residual::{Model, Past, Surprise};

/// Columns that the moves of another are predicted from. User, system and waiting make idle time.
pub(super) const LEANS_MAX: usize = 3;

/// How many lively columns are remembered for others to lean on.
pub(super) const BACK_MAX: usize = 16;

/// How moves are predicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// What all moves are multiples of; at least 1.
    pub unit: i64,
    pub base: Base,
    pub leans: [Option<Lean>; LEANS_MAX],
    /// The column whose misses tell how large these are; as many lively ones back.
    pub near: Option<usize>,
}

/// What is expected besides what other columns say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Base {
    #[default]
    Nothing,
    /// The move before.
    Last,
    /// The mean of about the last 4 or 16 moves.
    Short,
    Long,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lean {
    /// So many lively columns back, from 1.
    pub back: usize,
    pub is_negative: bool,
}

/// What is known of a column that others may lean on: one of each for a row.
#[derive(Clone, Debug)]
pub(super) struct Lively {
    pub moves: Vec<i64>,
    pub surprises: Vec<Surprise>,
}

/// What plans had in common so far.
#[derive(Debug)]
pub(super) struct PlanModel {
    has_unit: [Bit; SORTS],
    units: Numbers,
    bases: [[Bit; 4]; SORTS],
    leans: [Bit; LEANS_MAX],
    signs: Bit,
    has_near: [Bit; 2],
    backs: Numbers,
}

/// Codes `moves` as `plan` says, and gives back how surprising each was.
pub(super) fn code_moves(
    coder: &mut impl Coder,
    model: &mut Model,
    lively: &VecDeque<Lively>,
    plan: &Plan,
    present: &[bool],
    moves: &mut [i64],
) -> Vec<Surprise> {
    model.begin();
    let mut surprises = vec![Surprise::NONE; moves.len()];
    let start = present.iter().position(|&is| is).map_or(moves.len(), |first| first + 1);
    let near = plan.near.map(|back| &lively[lively.len() - back].surprises[..]);
    let (mut past, mut expected) = (Past::new(), Expected::new(plan.base));
    for row in start..moves.len() {
        if !present[row] {
            continue;
        }
        let mut told = expected.next();
        for lean in plan.leans.iter().flatten() {
            let by = lively[lively.len() - lean.back].moves[row];
            told = if lean.is_negative { told.wrapping_sub(by) } else { told.wrapping_add(by) };
        }
        let miss = model.code(coder, &past, near.map(|near| near[row]), moves[row].wrapping_sub(told));
        surprises[row] = past.see(miss);
        moves[row] = told.wrapping_add(miss);
        expected.see(miss);
    }
    surprises
}

/// What is expected of a move beyond what other columns say of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    base: Base,
    /// In 1/256 for a mean.
    held: i64,
    told: i64,
    seen: u32,
}

impl Expected {
    pub(super) const fn new(base: Base) -> Self {
        Self { base, held: 0, told: 0, seen: 0 }
    }

    #[inline]
    pub(super) fn next(&mut self) -> i64 {
        self.told = match self.base {
            Base::Nothing => 0,
            Base::Last => self.held,
            Base::Short | Base::Long => self.held.wrapping_add(128) >> 8,
        };
        self.told
    }

    /// By how much `next` was wrong.
    #[inline]
    pub(super) fn see(&mut self, miss: i64) {
        let slowest = match self.base {
            Base::Nothing => return,
            Base::Last => {
                self.held = self.told.wrapping_add(miss);
                return;
            }
            Base::Short => 2,
            Base::Long => 4,
        };
        // The first few count fully, so that the mean is there at once.
        self.seen = (self.seen + 1).min(1 << 4);
        let pace = self.seen.ilog2().min(slowest);
        let real = self.told.wrapping_add(miss).clamp(-MEAN_MAX, MEAN_MAX);
        self.held += ((real << 8) - self.held) >> pace;
    }
}

/// Moves beyond this do not lift a mean further; 256 times it fits.
const MEAN_MAX: i64 = 1 << 50;

impl Plan {
    pub(super) fn backs(&self) -> impl Iterator<Item = usize> {
        self.leans.iter().flatten().map(|lean| lean.back).chain(self.near)
    }
}

impl PlanModel {
    pub(super) const fn new() -> Self {
        Self {
            has_unit: [Bit::UNKNOWN; SORTS],
            units: Numbers::new(),
            bases: [[Bit::UNKNOWN; 4]; SORTS],
            leans: [Bit::UNKNOWN; LEANS_MAX],
            signs: Bit::UNKNOWN,
            has_near: [Bit::UNKNOWN; 2],
            backs: Numbers::new(),
        }
    }

    pub(super) fn code(&mut self, coder: &mut impl Coder, sort: usize, plan: &Plan) -> Plan {
        let mut coded = Plan { unit: 1, ..Plan::default() };
        if coder.bit(&mut self.has_unit[sort], plan.unit != 1) {
            coded.unit = self.units.code(coder, plan.unit.cast_unsigned()).cast_signed();
        }
        coded.base = match code_tree(coder, &mut self.bases[sort], 2, plan.base as u64) {
            0 => Base::Nothing,
            1 => Base::Last,
            2 => Base::Short,
            _ => Base::Long,
        };
        for at in 0..LEANS_MAX {
            if !coder.bit(&mut self.leans[at], plan.leans[at].is_some()) {
                break;
            }
            let lean = plan.leans[at].unwrap_or(Lean { back: 0, is_negative: false });
            let back = self.backs.code_len(coder, lean.back);
            let is_negative = coder.bit(&mut self.signs, lean.is_negative);
            coded.leans[at] = Some(Lean { back, is_negative });
        }
        let leans = usize::from(coded.leans[0].is_some());
        if coder.bit(&mut self.has_near[leans], plan.near.is_some()) {
            coded.near = Some(self.backs.code_len(coder, plan.near.unwrap_or_default()));
        }
        coded
    }
}
