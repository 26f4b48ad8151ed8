//! Rows of cells of one measure, as bytes and back.
//!
//! ```text
//! sheet    = version:u8 subject-count subject* row-count head* cells
//! subject  = kind:u8 len name
//! head     = node (after the one before) subject-index run-count run*
//! run      = slot (after the end of the run before, zigzag) slot-count
//! cells    = a range-coded stream of whole numbers, up to six for each cell: see `Models::cell`
//! ```
//!
//! Numbers without another note are varints. Rows of a sheet learn from each other, so a sheet is decoded as a whole:
//! whoever writes sheets keeps them small.

use dunlin_shared::limits::SUBJECT_NAME_BYTES_MAX;
use dunlin_shared::sample::{Subject, SubjectKind};
use dunlin_shared::varint::{self, VarintError, unzigzag, zigzag};
use thiserror::Error;

use super::{Cell, MEAN_PARTS, RATE_SHIFT, Row, Scale};
use crate::block::number::Numbers;
use crate::block::range::{Bit, Coder, Decoder, Encoder};
use crate::record::{NODES_MAX, NodeKey};

const VERSION: u8 = 1;
/// Cells of a sheet that is read, far more than one is written with: 3 MiB of them.
const CELLS_MAX: u64 = 1 << 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SheetError {
    #[error("the sheet is of version {0}, this program reads version {VERSION}")]
    Version(u8),
    #[error("the sheet ends early")]
    Truncated,
    #[error("{0} is malformed")]
    Malformed(&'static str),
}

impl From<VarintError> for SheetError {
    fn from(error: VarintError) -> Self {
        match error {
            VarintError::Truncated => Self::Truncated,
            VarintError::Overlong => Self::Malformed("a number"),
        }
    }
}

struct Head<'a> {
    node: NodeKey,
    subject: &'a Subject,
    runs: Vec<(i64, u64)>,
}

/// A cell as whole numbers, of which `max`, `mean` and `last` lie above `min`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Coded {
    min: i64,
    max: u64,
    mean: u64,
    last: u64,
    count: u32,
}

/// Rows in the order of their nodes.
#[must_use]
pub fn encode(rows: &[Row], scale: Scale) -> Vec<u8> {
    let mut subjects: Vec<&Subject> = rows.iter().map(|row| &row.subject).collect();
    subjects.sort_unstable();
    subjects.dedup();
    let mut out = vec![VERSION];
    varint::put(&mut out, subjects.len() as u64);
    for subject in &subjects {
        out.push(subject.kind as u8);
        varint::put(&mut out, subject.name().len() as u64);
        out.extend_from_slice(subject.name().as_bytes());
    }
    varint::put(&mut out, rows.len() as u64);
    let mut before = 0;
    for row in rows {
        varint::put(&mut out, u64::from(row.node.0.saturating_sub(before)));
        before = row.node.0;
        varint::put(&mut out, subjects.binary_search(&&row.subject).unwrap_or_default() as u64);
        let runs: Vec<_> = row.cells.chunk_by(|(a, _), (b, _)| a + 1 == *b).collect();
        varint::put(&mut out, runs.len() as u64);
        let mut end = 0;
        for run in runs {
            varint::put(&mut out, zigzag(run[0].0 - end));
            varint::put(&mut out, run.len() as u64);
            end = run[run.len() - 1].0 + 1;
        }
    }
    let (mut coder, mut models) = (Encoder::new(), Models::new());
    for row in rows {
        models.begin_row();
        for (_, cell) in &row.cells {
            models.cell(&mut coder, Coded::of(cell, scale));
        }
    }
    out.extend_from_slice(&coder.finish());
    out
}

