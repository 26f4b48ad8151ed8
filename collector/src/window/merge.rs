//! Several sealed files to one that holds what all of them do, for a longer span.
//!
//! Files are read side by side in the order of what they hold, so that a merge of any size holds one row of each.

use std::collections::VecDeque;
use std::path::Path;

use dunlin_shared::sample::Subject;
use dunlin_shared::time::WallMs;

use super::Errand;
use super::read::{Depth, verify};
use super::seal::{Apart, STRETCH_VALUES_MAX, put_stretch};
use super::sheets::{SHEET_CELLS_MAX, SheetWriter, measure_of, order};
use crate::block::{self, Effort, Measure, Stretch};
use crate::record::NodeKey;
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
    let level = first.level;
    // What others met before is no part of what this merge leaves out.
    let mut met = std::mem::take(&mut errand.met);
    let made = build((dir, level), files, target, errand).and_then(|built| {
        let Some(built) = built else { return Ok(None) };
        confirm(files, errand)?;
        let publish = |builder: Builder| builder.publish(first.first, last.last, now);
        built.into_iter().map(publish).collect::<Result<Vec<_>, _>>().map(Some)
    });
    if matches!(made, Ok(Some(_))) {
        // A file of which everything was read goes; so does what was said of it.
        met.retain(|path, _| files.iter().all(|name| name.path() != path));
    } else {
        drop(discard(dir, level).and_then(|()| discard(dir, Level::Long)));
    }
    met.append(&mut errand.met);
    errand.met = met;
    made
}

/// All of it, but for the names: in the order in which they are to be given.
fn build(
    (dir, level): (&Path, Level),
    files: &[SealedName],
    target: Target,
    errand: &mut Errand,
) -> Result<Option<Vec<Builder>>, StoreError> {
    let mut open = Vec::with_capacity(files.len());
    for name in files {
        match Sealed::open(name) {
            Ok(Some(file)) => open.push(file),
            Ok(None) => return Ok(None),
            // As a whole: it is set aside before anything is made without it.
            Err(error @ StoreError::Damaged { .. }) => return Err(error),
            Err(error) => errand.pass_over(name.path(), error)?,
        }
    }
    match level {
        Level::Full => merge_blocks(dir, &open, target, errand),
        Level::Mid | Level::Long => merge_sheets((dir, level), &open, target, errand),
    }
}

/// What was left out of a file is read once more before anything counts without it: where the whole file is sound, it was
/// an error of the moment, and it is merged again.
pub(super) fn confirm(files: &[SealedName], errand: &mut Errand) -> Result<(), StoreError> {
    for name in files.iter().filter(|name| errand.met.contains_key(name.path())).collect::<Vec<_>>() {
        match verify(name, Depth::Values) {
            Ok(None) => {
                errand.met.remove(name.path());
                let source = "it was read wrongly once, and is sound".into();
                return Err(StoreError::Unavailable { path: name.path().to_path_buf(), source });
            }
            Ok(Some(_)) | Err(StoreError::Damaged { .. }) => {}
            Err(error) => errand.pass_over(name.path(), error)?,
        }
    }
    Ok(())
}

