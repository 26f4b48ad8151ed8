//! What can go wrong with a file, sorted by what its owner has to do about it.
//!
//! Nothing is claimed to be stored when any of these is returned. A failed sync is never turned
//! into something that could be tried again: the kernel may have dropped the pages already.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ffi;
use thiserror::Error;

type Cause = Box<dyn StdError + Send + Sync>;

#[derive(Debug, Error)]
pub enum StoreError {
    #[error("{} cannot be written or read now, and nothing of this was stored; it will work again when the disk has space and is writable", path.display())]
    Unavailable { path: PathBuf, source: Cause },
    #[error("{} could not be synced to disk, so what it holds is uncertain; the process must stop, check the disk before the next start", path.display())]
    SyncFailed { path: PathBuf, source: Cause },
    #[error("{} is damaged: {what}; it has to be set aside", path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("{} has format {found} and this program knows formats up to {known}; start the newer program, or restore a backup of this one", path.display())]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("{} is in use by {}; stop it, or give this one a state directory of its own", path.display(), owner(*process))]
    Locked { path: PathBuf, process: Option<u32> },
    #[error("{}: {what}", path.display())]
    Other { path: PathBuf, what: &'static str, source: Option<Cause> },
}

impl StoreError {
    pub(super) fn sqlite(path: &Path, error: rusqlite::Error) -> Self {
        let path = path.to_path_buf();
        let code = match &error {
            rusqlite::Error::SqliteFailure(failure, _) => failure.extended_code,
            // A value of the wrong type or size, where the schema is strict, was not written by us; and a
            // statement of ours that cannot be compiled has met a schema that is not.
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::QueryReturnedNoRows
            | rusqlite::Error::SqlInputError { .. } => return Self::Damaged { path, what: error.to_string() },
            _ => return Self::Other { path, what: "SQLite refused the request", source: Some(error.into()) },
        };
        match code {
            ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC => Self::SyncFailed { path, source: error.into() },
            ffi::SQLITE_IOERR_CORRUPTFS | ffi::SQLITE_IOERR_DATA | ffi::SQLITE_IOERR_SHORT_READ => {
                Self::Damaged { path, what: error.to_string() }
            }
            _ => match code & 0xff {
                ffi::SQLITE_FULL | ffi::SQLITE_IOERR | ffi::SQLITE_READONLY | ffi::SQLITE_CANTOPEN => {
                    Self::Unavailable { path, source: error.into() }
                }
                ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB | ffi::SQLITE_ERROR => {
                    Self::Damaged { path, what: error.to_string() }
                }
                ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_PROTOCOL => Self::Locked { path, process: None },
                _ => Self::Other { path, what: "SQLite failed", source: Some(error.into()) },
            },
        }
    }

    /// For anything but a sync.
    pub(super) fn io(path: &Path, error: io::Error) -> Self {
        let path = path.to_path_buf();
        // Linux: EIO, ENFILE, EMFILE. They have no stable kind.
        let passing = matches!(error.raw_os_error(), Some(5 | 23 | 24));
        match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::OutOfMemory => Self::Unavailable { path, source: error.into() },
            _ if passing => Self::Unavailable { path, source: error.into() },
            _ => Self::Other { path, what: "the file cannot be used", source: Some(error.into()) },
        }
    }

    pub(super) fn sync(path: &Path, error: io::Error) -> Self {
        Self::SyncFailed { path: path.to_path_buf(), source: error.into() }
    }

    pub(super) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_path_buf(), what: what.into() }
    }

    pub(super) fn misuse(path: &Path, what: &'static str) -> Self {
        Self::Other { path: path.to_path_buf(), what, source: None }
    }
}

/// Puts the path to a failure of SQLite.
pub(super) trait At<T> {
    fn at(self, path: &Path) -> Result<T, StoreError>;
}

impl<T> At<T> for rusqlite::Result<T> {
    fn at(self, path: &Path) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::sqlite(path, error))
    }
}

fn owner(process: Option<u32>) -> String {
    process.map_or_else(|| "another process".to_owned(), |id| format!("process {id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_code(extended_code: i32) -> StoreError {
        let failure = rusqlite::Error::SqliteFailure(ffi::Error::new(extended_code), None);
        StoreError::sqlite(Path::new("/state/x.db"), failure)
    }

    #[test]
    fn a_failed_sync_is_its_own_kind_and_never_a_passing_one() {
        for code in [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_DIR_FSYNC] {
            assert!(matches!(of_code(code), StoreError::SyncFailed { .. }), "{code}");
        }
        let error = StoreError::sync(Path::new("/state"), io::Error::from_raw_os_error(28));
        assert!(matches!(error, StoreError::SyncFailed { .. }), "even for want of space");
    }

    #[test]
    fn full_read_only_and_failing_disks_are_passing() {
        for code in [
            ffi::SQLITE_FULL,
            ffi::SQLITE_IOERR_WRITE,
            ffi::SQLITE_IOERR_SHMSIZE,
            ffi::SQLITE_IOERR_SHMOPEN,
            ffi::SQLITE_IOERR_READ,
            ffi::SQLITE_READONLY,
            ffi::SQLITE_READONLY_DIRECTORY,
            ffi::SQLITE_CANTOPEN,
        ] {
            assert!(matches!(of_code(code), StoreError::Unavailable { .. }), "{code}");
        }
        // EIO, ENOSPC, EROFS, EDQUOT, EACCES.
        for errno in [5, 28, 30, 122, 13] {
            let error = StoreError::io(Path::new("/state"), io::Error::from_raw_os_error(errno));
            assert!(matches!(error, StoreError::Unavailable { .. }), "{errno}");
        }
    }

    #[test]
    fn corrupt_files_are_damaged_and_busy_ones_are_locked() {
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_ERROR, ffi::SQLITE_IOERR_CORRUPTFS] {
            assert!(matches!(of_code(code), StoreError::Damaged { .. }), "{code}");
        }
        for code in [ffi::SQLITE_BUSY, ffi::SQLITE_LOCKED] {
            assert!(matches!(of_code(code), StoreError::Locked { .. }), "{code}");
        }
        assert!(matches!(of_code(ffi::SQLITE_NOMEM), StoreError::Other { .. }));
    }

    #[test]
    fn every_message_names_the_path_and_keeps_the_cause_apart() {
        for code in [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_CORRUPT, ffi::SQLITE_BUSY] {
            assert!(of_code(code).to_string().starts_with("/state/x.db "), "{}", of_code(code));
        }
        assert!(of_code(ffi::SQLITE_FULL).source().is_some());
        let newer = StoreError::Newer { path: "/state/x.db".into(), found: 9, known: 1 };
        assert!(newer.to_string().contains("format 9") && newer.to_string().contains("up to 1"));
    }
}
