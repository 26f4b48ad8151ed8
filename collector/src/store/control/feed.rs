//! The feed of events and the log of who did what: rows that are only ever added at one end and
//! dropped at the other.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use dunlin_shared::id::NodeId;
use dunlin_shared::time::WallMs;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use serde_json::{Map, Value};

use super::super::connect;
use super::super::error::{At, StoreError};
use super::super::row::{number, unsigned};
use super::registry::tokens;
use crate::registry::{Token, TokenId};

/// Events that are kept, however young they are: a week of a fleet of 10,000 that is as restless as 50 events a minute.
const EVENTS_KEPT: i64 = 500_000;
/// Entries of the log of who did what that are kept.
const LOG_KEPT: i64 = 200_000;
/// Rows that one question may get.
const ROWS_MAX: usize = 1_000;

pub(super) const TABLES: &str = "
    CREATE TABLE event (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL,
        node BLOB CHECK (length(node) = 16), body TEXT NOT NULL) STRICT;
    CREATE TABLE log (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, actor TEXT NOT NULL, token INTEGER,
        came_from TEXT NOT NULL, action TEXT NOT NULL, target TEXT NOT NULL, detail TEXT NOT NULL) STRICT;
";

/// Something happened, and is not numbered yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    pub at: WallMs,
    pub kind: &'static str,
    pub node: Option<NodeId>,
    /// A JSON object.
    pub body: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Rises by one from event to event.
    pub id: u64,
    pub at: WallMs,
    pub kind: String,
    pub node: Option<NodeId>,
    pub body: String,
}

/// Who did what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLogEntry {
    pub at: WallMs,
    pub actor: String,
    pub token: Option<TokenId>,
    /// The address it came from; empty on this host.
    pub from: String,
    pub action: String,
    pub target: String,
    pub detail: String,
    /// Why it was not done.
    pub refused: Option<String>,
    /// How often, with this line.
    pub times: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRow {
    pub id: u64,
    pub entry: NewLogEntry,
}

/// Reads `control.db` beside its owner.
#[derive(Debug)]
pub struct ControlReader {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
}

impl ControlReader {
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { connection: connect::reader(path)?, path: path.to_path_buf() })
    }

    /// Events after that one, oldest first.
    pub fn events(&self, after: u64, limit: usize) -> Result<Vec<EventRow>, StoreError> {
        let sql = "SELECT id, at, kind, node, body FROM event WHERE id > ?1 ORDER BY id LIMIT ?2";
        self.rows(sql, after, limit, event_row)
    }

    /// The newest events about a node, newest first.
    pub fn events_about(&self, node: NodeId, limit: usize) -> Result<Vec<EventRow>, StoreError> {
        let limit = i64::try_from(limit.min(ROWS_MAX)).unwrap_or(0);
        let sql = "SELECT id, at, kind, node, body FROM event WHERE node = ?1 ORDER BY id DESC LIMIT ?2";
        let mut query = self.connection.prepare_cached(sql).at(&self.path)?;
        let rows = query.query_map(params![node.bytes(), limit], event_row).at(&self.path)?;
        rows.collect::<rusqlite::Result<_>>().at(&self.path)
    }

    /// What happened to a node within some time, newest first, and not what its alerts did.
    pub fn changes_within(
        &self,
        node: NodeId,
        (from, to): (WallMs, WallMs),
        limit: usize,
    ) -> Result<Vec<EventRow>, StoreError> {
        let (first, limit) = (self.first_event_at(from)?, i64::try_from(limit.min(ROWS_MAX)).unwrap_or(0));
        let sql = "SELECT id, at, kind, node, body FROM event WHERE node = ?1 AND id >= ?2 AND at BETWEEN ?3 AND ?4
            AND kind NOT LIKE 'alert.%' ORDER BY id DESC LIMIT ?5";
        let mut query = self.connection.prepare_cached(sql).at(&self.path)?;
        let bound = params![node.bytes(), number(first), from.0, to.0, limit];
        let rows = query.query_map(bound, event_row).at(&self.path)?;
        rows.collect::<rusqlite::Result<_>>().at(&self.path)
    }

    /// Where in the feed a moment is: ids rise with the time, so it is found in twenty looks. After a clock that was set
    /// back it may be a later one.
    fn first_event_at(&self, at: WallMs) -> Result<u64, StoreError> {
        let mut query = self.connection.prepare_cached("SELECT at FROM event WHERE id = ?1").at(&self.path)?;
        let mut first = self.earliest_event()?.unwrap_or(0);
        let mut beyond = newest_event(&self.connection).at(&self.path)? + 1;
        while first < beyond {
            let middle = first + (beyond - first) / 2;
            let found: Option<i64> = query.query_row([number(middle)], |row| row.get(0)).optional().at(&self.path)?;
            if found.is_none_or(|found| found < at.0) {
                first = middle + 1;
            } else {
                beyond = middle;
            }
        }
        Ok(first)
    }

    /// The oldest that is kept.
    pub fn earliest_event(&self) -> Result<Option<u64>, StoreError> {
        let found: Option<i64> =
            self.connection.query_row("SELECT min(id) FROM event", [], |row| row.get(0)).at(&self.path)?;
        Ok(found.map(unsigned))
    }

    /// Entries before that one, newest first; from the newest on without one.
    pub fn log(&self, before: Option<u64>, limit: usize) -> Result<Vec<LogRow>, StoreError> {
        let sql = "SELECT id, at, actor, token, came_from, action, target, detail, refused, times FROM log
            WHERE id < ?1 ORDER BY id DESC LIMIT ?2";
        self.rows(sql, before.unwrap_or(i64::MAX.unsigned_abs()), limit, log_row)
    }

    /// All of them, also those that were taken back.
    pub fn tokens(&self) -> Result<Vec<(TokenId, Token)>, StoreError> {
        tokens(&self.connection).at(&self.path)
    }

    fn rows<T>(
        &self,
        sql: &str,
        bound: u64,
        limit: usize,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let limit = i64::try_from(limit.min(ROWS_MAX)).unwrap_or(0);
        let mut query = self.connection.prepare_cached(sql).at(&self.path)?;
        let rows = query.query_map(params![number(bound), limit], read).at(&self.path)?;
        rows.collect::<rusqlite::Result<_>>().at(&self.path)
    }
}

