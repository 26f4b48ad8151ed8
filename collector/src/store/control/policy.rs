//! The rows of what people said of alerts: silences, acknowledgements, and which silence each alert was told to be under.
//!
//! Silences are whole rows at a time. What was said of an alert stays as long as its row does, for whoever asks later;
//! only what is open is read at the start.

use dunlin_shared::id::NodeId;
use dunlin_shared::rule::{Pattern, Severity};
use dunlin_shared::time::WallMs;
use rusqlite::types::Type;
use rusqlite::{Connection, Error, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use super::super::error::{At, StoreError};
use super::super::row::{number, unsigned};
use super::Control;
use super::feed::ControlReader;
use super::registry::{json, parsed};
use crate::engine::alert::AlertId;
use crate::policy::{Acknowledgement, Change, Matchers, Policy, Silence, SilenceId, Weekly};
use crate::registry::Labels;

pub(super) const TABLES: &str = "
    CREATE TABLE silence (id INTEGER PRIMARY KEY, matchers TEXT NOT NULL, author TEXT NOT NULL, reason TEXT NOT NULL,
        created INTEGER NOT NULL, starts INTEGER NOT NULL, ends INTEGER, weekly TEXT, ended_by TEXT) STRICT;
    CREATE TABLE acknowledgement (alert BLOB PRIMARY KEY CHECK (length(alert) = 10), by TEXT NOT NULL,
        at INTEGER NOT NULL, why TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE silenced (alert BLOB PRIMARY KEY CHECK (length(alert) = 10),
        silence INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";

/// What was said of an alert, or is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    pub acknowledged: Option<Acknowledgement>,
    pub silenced: Option<SilenceId>,
}

/// Matchers as they are stored; what is absent is no matcher.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    labels: Labels,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    severity: Option<String>,
}

impl Control {
    /// Everything that people said and that counts.
    pub fn policy(&self, now: WallMs) -> Result<Policy, StoreError> {
        let silences = silences(&self.connection).at(&self.path)?;
        let acknowledged = acknowledged(&self.connection).at(&self.path)?;
        let silenced = silenced(&self.connection).at(&self.path)?;
        Ok(Policy::restore(now, silences, acknowledged, silenced))
    }
}

impl ControlReader {
    /// What was said of an alert, whether it is open or over.
    pub fn said(&self, alert: AlertId) -> Result<Said, StoreError> {
        let read = || {
            let sql = "SELECT alert, by, at, why FROM acknowledgement WHERE alert = ?1";
            let mut query = self.connection.prepare_cached(sql)?;
            let acknowledged = query.query_map([&alert.bytes()[..]], acknowledged_row)?.next().transpose()?;
            let sql = "SELECT alert, silence FROM silenced WHERE alert = ?1";
            let mut query = self.connection.prepare_cached(sql)?;
            let silenced = query.query_map([&alert.bytes()[..]], silenced_row)?.next().transpose()?;
            Ok(Said { acknowledged: acknowledged.map(|(_, said)| said), silenced: silenced.map(|(_, id)| id) })
        };
        read().at(&self.path)
    }
}

pub(super) fn put(transaction: &Transaction<'_>, change: &Change) -> rusqlite::Result<()> {
    match change {
        Change::Silence(id, Some(silence)) => put_silence(transaction, *id, silence),
        Change::Silence(id, None) => {
            transaction.prepare_cached("DELETE FROM silence WHERE id = ?1")?.execute([number(id.0)])?;
            Ok(())
        }
        Change::Acknowledged(alert, Some(said)) => {
            let sql = "INSERT OR REPLACE INTO acknowledgement (alert, by, at, why) VALUES (?1, ?2, ?3, ?4)";
            let values = params![&alert.bytes()[..], said.by, said.at.0, said.why];
            transaction.prepare_cached(sql)?.execute(values)?;
            Ok(())
        }
        Change::Acknowledged(alert, None) => {
            let sql = "DELETE FROM acknowledgement WHERE alert = ?1";
            transaction.prepare_cached(sql)?.execute([&alert.bytes()[..]])?;
            Ok(())
        }
    }
}

/// Which silence an alert is told to be under.
pub(super) fn put_silenced(
    transaction: &Transaction<'_>,
    (alert, under): &(AlertId, Option<SilenceId>),
) -> rusqlite::Result<()> {
    let alert = &alert.bytes()[..];
    match under {
        Some(id) => {
            let sql = "INSERT OR REPLACE INTO silenced (alert, silence) VALUES (?1, ?2)";
            transaction.prepare_cached(sql)?.execute(params![alert, number(id.0)])?;
        }
        None => {
            transaction.prepare_cached("DELETE FROM silenced WHERE alert = ?1")?.execute([alert])?;
        }
    }
    Ok(())
}

/// Drops what was said of alerts that are not there any more.
pub(super) fn drop_oldest(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    for table in ["acknowledgement", "silenced"] {
        let sql = format!("DELETE FROM {table} WHERE alert NOT IN (SELECT id FROM alert)");
        transaction.prepare_cached(&sql)?.execute([])?;
    }
    Ok(())
}

fn silences(connection: &Connection) -> rusqlite::Result<Vec<(SilenceId, Silence)>> {
    let sql = "SELECT id, matchers, author, reason, created, starts, ends, weekly, ended_by FROM silence ORDER BY id";
    connection.prepare_cached(sql)?.query_map([], silence_row)?.collect()
}

fn acknowledged(connection: &Connection) -> rusqlite::Result<Vec<(AlertId, Acknowledgement)>> {
    let sql = "SELECT a.alert, a.by, a.at, a.why FROM acknowledgement a JOIN alert ON alert.id = a.alert
        WHERE alert.resolved IS NULL";
    connection.prepare_cached(sql)?.query_map([], acknowledged_row)?.collect()
}

fn silenced(connection: &Connection) -> rusqlite::Result<Vec<(AlertId, SilenceId)>> {
    let sql = "SELECT s.alert, s.silence FROM silenced s JOIN alert ON alert.id = s.alert
        WHERE alert.resolved IS NULL";
    connection.prepare_cached(sql)?.query_map([], silenced_row)?.collect()
}

fn put_silence(transaction: &Transaction<'_>, id: SilenceId, silence: &Silence) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO silence (id, matchers, author, reason, created, starts, ends, weekly, ended_by)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    transaction.prepare_cached(sql)?.execute(params![
        number(id.0),
        json(&Stored::of(&silence.matchers))?,
        silence.author,
        silence.reason,
        silence.created.0,
        silence.start.0,
        silence.end.map(|end| end.0),
        silence.weekly.as_ref().map(ToString::to_string),
        silence.ended_by,
    ])?;
    Ok(())
}

