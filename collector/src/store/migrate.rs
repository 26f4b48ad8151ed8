//! Brings a database to the newest format, one step a transaction, and refuses one that is newer.

use std::path::Path;

use rusqlite::Connection;

use super::error::{At, StoreError};

/// Applies the steps that are missing. The number of steps done is the database's `user_version`.
pub(super) fn migrate(connection: &mut Connection, path: &Path, steps: &[&str]) -> Result<(), StoreError> {
    let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).at(path)?;
    if found > known {
        return Err(StoreError::Newer { path: path.to_path_buf(), found, known });
    }
    if found < 0 {
        return Err(StoreError::damaged(path, format!("its format number is {found}")));
    }
    for (step, version) in steps.iter().zip(1..).filter(|(_, version)| *version > found) {
        let transaction = connection.transaction().at(path)?;
        transaction.execute_batch(step).at(path)?;
        transaction.pragma_update(None, "user_version", version).at(path)?;
        transaction.commit().at(path)?;
    }
    Ok(())
}
