//! The head of a block: when its rows were, what its columns are about, and where each part lies.

use std::collections::HashMap;

use dunlin_shared::id::{Epoch, Seq};
use dunlin_shared::limits::{METRIC_NAME_BYTES_MAX, SUBJECT_NAME_BYTES_MAX};
use dunlin_shared::metric::{Kind, MetricId, OpenMetric, Step, Unit};
use dunlin_shared::sample::{Subject, SubjectKind};
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::varint::{unzigzag, zigzag};

use super::column::Part;
use super::name::Names;
use super::number::{Numbers, code_tree};
use super::range::{Bit, Coder, Decoder};
use super::{BlockError, COLUMNS_MAX, Effort, Measure, ROWS_MAX, Row, SAMPLES_MAX, plan};

/// Columns that are written together, and the bytes that they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub columns: usize,
    pub bytes: usize,
}

/// What stands in place of one column in a head: subjects are told once for all columns in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Series {
    pub subject: usize,
    pub measure: Measure,
}

#[derive(Debug)]
pub(super) struct Head {
    pub rows: Vec<Row>,
    pub subjects: Vec<Subject>,
    pub series: Vec<Series>,
    pub parts: Vec<Extent>,
}

/// What follows a measure within a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Next {
    End,
    Catalogued(MetricId),
    /// Among those declared so far.
    Open(usize),
    Declared,
}

/// The number before the first that the catalogue has about each kind of subject, as things stood when the
/// format was made: a first guess, which costs little where it is wrong.
const BEFORE_FIRST: [u16; SubjectKind::ALL.len()] = [0, 119, 139, 159, 179, 219, 239, 259, 279];

const UNITS: [Unit; 7] =
    [Unit::Count, Unit::Ratio, Unit::Bytes, Unit::Seconds, Unit::Celsius, Unit::Hertz, Unit::Cores];

#[derive(Debug)]
struct HeadModel {
    counts: Numbers,
    kinds: [Bit; 16],
    names: Names,
    is_expected: [Bit; 2],
    was_expected: bool,
    next: [Bit; 4],
    metrics: Numbers,
    opens: Numbers,
    follows: HashMap<(SubjectKind, Next), Next>,
    columns: Numbers,
    bytes: Numbers,
}

impl Head {
    pub(super) fn put(&self, coder: &mut impl Coder, effort: Effort) {
        let mut model = HeadModel::new();
        model.counts.code_len(coder, self.rows.len());
        put_rows(coder, &self.rows, effort);
        model.counts.code_len(coder, self.subjects.len());
        let (mut runs, mut declared) = (self.series.chunk_by(|a, b| a.subject == b.subject), Vec::new());
        for subject in &self.subjects {
            model.code_subject(coder, Some(subject));
            let mut before = Next::End;
            for series in runs.next().unwrap_or_default() {
                let next = match &series.measure {
                    Measure::Catalogued(id) => Next::Catalogued(*id),
                    Measure::Open(open) => {
                        declared.iter().position(|known| known == open).map_or(Next::Declared, Next::Open)
                    }
                };
                model.code_next(coder, subject.kind, before, next);
                before = next;
                if let (Next::Declared, Measure::Open(open)) = (next, &series.measure) {
                    model.code_open(coder, Some(open));
                    before = Next::Open(declared.len());
                    declared.push(open.clone());
                }
            }
            model.code_next(coder, subject.kind, before, Next::End);
        }
        for part in &self.parts {
            model.columns.code_len(coder, part.columns);
            model.bytes.code_len(coder, part.bytes);
        }
    }

