//! The rows of gaps: frames that will never come.

use dunlin_shared::id::{Epoch, Seq};
use dunlin_shared::time::WallMs;
use rusqlite::{Row, Transaction, params};

use super::super::error::{At, StoreError};
use super::super::row::{number, unsigned};
use super::Control;
use crate::record::NodeKey;

/// Frames that will never come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GapRow {
    pub node: NodeKey,
    pub epoch: Epoch,
    pub first: Seq,
    /// `None` when it is not known how far the node had counted; so is `count`.
    pub last: Option<Seq>,
    pub count: Option<u64>,
    pub from: WallMs,
    pub to: WallMs,
    pub reason: String,
    pub at: WallMs,
}

impl Control {
    /// A node's gaps in the order in which they were applied.
    pub fn gaps(&self, node: NodeKey) -> Result<Vec<GapRow>, StoreError> {
        let sql = "SELECT node, epoch, first, last, count, taken_from, taken_to, reason, at
                 FROM gap WHERE node = ?1 ORDER BY id";
        let mut query = self.connection.prepare_cached(sql).at(&self.path)?;
        let rows = query.query_map([node.0], gap_row).at(&self.path)?;
        rows.collect::<rusqlite::Result<_>>().at(&self.path)
    }
}

pub(super) fn add_gap(transaction: &Transaction<'_>, gap: &GapRow) -> rusqlite::Result<()> {
    let sql = "INSERT INTO gap (node, epoch, first, last, count, taken_from, taken_to, reason, at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let mut statement = transaction.prepare_cached(sql)?;
    statement.execute(params![
        gap.node.0,
        gap.epoch.0,
        number(gap.first.0),
        gap.last.map(|last| number(last.0)),
        gap.count.map(number),
        gap.from.0,
        gap.to.0,
        gap.reason,
        gap.at.0,
    ])?;
    Ok(())
}

fn gap_row(row: &Row<'_>) -> rusqlite::Result<GapRow> {
    Ok(GapRow {
        node: NodeKey(row.get(0)?),
        epoch: Epoch(row.get(1)?),
        first: Seq(unsigned(row.get(2)?)),
        last: row.get::<_, Option<i64>>(3)?.map(|last| Seq(unsigned(last))),
        count: row.get::<_, Option<i64>>(4)?.map(unsigned),
        from: WallMs(row.get(5)?),
        to: WallMs(row.get(6)?),
        reason: row.get(7)?,
        at: WallMs(row.get(8)?),
    })
}
