//! The rows of nodes: their keys in the log, and what was last known of each.
//!
//! A key is given out once and to one node; not even a lost database gives it to another.

use dunlin_shared::id::{Epoch, FrameId, NodeId, Seq};
use dunlin_shared::time::WallMs;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::super::error::{At, StoreError};
use super::super::journal::NODE_KEY_MAX;
use super::super::row::{number, unsigned};
use super::{Control, registry};
use crate::record::NodeKey;
use crate::registry::{Change, Member};

pub(super) const NEWEST: &str = "
    ALTER TABLE node ADD COLUMN newest_epoch INTEGER;
    ALTER TABLE node ADD COLUMN newest_seq INTEGER;
";

/// The state of a node that nothing was heard of since it was added.
const STATE_AT_FIRST: &str = "unknown";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    pub key: NodeKey,
    pub id: NodeId,
    pub name: String,
    pub first_seen: WallMs,
    pub last_seen: WallMs,
    /// A word of the API: up, down, stopped, ...
    pub state: String,
    pub since: WallMs,
    pub epoch: Option<Epoch>,
    pub version: Option<String>,
    pub boot_id: Option<[u8; 16]>,
    pub interval_ms: Option<u32>,
    pub skew_ms: Option<i64>,
    /// The last epoch that ended with a goodbye, and the number before which it ended.
    pub goodbye: Option<(Epoch, Seq)>,
    /// The frame that the facts came with, and the facts as they were sent.
    pub facts: Option<(FrameId, Vec<u8>)>,
    /// Unseen for so long that it is taken for gone.
    pub is_retired: bool,
    /// The newest frame of values that came live, as of when it was noted that the node was seen.
    pub newest: Option<FrameId>,
}

/// A node that is to be added, and what the registry says of it.
#[derive(Clone, Debug)]
pub struct NewNode {
    pub key: NodeKey,
    pub id: NodeId,
    pub name: String,
    pub interval_ms: Option<u32>,
    pub member: Member,
}

/// What changes of a node; `None` leaves what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeUpdate {
    pub key: NodeKey,
    pub name: Option<String>,
    pub last_seen: Option<WallMs>,
    pub state: Option<(String, WallMs)>,
    pub epoch: Option<Epoch>,
    pub version: Option<String>,
    pub boot_id: Option<[u8; 16]>,
    pub interval_ms: Option<u32>,
    pub skew_ms: Option<i64>,
    pub goodbye: Option<(Epoch, Seq)>,
    pub facts: Option<(FrameId, Vec<u8>)>,
    pub is_retired: Option<bool>,
    pub newest: Option<FrameId>,
}

impl NodeUpdate {
    #[must_use]
    pub const fn of(key: NodeKey) -> Self {
        Self {
            key,
            name: None,
            last_seen: None,
            state: None,
            epoch: None,
            version: None,
            boot_id: None,
            interval_ms: None,
            skew_ms: None,
            goodbye: None,
            facts: None,
            is_retired: None,
            newest: None,
        }
    }
}

impl Control {
    /// The node's key, a new one when it is seen for the first time.
    pub fn ensure_node(&mut self, id: NodeId, name: &str, now: WallMs) -> Result<NodeKey, StoreError> {
        let keys = self.ensure_nodes(&[(id, name)], now)?;
        keys.first().copied().ok_or_else(|| StoreError::misuse(&self.path, "a node without a key"))
    }

    /// The same for many nodes in one transaction; keys are in the order of `nodes`.
    pub fn ensure_nodes(&mut self, nodes: &[(NodeId, &str)], now: WallMs) -> Result<Vec<NodeKey>, StoreError> {
        self.write(|transaction| {
            let mut keys = Vec::with_capacity(nodes.len());
            for (id, name) in nodes {
                let mut known = transaction.prepare_cached("SELECT key FROM node WHERE id = ?1")?;
                let key: Option<u32> = known.query_row([id.bytes()], |row| row.get(0)).optional()?;
                let key = match key {
                    Some(key) => key,
                    None => add_node(transaction, *id, name, now)?,
                };
                keys.push(NodeKey(key));
            }
            Ok(keys)
        })
    }

