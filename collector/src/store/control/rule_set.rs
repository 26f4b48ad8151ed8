//! The rows of sets of rules that came by the API: texts as they were sent. Whether they are right is found when they are
//! read, by whichever version reads them.

use std::sync::Arc;

use dunlin_shared::time::WallMs;
use rusqlite::{Row, Transaction, params};

use super::super::error::{At, StoreError};
use super::Control;
use crate::rules::{NamedSet, Sets};

pub(super) const TABLES: &str = "
    CREATE TABLE rule_set (name TEXT PRIMARY KEY, text TEXT NOT NULL, by TEXT NOT NULL, at INTEGER NOT NULL)
        STRICT, WITHOUT ROWID;
";

impl Control {
    pub fn rule_sets(&self) -> Result<Sets, StoreError> {
        let read = || {
            let mut query = self.connection.prepare("SELECT name, text, by, at FROM rule_set ORDER BY name")?;
            query.query_map([], rule_set)?.collect::<rusqlite::Result<Sets>>()
        };
        read().at(&self.path)
    }
}

/// A set without a text goes.
pub(super) fn put(
    transaction: &Transaction<'_>,
    (name, set): &(String, Option<Arc<NamedSet>>),
) -> rusqlite::Result<()> {
    match set {
        Some(set) => {
            let sql = "INSERT OR REPLACE INTO rule_set (name, text, by, at) VALUES (?1, ?2, ?3, ?4)";
            transaction.prepare_cached(sql)?.execute(params![name, &*set.text, set.by, set.at.0])?;
        }
        None => {
            transaction.prepare_cached("DELETE FROM rule_set WHERE name = ?1")?.execute([name])?;
        }
    }
    Ok(())
}

fn rule_set(row: &Row<'_>) -> rusqlite::Result<(String, Arc<NamedSet>)> {
    let text: String = row.get(1)?;
    Ok((row.get(0)?, Arc::new(NamedSet { text: text.into(), by: row.get(2)?, at: WallMs(row.get(3)?) })))
}
