//! A closed journal to sealed files: every sample by node, and five-minute cells by metric.
//!
//! What comes of a journal follows from it and from the files before it alone, so a start after a crash seals the same
//! again. Nodes are taken in slices: of a journal of any size, so much is in memory at a time.

use std::collections::BTreeMap;
use std::path::Path;

use dunlin_shared::frame::BodyKind;
use dunlin_shared::id::NodeId;
use dunlin_shared::range::SeqRange;
use dunlin_shared::time::WallMs;
use serde::{Deserialize, Serialize};

use super::Errand;
use super::sheets::{Columns, SheetWriter};
use crate::block::{self, COLUMNS_MAX, Effort, Stretch};
use crate::ingest::Ledger;
use crate::points::{self, Wanted};
use crate::record::{Event, NodeKey, Record};
use crate::rollup::{Row, cells};
use crate::store::{
    Block, Builder, ClosedJournal, JournalSource, Level, Patience, Sealed, SealedName, Span, StoreError, discard,
};
use crate::stretch::{self, Clocks, Taken};

/// Bytes of a journal that are read at once; as readings they take about as many again. Tests take several of few nodes.
const SLICE_BYTES: u64 = if cfg!(test) { 4 * 1024 } else { 8 * 1024 * 1024 };
/// Values of one block: what a node with very many series has is stored in parts.
pub(super) const BLOCK_VALUES_MAX: usize = 1 << 20;
/// Rows of one block.
pub(super) const BLOCK_ROWS_MAX: usize = 8_192;
/// Values of a stretch while it is sealed or merged: 64 MiB. A node with all the series that it may have takes a
/// twelfth of it in five minutes.
pub(super) const STRETCH_VALUES_MAX: usize = 1 << 23;
/// Rows of the stretch before that rates may reach back to: two and a half intervals.
const TAIL_ROWS: usize = 4;
/// When a stretch has too few rows to tell.
const INTERVAL_MS: u32 = 10_000;

/// Frames that hold no reading and gaps, beside a stretch: what its rows do not tell of what was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apart {
    pub epoch: u32,
    pub range: SeqRange,
    pub is_gap: bool,
}

/// Of a journal, as it is sealed.
struct Sealing<'a> {
    source: JournalSource,
    names: BTreeMap<NodeKey, NodeId>,
    /// The newest first.
    before: Vec<Sealed>,
    full: Option<Builder>,
    mid: Option<SheetWriter>,
    errand: &'a mut Errand,
}

/// Seals what is missing of the two levels. `Ok(None)` while the journal cannot be read yet.
pub(super) fn seal(
    dir: &Path,
    journal: &ClosedJournal,
    before: &[SealedName],
    missing: (bool, bool),
    now: WallMs,
    errand: &mut Errand,
) -> Result<Option<Vec<SealedName>>, StoreError> {
    let patience = if errand.unread.is_given_up(journal.path()) { Patience::Over } else { Patience::Waits };
    let Some(mut source) = JournalSource::open(journal, patience)? else { return Ok(None) };
    let weights = source.weights()?;
    let names = Ledger::decode(&source.snapshot).map(|ledger| ledger.nodes().collect()).unwrap_or_default();
    let slot_s = slot_of(journal, source.latest);
    let begin = |level| Builder::begin(dir, level, Span::FiveMinutes, slot_s);
    let mut sealing = Sealing {
        source,
        names,
        before: opened(before, errand)?,
        full: missing.0.then(|| begin(Level::Full)).transpose()?,
        mid: missing.1.then(|| begin(Level::Mid).map(|mid| SheetWriter::new(mid, Level::Mid))).transpose()?,
        errand,
    };
    let built =
        sealing.run(weights).and_then(|whole| if whole { sealing.publish(journal, now).map(Some) } else { Ok(None) });
    if !matches!(built, Ok(Some(_))) {
        drop(discard(dir, Level::Full).and_then(|()| discard(dir, Level::Mid)));
    }
    built
}

