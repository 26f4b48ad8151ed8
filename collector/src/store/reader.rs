//! Reads the log beside its writer, in small batches over read-only connections.
//!
//! What is returned was written: every row is checked against its checksum and the one before it. A
//! damaged file is reported once, and the rest goes on.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension};

use super::connect;
use super::error::{At, StoreError};
use super::files::{Files, OpenJournal};
use super::journal::Name;
use super::row::{self, COLUMNS, IS_FRAME, number, unsigned};
use crate::record::{NodeKey, Pos, Record};

/// A batch ends with whichever comes first: a transaction of a reader stays short, and so does memory.
const BATCH_ROWS: usize = 1_024;
const BATCH_BYTES: usize = 1024 * 1024;

/// Reads a log's directory, from this process or another.
#[derive(Clone, Debug)]
pub struct Reader {
    dir: PathBuf,
}

/// What a journal holds of one node.
#[derive(Debug, Default)]
pub struct Frames {
    /// Oldest first.
    pub records: Vec<(Pos, Record)>,
    /// Why some of them are missing: the first that was met.
    pub damage: Option<String>,
}

/// Records in the order of their positions. After `Damaged` the next file follows; any other error
/// is the last item.
#[derive(Debug)]
pub struct Scan {
    files: VecDeque<Name>,
    /// The newest file may have a writer.
    newest: Option<PathBuf>,
    from: Pos,
    open: Option<(Connection, PathBuf)>,
    batch: VecDeque<(Pos, Record)>,
}

impl Reader {
    /// `dir` is the log's own directory, as for `Log::open`.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf() }
    }

    /// Everything that the directory holds, set-aside files apart.
    pub fn scan(&self, from: Pos) -> Result<Scan, StoreError> {
        Ok(Scan::over(journals(&self.dir)?, from))
    }

    /// The records of journals that are not sealed.
    pub fn scan_unsealed(&self) -> Result<Scan, StoreError> {
        Ok(Scan::over(Files::list(&self.dir)?.unsealed(), Pos(0)))
    }

    /// A node's frames in one journal, and of more than so many the last ones alone; `None` when the journal is gone. What
    /// is damaged is left out.
    pub fn frames_in(
        &self,
        journal: &OpenJournal,
        node: NodeKey,
        frames_max: usize,
    ) -> Result<Option<Frames>, StoreError> {
        let path = &journal.name.path;
        let mut frames = Frames::default();
        let walked = open(path, journal.is_newest)
            .and_then(|connection| walk_back(&connection, path, node, (&mut frames, frames_max)));
        match walked {
            Err(_) if !path.exists() => return Ok(None),
            // Of a file that cannot be walked at all nothing is there.
            Err(StoreError::Damaged { what, .. }) => frames.note(what),
            walked => walked?,
        }
        frames.records.reverse();
        Ok(Some(frames))
    }
}

impl Scan {
    pub(super) fn over(files: Vec<Name>, from: Pos) -> Self {
        let newest = files.last().map(|name| name.path.clone());
        // Only the last file that begins at or before `from` can hold it.
        let skip = files.iter().rposition(|name| name.first <= from).unwrap_or(0);
        let files = files.into_iter().skip(skip).collect();
        Self { files, newest, from, open: None, batch: VecDeque::new() }
    }

    /// From the first record of the first file.
    pub(super) const fn whole_files(mut self) -> Self {
        self.from = Pos(0);
        self
    }

    /// Whether there may be more.
    fn fill(&mut self) -> Result<bool, StoreError> {
        let Some((connection, path)) = &self.open else {
            let Some(name) = self.files.pop_front() else { return Ok(false) };
            self.from = self.from.max(name.first);
            match open(&name.path, self.newest.as_ref() == Some(&name.path)) {
                Ok(connection) => self.open = Some((connection, name.path)),
                // Retention took it meanwhile.
                Err(_) if !name.path.exists() => {}
                Err(error) => return Err(error),
            }
            return Ok(true);
        };
        read_batch(connection, path, self.from, &mut self.batch)?;
        match self.batch.back() {
            Some((last, _)) => self.from = last.next(),
            None => self.open = None,
        }
        Ok(true)
    }
}

impl Iterator for Scan {
    type Item = Result<(Pos, Record), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.batch.pop_front() {
                return Some(Ok(record));
            }
            match self.fill() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.open = None;
                    if !matches!(error, StoreError::Damaged { .. }) {
                        self.files.clear();
                    }
                    return Some(Err(error));
                }
            }
        }
    }
}

/// The journal files of a directory, by their first position.
pub(super) fn journals(dir: &Path) -> Result<Vec<Name>, StoreError> {
    let at = |error| StoreError::io(dir, error);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(at)? {
        let file_name = entry.map_err(at)?.file_name();
        names.extend(file_name.to_str().and_then(|text| Name::parse(dir, text)));
    }
    names.sort_by_key(|name| (name.first, name.slot_s));
    Ok(names)
}

