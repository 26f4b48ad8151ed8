//! Stretches of one node to the points of its series: rates, gaps and steps.
//!
//! Pure. A rate is how much a counter grew in a second of the agent's own monotonic clock; a counter that
//! fell began anew. What is not known is a gap, and never a number.

#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::collections::HashMap;

use dunlin_shared::metric::{Kind, Step, Unit, by_id};
use dunlin_shared::sample::{ABSENT, Subject, SubjectKind};
use dunlin_shared::time::WallMs;

use crate::block::{Measure, Row, Stretch};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub from: WallMs,
    pub to: WallMs,
    /// Between two frames.
    pub interval_ms: u32,
    /// Counters as they are counted, in place of rates.
    pub raw: bool,
}

/// One series.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub subject: Subject,
    pub measure: Measure,
    pub is_rate: bool,
    /// In the order of time; `None` is a gap.
    pub points: Vec<Point>,
}

pub type Point = (WallMs, Option<f64>);

/// What becomes of the points within a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    Mean,
    Min,
    Max,
    Last,
}

/// What there is to know of a measure.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    pub name: &'a str,
    pub unit: Unit,
    pub kind: Kind,
    pub step: Step,
}

impl Measure {
    /// `None` for a catalogue number that this version does not know.
    #[must_use]
    pub fn about(&self) -> Option<About<'_>> {
        Some(match self {
            Self::Catalogued(id) => {
                let known = by_id(*id)?;
                About { name: known.name, unit: known.unit, kind: known.kind, step: known.step }
            }
            Self::Open(own) => About { name: own.name(), unit: own.unit, kind: own.kind, step: own.step },
        })
    }
}

/// The series of one node, from its stretches in the order in which they came. Points lie within the range; what came
/// before it serves rates.
#[must_use]
pub fn lines<S: Borrow<Stretch>>(stretches: &[S], wanted: &Wanted) -> Vec<Line> {
    let rows = in_order(stretches);
    let mut lines: Vec<(&Subject, &Measure, Values)> = Vec::new();
    let mut known: HashMap<(&Subject, &Measure), usize> = HashMap::new();
    let mut first = 0;
    for stretch in stretches.iter().map(Borrow::borrow) {
        for column in &stretch.columns {
            let line = *known.entry((&column.subject, &column.measure)).or_insert_with(|| {
                lines.push((&column.subject, &column.measure, Vec::new()));
                lines.len() - 1
            });
            let values = column.values.iter().enumerate().filter(|(_, steps)| **steps != ABSENT);
            lines[line].2.extend(values.map(|(at, &steps)| (rows.places[first + at], steps)));
        }
        first += stretch.rows.len();
    }
    let line = |(subject, measure, mut values): (&Subject, &Measure, Values)| {
        let about = measure.about()?;
        if !rows.came_in_order {
            values.sort_unstable_by_key(|(at, _)| *at);
        }
        let head = Head { is_rate: about.kind == Kind::Counter && !wanted.raw, step: about.step, subject };
        let points = points(&head, &values, &rows.sorted, wanted);
        let (subject, measure) = (subject.clone(), measure.clone());
        (!points.is_empty()).then_some(Line { subject, measure, is_rate: head.is_rate, points })
    };
    lines.into_iter().filter_map(line).collect()
}

/// One point for each step that begins within the range; a gap where a step holds no value.
#[must_use]
pub fn fold(points: &[Point], step_ms: i64, how: Fold) -> Vec<Point> {
    let begin = |at: WallMs| WallMs(at.0.div_euclid(step_ms) * step_ms);
    let mut folded: Vec<Point> = Vec::new();
    let mut rest = points;
    while let Some((first, _)) = rest.first() {
        let start = begin(*first);
        let len = rest.iter().take_while(|(at, _)| begin(*at) == start).count();
        let (here, later) = rest.split_at(len);
        while let Some((last, _)) = folded.last().copied().filter(|(last, _)| last.plus(step_ms) < start) {
            folded.push((last.plus(step_ms), None));
        }
        folded.push((start, summary(here, how)));
        rest = later;
    }
    folded
}

/// How long it commonly is from one row to the next, when there are enough to tell: the median within a run.
#[must_use]
pub fn interval_ms<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Option<u32> {
    let mut steps: Vec<u64> = Vec::new();
    let mut before: Option<&Row> = None;
    for row in rows {
        let step = before.filter(|before| before.epoch == row.epoch).map(|before| row.mono.since(before.mono));
        steps.extend(step.filter(|ms| *ms > 0));
        before = Some(row);
    }
    let middle = steps.len() / 2;
    (!steps.is_empty()).then(|| u32::try_from(*steps.select_nth_unstable(middle).1).unwrap_or(u32::MAX))
}

