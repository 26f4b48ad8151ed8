//! The log of who did what.

use axum::extract::State;

use super::Api;
use super::body::{Json, ok};
use super::caller::{Admin, Caller};
use super::params::Params;
use super::problem::Problem;
use crate::shape::{self, LogEntry, LogPage, Moment, Outcome};
use crate::store::LogRow;
use crate::view::FleetView;

const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;
/// Rows that are looked at for one page of a caller that sees only some of them.
const LOOKED_AT_MAX: usize = 10_000;

/// Who did what, and who was refused what, the newest first
///
/// A limited token sees what it did itself, and what was done to nodes that it sees.
#[utoipa::path(get, path = "/api/v1/log", tag = "access", security(("bearer" = ["admin"])),
    params(
        ("limit" = Option<u32>, Query, description = "Entries in a page: 1 to 1000, 100 when absent"),
        ("after" = Option<String>, Query, description = "`next` of the page before; what follows is older")
    ),
    responses(
        (status = 200, description = "A page", body = LogPage),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn log(
    Admin(caller): Admin,
    State(api): State<Api>,
    mut params: Params,
) -> Result<Json<LogPage>, Problem> {
    let limit = params.limit(PAGE, PAGE_MAX)?;
    let mut before = match params.one("after")? {
        Some(text) => Some(
            text.parse::<u32>()
                .map(u64::from)
                .map_err(|_| Problem::bad_request("after is no cursor of this list; give `next` of a page"))?,
        ),
        None => None,
    };
    params.done()?;
    let batch = if caller.is_limited() { PAGE_MAX } else { PAGE_MAX.min(limit + 1) };
    let mut items: Vec<LogEntry> = Vec::new();
    let mut looked_at = 0;
    loop {
        let rows = api.desk.control(move |reader| reader.log(before, batch)).await?;
        let fleet = api.published.fleet.load_full();
        let is_last = rows.len() < batch;
        looked_at += rows.len();
        for row in rows {
            if items.len() == limit {
                return Ok(ok(LogPage { items, next: before.map(|before| before.to_string()) }));
            }
            before = Some(row.id);
            if sees(&caller, &fleet, &row) {
                items.push(shown(row));
            }
        }
        if is_last {
            return Ok(ok(LogPage { items, next: None }));
        }
        if looked_at >= LOOKED_AT_MAX {
            return Ok(ok(LogPage { items, next: before.map(|before| before.to_string()) }));
        }
    }
}

fn sees(caller: &Caller, fleet: &FleetView, row: &LogRow) -> bool {
    if !caller.is_limited() || (row.entry.token.is_some() && row.entry.token == caller.token()) {
        return true;
    }
    let node = row.entry.target.parse().ok().and_then(|id| fleet.node(id));
    node.is_some_and(|node| caller.sees(node))
}

fn shown(row: LogRow) -> LogEntry {
    let entry = row.entry;
    LogEntry {
        id: row.id,
        at: Moment(entry.at),
        actor: entry.actor,
        token: entry.token.map(|token| token.to_string()),
        from: Some(entry.from).filter(|from| !from.is_empty()),
        action: entry.action,
        target: entry.target,
        detail: entry.detail,
        outcome: if entry.refused.is_some() { Outcome::Refused } else { Outcome::Done },
        reason: entry.refused,
        times: entry.times,
    }
}