    /// Gives nodes the keys that they have in the log, after `control.db` was lost. Nodes that are known
    /// already keep what they have. No key up to the highest of these, or `highest`, is given out again.
    pub fn restore_nodes(
        &mut self,
        nodes: &[(NodeKey, NodeId)],
        highest: Option<NodeKey>,
        now: WallMs,
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            let sql = "INSERT OR IGNORE INTO node (key, id, name, first_seen, last_seen, state, since)
                 VALUES (?1, ?2, ?3, ?4, ?4, ?5, ?4)";
            let mut insert = transaction.prepare_cached(sql)?;
            for (key, id) in nodes {
                insert.execute(params![key.0, id.bytes(), id.to_string(), now.0, STATE_AT_FIRST])?;
            }
            let highest = nodes.iter().map(|(key, _)| *key).chain(highest).max().map_or(0, |key| key.0);
            transaction.execute("UPDATE meta SET next_key = max(next_key, ?1)", [i64::from(highest) + 1])?;
            Ok(())
        })
    }

    /// The key that the next new node will have.
    pub fn next_key(&self) -> Result<NodeKey, StoreError> {
        let next = self.connection.query_row("SELECT next_key FROM meta", [], |row| row.get(0));
        next.map(NodeKey).at(&self.path)
    }

    /// Adds nodes that have never been connected, all of them or none. Each gets the key that it names, or none is added.
    pub fn add_nodes(&mut self, nodes: &[NewNode], now: WallMs) -> Result<(), StoreError> {
        self.write(|transaction| {
            for node in nodes {
                if add_node(transaction, node.id, &node.name, now)? != node.key.0 {
                    return Err(rusqlite::Error::ToSqlConversionFailure("a node's key is taken".into()));
                }
                let update = NodeUpdate { interval_ms: node.interval_ms, ..NodeUpdate::of(node.key) };
                update_node(transaction, &update)?;
                registry::put(transaction, &Change::Member(node.id, node.member.clone()))?;
            }
            Ok(())
        })
    }

    /// All nodes by key.
    pub fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        let sql = "SELECT key, id, name, first_seen, last_seen, state, since, epoch, version, boot_id, interval_ms,
                 skew_ms, goodbye_epoch, goodbye_next, facts_epoch, facts_seq, facts, is_retired, newest_epoch,
                 newest_seq FROM node ORDER BY key";
        let mut query = self.connection.prepare_cached(sql).at(&self.path)?;
        let rows = query.query_map([], node_row).at(&self.path)?;
        rows.collect::<rusqlite::Result<_>>().at(&self.path)
    }
}

pub(super) fn update_node(transaction: &Transaction<'_>, update: &NodeUpdate) -> rusqlite::Result<()> {
    let sql = "UPDATE node SET name = coalesce(?2, name), last_seen = coalesce(?3, last_seen),
        state = coalesce(?4, state), since = coalesce(?5, since), epoch = coalesce(?6, epoch),
        version = coalesce(?7, version), boot_id = coalesce(?8, boot_id),
        interval_ms = coalesce(?9, interval_ms), skew_ms = coalesce(?10, skew_ms),
        goodbye_epoch = coalesce(?11, goodbye_epoch), goodbye_next = coalesce(?12, goodbye_next),
        facts_epoch = coalesce(?13, facts_epoch), facts_seq = coalesce(?14, facts_seq),
        facts = coalesce(?15, facts), is_retired = coalesce(?16, is_retired),
        newest_epoch = coalesce(?17, newest_epoch), newest_seq = coalesce(?18, newest_seq) WHERE key = ?1";
    let mut statement = transaction.prepare_cached(sql)?;
    statement.execute(params![
        update.key.0,
        update.name,
        update.last_seen.map(|at| at.0),
        update.state.as_ref().map(|(state, _)| state),
        update.state.as_ref().map(|(_, since)| since.0),
        update.epoch.map(|epoch| epoch.0),
        update.version,
        update.boot_id,
        update.interval_ms,
        update.skew_ms,
        update.goodbye.map(|(epoch, _)| epoch.0),
        update.goodbye.map(|(_, next)| number(next.0)),
        update.facts.as_ref().map(|(id, _)| id.epoch.0),
        update.facts.as_ref().map(|(id, _)| number(id.seq.0)),
        update.facts.as_ref().map(|(_, bytes)| bytes),
        update.is_retired,
        update.newest.map(|id| id.epoch.0),
        update.newest.map(|id| number(id.seq.0)),
    ])?;
    Ok(())
}

fn add_node(transaction: &Transaction<'_>, id: NodeId, name: &str, now: WallMs) -> rusqlite::Result<u32> {
    let mut next = transaction.prepare_cached("UPDATE meta SET next_key = next_key + 1 RETURNING next_key - 1")?;
    let key: u32 = next.query_row([], |row| row.get(0))?;
    if key > NODE_KEY_MAX {
        return Err(rusqlite::Error::ToSqlConversionFailure("all node keys are used up".into()));
    }
    let sql =
        "INSERT INTO node (key, id, name, first_seen, last_seen, state, since) VALUES (?1, ?2, ?3, ?4, ?4, ?5, ?4)";
    transaction.prepare_cached(sql)?.execute(params![key, id.bytes(), name, now.0, STATE_AT_FIRST])?;
    Ok(key)
}

fn node_row(row: &Row<'_>) -> rusqlite::Result<NodeRow> {
    let id_at = |epoch: usize| -> rusqlite::Result<Option<FrameId>> {
        let (epoch, seq) = (row.get::<_, Option<u32>>(epoch)?, row.get::<_, Option<i64>>(epoch + 1)?);
        Ok(epoch.zip(seq).map(|(epoch, seq)| FrameId { epoch: Epoch(epoch), seq: Seq(unsigned(seq)) }))
    };
    Ok(NodeRow {
        key: NodeKey(row.get(0)?),
        id: NodeId::from_bytes(row.get(1)?),
        name: row.get(2)?,
        first_seen: WallMs(row.get(3)?),
        last_seen: WallMs(row.get(4)?),
        state: row.get(5)?,
        since: WallMs(row.get(6)?),
        epoch: row.get::<_, Option<u32>>(7)?.map(Epoch),
        version: row.get(8)?,
        boot_id: row.get(9)?,
        interval_ms: row.get(10)?,
        skew_ms: row.get(11)?,
        goodbye: id_at(12)?.map(|id| (id.epoch, id.seq)),
        facts: id_at(14)?.zip(row.get(16)?),
        is_retired: row.get(17)?,
        newest: id_at(18)?,
    })
}
