//! The feed: what happened, gapless, in order, to be resumed from a cursor.
//!
//! Ids rise by one, so a hole in front of the first row means that it was dropped: that is said with 410, and
//! never passed over. Labels hold here as everywhere; the cursor moves past what is not shown.

use std::fmt::Write as _;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use dunlin_shared::id::NodeId;
use serde_json::{Map, Value};
use tokio::sync::OwnedSemaphorePermit;

use super::Api;
use super::caller::{Caller, Viewer};
use super::nodes::find;
use super::params::{Params, short};
use super::problem::Problem;
use crate::registry::Labels;
use crate::shape::{self, Event, Feed, Moment};
use crate::store::EventRow;
use crate::view::FleetView;

const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;
/// Rows that are looked at for one answer, when most of them are not to be shown.
const LOOKED_AT_MAX: usize = 10_000;
/// Proxies cut what is silent for a minute.
const WAIT_MS_MAX: i64 = 60_000;
/// The longest kind has 20 bytes.
const KIND_BYTES_MAX: usize = 64;

/// What a consumer wants to hear of.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    kinds: Vec<String>,
    labels: Labels,
    node: Option<NodeId>,
}

/// What was read, and the last id that was looked at.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) events: Vec<Written>,
    pub(super) upto: u64,
}

/// An event as whoever asks gets it. What is stored of it is JSON already: it is passed on, and not read.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) cursor: String,
    pub(super) kind: String,
    pub(super) json: String,
}

/// What happened after a cursor, oldest first
///
/// Give `next` as `after` the next time. Without `after` it begins with the earliest that is kept. A wait that
/// runs out is an answer without items and with the same `next`.
#[utoipa::path(get, path = "/api/v1/events", tag = "feed", security(("bearer" = ["viewer"])),
    params(
        ("after" = Option<String>, Query, description = "A cursor: `next`, or that of an event"),
        ("limit" = Option<u32>, Query, description = "Events in an answer: 1 to 1000, 100 when absent"),
        ("wait" = Option<String>, Query, description = "How long to wait for the first event, such as `30s`; at most 60s"),
        ("kind" = Option<Vec<String>>, Query, description = "Such as `node.down`, or `node.*`; repeated, any of them"),
        ("node" = Option<String>, Query, description = "An id, or a name that one node alone has"),
        ("label" = Option<Vec<String>>, Query, description = "`KEY=VALUE` of the node; repeated, all must be borne")
    ),
    responses(
        (status = 200, description = "Events", body = Feed),
        (status = 410, description = "The cursor is older than what is kept, or of another life of the collector; `earliest` is where to go on", body = shape::Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn events(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    mut params: Params,
) -> Result<Response, Problem> {
    let limit = params.limit(PAGE, PAGE_MAX)?;
    let after = params.one("after")?;
    let wait_ms = params.duration("wait")?.unwrap_or(0);
    if wait_ms > WAIT_MS_MAX {
        return Err(Problem::bad_request(format!("wait is at most {} s", WAIT_MS_MAX / 1_000)));
    }
    let filter = Filter::take(&mut params, &api, &caller)?;
    params.done()?;
    // What is not kept any more is found missing when it is read.
    let mut from = match after.as_deref() {
        Some(text) => named(&api, text).await?,
        None => before_all(&api).await?,
    };
    let mut batch = read(&api, &caller, &filter, from, limit).await?;
    if batch.events.is_empty() && wait_ms > 0 {
        let _turn = waiting_turn(&api)?;
        let deadline = api.published.clock.mono().plus(wait_ms.unsigned_abs());
        while batch.events.is_empty() {
            let left_ms = deadline.since(api.published.clock.mono());
            if left_ms == 0 || !came_after(&api, batch.upto, Duration::from_millis(left_ms)).await {
                break;
            }
            from = batch.upto;
            batch = read(&api, &caller, &filter, from, limit).await?;
        }
    }
    Ok(page(&batch.events, &cursor(api.published.incarnation, batch.upto)))
}

/// A `Feed`.
fn page(events: &[Written], next: &str) -> Response {
    let len: usize = events.iter().map(|event| event.json.len() + 1).sum();
    let mut text = String::with_capacity(len + 64);
    text.push_str("{\"items\":[");
    for (at, event) in events.iter().enumerate() {
        text.push_str(if at == 0 { "" } else { "," });
        text.push_str(&event.json);
    }
    text.push_str("],\"next\":\"");
    text.push_str(next);
    text.push_str("\"}");
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response()
}

impl Filter {
    pub(super) fn take(params: &mut Params, api: &Api, caller: &Caller) -> Result<Self, Problem> {
        let kinds = params.all("kind");
        let is_kind = |kind: &str| {
            kind.len() <= KIND_BYTES_MAX
                && kind.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'.' | b'_' | b'*'))
        };
        if let Some(wrong) = kinds.iter().find(|kind| kind.is_empty() || !is_kind(kind)) {
            return Err(Problem::bad_request(format!(
                "kind is {:?}; write for example node.down or node.*",
                short(wrong)
            )));
        }
        let labels = params.labels()?;
        let node = match params.one("node")? {
            // Of a node that is gone the feed still tells, to those who see everything.
            Some(word) => match word.parse() {
                Ok(id) if !caller.is_limited() => Some(id),
                _ => Some(find(&api.published.fleet.load(), caller, &word)?.id),
            },
            None => None,
        };
        Ok(Self { kinds, labels, node })
    }

    fn is_all(&self) -> bool {
        self.kinds.is_empty() && self.labels.is_empty() && self.node.is_none()
    }

    fn wants(&self, caller: &Caller, fleet: &FleetView, row: &EventRow) -> bool {
        let kind = |wanted: &String| match wanted.strip_suffix('*') {
            Some(stem) => row.kind.starts_with(stem),
            None => row.kind == *wanted,
        };
        if !self.kinds.is_empty() && !self.kinds.iter().any(kind) {
            return false;
        }
        if self.node.is_some() && self.node != row.node {
            return false;
        }
        let node = row.node.and_then(|id| fleet.node(id));
        let is_borne = self.labels.is_empty() || node.is_some_and(|node| node.bears(&self.labels));
        is_borne && (!caller.is_limited() || node.is_some_and(|node| caller.sees(node)))
    }
}

