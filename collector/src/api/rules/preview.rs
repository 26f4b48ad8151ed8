//! Rules over the past: what they would have said, before anybody is woken by them.
//!
//! What it reads is known before it does; one at a time, and nobody waits for it who only looks at a node.

use std::sync::Arc;

use axum::extract::State;
use dunlin_shared::rule::{Fields, Rule};
use dunlin_shared::time::WallMs;

use super::super::Api;
use super::super::body::{Json, SentText, ok};
use super::super::caller::{Caller, Viewer};
use super::super::params::Params;
use super::super::problem::Problem;
use super::super::series::{INTERVAL_MS, too_dear};
use super::sets::wrong;
use crate::registry::Labels;
use crate::rules::preview::{FRAMES_MAX, Node, PreviewError, Previewed, Question};
use crate::shape::{self, Moment, RuleFiring, RulePreview, RulePreviewed};
use crate::trial::preview::{Firing, Whose, lead_ms, unfit};
use crate::view::{FleetView, NodeView};

/// Each takes two threads.
pub(in super::super) const PREVIEWS_MAX: usize = 1;
/// Each is looked for on every node.
const RULES_MAX: usize = 100;
const DAY_MS: i64 = 86_400_000;
const PAGE: usize = 1_000;
const PAGE_MAX: usize = 10_000;
/// For how long it may go on. `dunlin` waits a little longer.
const PATIENCE_MS: u64 = 60_000;

