//! The window: what a node measured, over time.
//!
//! A question has a price in frames to be read, which is known before they are. What would be too dear is
//! refused with a cheaper question.

use axum::extract::State;
use dunlin_shared::metric;
use dunlin_shared::sample::Subject;
use dunlin_shared::time::WallMs;

use super::Api;
use super::body::{Json, ok};
use super::caller::Viewer;
use super::nodes::find;
use super::params::{Named, Params, short};
use super::problem::Problem;
use crate::block::Measure;
use crate::points::{Fold, Line, Wanted, fold, lines};
use crate::record::{Pos, Record};
use crate::shape::{self, Moment};
use crate::stretch::{self, Clocks, Taken};

const HOUR_MS: i64 = 3_600_000;
/// Frames that one question may read: a day at a tick of a second, and 20 MB.
const FRAMES_MAX: i64 = 100_000;
/// Values that it may hold while it is answered, 8 bytes each, and those that could be there counted as well.
const VALUES_MAX: usize = 4_000_000;
/// Points in one answer, 40 bytes each as JSON.
const POINTS_MAX: usize = 200_000;
const STEP_MS_MIN: i64 = 1_000;
/// When the agent has not said how often it ticks.
const INTERVAL_MS: u32 = 10_000;
/// A file of the window begins with keyframes, and lasts five minutes unless the clock was moved.
const KEYFRAME_WITHIN_MS: i64 = 10 * 60_000;
const METRICS_MAX: usize = 32;

