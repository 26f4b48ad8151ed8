//! A copy of all that the store holds, taken beside its writers: nobody is made to wait for it.
//!
//! What never changes any more is linked, so that neither retention nor a merge takes it away meanwhile. `control.db` is
//! copied in one read. The journal that is written is copied row by row, in reads as short as any other. The journals
//! come after `control.db`, so that no decision in the copy lacks the record from which it follows.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::bytes_of;
use super::connect;
use super::error::{At, StoreError};
use super::files::Files;
use super::journal::{Journal, Name, SLOT_S, read_meta, remove_all};
use super::owner::give_to_owner_of;
use super::reader::journals;
use super::row::{COLUMNS, INSERT, number, unsigned};
use super::sealed::SealedName;
use crate::record::Pos;

/// Rows of one read, as for every other reader.
const BATCH_ROWS: i64 = 1_024;
/// How often the directory is read anew because a file went between its listing and its link. Rotations and merges are
/// minutes apart.
const ATTEMPTS: usize = 10;
const COLUMN_COUNT: usize = 11;
/// A backup goes as fast as that even over a slow line: it decides for how many journals there is to be room.
const SENT_BYTES_S: u64 = 10_000_000;

/// What a copy holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    pub incarnation: u64,
    /// Up to where `control.db` goes.
    pub applied: Pos,
    /// The last record.
    pub last: Pos,
}

/// Where a copy is made within a state directory, and while it is.
pub const COPY_DIR: &str = "backup.new";

/// Whether a copy of the state of this window is being made: its files are linked there.
#[must_use]
pub fn is_copied(window: &Path) -> bool {
    window.parent().is_some_and(|state_dir| state_dir.join(COPY_DIR).exists())
}

/// Whether a file of this name belongs into a window.
#[must_use]
pub fn is_window_file(name: &str) -> bool {
    let dir = Path::new("");
    Name::parse(dir, name).is_some() || SealedName::parse(dir, name).is_some()
}

/// What a copy takes of the disk while it is made: links take nothing.
pub fn copy_bytes(state_dir: &Path) -> Result<u64, StoreError> {
    let newest = journals(&state_dir.join("window"))?.pop();
    let journal = newest.map_or(0, |name| connect::bytes_with_wal(&name.path));
    // The rows go through the WAL of their copy.
    Ok(connect::bytes_with_wal(&state_dir.join("control.db")).saturating_add(journal.saturating_mul(3)))
}

/// What the window may come to take more while a copy of it is made and sent: whatever goes meanwhile gives nothing back,
/// since it is linked. Journals come and are sealed, and what is not as long as it will be is merged.
pub fn growth_bytes(state_dir: &Path) -> Result<u64, StoreError> {
    let window = state_dir.join("window");
    let files = Files::list(&window)?;
    let bytes = |name: &SealedName| bytes_of(name.path());
    let merged: u64 = files.sealed.iter().filter(|name| !name.is_longest()).map(bytes).sum();
    let names = journals(&window)?;
    let sizes = || names.iter().map(|name| connect::bytes_with_wal(&name.path));
    let lasts_s = (files.sealed.iter().map(bytes).sum::<u64>() + sizes().sum::<u64>()) / SENT_BYTES_S;
    let to_come = lasts_s / SLOT_S.cast_unsigned() + 1;
    // Each once as it comes and once as it is sealed, which is less; and those that wait to be sealed.
    let largest = sizes().max().unwrap_or(0);
    let waiting: u64 = sizes().sum();
    Ok(merged.saturating_add(largest.saturating_mul(2 * to_come)).saturating_add(waiting))
}

/// Puts `control.db` and `window/` into `to`, which is an empty directory on the same file system.
pub fn copy_state(state_dir: &Path, to: &Path) -> Result<Copied, StoreError> {
    let (from, window) = (state_dir.join("window"), to.join("window"));
    fs::create_dir(&window).map_err(|error| StoreError::io(&window, error))?;
    // Whoever clears up after a copy that was cut off is the owner of the state, and root may be who makes it.
    give_to_owner_of(state_dir, &window).map_err(|error| StoreError::io(&window, error))?;
    // Before `control.db` too: what it has not applied yet is not to go while it is copied.
    pin(&from, &window)?;
    let (incarnation, applied) = copy_control(&state_dir.join("control.db"), &to.join("control.db"))?;
    for _ in 0..ATTEMPTS {
        let (listed, open) = pin(&from, &window)?;
        match copy_open(&open, &window) {
            Ok(last) => {
                let_go(&window, &listed, &open)?;
                return whole(&window, applied).map(|()| Copied { incarnation, applied, last: last.max(applied) });
            }
            // An empty one is taken away by the rotation.
            Err(_) if open.iter().any(|name| !name.path.exists()) => {
                // What was written meanwhile may be closed by now, and is then linked whole.
                open.iter().try_for_each(|name| remove_all(&Name::new(&window, name.slot_s, name.first).path))?;
            }
            Err(error) => return Err(error),
        }
    }
    Err(StoreError::misuse(&from, "its files changed too fast to be copied; try it again"))
}