/// The id after which a consumer wants to go on, and can.
pub(super) async fn position(api: &Api, after: Option<&str>) -> Result<u64, Problem> {
    let before_all = before_all(api).await?;
    let Some(text) = after else { return Ok(before_all) };
    let id = named(api, text).await?;
    if id < before_all {
        return Err(gone(api, before_all, "what follows the cursor is not kept any more"));
    }
    Ok(id)
}

/// In front of the earliest that is kept.
async fn before_all(api: &Api) -> Result<u64, Problem> {
    let earliest = api.desk.control(|reader| reader.earliest_event()).await?;
    Ok(earliest.map_or(0, |earliest| earliest.saturating_sub(1)))
}

/// The id that a cursor is of, whether or not it is kept.
async fn named(api: &Api, text: &str) -> Result<u64, Problem> {
    let (incarnation, id) = parse_cursor(text).ok_or_else(|| {
        Problem::bad_request(format!("after is {:?}, which is no cursor; give `next` of an answer", short(text)))
    })?;
    if incarnation != api.published.incarnation {
        let before_all = before_all(api).await?;
        return Err(gone(api, before_all, "the cursor is of another life of this collector"));
    }
    // The published number may be a moment behind what is on disk.
    let newest = *api.published.newest_event.borrow();
    if id > newest && api.desk.control(move |reader| reader.events(id - 1, 1)).await?.is_empty() {
        return Err(Problem::bad_request("the cursor is of an event that did not happen; give `next` of an answer"));
    }
    Ok(id)
}

/// What follows `after`: at most so many that the caller sees and wants.
pub(super) async fn read(
    api: &Api,
    caller: &Caller,
    filter: &Filter,
    after: u64,
    limit: usize,
) -> Result<Batch, Problem> {
    let mut batch = Batch { events: Vec::new(), upto: after };
    let (mut looked_at, mut left) = (0, true);
    // Who wants everything gets what is read; of others nobody knows how much there is to pass over.
    let at_once = if filter.is_all() && !caller.is_limited() { limit } else { PAGE_MAX };
    while left && looked_at < LOOKED_AT_MAX && batch.events.len() < limit {
        let upto = batch.upto;
        // Nothing happened, and there is no need to look.
        if upto == *api.published.newest_event.borrow() {
            break;
        }
        let rows = api.desk.control(move |reader| reader.events(upto, at_once)).await?;
        if rows.first().is_some_and(|first| first.id != upto + 1) {
            let before_all = before_all(api).await?;
            return Err(gone(api, before_all, "what follows the cursor is not kept any more"));
        }
        (looked_at, left) = (looked_at + rows.len(), rows.len() == at_once);
        let fleet = api.published.fleet.load_full();
        for row in rows {
            if batch.events.len() == limit {
                break;
            }
            batch.upto = row.id;
            if filter.wants(caller, &fleet, &row) {
                batch.events.push(written(api.published.incarnation, row));
            }
        }
    }
    Ok(batch)
}