/// The rows that are wanted.
pub fn decode(
    mut bytes: &[u8],
    scale: Scale,
    mut wanted: impl FnMut(NodeKey, &Subject) -> bool,
) -> Result<Vec<Row>, SheetError> {
    let version = byte(&mut bytes)?;
    if version != VERSION {
        return Err(SheetError::Version(version));
    }
    let subjects = take_subjects(&mut bytes)?;
    let heads = take_heads(&mut bytes, &subjects)?;
    let (mut coder, mut models) = (Decoder::new(bytes), Models::new());
    let mut rows = Vec::new();
    for head in heads {
        models.begin_row();
        let is_wanted = wanted(head.node, head.subject);
        let mut cells = Vec::new();
        for slot in head.runs.iter().flat_map(|&(begins, count)| begins..begins + count.cast_signed()) {
            let coded = models.cell(&mut coder, Coded::default());
            if is_wanted {
                cells.push((slot, coded.cell(scale).ok_or(SheetError::Malformed("a cell"))?));
            }
        }
        if coder.is_spent() {
            return Err(SheetError::Truncated);
        }
        if is_wanted {
            rows.push(Row { node: head.node, subject: head.subject.clone(), cells });
        }
    }
    Ok(rows)
}

fn take_subjects(bytes: &mut &[u8]) -> Result<Vec<Subject>, SheetError> {
    let count = take_count(bytes, CELLS_MAX)?;
    let mut subjects = Vec::new();
    for _ in 0..count {
        let kind = SubjectKind::from_raw(byte(bytes)?).ok_or(SheetError::Malformed("a subject's kind"))?;
        let len = usize::try_from(take_count(bytes, SUBJECT_NAME_BYTES_MAX as u64)?).unwrap_or(usize::MAX);
        let (name, rest) = bytes.split_at_checked(len).ok_or(SheetError::Truncated)?;
        *bytes = rest;
        let name = std::str::from_utf8(name).map_err(|_| SheetError::Malformed("a name"))?;
        subjects.push(Subject::new(kind, name).ok_or(SheetError::Malformed("a subject"))?);
    }
    Ok(subjects)
}

fn take_heads<'a>(bytes: &mut &[u8], subjects: &'a [Subject]) -> Result<Vec<Head<'a>>, SheetError> {
    let count = take_count(bytes, CELLS_MAX)?;
    let (mut heads, mut node, mut cells) = (Vec::new(), 0u64, 0);
    for _ in 0..count {
        node = node.saturating_add(varint::take(bytes)?);
        let key = u32::try_from(node).ok().filter(|key| *key < NODES_MAX).ok_or(SheetError::Malformed("a node"))?;
        let subject = usize::try_from(varint::take(bytes)?).ok().and_then(|index| subjects.get(index));
        let subject = subject.ok_or(SheetError::Malformed("a row's subject"))?;
        let (mut runs, mut end) = (Vec::new(), 0i64);
        for _ in 0..take_count(bytes, CELLS_MAX)? {
            let begins = end.checked_add(unzigzag(varint::take(bytes)?)).ok_or(SheetError::Malformed("a slot"))?;
            let count = take_count(bytes, CELLS_MAX)?;
            cells += count;
            if cells > CELLS_MAX || (!runs.is_empty() && begins < end) {
                return Err(SheetError::Malformed("a run of slots"));
            }
            end = begins.checked_add(count.cast_signed()).ok_or(SheetError::Malformed("a slot"))?;
            runs.push((begins, count));
        }
        heads.push(Head { node: NodeKey(key), subject, runs });
    }
    Ok(heads)
}

/// What has been seen of cells, row by row.
struct Models {
    before: Coded,
    /// Whether a cell is as the one before, by how often that was so of late.
    same: [Bit; 3],
    flat: [Bit; 2],
    sign: [Bit; 2],
    min: Numbers,
    max: Numbers,
    mean: Numbers,
    last: Numbers,
    count: Numbers,
    likeness: usize,
}

impl Models {
    fn new() -> Self {
        Self {
            before: Coded::default(),
            same: [Bit::UNKNOWN; 3],
            flat: [Bit::UNKNOWN; 2],
            sign: [Bit::UNKNOWN; 2],
            min: Numbers::new(),
            max: Numbers::new(),
            mean: Numbers::new(),
            last: Numbers::new(),
            count: Numbers::new(),
            likeness: 0,
        }
    }

    /// The least value of the row before is no help, but the count is.
    fn begin_row(&mut self) {
        self.before = Coded { count: self.before.count, ..Coded::default() };
        self.likeness = 0;
    }

