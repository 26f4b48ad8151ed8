//! Roll-ups: what the points of a series come to within a slot.
//!
//! Pure. A cell is made of the points that `points` makes, so that what is rolled up of a counter is its rate, and a
//! roll-up answers as folding the samples would. Cells of one slot can be made in parts and put together.

mod sheet;
#[cfg(test)]
mod tests;

use dunlin_shared::metric::{Kind, Step};
use dunlin_shared::sample::Subject;
use dunlin_shared::time::WallMs;

pub use self::sheet::{SheetError, decode, encode};
use crate::points::{About, Fold, Point};
use crate::record::NodeKey;

/// The points of a slot. Where it is put together from parts, `last` is that of the part that came last: of a backlog, if
/// one came into a slot that live frames had begun.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    pub min: f64,
    pub max: f64,
    pub mean: f64,
    pub last: f64,
    pub count: u32,
}

/// The cells of one series of one node, each with the number of its slot; ascending.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub node: NodeKey,
    pub subject: Subject,
    pub cells: Vec<(i64, Cell)>,
}

/// To which precision cells are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Values are steps of the metric, and so exact; means are sixteenths of a step.
    Steps(Step),
    /// Rates: thirteen binary digits, whatever their size.
    Rate,
}

/// Slots of five minutes in one of an hour.
pub const HOUR_SLOTS: i64 = 12;
/// Parts of a step that a mean is kept to.
const MEAN_PARTS: f64 = 16.0;
/// Digits of a rate's `f32` that are not kept.
const RATE_SHIFT: u32 = 11;

impl Scale {
    #[must_use]
    pub const fn of(about: &About<'_>) -> Self {
        match about.kind {
            Kind::Gauge => Self::Steps(about.step),
            Kind::Counter => Self::Rate,
        }
    }
}

impl Cell {
    /// Of one point.
    #[must_use]
    pub const fn one(value: f64) -> Self {
        Self { min: value, max: value, mean: value, last: value, count: 1 }
    }

    /// With points that came after these.
    #[must_use]
    pub fn with(self, later: Self) -> Self {
        let count = self.count.saturating_add(later.count);
        let mean = (self.mean * f64::from(self.count) + later.mean * f64::from(later.count)) / f64::from(count.max(1));
        Self { min: self.min.min(later.min), max: self.max.max(later.max), mean, last: later.last, count }
    }

    #[must_use]
    pub const fn folded(&self, how: Fold) -> f64 {
        match how {
            Fold::Mean => self.mean,
            Fold::Min => self.min,
            Fold::Max => self.max,
            Fold::Last => self.last,
        }
    }
}

/// The cells of a series' points, which are in the order of time. Gaps are no points.
#[must_use]
pub fn cells(points: &[Point], slot_ms: i64) -> Vec<(i64, Cell)> {
    let mut cells: Vec<(i64, Cell)> = Vec::new();
    for (at, value) in points {
        let Some(value) = value else { continue };
        add(&mut cells, at.0.div_euclid(slot_ms), Cell::one(*value));
    }
    cells
}

/// The same cells in longer slots.
#[must_use]
pub fn longer(cells: &[(i64, Cell)], times: i64) -> Vec<(i64, Cell)> {
    let mut longer = Vec::new();
    cells.iter().for_each(|(slot, cell)| add(&mut longer, slot.div_euclid(times), *cell));
    longer
}

/// How many slots make a step of at least that length.
#[must_use]
pub fn slots_of(step_ms: Option<i64>, slot_ms: i64) -> i64 {
    step_ms.map_or(1, |step_ms| step_ms.saturating_add(slot_ms - 1).div_euclid(slot_ms)).max(1)
}

/// Puts cells of one series together that come from several files, in the order in which those came.
#[must_use]
pub fn together(mut parts: Vec<Vec<(i64, Cell)>>) -> Vec<(i64, Cell)> {
    if parts.len() <= 1 {
        return parts.pop().unwrap_or_default();
    }
    let mut all: Vec<(i64, Cell)> = parts.into_iter().flatten().collect();
    // Stable: what came later stays later.
    all.sort_by_key(|(slot, _)| *slot);
    let mut cells = Vec::with_capacity(all.len());
    all.into_iter().for_each(|(slot, cell)| add(&mut cells, slot, cell));
    cells
}

/// The points of a range that a series' cells come to; one gap where slots are missing between two.
#[must_use]
pub fn points(cells: &[(i64, Cell)], slot_ms: i64, how: Fold, (from, to): (WallMs, WallMs)) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::with_capacity(cells.len());
    for (slot, cell) in cells {
        let at = WallMs(slot.saturating_mul(slot_ms));
        if !(from..=to).contains(&at) {
            continue;
        }
        if let Some((last, _)) = points.last().copied().filter(|(last, _)| last.plus(slot_ms) < at) {
            points.push((last.plus(slot_ms), None));
        }
        points.push((at, Some(cell.folded(how))));
    }
    points
}

fn add(cells: &mut Vec<(i64, Cell)>, slot: i64, cell: Cell) {
    match cells.last_mut() {
        Some((last, known)) if *last == slot => *known = known.with(cell),
        _ => cells.push((slot, cell)),
    }
}
