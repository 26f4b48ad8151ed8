//! A closed journal, read to be sealed: node by node, in slices that fit into memory.
//!
//! What is damaged costs itself alone: a row whose sum is wrong is passed over, and where SQLite can go no further the
//! file is read from its other end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dunlin_shared::time::WallMs;
use rusqlite::Connection;

use super::connect;
use super::error::{At, StoreError};
use super::files::ClosedJournal;
use super::journal::{APPLICATION_ID, FORMAT, read_meta};
use super::row::{self, COLUMNS};
use crate::record::{NodeKey, Pos, Record};

/// What is of a node: its Hellos, its frames and its gaps.
const OF_NODES: &str = "kind IN (2, 3, 4, 5, 7)";

#[derive(Debug)]
pub struct JournalSource {
    connection: Connection,
    path: PathBuf,
    /// Who had which key when it began.
    pub snapshot: Vec<u8>,
    /// What was passed over, and why: the first of it in words.
    pub damaged: u64,
    pub damage: Option<String>,
    /// When the last of it came.
    pub latest: Option<WallMs>,
    how: Patience,
}

/// How long what cannot be read of a journal is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// An error of the disk may pass: it is returned. A WAL may still be folded.
    Waits,
    /// What cannot be read now is passed over like damage, and a WAL that is there is read where it is.
    Over,
}