fn merge_blocks(
    dir: &Path,
    files: &[Sealed],
    target: Target,
    errand: &mut Errand,
) -> Result<Option<Vec<Builder>>, StoreError> {
    let mut out = Builder::begin(dir, Level::Full, target.span, target.slot_s)?;
    let mut walks: Vec<_> = files.iter().map(|file| Ahead::new(file, file.blocks())).collect();
    while let Some(node) = lowest(walks.iter_mut().map(|walk| Ok(walk.peek(errand)?.map(|block| block.node))))? {
        if errand.is_halted() {
            return Ok(None);
        }
        let (mut stretches, mut apart, mut id) = (Vec::new(), Vec::new(), None);
        for walk in &mut walks {
            while let Some(block) = walk.next_of(node, errand)? {
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
    Ok(Some(vec![out]))
}

/// What comes next of several walks.
fn lowest<K: Ord>(mut keys: impl Iterator<Item = Result<Option<K>, StoreError>>) -> Result<Option<K>, StoreError> {
    keys.try_fold(None, |lowest: Option<K>, key| Ok([lowest, key?].into_iter().flatten().min()))
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

    fn peek(&mut self, errand: &mut Errand) -> Result<Option<&Block>, StoreError> {
        while self.next.is_none() {
            match self.blocks.next() {
                Some(Ok(block)) => self.next = Some(block),
                Some(Err(error)) => errand.pass_over(self.file.path(), error)?,
                None => break,
            }
        }
        Ok(self.next.as_ref())
    }

    fn next_of(&mut self, node: NodeKey, errand: &mut Errand) -> Result<Option<Block>, StoreError> {
        let is_next = self.peek(errand)?.is_some_and(|block| block.node == node);
        Ok(if is_next { self.next.take() } else { None })
    }
}

/// Cells of an hour are made beside those of five minutes, and count first: they are made of what goes when those count.
fn merge_sheets(
    (dir, level): (&Path, Level),
    files: &[Sealed],
    target: Target,
    errand: &mut Errand,
) -> Result<Option<Vec<Builder>>, StoreError> {
    let begin =
        |level| Builder::begin(dir, level, target.span, target.slot_s).map(|builder| SheetWriter::new(builder, level));
    let mut out = begin(level)?;
    let with_hours = target.with_hours && level == Level::Mid;
    let mut hours = with_hours.then(|| begin(Level::Long)).transpose()?;
    for measure in measures(files, errand)? {
        let Some(scale) = measure.0.about().map(|about| Scale::of(&about)) else { continue };
        if errand.is_halted() {
            return Ok(None);
        }
        let mut rows = Buffered::default();
        let mut walks: Vec<_> =
            files.iter().zip(&measure.1).filter_map(|(file, number)| Rows::new(file, (*number)?, scale)).collect();
        while let Some(key) = lowest(walks.iter_mut().map(|walk| walk.peek(errand)))? {
            let mut parts = Vec::new();
            for walk in &mut walks {
                parts.extend(walk.next_of(&key, errand)?.map(|row| row.cells));
            }
            rows.push(Row { node: key.0, subject: key.1, cells: together(parts) });
            if rows.is_full() {
                rows.put(&measure.0, &mut out, hours.as_mut())?;
            }
        }
        rows.put(&measure.0, &mut out, hours.as_mut())?;
    }
    Ok(Some(hours.into_iter().chain([out]).map(SheetWriter::into_builder).collect()))
}

/// A measure, and the number that each file has for it.
type Measured = (Measure, Vec<Option<u32>>);

/// What the files measure, in order, and which number each of them has for it.
fn measures(files: &[Sealed], errand: &mut Errand) -> Result<Vec<Measured>, StoreError> {
    let mut all: Vec<Measured> = Vec::new();
    let mut known = std::collections::HashMap::new();
    for (at, file) in files.iter().enumerate() {
        let (declared, numbers) = match file.declared().and_then(|declared| Ok((declared, file.measures()?))) {
            Ok(found) => found,
            Err(error @ StoreError::Damaged { .. }) => return Err(error),
            Err(error) => {
                errand.pass_over(file.path(), error)?;
                continue;
            }
        };
        for number in numbers {
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

    fn peek(&mut self, errand: &mut Errand) -> Result<Option<(NodeKey, Subject)>, StoreError> {
        while self.rows.is_empty() {
            let sheet = match self.sheets.next() {
                Some(Ok(sheet)) => sheet,
                Some(Err(error)) => {
                    errand.pass_over(self.file.path(), error)?;
                    continue;
                }
                None => break,
            };
            match decode(&sheet.body, self.scale, |_, _| true) {
                Ok(rows) => self.rows.extend(rows),
                Err(error) => errand.note(self.file.path(), &format!("a sheet cannot be decoded: {error}")),
            }
        }
        Ok(self.rows.front().map(|row| (row.node, row.subject.clone())))
    }

    fn next_of(&mut self, key: &(NodeKey, Subject), errand: &mut Errand) -> Result<Option<Row>, StoreError> {
        let is_next = self.peek(errand)?.is_some_and(|next| next == *key);
        Ok(if is_next { self.rows.pop_front() } else { None })
    }
}
