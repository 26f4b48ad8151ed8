//! One node's readings over a stretch of time, as columns: to bytes and back, without loss.
//!
//! ```text
//! block   = version:u8 head-length:varint head part*
//! head    = row-count [columns of times, epochs, seqs, time less mono] subject-count run* extent*
//! run     = kind name (measure, each as the one expected or as another)* end
//! extent  = column-count byte-count            one for each part; none without rows
//! part    = column*
//! column  = gaps [first-value (still | steady by | lively plan miss*)]
//! gaps    = none, or those of the last column with gaps, or lengths of runs without and with a value by turns
//! plan    = unit base (lean on a column before)* [near a column before]
//! miss    = how far a move is from what the plan predicts: none, or power of two, sign, bits below
//! ```
//!
//! Head and parts are range coded (`range`), each on its own: a part is read without the others, and what its
//! columns have taught is used by those behind them. A number of the code is as likely as what came before
//! made it. Pure and of integers; nothing here trusts a byte, and nothing knows whether one has rotted: that
//! is for the checksum of who keeps them. Memory is in proportion to the limits below, time to rows and columns.

mod column;
mod head;
mod mix;
mod moves;
mod name;
pub(crate) mod number;
mod plan;
pub(crate) mod range;
mod residual;
#[cfg(test)]
mod tests;

use dunlin_shared::id::{Epoch, Seq};
use dunlin_shared::limits::SERIES_MAX;
use dunlin_shared::metric::{MetricId, OpenMetric};
use dunlin_shared::sample::Subject;
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::varint::{self, VarintError};
use thiserror::Error;

use self::column::{Part, SORTS};
use self::head::{Extent, Head, Series};
use self::range::{Decoder, Encoder};

const VERSION: u8 = 1;

/// More than five hours at a tick each second.
pub const ROWS_MAX: usize = 20_000;
/// What comes and goes within a stretch has columns of its own.
pub const COLUMNS_MAX: usize = 4 * SERIES_MAX;
/// Rows times columns: a node with all the series it may have, for an hour at a tick each 10 s. 64 MiB of values.
pub const SAMPLES_MAX: usize = 1 << 23;

/// A part ends behind so many values that are not still, if it also has so many lively columns: reading one
/// column costs what is before it in its part, and a column is predicted from those before it there.
const PART_SAMPLES: usize = 4096;
const PART_LIVELY: usize = 8;

/// When a reading was taken, and what names its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// As the collector has it.
    pub time: WallMs,
    pub epoch: Epoch,
    pub seq: Seq,
    pub mono: MonoMs,
}

/// Which metric, on whatever node and whenever.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Measure {
    Catalogued(MetricId),
    Open(OpenMetric),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub subject: Subject,
    pub measure: Measure,
    /// One for each row; `ABSENT` where there is none.
    pub values: Vec<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stretch {
    pub rows: Vec<Row>,
    pub columns: Vec<Column>,
}

