//! A closed journal, read to be sealed: node by node, in slices that fit into memory.
//!
//! What is damaged costs itself alone: a row whose sum is wrong is passed over, and where SQLite can go no further the
//! file is read from its other end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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
}

impl JournalSource {
    /// `None` while its WAL is not folded: it may still be, and then it is read whole.
    pub fn open(journal: &ClosedJournal) -> Result<Option<Self>, StoreError> {
        let path = journal.name.path.clone();
        if connect::has_wal(&path) {
            return Ok(None);
        }
        let connection = connect::closed_reader(&path)?;
        let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).at(&path)?;
        let format: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).at(&path)?;
        if application != APPLICATION_ID || format != FORMAT {
            return Err(StoreError::damaged(&path, "it is not a journal that this program wrote"));
        }
        let mut source = Self { connection, path, snapshot: Vec::new(), damaged: 0, damage: None };
        // Without it, its nodes are known by their Hellos alone.
        match read_meta(&source.connection, &source.path) {
            Ok(meta) => source.snapshot = meta.snapshot,
            Err(error) => source.note(&error.to_string()),
        }
        Ok(Some(source))
    }

    /// How many bytes are there of each node.
    pub fn weights(&mut self) -> Result<BTreeMap<NodeKey, u64>, StoreError> {
        let sql = format!("SELECT node, LENGTH(body) + 64 FROM record WHERE {OF_NODES}");
        let (forward, backward) = self.both_ways(&sql, &[], |row| Ok((NodeKey(row.get(0)?), row.get::<_, i64>(1)?)))?;
        let mut weights = BTreeMap::new();
        for (node, bytes) in forward.into_iter().chain(backward) {
            *weights.entry(node).or_insert(0) += bytes.cast_unsigned();
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
            Err(StoreError::Damaged { what, .. }) => Ok((found, Some(what))),
            Err(error) => Err(error),
        }
    }

    fn note(&mut self, what: &str) {
        self.damaged += 1;
        self.damage.get_or_insert_with(|| what.to_owned());
    }
}
