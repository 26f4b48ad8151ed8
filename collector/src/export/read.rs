//! Reads a node's series in pieces of time, each small enough to be held.
//!
//! A piece that turns out to be too large is read again in halves. Points that are gaps are left out; of two samples of
//! one series at the same moment the later one counts.

use dunlin_shared::metric::{CATALOGUE, Kind};
use dunlin_shared::sample::Subject;
use dunlin_shared::time::WallMs;

use super::{Asked, Node};
use crate::block::Measure;
use crate::points::{Line, Wanted, lines};
use crate::record::NodeKey;
use crate::rollup::Cell;
use crate::store::Level;
use crate::stretch::Taken;
use crate::window::{self, FleetAsked, ReadError, Rolled, Window};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
/// What is read before a piece, for the rates at its beginning.
const BEFORE_MS: i64 = 10 * MINUTE_MS;
/// Values that a piece may take while it is read, 8 bytes each. A common node has a hundred thousand in an hour; one
/// block of the largest node has a million.
const VALUES_MAX: usize = 2_000_000;
/// Cells that a piece may take, 48 bytes each.
const CELLS_MAX: usize = 250_000;
/// Points of a piece beyond which the next one is made shorter: 6 MB.
const POINTS_ENOUGH: usize = 100_000;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    Sample(f64),
    Cell(Cell),
}

/// Points of one series within a piece, in the order of time.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) subject: Subject,
    pub(super) measure: Measure,
    pub(super) is_rate: bool,
    pub(super) points: Vec<(WallMs, Value)>,
}

/// The pieces of a time that are still to be read.
#[derive(Clone, Debug)]
pub(super) struct Pieces {
    next: WallMs,
    to: WallMs,
    piece_ms: i64,
    least_ms: i64,
}

/// Which series are wanted.
pub(super) type Filter<'a> = &'a (dyn Fn(&Subject, &Measure) -> bool + Sync);

/// Which cells are wanted.
type OfNodes<'a> = &'a (dyn Fn(NodeKey, &Subject) -> bool + Sync);

impl Pieces {
    pub(super) fn of(asked: &Asked) -> Self {
        let (piece_ms, least_ms) = match asked.level {
            Level::Full => (HOUR_MS, MINUTE_MS),
            Level::Mid => (6 * HOUR_MS, 5 * MINUTE_MS),
            Level::Long => (3 * DAY_MS, HOUR_MS),
        };
        Self { next: asked.since(), to: asked.to, piece_ms, least_ms }
    }

    /// The same in longer pieces: for whoever reads one metric alone.
    pub(super) fn long(mut self) -> Self {
        self.piece_ms = self.piece_ms.max(DAY_MS);
        self
    }

    /// The next one, by whole pieces of the clock.
    fn peek(&self) -> Option<(WallMs, WallMs)> {
        if self.next > self.to {
            return None;
        }
        let ends = (self.next.0.div_euclid(self.piece_ms) + 1).saturating_mul(self.piece_ms) - 1;
        Some((self.next, WallMs(ends.min(self.to.0))))
    }

    /// Whether they can be any shorter.
    fn halve(&mut self) -> bool {
        let can = self.piece_ms / 2 >= self.least_ms;
        if can {
            self.piece_ms /= 2;
        }
        can
    }

