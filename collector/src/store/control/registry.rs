//! The registry's rows: members and tokens, whole rows at a time.

use dunlin_shared::id::NodeId;
use dunlin_shared::time::WallMs;
use rusqlite::types::Type;
use rusqlite::{Connection, Error, Row, Transaction, params};

use super::super::error::{At, StoreError};
use super::super::row::{number, unsigned};
use super::Control;
use crate::registry::{
    Admission, Change, KeyHash, Labels, Machine, Maintenance, Member, Registry, Role, SecretHash, Token, TokenId,
};

pub(super) const TABLES: &str = "
    ALTER TABLE meta ADD COLUMN holds_strangers INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE member (id BLOB PRIMARY KEY CHECK (length(id) = 16), key BLOB CHECK (length(key) = 32),
        name TEXT NOT NULL, admission TEXT NOT NULL, enrolled INTEGER NOT NULL, token INTEGER,
        token_labels TEXT NOT NULL, operator_labels TEXT NOT NULL, is_ephemeral INTEGER NOT NULL,
        in_maintenance INTEGER NOT NULL, maintained_until INTEGER, quarantined TEXT NOT NULL,
        is_forgotten INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE token (id INTEGER PRIMARY KEY, role TEXT NOT NULL, name TEXT NOT NULL,
        secret BLOB NOT NULL UNIQUE CHECK (length(secret) = 32), created INTEGER NOT NULL, created_by TEXT NOT NULL,
        expires INTEGER, uses_left INTEGER, used INTEGER NOT NULL, labels TEXT NOT NULL,
        needs_approval INTEGER NOT NULL, per_hour INTEGER, hour_at INTEGER NOT NULL, hour_used INTEGER NOT NULL,
        is_ephemeral INTEGER NOT NULL, is_deleted INTEGER NOT NULL) STRICT;
";

impl Control {
    /// Everything that the registry knows.
    pub fn registry(&self) -> Result<Registry, StoreError> {
        let members = members(&self.connection).at(&self.path)?;
        let holds = "SELECT holds_strangers FROM meta";
        let holds_strangers = self.connection.query_row(holds, [], |row| row.get(0)).at(&self.path)?;
        Ok(Registry::restore(members, tokens(&self.connection).at(&self.path)?, holds_strangers))
    }

    /// Something of it is lost: a node with our certificate that it does not know is held for approval
    /// from now on.
    pub fn hold_strangers(&mut self) -> Result<(), StoreError> {
        self.write(|transaction| transaction.execute("UPDATE meta SET holds_strangers = 1", []).map(|_| ()))
    }
}

pub(super) fn put(transaction: &Transaction<'_>, change: &Change) -> rusqlite::Result<()> {
    match change {
        Change::Member(id, member) => put_member(transaction, *id, member),
        Change::Token(id, token) => put_token(transaction, *id, token),
    }
}

pub(super) fn tokens(connection: &Connection) -> rusqlite::Result<Vec<(TokenId, Token)>> {
    let sql = "SELECT id, role, name, secret, created, created_by, expires, uses_left, used, labels,
        needs_approval, per_hour, hour_at, hour_used, is_ephemeral, is_deleted, last_used FROM token ORDER BY id";
    connection.prepare_cached(sql)?.query_map([], token_row)?.collect()
}

fn members(connection: &Connection) -> rusqlite::Result<Vec<(NodeId, Member)>> {
    let sql = "SELECT id, key, name, admission, enrolled, token, token_labels, operator_labels, is_ephemeral,
        in_maintenance, maintained_until, quarantined, is_forgotten FROM member ORDER BY id";
    connection.prepare_cached(sql)?.query_map([], member_row)?.collect()
}

fn put_member(transaction: &Transaction<'_>, id: NodeId, member: &Member) -> rusqlite::Result<()> {
    let quarantined: Vec<_> = member.quarantined.iter().map(|m| (m.boot_id, &m.name, m.since.0)).collect();
    let sql = "INSERT OR REPLACE INTO member (id, key, name, admission, enrolled, token, token_labels,
        operator_labels, is_ephemeral, in_maintenance, maintained_until, quarantined, is_forgotten)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
    transaction.prepare_cached(sql)?.execute(params![
        id.bytes(),
        member.key.map(|key| key.0),
        member.name,
        member.admission.as_str(),
        member.enrolled.0,
        member.token.map(|token| number(token.0)),
        json(&member.token_labels)?,
        json(&member.operator_labels)?,
        member.is_ephemeral,
        member.maintenance.is_some(),
        member.maintenance.and_then(|maintenance| maintenance.until).map(|until| until.0),
        json(&quarantined)?,
        member.is_forgotten,
    ])?;
    Ok(())
}

