//! The rows of alerts: what is open, so that a restart goes on with it, and what was, for whoever asks later.
//!
//! A row is written when an alert begins, fires, holds no more or again, is resolved or gets other words, in the
//! transaction of the position that this follows from. Its values in between are in memory alone.

use std::ops::RangeInclusive;

use dunlin_shared::id::NodeId;
use dunlin_shared::time::{MonoMs, WallMs};
use rusqlite::{Connection, Row, ToSql, Transaction, params};

use super::super::error::{At, StoreError};
use super::super::row::{number, unsigned};
use super::Control;
use super::feed::ControlReader;
use super::policy::Said;
use crate::engine::alert::{AlertId, AlertState, Now, Resolution};
use crate::record::NodeKey;

pub(super) const TABLES: &str = "
    ALTER TABLE meta ADD COLUMN ran_ms INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE meta ADD COLUMN ran_at INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE alert (id BLOB PRIMARY KEY CHECK (length(id) = 10), rule TEXT NOT NULL, node INTEGER,
        subject TEXT NOT NULL, severity TEXT NOT NULL, state TEXT NOT NULL, began INTEGER NOT NULL,
        began_ran INTEGER NOT NULL, fired INTEGER, fired_ran INTEGER, resolved INTEGER, why TEXT, value REAL,
        threshold REAL, is_flapping INTEGER NOT NULL, fires TEXT NOT NULL,
        words TEXT NOT NULL, top TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE INDEX alert_resolved ON alert (resolved) WHERE resolved IS NOT NULL;
    CREATE INDEX alert_open ON alert (id) WHERE resolved IS NULL;
    CREATE INDEX alert_by_node ON alert (node, resolved) WHERE node IS NOT NULL;
";

pub(super) const OVER: &str = "
    ALTER TABLE alert ADD COLUMN over_ran INTEGER;
";

/// Alerts that are over are kept for as long, and so many of them.
const KEPT_MS: i64 = 30 * 24 * 3_600_000;
const KEPT: i64 = 100_000;

const COLUMNS: &str =
    "id, rule, node, subject, severity, state, began, began_ran, fired, fired_ran, resolved, why, value,
    threshold, is_flapping, fires, words, top, over_ran";

/// An alert as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertRow {
    pub id: AlertId,
    pub rule: String,
    pub node: Option<NodeKey>,
    pub subject: String,
    pub severity: String,
    pub state: AlertState,
    pub began: Now,
    pub fired: Option<Now>,
    pub resolved: Option<(WallMs, Resolution)>,
    pub value: Option<f64>,
    pub threshold: Option<f64>,
    pub is_flapping: bool,
    pub fires: Vec<MonoMs>,
    /// Since when it would be over, were it not to go on for a while.
    pub over: Option<MonoMs>,
    /// What is said of it, as a JSON object: summaries and runbook.
    pub words: String,
    /// What was so when it fired, and what took most of the node, as a JSON object; empty before.
    pub top: String,
}

/// An alert as it is stored, whom it is about, which of a node that is gone nobody else knows, and what was said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptAlert {
    pub row: AlertRow,
    pub node: Option<(NodeId, String)>,
    pub said: Said,
}

/// What changes of an alert's row.
#[derive(Clone, Debug, PartialEq)]
pub enum AlertUpdate {
    /// As it is from now on; an empty `top` leaves what is there.
    Put(Box<AlertRow>),
    Delete(AlertId),
}

impl Control {
    /// For how long the collector had listened, and when that was.
    pub fn ran(&self) -> Result<(MonoMs, WallMs), StoreError> {
        let row = |row: &Row<'_>| Ok((MonoMs(unsigned(row.get(0)?)), WallMs(row.get(1)?)));
        self.connection.query_row("SELECT ran_ms, ran_at FROM meta", [], row).at(&self.path)
    }

    /// What is open, by id.
    pub fn open_alerts(&self) -> Result<Vec<AlertRow>, StoreError> {
        open(&self.connection).at(&self.path)
    }

    /// What was resolved since then.
    pub fn alerts_resolved_since(&self, since: WallMs) -> Result<Vec<AlertRow>, StoreError> {
        rows(&self.connection, "WHERE resolved >= ?1 ORDER BY resolved, id", [since.0]).at(&self.path)
    }
}

impl ControlReader {
    /// Those whose ids are in a range, by id.
    pub fn alerts_in(&self, ids: &RangeInclusive<AlertId>, limit: usize) -> Result<Vec<KeptAlert>, StoreError> {
        let which = "WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT ?3";
        self.kept(which, params![&ids.start().bytes()[..], &ids.end().bytes()[..], count(limit)])
    }

    /// What is over, newest first, from before a moment and an id on; of one node, or of all.
    pub fn alerts_resolved(
        &self,
        (before, id): (WallMs, AlertId),
        node: Option<NodeKey>,
        limit: usize,
    ) -> Result<Vec<KeptAlert>, StoreError> {
        let of_node = if node.is_some() { "node = ?4 AND" } else { "" };
        let which = format!(
            "WHERE {of_node} resolved IS NOT NULL AND (resolved, id) < (?1, ?2) ORDER BY resolved DESC, id DESC LIMIT ?3"
        );
        let (id, limit, node) = (&id.bytes()[..], count(limit), node.map(|node| node.0));
        let bound: [&dyn ToSql; 4] = [&before.0, &id, &limit, &node];
        self.kept(&which, &bound[..if node.is_some() { 4 } else { 3 }])
    }