/// A node's series over time
///
/// Counters are shown as what they grew by in a second. Without `step` the points are those that were sampled.
#[utoipa::path(get, path = "/api/v1/nodes/{id}/series", tag = "nodes", security(("bearer" = ["viewer"])),
    params(
        ("id" = String, Path, description = "An id, or a name that one node alone has"),
        ("metric" = Vec<String>, Query, description = "A name of docs/metrics.md, or `x_*` in full; repeated, each of them"),
        ("subject" = Option<Vec<String>>, Query, description = "Such as `host` or `fs:/var`; repeated, each of them; absent, all"),
        ("from" = Option<String>, Query, description = "RFC 3339, or a duration before now such as `2h`; an hour before `to` when absent"),
        ("to" = Option<String>, Query, description = "The same; now when absent"),
        ("step" = Option<String>, Query, description = "Such as `5m`: one point for each"),
        ("fold" = Option<String>, Query, description = "What becomes of the points in a step: `mean` (when absent), `min`, `max` or `last`"),
        ("counter" = Option<String>, Query, description = "`rate` (when absent), or `value`: as it is counted")
    ),
    responses(
        (status = 200, description = "Each that there is", body = shape::SeriesPage),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn series(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    Named(word): Named,
    mut params: Params,
) -> Result<Json<shape::SeriesPage>, Problem> {
    let now = api.published.clock.wall();
    let question = Question::take(&mut params, now)?;
    params.done()?;
    let (id, key, interval_ms, skew_ms) = {
        let fleet = api.published.fleet.load();
        let node = find(&fleet, &caller, &word)?;
        let about = &node.about;
        (node.id, about.key, about.interval_ms.unwrap_or(INTERVAL_MS), about.skew_ms.unwrap_or(0))
    };
    let Some(key) = key else { return Ok(ok(shape::SeriesPage { items: Vec::new(), next: None })) };
    question.affordable(interval_ms, now)?;
    let step = question.step;
    let found = api.desk.window(move |reader| {
        // What was spooled meanwhile came later than it was measured.
        let records = reader.frames_of(key, question.wanted.from.plus(-KEYFRAME_WITHIN_MS), WallMs(i64::MAX))?;
        question.answer(&records, interval_ms, skew_ms)
    });
    let items = shown(id.to_string(), found.await?, step)?;
    Ok(ok(shape::SeriesPage { items, next: None }))
}

/// What is asked, checked as far as it can be without the node.
struct Question {
    metrics: Vec<String>,
    subjects: Vec<Subject>,
    wanted: Wanted,
    step: Option<(i64, Fold)>,
}

impl Question {
    fn take(params: &mut Params, now: WallMs) -> Result<Self, Problem> {
        let metrics = metrics(params)?;
        let subjects = params.all("subject").iter().map(|text| subject(text)).collect::<Result<_, _>>()?;
        let to = params.time("to", now)?.unwrap_or(now).min(now);
        let from = params.time("from", now)?.unwrap_or_else(|| to.plus(-HOUR_MS));
        if from >= to {
            return Err(Problem::bad_request("from is not before to"));
        }
        let fold = match params.one("fold")?.as_deref() {
            None | Some("mean") => Fold::Mean,
            Some("min") => Fold::Min,
            Some("max") => Fold::Max,
            Some("last") => Fold::Last,
            Some(text) => {
                let text = short(text);
                return Err(Problem::bad_request(format!("fold is {text:?}; it is mean, min, max or last")));
            }
        };
        let raw = match params.one("counter")?.as_deref() {
            None | Some("rate") => false,
            Some("value") => true,
            Some(text) => {
                return Err(Problem::bad_request(format!("counter is {:?}; it is rate or value", short(text))));
            }
        };
        let step = params.duration("step")?.map(|step_ms| (step_ms, fold));
        if step.is_some_and(|(step_ms, _)| step_ms < STEP_MS_MIN) {
            return Err(Problem::bad_request("step is at least 1s"));
        }
        Ok(Self { metrics, subjects, wanted: Wanted { from, to, interval_ms: INTERVAL_MS, raw }, step })
    }

    /// All frames since `from` have to be read: what was spooled came late.
    fn affordable(&self, interval_ms: u32, now: WallMs) -> Result<(), Problem> {
        let interval_ms = i64::from(interval_ms.max(1));
        let span_ms = now.since(self.wanted.from).saturating_add(KEYFRAME_WITHIN_MS);
        let frames = span_ms / interval_ms;
        if frames <= FRAMES_MAX {
            return Ok(());
        }
        let earliest = Moment(now.plus(KEYFRAME_WITHIN_MS - FRAMES_MAX.saturating_mul(interval_ms)));
        Err(Problem::bad_request(format!(
            "this would read about {frames} frames, and {FRAMES_MAX} are allowed; ask from {earliest} on"
        )))
    }

    fn answer(mut self, records: &[(Pos, Record)], interval_ms: u32, skew_ms: i64) -> Result<Vec<Line>, Problem> {
        self.wanted.interval_ms = interval_ms;
        let wanted = |subject: &Subject, measure: &Measure| {
            (self.subjects.is_empty() || self.subjects.contains(subject))
                && measure.about().is_some_and(|about| self.metrics.iter().any(|name| name == about.name))
        };
        let taken = Taken { wanted: &wanted, skew_ms, values_max: VALUES_MAX };
        let frames = records.iter().map(|(_, record)| record);
        let stretch = stretch::of(frames, taken, &Clocks::default()).map_err(|too_many| {
            Problem::bad_request(format!(
                "this would take {too_many}; ask for fewer metrics or subjects, or a shorter time"
            ))
        })?;
        let mut found = lines(&[stretch], &self.wanted);
        if let Some((step_ms, how)) = self.step {
            for line in &mut found {
                line.points = fold(&line.points, step_ms, how);
            }
        }
        Ok(found)
    }
}

fn metrics(params: &mut Params) -> Result<Vec<String>, Problem> {
    let metrics = params.all("metric");
    if metrics.is_empty() || metrics.len() > METRICS_MAX {
        return Err(Problem::bad_request(format!(
            "metric is given {} times; 1 to {METRICS_MAX} are allowed",
            metrics.len()
        )));
    }
    // A node's own are declared by the node alone.
    match metrics.iter().find(|name| !name.starts_with("x_") && metric::by_name(name).is_none()) {
        None => Ok(metrics),
        Some(unknown) => {
            let detail = format!("there is no metric {:?}; docs/metrics.md lists them", short(unknown));
            Err(Problem::bad_request(detail))
        }
    }
}

fn subject(text: &str) -> Result<Subject, Problem> {
    Subject::parse(text).ok_or_else(|| {
        Problem::bad_request(format!("subject is {:?}; write for example host, fs:/var or net:eth0", short(text)))
    })
}

fn shown(node: String, lines: Vec<Line>, step: Option<(i64, Fold)>) -> Result<Vec<shape::Series>, Problem> {
    let points: usize = lines.iter().map(|line| line.points.len()).sum();
    if points > POINTS_MAX {
        let cheaper = if step.is_some() { "a longer step" } else { "a step, such as step=5m" };
        let detail = format!("the answer would have {points} points, and {POINTS_MAX} are allowed; ask with {cheaper}");
        return Err(Problem::bad_request(detail));
    }
    let series = |line: Line| {
        let about = line.measure.about()?;
        Some(shape::Series {
            node: node.clone(),
            subject: line.subject.to_string(),
            metric: about.name.to_owned(),
            unit: about.unit.as_str().to_owned(),
            per_second: line.is_rate,
            points: line.points.into_iter().map(|(at, value)| (Moment(at), value)).collect(),
        })
    };
    Ok(lines.into_iter().filter_map(series).collect())
}
