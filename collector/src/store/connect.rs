//! How every connection is set up: WAL, a sync at each commit, and no checkpoint but the owner's own.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::{At, StoreError};

/// A WAL above it is folded into its file. A commit of 100 frames writes about 30 kB of it, so that
/// is one checkpoint in some ten seconds at 1,000 frames/s, and little to replay after a crash.
pub(super) const WAL_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Only a person's tool that holds a lock can be in the way, and never for long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens a file that exists, to write.
pub(super) fn writer(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).at(path)?;
    set(&connection).at(path)?;
    Ok(connection)
}

/// Opens a file that may be missing, to write.
pub(super) fn creator(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).at(path)?;
    set(&connection).at(path)?;
    Ok(connection)
}

/// Opens a file to read. Closing it never folds or removes a WAL.
pub(super) fn reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).at(path)?;
    connection.busy_timeout(BUSY_TIMEOUT).at(path)?;
    connection.pragma_update(None, "cell_size_check", true).at(path)?;
    connection.pragma_update(None, "trusted_schema", false).at(path)?;
    Ok(connection)
}

/// Opens a file that nobody writes any more and that has no WAL, without leaving files beside it.
pub(super) fn closed_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let mut uri = b"file:".to_vec();
    for &byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'?' | b'#' | b'%') {
            uri.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            uri.push(byte);
        }
    }
    uri.extend_from_slice(b"?immutable=1");
    let connection = Connection::open_with_flags(OsStr::from_bytes(&uri), flags).at(path)?;
    connection.pragma_update(None, "cell_size_check", true).at(path)?;
    connection.pragma_update(None, "trusted_schema", false).at(path)?;
    Ok(connection)
}

/// Whether there is anything in a database's WAL.
pub(super) fn has_wal(path: &Path) -> bool {
    std::fs::metadata(beside(path, "-wal")).is_ok_and(|data| data.len() > 0)
}

/// The name that SQLite gives to a file beside a database: `-wal` or `-shm`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The bytes of a database and its WAL; 0 for what is missing.
pub(super) fn bytes_with_wal(path: &Path) -> u64 {
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |data| data.len());
    bytes(path).saturating_add(bytes(&beside(path, "-wal")))
}

/// Folds the WAL into its file without waiting for readers, when it has grown.
pub(super) fn checkpoint_if_grown(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let wal = std::fs::metadata(beside(path, "-wal")).map_or(0, |data| data.len());
    if wal <= WAL_BYTES_MAX {
        return Ok(());
    }
    checkpoint(connection, path, "PASSIVE").map(drop)
}

/// Whether the whole WAL is in its file now.
pub(super) fn checkpoint(connection: &Connection, path: &Path, mode: &str) -> Result<bool, StoreError> {
    let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
    let (busy, frames, done) = connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], row).at(path)?;
    Ok(busy == 0 && frames == done)
}

/// Turns a new database into one with a WAL. Where that fails SQLite may return no error, but the mode
/// that stayed; the file is unused until then, so it can be thrown away and made again.
pub(super) fn use_wal(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let mut pragma = connection.prepare("PRAGMA journal_mode=WAL").at(path)?;
    let mut rows = pragma.query([]).at(path)?;
    let mode: String = rows.next().at(path)?.map_or(Ok(String::new()), |row| row.get(0)).at(path)?;
    // The change is committed only with the step behind the row.
    rows.next().at(path)?;
    if mode == "wal" {
        return Ok(());
    }
    let what = format!("it could not be given a WAL, its journal mode stayed {mode}");
    Err(StoreError::Unavailable { path: path.to_path_buf(), source: what.into() })
}

/// Puts the WAL of a file that nobody has open into the file.
pub(super) fn fold(path: &Path) -> Result<(), StoreError> {
    let connection = writer(path)?;
    if checkpoint(&connection, path, "TRUNCATE")? {
        close(connection, path)
    } else {
        Err(StoreError::Locked { path: path.to_path_buf(), process: None })
    }
}

/// Closes a connection whose WAL is in its file, and removes the empty WAL with it.
pub(super) fn close(connection: Connection, path: &Path) -> Result<(), StoreError> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).at(path)?;
    connection.close().map_err(|(_, error)| StoreError::sqlite(path, error))
}

fn set(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // A connection that is dropped after a failure leaves everything as a crash would.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.execute_batch(&format!(
        "PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit={WAL_BYTES_MAX};
         PRAGMA temp_store=MEMORY; PRAGMA cache_size=-2048; PRAGMA cell_size_check=ON; PRAGMA trusted_schema=OFF;",
    ))
}
