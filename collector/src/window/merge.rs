//! Several sealed files to one that holds what all of them do, for a longer span.
//!
//! Files are read side by side in the order of what they hold, so that a merge of any size holds one row of each.

use std::collections::VecDeque;
use std::path::Path;

use dunlin_shared::sample::Subject;
use dunlin_shared::time::WallMs;

use super::Errand;
use super::seal::{Apart, STRETCH_VALUES_MAX, put_stretch};
use super::sheets::{SHEET_CELLS_MAX, SheetWriter, measure_of, order};
use crate::block::{self, Effort, Measure, Stretch};
use crate::record::{NodeKey, Pos};
use crate::rollup::{HOUR_SLOTS, Row, Scale, decode, longer, together};
use crate::store::{Block, Blocks, Builder, Level, Sealed, SealedName, Sheets, Span, StoreError, discard};

/// What a merge is to make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    span: Span,
    slot_s: i64,
    /// Cells of an hour are made of those of five minutes once, when those come to be an hour.
    with_hours: bool,
}

impl Target {
    pub(super) fn longer(span: Span, slot_s: i64) -> Self {
        Self { span, slot_s, with_hours: span == Span::Hour }
    }

    /// The same file, without what is damaged in it.
    pub(super) const fn again(name: &SealedName) -> Self {
        Self { span: name.span, slot_s: name.slot_s, with_hours: false }
    }
}

/// Merges files of one level, which are in the order of their positions. Gives back what it made, in the order in which
/// it counts; `None` when one of the files is gone, or when it is
/// to stop.
pub(super) fn merge(
    dir: &Path,
    files: &[SealedName],
    target: Target,
    now: WallMs,
    errand: &mut Errand,
) -> Result<Option<Vec<SealedName>>, StoreError> {
    let ([first, ..], [.., last]) = (files, files) else { return Ok(None) };
    let mut open = Vec::with_capacity(files.len());
    for name in files {
        let Some(file) = Sealed::open(name)? else { return Ok(None) };
        open.push(file);
    }
    let bounds = (first.first, last.last);
    let level = first.level;
    let made = match level {
        Level::Full => merge_blocks(dir, &open, target, (bounds, now), errand),
        Level::Mid | Level::Long => merge_sheets((dir, level), &open, target, (bounds, now), errand),
    };
    if !matches!(made, Ok(Some(_))) {
        drop(discard(dir, level).and_then(|()| discard(dir, Level::Long)));
    }
    made
}

type Bounds = ((Pos, Pos), WallMs);

fn merge_blocks(
    dir: &Path,
    files: &[Sealed],
    target: Target,
    ((first, last), now): Bounds,
    errand: &mut Errand,
) -> Result<Option<Vec<SealedName>>, StoreError> {
    let mut out = Builder::begin(dir, Level::Full, target.span, target.slot_s)?;
    let mut walks: Vec<_> = files.iter().map(|file| Ahead::new(file, file.blocks())).collect();
    while let Some(node) = walks.iter_mut().filter_map(|walk| Some(walk.peek(errand)?.node)).min() {
        if errand.is_halted() {
            return Ok(None);
        }
        let (mut stretches, mut apart, mut id) = (Vec::new(), Vec::new(), None);
        for walk in &mut walks {
            while let Some(block) = walk.next_of(node, errand) {
                id = Some(block.node_id);
                apart.extend(told_apart(&block));
                match block::decode(&block.body) {
                    Ok(stretch) => stretches.push(stretch),
                    Err(error) => errand.note(walk.file.path(), &format!("a block cannot be decoded: {error}")),
                }
            }
        }
        let Some(id) = id else { continue };
        let mut part = Some(0);
        for stretch in Stretch::join(stretches, STRETCH_VALUES_MAX) {
            let apart = if part == Some(0) { &apart[..] } else { &[] };
            part = put_stretch(&mut out, (node, id), &stretch, apart, (Effort::Thorough, part))?;
        }
    }
    Ok(Some(vec![out.publish(first, last, now)?]))
}

/// Frames of a block that hold no reading, and gaps.
#[must_use]
pub fn told_apart(block: &Block) -> Vec<Apart> {
    let read = |bytes: &Vec<u8>| postcard::from_bytes(bytes).ok();
    block.apart.as_ref().and_then(read).unwrap_or_default()
}

/// The blocks of a file, one ahead. What is damaged is noted and passed over.
struct Ahead<'a> {
    file: &'a Sealed,
    blocks: Blocks<'a>,
    next: Option<Block>,
}

impl<'a> Ahead<'a> {
    const fn new(file: &'a Sealed, blocks: Blocks<'a>) -> Self {
        Self { file, blocks, next: None }
    }

    fn peek(&mut self, errand: &mut Errand) -> Option<&Block> {
        while self.next.is_none() {
            match self.blocks.next()? {
                Ok(block) => self.next = Some(block),
                Err(error) => errand.note(self.file.path(), &error.to_string()),
            }
        }
        self.next.as_ref()
    }

