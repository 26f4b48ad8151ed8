//! `control.db`: the nodes and what is decided about them, together with the position in the log up to
//! which that is so.
//!
//! A batch and its position are one transaction, and a batch that is not beyond the stored position
//! changes nothing: replaying the log applies everything exactly once.

use std::path::{Path, PathBuf};

use dunlin_shared::id::{Epoch, FrameId, NodeId, Seq};
use dunlin_shared::time::WallMs;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

mod feed;
mod registry;

pub use self::feed::{ControlReader, EventRow, LogRow, NewEvent, NewLogEntry};
use super::connect;
use super::error::{At, StoreError};
use super::journal::NODE_KEY_MAX;
use super::migrate::migrate;
use super::quarantine;
use super::row::{number, unsigned};
use super::verify::read_head;
use super::wal::{self, Wal};
use crate::engine::MassUnderWay;
use crate::record::{NodeKey, Pos};
use crate::registry::Change;

/// "DLNC".
const APPLICATION_ID: i64 = 0x444c_4e43;

/// Each entry once and for all; a change is a new one at the end.
const STEPS: [&str; 4] = [
    "
    CREATE TABLE meta (one INTEGER PRIMARY KEY CHECK (one = 1), applied_pos INTEGER NOT NULL,
        incarnation INTEGER NOT NULL, created INTEGER NOT NULL, next_key INTEGER NOT NULL) STRICT;
    CREATE TABLE node (key INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
        name TEXT NOT NULL, first_seen INTEGER NOT NULL, last_seen INTEGER NOT NULL,
        state TEXT NOT NULL, since INTEGER NOT NULL, epoch INTEGER, version TEXT, boot_id BLOB,
        interval_ms INTEGER, skew_ms INTEGER, goodbye_epoch INTEGER, goodbye_next INTEGER,
        facts_epoch INTEGER, facts_seq INTEGER, facts BLOB) STRICT;
    CREATE TABLE gap (id INTEGER PRIMARY KEY, node INTEGER NOT NULL, epoch INTEGER NOT NULL,
        first INTEGER NOT NULL, last INTEGER, count INTEGER, taken_from INTEGER NOT NULL,
        taken_to INTEGER NOT NULL, reason TEXT NOT NULL, at INTEGER NOT NULL) STRICT;
    CREATE INDEX gap_by_node ON gap (node, id);
",
    registry::TABLES,
    feed::TABLES,
    "
    ALTER TABLE meta ADD COLUMN mass_since INTEGER;
    ALTER TABLE meta ADD COLUMN mass_left_ms INTEGER;
    ALTER TABLE node ADD COLUMN is_retired INTEGER NOT NULL DEFAULT 0;
",
];

/// The state of a node that nothing was heard of since it was added.
const STATE_AT_FIRST: &str = "unknown";

#[derive(Debug)]
pub struct Control {
    connection: Connection,
    path: PathBuf,
    /// A sync failed: nothing here may be trusted again.
    failed: bool,
}

/// What was found when the database was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlOpened {
    /// It was made now: node keys are to be restored from the log before any node is added.
    pub created: bool,
    /// Drawn once for each database; cursors carry it.
    pub incarnation: u64,
    pub applied_pos: Pos,
    /// The damaged files, under their new names, and why.
    pub set_aside: Vec<PathBuf>,
    pub reasons: Vec<String>,
}

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
}

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

/// What orders came to, apart from the log: never replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ordered {
    pub changes: Vec<Change>,
    pub events: Vec<NewEvent>,
    pub log: Vec<NewLogEntry>,
}

/// What follows from the log up to a position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlBatch {
    pub applied_pos: Pos,
    pub nodes: Vec<NodeUpdate>,
    pub gaps: Vec<GapRow>,
    pub events: Vec<NewEvent>,
    /// The mass loss that is under way.
    pub mass: Option<MassUnderWay>,
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
        }
    }
}

