//! Answers from the window: samples of a node, and roll-ups of a node or of the fleet.
//!
//! It reads what is there at the moment, sealed or not, and the answer is the same before a journal is sealed as after.
//! What is damaged is left out, and the keeper is told of it.

use std::collections::HashMap;
use std::fmt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::scope;

use dunlin_shared::metric::by_name;
use dunlin_shared::sample::Subject;
use dunlin_shared::time::WallMs;
use thiserror::Error;

use super::Word;
use super::seal::roll_up;
use super::sheets::{Columns, measure_of, order};
use crate::block::{self, Measure, Stretch};
use crate::record::NodeKey;
use crate::rollup::{self, Cell, HOUR_SLOTS, Row, Scale};
use crate::store::{Files, Level, OpenJournal, Reader, Sealed, SealedName, StoreError};
use crate::stretch::{self, Clocks, Taken, TooMany};

/// Fewer files than this are read faster than a thread is worth.
const HALVED_FROM: usize = 6;
/// Values of a node that are rolled up on the spot, and those that could be there counted as well.
const FRESH_VALUES_MAX: usize = 4_000_000;
/// How often a directory is listed anew because a file that it named is gone.
pub(super) const LISTED_MAX: usize = 5;

#[derive(Debug, Error)]
pub enum ReadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    TooMany(#[from] TooMany),
}

/// The window, to be read.
#[derive(Clone, Debug)]
pub struct Window {
    dir: PathBuf,
    word: Arc<Word>,
}

/// Samples of one node.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub node: NodeKey,
    pub from: WallMs,
    pub to: WallMs,
    pub taken: Taken<'a>,
    /// Of frames that are not sealed, the last ones alone.
    pub frames_max: usize,
}

/// Roll-ups of some metrics.
#[derive(Clone, Copy)]
pub struct FleetAsked<'a> {
    pub level: Level,
    /// By name.
    pub metrics: &'a [String],
    pub wanted: &'a (dyn Fn(NodeKey, &Subject) -> bool + Sync),
    /// The lowest and the highest key of those nodes.
    pub nodes: (NodeKey, NodeKey),
    /// Nodes of which what is not sealed yet is rolled up on the spot, each with by how much its clock is off.
    pub fresh: &'a [(NodeKey, i64)],
    pub from: WallMs,
    pub to: WallMs,
    pub cells_max: usize,
}

/// The cells of one series, by the numbers of their slots.
pub type Cells = Vec<(i64, Cell)>;

/// What roll-ups say of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Rolled {
    pub node: NodeKey,
    pub measure: Measure,
    pub subject: Subject,
    pub cells: Cells,
}

/// Parts of series, in the order in which their files came.
type Parts = HashMap<(NodeKey, Measure, Subject), Vec<Cells>>;

/// A file that the listing named is not there any more.
pub(super) struct Gone;

impl Window {
    /// `dir` is the state directory's `window`.
    #[must_use]
    pub const fn new(dir: PathBuf, word: Arc<Word>) -> Self {
        Self { dir, word }
    }

    /// A node's stretches that hold rows of the range, in the order in which they came.
    pub fn stretches(&self, asked: &Asked<'_>) -> Result<Vec<Stretch>, ReadError> {
        self.listed(|files| {
            let mut found = Found::new(asked);
            Ok(
                match self.sealed(files, &mut found)?.and(self.journals(&files.unsealed_from(asked.from), &mut found)?)
                {
                    Ok(()) => Ok(found.stretches),
                    Err(Gone) => Err(Gone),
                },
            )
        })
    }

    /// The cells of some metrics, of the nodes that are wanted. Where hours are not made yet, five minutes are taken.
    pub fn rolled(&self, asked: &FleetAsked<'_>) -> Result<Vec<Rolled>, ReadError> {
        let parts = self.listed(|files| self.try_rolled(files, asked))?;
        let whole =
            |((node, measure, subject), parts)| Rolled { node, measure, subject, cells: rollup::together(parts) };
        let mut rolled: Vec<Rolled> = parts.into_iter().map(whole).collect();
        let order = |one: &Rolled, other: &Rolled| {
            (one.node, order(&one.measure), &one.subject).cmp(&(other.node, order(&other.measure), &other.subject))
        };
        rolled.sort_unstable_by(order);
        Ok(rolled)
    }

    /// When the oldest of a level came; `None` where there is none. Samples also stand in journals.
    pub fn reaches(&self, level: Level) -> Result<Option<WallMs>, StoreError> {
        let files = Files::list(&self.dir)?;
        Ok(reaches(&files, level).or_else(|| files.unsealed_since()))
    }

