//! What is wrong: alerts that are open, from the published board, and those that are over, from `control.db`.
//!
//! Labels hold as for nodes: an alert of a node that the caller does not see does not exist, and one of the fleet or the
//! collector is for those who see everything.

mod context;
mod filter;
pub(super) mod find;

use std::sync::Arc;

use axum::extract::State;
pub(super) use context::{__path_context, context};
use dunlin_shared::id::NodeId;
use dunlin_shared::time::WallMs;
pub(super) use find::open_one;

use self::filter::{Filter, Wanted};
use self::find::find;
use super::Api;
use super::body::{Json, ok};
use super::caller::{Caller, Viewer};
use super::params::{Named, Params};
use super::problem::Problem;
use crate::board::{AlertBoard, AlertView, Words};
use crate::engine::NodeState;
use crate::engine::alert::{AlertId, AlertState};
use crate::policy::Acknowledgement;
use crate::registry::Labels;
use crate::shape::{self, Moment};
use crate::store::KeptAlert;
use crate::view::{FleetView, NodeView};

const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;
/// Rows that are looked at for one answer, when most of them are not to be shown.
const LOOKED_AT_MAX: usize = 10_000;

/// What is open, by id; or what is over, newest first
#[utoipa::path(get, path = "/api/v1/alerts", tag = "alerts", security(("bearer" = ["viewer"])),
    params(
        ("limit" = Option<u32>, Query, description = "Alerts in a page: 1 to 1000, 100 when absent"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("state" = Option<Vec<String>>, Query, description = "`firing` (when absent) or `pending`; repeated, any of them; or `resolved`, alone"),
        ("severity" = Option<Vec<String>>, Query, description = "`info`, `warning` or `critical`; repeated, any of them"),
        ("rule" = Option<Vec<String>>, Query, description = "A name, or with `*` such as `disk-*`; repeated, any of them"),
        ("node" = Option<String>, Query, description = "An id, or a name that one node alone has"),
        ("subject" = Option<Vec<String>>, Query, description = "Such as `fs:/var`, or with `*` such as `fs:*`; repeated, any of them"),
        ("label" = Option<Vec<String>>, Query, description = "`KEY=VALUE` of the node; repeated, all must be borne")
    ),
    responses(
        (status = 200, description = "A page", body = shape::AlertPage),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn list(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    mut params: Params,
) -> Result<Json<shape::AlertPage>, Problem> {
    let limit = params.limit(PAGE, PAGE_MAX)?;
    let after = params.one("after")?;
    let (wanted, filter) = Filter::take(&mut params, &api, &caller)?;
    params.done()?;
    match wanted {
        Wanted::Open(states) => open(&api, &caller, (&states, &filter), after.as_deref(), limit).map(ok),
        Wanted::Over => over(&api, &caller, &filter, after.as_deref(), limit).await.map(ok),
    }
}

/// One alert, open or over
#[utoipa::path(get, path = "/api/v1/alerts/{id}", tag = "alerts", security(("bearer" = ["viewer"])),
    params(("id" = String, Path, description = "An id, or the first digits of one, at least 6, that no other begins with")),
    responses(
        (status = 200, description = "It", body = shape::Alert),
        (status = "4XX", description = "Why not; 409 lists the ids that begin so", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn one(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    Named(word): Named,
    params: Params,
) -> Result<Json<shape::Alert>, Problem> {
    params.done()?;
    let found = find(&api, &caller, &word).await?;
    Ok(ok(found.shown(&api.published.fleet.load())))
}

fn open(
    api: &Api,
    caller: &Caller,
    (states, filter): (&[AlertState], &Filter),
    after: Option<&str>,
    limit: usize,
) -> Result<shape::AlertPage, Problem> {
    let after: Option<AlertId> = after.map(|text| text.parse().map_err(|()| no_cursor())).transpose()?;
    let (board, fleet) = picture(api);
    let from = after.map_or(0, |after| board.alerts.partition_point(|alert| alert.id <= after));
    let is_wanted = |alert: &&Arc<AlertView>| {
        states.contains(&alert.state)
            && filter.wants(caller, &fleet, alert.node, (alert.rule.severity, &alert.rule.name, &alert.subject))
    };
    let mut found = board.alerts[from..].iter().filter(is_wanted);
    let items: Vec<shape::Alert> = found.by_ref().take(limit).map(|alert| shown(alert, &fleet)).collect();
    let next = if found.next().is_some() { items.last().map(|last| last.id.clone()) } else { None };
    Ok(shape::AlertPage { items, next })
}

/// Of those that are not to be shown so many are passed over; then the page ends early, and has a `next`.
async fn over(
    api: &Api,
    caller: &Caller,
    filter: &Filter,
    after: Option<&str>,
    limit: usize,
) -> Result<shape::AlertPage, Problem> {
    let newest = (WallMs(i64::MAX), AlertId::from_bytes([0xff; 10]));
    let mut before = after.map_or(Ok(newest), |text| parse_cursor(text).ok_or_else(no_cursor))?;
    let (_, fleet) = picture(api);
    let node = filter.node.and_then(|id| fleet.node(id)?.about.key);
    let (mut items, mut looked_at) = (Vec::new(), 0);
    loop {
        let rows = api.desk.control(move |reader| reader.alerts_resolved(before, node, PAGE_MAX)).await?;
        let is_end = rows.len() < PAGE_MAX;
        looked_at += rows.len();
        for kept in rows {
            if items.len() == limit {
                return Ok(shape::AlertPage { items, next: Some(cursor(before)) });
            }
            before = (kept.row.resolved.map_or(before.0, |(at, _)| at), kept.row.id);
            if filter.wants_kept(caller, &fleet, &kept) {
                items.push(shown_kept(&kept, &fleet));
            }
        }
        if is_end {
            return Ok(shape::AlertPage { items, next: None });
        }
        if looked_at >= LOOKED_AT_MAX {
            return Ok(shape::AlertPage { items, next: Some(cursor(before)) });
        }
    }
}

fn picture(api: &Api) -> (Arc<AlertBoard>, Arc<FleetView>) {
    (api.published.board.load_full(), api.published.fleet.load_full())
}

/// Whether an alert of this node is there for the caller.
pub(super) fn is_seen(caller: &Caller, fleet: &FleetView, node: Option<NodeId>) -> bool {
    !caller.is_limited() || node.and_then(|id| fleet.node(id)).is_some_and(|node| caller.sees(node))
}

fn shown(alert: &AlertView, fleet: &FleetView) -> shape::Alert {
    let node = alert.node.and_then(|id| fleet.node(id));
    let held = node.map(|node| node.state).filter(|state| holds_back(*state) && !alert.asks_for_state());
    let Words { summary, summary_zh, runbook } = (*alert.words).clone();
    shape::Alert {
        id: alert.id.to_string(),
        rule: alert.rule.name.to_string(),
        severity: alert.rule.severity.as_str().to_owned(),
        state: alert.state.as_str().to_owned(),
        node: alert.node.map(|id| id.to_string()),
        name: node.map(|node| node.about.name.to_string()),
        subject: alert.subject.to_string(),
        value: alert.value,
        threshold: alert.threshold,
        since: Moment(alert.since),
        began: Moment(alert.began),
        summary,
        summary_zh,
        runbook,
        labels: labels_of(node),
        acknowledged: alert.acknowledged.as_deref().map(acknowledgement),
        silenced: alert.silenced.map(|silence| silence.to_string()),
        flapping: alert.is_flapping,
        held: held.map(|state| state.as_str().to_owned()),
        resolved: None,
        reason: None,
    }
}

fn shown_kept(kept: &KeptAlert, fleet: &FleetView) -> shape::Alert {
    let row = &kept.row;
    let node = kept.node.as_ref().and_then(|(id, _)| fleet.node(*id));
    let name = node.map(|node| node.about.name.to_string());
    let Words { summary, summary_zh, runbook } = Words::read(&row.words);
    shape::Alert {
        id: row.id.to_string(),
        rule: row.rule.clone(),
        severity: row.severity.clone(),
        state: row.state.as_str().to_owned(),
        node: kept.node.as_ref().map(|(id, _)| id.to_string()),
        name: name.or_else(|| kept.node.as_ref().map(|(_, name)| name.clone())),
        subject: row.subject.clone(),
        value: row.value,
        threshold: row.threshold,
        since: Moment(row.fired.unwrap_or(row.began).wall),
        began: Moment(row.began.wall),
        summary,
        summary_zh,
        runbook,
        labels: labels_of(node),
        acknowledged: kept.said.acknowledged.as_ref().map(acknowledgement),
        silenced: kept.said.silenced.map(|silence| silence.to_string()),
        flapping: row.is_flapping,
        held: None,
        resolved: row.resolved.map(|(at, _)| Moment(at)),
        reason: row.resolved.map(|(_, why)| why.as_str().to_owned()),
    }
}

fn acknowledgement(said: &Acknowledgement) -> shape::Acknowledgement {
    shape::Acknowledgement { who: said.by.clone(), when: Moment(said.at), why: said.why.clone() }
}

fn labels_of(node: Option<&NodeView>) -> Labels {
    node.map(|node| node.about.labels.clone()).unwrap_or_default()
}

/// Whether what is measured of a node that is so decides nothing.
fn holds_back(state: NodeState) -> bool {
    !state.is_heard() || state == NodeState::Maintenance
}

/// Of the list of what is over: when, and the id among those of that moment.
fn cursor((at, id): (WallMs, AlertId)) -> String {
    format!("{}-{id}", at.0)
}

fn parse_cursor(text: &str) -> Option<(WallMs, AlertId)> {
    let (at, id) = text.rsplit_once('-')?;
    let parsed = (WallMs(at.parse().ok()?), id.parse().ok()?);
    // Written the one way in which we write it.
    (cursor(parsed) == text).then_some(parsed)
}

fn no_cursor() -> Problem {
    Problem::bad_request("after is no cursor of this list; give `next` of a page with the same states")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_the_one_way_in_which_it_is_written() {
        let id = AlertId::from_bytes([7; 10]);
        for at in [0, 1_795_000_000_000, i64::MAX, -1] {
            assert_eq!(parse_cursor(&cursor((WallMs(at), id))), Some((WallMs(at), id)), "{at}");
        }
        for text in ["", "-", "1", "1-", "-07070707070707070707", "+1-07070707070707070707", "01-07070707070707070707"]
        {
            assert_eq!(parse_cursor(text), None, "{text:?}");
        }
        assert_eq!(parse_cursor("1-0707070707070707070A"), None);
    }
}
