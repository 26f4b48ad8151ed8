//! The window as series: of one node, or of the fleet.
//!
//! A question has a price in what is read for it, which is known before it is. What would be too dear is refused with a
//! cheaper question. Long steps are answered from roll-ups, and so is what is older than every sample that is kept.

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
use crate::points::{Fold, Line, Point, Wanted, fold, lines};
use crate::record::NodeKey;
use crate::rollup;
use crate::shape::{self, Moment};
use crate::store::Level;
use crate::stretch::Taken;
use crate::window::{Asked, FleetAsked, ReadError, Rolled, Window};

const HOUR_MS: i64 = 3_600_000;
/// Frames that one question may read: a day at a tick of a second.
const FRAMES_MAX: i64 = 100_000;
/// Values that it may hold while it is answered, 8 bytes each, and those that could be there counted as well.
const VALUES_MAX: usize = 4_000_000;
/// Cells that it may hold, 48 bytes each.
const CELLS_MAX: usize = 1_000_000;
/// Points in one answer, 40 bytes each as JSON.
/// A day of hours of ten thousand nodes is less.
pub(super) const POINTS_MAX: usize = 250_000;
const STEP_MS_MIN: i64 = 1_000;
/// When the agent has not said how often it ticks.
pub(super) const INTERVAL_MS: u32 = 10_000;
/// What is read before the range, for the rate at its beginning.
const BEFORE_MS: i64 = 10 * 60_000;
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
        ("step" = Option<String>, Query, description = "Such as `5m`: one point for each; rounded up to a multiple of the resolution"),
        ("fold" = Option<String>, Query, description = "What becomes of the points in a step: `mean` (when absent), `min`, `max` or `last`"),
        ("counter" = Option<String>, Query, description = "`rate` (when absent), or `value`: as it is counted"),
        ("resolution" = Option<String>, Query, description = "`full`, `5m` or `1h`; when absent, the coarsest that serves the step, and what reaches back far enough")
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
    let Some(key) = key else { return Ok(ok(page(Vec::new(), Level::Full))) };
    let found = api.desk.window(move |window| question.answer(window, (key, interval_ms, skew_ms), now));
    let (items, level) = found.await?;
    Ok(ok(page(shown(&id.to_string(), items)?, level)))
}

/// What is asked, checked as far as it can be without the node.
pub(super) struct Question {
    pub(super) metrics: Vec<String>,
    pub(super) subjects: Vec<Subject>,
    pub(super) from: WallMs,
    pub(super) to: WallMs,
    raw: bool,
    pub(super) step_ms: Option<i64>,
    pub(super) fold: Fold,
    pub(super) level: Option<Level>,
}

impl Question {
    /// Means of counters' rates and of gauges, one for each step, of samples or where it is said of roll-ups.
    pub(super) fn of(
        (metrics, subjects): (Vec<String>, Vec<Subject>),
        (from, to): (WallMs, WallMs),
        step_ms: i64,
        level: Option<Level>,
    ) -> Self {
        Self { metrics, subjects, from, to, raw: false, step_ms: Some(step_ms), fold: Fold::Mean, level }
    }

    pub(super) fn take(params: &mut Params, now: WallMs) -> Result<Self, Problem> {
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
        let step_ms = params.duration("step")?;
        if step_ms.is_some_and(|step_ms| step_ms < STEP_MS_MIN) {
            return Err(Problem::bad_request("step is at least 1s"));
        }
        let level = resolution(params)?;
        if raw && level.is_some_and(|level| level != Level::Full) {
            return Err(Problem::bad_request("counter=value needs every sample: roll-ups hold rates"));
        }
        Ok(Self { metrics, subjects, from, to, raw, step_ms, fold, level })
    }

    pub(super) fn answer(
        &self,
        window: &Window,
        (key, interval_ms, skew_ms): (NodeKey, u32, i64),
        now: WallMs,
    ) -> Result<(Vec<Line>, Level), Problem> {
        let level = match self.level {
            Some(level) => level,
            None => self.choose(window)?,
        };
        let lines = match level.slot_ms() {
            None => self.samples(window, (key, interval_ms, skew_ms), now)?,
            Some(slot_ms) => self.rolled(window, (key, skew_ms), (level, slot_ms))?,
        };
        Ok((lines, level))
    }