    /// Codes a cell behind the one before it, and gives back what was coded: the same in both directions.
    fn cell(&mut self, coder: &mut impl Coder, cell: Coded) -> Coded {
        let before = self.before;
        let same = coder.bit(&mut self.same[self.likeness], cell == before);
        self.likeness = if same { (self.likeness + 1).min(2) } else { 0 };
        if same {
            return before;
        }
        let rise = signed(coder, (&mut self.min, &mut self.sign[0]), cell.min.wrapping_sub(before.min));
        let mut coded = Coded { min: before.min.wrapping_add(rise), ..Coded::default() };
        let was_flat = usize::from(before.max == 0);
        if !coder.bit(&mut self.flat[was_flat], cell.max == 0 && cell.mean == 0 && cell.last == 0) {
            coded.max = self.max.code(coder, cell.max);
            coded.mean = self.mean.code(coder, cell.mean);
            coded.last = self.last.code(coder, cell.last);
        }
        let more = i64::from(cell.count) - i64::from(before.count);
        let more = signed(coder, (&mut self.count, &mut self.sign[1]), more);
        coded.count = u32::try_from(i64::from(before.count).wrapping_add(more)).unwrap_or(0);
        self.before = coded;
        coded
    }
}

fn signed(coder: &mut impl Coder, (sizes, sign): (&mut Numbers, &mut Bit), value: i64) -> i64 {
    let size = sizes.code(coder, value.unsigned_abs());
    if size == 0 {
        return 0;
    }
    let is_negative = coder.bit(sign, value < 0);
    let size = size.cast_signed();
    if is_negative { size.wrapping_neg() } else { size }
}

impl Coded {
    fn of(cell: &Cell, scale: Scale) -> Self {
        let count = cell.count;
        let (min, max, last) = (number(cell.min, scale), number(cell.max, scale), number(cell.last, scale));
        let above = |value: i64| value.saturating_sub(min).max(0).cast_unsigned();
        let mean = match scale {
            Scale::Steps(step) => {
                let parts = (cell.mean - step.value(min)) / step.value(1) * MEAN_PARTS;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "saturates, and no mean is below the least"
                )]
                let parts = parts.round().max(0.0) as u64;
                parts
            }
            Scale::Rate => above(number(cell.mean, scale)),
        };
        Self { min, max: above(max), mean, last: above(last), count }
    }

    /// `None` where no cell has such numbers.
    fn cell(&self, scale: Scale) -> Option<Cell> {
        let above = |more: u64| self.min.checked_add(i64::try_from(more).ok()?);
        let value = |number: i64| value(number, scale);
        let min = value(self.min)?;
        let mean = match scale {
            #[expect(clippy::cast_precision_loss, reason = "a mean far above what 53 bits hold is rounded")]
            Scale::Steps(step) => step.value(self.min) + self.mean as f64 / MEAN_PARTS * step.value(1),
            Scale::Rate => value(above(self.mean)?)?,
        };
        Some(Cell { min, max: value(above(self.max)?)?, mean, last: value(above(self.last)?)?, count: self.count })
    }
}

/// A value as a whole number; the order is kept.
fn number(value: f64, scale: Scale) -> i64 {
    match scale {
        Scale::Steps(step) => step.quantise(value).unwrap_or(0),
        // The bits of a float that is not negative are in the order of its values.
        #[expect(clippy::cast_possible_truncation, reason = "a rate keeps thirteen digits")]
        Scale::Rate => {
            let bits = (value.max(0.0) as f32).to_bits();
            i64::from(bits.saturating_add(1 << (RATE_SHIFT - 1)) >> RATE_SHIFT)
        }
    }
}

fn value(number: i64, scale: Scale) -> Option<f64> {
    match scale {
        Scale::Steps(step) => Some(step.value(number)),
        Scale::Rate => {
            let bits = u32::try_from(number).ok()?.checked_mul(1 << RATE_SHIFT)?;
            Some(f64::from(f32::from_bits(bits))).filter(|value| value.is_finite())
        }
    }
}

fn byte(bytes: &mut &[u8]) -> Result<u8, SheetError> {
    let (&first, rest) = bytes.split_first().ok_or(SheetError::Truncated)?;
    *bytes = rest;
    Ok(first)
}

fn take_count(bytes: &mut &[u8], max: u64) -> Result<u64, SheetError> {
    let count = varint::take(bytes)?;
    if count <= max { Ok(count) } else { Err(SheetError::Malformed("a count")) }
}