    fn kept(&self, which: &str, bound: impl rusqlite::Params) -> Result<Vec<KeptAlert>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS}, (SELECT node.id FROM node WHERE node.key = alert.node) AS node_id,
            (SELECT node.name FROM node WHERE node.key = alert.node) AS node_name FROM alert {which}"
        );
        let kept = |row: &Row<'_>| {
            let node: Option<([u8; 16], String)> =
                row.get::<_, Option<[u8; 16]>>("node_id")?.zip(row.get("node_name")?);
            let node = node.map(|(id, name)| (NodeId::from_bytes(id), name));
            Ok(KeptAlert { row: alert_row(row)?, node, said: Said::default() })
        };
        let found = self.connection.prepare_cached(&sql).and_then(|mut query| query.query_map(bound, kept)?.collect());
        let mut found: Vec<KeptAlert> = found.at(&self.path)?;
        for kept in &mut found {
            kept.said = self.said(kept.row.id)?;
        }
        Ok(found)
    }
}

pub(super) fn open(connection: &Connection) -> rusqlite::Result<Vec<AlertRow>> {
    rows(connection, "WHERE resolved IS NULL ORDER BY id", [])
}

pub(super) fn put_ran(transaction: &Transaction<'_>, (ran, at): (MonoMs, WallMs)) -> rusqlite::Result<()> {
    let sql = "UPDATE meta SET ran_ms = ?1, ran_at = ?2";
    transaction.prepare_cached(sql)?.execute(params![number(ran.0), at.0])?;
    Ok(())
}

pub(super) fn put(transaction: &Transaction<'_>, update: &AlertUpdate) -> rusqlite::Result<()> {
    let row = match update {
        AlertUpdate::Put(row) => row,
        AlertUpdate::Delete(id) => {
            transaction.prepare_cached("DELETE FROM alert WHERE id = ?1")?.execute([&id.bytes()[..]])?;
            return Ok(());
        }
    };
    let fires: Vec<u64> = row.fires.iter().map(|fired| fired.0).collect();
    let sql = "INSERT INTO alert (id, rule, node, subject, severity, state, began, began_ran, fired, fired_ran,
        resolved, why, value, threshold, is_flapping, fires, words, top, over_ran)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)
        ON CONFLICT (id) DO UPDATE SET severity = ?5, state = ?6, fired = ?9, fired_ran = ?10, resolved = ?11,
        why = ?12, value = ?13, threshold = ?14, is_flapping = ?15, fires = ?16, words = ?17,
        top = CASE WHEN ?18 = '' THEN top ELSE ?18 END, over_ran = ?19";
    transaction.prepare_cached(sql)?.execute(params![
        &row.id.bytes()[..],
        row.rule,
        row.node.map(|node| node.0),
        row.subject,
        row.severity,
        row.state.as_str(),
        row.began.wall.0,
        number(row.began.ran.0),
        row.fired.map(|fired| fired.wall.0),
        row.fired.map(|fired| number(fired.ran.0)),
        row.resolved.map(|(at, _)| at.0),
        row.resolved.map(|(_, why)| why.as_str()),
        row.value,
        row.threshold,
        row.is_flapping,
        serde_json::to_string(&fires).unwrap_or_default(),
        row.words,
        row.top,
        row.over.map(|over| number(over.0)),
    ])?;
    Ok(())
}

/// Drops what is over for so long, and the oldest of what is too much.
pub(super) fn drop_oldest(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let newest: Option<i64> = transaction.query_row("SELECT max(resolved) FROM alert", [], |row| row.get(0))?;
    let Some(newest) = newest else { return Ok(()) };
    let old = "DELETE FROM alert WHERE resolved < ?1";
    transaction.prepare_cached(old)?.execute([newest.saturating_sub(KEPT_MS)])?;
    let many = "DELETE FROM alert WHERE id IN (SELECT id FROM alert WHERE resolved IS NOT NULL
        ORDER BY resolved DESC, id DESC LIMIT -1 OFFSET ?1)";
    transaction.prepare_cached(many)?.execute([KEPT])?;
    Ok(())
}

fn rows(connection: &Connection, which: &str, bound: impl rusqlite::Params) -> rusqlite::Result<Vec<AlertRow>> {
    let sql = format!("SELECT {COLUMNS} FROM alert {which}");
    connection.prepare_cached(&sql)?.query_map(bound, alert_row)?.collect()
}

fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn alert_row(row: &Row<'_>) -> rusqlite::Result<AlertRow> {
    let state: String = row.get(5)?;
    let fired: Option<(i64, i64)> = row.get::<_, Option<i64>>(8)?.zip(row.get(9)?);
    let resolved: Option<(i64, String)> = row.get::<_, Option<i64>>(10)?.zip(row.get(11)?);
    let fires: String = row.get(15)?;
    let fires: Vec<u64> = serde_json::from_str(&fires).unwrap_or_default();
    Ok(AlertRow {
        id: AlertId::from_bytes(row.get(0)?),
        rule: row.get(1)?,
        node: row.get::<_, Option<u32>>(2)?.map(NodeKey),
        subject: row.get(3)?,
        severity: row.get(4)?,
        // A word that this version does not know was open: it is closed by the next look at it.
        state: AlertState::parse(&state).unwrap_or(AlertState::Firing),
        began: Now { wall: WallMs(row.get(6)?), ran: MonoMs(unsigned(row.get(7)?)) },
        fired: fired.map(|(wall, ran)| Now { wall: WallMs(wall), ran: MonoMs(unsigned(ran)) }),
        resolved: resolved.map(|(at, why)| (WallMs(at), Resolution::parse(&why).unwrap_or(Resolution::Gone))),
        value: row.get(12)?,
        threshold: row.get(13)?,
        is_flapping: row.get(14)?,
        fires: fires.into_iter().map(MonoMs).collect(),
        over: row.get::<_, Option<i64>>(18)?.map(|over| MonoMs(unsigned(over))),
        words: row.get(16)?,
        top: row.get(17)?,
    })
}