fn silence_row(row: &Row<'_>) -> rusqlite::Result<(SilenceId, Silence)> {
    let wrong = |at: usize, what: String| Error::FromSqlConversionFailure(at, Type::Text, what.into());
    let weekly = row.get::<_, Option<String>>(7)?.map(|text| text.parse::<Weekly>()).transpose();
    let silence = Silence {
        matchers: parsed::<Stored>(row, 1)?.into_matchers().map_err(|what| wrong(1, what))?,
        author: row.get(2)?,
        reason: row.get(3)?,
        created: WallMs(row.get(4)?),
        start: WallMs(row.get(5)?),
        end: row.get::<_, Option<i64>>(6)?.map(WallMs),
        weekly: weekly.map_err(|what| wrong(7, what))?,
        ended_by: row.get(8)?,
    };
    Ok((SilenceId(unsigned(row.get(0)?)), silence))
}

fn acknowledged_row(row: &Row<'_>) -> rusqlite::Result<(AlertId, Acknowledgement)> {
    let said = Acknowledgement { by: row.get(1)?, at: WallMs(row.get(2)?), why: row.get(3)? };
    Ok((AlertId::from_bytes(row.get(0)?), said))
}

fn silenced_row(row: &Row<'_>) -> rusqlite::Result<(AlertId, SilenceId)> {
    Ok((AlertId::from_bytes(row.get(0)?), SilenceId(unsigned(row.get(1)?))))
}

impl Stored {
    fn of(matchers: &Matchers) -> Self {
        let text = |pattern: &Option<Pattern>| pattern.as_ref().map(ToString::to_string);
        let labels = matchers.labels.iter().map(|(key, value)| (key.to_string(), value.to_string()));
        Self {
            labels: labels.collect(),
            rule: text(&matchers.rule),
            node: matchers.node.map(|node| node.to_string()),
            subject: text(&matchers.subject),
            severity: matchers.severity.map(|severity| severity.as_str().to_owned()),
        }
    }

    /// What is no word of ours silences nothing: it is damage.
    fn into_matchers(self) -> Result<Matchers, String> {
        let pattern = |text: Option<String>| text.as_deref().map(Pattern::new);
        let labels = self.labels.iter().map(|(key, value)| (key.as_str().into(), Pattern::new(value)));
        let node = self.node.map(|node| node.parse::<NodeId>().map_err(|_| format!("{node:?} is no node")));
        let severity =
            self.severity.map(|word| Severity::parse(&word).ok_or_else(|| format!("{word:?} is no severity")));
        Ok(Matchers {
            labels: labels.collect(),
            rule: pattern(self.rule),
            node: node.transpose()?,
            subject: pattern(self.subject),
            severity: severity.transpose()?,
        })
    }
}
