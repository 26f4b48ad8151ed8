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
    cells_max: usize,
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
        Some(Self { reaches, at, ran, highest, cells_max: CELLS_MAX })
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
            cells_max: self.cells_max,
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dunlin_shared::metric::by_name;
    use dunlin_shared::rule::file::parse;
    use dunlin_shared::sample::Subject;

    use super::*;
    use crate::engine::alert::{Alerts, Now};
    use crate::rollup::Row;
    use crate::store::tests::Dir;
    use crate::store::{Builder, Span};
    use crate::window::sheets::SheetWriter;

    const HOUR_MS: i64 = 3_600_000;
    const NODES: u32 = 2_100;
    /// 2026-11-21 10:00:00 UTC.
    const AT: WallMs = WallMs(1_795_255_200_000);
    const RAN: MonoMs = MonoMs(90 * 3_600_000);

    /// Roll-ups of the load of so many nodes, a file an hour.
    fn write(dir: &Dir, hours: i64) {
        let measure = Measure::Catalogued(by_name("host_load1").expect("in the catalogue").id);
        for hour in 0..hours {
            let begins = AT.0 - (hours - hour) * HOUR_MS;
            let slots = || (0..12).map(|slot| begins / SLOT_MS + slot);
            let cells = |node: u32| slots().map(|slot| (slot, Cell::one(f64::from(node)))).collect();
            let row = |node| Row { node: NodeKey(node), subject: Subject::HOST(), cells: cells(node) };
            let rows: Vec<Row> = (0..NODES).map(row).collect();
            let builder = Builder::begin(dir.path(), Level::Mid, Span::Hour, begins / 1_000).expect("it begins");
            let mut writer = SheetWriter::new(builder, Level::Mid);
            writer.put_rows(&measure, &rows).expect("they are put");
            let first = Pos(1 + hour.unsigned_abs() * 100);
            drop(writer.publish(first, Pos(first.0 + 99), AT).expect("it is published"));
        }
    }

    fn asked(rule: &str) -> Option<PastAsked> {
        let text = format!("[[rule]]\nname = \"far\"\nwhen = '{rule}'\nsummary = \"x\"\n");
        let rules = parse("rules.toml", &text).unwrap_or_else(|errors| panic!("{errors:?}"));
        let mut alerts = Alerts::default();
        drop(alerts.set_rules(Now::default(), rules.into_iter().map(Arc::new)));
        PastAsked::new(alerts.reaches(), (AT, RAN), Some(NodeKey(NODES - 1)))
    }

    /// By node, how many slots it was told and the first of them.
    fn told(dir: &Dir, asked: &PastAsked) -> BTreeMap<NodeKey, (usize, Slot)> {
        let window = Window::new(dir.path().to_path_buf(), Arc::default());
        let mut all = BTreeMap::new();
        let count = asked.read(&window, &mut |past| {
            for past in past {
                let first = *past.slots.first().expect("it has some");
                assert!(all.insert(past.node, (past.slots.len(), first)).is_none(), "each is told once");
            }
            true
        });
        assert_eq!(count.expect("it is read"), all.len());
        all
    }

    #[test]
    fn each_series_is_told_once_and_whole_however_few_fit_at_a_time() {
        let dir = Dir::new();
        write(&dir, 8);
        let mut asked = asked("avg(host_load1, 6h) > 5").expect("a rule asks for it");
        for cells_max in [CELLS_MAX, 20_000] {
            asked.cells_max = cells_max;
            let told = told(&dir, &asked);
            assert_eq!(told.len(), NODES as usize);
            for (node, (count, first)) in told {
                assert_eq!((count, first.from), (72, MonoMs(RAN.0 - 6 * 3_600_000)), "{node:?}");
                assert_eq!((first.mean, first.to.since(first.from)), (f64::from(node.0), 300_000));
            }
        }
        (asked.cells_max, asked.highest) = (71, NodeKey(3));
        assert!(told(&dir, &asked).is_empty(), "one with more than fits begins anew, and holds up nobody");
        let mut parts = 0;
        let window = Window::new(dir.path().to_path_buf(), Arc::default());
        asked.cells_max = CELLS_MAX;
        let read = asked.read(&window, &mut |_| {
            parts += 1;
            false
        });
        assert!(read.is_ok() && parts == 1, "it ends when it is told to");
    }

    #[test]
    fn only_what_a_rule_looks_far_back_at_is_read() {
        assert!(asked("avg(host_load1, 10m) > 5").is_none(), "its frames are all there");
        assert!(asked("count_over(node_state == down, 1h) > 5").is_none(), "nothing is rolled up of it");
        let dir = Dir::new();
        write(&dir, 1);
        assert!(told(&dir, &asked("avg(host_load5, 6h) > 5").expect("a rule asks for it")).is_empty());
        let rolled_up = RolledUp::list(dir.path()).expect("it can be listed");
        assert!([1, 100].map(Pos).iter().all(|pos| rolled_up.holds(*pos)) && !rolled_up.holds(Pos(101)));
    }
}
