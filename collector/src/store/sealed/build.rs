//! Writes a sealed file: under another name, whole and synced, and only then under its own.
//!
//! While it is built nothing of it counts, so it is built without a journal of its own; whatever goes wrong, it is
//! thrown away and built anew.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use dunlin_shared::time::WallMs;
use rusqlite::{Connection, params};

use super::name::{Level, SealedName, Span};
use super::{APPLICATION_ID, Block, FORMAT, META, PAGE_BYTES, SCHEMA, Sheet, block_id, sheet_id};
use crate::record::Pos;
use crate::store::connect::beside;
use crate::store::error::{At, StoreError};
use crate::store::quarantine::sync_dir_of;
use crate::store::row::number;

/// A file under way.
#[derive(Debug)]
pub struct Builder {
    connection: Connection,
    dir: PathBuf,
    path: PathBuf,
    level: Level,
    span: Span,
    slot_s: i64,
    begins: Option<WallMs>,
    count: u64,
    /// The same file, to sync it by.
    file: File,
    unsynced_bytes: usize,
}

/// So much is written between two syncs: one sync of a large file at its end would have the commits of the log wait.
const SYNC_BYTES: usize = 2 * 1024 * 1024;

impl Builder {
    /// Only one file of a level is under way at a time; what an attempt before left is removed.
    pub fn begin(dir: &Path, level: Level, span: Span, slot_s: i64) -> Result<Self, StoreError> {
        let path = unfinished(dir, level);
        remove(&path)?;
        // Made here first, because the error of the system tells more than SQLite's does.
        let file = File::create_new(&path).map_err(|error| StoreError::io(&path, error))?;
        let connection = Connection::open(&path).at(&path)?;
        let setup = format!(
            "PRAGMA page_size={PAGE_BYTES}; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;
             PRAGMA locking_mode=EXCLUSIVE; PRAGMA cache_size=-2048; PRAGMA application_id={APPLICATION_ID};
             PRAGMA user_version={FORMAT}; BEGIN; {SCHEMA}"
        );
        connection.execute_batch(&setup).at(&path)?;
        Ok(Self {
            connection,
            dir: dir.to_path_buf(),
            path,
            level,
            span,
            slot_s,
            begins: None,
            count: 0,
            file,
            unsynced_bytes: 0,
        })
    }

    pub fn put_block(&mut self, block: &Block) -> Result<(), StoreError> {
        let sql = "INSERT INTO block (id, node_id, begins, ends, rows, apart, body, sum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let mut insert = self.connection.prepare_cached(sql).at(&self.path)?;
        insert
            .execute(params![
                block_id(block.node, block.part),
                block.node_id.bytes().as_slice(),
                block.begins.0,
                block.ends.0,
                block.rows,
                block.apart,
                block.body,
                block.sum(),
            ])
            .at(&self.path)?;
        drop(insert);
        // Gaps and inventories alone have no times.
        self.hold((block.rows > 0).then_some(block.begins), block.body.len())
    }

    pub fn put_sheet(&mut self, sheet: &Sheet) -> Result<(), StoreError> {
        let sql = "INSERT INTO sheet (id, first, last, begins, ends, body, sum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let mut insert = self.connection.prepare_cached(sql).at(&self.path)?;
        insert
            .execute(params![
                sheet_id(sheet.measure, sheet.part),
                sheet.first.0,
                sheet.last.0,
                sheet.begins.0,
                sheet.ends.0,
                sheet.body,
                sheet.sum(),
            ])
            .at(&self.path)?;
        drop(insert);
        self.hold(Some(sheet.begins), sheet.body.len())
    }

    /// What a number among the sheets measures: for those that no catalogue has.
    pub fn declare(&mut self, measure: u32, what: &[u8]) -> Result<(), StoreError> {
        let sql = "INSERT INTO measure (id, what) VALUES (?1, ?2)";
        self.connection
            .prepare_cached(sql)
            .and_then(|mut insert| insert.execute(params![measure, what]))
            .at(&self.path)?;
        Ok(())
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Makes it count, for the positions that it holds.
    pub fn publish(self, first: Pos, last: Pos, now: WallMs) -> Result<SealedName, StoreError> {
        let begins_s = self.begins.map_or(self.slot_s, |begins| begins.0.div_euclid(1_000));
        let (level, span, slot_s) = (self.level, self.span, self.slot_s);
        let name = SealedName { path: PathBuf::new(), level, span, slot_s, first, last, begins_s }.placed(&self.dir);
        let meta = params![FORMAT, level.as_str(), slot_s, number(first.0), number(last.0), begins_s, now.0];
        self.connection.execute(META, meta).at(&self.path)?;
        self.connection.execute_batch("COMMIT").at(&self.path)?;
        self.connection.close().map_err(|(_, error)| StoreError::sqlite(&self.path, error))?;
        self.file.sync_all().map_err(|error| StoreError::sync(&self.path, error))?;
        fs::rename(&self.path, &name.path).map_err(|error| StoreError::io(&name.path, error))?;
        sync_dir_of(&name.path)?;
        Ok(name)
    }

    fn hold(&mut self, begins: Option<WallMs>, bytes: usize) -> Result<(), StoreError> {
        self.count += 1;
        self.begins = [self.begins, begins].into_iter().flatten().min();
        self.unsynced_bytes += bytes;
        if self.unsynced_bytes >= SYNC_BYTES {
            self.unsynced_bytes = 0;
            self.file.sync_data().map_err(|error| StoreError::sync(&self.path, error))?;
        }
        Ok(())
    }
}

/// Removes what an attempt left that came to nothing.
pub fn discard(dir: &Path, level: Level) -> Result<(), StoreError> {
    remove(&unfinished(dir, level))
}

fn unfinished(dir: &Path, level: Level) -> PathBuf {
    dir.join(format!("{}.new", level.as_str()))
}

/// A file that is missing is removed already.
pub(in crate::store) fn remove(path: &Path) -> Result<(), StoreError> {
    for suffix in ["", "-journal", "-wal", "-shm"] {
        let path = beside(path, suffix);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(StoreError::io(&path, error)),
            _ => {}
        }
    }
    Ok(())
}