    fn next_of(&mut self, node: NodeKey, errand: &mut Errand) -> Option<Block> {
        if self.peek(errand)?.node == node { self.next.take() } else { None }
    }
}

/// Cells of an hour are made beside those of five minutes, and count first: they are made of what goes when those count.
fn merge_sheets(
    (dir, level): (&Path, Level),
    files: &[Sealed],
    target: Target,
    ((first, last), now): Bounds,
    errand: &mut Errand,
) -> Result<Option<Vec<SealedName>>, StoreError> {
    let begin =
        |level| Builder::begin(dir, level, target.span, target.slot_s).map(|builder| SheetWriter::new(builder, level));
    let mut out = begin(level)?;
    let with_hours = target.with_hours && level == Level::Mid;
    let mut hours = with_hours.then(|| begin(Level::Long)).transpose()?;
    for measure in measures(files)? {
        let Some(scale) = measure.0.about().map(|about| Scale::of(&about)) else { continue };
        if errand.is_halted() {
            return Ok(None);
        }
        let mut rows = Buffered::default();
        let mut walks: Vec<_> =
            files.iter().zip(&measure.1).filter_map(|(file, number)| Rows::new(file, (*number)?, scale)).collect();
        while let Some(key) = walks.iter_mut().filter_map(|walk| walk.peek(errand)).min() {
            let parts = walks.iter_mut().filter_map(|walk| walk.next_of(&key, errand)).map(|row| row.cells).collect();
            rows.push(Row { node: key.0, subject: key.1, cells: together(parts) });
            if rows.is_full() {
                rows.put(&measure.0, &mut out, hours.as_mut())?;
            }
        }
        rows.put(&measure.0, &mut out, hours.as_mut())?;
    }
    let hours = hours.map(|hours| hours.publish(first, last, now)).transpose()?;
    let out = out.publish(first, last, now)?;
    Ok(Some(hours.into_iter().chain([out]).collect()))
}

/// A measure, and the number that each file has for it.
type Measured = (Measure, Vec<Option<u32>>);

/// What the files measure, in order, and which number each of them has for it.
fn measures(files: &[Sealed]) -> Result<Vec<Measured>, StoreError> {
    let mut all: Vec<Measured> = Vec::new();
    let mut known = std::collections::HashMap::new();
    for (at, file) in files.iter().enumerate() {
        let declared = file.declared()?;
        for number in file.measures()? {
            let Some(measure) = measure_of(number, &declared) else { continue };
            let index = *known.entry(measure.clone()).or_insert_with(|| {
                all.push((measure, vec![None; files.len()]));
                all.len() - 1
            });
            all[index].1[at] = Some(number);
        }
    }
    all.sort_by(|(a, _), (b, _)| order(a).cmp(&order(b)));
    Ok(all)
}

/// Rows that wait to be a sheet.
#[derive(Default)]
struct Buffered {
    rows: Vec<Row>,
    cells: usize,
}

impl Buffered {
    fn push(&mut self, row: Row) {
        self.cells += row.cells.len();
        self.rows.push(row);
    }

    const fn is_full(&self) -> bool {
        self.cells >= SHEET_CELLS_MAX
    }

    fn put(
        &mut self,
        measure: &Measure,
        out: &mut SheetWriter,
        hours: Option<&mut SheetWriter>,
    ) -> Result<(), StoreError> {
        out.put_rows(measure, &self.rows)?;
        if let Some(hours) = hours {
            self.rows.iter_mut().for_each(|row| row.cells = longer(&row.cells, HOUR_SLOTS));
            hours.put_rows(measure, &self.rows)?;
        }
        *self = Self::default();
        Ok(())
    }
}

/// The rows of one measure of a file, in the order of nodes and subjects.
struct Rows<'a> {
    file: &'a Sealed,
    sheets: Sheets<'a>,
    scale: Scale,
    rows: VecDeque<Row>,
}

impl<'a> Rows<'a> {
    fn new(file: &'a Sealed, measure: u32, scale: Scale) -> Option<Self> {
        Some(Self { file, sheets: file.sheets_of_measure(measure), scale, rows: VecDeque::new() })
    }

    fn peek(&mut self, errand: &mut Errand) -> Option<(NodeKey, Subject)> {
        while self.rows.is_empty() {
            let found = self.sheets.next()?;
            let decoded = found.map_err(|error| error.to_string()).and_then(|sheet| {
                decode(&sheet.body, self.scale, |_, _| true)
                    .map_err(|error| format!("a sheet cannot be decoded: {error}"))
            });
            match decoded {
                Ok(rows) => self.rows.extend(rows),
                Err(what) => errand.note(self.file.path(), &what),
            }
        }
        self.rows.front().map(|row| (row.node, row.subject.clone()))
    }

    fn next_of(&mut self, key: &(NodeKey, Subject), errand: &mut Errand) -> Option<Row> {
        if self.peek(errand)? == *key { self.rows.pop_front() } else { None }
    }
}