    pub(super) fn take(bytes: &[u8]) -> Result<Self, BlockError> {
        let mut coder = Decoder::new(bytes);
        let mut model = HeadModel::new();
        let count = at_most("rows", model.counts.code_len(&mut coder, 0), ROWS_MAX)?;
        let rows = take_rows(&mut coder, count)?;
        let columns_max = COLUMNS_MAX.min(SAMPLES_MAX / count.max(1));
        let count = at_most("subjects", model.counts.code_len(&mut coder, 0), columns_max)?;
        let mut head = Self { rows, subjects: Vec::new(), series: Vec::new(), parts: Vec::new() };
        let mut declared = Vec::new();
        for subject in 0..count {
            head.subjects.push(model.code_subject(&mut coder, None).ok_or(BlockError::Malformed("a subject"))?);
            head.take_run(&mut coder, &mut model, (subject, &mut declared), columns_max)?;
            if coder.is_spent() {
                return Err(BlockError::Truncated);
            }
        }
        let mut left = if head.rows.is_empty() { 0 } else { head.series.len() };
        while left > 0 {
            let columns = model.columns.code_len(&mut coder, 0);
            let bytes = model.bytes.code_len(&mut coder, 0);
            if columns == 0 || columns > left || coder.is_spent() {
                return Err(BlockError::Malformed("the parts"));
            }
            left -= columns;
            head.parts.push(Extent { columns, bytes });
        }
        if coder.is_spent() { Err(BlockError::Truncated) } else { Ok(head) }
    }

    fn take_run(
        &mut self,
        coder: &mut Decoder<'_>,
        model: &mut HeadModel,
        (subject, declared): (usize, &mut Vec<OpenMetric>),
        columns_max: usize,
    ) -> Result<(), BlockError> {
        let kind = self.subjects[subject].kind;
        let mut before = Next::End;
        loop {
            let mut next = model.code_next(coder, kind, before, Next::End);
            let measure = match next {
                Next::End => return Ok(()),
                Next::Catalogued(id) => Measure::Catalogued(id),
                Next::Open(at) => Measure::Open(declared.get(at).ok_or(BlockError::Malformed("a metric"))?.clone()),
                Next::Declared => {
                    let open = model.code_open(coder, None).ok_or(BlockError::Malformed("a declared metric"))?;
                    next = Next::Open(declared.len());
                    declared.push(open.clone());
                    Measure::Open(open)
                }
            };
            at_most("columns", self.series.len() + 1, columns_max)?;
            self.series.push(Series { subject, measure });
            before = next;
        }
    }
}

impl HeadModel {
    fn new() -> Self {
        Self {
            counts: Numbers::new(),
            kinds: [Bit::UNKNOWN; 16],
            names: Names::new(),
            is_expected: [Bit::UNKNOWN; 2],
            was_expected: true,
            next: [Bit::UNKNOWN; 4],
            metrics: Numbers::new(),
            opens: Numbers::new(),
            follows: HashMap::new(),
            columns: Numbers::new(),
            bytes: Numbers::new(),
        }
    }

    /// `None` when reading; what is read may be no subject.
    fn code_subject(&mut self, coder: &mut impl Coder, subject: Option<&Subject>) -> Option<Subject> {
        let raw = code_tree(coder, &mut self.kinds, 4, subject.map_or(0, |subject| subject.kind as u64));
        let kind = SubjectKind::from_raw(u8::try_from(raw).ok()?)?;
        if kind.is_single() {
            return Subject::new(kind, "");
        }
        let name = subject.map_or("", Subject::name).as_bytes();
        let name = self.names.code(coder, name, SUBJECT_NAME_BYTES_MAX);
        Subject::new(kind, std::str::from_utf8(&name).ok()?)
    }

    /// What followed the same measure of a subject of this kind before is expected again.
    fn code_next(&mut self, coder: &mut impl Coder, kind: SubjectKind, before: Next, next: Next) -> Next {
        let id_before = match before {
            Next::Catalogued(id) => id.0,
            _ => BEFORE_FIRST[kind as usize],
        };
        let guess = Next::Catalogued(MetricId(id_before.wrapping_add(1)));
        let expected = self.follows.get(&(kind, before)).copied().unwrap_or(guess);
        let coded = if coder.bit(&mut self.is_expected[usize::from(self.was_expected)], next == expected) {
            self.was_expected = true;
            expected
        } else {
            self.was_expected = false;
            self.code_other(coder, id_before, next)
        };
        // What is declared is known by its number from here on.
        if coded != Next::Declared {
            self.follows.insert((kind, before), coded);
        }
        coded
    }