/// Values of one series, each with the place of its row among all.
type Values = Vec<(usize, i64)>;

struct Head<'a> {
    subject: &'a Subject,
    is_rate: bool,
    step: Step,
}

struct Rows {
    /// All rows, in the order of their times.
    sorted: Vec<Row>,
    /// Where each row, in the order in which it came, stands among those.
    places: Vec<usize>,
    came_in_order: bool,
}

fn in_order<S: Borrow<Stretch>>(stretches: &[S]) -> Rows {
    let came: Vec<Row> = stretches.iter().flat_map(|stretch| stretch.borrow().rows.iter().copied()).collect();
    let order = |row: &Row| (row.time, row.epoch, row.seq);
    if came.is_sorted_by_key(order) {
        return Rows { places: (0..came.len()).collect(), sorted: came, came_in_order: true };
    }
    let mut from: Vec<usize> = (0..came.len()).collect();
    from.sort_by_key(|&at| order(&came[at]));
    let mut places = vec![0; came.len()];
    from.iter().enumerate().for_each(|(to, &at)| places[at] = to);
    Rows { sorted: from.iter().map(|&at| came[at]).collect(), places, came_in_order: false }
}

fn points(head: &Head<'_>, values: &[(usize, i64)], rows: &[Row], wanted: &Wanted) -> Vec<Point> {
    let interval_ms = i64::from(wanted.interval_ms.max(1));
    // Two and a half intervals without a frame are no jitter any more.
    let is_gap = |ms: i64| ms * 2 > interval_ms * 5;
    let mut points: Vec<Point> = Vec::with_capacity(values.len());
    let mut before: Option<(Row, i64)> = None;
    for &(at, steps) in values {
        let row = rows[at];
        let gap = before.filter(|(last, _)| is_gap(row.time.since(last.time)));
        if let Some((last, _)) = gap {
            points.push((last.time.plus(interval_ms), None));
        }
        let value = match before {
            _ if !head.is_rate => Some(head.step.value(steps)),
            Some(earlier) if gap.is_none() => rate(head, earlier, (row, steps)),
            _ => None,
        };
        if let Some(value) = value {
            points.push((row.time, Some(value)));
        }
        before = Some((row, steps));
    }
    if let Some((last, _)) = before.filter(|(last, _)| is_gap(wanted.to.since(last.time))) {
        points.push((last.time.plus(interval_ms), None));
    }
    points.retain(|(at, _)| (wanted.from..=wanted.to).contains(at));
    // A gap says nothing where there is no value.
    if points.iter().all(|(_, value)| value.is_none()) {
        points.clear();
    }
    points
}

fn rate(head: &Head<'_>, (a, a_steps): (Row, i64), (b, b_steps): (Row, i64)) -> Option<f64> {
    let passed_ms =
        if a.epoch == b.epoch { i64::try_from(b.mono.since(a.mono)).unwrap_or(i64::MAX) } else { b.time.since(a.time) };
    if passed_ms <= 0 {
        return None;
    }
    // An agent adds up what the processes of a group used, and those that ended are not in the sum of its next run.
    let is_sum = matches!(head.subject.kind, SubjectKind::Process | SubjectKind::Unit);
    if is_sum && a.epoch != b.epoch && b_steps < a_steps {
        return None;
    }
    // What fell began at nothing in between.
    let grown = if b_steps >= a_steps { b_steps.saturating_sub(a_steps) } else { b_steps.max(0) };
    #[expect(clippy::cast_precision_loss, reason = "a time between two frames is far below 2^53 ms")]
    let per_second = head.step.value(grown) * 1_000.0 / passed_ms as f64;
    // Digits beyond the sixth are noise of the division.
    Some((per_second * 1e6).round() / 1e6)
}

fn summary(points: &[Point], how: Fold) -> Option<f64> {
    let values = || points.iter().filter_map(|(_, value)| *value);
    match how {
        Fold::Last => values().next_back(),
        Fold::Min => values().reduce(f64::min),
        Fold::Max => values().reduce(f64::max),
        Fold::Mean => {
            let (sum, count) = values().fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
            (count > 0).then(|| ((sum / f64::from(count)) * 1e6).round() / 1e6)
        }
    }
}