/// What rules would have said of the past
///
/// The body is TOML, as `text/plain` or `application/toml`; nothing of it is put in force. Every sample of the time is
/// judged at the moment at which it was measured. Rules that ask for what the collector alone knows are named with that.
#[utoipa::path(post, path = "/api/v1/rules/preview", tag = "rules", security(("bearer" = ["viewer"])),
    params(
        ("from" = Option<String>, Query, description = "RFC 3339, or a duration before now such as `2h`; a day before `to` when absent"),
        ("to" = Option<String>, Query, description = "The same; now when absent"),
        ("label" = Option<Vec<String>>, Query, description = "`KEY=VALUE` of nodes; repeated, all must be borne"),
        ("limit" = Option<u32>, Query, description = "Alerts that are listed: 1 to 10000, 1000 when absent; all are counted")
    ),
    request_body(content = String, content_type = "application/toml"),
    responses(
        (status = 200, description = "What they would have said", body = RulePreview),
        (status = 422, description = "What is wrong with the rules", body = shape::Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(in super::super) async fn preview(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    mut params: Params,
    SentText { text, .. }: SentText,
) -> Result<Json<RulePreview>, Problem> {
    let now = api.published.clock.wall();
    let limit = params.limit(PAGE, PAGE_MAX)?;
    let labels = params.labels()?;
    let to = params.time("to", now)?.unwrap_or(now).min(now);
    let from = params.time("from", now)?.unwrap_or_else(|| to.plus(-DAY_MS));
    params.done()?;
    if from >= to {
        return Err(Problem::bad_request("from is not before to"));
    }
    let busy = || Problem::too_many("another preview is being made; try again in some seconds", 5);
    let place = Arc::clone(&api.previews).try_acquire_owned().map_err(|_| busy())?;
    let fleet = api.published.fleet.load_full();
    let nodes = Named::of(&fleet, &caller, &labels);
    let clock = api.published.clock;
    let found = api.desk.window(move |window| {
        let rules = read(&text)?;
        let fit: Vec<Arc<Rule>> = rules.iter().filter(|rule| unfit(rule).is_none()).map(Arc::clone).collect();
        let question = Question { rules: &fit, nodes: &nodes.nodes, from, to };
        affordable(&question, now)?;
        let deadline = clock.mono().plus(PATIENCE_MS);
        let previewed = question.answer(window, &|| clock.mono() > deadline).map_err(too_long)?;
        drop(place);
        Ok(shown(&rules, &nodes, (from, to, limit), (&fit, previewed)))
    });
    Ok(ok(found.await?))
}

/// Nodes to look at, and what they are called.
struct Named {
    nodes: Vec<Node>,
    names: Vec<Arc<str>>,
}

impl Named {
    fn of(fleet: &FleetView, caller: &Caller, labels: &Labels) -> Self {
        let seen = fleet.nodes.iter().filter(|node| caller.sees(node) && node.bears(labels));
        let node = |node: &NodeView| {
            let about = &node.about;
            let labels = Arc::new(about.labels.clone());
            let whose = Whose { id: node.id, labels, interval_ms: about.interval_ms.unwrap_or(INTERVAL_MS) };
            Some((Node { key: about.key?, skew_ms: about.skew_ms.unwrap_or(0), whose }, Arc::clone(&about.name)))
        };
        let (nodes, names) = seen.filter_map(node).unzip();
        Self { nodes, names }
    }
}

/// The rules of the text by themselves, as if all were switched on.
fn read(text: &str) -> Result<Vec<Arc<Rule>>, Problem> {
    let rules = dunlin_shared::rule::file::parse("body", text);
    let rules = rules.map_err(|errors| wrong(errors.iter().map(ToString::to_string).collect()))?;
    if rules.is_empty() || rules.len() > RULES_MAX {
        let detail = format!("the body has {} rules; 1 to {RULES_MAX} are previewed at a time", rules.len());
        return Err(Problem::bad_request(detail));
    }
    Ok(rules.into_iter().map(|rule| Arc::new(Rule { is_enabled: true, ..rule })).collect())
}

fn affordable(question: &Question<'_>, now: WallMs) -> Result<(), Problem> {
    let frames = question.frames();
    if frames <= FRAMES_MAX {
        return Ok(());
    }
    let span_ms = question.to.since(question.from);
    let lead_ms = lead_ms(question.rules);
    let enough_ms = i64::try_from(i128::from(span_ms + lead_ms) * i128::from(FRAMES_MAX) / i128::from(frames));
    let shorter_ms = (enough_ms.unwrap_or(0) - lead_ms) / 60_000 * 60_000;
    let cheaper = if shorter_ms > 0 && question.to >= now.plus(-60_000) {
        format!("ask with from={}m, or of fewer nodes by label", shorter_ms / 60_000)
    } else {
        String::from("ask for a shorter time, or of fewer nodes by label")
    };
    Err(Problem::bad_request(format!("this would read about {frames} frames, and {FRAMES_MAX} are allowed; {cheaper}")))
}

fn too_long(error: PreviewError) -> Problem {
    match error {
        PreviewError::Read(error) => too_dear(error, "or a shorter time"),
        PreviewError::TooLong => Problem::unavailable(format!(
            "it took longer than {} s; ask for a shorter time, or of fewer nodes by label",
            PATIENCE_MS / 1_000
        )),
    }
}

fn shown(
    rules: &[Arc<Rule>],
    nodes: &Named,
    (from, to, limit): (WallMs, WallMs, usize),
    (fit, previewed): (&[Arc<Rule>], Previewed),
) -> RulePreview {
    let of_rule = |rule: &Arc<Rule>| {
        let place = fit.iter().position(|fit| Arc::ptr_eq(fit, rule));
        let count = place.map(|place| previewed.counts[place]).unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53 ms")]
        let seconds = count.firing_ms as f64 / 1_000.0;
        let (alerts, nodes) = (count.alerts, count.nodes);
        RulePreviewed { rule: rule.name.to_string(), alerts, nodes, seconds, not_previewed: unfit(rule) }
    };
    let all: usize = previewed.counts.iter().map(|count| count.alerts).sum();
    let rules = rules.iter().map(of_rule).collect();
    let firings = previewed.firings.iter().take(limit);
    let items: Vec<_> = firings.map(|(at, firing)| item(&nodes.nodes[*at], &nodes.names[*at], firing)).collect();
    let more = items.len() < all;
    RulePreview { from: Moment(from), to: Moment(to), nodes: nodes.nodes.len(), rules, items, more }
}

fn item(node: &Node, name: &str, firing: &Firing) -> RuleFiring {
    let Firing { rule, subject, began, fired, resolved, value, threshold } = firing;
    let fields = Fields {
        node: name,
        subject,
        rule: &rule.name,
        severity: rule.severity,
        value: *value,
        threshold: *threshold,
        shown_as: &rule.shown_as,
        for_ms: rule.for_ms,
        label: &|key| node.whose.labels.get(key).map(String::as_str),
    };
    RuleFiring {
        rule: rule.name.to_string(),
        severity: rule.severity.as_str().to_owned(),
        node: node.whose.id.to_string(),
        name: name.to_owned(),
        subject: subject.to_string(),
        began: Moment(*began),
        fired: Moment(*fired),
        resolved: resolved.map(Moment),
        value: *value,
        threshold: *threshold,
        summary: rule.summary.render(&fields),
    }
}
