//! Metrics over the fleet, from roll-ups: what all of its nodes, or those with some labels, came to over time.

use std::collections::HashMap;

use axum::extract::State;
use dunlin_shared::id::NodeId;
use dunlin_shared::sample::Subject;

use super::Api;
use super::body::{Json, ok};
use super::caller::{Caller, Viewer};
use super::params::Params;
use super::problem::Problem;
use super::series::{POINTS_MAX, Question, Slots, few_enough, page, shape_of, too_dear};
use crate::record::NodeKey;
use crate::registry::Labels;
use crate::rollup;
use crate::shape;
use crate::store::Level;
use crate::view::FleetView;
use crate::window::{FleetAsked, Window};

/// Cells that one answer may take, 48 bytes each.
const CELLS_MAX: usize = 1_000_000;
/// Of so many nodes at most, what is not sealed yet is rolled up for the answer.
const FRESH_MAX: usize = 50;

/// Metrics over the fleet
///
/// From roll-ups of five minutes or an hour. Of more than 50 nodes the last minutes, which are not sealed yet, are missing.
#[utoipa::path(get, path = "/api/v1/series", tag = "nodes", security(("bearer" = ["viewer"])),
    params(
        ("metric" = Vec<String>, Query, description = "A name of docs/metrics.md, or `x_*` in full; repeated, each of them"),
        ("subject" = Option<Vec<String>>, Query, description = "Such as `host` or `fs:/var`; repeated, each of them; absent, all"),
        ("label" = Option<Vec<String>>, Query, description = "`KEY=VALUE`; repeated, all must be borne"),
        ("from" = Option<String>, Query, description = "RFC 3339, or a duration before now such as `2h`; an hour before `to` when absent"),
        ("to" = Option<String>, Query, description = "The same; now when absent"),
        ("step" = Option<String>, Query, description = "Rounded up to a multiple of the resolution; when absent, `5m` or `1h`, whichever is few enough points"),
        ("fold" = Option<String>, Query, description = "What becomes of the points in a step: `mean` (when absent), `min`, `max` or `last`"),
        ("counter" = Option<String>, Query, description = "`rate`: roll-ups hold nothing else"),
        ("resolution" = Option<String>, Query, description = "`5m` or `1h`; when absent, the coarsest that serves the step")
    ),
    responses(
        (status = 200, description = "Each that there is", body = shape::SeriesPage),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn fleet_series(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    mut params: Params,
) -> Result<Json<shape::SeriesPage>, Problem> {
    let now = api.published.clock.wall();
    let labels = params.labels()?;
    let question = Question::take(&mut params, now)?;
    params.done()?;
    let nodes = chosen(&api.published.fleet.load(), &caller, &labels);
    let level = level(&question, nodes.len())?;
    let found = api.desk.window(move |window| answer(window, &question, level, &nodes)).await?;
    Ok(ok(page(found, level)))
}

/// What is known of a node that is asked for.
#[derive(Clone, Copy)]
struct Chosen {
    id: NodeId,
    skew_ms: i64,
}

fn chosen(fleet: &FleetView, caller: &Caller, labels: &Labels) -> HashMap<NodeKey, Chosen> {
    let wanted = fleet.nodes.iter().filter(|node| caller.sees(node) && node.bears(labels));
    wanted
        .filter_map(|node| Some((node.about.key?, Chosen { id: node.id, skew_ms: node.about.skew_ms.unwrap_or(0) })))
        .collect()
}

/// The coarsest that serves the step; without a step the finest that is few enough points.
fn level(question: &Question, nodes: usize) -> Result<Level, Problem> {
    let span_ms = question.to.since(question.from);
    let points = |step_ms: i64| usize::try_from(span_ms / step_ms + 1).unwrap_or(usize::MAX).saturating_mul(nodes);
    let (mid_ms, long_ms) = (Level::Mid.slot_ms().unwrap_or(1), Level::Long.slot_ms().unwrap_or(1));
    let level = match (question.level, question.step_ms) {
        (Some(Level::Full), _) => return Err(Problem::bad_request("over the fleet resolution is 5m or 1h")),
        (Some(level), _) => level,
        (None, Some(step_ms)) if step_ms % long_ms == 0 => Level::Long,
        (None, Some(_)) => Level::Mid,
        (None, None) if points(mid_ms) <= POINTS_MAX => Level::Mid,
        (None, None) => Level::Long,
    };
    let slot_ms = level.slot_ms().unwrap_or(1);
    few_enough(points(slot_ms.saturating_mul(rollup::slots_of(question.step_ms, slot_ms))))?;
    Ok(level)
}

fn answer(
    window: &Window,
    question: &Question,
    level: Level,
    nodes: &HashMap<NodeKey, Chosen>,
) -> Result<Vec<shape::Series>, Problem> {
    let (Some(first), Some(last)) = (nodes.keys().min(), nodes.keys().max()) else { return Ok(Vec::new()) };
    let wanted = |node: NodeKey, subject: &Subject| {
        nodes.contains_key(&node) && (question.subjects.is_empty() || question.subjects.contains(subject))
    };
    let fresh: Vec<_> = if nodes.len() <= FRESH_MAX {
        nodes.iter().map(|(key, chosen)| (*key, chosen.skew_ms)).collect()
    } else {
        Vec::new()
    };
    let slots = Slots::of(question, level.slot_ms().unwrap_or(1));
    let (from, to) = slots.range;
    let metrics = &question.metrics;
    let asked = FleetAsked {
        level,
        metrics,
        wanted: &wanted,
        nodes: (*first, *last),
        fresh: &fresh,
        from,
        to,
        cells_max: CELLS_MAX,
    };
    let rolled = window.rolled(&asked).map_err(|error| too_dear(error, "fewer nodes by a label, or a shorter time"))?;
    let mut series = Vec::with_capacity(rolled.len());
    let mut points = 0;
    for rolled in rolled {
        let Some(chosen) = nodes.get(&rolled.node) else { continue };
        let line = slots.line(rolled);
        points += line.points.len();
        few_enough(points)?;
        if !line.points.is_empty() {
            series.extend(shape_of(&chosen.id.to_string(), line));
        }
    }
    Ok(series)
}
