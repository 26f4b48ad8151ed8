//! An alert that explains itself: what was compared, over which course, who took most of the node, what had changed.
//!
//! Everything in it is bounded. What cannot be read while the disk is in trouble is left out, and the rest is said.

use std::sync::Arc;

use axum::extract::State;
use dunlin_shared::config::render_duration;
use dunlin_shared::id::NodeId;
use dunlin_shared::metric::by_id;
use dunlin_shared::rule::{Rule, Scope, ShownAs, Source};
use dunlin_shared::sample::{Subject, SubjectKind};
use dunlin_shared::time::WallMs;

use super::super::Api;
use super::super::body::{Json, ok};
use super::super::caller::{Caller, Viewer};
use super::super::events;
use super::super::params::{Named, Params};
use super::super::problem::Problem;
use super::super::series::{INTERVAL_MS, Question, shape_of};
use super::find::{Found, find};
use super::{is_seen, picture, shown, shown_kept};
use crate::board::{AlertBoard, AlertView, AtFiring};
use crate::engine::alert::AlertId;
use crate::record::NodeKey;
use crate::shape::{self, Moment};
use crate::store::{EventRow, KeptAlert, Level};
use crate::view::FleetView;

const HOUR_MS: i64 = 3_600_000;
const STEP_MS: i64 = 60_000;
/// Of what is older than that, roll-ups are read: samples of days would be too dear.
const SAMPLES_MS: i64 = 24 * HOUR_MS;
/// What changes something shows within so long.
const BEFORE_MS: i64 = 10 * 60_000;
const CHANGES: usize = 20;
const OTHERS: usize = 20;