/// Where a journal is filed: by the last that came, since nobody looks for what came behind the end of a slot. One that
/// could not be rotated lasts longer than its own; how far back it reaches is told beside.
fn slot_of(journal: &ClosedJournal, latest: Option<WallMs>) -> i64 {
    let own_s = journal.slot_s();
    let last_s = latest.map_or(own_s, |latest| latest.0.div_euclid(1_000));
    // What a damaged row or a moved clock says is no reason to be filed behind what follows.
    Span::FiveMinutes.slot_of(last_s.clamp(own_s, journal.closed_s().max(own_s)))
}

/// The files before a journal serve its rates: without one that cannot be read it is sealed all the same.
fn opened(before: &[SealedName], errand: &mut Errand) -> Result<Vec<Sealed>, StoreError> {
    let mut opened = Vec::with_capacity(before.len());
    for name in before {
        match Sealed::open(name) {
            Ok(file) => opened.extend(file),
            Err(error) => errand.pass_over(name.path(), error)?,
        }
    }
    Ok(opened)
}

impl Sealing<'_> {
    /// Whether it came to its end.
    fn run(&mut self, weights: BTreeMap<NodeKey, u64>) -> Result<bool, StoreError> {
        let mut nodes = weights.into_iter().peekable();
        while let Some((first, mut bytes)) = nodes.next() {
            if self.errand.is_halted() {
                return Ok(false);
            }
            let mut last = first;
            while let Some((node, more)) = nodes.next_if(|(_, more)| bytes + more <= SLICE_BYTES) {
                (last, bytes) = (node, bytes + more);
            }
            let slice = self.source.records((first, last))?;
            let mut columns = Columns::default();
            for (node, records) in slice {
                self.node(node, &records, &mut columns)?;
            }
            if let Some(mid) = &mut self.mid {
                mid.put(columns)?;
            }
        }
        Ok(true)
    }

    fn node(&mut self, node: NodeKey, records: &[Record], columns: &mut Columns) -> Result<(), StoreError> {
        let (id, skew_ms) = self.introduced(node, records);
        let before = self.stretch_before(node)?;
        let apart = apart(records);
        let mut part = Some(0);
        let mut before = before;
        for stretch in cut(records, skew_ms, &Clocks::after(&before)) {
            if let Some(full) = &mut self.full {
                part = put_stretch(
                    full,
                    (node, id),
                    &stretch,
                    if part == Some(0) { &apart } else { &[] },
                    (Effort::Quick, part),
                )?;
            }
            if self.mid.is_some() {
                roll_up(node, &before, &stretch, columns);
            }
            before = stretch;
        }
        Ok(())
    }

    /// Whose key it is, and by how much its clock is off, as its Hellos say.
    fn introduced(&self, node: NodeKey, records: &[Record]) -> (NodeId, i64) {
        let hellos = records.iter().rev().filter_map(|record| match &record.event {
            Event::Hello { session, .. } => Some((session.node, session.skew_ms)),
            _ => None,
        });
        let hello = hellos.into_iter().next();
        let id = self.names.get(&node).copied().or(hello.map(|(id, _)| id));
        (id.unwrap_or(NodeId::from_bytes([0; 16])), hello.map_or(0, |(_, skew_ms)| skew_ms))
    }

    fn stretch_before(&mut self, node: NodeKey) -> Result<Stretch, StoreError> {
        for file in &self.before {
            let block = match file.blocks_of(node).and_then(|mut blocks| blocks.pop().transpose()) {
                Ok(Some(block)) => block,
                Ok(None) => continue,
                Err(error) => {
                    self.errand.pass_over(file.path(), error)?;
                    continue;
                }
            };
            match block::decode(&block.body) {
                Ok(stretch) => return Ok(stretch),
                Err(error) => self.errand.note(file.path(), &format!("a block cannot be decoded: {error}")),
            }
        }
        Ok(Stretch::default())
    }

    fn publish(&mut self, journal: &ClosedJournal, now: WallMs) -> Result<Vec<SealedName>, StoreError> {
        let (first, last) = (journal.first(), journal.last());
        let full = self.full.take().map(|full| full.publish(first, last, now)).transpose()?;
        let mid = self.mid.take().map(|mid| mid.publish(first, last, now)).transpose()?;
        if let Some(damage) = &self.source.damage {
            self.errand.note(self.source.path(), damage);
        }
        Ok(full.into_iter().chain(mid).collect())
    }
}

