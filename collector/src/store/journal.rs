//! One journal file: five minutes of records in the order of their positions, append-only.
//!
//! A file is built under another name and renamed when it is whole and synced, so that a file with a
//! journal's name was complete once, and whatever is wrong with it later is damage.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use dunlin_shared::time::WallMs;
use rusqlite::{Connection, params};

use super::connect;
use super::error::{At, StoreError};
use super::quarantine::sync_dir_of;
use super::row::{INSERT, Row, SCHEMA, number, unsigned};
use super::sum::Sum;
use crate::record::{NodeKey, Pos, Record};

pub(super) const FORMAT: i64 = 1;
/// "DLNJ": tells `file` and us whose database it is.
pub(super) const APPLICATION_ID: i64 = 0x444c_4e4a;
/// The five minutes that a file holds.
pub(super) const SLOT_S: i64 = 300;
/// No file holds more positions, so what follows a file whose end is unknown begins so far after its
/// first. 16 million rows are 4 GiB, 160 times what 10,000 nodes send in five minutes.
pub(super) const ROWS_MAX: u64 = 1 << 24;
/// Node keys are handed out densely from 1; this bounds the table of back-links to 32 MiB.
pub(super) const NODE_KEY_MAX: u32 = 1 << 22;

/// What a file's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) path: PathBuf,
    pub(super) slot_s: i64,
    pub(super) first: Pos,
}

/// What the one row of `meta` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) slot_s: i64,
    pub(super) first: Pos,
    /// The last record before this file, as it was known when the file was made.
    pub(super) follows: Pos,
    pub(super) created_at: WallMs,
    pub(super) snapshot: Vec<u8>,
}

/// The last frame of each node in a file, by node key; 0 where there is none.
pub(super) type Links = Vec<u64>;

#[derive(Debug)]
pub(super) struct Journal {
    connection: Connection,
    pub(super) name: Name,
    pub(super) created_at: WallMs,
    next: Pos,
    links: Links,
    /// While a transaction is open: where it began, and what it changed in `links`.
    began: Option<Pos>,
    undo: Vec<(usize, u64)>,
    /// A sync failed, or a commit's outcome is unknown: nothing here may be trusted again.
    failed: bool,
}

impl Name {
    pub(super) fn new(dir: &Path, slot_s: i64, first: Pos) -> Self {
        Self { path: dir.join(format!("journal-{slot_s}-{}.db", first.0)), slot_s, first }
    }

    /// From `journal-SLOT-FIRST.db`, written in no other way.
    pub(super) fn parse(dir: &Path, file_name: &str) -> Option<Self> {
        let (slot, first) = file_name.strip_prefix("journal-")?.strip_suffix(".db")?.split_once('-')?;
        let name = Self::new(dir, slot.parse().ok()?, Pos(first.parse().ok()?));
        (name.path == dir.join(file_name) && name.first.0 > 0).then_some(name)
    }
}

impl Journal {
    /// Writes the new file under the name it gets `.new` after, whole and synced.
    pub(super) fn prepare(name: &Name, meta: &Meta) -> Result<(), StoreError> {
        let path = connect::beside(&name.path, ".new");
        remove_all(&path)?;
        // Made here first, because the error of the system tells more than SQLite's does.
        let file = File::create_new(&path).map_err(|error| StoreError::io(&path, error))?;
        drop(file);
        let built = build(&path, meta);
        if built.is_err() {
            // What is left over is removed before the next attempt and at the next start.
            drop(remove_all(&path));
        }
        built
    }

    /// Gives a prepared file its name and opens it.
    pub(super) fn publish(name: Name, meta: &Meta) -> Result<Self, StoreError> {
        let path = connect::beside(&name.path, ".new");
        fs::rename(&path, &name.path).map_err(|error| StoreError::io(&name.path, error))?;
        Self::open(name, meta.created_at, meta.first, Links::new())
    }

    /// Opens a file that was verified: `next` and `links` come from there.
    pub(super) fn open(name: Name, created_at: WallMs, next: Pos, links: Links) -> Result<Self, StoreError> {
        let connection = connect::writer(&name.path)?;
        let began = None;
        let journal = Self { connection, name, created_at, next, links, began, undo: Vec::new(), failed: false };
        if journal.last_stored()?.next() != next {
            return Err(StoreError::damaged(&journal.name.path, "it changed since it was verified"));
        }
        // The query made the WAL; SQLite syncs its name too, but ignores when that fails.
        sync_dir_of(&journal.name.path)?;
        Ok(journal)
    }

    pub(super) const fn next(&self) -> Pos {
        self.next
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.next.0 == self.name.first.0
    }