pub(super) fn add_event(transaction: &Transaction<'_>, event: &NewEvent) -> rusqlite::Result<()> {
    let sql = "INSERT INTO event (at, kind, node, body) VALUES (?1, ?2, ?3, ?4)";
    let node = event.node.as_ref().map(NodeId::bytes);
    transaction.prepare_cached(sql)?.execute(params![event.at.0, event.kind, node, body(&event.body)])?;
    Ok(())
}

/// What the API writes in front of a body, which it passes on as it is.
const HEAD: [&str; 4] = ["cursor", "at", "kind", "node"];

/// An object, and nothing of the head in it.
fn body(text: &str) -> Cow<'_, str> {
    let Ok(mut body) = serde_json::from_str::<Map<String, Value>>(text) else { return Cow::Borrowed("{}") };
    let len = body.len();
    body.retain(|key, _| !HEAD.contains(&key.as_str()));
    if body.len() == len { Cow::Borrowed(text) } else { Cow::Owned(Value::Object(body).to_string()) }
}

pub(super) fn add_log(transaction: &Transaction<'_>, entry: &NewLogEntry) -> rusqlite::Result<()> {
    let sql = "INSERT INTO log (at, actor, token, came_from, action, target, detail, refused, times)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    transaction.prepare_cached(sql)?.execute(params![
        entry.at.0,
        entry.actor,
        entry.token.map(|token| number(token.0)),
        entry.from,
        entry.action,
        entry.target,
        entry.detail,
        entry.refused,
        number(entry.times),
    ])?;
    Ok(())
}

/// Drops what is beyond what is kept, by count and by age. The newest is never dropped, so no number is given twice; and
/// nothing behind one that stays, so that a hole is always in front of all that is there. What says that it is of a day
/// far ahead is of a clock that was wrong, and no younger than others.
pub(super) fn drop_oldest(transaction: &Transaction<'_>, (now, events_keep_ms): (WallMs, u64)) -> rusqlite::Result<()> {
    let keep_ms = i64::try_from(events_keep_ms).unwrap_or(i64::MAX);
    let young = (now.0.saturating_sub(keep_ms), now.0.saturating_add(keep_ms));
    let old = "DELETE FROM event WHERE id < coalesce(
        (SELECT id FROM event WHERE at BETWEEN ?1 AND ?2 ORDER BY id LIMIT 1), (SELECT max(id) FROM event))";
    transaction.prepare_cached(old)?.execute([young.0, young.1])?;
    let events = "DELETE FROM event WHERE id <= (SELECT max(id) FROM event) - ?1";
    transaction.prepare_cached(events)?.execute([EVENTS_KEPT])?;
    let log = "DELETE FROM log WHERE id <= (SELECT max(id) FROM log) - ?1";
    transaction.prepare_cached(log)?.execute([LOG_KEPT])?;
    Ok(())
}

pub(super) fn newest_event(connection: &Connection) -> rusqlite::Result<u64> {
    let newest: Option<i64> = connection.query_row("SELECT max(id) FROM event", [], |row| row.get(0))?;
    Ok(newest.map_or(0, unsigned))
}

fn event_row(row: &Row<'_>) -> rusqlite::Result<EventRow> {
    Ok(EventRow {
        id: unsigned(row.get(0)?),
        at: WallMs(row.get(1)?),
        kind: row.get(2)?,
        node: row.get::<_, Option<[u8; 16]>>(3)?.map(NodeId::from_bytes),
        body: row.get(4)?,
    })
}

fn log_row(row: &Row<'_>) -> rusqlite::Result<LogRow> {
    let entry = NewLogEntry {
        at: WallMs(row.get(1)?),
        actor: row.get(2)?,
        token: row.get::<_, Option<i64>>(3)?.map(|id| TokenId(unsigned(id))),
        from: row.get(4)?,
        action: row.get(5)?,
        target: row.get(6)?,
        detail: row.get(7)?,
        refused: row.get(8)?,
        times: unsigned(row.get(9)?),
    };
    Ok(LogRow { id: unsigned(row.get(0)?), entry })
}
