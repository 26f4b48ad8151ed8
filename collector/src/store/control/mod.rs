//! `control.db`: the nodes and what is decided about them, together with the position in the log up to
//! which that is so.
//!
//! A batch and its position are one transaction, and a batch that is not beyond the stored position
//! changes nothing: replaying the log applies everything exactly once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dunlin_shared::time::{MonoMs, WallMs};
use rusqlite::{Connection, Row, Transaction, TransactionBehavior, params};

mod alert;
mod feed;
mod gap;
mod node;
mod policy;
mod registry;
mod rule_set;
mod stock;

pub use self::alert::{AlertRow, AlertUpdate, KeptAlert};
pub use self::feed::{ControlReader, EventRow, LogRow, NewEvent, NewLogEntry};
pub use self::gap::GapRow;
pub use self::node::{NewNode, NodeRow, NodeUpdate};
pub use self::policy::Said;
pub use self::stock::{StockRow, StockUpdate};
use super::connect;
use super::error::{At, StoreError};
use super::migrate::migrate;
use super::quarantine;
use super::row::{number, unsigned};
use super::verify::read_head;
use super::wal::{self, Wal};
use crate::engine::MassUnderWay;
use crate::engine::alert::AlertId;
use crate::policy::{self as said, SilenceId};
use crate::record::Pos;
use crate::registry::{Change, TokenId};
use crate::rules::NamedSet;

/// "DLNC".
const APPLICATION_ID: i64 = 0x444c_4e43;

/// Each entry once and for all; a change is a new one at the end.
const STEPS: [&str; 11] = [
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
    "
    ALTER TABLE log ADD COLUMN refused TEXT;
    ALTER TABLE log ADD COLUMN times INTEGER NOT NULL DEFAULT 1;
    UPDATE log SET refused = detail, detail = '' WHERE action IN ('join.refused', 'token.refused');
    ALTER TABLE token ADD COLUMN last_used INTEGER;
",
    stock::TABLES,
    alert::TABLES,
    policy::TABLES,
    rule_set::TABLES,
    alert::OVER,
    node::NEWEST,
];

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

/// What orders came to, apart from the log: never replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ordered {
    pub changes: Vec<Change>,
    /// Of silences and acknowledgements.
    pub said: Vec<said::Change>,
    /// Sets of rules; without a text one goes.
    pub rule_sets: Vec<(String, Option<Arc<NamedSet>>)>,
    pub events: Vec<NewEvent>,
    pub log: Vec<NewLogEntry>,
    /// When these tokens were shown last.
    pub used: Vec<(TokenId, WallMs)>,
}

/// What follows from the log up to a position.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ControlBatch {
    pub applied_pos: Pos,
    pub nodes: Vec<NodeUpdate>,
    pub stocks: Vec<StockUpdate>,
    pub gaps: Vec<GapRow>,
    pub events: Vec<NewEvent>,
    /// The mass loss that is under way.
    pub mass: Option<MassUnderWay>,
    pub alerts: Vec<AlertUpdate>,
    /// Which silence alerts are told to be under from now on.
    pub silenced: Vec<(AlertId, Option<SilenceId>)>,
    /// For how long the collector had listened, and when that was.
    pub ran: (MonoMs, WallMs),
    /// Some of it follows from what was said beside the log since the position was written: no replay brings it again.
    pub is_beside: bool,
}

impl ControlReader {
    /// Up to where what follows from the log is here.
    pub fn applied_pos(&self) -> Result<Pos, StoreError> {
        let row = |row: &Row<'_>| Ok(Pos(unsigned(row.get(0)?)));
        self.connection.query_row("SELECT applied_pos FROM meta", [], row).at(&self.path)
    }