/// What there is to know of an alert
#[utoipa::path(get, path = "/api/v1/alerts/{id}/context", tag = "alerts", security(("bearer" = ["viewer"])),
    params(("id" = String, Path, description = "An id, or the first digits of one, at least 6, that no other begins with")),
    responses(
        (status = 200, description = "It", body = shape::AlertContext),
        (status = "4XX", description = "Why not; 409 lists the ids that begin so", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(in super::super) async fn context(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    Named(word): Named,
    params: Params,
) -> Result<Json<shape::AlertContext>, Problem> {
    params.done()?;
    let found = find(&api, &caller, &word).await?;
    let (board, fleet) = picture(&api);
    let alert = found.shown(&fleet);
    let rule = match &found {
        Found::Open(alert) => Some(&alert.rule),
        Found::Kept(kept) => board.rule(&kept.row.rule),
    };
    let about = About::new(&found, &alert, &fleet, api.published.clock.wall());
    let read = read(&api, &about).await;
    let at_firing = read.row.as_ref().and_then(|kept| AtFiring::read(&kept.row.top));
    let series = match rule {
        Some(rule) => series(&api, rule, &about).await,
        None => Vec::new(),
    };
    let shown_as = rule.map_or(&ShownAs::Number, |rule| &rule.shown_as);
    let fired = at_firing.as_ref().map(|then| compared(shown_as, alert.since, (then.value, then.threshold)));
    let incarnation = api.published.incarnation;
    Ok(ok(shape::AlertContext {
        rule: rule.map(|rule| text_of(rule)),
        now: compared(shown_as, Moment(about.end), (alert.value, alert.threshold)),
        fired,
        series,
        top: at_firing.map(|then| top(&then, rule.map_or("cpu", |rule| resource(rule)))).unwrap_or_default(),
        changes: read.changes.into_iter().map(|row| events::shown(incarnation, row)).collect(),
        others: others(&caller, &about, (&board, &fleet), &read.others),
        alert,
    }))
}

/// What is read of an alert, and for which time.
struct About {
    id: AlertId,
    node: Option<NodeId>,
    key: Option<NodeKey>,
    interval_ms: u32,
    skew_ms: i64,
    subject: String,
    began: WallMs,
    fired: WallMs,
    /// Now, or when it was over.
    end: WallMs,
    now: WallMs,
}

impl About {
    fn new(found: &Found, alert: &shape::Alert, fleet: &FleetView, now: WallMs) -> Self {
        let node = found.node();
        let about = node.and_then(|id| fleet.node(id)).map(|node| &node.about);
        let kept_key = match found {
            Found::Open(_) => None,
            Found::Kept(kept) => kept.row.node,
        };
        Self {
            id: found.id(),
            node,
            key: about.and_then(|about| about.key).or(kept_key),
            interval_ms: about.and_then(|about| about.interval_ms).unwrap_or(INTERVAL_MS),
            skew_ms: about.and_then(|about| about.skew_ms).unwrap_or(0),
            subject: alert.subject.clone(),
            began: alert.began.0,
            fired: alert.since.0,
            end: alert.resolved.map_or(now, |at| at.0),
            now,
        }
    }
}

/// What `control.db` knows of it.
#[derive(Default)]
struct Read {
    row: Option<KeptAlert>,
    changes: Vec<EventRow>,
    /// Those that are over.
    others: Vec<KeptAlert>,
}

async fn read(api: &Api, about: &About) -> Read {
    let (id, node, key) = (about.id, about.node, about.key);
    let (within, end) = ((about.began.plus(-BEFORE_MS), about.fired), about.end);
    let read = api.desk.control(move |reader| {
        let row = reader.alerts_in(&(id..=id), 1)?.pop();
        let changes = node.map(|node| reader.changes_within(node, within, CHANGES)).transpose()?.unwrap_or_default();
        let newest = (end.plus(1), AlertId::from_bytes([0; 10]));
        let others = key.map(|key| reader.alerts_resolved(newest, Some(key), OTHERS + 1)).transpose()?;
        Ok(Read { row, changes, others: others.unwrap_or_default() })
    });
    read.await.unwrap_or_default()
}

/// Those that are open first, the worst of them first; then those that ended, the latest first.
fn others(
    caller: &Caller,
    about: &About,
    (board, fleet): (&AlertBoard, &FleetView),
    over: &[KeptAlert],
) -> Vec<shape::Alert> {
    let is_other = |alert: &&Arc<AlertView>| {
        alert.id != about.id
            && alert.node == about.node
            && alert.began <= about.end
            && is_seen(caller, fleet, alert.node)
    };
    let mut open: Vec<&Arc<AlertView>> = board.alerts.iter().filter(is_other).collect();
    open.sort_by(|a, b| b.rule.severity.cmp(&a.rule.severity).then(a.since.cmp(&b.since)).then(a.id.cmp(&b.id)));
    let since = about.end.plus(-HOUR_MS);
    let is_recent = |kept: &&KeptAlert| {
        let is_late = kept.row.resolved.is_some_and(|(at, _)| at >= since);
        kept.row.id != about.id && is_late && board.alert(kept.row.id).is_none()
    };
    let over = over.iter().filter(is_recent).map(|kept| shown_kept(kept, fleet));
    open.into_iter().map(|alert| shown(alert, fleet)).chain(over).take(OTHERS).collect()
}

/// The course of what the rule reads, in the order in which it reads it.
async fn series(api: &Api, rule: &Rule, about: &About) -> Vec<shape::Series> {
    let (Some(node), Some(key)) = (about.node, about.key) else { return Vec::new() };
    let wanted = measured(rule, &about.subject);
    if wanted.is_empty() {
        return Vec::new();
    }
    let (metrics, subjects): (Vec<String>, Vec<Subject>) = wanted.iter().cloned().unzip();
    let (from, now) = (about.end.plus(-HOUR_MS), about.now);
    let level = (now.since(from) > SAMPLES_MS).then_some(Level::Mid);
    let question = Question::of((metrics, subjects), (from, about.end), STEP_MS, level);
    let node_of = (key, about.interval_ms, about.skew_ms);
    // Without its course an alert still says what is wrong.
    let answered = api.desk.window(move |window| question.answer(window, node_of, now)).await;
    let lines = answered.map(|(lines, _)| lines).unwrap_or_default();
    let place = |series: &shape::Series| {
        wanted.iter().position(|(metric, subject)| *metric == series.metric && subject.to_string() == series.subject)
    };
    let mut found: Vec<(usize, shape::Series)> = lines
        .into_iter()
        .filter_map(|line| shape_of(&node.to_string(), line))
        .filter_map(|series| Some((place(&series)?, series)))
        .collect();
    found.sort_by_key(|(place, _)| *place);
    found.into_iter().map(|(_, series)| series).collect()
}

/// What of an agent's samples a rule reads for an alert on this subject, each once.
fn measured(rule: &Rule, subject: &str) -> Vec<(String, Subject)> {
    let mut wanted: Vec<(String, Subject)> = Vec::new();
    for term in &rule.terms {
        let of_alert = || Subject::parse(subject);
        let found = match &term.source {
            Source::Catalogued(id) => by_id(*id).map(|metric| {
                let single = metric.subject.is_single().then(|| Subject::parse(metric.subject.as_str()));
                (metric.name.to_owned(), single.unwrap_or_else(of_alert))
            }),
            Source::Open(name) if rule.scope == Scope::Node => {
                Some((name.to_string(), Subject::parse(SubjectKind::Host.as_str())))
            }
            Source::Open(name) => Some((name.to_string(), of_alert())),
            Source::Known(_) => None,
        };
        if let Some((metric, Some(subject))) = found
            && !wanted.iter().any(|known| *known == (metric.clone(), subject.clone()))
        {
            wanted.push((metric, subject));
        }
    }
    wanted
}

/// Which of what a node has an alert is about, by what the rule reads first.
fn resource(rule: &Rule) -> &'static str {
    const WORDS: [(&str, &[&str]); 2] = [
        ("memory", &["memory", "swap", "oom", "major_faults"]),
        ("disk", &["disk", "fs_", "_io_", "iowait", "read_bytes", "written_bytes", "inode"]),
    ];
    let of_name = |name: &str| {
        WORDS.into_iter().find(|(_, words)| words.iter().any(|word| name.contains(word))).map(|(resource, _)| resource)
    };
    let of_term = |source: &Source| match source {
        Source::Catalogued(id) => by_id(*id).and_then(|metric| of_name(metric.name)),
        Source::Open(name) => of_name(name),
        Source::Known(known) => of_name(known.as_str()),
    };
    rule.terms.iter().find_map(|term| of_term(&term.source)).unwrap_or("cpu")
}

/// The resource in question first.
fn top(then: &AtFiring, first: &str) -> Vec<shape::Top> {
    let list = |by: &str, (unit, per_second): (&str, bool), amounts: &[(String, f64)]| shape::Top {
        by: by.to_owned(),
        unit: unit.to_owned(),
        per_second,
        items: amounts
            .iter()
            .map(|(subject, value)| shape::Culprit { subject: subject.clone(), value: *value })
            .collect(),
    };
    let mut lists = vec![
        list("cpu", ("cores", false), &then.cpu),
        list("memory", ("bytes", false), &then.memory),
        list("disk", ("bytes", true), &then.disk),
    ];
    lists.retain(|list| !list.items.is_empty());
    lists.sort_by_key(|list| list.by != first);
    lists
}

fn compared(shown_as: &ShownAs, at: Moment, (value, threshold): (Option<f64>, Option<f64>)) -> shape::Compared {
    let text = |value: Option<f64>| shown_as.write(value.unwrap_or(f64::NAN));
    shape::Compared { at, value, threshold, value_text: text(value), threshold_text: text(threshold) }
}

fn text_of(rule: &Rule) -> shape::RuleText {
    shape::RuleText {
        name: rule.name.to_string(),
        when: rule.when_text.to_string(),
        clear: rule.clear_text.as_ref().map(ToString::to_string),
        hold: render_duration(rule.for_ms),
        keep_firing_for: render_duration(rule.keep_firing_ms),
        place: format!("{}:{}", rule.place.file, rule.place.line),
    }
}