    /// The coarsest level whose slots the step is made of; and where that does not reach back to the beginning, the
    /// next one that does.
    fn choose(&self, window: &Window) -> Result<Level, Problem> {
        if self.raw {
            return Ok(Level::Full);
        }
        let serves = |level: &Level| {
            level.slot_ms().is_none_or(|slot_ms| self.step_ms.is_some_and(|step_ms| step_ms % slot_ms == 0))
        };
        let finest = Level::ALL.into_iter().rev().find(serves).unwrap_or(Level::Full);
        let mut reach = Vec::new();
        for level in Level::ALL.into_iter().filter(|level| *level >= finest) {
            reach.push((level, window.reaches(level)?.unwrap_or(WallMs(i64::MAX))));
        }
        let enough = reach.iter().find(|(_, since)| *since <= self.from);
        // A slot begins before what it holds: that alone makes no level reach further than a finer one.
        let furthest = reach.iter().min_by_key(|(level, since)| since.0.saturating_add(level.slot_ms().unwrap_or(0)));
        Ok(enough.or(furthest).map_or(finest, |(level, _)| *level))
    }

    fn samples(
        &self,
        window: &Window,
        (node, interval_ms, skew_ms): (NodeKey, u32, i64),
        now: WallMs,
    ) -> Result<Vec<Line>, Problem> {
        self.affordable(interval_ms, now)?;
        let wanted = |subject: &Subject, measure: &Measure| self.wants(subject, measure);
        let taken = Taken { wanted: &wanted, skew_ms, values_max: VALUES_MAX };
        let asked = Asked { node, from: self.from.plus(-BEFORE_MS), to: self.to, taken, frames_max: usize::MAX };
        let stretches = window.stretches(&asked).map_err(|error| too_dear(error, "or a shorter time"))?;
        let mut lines = lines(&stretches, &Wanted { from: self.from, to: self.to, interval_ms, raw: self.raw });
        if let Some(step_ms) = self.step_ms {
            // A gap is a point for each step.
            let steps = usize::try_from(self.to.since(self.from) / step_ms + 1).unwrap_or(usize::MAX);
            few_enough(steps.saturating_mul(lines.len()))?;
            lines.iter_mut().for_each(|line| line.points = fold(&line.points, step_ms, self.fold));
        }
        Ok(lines)
    }

    fn rolled(
        &self,
        window: &Window,
        (node, skew_ms): (NodeKey, i64),
        (level, slot_ms): (Level, i64),
    ) -> Result<Vec<Line>, Problem> {
        let wanted = |key: NodeKey, subject: &Subject| {
            key == node && (self.subjects.is_empty() || self.subjects.contains(subject))
        };
        let slots = Slots::of(self, slot_ms);
        let (from, to) = slots.range;
        let asked = FleetAsked {
            level,
            metrics: &self.metrics,
            wanted: &wanted,
            nodes: (node, node),
            fresh: &[(node, skew_ms)],
            from,
            to,
            cells_max: CELLS_MAX,
        };
        let rolled = window.rolled(&asked).map_err(|error| too_dear(error, "or a shorter time"))?;
        let lines = rolled.into_iter().map(|rolled| slots.line(rolled));
        Ok(lines.filter(|line| !line.points.is_empty()).collect())
    }

    fn wants(&self, subject: &Subject, measure: &Measure) -> bool {
        (self.subjects.is_empty() || self.subjects.contains(subject))
            && measure.about().is_some_and(|about| self.metrics.iter().any(|name| name == about.name))
    }

    /// All frames since `from` have to be read: what was spooled came late.
    fn affordable(&self, interval_ms: u32, now: WallMs) -> Result<(), Problem> {
        let interval_ms = i64::from(interval_ms.max(1));
        let span_ms = now.since(self.from).saturating_add(BEFORE_MS);
        let frames = span_ms / interval_ms;
        if frames <= FRAMES_MAX {
            return Ok(());
        }
        let earliest = Moment(now.plus(BEFORE_MS - FRAMES_MAX.saturating_mul(interval_ms)));
        Err(Problem::bad_request(format!(
            "this would read about {frames} frames, and {FRAMES_MAX} are allowed; ask from {earliest} on, or with step=5m"
        )))
    }
}

