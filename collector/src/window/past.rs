//! The past of what rules look far back at, from the roll-ups, for a collector that starts.
//!
//! Sheets are filed by metric, so that each metric is read in one pass, and of so many nodes at a time as memory allows. It
//! is read by the keeper before it makes or drops any file: what was rolled up when the start looked is what is told.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use dunlin_shared::rule::Source;
use dunlin_shared::time::{MonoMs, WallMs};

use super::read::{FleetAsked, ReadError, Rolled, Window};
use crate::block::Measure;
use crate::engine::alert::{Past, Reach, Slot};
use crate::record::{NodeKey, Pos};
use crate::rollup::Cell;
use crate::store::{Files, Level, StoreError};

/// Nodes that are read together, as long as they have no more cells than fit.
const NODES_AT_ONCE: u32 = 1_000;
/// Cells that are held at a time: some 60 MiB.
const CELLS_MAX: usize = 1_000_000;
const SLOT_MS: i64 = 300_000;

/// What is to be told, and as of when.
#[derive(Clone, Debug)]
pub struct PastAsked {
    reaches: Vec<Reach>,
    /// The last tick that is applied: by the wall clock, and for how long the collector had listened.
    at: WallMs,
    ran: MonoMs,
    /// The last node there is.
    highest: NodeKey,
}

/// Which records are rolled up.
#[derive(Clone, Debug, Default)]
pub struct RolledUp(Vec<RangeInclusive<Pos>>);

impl RolledUp {
    /// As a window has them.
    pub fn list(dir: &Path) -> Result<Self, StoreError> {
        let files = Files::list(dir)?;
        Ok(Self(files.of(Level::Mid).map(|name| name.first..=name.last).collect()))
    }

    #[must_use]
    pub fn holds(&self, pos: Pos) -> bool {
        // What is asked of is new.
        self.0.iter().rev().any(|range| range.contains(&pos))
    }
}

impl PastAsked {
    /// `None` where no rule asks for any.
    #[must_use]
    pub fn new(reaches: Vec<Reach>, (at, ran): (WallMs, MonoMs), highest: Option<NodeKey>) -> Option<Self> {
        let highest = highest.filter(|_| !reaches.is_empty() && at.0 > 0)?;
        Some(Self { reaches, at, ran, highest })
    }

    /// Reads all of it, and tells it in parts; until it is told to stop. How many series that were.
    pub(super) fn read(&self, window: &Window, tell: &mut impl FnMut(Vec<Past>) -> bool) -> Result<usize, ReadError> {
        let mut count = 0;
        for reach in &self.reaches {
            let firsts = (0..=self.highest.0).step_by(NODES_AT_ONCE as usize);
            let mut parts: Vec<_> = firsts.map(|first| (first, first.saturating_add(NODES_AT_ONCE - 1))).collect();
            parts.reverse();
            while let Some((first, last)) = parts.pop() {
                let rolled = match self.rolled(window, reach, (NodeKey(first), NodeKey(last))) {
                    Ok(rolled) => rolled,
                    Err(ReadError::TooMany(_)) if first < last => {
                        let middle = first + (last - first) / 2;
                        parts.extend([(middle + 1, last), (first, middle)]);
                        continue;
                    }
                    // One node with more than fits: its windows begin anew.
                    Err(ReadError::TooMany(_)) => continue,
                    Err(error) => return Err(error),
                };
                let past: Vec<Past> = rolled.into_iter().filter_map(|rolled| self.past(rolled)).collect();
                count += past.len();
                if !past.is_empty() && !tell(past) {
                    return Ok(count);
                }
            }
        }
        Ok(count)
    }

    fn rolled(&self, window: &Window, reach: &Reach, nodes: (NodeKey, NodeKey)) -> Result<Vec<Rolled>, ReadError> {
        let back_ms = i64::try_from(reach.back_ms).unwrap_or(i64::MAX);
        window.rolled(&FleetAsked {
            level: Level::Mid,
            metrics: std::slice::from_ref(&reach.metric),
            wanted: &|node, subject| nodes.0 <= node && node <= nodes.1 && reach.asks(&subject.to_string()),
            nodes,
            fresh: &[],
            from: self.at.plus(-back_ms),
            to: self.at,
            cells_max: CELLS_MAX,
        })
    }

    fn past(&self, rolled: Rolled) -> Option<Past> {
        let about = rolled.measure.about()?;
        let (kind, step) = (about.kind, about.step);
        let source = match &rolled.measure {
            Measure::Catalogued(id) => Source::Catalogued(*id),
            Measure::Open(own) => Source::Open(own.name().into()),
        };
        let slots = rolled.cells.iter().filter_map(|(slot, cell)| self.slot(*slot, cell)).collect();
        Some(Past { node: rolled.node, source, subject: Arc::from(rolled.subject.to_string()), kind, step, slots })
    }

    /// By the wall clock it is as long ago as by the time in which the collector listened, as for frames that it finds.
    fn slot(&self, number: i64, cell: &Cell) -> Option<Slot> {
        let begins = WallMs(number.saturating_mul(SLOT_MS));
        let back_ms = self.at.since(begins);
        let from = self.ran.0.checked_add_signed(back_ms.checked_neg()?)?;
        let Cell { min, max, mean, last, count } = *cell;
        let to = MonoMs(from).plus(SLOT_MS.unsigned_abs()).min(self.ran);
        Some(Slot { from: MonoMs(from), to, min, max, mean, last, count })
    }
}
