//! The columns of one part, one after the other: which rows have a value, the first, and how it moves on.
//!
//! A move is the difference to the value before, in the column's own unit. What the columns behind have
//! taught, those that follow start with.

use std::collections::VecDeque;

use dunlin_shared::sample::ABSENT;
use dunlin_shared::varint::{unzigzag, zigzag};

use super::BlockError;
use super::moves::{BACK_MAX, Lively, Plan, PlanModel, code_moves};
use super::number::{Numbers, code_tree};
use super::range::{Bit, Coder};
use super::residual::Model;

/// Columns of one measure behave alike, so these learn by measure; the numbers of the catalogue that
/// share one of so many are seldom seen on one node.
pub(super) const SORTS: usize = 64;

/// How a column moves on from its first value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Still,
    /// By the same amount in each row.
    Steady(i64),
    Lively(Plan),
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