/// The stretch of some records; more than one where it would be larger than it may be. A cut costs the deltas behind it
/// up to the next key, of a node that has far more series than any host.
fn cut(records: &[Record], skew_ms: i64, clocks: &Clocks) -> Vec<Stretch> {
    let taken = Taken { wanted: &|_, _| true, skew_ms, values_max: STRETCH_VALUES_MAX };
    match stretch::of(records, taken, clocks) {
        Ok(stretch) if stretch.columns.len() <= COLUMNS_MAX => vec![stretch],
        _ if records.len() <= 1 => Vec::new(),
        _ => {
            let (first, second) = records.split_at(records.len() / 2);
            let mut stretches = cut(first, skew_ms, clocks);
            stretches.extend(cut(second, skew_ms, clocks));
            stretches
        }
    }
}

/// Writes a stretch in as many blocks as it takes, from this part on. Gives the part that comes next; `None` when there
/// are no numbers left, and what would have them is not written.
pub(super) fn put_stretch(
    full: &mut Builder,
    (node, node_id): (NodeKey, NodeId),
    stretch: &Stretch,
    apart: &[Apart],
    (effort, mut part): (Effort, Option<u16>),
) -> Result<Option<u16>, StoreError> {
    if stretch.rows.is_empty() && apart.is_empty() {
        return Ok(part);
    }
    let rows_max = (BLOCK_VALUES_MAX / stretch.columns.len().max(1)).clamp(1, BLOCK_ROWS_MAX);
    let mut pieces = stretch.parts(rows_max);
    if pieces.is_empty() {
        pieces.push(Stretch::default());
    }
    for (at, stretch) in pieces.into_iter().enumerate() {
        let Some(number) = part else { break };
        let apart = if at == 0 && !apart.is_empty() { postcard::to_stdvec(apart).ok() } else { None };
        let (begins, ends) = stretch.span().unwrap_or_default();
        let rows = u32::try_from(stretch.rows.len()).unwrap_or(u32::MAX);
        let body = block::encode(&stretch, effort);
        full.put_block(&Block { node, part: number, node_id, begins, ends, rows, apart, body })?;
        part = number.checked_add(1);
    }
    Ok(part)
}

/// Adds the five-minute cells of a node's stretch; what came before it serves rates.
pub(super) fn roll_up(node: NodeKey, before: &Stretch, stretch: &Stretch, columns: &mut Columns) {
    let Some((begins, ends)) = stretch.span() else { return };
    let tail = before.tail(TAIL_ROWS);
    // Of one that ticks each five minutes there is a row in each, and the one before tells.
    let told = if stretch.rows.len() > TAIL_ROWS { &[][..] } else { &before.rows };
    let interval_ms = points::interval_ms(told.iter().chain(&stretch.rows)).unwrap_or(INTERVAL_MS);
    let wanted = Wanted { from: begins, to: ends, interval_ms, raw: false };
    let slot_ms = Level::Mid.slot_ms().unwrap_or(1);
    // Behind late rows the tail lies within the range, and was counted where it stands.
    let is_counted = |at: WallMs| {
        let is_row = |stretch: &Stretch| stretch.rows.iter().any(|row| row.time == at);
        at >= begins && is_row(&tail) && !is_row(stretch)
    };
    let overlaps = tail.span().is_some_and(|(_, last)| last >= begins);
    for mut line in points::lines(&[&tail, stretch], &wanted) {
        if overlaps {
            line.points.retain(|(at, _)| !is_counted(*at));
        }
        let cells = cells(&line.points, slot_ms);
        if !cells.is_empty() {
            columns.add(line.measure, Row { node, subject: line.subject, cells });
        }
    }
}

fn apart(records: &[Record]) -> Vec<Apart> {
    let mut all: Vec<Apart> = Vec::new();
    for record in records {
        let more = match &record.event {
            Event::Frame { frame, .. } if frame.kind == BodyKind::Inventory => {
                Apart { epoch: frame.id.epoch.0, range: SeqRange::one(frame.id.seq), is_gap: false }
            }
            Event::Gap { gap, .. } => Apart { epoch: gap.epoch.0, range: gap.range, is_gap: true },
            _ => continue,
        };
        all.push(more);
    }
    all
}
