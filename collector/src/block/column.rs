//! The columns of one part, one after the other: which rows have a value, the first, and how it moves on.
//!
//! A move is the difference to the value before, in the column's own unit. What is predicted of it may
//! lean on lively columns before it in the same part: on the sum or difference of their moves in the
//! same row, and for what is left on how well one of them was predicted. All arithmetic wraps, so that
//! any numbers come back as they were.

use std::collections::VecDeque;

use dunlin_shared::sample::ABSENT;
use dunlin_shared::varint::{unzigzag, zigzag};

use super::BlockError;
use super::number::{Numbers, code_tree};
use super::range::{Bit, Coder};
use super::residual::{Model, Past, Surprise};

/// Columns of one measure behave alike, so these learn by measure; the numbers of the catalogue that
/// share one of so many are seldom seen on one node.
pub(super) const SORTS: usize = 64;

/// Columns that the moves of another are predicted from. User, system and waiting make idle time.
pub(super) const LEANS_MAX: usize = 3;

/// How many lively columns are remembered for others to lean on.
pub(super) const BACK_MAX: usize = 16;

/// How a column moves on from its first value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Still,
    /// By the same amount in each row.
    Steady(i64),
    Lively(Plan),
}

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

/// What the columns of a part that are behind have taught; the same when writing and when reading.
#[derive(Debug)]
pub(super) struct Part {
    rows: usize,
    pub(super) model: Model,
    /// The last ones.
    pub(super) lively: VecDeque<Lively>,
    has_gaps: [Bit; SORTS],
    /// Which rows the last column with gaps has: what a process tells of itself comes and goes together.
    gaps: Vec<bool>,
    has_same_gaps: Bit,
    runs: Numbers,
    forms: [[Bit; 4]; SORTS],
    firsts: Vec<Numbers>,
    steady: Numbers,
    plans: PlanModel,
}

#[derive(Debug)]
struct PlanModel {
    has_unit: [Bit; SORTS],
    units: Numbers,
    bases: [[Bit; 4]; SORTS],
    leans: [Bit; LEANS_MAX],
    signs: Bit,
    has_near: [Bit; 2],
    backs: Numbers,
}

impl Part {
    pub(super) fn new(rows: usize) -> Self {
        Self {
            rows,
            model: Model::new(),
            lively: VecDeque::with_capacity(BACK_MAX),
            has_gaps: [Bit::UNKNOWN; SORTS],
            gaps: vec![true; rows],
            has_same_gaps: Bit::UNKNOWN,
            runs: Numbers::new(),
            forms: [[Bit::UNKNOWN; 4]; SORTS],
            firsts: vec![Numbers::new(); SORTS],
            steady: Numbers::new(),
            plans: PlanModel::new(),
        }
    }

    /// Writes a column; `plan` chooses how its moves are predicted when they are not all alike.
    pub(super) fn put(
        &mut self,
        coder: &mut impl Coder,
        sort: usize,
        values: &[i64],
        plan: impl FnOnce(&Self, &[i64], &[bool]) -> Plan,
    ) {
        debug_assert_eq!(values.len(), self.rows, "a value for each row");
        let present: Vec<bool> = values.iter().map(|&value| value != ABSENT).collect();
        self.code_present(coder, sort, present.clone());
        let Some(start) = present.iter().position(|&is| is) else {
            return;
        };
        self.firsts[sort].code(coder, zigzag(values[start]));
        let mut before = values[start];
        let mut moves: Vec<i64> = values
            .iter()
            .map(|&value| if value == ABSENT { 0 } else { value.wrapping_sub(std::mem::replace(&mut before, value)) })
            .collect();
        moves[..=start].fill(0);
        let rest = &moves[start + 1..];
        let form = match rest.first() {
            Some(&first) if rest.iter().any(|&by| by != first) => Form::Lively(plan(self, &moves, &present)),
            None | Some(0) => Form::Still,
            // An absent row has no move.
            Some(&by) => Form::Steady(by),
        };
        self.code_form(coder, sort, &form);
        if let Form::Lively(plan) = form {
            for by in &mut moves {
                *by /= plan.unit;
            }
            self.code_moves(coder, &plan, &present, moves);
        }
    }

    pub(super) fn take(&mut self, coder: &mut impl Coder, sort: usize) -> Result<Vec<i64>, BlockError> {
        let present = self.code_present(coder, sort, vec![true; self.rows]);
        let mut values = vec![ABSENT; self.rows];
        let Some(start) = present.iter().position(|&is| is) else {
            return Ok(values);
        };
        let mut value = unzigzag(self.firsts[sort].code(coder, 0));
        let form = self.code_form(coder, sort, &Form::Still);
        let (unit, moves) = match form {
            Form::Still => (0, &[][..]),
            Form::Steady(by) => (by, &[][..]),
            Form::Lively(plan) => {
                if plan.backs().any(|back| back == 0 || back > self.lively.len()) {
                    return Err(BlockError::Malformed("what a column leans on"));
                }
                (plan.unit, self.code_moves(coder, &plan, &present, vec![0; self.rows]))
            }
        };
        for row in start..present.len() {
            if row > start {
                value = value.wrapping_add(unit.wrapping_mul(moves.get(row).copied().unwrap_or(1)));
            }
            if present[row] {
                values[row] = value;
            }
        }
        Ok(values)
    }

    /// Runs of rows without and with a value, by turns.
    fn code_present(&mut self, coder: &mut impl Coder, sort: usize, mut present: Vec<bool>) -> Vec<bool> {
        if !coder.bit(&mut self.has_gaps[sort], present.contains(&false)) {
            return present;
        }
        if coder.bit(&mut self.has_same_gaps, present == self.gaps) {
            return self.gaps.clone();
        }
        let (mut at, mut is) = (0, false);
        while at < present.len() {
            let run = present[at..].iter().take_while(|&&next| next == is).count();
            // Only the first run may be empty.
            let least = usize::from(at > 0);
            let run = self.runs.code_len(coder, run.saturating_sub(least)).saturating_add(least);
            let end = at.saturating_add(run).min(present.len());
            present[at..end].fill(is);
            (at, is) = (end, !is);
        }
        self.gaps.clone_from(&present);
        present
    }

    fn code_form(&mut self, coder: &mut impl Coder, sort: usize, form: &Form) -> Form {
        let (number, steady, plan) = match form {
            Form::Still => (0, 0, Plan::default()),
            Form::Steady(by) => (1, *by, Plan::default()),
            Form::Lively(plan) => (2, 0, *plan),
        };
        match code_tree(coder, &mut self.forms[sort], 2, number) {
            0 => Form::Still,
            1 => Form::Steady(unzigzag(self.steady.code(coder, zigzag(steady)))),
            _ => Form::Lively(self.plans.code(coder, sort, &plan)),
        }
    }

    /// Codes the moves behind the first value, and keeps them for the columns that follow.
    fn code_moves(&mut self, coder: &mut impl Coder, plan: &Plan, present: &[bool], mut moves: Vec<i64>) -> &[i64] {
        let surprises = code_moves(coder, &mut self.model, &self.lively, plan, present, &mut moves);
        if self.lively.len() == BACK_MAX {
            self.lively.pop_front();
        }
        self.lively.push_back(Lively { moves, surprises });
        self.lively.back().map_or(&[], |lively| &lively.moves)
    }
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
    fn backs(&self) -> impl Iterator<Item = usize> {
        self.leans.iter().flatten().map(|lean| lean.back).chain(self.near)
    }
}

impl PlanModel {
    const fn new() -> Self {
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

    fn code(&mut self, coder: &mut impl Coder, sort: usize, plan: &Plan) -> Plan {
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