fn put_token(transaction: &Transaction<'_>, id: TokenId, token: &Token) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO token (id, role, name, secret, created, created_by, expires, uses_left, used,
        labels, needs_approval, per_hour, hour_at, hour_used, is_ephemeral, is_deleted, last_used)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)";
    transaction.prepare_cached(sql)?.execute(params![
        number(id.0),
        token.role.as_str(),
        token.name,
        token.secret.0,
        token.created.0,
        token.created_by,
        token.expires.map(|at| at.0),
        token.uses_left,
        token.used,
        json(&token.labels)?,
        token.needs_approval,
        token.per_hour,
        token.hour.0.0,
        token.hour.1,
        token.is_ephemeral,
        token.is_deleted,
        token.last_used.map(|at| at.0),
    ])?;
    Ok(())
}

/// A clock that went back makes it no earlier.
pub(super) fn put_used(transaction: &Transaction<'_>, id: TokenId, at: WallMs) -> rusqlite::Result<()> {
    let sql = "UPDATE token SET last_used = max(coalesce(last_used, ?2), ?2) WHERE id = ?1";
    transaction.prepare_cached(sql)?.execute(params![number(id.0), at.0])?;
    Ok(())
}

fn member_row(row: &Row<'_>) -> rusqlite::Result<(NodeId, Member)> {
    let in_maintenance: bool = row.get(9)?;
    let until = row.get::<_, Option<i64>>(10)?.map(WallMs);
    let machines: Vec<([u8; 16], String, i64)> = parsed(row, 11)?;
    let machine = |(boot_id, name, since)| Machine { boot_id, name, since: WallMs(since) };
    let member = Member {
        key: row.get::<_, Option<[u8; 32]>>(1)?.map(KeyHash),
        name: row.get(2)?,
        admission: word(row, 3, Admission::parse)?,
        enrolled: WallMs(row.get(4)?),
        token: row.get::<_, Option<i64>>(5)?.map(|id| TokenId(unsigned(id))),
        token_labels: parsed::<Labels>(row, 6)?,
        operator_labels: parsed::<Labels>(row, 7)?,
        is_ephemeral: row.get(8)?,
        maintenance: in_maintenance.then_some(Maintenance { until }),
        quarantined: machines.into_iter().map(machine).collect(),
        is_forgotten: row.get(12)?,
    };
    Ok((NodeId::from_bytes(row.get(0)?), member))
}

fn token_row(row: &Row<'_>) -> rusqlite::Result<(TokenId, Token)> {
    let token = Token {
        role: word(row, 1, Role::parse)?,
        name: row.get(2)?,
        secret: SecretHash(row.get(3)?),
        created: WallMs(row.get(4)?),
        created_by: row.get(5)?,
        expires: row.get::<_, Option<i64>>(6)?.map(WallMs),
        uses_left: row.get(7)?,
        used: row.get(8)?,
        labels: parsed::<Labels>(row, 9)?,
        needs_approval: row.get(10)?,
        per_hour: row.get(11)?,
        hour: (WallMs(row.get(12)?), row.get(13)?),
        is_ephemeral: row.get(14)?,
        is_deleted: row.get(15)?,
        last_used: row.get::<_, Option<i64>>(16)?.map(WallMs),
    };
    Ok((TokenId(unsigned(row.get(0)?)), token))
}

pub(super) fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| Error::ToSqlConversionFailure(error.into()))
}

pub(super) fn parsed<T: serde::de::DeserializeOwned>(row: &Row<'_>, at: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(at)?.as_str()?;
    serde_json::from_str(text).map_err(|error| Error::FromSqlConversionFailure(at, Type::Text, error.into()))
}

fn word<T>(row: &Row<'_>, at: usize, parse: impl Fn(&str) -> Option<T>) -> rusqlite::Result<T> {
    let text = row.get_ref(at)?.as_str()?;
    parse(text)
        .ok_or_else(|| Error::FromSqlConversionFailure(at, Type::Text, format!("{text:?} is no word of ours").into()))
}