    /// When the earliest of a level was measured, whenever it came; `None` where there is none.
    pub fn begins(&self, level: Level) -> Result<Option<WallMs>, StoreError> {
        let files = Files::list(&self.dir)?;
        let sealed = files.of(level).map(|name| WallMs(name.begins_s.saturating_mul(1_000))).min();
        Ok(sealed.into_iter().chain(files.unsealed_since()).min())
    }

    /// The names outside of the catalogue of which a level has cells.
    pub fn own_names(&self, level: Level) -> Result<Vec<String>, ReadError> {
        self.listed(|files| {
            let mut names = Vec::new();
            for (name, _) in rolled_files(files, level) {
                let Some(file) = self.open(name)? else { continue };
                let Ok(file) = file else { return Ok(Err(Gone)) };
                let declared = self.sound_or_default(name.path(), file.declared());
                let measures = declared.iter().filter_map(|(number, _)| measure_of(*number, &declared));
                names.extend(measures.filter_map(|own| Some(own.about()?.name.to_owned())));
            }
            names.sort_unstable();
            names.dedup();
            Ok(Ok(names))
        })
    }

    pub(super) fn listed<T>(
        &self,
        read: impl Fn(&Files) -> Result<Result<T, Gone>, ReadError>,
    ) -> Result<T, ReadError> {
        for _ in 0..LISTED_MAX {
            if let Ok(found) = read(&Files::list(&self.dir)?)? {
                return Ok(found);
            }
        }
        Err(self.restless())
    }

    pub(super) fn restless(&self) -> ReadError {
        let what = "its files change faster than they can be read";
        ReadError::Store(StoreError::Other { path: self.dir.clone(), what, source: None })
    }

    /// Decoding is most of it: of many files two threads take a half each.
    fn sealed(&self, files: &Files, found: &mut Found<'_>) -> Result<Result<(), Gone>, ReadError> {
        let asked = found.asked;
        let names: Vec<&SealedName> =
            files.of(Level::Full).filter(|name| may_hold(name, asked.from, asked.to)).collect();
        if names.len() < HALVED_FROM {
            return self.sealed_in(&names, found);
        }
        let (older, newer) = names.split_at(names.len() / 2);
        let (mut first, mut second) = (Found::new(asked), Found::new(asked));
        let (one, other) = scope(|scope| {
            let other = scope.spawn(|| self.sealed_in(newer, &mut second));
            (self.sealed_in(older, &mut first), other.join())
        });
        let other = other.unwrap_or_else(|panic| resume_unwind(panic));
        if one?.and(other?).is_err() {
            return Ok(Err(Gone));
        }
        for stretch in first.stretches.into_iter().chain(second.stretches) {
            found.take(stretch)?;
        }
        Ok(Ok(()))
    }

    fn sealed_in(&self, names: &[&SealedName], found: &mut Found<'_>) -> Result<Result<(), Gone>, ReadError> {
        let (from, to) = (found.asked.from, found.asked.to);
        for name in names {
            let Some(file) = self.open(name)? else { continue };
            let Ok(file) = file else { return Ok(Err(Gone)) };
            for block in self.sound(name.path(), file.blocks_of(found.asked.node)) {
                if block.ends < from || block.begins > to {
                    continue;
                }
                match block::decode_some(&block.body, found.asked.taken.wanted) {
                    Ok(stretch) => found.take(stretch)?,
                    Err(_) => self.suspect(name.path()),
                }
            }
        }
        Ok(Ok(()))
    }

    pub(super) fn journals(
        &self,
        journals: &[OpenJournal],
        found: &mut Found<'_>,
    ) -> Result<Result<(), Gone>, ReadError> {
        let reader = Reader::new(&self.dir);
        for journal in journals {
            let (node, frames_max) = (found.asked.node, found.asked.frames_max);
            let Some(frames) = reader.frames_in(journal, node, frames_max)? else { return Ok(Err(Gone)) };
            if frames.damage.is_some() {
                self.suspect(journal.path());
            }
            let before = found.stretches.last().map(Clocks::after).unwrap_or_default();
            let stretch = stretch::of(frames.records.iter().map(|(_, record)| record), found.left(), &before)?;
            found.take(stretch)?;
        }
        Ok(Ok(()))
    }

    fn try_rolled(&self, files: &Files, asked: &FleetAsked<'_>) -> Result<Result<Parts, Gone>, ReadError> {
        let mut parts = Parts::new();
        let mut held = 0;
        for (name, times) in rolled_files(files, asked.level) {
            if !may_hold(name, asked.from, asked.to) {
                continue;
            }
            let Some(file) = self.open(name)? else { continue };
            let Ok(file) = file else { return Ok(Err(Gone)) };
            for (number, measure) in self.numbers(name.path(), &file, asked.metrics) {
                let Some(about) = measure.about() else { continue };
                for sheet in self.sound(name.path(), file.sheets_of(number, asked.nodes)) {
                    if sheet.ends <= asked.from || sheet.begins > asked.to {
                        continue;
                    }
                    let Ok(rows) = rollup::decode(&sheet.body, Scale::of(&about), asked.wanted) else {
                        self.suspect(name.path());
                        continue;
                    };
                    held += add(&mut parts, &measure, rows, (asked, name.level, times));
                    if held > asked.cells_max {
                        return Err(TooMany(asked.cells_max).into());
                    }
                }
            }
        }
        for &(node, skew_ms) in asked.fresh {
            if self.fresh(files, (node, skew_ms), asked, &mut parts)?.is_err() {
                return Ok(Err(Gone));
            }
        }
        Ok(Ok(parts))
    }