    fn code_other(&mut self, coder: &mut impl Coder, id_before: u16, next: Next) -> Next {
        let (number, id, open) = match next {
            Next::End => (0, 0, 0),
            Next::Catalogued(id) => (1, id.0, 0),
            Next::Open(at) => (2, 0, at),
            Next::Declared => (3, 0, 0),
        };
        match code_tree(coder, &mut self.next, 2, number) {
            0 => Next::End,
            1 => {
                let by = i64::from(id.wrapping_sub(id_before).cast_signed());
                let by = unzigzag(self.metrics.code(coder, zigzag(by)));
                let [low, high, ..] = i64::from(id_before).wrapping_add(by).to_le_bytes();
                Next::Catalogued(MetricId(u16::from_le_bytes([low, high])))
            }
            2 => Next::Open(self.opens.code_len(coder, open)),
            _ => Next::Declared,
        }
    }

    /// `None` when reading; what is read may be no metric.
    fn code_open(&mut self, coder: &mut impl Coder, open: Option<&OpenMetric>) -> Option<OpenMetric> {
        let name = self.names.code(coder, open.map_or("", OpenMetric::name).as_bytes(), METRIC_NAME_BYTES_MAX);
        let unit = self.opens.code_len(coder, open.map_or(0, |open| open.unit as usize));
        let is_counter = self.opens.code(coder, open.map_or(0, |open| u64::from(open.kind == Kind::Counter)));
        let (is_part, size) = match open.map_or(Step::Each(1), |open| open.step) {
            Step::Each(size) => (0, size),
            Step::Per(size) => (1, size),
        };
        let is_part = self.opens.code(coder, is_part);
        let size = u32::try_from(self.opens.code(coder, u64::from(size))).ok()?;
        let kind = if is_counter == 0 { Kind::Gauge } else { Kind::Counter };
        let step = if is_part == 0 { Step::Each(size) } else { Step::Per(size) };
        OpenMetric::new(std::str::from_utf8(&name).ok()?, *UNITS.get(unit)?, kind, step).ok()
    }
}

/// Rows are columns as well: evenly spaced ones cost a few bytes in all.
fn put_rows(coder: &mut impl Coder, rows: &[Row], effort: Effort) {
    if rows.is_empty() {
        return;
    }
    let mut part = Part::new(rows.len());
    let columns: [fn(&Row) -> i64; 4] = [
        |row| row.time.0,
        |row| i64::from(row.epoch.0),
        |row| row.seq.0.cast_signed(),
        |row| row.time.0.wrapping_sub(row.mono.0.cast_signed()),
    ];
    for (sort, column) in columns.into_iter().enumerate() {
        let values: Vec<i64> = rows.iter().map(column).collect();
        part.put(coder, sort, &values, |part, moves, present| plan::choose(part, moves, present, effort));
    }
}

fn take_rows(coder: &mut Decoder<'_>, count: usize) -> Result<Vec<Row>, BlockError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut part = Part::new(count);
    let mut column = |sort| {
        let values = part.take(coder, sort)?;
        if coder.is_spent() { Err(BlockError::Truncated) } else { Ok(values) }
    };
    let (times, epochs, seqs, offsets) = (column(0)?, column(1)?, column(2)?, column(3)?);
    let row = |at: usize| {
        let epoch = u32::try_from(epochs[at]).map_err(|_| BlockError::Malformed("an epoch"))?;
        Ok(Row {
            time: WallMs(times[at]),
            epoch: Epoch(epoch),
            seq: Seq(seqs[at].cast_unsigned()),
            mono: MonoMs(times[at].wrapping_sub(offsets[at]).cast_unsigned()),
        })
    };
    (0..count).map(row).collect()
}

fn at_most(what: &'static str, count: usize, max: usize) -> Result<usize, BlockError> {
    if count > max { Err(BlockError::TooMany { what, count, max }) } else { Ok(count) }
}
