//! The rows of what stands on each node: its items as one blob, and beside it what the engine knows of them.
//!
//! One row a node, written whole in the transaction of the position that it follows from.

use dunlin_shared::id::{Epoch, FrameId, Seq};
use dunlin_shared::inventory::StockHash;
use dunlin_shared::time::WallMs;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::super::error::{At, StoreError};
use super::super::row::{number, unsigned};
use super::Control;
use super::feed::ControlReader;
use crate::engine::{Noise, StockMark, StockState};
use crate::record::NodeKey;
use crate::registry::Change;
use crate::stock::{Counts, StockBody};

/// The index is for the last events of one node.
pub(super) const TABLES: &str = "
    CREATE TABLE stock (node INTEGER PRIMARY KEY, state INTEGER NOT NULL, epoch INTEGER, seq INTEGER,
        hash INTEGER NOT NULL, is_compared INTEGER NOT NULL, full_at INTEGER NOT NULL, noise_since INTEGER,
        noise INTEGER, containers INTEGER NOT NULL DEFAULT 0, containers_up INTEGER NOT NULL DEFAULT 0,
        processes INTEGER NOT NULL DEFAULT 0, ports INTEGER NOT NULL DEFAULT 0,
        ports_exposed INTEGER NOT NULL DEFAULT 0, units_failed INTEGER NOT NULL DEFAULT 0, body BLOB) STRICT;
    CREATE INDEX event_by_node ON event (node, id) WHERE node IS NOT NULL;
";

/// What changes of a node's stock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StockUpdate {
    pub node: NodeKey,
    pub mark: StockMark,
    pub noise: Option<Noise>,
    /// `None` leaves the items that are there.
    pub body: Option<StockBody>,
}

/// What the engine knows of a node's stock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StockRow {
    pub node: NodeKey,
    pub mark: StockMark,
    pub noise: Option<Noise>,
}

impl Control {
    /// Of all nodes that told any, by key; without the items.
    pub fn stocks(&self) -> Result<Vec<StockRow>, StoreError> {
        rows(&self.connection).at(&self.path)
    }

    /// The items of a node, as they were written.
    pub fn stock_body(&self, node: NodeKey) -> Result<Option<Vec<u8>>, StoreError> {
        body(&self.connection, node).at(&self.path)
    }
}

impl ControlReader {
    /// Of all nodes that told any, by key; without the items.
    pub fn stocks(&self) -> Result<Vec<StockRow>, StoreError> {
        rows(&self.connection).at(&self.path)
    }

    /// The items of a node, as they were written.
    pub fn stock_body(&self, node: NodeKey) -> Result<Option<Vec<u8>>, StoreError> {
        body(&self.connection, node).at(&self.path)
    }

    /// How much stands on a node, when that is known.
    pub fn stock_counts(&self, node: NodeKey) -> Result<Option<Counts>, StoreError> {
        let sql = "SELECT containers, containers_up, processes, ports, ports_exposed, units_failed
            FROM stock WHERE node = ?1 AND body IS NOT NULL";
        let mut query = self.connection.prepare_cached(sql).at(&self.path)?;
        query.query_row([node.0], counts_row).optional().at(&self.path)
    }
}

pub(super) fn put(transaction: &Transaction<'_>, update: &StockUpdate) -> rusqlite::Result<()> {
    let StockUpdate { node, mark, noise, body } = update;
    let sql = "INSERT INTO stock (node, state, epoch, seq, hash, is_compared, full_at, noise_since, noise)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
        ON CONFLICT (node) DO UPDATE SET state = ?2, epoch = ?3, seq = ?4, hash = ?5, is_compared = ?6, full_at = ?7,
        noise_since = ?8, noise = ?9";
    transaction.prepare_cached(sql)?.execute(params![
        node.0,
        state_number(mark.state),
        mark.id.map(|id| id.epoch.0),
        mark.id.map(|id| number(id.seq.0)),
        number(mark.hash.0),
        mark.is_compared,
        mark.full_at.0,
        noise.map(|noise| noise.since.0),
        noise.map(|noise| noise.count),
    ])?;
    let Some(StockBody { bytes, counts }) = body else { return Ok(()) };
    let sql = "UPDATE stock SET body = ?2, containers = ?3, containers_up = ?4, processes = ?5, ports = ?6,
        ports_exposed = ?7, units_failed = ?8 WHERE node = ?1";
    transaction.prepare_cached(sql)?.execute(params![
        node.0,
        bytes,
        counts.containers,
        counts.containers_up,
        counts.processes,
        counts.ports,
        counts.ports_exposed,
        counts.units_failed,
    ])?;
    Ok(())
}

/// Where the change hides a node, what stood on it is nobody's business any more.
pub(super) fn forget_with(transaction: &Transaction<'_>, change: &Change) -> rusqlite::Result<()> {
    let Change::Member(id, member) = change else { return Ok(()) };
    if member.is_forgotten {
        let sql = "DELETE FROM stock WHERE node = (SELECT key FROM node WHERE id = ?1)";
        transaction.prepare_cached(sql)?.execute([id.bytes()])?;
    }
    Ok(())
}

fn rows(connection: &Connection) -> rusqlite::Result<Vec<StockRow>> {
    let sql = "SELECT node, state, epoch, seq, hash, is_compared, full_at, noise_since, noise FROM stock ORDER BY node";
    let mut query = connection.prepare_cached(sql)?;
    query.query_map([], stock_row)?.collect()
}

fn body(connection: &Connection, node: NodeKey) -> rusqlite::Result<Option<Vec<u8>>> {
    let mut query = connection.prepare_cached("SELECT body FROM stock WHERE node = ?1")?;
    Ok(query.query_row([node.0], |row| row.get(0)).optional()?.flatten())
}

fn stock_row(row: &Row<'_>) -> rusqlite::Result<StockRow> {
    let id = row.get::<_, Option<u32>>(2)?.zip(row.get::<_, Option<i64>>(3)?);
    let id = id.map(|(epoch, seq)| FrameId { epoch: Epoch(epoch), seq: Seq(unsigned(seq)) });
    let hash = StockHash(unsigned(row.get(4)?));
    let noise = row.get::<_, Option<i64>>(7)?.zip(row.get::<_, Option<u32>>(8)?);
    Ok(StockRow {
        node: NodeKey(row.get(0)?),
        mark: StockMark::restored(state_of(row.get(1)?), id, hash, (row.get(5)?, WallMs(row.get(6)?))),
        noise: noise.map(|(since, count)| Noise { since: WallMs(since), count }),
    })
}

fn counts_row(row: &Row<'_>) -> rusqlite::Result<Counts> {
    Ok(Counts {
        containers: row.get(0)?,
        containers_up: row.get(1)?,
        processes: row.get(2)?,
        ports: row.get(3)?,
        ports_exposed: row.get(4)?,
        units_failed: row.get(5)?,
    })
}

const fn state_number(state: StockState) -> i64 {
    match state {
        StockState::None => 0,
        StockState::Held => 1,
        StockState::Lost => 2,
    }
}

/// What nobody wrote is nothing that could be built on.
const fn state_of(number: i64) -> StockState {
    match number {
        1 => StockState::Held,
        2 => StockState::Lost,
        _ => StockState::None,
    }
}