impl Control {
    /// `incarnation` is random and used only when the database is made.
    pub fn open(path: &Path, now: WallMs, incarnation: u64) -> Result<(Self, ControlOpened), StoreError> {
        let mut set_aside = Vec::new();
        let mut reasons = Vec::new();
        if path.exists() || connect::has_wal(path) {
            match verify(path) {
                Ok(Wal::Sound) => {}
                Ok(Wal::Lossy) => {
                    set_aside.push(quarantine::copy_wal_aside(path, now)?);
                    reasons.push("its WAL has lost transactions that were synced".to_owned());
                    // What is left of it is used; folded, it is not reported again.
                    connect::fold(path)?;
                }
                Err(StoreError::Damaged { what, .. }) => {
                    set_aside.push(quarantine::set_aside(path, now)?);
                    reasons.push(what);
                }
                Err(error) => return Err(error),
            }
        }
        let created = !path.exists();
        if created {
            create(path, now, incarnation)?;
        }
        let mut connection = connect::writer(path)?;
        migrate(&mut connection, path, &STEPS)?;
        let sql = "SELECT incarnation, applied_pos FROM meta";
        let (incarnation, applied) =
            connection.query_row(sql, [], |row| Ok((unsigned(row.get(0)?), Pos(unsigned(row.get(1)?))))).at(path)?;
        // SQLite syncs the name of the new WAL too, but ignores when that fails.
        quarantine::sync_dir_of(path)?;
        let control = Self { connection, path: path.to_path_buf(), failed: false };
        Ok((control, ControlOpened { created, incarnation, applied_pos: applied, set_aside, reasons }))
    }

    pub fn applied_pos(&self) -> Result<Pos, StoreError> {
        applied(&self.connection).at(&self.path)
    }

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

    /// All nodes by key.
    pub fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        let sql = "SELECT key, id, name, first_seen, last_seen, state, since, epoch, version, boot_id, interval_ms,
                 skew_ms, goodbye_epoch, goodbye_next, facts_epoch, facts_seq, facts, is_retired FROM node ORDER BY key";
        let mut query = self.connection.prepare_cached(sql).at(&self.path)?;
        let rows = query.query_map([], node_row).at(&self.path)?;
        rows.collect::<rusqlite::Result<_>>().at(&self.path)
    }

    /// The mass loss that was under way.
    pub fn mass(&self) -> Result<Option<MassUnderWay>, StoreError> {
        let sql = "SELECT mass_since, mass_left_ms FROM meta";
        let row = |row: &Row<'_>| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?));
        let (since, left) = self.connection.query_row(sql, [], row).at(&self.path)?;
        Ok(since.zip(left).map(|(since, left)| MassUnderWay { since: WallMs(since), left_ms: unsigned(left) }))
    }

    /// A node's gaps in the order in which they were applied.
    pub fn gaps(&self, node: NodeKey) -> Result<Vec<GapRow>, StoreError> {
        let sql = "SELECT node, epoch, first, last, count, taken_from, taken_to, reason, at
                 FROM gap WHERE node = ?1 ORDER BY id";
        let mut query = self.connection.prepare_cached(sql).at(&self.path)?;
        let rows = query.query_map([node.0], gap_row).at(&self.path)?;
        rows.collect::<rusqlite::Result<_>>().at(&self.path)
    }

    /// Whether the batch was beyond what had been applied; if not, nothing changed.
    pub fn apply(&mut self, batch: &ControlBatch) -> Result<bool, StoreError> {
        self.apply_with(batch, &Ordered::default())
    }

    /// The same, and with it what was ordered meanwhile, which is stored in any case.
    pub fn apply_with(&mut self, batch: &ControlBatch, ordered: &Ordered) -> Result<bool, StoreError> {
        self.write(|transaction| {
            ordered.changes.iter().try_for_each(|change| registry::put(transaction, change))?;
            ordered.events.iter().try_for_each(|event| feed::add_event(transaction, event))?;
            ordered.log.iter().try_for_each(|entry| feed::add_log(transaction, entry))?;
            if batch.applied_pos <= applied(transaction)? {
                return Ok(false);
            }
            batch.events.iter().try_for_each(|event| feed::add_event(transaction, event))?;
            for update in &batch.nodes {
                update_node(transaction, update)?;
            }
            for gap in &batch.gaps {
                add_gap(transaction, gap)?;
            }
            let sql = "UPDATE meta SET applied_pos = ?1, mass_since = ?2, mass_left_ms = ?3";
            let mass = (batch.mass.map(|mass| mass.since.0), batch.mass.map(|mass| number(mass.left_ms)));
            transaction.prepare_cached(sql)?.execute(params![number(batch.applied_pos.0), mass.0, mass.1])?;
            Ok(true)
        })
    }

    /// The number of the newest event; 0 before the first.
    pub fn newest_event(&self) -> Result<u64, StoreError> {
        feed::newest_event(&self.connection).at(&self.path)
    }

    /// Drops the oldest events and log entries beyond what is kept.
    pub fn drop_oldest(&mut self) -> Result<(), StoreError> {
        self.write(feed::drop_oldest)
    }

    pub fn checkpoint_if_due(&mut self) -> Result<(), StoreError> {
        let done = connect::checkpoint_if_grown(&self.connection, &self.path);
        self.failed |= matches!(done, Err(StoreError::SyncFailed { .. }));
        done
    }

    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        connect::bytes_with_wal(&self.path)
    }

    /// Folds the WAL and lets go. An error loses nothing.
    pub fn close(self) -> Result<(), StoreError> {
        if connect::checkpoint(&self.connection, &self.path, "TRUNCATE")? {
            connect::close(self.connection, &self.path)
        } else {
            Err(StoreError::Locked { path: self.path, process: None })
        }
    }

    /// All of it or nothing: a transaction that is dropped rolls back.
    fn write<T>(&mut self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        if self.failed {
            return Err(StoreError::sync(&self.path, std::io::Error::other("a sync failed before")));
        }
        let done = (|| {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })();
        let done = done.at(&self.path);
        self.failed |= matches!(done, Err(StoreError::SyncFailed { .. }));
        done
    }
}