    pub(super) const fn in_transaction(&self) -> bool {
        self.began.is_some()
    }

    pub(super) fn last_of(&self, node: NodeKey) -> Option<Pos> {
        let last = self.links.get(usize::try_from(node.0).ok()?)?;
        (*last > 0).then_some(Pos(*last))
    }

    /// What a transaction that failed left behind is rolled back first.
    pub(super) fn begin(&mut self) -> Result<(), StoreError> {
        if self.began.is_some() {
            self.rollback()?;
        }
        self.run("BEGIN IMMEDIATE")?;
        self.began = Some(self.next);
        Ok(())
    }

    pub(super) fn append(&mut self, record: &Record) -> Result<Pos, StoreError> {
        self.within_transaction()?;
        let pos = self.next;
        if pos.0 - self.name.first.0 >= ROWS_MAX {
            return Err(StoreError::misuse(&self.name.path, "the file is full and was not rotated"));
        }
        let prev = match record.event.node() {
            Some(node) if node.0 > NODE_KEY_MAX => {
                return Err(StoreError::misuse(&self.name.path, "a node key that was never handed out"));
            }
            Some(node) if record.event.frame_id().is_some() => self.last_of(node),
            _ => None,
        };
        let row = Row::of(pos, record, prev);
        let mut insert = self.connection.prepare_cached(INSERT).at(&self.name.path)?;
        insert
            .execute(params![
                number(pos.0),
                row.at.0,
                row.node.map(|node| node.0),
                prev.map(|prev| number(prev.0)),
                row.kind,
                row.lane,
                row.epoch.map(|epoch| epoch.0),
                row.seq.map(|seq| number(seq.0)),
                row.back,
                row.body.as_deref(),
                row.sum(),
            ])
            .at(&self.name.path)?;
        drop(insert);
        if let Some(node) = row.node.filter(|_| row.is_frame()) {
            self.link(node, pos);
        }
        self.next = pos.next();
        Ok(pos)
    }

    pub(super) fn commit(&mut self) -> Result<(), StoreError> {
        self.within_transaction()?;
        self.run("COMMIT")?;
        self.began = None;
        self.undo.clear();
        Ok(())
    }

    /// Also after a failed append or commit. Positions and links are as they were before.
    pub(super) fn rollback(&mut self) -> Result<(), StoreError> {
        let Some(began) = self.began else { return Ok(()) };
        if !self.connection.is_autocommit() {
            self.run("ROLLBACK")?;
        }
        let last = self.last_stored()?;
        if last.next() != began {
            self.failed = true;
            let what = io::Error::other("a transaction that had failed is in the file");
            return Err(StoreError::sync(&self.name.path, what));
        }
        for (node, last) in self.undo.drain(..).rev() {
            self.links[node] = last;
        }
        self.next = began;
        self.began = None;
        Ok(())
    }

    pub(super) fn checkpoint_if_grown(&mut self) -> Result<(), StoreError> {
        let done = connect::checkpoint_if_grown(&self.connection, &self.name.path);
        self.note(done)
    }

    /// Folds the WAL and closes. A failure leaves the WAL beside the file: nothing is lost by it.
    pub(super) fn close(self) -> Result<(), StoreError> {
        let whole = connect::checkpoint(&self.connection, &self.name.path, "TRUNCATE")?;
        if !whole {
            return Err(StoreError::Locked { path: self.name.path, process: None });
        }
        connect::close(self.connection, &self.name.path)
    }

    /// SQLite itself ends a transaction that it could not go on with; a statement after that would be a
    /// transaction of its own.
    fn within_transaction(&self) -> Result<(), StoreError> {
        if self.began.is_none() || self.connection.is_autocommit() {
            return Err(StoreError::misuse(&self.name.path, "there is no transaction, or it failed before"));
        }
        Ok(())
    }

    fn link(&mut self, node: NodeKey, pos: Pos) {
        let Ok(index) = usize::try_from(node.0) else { return };
        if self.links.len() <= index {
            self.links.resize(index + 1, 0);
        }
        self.undo.push((index, self.links[index]));
        self.links[index] = pos.0;
    }

    fn last_stored(&self) -> Result<Pos, StoreError> {
        let mut query = self.connection.prepare_cached("SELECT MAX(pos) FROM record").at(&self.name.path)?;
        let last: Option<i64> = query.query_row([], |row| row.get(0)).at(&self.name.path)?;
        Ok(last.map_or(Pos(self.name.first.0 - 1), |pos| Pos(unsigned(pos))))
    }

