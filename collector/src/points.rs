//! Frames of one node to the points of its series: times, rates, gaps and steps.
//!
//! Pure. A rate is how much a counter grew in a second of the agent's own monotonic clock; a counter that
//! fell began anew. What is not known is a gap, and never a number.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use dunlin_shared::codec::{decode_delta, decode_key};
use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{Epoch, FrameId, Seq};
use dunlin_shared::metric::{Kind, Step, Unit};
use dunlin_shared::sample::{ABSENT, Layout, Reading, Subject, SubjectKind};
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::Lane;
use std::sync::Arc;
use thiserror::Error;

use crate::record::{Event, Pos, Record};

/// How far a frame may have been in the spool for its own clock to be believed.
const SPOOLED_MS_MAX: i64 = 31 * 86_400_000;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub metrics: Vec<String>,
    /// Empty for all of them.
    pub subjects: Vec<Subject>,
    pub from: WallMs,
    pub to: WallMs,
    /// Between two frames.
    pub interval_ms: u32,
    /// The agent's wall clock less ours, as it said Hello last.
    pub skew_ms: i64,
    /// Counters as they are counted, in place of rates.
    pub raw: bool,
    /// Values that one answer may hold in memory.
    pub values_max: usize,
}

/// One series.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub subject: Subject,
    pub metric: String,
    pub unit: Unit,
    pub is_rate: bool,
    /// In the order of time; `None` is a gap.
    pub points: Vec<(WallMs, Option<f64>)>,
}

/// What becomes of the points within a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    Mean,
    Min,
    Max,
    Last,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("more than {0} values")]
pub struct TooMany(pub usize);

/// A frame, as far as it was asked for.
struct Sample {
    epoch: Epoch,
    seq: Seq,
    mono: MonoMs,
    wall: WallMs,
    at: WallMs,
    lane: Lane,
    values: Vec<(usize, i64)>,
}

#[derive(Default)]
struct Decoder {
    live: Option<(FrameId, Reading)>,
    backlog: Option<(FrameId, Reading)>,
}

/// Which columns of a layout are wanted, and the line that each goes to.
struct Columns {
    layout: Arc<Layout>,
    taken: Vec<(usize, usize)>,
}

struct Head {
    subject: Subject,
    metric: String,
    unit: Unit,
    kind: Kind,
    step: Step,
}

/// The series of one node, from its frames in the order of the log. They have to begin early enough for the
/// first wanted one to be decoded.
pub fn lines(records: &[(Pos, Record)], wanted: &Wanted) -> Result<Vec<Line>, TooMany> {
    let mut heads: Vec<Head> = Vec::new();
    let mut known: HashMap<(Subject, String), usize> = HashMap::new();
    let mut columns: Option<Columns> = None;
    let (mut decoder, mut samples, mut held) = (Decoder::default(), Vec::new(), 0);
    for (_, record) in records {
        let Event::Frame { lane, frame, .. } = &record.event else { continue };
        let Some(reading) = decoder.decode(*lane, frame) else { continue };
        if !columns.as_ref().is_some_and(|columns| Arc::ptr_eq(&columns.layout, &reading.layout)) {
            columns = Some(choose(&reading.layout, wanted, &mut heads, &mut known));
        }
        let taken = columns.as_ref().map_or(&[][..], |columns| &columns.taken);
        let values: Vec<(usize, i64)> = taken
            .iter()
            .filter_map(|&(column, line)| Some((line, *reading.values.get(column)?)))
            .filter(|(_, steps)| *steps != ABSENT)
            .collect();
        held += values.len();
        if held > wanted.values_max {
            return Err(TooMany(wanted.values_max));
        }
        let FrameId { epoch, seq } = frame.id;
        let (mono, wall) = (reading.mono, reading.wall);
        samples.push(Sample { epoch, seq, mono, wall, at: record.at, lane: *lane, values });
    }
    let times = times(&samples, wanted.skew_ms);
    let mut order: Vec<usize> = (0..samples.len()).collect();
    order.sort_by_key(|&at| (times[at], samples[at].epoch, samples[at].seq));
    let mut values: Vec<Vec<(usize, i64)>> = heads.iter().map(|_| Vec::new()).collect();
    for &at in &order {
        for &(line, steps) in &samples[at].values {
            values[line].push((at, steps));
        }
    }
    let line = |(head, values): (Head, Vec<(usize, i64)>)| {
        let points = points(&head, &values, (&samples, &times), wanted);
        let is_rate = head.kind == Kind::Counter && !wanted.raw;
        Line { subject: head.subject, metric: head.metric, unit: head.unit, is_rate, points }
    };
    Ok(heads.into_iter().zip(values).map(line).filter(|line| !line.points.is_empty()).collect())
}