impl JournalSource {
    /// `None` while its WAL is not folded: it may still be, and then it is read whole.
    pub fn open(journal: &ClosedJournal, how: Patience) -> Result<Option<Self>, StoreError> {
        let path = journal.name.path.clone();
        let connection = match (connect::has_wal(&path), how) {
            (true, Patience::Waits) => return Ok(None),
            (true, Patience::Over) => connect::reader(&path)?,
            (false, _) => connect::closed_reader(&path)?,
        };
        let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).at(&path)?;
        let format: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).at(&path)?;
        if application != APPLICATION_ID || format != FORMAT {
            return Err(StoreError::damaged(&path, "it is not a journal that this program wrote"));
        }
        let mut source = Self { connection, path, snapshot: Vec::new(), damaged: 0, damage: None, latest: None, how };
        // Without it, its nodes are known by their Hellos alone.
        match read_meta(&source.connection, &source.path) {
            Ok(meta) => source.snapshot = meta.snapshot,
            Err(error) => {
                let what = passed_over(error, how)?;
                source.note(&what);
            }
        }
        Ok(Some(source))
    }

    /// How many bytes are there of each node; `latest` is known from then on.
    pub fn weights(&mut self) -> Result<BTreeMap<NodeKey, u64>, StoreError> {
        let sql = format!("SELECT node, LENGTH(body) + 64, at FROM record WHERE {OF_NODES}");
        let row = |row: &rusqlite::Row<'_>| Ok((NodeKey(row.get(0)?), row.get::<_, i64>(1)?, WallMs(row.get(2)?)));
        let (forward, backward) = self.both_ways(&sql, &[], row)?;
        let mut weights = BTreeMap::new();
        for (node, bytes, at) in forward.into_iter().chain(backward) {
            *weights.entry(node).or_insert(0) += bytes.cast_unsigned();
            self.latest = self.latest.max(Some(at));
        }
        Ok(weights)
    }

    /// The records of the nodes from one to another, in the order of the log.
    pub fn records(&mut self, (from, to): (NodeKey, NodeKey)) -> Result<BTreeMap<NodeKey, Vec<Record>>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM record WHERE {OF_NODES} AND node BETWEEN ?1 AND ?2");
        let read = |columns: &rusqlite::Row<'_>| {
            Ok(row::read(columns)?.and_then(|row| {
                let (pos, node) = (row.pos, row.node);
                Ok((pos, node, row.record()?))
            }))
        };
        let (forward, backward) = self.both_ways(&sql, &[from.0, to.0], read)?;
        let mut records: BTreeMap<NodeKey, Vec<Record>> = BTreeMap::new();
        let mut last = Pos(0);
        for found in forward.into_iter().chain(backward.into_iter().rev()) {
            match found {
                Ok((pos, Some(node), record)) if pos > last => {
                    last = pos;
                    records.entry(node).or_default().push(record);
                }
                Ok(_) => {}
                Err(bad) => self.note(bad.0),
            }
        }
        Ok(records)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All rows in the order of positions; and where those end in damage, the ones behind it, last first.
    fn both_ways<T>(
        &mut self,
        sql: &str,
        bounds: &[u32],
        read: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<(Vec<T>, Vec<T>), StoreError> {
        let forward = self.one_way(&format!("{sql} ORDER BY pos"), bounds, &read);
        let (found, damage) = forward?;
        let Some(damage) = damage else { return Ok((found, Vec::new())) };
        self.note(&damage);
        let (behind, _) = self.one_way(&format!("{sql} ORDER BY pos DESC"), bounds, &read)?;
        Ok((found, behind))
    }

    /// As far as it goes, and what ended it.
    fn one_way<T>(
        &self,
        sql: &str,
        bounds: &[u32],
        read: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<(Vec<T>, Option<String>), StoreError> {
        let mut found = Vec::new();
        let mut go = || -> Result<(), StoreError> {
            let mut query = self.connection.prepare_cached(sql).at(&self.path)?;
            let mut rows = query.query(rusqlite::params_from_iter(bounds)).at(&self.path)?;
            while let Some(row) = rows.next().at(&self.path)? {
                found.push(read(row).at(&self.path)?);
            }
            Ok(())
        };
        match go() {
            Ok(()) => Ok((found, None)),
            Err(error) => passed_over(error, self.how).map(|what| (found, Some(what))),
        }
    }

    fn note(&mut self, what: &str) {
        self.damaged += 1;
        self.damage.get_or_insert_with(|| what.to_owned());
    }
}

/// What ended the reading, when that is the file's own trouble.
fn passed_over(error: StoreError, how: Patience) -> Result<String, StoreError> {
    match error {
        StoreError::Damaged { what, .. } => Ok(what),
        StoreError::Unavailable { source, .. } if how == Patience::Over => Ok(source.to_string()),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::super::Files;
    use super::super::tests::{Dir, T0, leave_wal, open, session, write};
    use super::*;
    use crate::record::Event;

    /// Twenty heartbeats of a node, in a journal that is closed.
    fn closed(dir: &Dir) -> ClosedJournal {
        let (mut log, _) = open(dir.path(), 0);
        log.rotate(T0, &[]).expect("the first file");
        let record = |n| Record { at: T0.plus(n), event: Event::Hello { node: NodeKey(1), session: session(1) } };
        write(&mut log, &(0..20).map(record).collect::<Vec<_>>());
        log.rotate(T0.plus(300_000), &[]).expect("the next file");
        log.close().expect("closed");
        Files::list(dir.path()).expect("listed").closed().remove(0)
    }

    /// As a disk does that cannot give one sector.
    fn positions(source: &mut JournalSource, bad: i64) -> Result<(Vec<i64>, Vec<i64>), StoreError> {
        source.both_ways("SELECT pos FROM record", &[], |row| {
            let pos: i64 = row.get(0)?;
            let failure = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_READ), None);
            if pos == bad { Err(failure) } else { Ok(pos) }
        })
    }

    #[test]
    fn an_error_of_the_disk_is_returned_while_it_may_pass_and_costs_one_row_when_it_does_not() {
        let dir = Dir::new();
        let journal = closed(&dir);
        let mut source = JournalSource::open(&journal, Patience::Waits).expect("it opens").expect("it is folded");
        assert!(matches!(positions(&mut source, 7), Err(StoreError::Unavailable { .. })));
        assert_eq!(source.damage, None, "it is no damage");
        let mut source = JournalSource::open(&journal, Patience::Over).expect("it opens").expect("it is folded");
        let (forward, backward) = positions(&mut source, 7).expect("the rest is read");
        assert_eq!((forward, backward), ((1..7).collect(), (8..=20).rev().collect()));
        assert_eq!(source.damaged, 1);
    }

    #[test]
    fn a_wal_that_is_not_folded_is_waited_for_and_then_read_where_it_is() {
        let dir = Dir::new();
        let journal = closed(&dir);
        leave_wal(journal.path());
        assert!(connect::has_wal(journal.path()));
        assert!(JournalSource::open(&journal, Patience::Waits).expect("no error").is_none());
        let mut source = JournalSource::open(&journal, Patience::Over).expect("it opens").expect("it is read");
        let records = source.records((NodeKey(0), NodeKey(9))).expect("it is read");
        assert_eq!(records[&NodeKey(1)].len(), 20);
        assert_eq!(source.damage, None);
    }
}