    fn run(&mut self, sql: &str) -> Result<(), StoreError> {
        if self.failed {
            let what = io::Error::other("a sync failed before");
            return Err(StoreError::sync(&self.name.path, what));
        }
        let done = self.connection.prepare_cached(sql).and_then(|mut statement| statement.execute([]));
        self.note(done.map(drop).at(&self.name.path))
    }

    fn note(&mut self, done: Result<(), StoreError>) -> Result<(), StoreError> {
        self.failed |= matches!(done, Err(StoreError::SyncFailed { .. }));
        done
    }
}

/// The row of `meta`, or `Damaged` when it is not what was written.
pub(super) fn read_meta(connection: &Connection, path: &Path) -> Result<Meta, StoreError> {
    let columns = "SELECT slot, first_pos, follows, created_at, snapshot, sum FROM meta";
    let (meta, sum) = connection
        .query_row(columns, [], |row| {
            let meta = Meta {
                slot_s: row.get(0)?,
                first: Pos(unsigned(row.get(1)?)),
                follows: Pos(unsigned(row.get(2)?)),
                created_at: WallMs(row.get(3)?),
                snapshot: row.get(4)?,
            };
            Ok((meta, row.get::<_, i32>(5)?))
        })
        .at(path)?;
    if meta.sum() == sum { Ok(meta) } else { Err(StoreError::damaged(path, "the checksum of its meta row is wrong")) }
}

impl Meta {
    fn sum(&self) -> i32 {
        let mut sum = Sum::new();
        for part in [self.slot_s, number(self.first.0), number(self.follows.0), self.created_at.0] {
            sum.add_number(part);
        }
        sum.add(&self.snapshot);
        sum.value()
    }
}

/// Removes a database and what SQLite puts beside it, the WAL first.
pub(super) fn remove_all(path: &Path) -> Result<(), StoreError> {
    for suffix in ["-journal", "-wal", "-shm", ""] {
        match fs::remove_file(connect::beside(path, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(StoreError::io(path, error)),
            _ => {}
        }
    }
    Ok(())
}

fn build(path: &Path, meta: &Meta) -> Result<(), StoreError> {
    let connection = connect::creator(path)?;
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode=MEMORY; BEGIN IMMEDIATE;
             PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={FORMAT};
             CREATE TABLE meta (format INTEGER NOT NULL, slot INTEGER NOT NULL, first_pos INTEGER NOT NULL,
                 follows INTEGER NOT NULL, created_at INTEGER NOT NULL, snapshot BLOB NOT NULL,
                 sum INTEGER NOT NULL) STRICT;
             {SCHEMA}",
        ))
        .at(path)?;
    connection
        .execute(
            "INSERT INTO meta VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                FORMAT,
                meta.slot_s,
                number(meta.first.0),
                number(meta.follows.0),
                meta.created_at.0,
                meta.snapshot,
                meta.sum()
            ],
        )
        .at(path)?;
    connection.execute_batch("COMMIT").at(path)?;
    connect::use_wal(&connection, path)?;
    connect::close(connection, path)?;
    let file = File::open(path).map_err(|error| StoreError::io(path, error))?;
    file.sync_all().map_err(|error| StoreError::sync(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Event;

    #[test]
    fn after_a_failed_sync_nothing_is_written_or_rolled_back_any_more() {
        let dir = std::env::temp_dir().join(format!("dunlin-journal-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("the temporary directory can be written");
        let (first, now) = (Pos(1), WallMs(0));
        let meta = Meta { slot_s: 0, first, follows: Pos(0), created_at: now, snapshot: Vec::new() };
        let name = Name::new(&dir, 0, first);
        Journal::prepare(&name, &meta).expect("prepared");
        let mut journal = Journal::publish(name, &meta).expect("published");
        journal.begin().expect("begin");
        journal.append(&Record { at: now, event: Event::Started }).expect("append");
        let failure = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
        let failed = Err(rusqlite::Error::SqliteFailure(failure, None)).at(&journal.name.path);
        assert!(journal.note(failed).is_err());
        for outcome in [journal.commit(), journal.rollback(), journal.begin()] {
            assert!(matches!(outcome, Err(StoreError::SyncFailed { .. })), "{outcome:?}");
        }
        drop(journal);
        fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn only_names_that_are_written_so_are_journals() {
        let dir = Path::new("/state");
        let name = Name::new(dir, 300, Pos(7));
        assert_eq!(Name::parse(dir, "journal-300-7.db"), Some(name));
        for text in ["journal-300-07.db", "journal-300-0.db", "journal-300-7.db.new", "journal-300.db", "x-300-7.db"] {
            assert_eq!(Name::parse(dir, text), None, "{text}");
        }
    }
}