/// How long to look for what makes a block small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// For what is soon merged into another.
    Quick,
    /// For what stays.
    Thorough,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BlockError {
    #[error("the block is of version {0}, this program reads version {VERSION}")]
    Version(u8),
    #[error("the block ends early")]
    Truncated,
    #[error("the block has {0} bytes too many")]
    Leftover(usize),
    #[error("{what}: {count}, {max} are allowed")]
    TooMany { what: &'static str, count: usize, max: usize },
    #[error("{0} is malformed")]
    Malformed(&'static str),
}

impl From<VarintError> for BlockError {
    fn from(error: VarintError) -> Self {
        match error {
            VarintError::Truncated => Self::Truncated,
            VarintError::Overlong => Self::Malformed("a number"),
        }
    }
}

impl Stretch {
    /// Whether a block can hold it. What is longer is cut by rows.
    #[must_use]
    pub fn fits(&self) -> bool {
        let samples = self.rows.len().max(1).saturating_mul(self.columns.len());
        self.rows.len() <= ROWS_MAX && self.columns.len() <= COLUMNS_MAX && samples <= SAMPLES_MAX
    }
}

/// Of a stretch that fits.
#[must_use]
pub fn encode(stretch: &Stretch, effort: Effort) -> Vec<u8> {
    debug_assert!(stretch.fits(), "whoever makes a stretch cuts it");
    let (mut subjects, mut series): (Vec<Subject>, Vec<Series>) = (Vec::new(), Vec::new());
    for column in &stretch.columns {
        if subjects.last() != Some(&column.subject) {
            subjects.push(column.subject.clone());
        }
        series.push(Series { subject: subjects.len() - 1, measure: column.measure.clone() });
    }
    let (mut parts, mut bodies) = (Vec::new(), Vec::new());
    let mut left = if stretch.rows.is_empty() { &[] } else { &stretch.columns[..] };
    while !left.is_empty() {
        let (columns, rest) = left.split_at(part_len(left));
        let body = encode_part(stretch.rows.len(), columns, effort);
        parts.push(Extent { columns: columns.len(), bytes: body.len() });
        bodies.push(body);
        left = rest;
    }
    let mut coder = Encoder::new();
    Head { rows: stretch.rows.clone(), subjects, series, parts }.put(&mut coder, effort);
    let head = coder.finish();
    let mut out = vec![VERSION];
    varint::put(&mut out, head.len() as u64);
    out.extend(head);
    out.extend(bodies.into_iter().flatten());
    out
}

pub fn decode(bytes: &[u8]) -> Result<Stretch, BlockError> {
    decode_some(bytes, |_, _| true)
}

/// Only the columns that are wanted; of the others little more than the names is read.
pub fn decode_some(
    mut bytes: &[u8],
    mut wanted: impl FnMut(&Subject, &Measure) -> bool,
) -> Result<Stretch, BlockError> {
    let (&version, rest) = bytes.split_first().ok_or(BlockError::Truncated)?;
    if version != VERSION {
        return Err(BlockError::Version(version));
    }
    bytes = rest;
    let head_len = varint::take(&mut bytes)?;
    let head_len = usize::try_from(head_len).map_err(|_| BlockError::Truncated)?;
    let (head, mut bytes) = bytes.split_at_checked(head_len).ok_or(BlockError::Truncated)?;
    let head = Head::take(head)?;
    let mut columns = Vec::new();
    let mut series = head.series.iter();
    let mut is_wanted = |series: &Series| wanted(&head.subjects[series.subject], &series.measure);
    for part in &head.parts {
        let (body, rest) = bytes.split_at_checked(part.bytes).ok_or(BlockError::Truncated)?;
        let of_part = series.as_slice().get(..part.columns).unwrap_or_default();
        series = series.as_slice().get(part.columns..).unwrap_or_default().iter();
        let picked: Vec<bool> = of_part.iter().map(&mut is_wanted).collect();
        decode_part(body, &head, of_part, &picked, &mut columns)?;
        bytes = rest;
    }
    // Without rows there are no parts, and columns have nothing but names.
    for series in series.filter(|series| is_wanted(series)) {
        let subject = head.subjects[series.subject].clone();
        columns.push(Column { subject, measure: series.measure.clone(), values: Vec::new() });
    }
    if bytes.is_empty() { Ok(Stretch { rows: head.rows, columns }) } else { Err(BlockError::Leftover(bytes.len())) }
}

/// How many columns the next part has.
fn part_len(columns: &[Column]) -> usize {
    let (mut lively, mut samples) = (0, 0);
    for (at, column) in columns.iter().enumerate() {
        let starts_subject = at > 0 && columns[at - 1].subject != column.subject;
        let is_full = samples >= PART_SAMPLES && lively >= PART_LIVELY;
        // Rather between subjects: their columns have nothing to do with each other.
        if is_full || (starts_subject && samples * 2 >= PART_SAMPLES && lively * 2 >= PART_LIVELY) {
            return at;
        }
        if column.values.windows(2).any(|pair| pair[0] != pair[1]) {
            lively += 1;
            samples += column.values.len();
        }
    }
    columns.len()
}

fn encode_part(rows: usize, columns: &[Column], effort: Effort) -> Vec<u8> {
    let (mut coder, mut part) = (Encoder::new(), Part::new(rows));
    for column in columns {
        let choose = |part: &Part, moves: &[i64], present: &[bool]| plan::choose(part, moves, present, effort);
        part.put(&mut coder, column.measure.sort(), &column.values, choose);
    }
    coder.finish()
}

fn decode_part(
    body: &[u8],
    head: &Head,
    series: &[Series],
    picked: &[bool],
    columns: &mut Vec<Column>,
) -> Result<(), BlockError> {
    // What is behind the last that is wanted need not be read.
    let Some(last) = picked.iter().rposition(|&is| is) else {
        return Ok(());
    };
    let (mut coder, mut part) = (Decoder::new(body), Part::new(head.rows.len()));
    for (series, is_picked) in series.iter().zip(picked).take(last + 1) {
        let values = part.take(&mut coder, series.measure.sort())?;
        if coder.is_spent() {
            return Err(BlockError::Truncated);
        }
        if *is_picked {
            let subject = head.subjects[series.subject].clone();
            columns.push(Column { subject, measure: series.measure.clone(), values });
        }
    }
    Ok(())
}

impl Measure {
    /// What it has in common with columns that behave like it.
    fn sort(&self) -> usize {
        match self {
            Self::Catalogued(id) => usize::from(id.0) % SORTS,
            Self::Open(open) => open.name().bytes().map(usize::from).sum::<usize>() % SORTS,
        }
    }
}