/// How roll-ups are shown: so many of their slots in a step. A step that is no multiple of a slot is rounded up.
pub(super) struct Slots {
    slot_ms: i64,
    in_step: i64,
    fold: Fold,
    /// By whole steps: one that began before what is asked for holds some of it.
    pub(super) range: (WallMs, WallMs),
}

impl Slots {
    pub(super) fn of(question: &Question, slot_ms: i64) -> Self {
        let in_step = rollup::slots_of(question.step_ms, slot_ms);
        let step_ms = slot_ms.saturating_mul(in_step);
        let from = WallMs(question.from.0.div_euclid(step_ms) * step_ms);
        Self { slot_ms, in_step, fold: question.fold, range: (from, question.to) }
    }

    /// A mean is that of all samples in a step, however many each slot had.
    pub(super) fn line(&self, Rolled { measure, subject, cells, .. }: Rolled) -> Line {
        let is_rate = measure.about().is_some_and(|about| about.kind == metric::Kind::Counter);
        let cells = rollup::longer(&cells, self.in_step);
        let points = rollup::points(&cells, self.slot_ms.saturating_mul(self.in_step), self.fold, self.range);
        Line { subject, measure, is_rate, points }
    }
}

/// What was too much, with a cheaper question.
pub(super) fn too_dear(error: ReadError, cheaper: &str) -> Problem {
    match error {
        ReadError::Store(error) => error.into(),
        ReadError::TooMany(too_many) => {
            Problem::bad_request(format!("this would take {too_many}; ask for fewer metrics or subjects, {cheaper}"))
        }
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
    known(metrics)
}

/// A node's own are declared by the node alone.
pub(super) fn known(metrics: Vec<String>) -> Result<Vec<String>, Problem> {
    match metrics.iter().find(|name| !name.starts_with("x_") && metric::by_name(name).is_none()) {
        None => Ok(metrics),
        Some(unknown) => {
            let detail = format!("there is no metric {:?}; docs/metrics.md lists them", short(unknown));
            Err(Problem::bad_request(detail))
        }
    }
}

/// By the words of the API.
pub(super) fn resolution(params: &mut Params) -> Result<Option<Level>, Problem> {
    let Some(word) = params.one("resolution")? else { return Ok(None) };
    let level = Level::ALL.into_iter().find(|level| word_of(*level) == word);
    let wrong = || Problem::bad_request(format!("resolution is {:?}; it is full, 5m or 1h", short(&word)));
    level.map(Some).ok_or_else(wrong)
}

const fn word_of(level: Level) -> &'static str {
    match level {
        Level::Full => "full",
        Level::Mid => "5m",
        Level::Long => "1h",
    }
}

pub(super) fn subject(text: &str) -> Result<Subject, Problem> {
    Subject::parse(text).ok_or_else(|| {
        Problem::bad_request(format!("subject is {:?}; write for example host, fs:/var or net:eth0", short(text)))
    })
}

pub(super) fn page(items: Vec<shape::Series>, level: Level) -> shape::SeriesPage {
    shape::SeriesPage { items, next: None, resolution: word_of(level).to_owned() }
}

pub(super) fn shown(node: &str, lines: Vec<Line>) -> Result<Vec<shape::Series>, Problem> {
    let points: usize = lines.iter().map(|line| line.points.len()).sum();
    few_enough(points)?;
    Ok(lines.into_iter().filter_map(|line| shape_of(node, line)).collect())
}

pub(super) fn few_enough(points: usize) -> Result<(), Problem> {
    if points <= POINTS_MAX {
        return Ok(());
    }
    let detail = format!(
        "the answer would have {points} points, and {POINTS_MAX} are allowed; ask with a longer step, such as step=5m or step=1h"
    );
    Err(Problem::bad_request(detail))
}

pub(super) fn shape_of(node: &str, line: Line) -> Option<shape::Series> {
    let about = line.measure.about()?;
    let point = |(at, value): Point| (Moment(at), value);
    Some(shape::Series {
        node: node.to_owned(),
        subject: line.subject.to_string(),
        metric: about.name.to_owned(),
        unit: about.unit.as_str().to_owned(),
        per_second: line.is_rate,
        points: line.points.into_iter().map(point).collect(),
    })
}
