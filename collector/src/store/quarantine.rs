//! Setting damaged files aside: under a name that says what happened, with what belongs to them, in
//! the same directory. Nothing is ever deleted or overwritten here.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use dunlin_shared::time::WallMs;

use super::connect::beside;
use super::error::StoreError;

/// What stands between the name of a file and the time at which it was set aside.
pub(super) const MARK: &str = ".damaged-";

/// Renames a database with its WAL, so that SQLite's own tools still open the pair.
pub fn set_aside(path: &Path, now: WallMs) -> Result<PathBuf, StoreError> {
    let target = free_name(path, now);
    // The WAL goes first: should this stop half-way, the database is still found and set aside next time.
    for suffix in ["-wal", "-shm", ""] {
        match fs::rename(beside(path, suffix), beside(&target, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(StoreError::io(path, error)),
            _ => {}
        }
    }
    sync_dir_of(path)?;
    Ok(target)
}

/// Gives a file a second name that says that it was damaged, before the first goes.
pub fn keep_aside(path: &Path, now: WallMs) -> Result<PathBuf, StoreError> {
    let target = free_name(path, now);
    fs::hard_link(path, &target).map_err(|error| StoreError::io(&target, error))?;
    sync_dir_of(path)?;
    Ok(target)
}

/// Takes the second name back: what it was made for could not be done.
pub fn keep_no_more(aside: &Path) -> Result<(), StoreError> {
    fs::remove_file(aside).map_err(|error| StoreError::io(aside, error))
}

/// Copies a WAL of which SQLite reads only the beginning, before it is folded or overwritten.
pub(super) fn copy_wal_aside(path: &Path, now: WallMs) -> Result<PathBuf, StoreError> {
    let wal = beside(path, "-wal");
    let target = free_name(&wal, now);
    fs::copy(&wal, &target).map_err(|error| StoreError::io(&target, error))?;
    let file = File::open(&target).map_err(|error| StoreError::io(&target, error))?;
    file.sync_all().map_err(|error| StoreError::sync(&target, error))?;
    sync_dir_of(path)?;
    Ok(target)
}

/// Makes names in a file's directory last.
pub(super) fn sync_dir_of(path: &Path) -> Result<(), StoreError> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = File::open(dir).map_err(|error| StoreError::io(dir, error))?;
    file.sync_all().map_err(|error| StoreError::sync(dir, error))
}

fn free_name(path: &Path, now: WallMs) -> PathBuf {
    let mut at = now.0.max(0);
    loop {
        let target = beside(path, &format!("{MARK}{at}"));
        if !["-wal", "-shm", ""].iter().any(|suffix| beside(&target, suffix).exists()) {
            return target;
        }
        at = at.saturating_add(1);
    }
}