    /// Rolls up what of a node is not rolled up yet, as sealing will.
    fn fresh(
        &self,
        files: &Files,
        (node, skew_ms): (NodeKey, i64),
        asked: &FleetAsked<'_>,
        parts: &mut Parts,
    ) -> Result<Result<(), Gone>, ReadError> {
        let wanted = |subject: &Subject, measure: &Measure| {
            let named = measure.about().is_some_and(|about| asked.metrics.iter().any(|name| name == about.name));
            named && (asked.wanted)(node, subject)
        };
        let taken = Taken { wanted: &wanted, skew_ms, values_max: FRESH_VALUES_MAX };
        let whole = Asked { node, from: WallMs(i64::MIN), to: WallMs(i64::MAX), taken, frames_max: usize::MAX };
        let mut found = Found::new(&whole);
        let journals = files.not_rolled_up();
        let Some(first) = journals.first().map(OpenJournal::first) else { return Ok(Ok(())) };
        for name in files.before(first) {
            let Some(file) = self.open(&name)? else { continue };
            let Ok(file) = file else { return Ok(Err(Gone)) };
            let block = self.sound(name.path(), file.blocks_of(node)).pop();
            if let Some(stretch) = block.and_then(|block| block::decode_some(&block.body, taken.wanted).ok()) {
                found.stretches.push(stretch);
                break;
            }
        }
        let sealed = found.stretches.len();
        if self.journals(&journals, &mut found)?.is_err() {
            return Ok(Err(Gone));
        }
        let times = if asked.level == Level::Long { HOUR_SLOTS } else { 1 };
        let mut before = found.stretches[..sealed].last().cloned().unwrap_or_default();
        for stretch in found.stretches.drain(sealed..) {
            let mut columns = Columns::default();
            roll_up(node, &before, &stretch, &mut columns);
            columns.into_iter().for_each(|(measure, rows)| {
                add(parts, &measure, rows, (asked, Level::Mid, times));
            });
            before = stretch;
        }
        Ok(Ok(()))
    }

    /// The numbers under which the file has the metrics of those names, and what each measures.
    fn numbers(&self, path: &Path, file: &Sealed, metrics: &[String]) -> Vec<(u32, Measure)> {
        let known = metrics.iter().filter_map(|name| by_name(name));
        let mut numbers: Vec<_> =
            known.map(|metric| (u32::from(metric.id.0), Measure::Catalogued(metric.id))).collect();
        if numbers.len() < metrics.len() {
            let declared = self.sound_or_default(path, file.declared());
            let own = declared.iter().filter_map(|(number, _)| Some((*number, measure_of(*number, &declared)?)));
            let is_wanted = |(_, measure): &(u32, Measure)| {
                measure.about().is_some_and(|about| metrics.iter().any(|name| name == about.name))
            };
            numbers.extend(own.filter(is_wanted));
        }
        numbers
    }

    /// `None` for a file that is damaged as a whole.
    pub(super) fn open(&self, name: &SealedName) -> Result<Option<Result<Sealed, Gone>>, StoreError> {
        match Sealed::open(name) {
            Ok(opened) => Ok(Some(opened.ok_or(Gone))),
            Err(StoreError::Damaged { .. }) => {
                self.suspect(name.path());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// What can be read.
    pub(super) fn sound<T>(&self, path: &Path, found: Result<Vec<Result<T, StoreError>>, StoreError>) -> Vec<T> {
        let found = self.sound_or_default(path, found);
        let sound = |row: Result<T, StoreError>| row.map_err(|_| self.suspect(path)).ok();
        found.into_iter().filter_map(sound).collect()
    }

    fn sound_or_default<T: Default>(&self, path: &Path, found: Result<T, StoreError>) -> T {
        found.unwrap_or_else(|_| {
            self.suspect(path);
            T::default()
        })
    }

    pub(super) fn suspect(&self, path: &Path) {
        self.word.suspect(path);
    }
}

/// What was found of a node so far.
pub(super) struct Found<'a> {
    asked: &'a Asked<'a>,
    pub(super) stretches: Vec<Stretch>,
    held: usize,
}

impl fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("node", &self.node).field("from", &self.from).finish_non_exhaustive()
    }
}