    /// What is open, by id.
    pub fn open_alerts(&self) -> Result<Vec<AlertRow>, StoreError> {
        alert::open(&self.connection).at(&self.path)
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

    /// The mass loss that was under way.
    pub fn mass(&self) -> Result<Option<MassUnderWay>, StoreError> {
        let sql = "SELECT mass_since, mass_left_ms FROM meta";
        let row = |row: &Row<'_>| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?));
        let (since, left) = self.connection.query_row(sql, [], row).at(&self.path)?;
        Ok(since.zip(left).map(|(since, left)| MassUnderWay { since: WallMs(since), left_ms: unsigned(left) }))
    }

    /// Whether the batch was beyond what had been applied; if not, nothing changed.
    pub fn apply(&mut self, batch: &ControlBatch) -> Result<bool, StoreError> {
        self.apply_with(batch, &Ordered::default())
    }

    /// The same, and with it what was ordered meanwhile, which is stored in any case.
    pub fn apply_with(&mut self, batch: &ControlBatch, ordered: &Ordered) -> Result<bool, StoreError> {
        self.write(|transaction| {
            ordered.changes.iter().try_for_each(|change| registry::put(transaction, change))?;
            ordered.said.iter().try_for_each(|change| policy::put(transaction, change))?;
            ordered.rule_sets.iter().try_for_each(|set| rule_set::put(transaction, set))?;
            ordered.log.iter().try_for_each(|entry| feed::add_log(transaction, entry))?;
            ordered.used.iter().try_for_each(|(token, at)| registry::put_used(transaction, *token, *at))?;
            let stored = applied(transaction)?;
            let is_beyond = batch.applied_pos > stored || batch.is_beside && batch.applied_pos == stored;
            if is_beyond {
                put_batch(transaction, batch)?;
            }
            // What waited happened before these were decided.
            ordered.events.iter().try_for_each(|event| feed::add_event(transaction, event))?;
            // At last: what was still to be said of a node goes with it.
            ordered.changes.iter().try_for_each(|change| stock::forget_with(transaction, change))?;
            Ok(is_beyond)
        })
    }

    /// The number of the newest event; 0 before the first.
    pub fn newest_event(&self) -> Result<u64, StoreError> {
        feed::newest_event(&self.connection).at(&self.path)
    }

    /// Drops the oldest events and log entries beyond what is kept.
    pub fn drop_oldest(&mut self, now: WallMs, events_keep_ms: u64) -> Result<(), StoreError> {
        self.write(|transaction| {
            feed::drop_oldest(transaction, (now, events_keep_ms))?;
            alert::drop_oldest(transaction)?;
            policy::drop_oldest(transaction)
        })
    }

    /// It was put back from a copy: another life begins, in which a node that it does not know is held for approval.
    pub fn begin_anew(&mut self, incarnation: u64, event: &NewEvent) -> Result<(), StoreError> {
        self.write(|transaction| {
            let sql = "UPDATE meta SET incarnation = ?1, holds_strangers = 1";
            transaction.execute(sql, [number(incarnation)])?;
            feed::add_event(transaction, event)
        })
    }

    /// When the newest event of a kind was, of those that are kept.
    pub fn newest_of(&self, kind: &str) -> Result<Option<WallMs>, StoreError> {
        let sql = "SELECT max(at) FROM event WHERE kind = ?1";
        let at: Option<i64> = self.connection.query_row(sql, [kind], |row| row.get(0)).at(&self.path)?;
        Ok(at.map(WallMs))
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

fn put_batch(transaction: &Transaction<'_>, batch: &ControlBatch) -> rusqlite::Result<()> {
    batch.events.iter().try_for_each(|event| feed::add_event(transaction, event))?;
    batch.nodes.iter().try_for_each(|update| node::update_node(transaction, update))?;
    batch.stocks.iter().try_for_each(|update| stock::put(transaction, update))?;
    batch.gaps.iter().try_for_each(|gap| gap::add_gap(transaction, gap))?;
    batch.alerts.iter().try_for_each(|update| alert::put(transaction, update))?;
    batch.silenced.iter().try_for_each(|silenced| policy::put_silenced(transaction, silenced))?;
    alert::put_ran(transaction, batch.ran)?;
    let sql = "UPDATE meta SET applied_pos = ?1, mass_since = ?2, mass_left_ms = ?3";
    let mass = (batch.mass.map(|mass| mass.since.0), batch.mass.map(|mass| number(mass.left_ms)));
    transaction.prepare_cached(sql)?.execute(params![number(batch.applied_pos.0), mass.0, mass.1])?;
    Ok(())
}

fn applied(connection: &Connection) -> rusqlite::Result<Pos> {
    let mut query = connection.prepare_cached("SELECT applied_pos FROM meta")?;
    query.query_row([], |row| Ok(Pos(unsigned(row.get(0)?))))
}