    /// The series of the next piece; `None` behind the last one.
    pub(super) fn read(
        &mut self,
        window: &Window,
        asked: &Asked,
        node: &Node,
        (metrics, wanted): (&[String], Filter<'_>),
    ) -> Result<Option<Vec<Series>>, ReadError> {
        while let Some(range) = self.peek() {
            match series(window, asked, node, range, (metrics, wanted)) {
                Ok(found) => {
                    self.next = range.1.plus(1);
                    let points: usize = found.iter().map(|series| series.points.len()).sum();
                    if points > POINTS_ENOUGH {
                        self.halve();
                    }
                    return Ok(Some(found));
                }
                Err(ReadError::TooMany(_)) if self.halve() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Tells of every series that a node has samples of in all of these pieces, and how many rows there are. Names alone
    /// are read, which is cheap.
    pub(super) fn learn_samples(
        mut self,
        window: &Window,
        node: &Node,
        note: &(dyn Fn(&Subject, &Measure) + Sync),
    ) -> Result<usize, ReadError> {
        let nothing = |subject: &Subject, measure: &Measure| {
            note(subject, measure);
            false
        };
        let mut rows = 0;
        self.piece_ms = DAY_MS;
        while let Some((from, to)) = self.peek() {
            let taken = Taken { wanted: &nothing, skew_ms: node.skew_ms, values_max: VALUES_MAX };
            let of_node = window::Asked { node: node.key, from, to, taken, frames_max: usize::MAX };
            let stretches = window.stretches(&of_node)?;
            let times = stretches.iter().flat_map(|stretch| &stretch.rows).map(|row| row.time);
            rows += times.filter(|at| (from..=to).contains(at)).count();
            self.next = to.plus(1);
        }
        Ok(rows)
    }

    /// Tells of every subject of which a node has cells of one metric, and how many slots there are.
    pub(super) fn learn_cells(
        &self,
        window: &Window,
        (asked, node): (&Asked, &Node),
        metric: &String,
        note: &(dyn Fn(&Subject) + Sync),
    ) -> Result<usize, ReadError> {
        let nothing = |key: NodeKey, subject: &Subject| {
            if key == node.key {
                note(subject);
            }
            false
        };
        rolled(window, asked.level, node, (self.next, self.to), (std::slice::from_ref(metric), &nothing))?;
        let slot_ms = asked.level.slot_ms().unwrap_or(1);
        Ok(usize::try_from(self.to.since(self.next) / slot_ms + 1).unwrap_or(usize::MAX))
    }
}

fn series(
    window: &Window,
    asked: &Asked,
    node: &Node,
    (from, to): (WallMs, WallMs),
    (metrics, wanted): (&[String], Filter<'_>),
) -> Result<Vec<Series>, ReadError> {
    let Some(slot_ms) = asked.level.slot_ms() else { return samples(window, asked, node, (from, to), wanted) };
    let of_node = |key: NodeKey, subject: &Subject| key == node.key && asked.wants_subject(subject);
    let found = rolled(window, asked.level, node, (from, to), (metrics, &of_node))?;
    let series = |Rolled { measure, subject, cells, .. }: Rolled| {
        let at = |slot: i64| WallMs(slot.saturating_mul(slot_ms));
        let points = cells.into_iter().map(|(slot, cell)| (at(slot), Value::Cell(cell)));
        let points: Vec<_> = points.filter(|(at, _)| (from..=to).contains(at)).collect();
        let is_rate = measure.about().is_some_and(|about| about.kind == Kind::Counter);
        (wanted(&subject, &measure) && !points.is_empty()).then_some(Series { subject, measure, is_rate, points })
    };
    Ok(found.into_iter().filter_map(series).collect())
}

fn samples(
    window: &Window,
    asked: &Asked,
    node: &Node,
    (from, to): (WallMs, WallMs),
    wanted: Filter<'_>,
) -> Result<Vec<Series>, ReadError> {
    let begins = if asked.rates { from.plus(-BEFORE_MS) } else { from };
    let taken = Taken { wanted, skew_ms: node.skew_ms, values_max: VALUES_MAX };
    let of_node = window::Asked { node: node.key, from: begins, to, taken, frames_max: usize::MAX };
    let stretches = window.stretches(&of_node)?;
    let shown = Wanted { from, to, interval_ms: node.interval_ms, raw: !asked.rates };
    let series = |Line { subject, measure, is_rate, points }: Line| {
        let known = points.into_iter().filter_map(|(at, value)| Some((at, Value::Sample(value?))));
        Series { subject, measure, is_rate, points: latest(known.collect()) }
    };
    Ok(lines(&stretches, &shown).into_iter().map(series).collect())
}

fn rolled(
    window: &Window,
    level: Level,
    node: &Node,
    (from, to): (WallMs, WallMs),
    (metrics, wanted): (&[String], OfNodes<'_>),
) -> Result<Vec<Rolled>, ReadError> {
    let nodes = (node.key, node.key);
    let fresh = [(node.key, node.skew_ms)];
    window.rolled(&FleetAsked { level, metrics, wanted, nodes, fresh: &fresh, from, to, cells_max: CELLS_MAX })
}

/// Of points at the same moment the one that stands last.
pub(super) fn latest(points: Vec<(WallMs, Value)>) -> Vec<(WallMs, Value)> {
    let mut one_each: Vec<(WallMs, Value)> = Vec::with_capacity(points.len());
    for point in points {
        match one_each.last_mut() {
            Some(last) if last.0 == point.0 => *last = point,
            _ => one_each.push(point),
        }
    }
    one_each
}

/// The names by which roll-ups are asked for, in order.
pub(super) fn names_of_cells(asked: &Asked) -> Vec<String> {
    if !asked.metrics.is_empty() {
        let mut names = asked.metrics.clone();
        names.sort_unstable();
        names.dedup();
        return names;
    }
    CATALOGUE.iter().map(|metric| metric.name.to_owned()).chain(asked.own.iter().cloned()).collect()
}
