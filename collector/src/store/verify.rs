//! Whether a journal file still holds what was written, read from its first byte to its last.
//!
//! Nothing is changed by it: the file is opened to read, and what is wrong is returned.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use dunlin_shared::time::WallMs;
use rusqlite::Connection;

use super::connect;
use super::error::{At, StoreError};
use super::journal::{APPLICATION_ID, FORMAT, Links, NODE_KEY_MAX, Name, read_meta};
use super::row::{self, COLUMNS};
use super::wal::{self, Wal};
use crate::record::{NodeKey, Pos};

/// What a sound file holds.
#[derive(Clone, Debug)]
pub(super) struct Verified {
    pub(super) follows: Pos,
    pub(super) created_at: WallMs,
    pub(super) snapshot: Vec<u8>,
    /// One before the file's first position when it is empty.
    pub(super) last: Pos,
    pub(super) links: Links,
    pub(super) highest_node: Option<NodeKey>,
    /// Whether the WAL lost synced frames in its middle, so that `last` is too low.
    pub(super) lossy_wal: bool,
}

/// Reads the whole file: SQLite's own check of its pages, then each row against its checksum.
/// Nobody may have the file open to write meanwhile.
pub(super) fn verify(name: &Name) -> Result<Verified, StoreError> {
    let path = &name.path;
    let wal = connect::beside(path, "-wal");
    let walked = wal::walk(&wal).map_err(|error| StoreError::io(&wal, error))?;
    let connection = if connect::has_wal(path) { connect::reader(path)? } else { connect::closed_reader(path)? };
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).at(path)?;
    if application != APPLICATION_ID {
        return Err(StoreError::damaged(path, "it is not a journal of this program"));
    }
    check_format(&connection, path)?;
    let said: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).at(path)?;
    if said != "ok" {
        return Err(StoreError::damaged(path, said));
    }
    let meta = read_meta(&connection, path)?;
    if meta.first != name.first || meta.slot_s != name.slot_s {
        return Err(StoreError::damaged(path, "its name and its content are of different files"));
    }
    let mut verified = Verified {
        follows: meta.follows,
        created_at: meta.created_at,
        snapshot: meta.snapshot,
        last: Pos(meta.first.0 - 1),
        links: Links::new(),
        highest_node: None,
        lossy_wal: walked == Wal::Lossy,
    };
    read_rows(&connection, path, &mut verified)?;
    Ok(verified)
}

/// A look at the first 100 bytes and the length alone, for files that are not read at start.
pub(super) fn probe(name: &Name) -> Result<(), StoreError> {
    let format = read_head(&name.path, APPLICATION_ID)?;
    if format > FORMAT { verify(name).map(drop) } else { Ok(()) }
}

/// The format that the head of a database names, when it is one of ours and as long as it says.
/// No connection of this process may have it open: closing the file here would end SQLite's locks on it.
pub(super) fn read_head(path: &Path, application: i64) -> Result<i64, StoreError> {
    let at = |error| StoreError::io(path, error);
    let mut head = Vec::with_capacity(100);
    let file = File::open(path).map_err(at)?;
    let bytes = file.metadata().map_err(at)?.len();
    file.take(100).read_to_end(&mut head).map_err(at)?;
    let word = |at: usize| head.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |word| u32::from_be_bytes(*word));
    if head.len() < 100 || !head.starts_with(b"SQLite format 3\0") {
        return Err(StoreError::damaged(path, "it does not begin like a database"));
    }
    if i64::from(word(68)) != application {
        return Err(StoreError::damaged(path, "it is not a database of this program, or of another kind"));
    }
    let page_bytes = match u64::from(word(16) >> 16) {
        1 => 65_536,
        bytes => bytes,
    };
    let whole = u64::from(word(28)).saturating_mul(page_bytes);
    // With a WAL, pages that the head counts may be there.
    if !connect::has_wal(path) && bytes < whole {
        return Err(StoreError::damaged(path, format!("it has {bytes} of {whole} bytes")));
    }
    Ok(i64::from(word(60)))
}

/// `Newer` only when the number in the head and the one in `meta` agree, else a bit has flipped.
fn check_format(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).at(path)?;
    if found == FORMAT {
        return Ok(());
    }
    let written: i64 = connection.query_row("SELECT format FROM meta", [], |row| row.get(0)).at(path)?;
    if found > FORMAT && written == found {
        return Err(StoreError::Newer { path: path.to_path_buf(), found, known: FORMAT });
    }
    Err(StoreError::damaged(path, format!("its format is {found} in the head and {written} in meta")))
}

fn read_rows(connection: &Connection, path: &Path, verified: &mut Verified) -> Result<(), StoreError> {
    let mut query = connection.prepare(&format!("SELECT {COLUMNS} FROM record ORDER BY pos")).at(path)?;
    let mut rows = query.query([]).at(path)?;
    while let Some(columns) = rows.next().at(path)? {
        let expected = verified.last.next();
        let row = match row::read(columns).at(path)? {
            Ok(row) => row,
            Err(bad) => return Err(StoreError::damaged(path, format!("row {}: {}", expected.0, bad.0))),
        };
        if row.pos != expected {
            return Err(StoreError::damaged(path, format!("row {} is missing", expected.0)));
        }
        verified.last = expected;
        let Some(node) = row.node else { continue };
        verified.highest_node = verified.highest_node.max(Some(node));
        if row.is_frame() {
            if node.0 > NODE_KEY_MAX {
                return Err(StoreError::damaged(path, format!("row {}: its node key is out of range", expected.0)));
            }
            let Ok(index) = usize::try_from(node.0) else { continue };
            if verified.links.len() <= index {
                verified.links.resize(index + 1, 0);
            }
            verified.links[index] = expected.0;
        }
    }
    Ok(())
}