/// Whether there is something after that id, before the time is over.
pub(super) async fn came_after(api: &Api, id: u64, within: Duration) -> bool {
    let mut newest = api.published.newest_event.clone();
    let came = tokio::time::timeout(within, newest.wait_for(|newest| *newest > id)).await;
    matches!(came, Ok(Ok(_)))
}

pub(super) fn waiting_turn(api: &Api) -> Result<OwnedSemaphorePermit, Problem> {
    let turn = std::sync::Arc::clone(&api.waiting).try_acquire_owned();
    turn.map_err(|_| Problem::too_many("too many others wait for events; try again in a second", 1))
}

/// Opaque to others: the life of the collector, and the number of the event.
pub(super) fn cursor(incarnation: u64, id: u64) -> String {
    let (mut text, mut rest) = (Vec::new(), incarnation);
    loop {
        text.push(b"0123456789abcdefghijklmnopqrstuvwxyz"[usize::try_from(rest % 36).unwrap_or(0)]);
        rest /= 36;
        if rest == 0 {
            break;
        }
    }
    let text: String = text.into_iter().rev().map(char::from).collect();
    format!("{text}-{id}")
}

fn parse_cursor(text: &str) -> Option<(u64, u64)> {
    let (incarnation, id) = text.split_once('-')?;
    let parsed = (u64::from_str_radix(incarnation, 36).ok()?, id.parse().ok()?);
    // Written the one way in which we write it, and within what a database can hold.
    (cursor(parsed.0, parsed.1) == text && i64::try_from(parsed.1).is_ok()).then_some(parsed)
}

fn gone(api: &Api, before_all: u64, why: &str) -> Problem {
    let earliest = cursor(api.published.incarnation, before_all);
    Problem::gone(format!("{why}; go on after {earliest}, and count what lies between as lost"), earliest)
}

fn written(incarnation: u64, row: EventRow) -> Written {
    let cursor = cursor(incarnation, row.id);
    let mut json = String::with_capacity(row.body.len() + 160);
    // A kind is a word of ours, and nothing of the head needs an escape.
    let head = write!(json, "{{\"cursor\":\"{cursor}\",\"at\":\"{}\",\"kind\":\"{}\"", Moment(row.at), row.kind);
    let node = row.node.map_or(Ok(()), |node| write!(json, ",\"node\":\"{node}\""));
    // A string takes whatever is written.
    head.and(node).ok();
    match row.body.strip_prefix('{').filter(|rest| rest.len() > 1 && rest.ends_with('}')) {
        Some(rest) => {
            json.push(',');
            json.push_str(rest);
        }
        None => json.push('}'),
    }
    Written { cursor, kind: row.kind, json }
}

pub(super) fn shown(incarnation: u64, row: EventRow) -> Event {
    let mut more: Map<String, Value> = serde_json::from_str(&row.body).unwrap_or_default();
    for taken in ["cursor", "at", "kind", "node"] {
        more.remove(taken);
    }
    Event {
        cursor: cursor(incarnation, row.id),
        at: Moment(row.at),
        kind: row.kind,
        node: row.node.map(|node| node.to_string()),
        more,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_the_one_way_in_which_it_is_written() {
        for (incarnation, id) in [(0, 0), (35, 1), (36, 7), (u64::MAX, i64::MAX.unsigned_abs())] {
            let text = cursor(incarnation, id);
            assert_eq!(parse_cursor(&text), Some((incarnation, id)), "{text}");
        }
        for text in
            ["", "-", "1", "1-", "-1", "01-1", "1-01", "+1-1", "1-+1", "A-1", "1-1 ", "1--1", "zzzzzzzzzzzzzzzz-1"]
        {
            assert_eq!(parse_cursor(text), None, "{text:?}");
        }
        assert_eq!(parse_cursor("1-9223372036854775808"), None);
    }
}