impl fmt::Debug for FleetAsked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetAsked").field("level", &self.level).field("metrics", &self.metrics).finish_non_exhaustive()
    }
}

impl<'a> Found<'a> {
    pub(super) const fn new(asked: &'a Asked<'a>) -> Self {
        Self { asked, stretches: Vec::new(), held: 0 }
    }

    pub(super) fn take(&mut self, stretch: Stretch) -> Result<(), TooMany> {
        self.held += stretch.rows.len() * stretch.columns.len();
        self.stretches.push(stretch);
        let max = self.asked.taken.values_max;
        if self.held > max { Err(TooMany(max)) } else { Ok(()) }
    }

    fn left(&self) -> Taken<'a> {
        Taken { values_max: self.asked.taken.values_max.saturating_sub(self.held), ..self.asked.taken }
    }
}

/// Adds the cells of the range, of a file of this level; so many of its slots make one of those that are asked for. How
/// many that were.
fn add(
    parts: &mut Parts,
    measure: &Measure,
    rows: Vec<Row>,
    (asked, level, times): (&FleetAsked<'_>, Level, i64),
) -> usize {
    let slot_ms = level.slot_ms().unwrap_or(1);
    let is_asked = |slot: i64| {
        let begins = slot.saturating_mul(slot_ms);
        begins.saturating_add(slot_ms) > asked.from.0 && begins <= asked.to.0
    };
    let mut count = 0;
    for Row { node, subject, mut cells } in rows {
        cells.retain(|(slot, _)| is_asked(*slot));
        if cells.is_empty() {
            continue;
        }
        count += cells.len();
        let cells = if times > 1 { rollup::longer(&cells, times) } else { cells };
        parts.entry((node, measure.clone(), subject)).or_default().push(cells);
    }
    count
}

/// Refuses to start on files of a later program. What is damaged is found when it is read.
pub fn refuse_newer(dir: &Path) -> Result<(), StoreError> {
    for name in Files::list(dir)?.sealed {
        if let Err(error @ StoreError::Newer { .. }) = Sealed::open(&name) {
            return Err(error);
        }
    }
    Ok(())
}

/// When the oldest of a level came; `None` where there is none.
#[must_use]
pub fn reaches(files: &Files, level: Level) -> Option<WallMs> {
    files.of(level).map(|name| WallMs(name.slot_s.max(name.begins_s).saturating_mul(1_000))).min()
}

/// How much of a sealed file is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Every row against its sum: as fast as the disk reads. What was written is there.
    Sums,
    /// Every value is decoded as well, which takes minutes of a full window: what was written makes sense.
    Values,
}

/// What is wrong with a sealed file, read from its first row to its last; an error when it cannot be read at all.
pub fn verify(name: &SealedName, depth: Depth) -> Result<Option<String>, StoreError> {
    let Some(file) = Sealed::open(name)? else { return Ok(None) };
    let declared = file.declared()?;
    let mut wrong = None;
    for block in file.blocks() {
        if let Some(block) = sound_row(block, &mut wrong)?
            && depth == Depth::Values
            && let Err(error) = block::decode(&block.body)
        {
            wrong.get_or_insert(error.to_string());
        }
    }
    for sheet in file.sheets() {
        let Some(sheet) = sound_row(sheet, &mut wrong)?.filter(|_| depth == Depth::Values) else { continue };
        let measure = measure_of(sheet.measure, &declared);
        let Some(about) = measure.as_ref().and_then(Measure::about) else { continue };
        if let Err(error) = rollup::decode(&sheet.body, Scale::of(&about), |_, _| true) {
            wrong.get_or_insert(error.to_string());
        }
    }
    Ok(wrong)
}

/// The row, or what is wrong with it. An error of the disk says nothing of what is on it.
fn sound_row<T>(row: Result<T, StoreError>, wrong: &mut Option<String>) -> Result<Option<T>, StoreError> {
    match row {
        Ok(row) => Ok(Some(row)),
        Err(StoreError::Damaged { what, .. }) => {
            wrong.get_or_insert(what);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Files of cells, each with how many of its slots make one of the level that is asked for.
fn rolled_files(files: &Files, level: Level) -> Vec<(&SealedName, i64)> {
    let mut all: Vec<(&SealedName, i64)> = files.of(level).map(|name| (name, 1)).collect();
    if level == Level::Long {
        let not_made = files.of(Level::Mid).filter(|name| !files.holds(Level::Long, name.first));
        all.extend(not_made.map(|name| (name, HOUR_SLOTS)));
    }
    all.sort_by_key(|(name, _)| name.first);
    all
}

pub(super) fn may_hold(name: &SealedName, from: WallMs, to: WallMs) -> bool {
    name.ends_s().saturating_mul(1_000) >= from.0 && name.begins_s.saturating_mul(1_000) <= to.0
}