/// Builds the database under another name, so that one with the right name was whole once.
fn create(path: &Path, now: WallMs, incarnation: u64) -> Result<(), StoreError> {
    let fresh = connect::beside(path, ".new");
    super::journal::remove_all(&fresh)?;
    let mut connection = connect::creator(&fresh)?;
    connection.pragma_update(None, "application_id", APPLICATION_ID).at(&fresh)?;
    migrate(&mut connection, &fresh, &STEPS)?;
    connection
        .execute(
            "INSERT INTO meta (one, applied_pos, incarnation, created, next_key) VALUES (1, 0, ?1, ?2, 1)",
            params![number(incarnation), now.0],
        )
        .at(&fresh)?;
    connect::use_wal(&connection, &fresh)?;
    connect::close(connection, &fresh)?;
    let file = std::fs::File::open(&fresh).map_err(|error| StoreError::io(&fresh, error))?;
    file.sync_all().map_err(|error| StoreError::sync(&fresh, error))?;
    drop(file);
    std::fs::rename(&fresh, path).map_err(|error| StoreError::io(path, error))?;
    quarantine::sync_dir_of(path)
}

/// The state of its WAL when the database itself is sound.
fn verify(path: &Path) -> Result<Wal, StoreError> {
    let wal_path = connect::beside(path, "-wal");
    let walked = wal::walk(&wal_path).map_err(|error| StoreError::io(&wal_path, error))?;
    if !path.exists() {
        return Err(StoreError::damaged(path, "its WAL is there without it"));
    }
    read_head(path, APPLICATION_ID)?;
    let connection = if connect::has_wal(path) { connect::reader(path)? } else { connect::closed_reader(path)? };
    let said: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).at(path)?;
    if said != "ok" {
        return Err(StoreError::damaged(path, said));
    }
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).at(path)?;
    if found > known {
        return Err(StoreError::Newer { path: path.to_path_buf(), found, known });
    }
    let rows: rusqlite::Result<i64> = connection.query_row("SELECT count(*) FROM meta", [], |row| row.get(0));
    match rows {
        Ok(1) => Ok(walked),
        _ => Err(StoreError::damaged(path, "its meta row is missing")),
    }
}

fn applied(connection: &Connection) -> rusqlite::Result<Pos> {
    let mut query = connection.prepare_cached("SELECT applied_pos FROM meta")?;
    query.query_row([], |row| Ok(Pos(unsigned(row.get(0)?))))
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

fn update_node(transaction: &Transaction<'_>, update: &NodeUpdate) -> rusqlite::Result<()> {
    let sql = "UPDATE node SET name = coalesce(?2, name), last_seen = coalesce(?3, last_seen),
        state = coalesce(?4, state), since = coalesce(?5, since), epoch = coalesce(?6, epoch),
        version = coalesce(?7, version), boot_id = coalesce(?8, boot_id),
        interval_ms = coalesce(?9, interval_ms), skew_ms = coalesce(?10, skew_ms),
        goodbye_epoch = coalesce(?11, goodbye_epoch), goodbye_next = coalesce(?12, goodbye_next),
        facts_epoch = coalesce(?13, facts_epoch), facts_seq = coalesce(?14, facts_seq),
        facts = coalesce(?15, facts), is_retired = coalesce(?16, is_retired) WHERE key = ?1";
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
    ])?;
    Ok(())
}

fn add_gap(transaction: &Transaction<'_>, gap: &GapRow) -> rusqlite::Result<()> {
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
    })
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