fn open(path: &Path, newest: bool) -> Result<Connection, StoreError> {
    if newest || connect::has_wal(path) { connect::reader(path) } else { connect::closed_reader(path) }
}

fn read_batch(
    connection: &Connection,
    path: &Path,
    from: Pos,
    batch: &mut VecDeque<(Pos, Record)>,
) -> Result<(), StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM record WHERE pos >= ?1 ORDER BY pos");
    let mut query = connection.prepare_cached(&sql).at(path)?;
    let mut rows = query.query([number(from.0)]).at(path)?;
    let (mut bytes, mut expected) = (0, from);
    while let Some(columns) = rows.next().at(path)? {
        let row = row::read(columns).at(path)?;
        let read = row.and_then(|row| {
            let pos = row.pos;
            bytes += row.body.as_ref().map_or(0, |body| body.len());
            Ok((pos, row.record()?))
        });
        match read {
            Ok((pos, record)) if pos == expected => batch.push_back((pos, record)),
            Ok(_) => return Err(StoreError::damaged(path, format!("row {} is missing", expected.0))),
            Err(bad) => return Err(StoreError::damaged(path, format!("row {}: {}", expected.0, bad.0))),
        }
        expected = expected.next();
        if batch.len() >= BATCH_ROWS || bytes >= BATCH_BYTES {
            break;
        }
    }
    Ok(())
}

/// Adds the node's frames of one file, newest first. Where a link leads to nothing sound, the frame before that place is
/// looked for among all rows: of a file in which that happens it is worth the time.
fn walk_back(
    connection: &Connection,
    path: &Path,
    node: NodeKey,
    (frames, frames_max): (&mut Frames, usize),
) -> Result<(), StoreError> {
    let mut query = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM record WHERE pos = ?1")).at(path)?;
    let mut next = last_before(connection, path, node, Pos(u64::MAX >> 1))?;
    while let Some(pos) = next.filter(|_| frames.records.len() < frames_max) {
        let linked = match query.query([number(pos.0)]).at(path).and_then(|mut rows| linked(&mut rows, path, node, pos))
        {
            Ok(linked) => linked,
            Err(StoreError::Damaged { what, .. }) => {
                frames.note(what);
                match last_before(connection, path, node, pos) {
                    Err(StoreError::Damaged { .. }) => {
                        return from_its_beginning(connection, path, (node, pos), (frames, frames_max));
                    }
                    before => next = before?,
                }
                continue;
            }
            Err(error) => return Err(error),
        };
        next = linked.0;
        frames.records.push((pos, linked.1));
    }
    Ok(())
}

/// Where not even the rows can be gone through backwards: those that can be from the other end.
fn from_its_beginning(
    connection: &Connection,
    path: &Path,
    (node, end): (NodeKey, Pos),
    (frames, frames_max): (&mut Frames, usize),
) -> Result<(), StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM record WHERE node = ?1 AND {IS_FRAME} AND pos < ?2 ORDER BY pos");
    let mut query = connection.prepare_cached(&sql).at(path)?;
    let mut rows = query.query([i64::from(node.0), number(end.0)]).at(path)?;
    let mut found = Vec::new();
    while let Ok(Some(columns)) = rows.next() {
        let Ok(Ok(row)) = row::read(columns) else { continue };
        let pos = row.pos;
        found.extend(row.record().ok().map(|record| (pos, record)));
    }
    let room = frames_max.saturating_sub(frames.records.len());
    frames.records.extend(found.into_iter().rev().take(room));
    Ok(())
}

/// The node's last frame before a position, as far as the rows themselves tell.
fn last_before(connection: &Connection, path: &Path, node: NodeKey, pos: Pos) -> Result<Option<Pos>, StoreError> {
    let sql = format!("SELECT pos FROM record WHERE node = ?1 AND {IS_FRAME} AND pos < ?2 ORDER BY pos DESC LIMIT 1");
    let found = connection.prepare_cached(&sql).and_then(|mut query| {
        query.query_row([i64::from(node.0), number(pos.0)], |row| row.get::<_, i64>(0)).optional()
    });
    Ok(found.at(path)?.map(|pos| Pos(unsigned(pos))))
}

/// The row that a link leads to, and where it leads itself.
fn linked(
    rows: &mut rusqlite::Rows<'_>,
    path: &Path,
    node: NodeKey,
    pos: Pos,
) -> Result<(Option<Pos>, Record), StoreError> {
    let bad = |what: &str| StoreError::damaged(path, format!("row {}: {what}", pos.0));
    let columns = rows.next().at(path)?.ok_or_else(|| bad("a link leads to it and it is missing"))?;
    let row = row::read(columns).at(path)?.map_err(|error| bad(error.0))?;
    if row.node != Some(node) || row.prev.is_some_and(|prev| prev >= pos) {
        return Err(bad("a link leads to it and it is another node's"));
    }
    Ok((row.prev, row.record().map_err(|error| bad(error.0))?))
}

impl Frames {
    fn note(&mut self, what: String) {
        self.damage.get_or_insert(what);
    }
}