/// Links what is listed and never changes any more, and gives the names of all of it, and of the journals that may still
/// be written.
fn pin(from: &Path, to: &Path) -> Result<(HashSet<OsString>, Vec<Name>), StoreError> {
    for _ in 0..ATTEMPTS {
        let names = journals(from)?;
        let newest = names.last().cloned();
        let (open, closed): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| newest.as_ref() == Some(name) || connect::has_wal(&name.path));
        let sealed = Files::list(from)?.sealed;
        let still = closed.iter().map(|name| name.path.as_path()).chain(sealed.iter().map(SealedName::path));
        let mut listed = HashSet::new();
        let mut is_whole = true;
        for path in still {
            let name = path.file_name().unwrap_or_default();
            listed.insert(name.to_owned());
            match fs::hard_link(path, to.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => is_whole = false,
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(StoreError::io(path, error)),
                _ => {}
            }
        }
        if is_whole {
            return Ok((listed, open));
        }
    }
    Err(StoreError::misuse(from, "its files changed too fast to be linked; try it again"))
}

/// Sealed files that were superseded since they were linked.
fn let_go(window: &Path, listed: &HashSet<OsString>, open: &[Name]) -> Result<(), StoreError> {
    let at = |error| StoreError::io(window, error);
    for entry in fs::read_dir(window).map_err(at)? {
        let entry = entry.map_err(at)?;
        let name = entry.file_name();
        let is_journal = name.to_str().is_some_and(|text| Name::parse(window, text).is_some());
        let is_open = open.iter().any(|open| open.path.file_name() == Some(&name));
        if !is_journal && !is_open && !listed.contains(&name) {
            fs::remove_file(entry.path()).map_err(at)?;
        }
    }
    Ok(())
}

/// A journal went that `control.db` still needs: only when copying that took longer than a sealed journal is kept.
fn whole(window: &Path, applied: Pos) -> Result<(), StoreError> {
    match journals(window)?.first() {
        Some(earliest) if earliest.first <= applied.next() => Ok(()),
        _ => Err(StoreError::misuse(window, "a journal went while the state was copied; try it again")),
    }
}

fn copy_control(from: &Path, to: &Path) -> Result<(u64, Pos), StoreError> {
    let source = connect::reader(from)?;
    let target = to.to_string_lossy();
    source.execute("VACUUM INTO ?1", [&*target]).at(from)?;
    drop(source);
    let copy = connect::writer(to)?;
    connect::use_wal(&copy, to)?;
    let row = |row: &rusqlite::Row<'_>| Ok((unsigned(row.get(0)?), Pos(unsigned(row.get(1)?))));
    let found = copy.query_row("SELECT incarnation, applied_pos FROM meta", [], row).at(to)?;
    settle(copy, to)?;
    Ok(found)
}

/// Gives the last position of them.
fn copy_open(open: &[Name], window: &Path) -> Result<Pos, StoreError> {
    let mut last = Pos(0);
    for name in open {
        last = last.max(copy_rows(name, &Name::new(window, name.slot_s, name.first))?);
    }
    Ok(last)
}

fn copy_rows(from: &Name, to: &Name) -> Result<Pos, StoreError> {
    let source = connect::reader(&from.path)?;
    let meta = read_meta(&source, &from.path)?;
    // What is written later is not waited for.
    let last: Option<i64> = source.query_row("SELECT MAX(pos) FROM record", [], |row| row.get(0)).at(&from.path)?;
    let last = last.map_or(Pos(from.first.0 - 1), |pos| Pos(unsigned(pos)));
    remove_all(&to.path)?;
    Journal::prepare(to, &meta)?;
    let fresh = connect::beside(&to.path, ".new");
    fs::rename(&fresh, &to.path).map_err(|error| StoreError::io(&to.path, error))?;
    let mut copy = connect::writer(&to.path)?;
    // Nobody relies on it before it was read again and synced elsewhere.
    copy.pragma_update(None, "synchronous", "OFF").at(&to.path)?;
    let transaction = copy.transaction().at(&to.path)?;
    let sql = format!("SELECT {COLUMNS} FROM record WHERE pos BETWEEN ?1 AND ?2 ORDER BY pos LIMIT {BATCH_ROWS}");
    let mut next = from.first;
    while next <= last {
        let rows = batch(&source, &sql, next, last).at(&from.path)?;
        let Some(Value::Integer(pos)) = rows.last().map(|row| row[0].clone()) else { break };
        let mut insert = transaction.prepare_cached(INSERT).at(&to.path)?;
        for row in rows {
            insert.execute(params_from_iter(row)).at(&to.path)?;
        }
        next = Pos(unsigned(pos)).next();
    }
    transaction.commit().at(&to.path)?;
    settle(copy, &to.path)?;
    Ok(last)
}

fn batch(source: &Connection, sql: &str, from: Pos, last: Pos) -> rusqlite::Result<Vec<Vec<Value>>> {
    let mut query = source.prepare_cached(sql)?;
    let columns = |row: &rusqlite::Row<'_>| (0..COLUMN_COUNT).map(|at| row.get(at)).collect();
    query.query_map([number(from.0), number(last.0)], columns)?.collect()
}

/// All in one file.
fn settle(copy: Connection, path: &Path) -> Result<(), StoreError> {
    if connect::checkpoint(&copy, path, "TRUNCATE")? {
        connect::close(copy, path)
    } else {
        Err(StoreError::Locked { path: PathBuf::from(path), process: None })
    }
}
