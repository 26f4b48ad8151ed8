//! Samples that come from elsewhere, as sealed files: every sample by node, and roll-ups of both kinds.
//!
//! They are received now, whenever they were measured: the slot of their files is today's, and what is kept is counted
//! from today. Each file is as long as a day's and is merged with no other. Nothing counts before its owner moves it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use dunlin_shared::id::NodeId;
use dunlin_shared::time::WallMs;

use super::seal::{STRETCH_VALUES_MAX, put_stretch, roll_up};
use super::sheets::{Columns, SheetWriter};
use crate::block::{Effort, Stretch};
use crate::record::{NodeKey, Pos};
use crate::rollup::{HOUR_SLOTS, Row, longer, together};
use crate::store::{Builder, Level, Span, StoreError};

/// Values of one file, of all nodes: some megabytes of it.
const FILE_VALUES_MAX: usize = 8 * STRETCH_VALUES_MAX;
/// Cells that wait to be written, 48 bytes each.
const CELLS_MAX: usize = 250_000;

/// Writes files of the three levels, one set after the other.
#[derive(Debug)]
pub struct Intake {
    dir: PathBuf,
    now: WallMs,
    next: Pos,
    files: Option<FileSet>,
    node: Option<NodeKey>,
    /// The stretch of the node that came last: it serves rates.
    before: Stretch,
}

#[derive(Debug)]
struct FileSet {
    full: Builder,
    mid: SheetWriter,
    long: SheetWriter,
    columns: Columns,
    cells: usize,
    values: usize,
    /// Whose samples it has: their blocks are numbered here.
    nodes: HashSet<NodeKey>,
    /// Of the node at hand.
    node_values: usize,
    part: Option<u16>,
}

impl Intake {
    /// Files are made in `dir`, at positions from `next` on.
    #[must_use]
    pub fn new(dir: &Path, next: Pos, now: WallMs) -> Self {
        Self { dir: dir.to_path_buf(), now, next, files: None, node: None, before: Stretch::default() }
    }

    /// A node's stretches come one behind the other, in the order of time.
    pub fn put(&mut self, (node, id): (NodeKey, NodeId), stretch: Stretch) -> Result<(), StoreError> {
        let is_new = self.node != Some(node);
        if is_new {
            (self.node, self.before) = (Some(node), Stretch::default());
        }
        if self.files.as_mut().is_some_and(|files| files.is_full((node, is_new), &stretch)) {
            self.publish()?;
        }
        if self.files.is_none() {
            let mut files = FileSet::begin(&self.dir, self.now)?;
            files.nodes.insert(node);
            self.files = Some(files);
        }
        if let Some(files) = &mut self.files {
            files.put((node, id), &self.before, &stretch)?;
        }
        self.before = stretch;
        Ok(())
    }

    /// How many positions the files have taken. They are whole and named, and lie in their own directory.
    pub fn finish(mut self, first: Pos) -> Result<u64, StoreError> {
        self.publish()?;
        Ok(self.next.0 - first.0)
    }

    fn publish(&mut self) -> Result<(), StoreError> {
        let Some(mut files) = self.files.take() else { return Ok(()) };
        files.put_cells()?;
        let pos = self.next;
        files.full.publish(pos, pos, self.now)?;
        files.mid.publish(pos, pos, self.now)?;
        files.long.publish(pos, pos, self.now)?;
        self.next = pos.next();
        Ok(())
    }
}

impl FileSet {
    fn begin(dir: &Path, now: WallMs) -> Result<Self, StoreError> {
        let slot_s = Span::Day.slot_of(now.0.div_euclid(1_000));
        let begin = |level| Builder::begin(dir, level, Span::Day, slot_s);
        let sheets = |level| begin(level).map(|builder| SheetWriter::new(builder, level));
        Ok(Self {
            full: begin(Level::Full)?,
            mid: sheets(Level::Mid)?,
            long: sheets(Level::Long)?,
            columns: Columns::default(),
            cells: 0,
            values: 0,
            nodes: HashSet::new(),
            node_values: 0,
            part: Some(0),
        })
    }

    /// Whether it has no room for another stretch: what it holds of a node is read at once by whoever writes it anew. A node
    /// that comes back behind others, as it does from file to file, begins another set.
    fn is_full(&mut self, (node, is_new): (NodeKey, bool), stretch: &Stretch) -> bool {
        if is_new {
            if !self.nodes.insert(node) {
                return true;
            }
            (self.node_values, self.part) = (0, Some(0));
        }
        let more = stretch.rows.len() * stretch.columns.len();
        let is_taken = self.part.is_none_or(|part| part >= u16::MAX / 2);
        self.values + more > FILE_VALUES_MAX || self.node_values + more > STRETCH_VALUES_MAX || is_taken
    }

    fn put(&mut self, (node, id): (NodeKey, NodeId), before: &Stretch, stretch: &Stretch) -> Result<(), StoreError> {
        self.part = put_stretch(&mut self.full, (node, id), stretch, &[], (Effort::Thorough, self.part))?;
        let values = stretch.rows.len() * stretch.columns.len();
        self.values += values;
        self.node_values += values;
        roll_up(node, before, stretch, &mut self.columns);
        let slot_ms = Level::Mid.slot_ms().unwrap_or(1);
        let slots = stretch.span().map_or(0, |(begins, ends)| ends.since(begins) / slot_ms + 2);
        let slots = usize::try_from(slots).unwrap_or(usize::MAX).min(stretch.rows.len());
        self.cells += slots * stretch.columns.len();
        if self.cells > CELLS_MAX { self.put_cells() } else { Ok(()) }
    }

    fn put_cells(&mut self) -> Result<(), StoreError> {
        self.cells = 0;
        let (mut mid, mut long) = (Columns::default(), Columns::default());
        for (measure, mut rows) in std::mem::take(&mut self.columns).into_iter() {
            rows.sort_by(|a, b| (a.node, &a.subject).cmp(&(b.node, &b.subject)));
            for of_series in rows.chunk_by(|a, b| (a.node, &a.subject) == (b.node, &b.subject)) {
                let (node, subject) = (of_series[0].node, &of_series[0].subject);
                let cells = together(of_series.iter().map(|row| row.cells.clone()).collect());
                let hours = longer(&cells, HOUR_SLOTS);
                mid.add(measure.clone(), Row { node, subject: subject.clone(), cells });
                long.add(measure.clone(), Row { node, subject: subject.clone(), cells: hours });
            }
        }
        self.mid.put(mid)?;
        self.long.put(long)
    }
}