/// One point for each step that begins within the range; a gap where a step holds no value.
#[must_use]
pub fn fold(points: &[(WallMs, Option<f64>)], step_ms: i64, how: Fold) -> Vec<(WallMs, Option<f64>)> {
    let begin = |at: WallMs| WallMs(at.0.div_euclid(step_ms) * step_ms);
    let mut folded: Vec<(WallMs, Option<f64>)> = Vec::new();
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

impl Decoder {
    /// `None` for an inventory, and for a delta whose base was not asked for.
    fn decode(&mut self, lane: Lane, frame: &Frame) -> Option<&Reading> {
        let last = match lane {
            Lane::Live => &mut self.live,
            Lane::Backlog => &mut self.backlog,
        };
        let reading = match frame.kind {
            BodyKind::Inventory => return None,
            BodyKind::Key => decode_key(&frame.body).ok()?,
            BodyKind::Delta { .. } => {
                let (_, base) = last.as_ref().filter(|(id, _)| Some(*id) == frame.base())?;
                decode_delta(base, &frame.body).ok()?
            }
        };
        Some(&last.insert((frame.id, reading)).1)
    }
}

fn choose(
    layout: &Arc<Layout>,
    wanted: &Wanted,
    heads: &mut Vec<Head>,
    known: &mut HashMap<(Subject, String), usize>,
) -> Columns {
    let mut taken = Vec::new();
    for (column, series) in layout.series.iter().enumerate() {
        let Some((metric, unit, kind, step)) = layout.describe(series.metric) else { continue };
        let Some(subject) = layout.subjects.get(usize::from(series.subject)) else { continue };
        let fits = wanted.metrics.iter().any(|name| name == metric)
            && (wanted.subjects.is_empty() || wanted.subjects.contains(subject));
        if !fits {
            continue;
        }
        let line = *known.entry((subject.clone(), metric.to_owned())).or_insert_with(|| {
            heads.push(Head { subject: subject.clone(), metric: metric.to_owned(), unit, kind, step });
            heads.len() - 1
        });
        // A node may declare a metric of its own anew with another precision; the two are not one series.
        if heads[line].step == step && heads[line].kind == kind {
            taken.push((column, line));
        }
    }
    Columns { layout: Arc::clone(layout), taken }
}

/// When each was measured, by our clock. A live frame is here at once: the one that took the least time
/// gives the distance between the agent's monotonic clock and ours. Without one, the agent's clock counts.
fn times(samples: &[Sample], skew_ms: i64) -> Vec<WallMs> {
    let mono = |sample: &Sample| i64::try_from(sample.mono.0).unwrap_or(i64::MAX);
    let mut distance: HashMap<Epoch, i64> = HashMap::new();
    for sample in samples.iter().filter(|sample| sample.lane == Lane::Live) {
        let here = sample.at.0.saturating_sub(mono(sample));
        distance.entry(sample.epoch).and_modify(|least| *least = here.min(*least)).or_insert(here);
    }
    let time = |sample: &Sample| match distance.get(&sample.epoch) {
        Some(least) => WallMs(mono(sample).saturating_add(*least)),
        None => {
            let said = sample.wall.plus(skew_ms.saturating_neg());
            let ago_ms = sample.at.since(said);
            if (0..=SPOOLED_MS_MAX).contains(&ago_ms) { said } else { sample.at }
        }
    };
    samples.iter().map(time).collect()
}

fn points(
    head: &Head,
    values: &[(usize, i64)],
    (samples, times): (&[Sample], &[WallMs]),
    wanted: &Wanted,
) -> Vec<(WallMs, Option<f64>)> {
    let interval_ms = i64::from(wanted.interval_ms.max(1));
    // Two and a half intervals without a frame are no jitter any more.
    let is_gap = |ms: i64| ms * 2 > interval_ms * 5;
    let is_rate = head.kind == Kind::Counter && !wanted.raw;
    let mut points: Vec<(WallMs, Option<f64>)> = Vec::new();
    let mut before: Option<(usize, i64)> = None;
    for &(at, steps) in values {
        let time = times[at];
        let gap = before.filter(|(last, _)| is_gap(time.since(times[*last])));
        if let Some((last, _)) = gap {
            points.push((times[last].plus(interval_ms), None));
        }
        let value = match before {
            _ if !is_rate => Some(head.step.value(steps)),
            Some((last, earlier)) if gap.is_none() => {
                rate(head, (&samples[last], times[last], earlier), (&samples[at], time, steps))
            }
            _ => None,
        };
        if let Some(value) = value {
            points.push((time, Some(value)));
        }
        before = Some((at, steps));
    }
    if let Some((last, _)) = before.filter(|(last, _)| is_gap(wanted.to.since(times[*last]))) {
        points.push((times[last].plus(interval_ms), None));
    }
    points.retain(|(at, _)| (wanted.from..=wanted.to).contains(at));
    // A gap says nothing where there is no value.
    if points.iter().all(|(_, value)| value.is_none()) {
        points.clear();
    }
    points
}

fn rate(
    head: &Head,
    (a, a_time, a_steps): (&Sample, WallMs, i64),
    (b, b_time, b_steps): (&Sample, WallMs, i64),
) -> Option<f64> {
    let passed_ms =
        if a.epoch == b.epoch { i64::try_from(b.mono.since(a.mono)).unwrap_or(i64::MAX) } else { b_time.since(a_time) };
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

fn summary(points: &[(WallMs, Option<f64>)], how: Fold) -> Option<f64> {
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
