//! The fleet: which nodes there are and how they are.
//!
//! All of it comes from the published picture; nothing here touches a file.

use std::collections::BTreeMap;

use axum::extract::State;
use dunlin_shared::id::NodeId;
use dunlin_shared::sample::{ABSENT, Reading, Subject};
use dunlin_shared::time::WallMs;

use super::Api;
use super::body::{Json, ok};
use super::caller::{Caller, Viewer};
use super::events;
use super::params::{Named, Params, short};
use super::problem::Problem;
use crate::board::AlertBoard;
use crate::shape::{self, Moment, State as Shown};
use crate::stock::Counts;
use crate::view::{FleetView, NodeView, NotOne};

const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;
/// Values that a list may carry for each node.
const VALUES_MAX: usize = 16;
/// Events that are shown with one node.
const CHANGES: usize = 20;

/// The nodes, oldest first
#[utoipa::path(get, path = "/api/v1/nodes", tag = "nodes", security(("bearer" = ["viewer"])),
    params(
        ("limit" = Option<u32>, Query, description = "Nodes in a page: 1 to 1000, 100 when absent"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("label" = Option<Vec<String>>, Query, description = "`KEY=VALUE`; repeated, all must be borne"),
        ("state" = Option<Vec<String>>, Query, description = "A state; repeated, any of them"),
        ("name" = Option<String>, Query, description = "The name, exactly"),
        ("value" = Option<Vec<String>>, Query, description = "`METRIC` of the host, or `METRIC@SUBJECT`: its latest value goes with each node; at most 16")
    ),
    responses(
        (status = 200, description = "A page", body = shape::NodePage),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn list(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    mut params: Params,
) -> Result<Json<shape::NodePage>, Problem> {
    let limit = params.limit(PAGE, PAGE_MAX)?;
    let after = after(&mut params)?;
    let labels = params.labels()?;
    let states = states(&mut params)?;
    let name = params.one("name")?;
    let values = wanted_values(&mut params)?;
    params.done()?;
    let (fleet, board) = (api.published.fleet.load_full(), api.published.board.load_full());
    let now = api.published.clock.wall();
    let from = after.map_or(0, |after| fleet.nodes.partition_point(|node| node.id <= after));
    let fits = |node: &&NodeView| {
        caller.sees(node)
            && name.as_deref().is_none_or(|name| *node.about.name == *name)
            && node.bears(&labels)
            && (states.is_empty() || states.contains(&state_of(node)))
    };
    let mut found = fleet.nodes[from..].iter().filter(fits);
    let mut items: Vec<shape::Node> = Vec::new();
    for node in found.by_ref().take(limit) {
        let mut shown = shown(node, now, &board);
        shown.values = values_of(node, &values);
        items.push(shown);
    }
    let next = if found.next().is_some() { items.last().map(|last| last.id.clone()) } else { None };
    Ok(ok(shape::NodePage { items, next }))
}

/// One node
#[utoipa::path(get, path = "/api/v1/nodes/{id}", tag = "nodes", security(("bearer" = ["viewer"])),
    params(("id" = String, Path, description = "An id, or a name that one node alone has")),
    responses(
        (status = 200, description = "It", body = shape::Node),
        (status = "4XX", description = "Why not; 409 lists the ids of an ambiguous name", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn one(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    Named(word): Named,
    params: Params,
) -> Result<Json<shape::Node>, Problem> {
    params.done()?;
    let (id, key, mut node) = {
        let fleet = api.published.fleet.load();
        let node = find(&fleet, &caller, &word)?;
        (node.id, node.about.key, shown(node, api.published.clock.wall(), &api.published.board.load()))
    };
    let read = api.desk.control(move |reader| {
        let counts = key.map(|key| reader.stock_counts(key)).transpose()?.flatten();
        Ok((counts, reader.events_about(id, CHANGES)?))
    });
    // How a node is can be said while the disk is in trouble, and then it matters most.
    if let Ok((counts, changes)) = read.await {
        node.counts = counts.map(shown_counts);
        let incarnation = api.published.incarnation;
        node.changes = Some(changes.into_iter().map(|row| events::shown(incarnation, row)).collect());
    }
    Ok(ok(node))
}

/// Which series a node has now, with their latest values
#[utoipa::path(get, path = "/api/v1/nodes/{id}/metrics", tag = "nodes", security(("bearer" = ["viewer"])),
    params(
        ("id" = String, Path, description = "An id, or a name that one node alone has"),
        ("subject" = Option<Vec<String>>, Query, description = "Such as `host` or `fs:/var`; repeated, any of them"),
        ("metric" = Option<Vec<String>>, Query, description = "A name of docs/metrics.md; repeated, any of them")
    ),
    responses(
        (status = 200, description = "All of them", body = shape::MetricPage),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn metrics(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    Named(word): Named,
    mut params: Params,
) -> Result<Json<shape::MetricPage>, Problem> {
    let (subjects, names) = (params.all("subject"), params.all("metric"));
    params.done()?;
    let fleet = api.published.fleet.load_full();
    let node = find(&fleet, &caller, &word)?;
    let Some(reading) = &node.latest else {
        return Ok(ok(shape::MetricPage { items: Vec::new(), next: None, at: None }));
    };
    let mut items = all_values(reading);
    items.retain(|item| {
        (subjects.is_empty() || subjects.contains(&item.subject)) && (names.is_empty() || names.contains(&item.metric))
    });
    Ok(ok(shape::MetricPage { items, next: None, at: Some(Moment(reading.wall)) }))
}

/// The one node that a word names, among those that the caller sees.
pub(super) fn find<'f>(fleet: &'f FleetView, caller: &Caller, word: &str) -> Result<&'f NodeView, Problem> {
    let missing = || Problem::not_found(format!("there is no node {:?}", short(word)));
    match fleet.find(word) {
        Ok(node) if caller.sees(node) => Ok(node),
        Ok(_) | Err(NotOne::None) => Err(missing()),
        Err(NotOne::Many(ids)) => {
            let seen: Vec<&NodeView> =
                ids.iter().filter_map(|id| fleet.node(*id)).filter(|node| caller.sees(node)).collect();
            match seen.as_slice() {
                [] => Err(missing()),
                [one] => Ok(one),
                many => {
                    let ids: Vec<String> = many.iter().map(|node| node.id.to_string()).collect();
                    let detail = format!("{} nodes have the name {:?}; give one of their ids", ids.len(), short(word));
                    Err(Problem::conflict(detail, ids))
                }
            }
        }
    }
}

/// The word that the engine chose.
fn state_of(node: &NodeView) -> Shown {
    Shown::parse(node.state.as_str()).unwrap_or(Shown::Unknown)
}

fn maintenance_of(node: &NodeView, now: WallMs) -> Option<shape::Maintenance> {
    let until = node.about.maintained_until?;
    until.is_none_or(|until| now < until).then(|| shape::Maintenance { until: until.map(Moment) })
}

fn shown(node: &NodeView, now: WallMs, board: &AlertBoard) -> shape::Node {
    let about = &node.about;
    let facts = about.facts.as_ref().map(|facts| shape::Facts {
        host_name: facts.host_name.clone(),
        os: facts.os.clone(),
        kernel: facts.kernel.clone(),
        architecture: facts.architecture.clone(),
        cpus: facts.cpus,
        memory_bytes: facts.memory_bytes,
        boot_id: NodeId::from_bytes(facts.boot_id).to_string(),
    });
    let machine = |(boot_id, name): &([u8; 16], String)| shape::QuarantinedMachine {
        boot_id: NodeId::from_bytes(*boot_id).to_string(),
        name: name.clone(),
    };
    shape::Node {
        id: node.id.to_string(),
        name: about.name.to_string(),
        state: state_of(node).as_str().to_owned(),
        since: Moment(node.since),
        last_seen: node.last_seen.map(Moment),
        labels: about.labels.clone(),
        facts,
        version: about.version.clone(),
        skew_ms: about.skew_ms,
        enrolled: Moment(about.enrolled),
        interval_ms: about.interval_ms,
        ephemeral: about.is_ephemeral,
        maintenance: maintenance_of(node, now),
        alerts: board.firing_on(node.id),
        quarantined: about.quarantined.iter().map(machine).collect(),
        values: BTreeMap::new(),
        counts: None,
        changes: None,
    }
}

const fn shown_counts(counts: Counts) -> shape::Counts {
    let Counts { containers, containers_up, processes, ports, ports_exposed, units_failed } = counts;
    shape::Counts { containers, containers_up, processes, ports, ports_exposed, units_failed }
}

fn after(params: &mut Params) -> Result<Option<NodeId>, Problem> {
    let Some(text) = params.one("after")? else { return Ok(None) };
    let id = text.parse().map_err(|_| Problem::bad_request("after is no cursor of this list; give `next` of a page"));
    id.map(Some)
}

fn states(params: &mut Params) -> Result<Vec<Shown>, Problem> {
    let known = || Shown::ALL.map(Shown::as_str).join(", ");
    let wrong = |text: &String| Problem::bad_request(format!("state is {:?}; it is one of {}", short(text), known()));
    params.all("state").iter().map(|text| Shown::parse(text).ok_or_else(|| wrong(text))).collect()
}

/// Each with the words it was asked for by.
fn wanted_values(params: &mut Params) -> Result<Vec<(String, Subject)>, Problem> {
    let asked = params.all("value");
    if asked.len() > VALUES_MAX {
        return Err(Problem::bad_request(format!("value is given {} times; {VALUES_MAX} are allowed", asked.len())));
    }
    let parsed = |text: String| {
        let subject = text.split_once('@').map_or(Some(Subject::HOST()), |(_, subject)| Subject::parse(subject));
        let wrong = || Problem::bad_request(format!("value is {:?}; write METRIC or METRIC@SUBJECT", short(&text)));
        subject.ok_or_else(wrong).map(|subject| (text, subject))
    };
    asked.into_iter().map(parsed).collect()
}

fn values_of(node: &NodeView, wanted: &[(String, Subject)]) -> BTreeMap<String, f64> {
    let Some(reading) = &node.latest else { return BTreeMap::new() };
    let value = |(text, subject): &(String, Subject)| {
        let metric = text.split_once('@').map_or(text.as_str(), |(metric, _)| metric);
        Some((text.clone(), reading.value(subject, metric)?))
    };
    wanted.iter().filter_map(value).collect()
}

fn all_values(reading: &Reading) -> Vec<shape::Metric> {
    let layout = &reading.layout;
    let value = |(series, &steps): (&dunlin_shared::sample::Series, &i64)| {
        let (metric, unit, kind, step) = layout.describe(series.metric)?;
        let subject = layout.subjects.get(usize::from(series.subject))?;
        (steps != ABSENT).then(|| shape::Metric {
            subject: subject.to_string(),
            metric: metric.to_owned(),
            unit: unit.as_str().to_owned(),
            kind: kind.as_str().to_owned(),
            value: step.value(steps),
        })
    };
    layout.series.iter().zip(&reading.values).filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::NodeState;

    #[test]
    fn every_state_of_the_engine_has_its_word_in_the_contract() {
        for state in NodeState::ALL {
            assert_eq!(Shown::parse(state.as_str()).map(Shown::as_str), Some(state.as_str()));
        }
        assert_eq!(NodeState::ALL.len(), Shown::ALL.len());
    }
}
