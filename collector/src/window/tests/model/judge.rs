//! What reads must answer after a step, and what that step may have dropped.

use super::*;
use crate::store::SealedName;

/// A cell, as the map has it: all values of the slot in the order of time.
type Slots = BTreeMap<(NodeKey, String, i64), Vec<f64>>;

/// What was there before a step.
#[derive(Clone, Debug)]
pub(super) struct Before {
    covered: Covered,
}

impl Covered {
    fn of(files: &Files, next: Pos) -> Self {
        let ends = |first: Pos| {
            let closed = files.closed().into_iter().find(|journal| journal.first() == first);
            closed.map_or(Pos(next.0 - 1), |journal| journal.last())
        };
        let range = |name: &SealedName| (name.first, name.last);
        let open = |journals: Vec<crate::store::OpenJournal>| {
            journals.into_iter().map(|journal| (journal.first(), ends(journal.first()))).collect::<Vec<_>>()
        };
        let [mut full, mut mid, mut long] = Level::ALL.map(|level| files.of(level).map(range).collect::<Vec<_>>());
        full.extend(open(files.unsealed_from(WallMs(i64::MIN))));
        let not_long = files.of(Level::Mid).filter(|name| !files.holds(Level::Long, name.first));
        long.extend(not_long.map(range));
        let fresh = open(files.not_rolled_up());
        mid.extend(&fresh);
        long.extend(&fresh);
        Self([full, mid, long])
    }

    fn holds(&self, level: Level, pos: Pos) -> bool {
        self.0[level as usize].iter().any(|(first, last)| (*first..=*last).contains(&pos))
    }
}

impl World {
    pub(super) fn before(&self) -> Before {
        Before { covered: self.covered.clone() }
    }

    pub(super) fn judge(&mut self, op: &Op, before: &Before) {
        let files = Files::list(&self.state()).expect("listed");
        let next = self.log().next_pos();
        self.covered = Covered::of(&files, next);
        let went = Level::ALL.map(|level| self.went(level, before));
        self.judge_what_went(op, &went, &files);
        self.gone.iter_mut().zip(went).for_each(|(gone, went)| gone.extend(went));
        for agent in 1..=AGENTS {
            self.judge_samples(NodeKey(agent));
        }
        for level in [Level::Mid, Level::Long] {
            self.judge_cells(level);
        }
        if let Ok(Input::Told(event)) = self.events.try_recv() {
            panic!("{} was told: {}", event.kind, event.body);
        }
        assert_eq!((self.stats.window_failures.value(), self.stats.files_set_aside.value()), (0, 0));
    }

    fn is_there(&self, level: Level, pos: Pos) -> bool {
        self.covered.holds(level, pos) && !self.gone[level as usize].contains(&pos)
    }

    fn went(&self, level: Level, before: &Before) -> BTreeSet<Pos> {
        let was_there = |pos: &Pos| before.covered.holds(level, *pos) && !self.gone[level as usize].contains(pos);
        let positions = self.frames.values().map(|kept| kept.pos).filter(was_there);
        positions.filter(|pos| !self.covered.holds(level, *pos)).collect()
    }

    /// Nothing goes but what is dropped, and that from the oldest on.
    fn judge_what_went(&self, op: &Op, went: &[BTreeSet<Pos>; 3], files: &Files) {
        let retention = self.tuned.load().retention;
        let may_drop = matches!(op, Op::Look { .. } | Op::CrashInLook | Op::DropJournals { .. });
        // Journals go by what the last look said.
        let is_of_journals = matches!(op, Op::DropJournals { .. });
        let has_room = retention.bytes == Some(1 << 26) && !(is_of_journals && self.health.journal_room() < 1 << 25);
        let keeps = |level| has_room && retention.age_ms(level) > 365 * DAY_MS;
        for level in Level::ALL {
            let last = went[level as usize].last().copied();
            assert!(last.is_none() || (may_drop && !keeps(level)), "{level:?} up to {last:?} went by {op:?}");
            // A crash that brings files back tells nothing of the order in which they had gone.
            let is_in_order = !is_of_journals && !matches!(op, Op::CrashInLook);
            let first = files.of(level).map(|name| name.first).next().filter(|_| is_in_order);
            assert!(last.zip(first).is_none_or(|(last, first)| last < first), "{level:?}: the oldest goes first");
        }
        if matches!(op, Op::Look { ends_after: None }) {
            let (unsealed, _) = files.journal_bytes(self.health.sealed());
            let bytes: u64 = files.of(Level::Full).map(|name| bytes_of(name.path())).sum();
            let quota = retention.room((0, 0)).quota(Level::Full);
            assert!(bytes == 0 || bytes + unsealed <= quota, "{bytes} and {unsealed} of {quota} bytes");
        }
    }

    /// Every row of the map once, with its time and its values; also of a part of the time, and of one series alone.
    fn judge_samples(&self, node: NodeKey) {
        let is_there = |kept: &&Kept| self.is_there(Level::Full, kept.pos);
        let own = |range: (WallMs, WallMs)| {
            let frames = self.frames.range((node, FrameId::new(0, 0))..=(node, FrameId::new(u32::MAX, u64::MAX)));
            frames.filter(move |(_, kept)| is_there(kept) && (range.0..=range.1).contains(&kept.time))
        };
        let always = (WallMs(i64::MIN), WallMs(i64::MAX));
        let times: Vec<WallMs> = own(always).map(|(_, kept)| kept.time).collect();
        let part = times.iter().min().zip(times.iter().max()).map_or(always, |(first, last)| {
            let third = last.since(*first) / 3;
            (first.plus(third), last.plus(-third))
        });
        for (range, only) in [(always, None), (part, None), (always, Some(METRICS[1]))] {
            let found = self.rows(node, range, only);
            let expected: BTreeMap<FrameId, (WallMs, Vec<(String, i64)>)> = own(range)
                .map(|((_, id), kept)| (*id, (kept.time, values(&kept.reading, only))))
                .filter(|(_, (_, values))| only.is_none() || !values.is_empty())
                .collect();
            for (id, row) in &expected {
                assert_eq!(found.get(id), Some(row), "frame {id} of {node:?} in {range:?}, of {only:?}");
            }
            assert_eq!(found.len(), expected.len(), "{node:?} has no rows but those");
        }
    }

    fn rows(
        &self,
        node: NodeKey,
        (from, to): (WallMs, WallMs),
        only: Option<&str>,
    ) -> BTreeMap<FrameId, (WallMs, Vec<(String, i64)>)> {
        let wanted = |_: &Subject, measure: &Measure| {
            only.is_none_or(|only| measure.about().is_some_and(|about| about.name == only))
        };
        let taken = Taken { wanted: &wanted, skew_ms: 0, values_max: usize::MAX };
        let asked = Asked { node, from, to, taken, frames_max: usize::MAX };
        let window = Window::new(self.state(), Arc::clone(&self.keeper.errand.word));
        let mut rows = BTreeMap::new();
        let stretches = window.stretches(&asked).expect("it is read");
        // Opening every file takes as long as all else: one question in three is asked so as well.
        if only.is_some() {
            let mut opened = window.open_range(from, to).expect("it is opened");
            assert_eq!(opened.stretches(&asked).expect("it is read"), stretches, "{node:?} by files that stay open");
        }
        for stretch in stretches {
            for (at, row) in stretch.rows.iter().enumerate().filter(|(_, row)| (from..=to).contains(&row.time)) {
                let mut values: Vec<(String, i64)> = Vec::new();
                for column in stretch.columns.iter().filter(|column| column.values[at] != ABSENT) {
                    values.push((column.measure.about().expect("known").name.to_owned(), column.values[at]));
                }
                values.sort_unstable();
                let twice = rows.insert(FrameId { epoch: row.epoch, seq: row.seq }, (row.time, values));
                assert_eq!(twice, None, "{row:?} of {node:?} is there twice");
            }
        }
        rows
    }

    /// Roll-ups of gauges: what the values of a slot come to. Rates are compared with folding elsewhere.
    fn judge_cells(&self, level: Level) {
        let slot_ms = level.slot_ms().expect("it has cells");
        let mut expected = Slots::new();
        let mut frames: Vec<_> = self.frames.iter().filter(|(_, kept)| self.is_there(level, kept.pos)).collect();
        frames.sort_by_key(|(_, kept)| kept.time);
        for ((node, _), kept) in frames {
            for (name, steps) in
                values(&kept.reading, None).into_iter().filter(|(name, _)| GAUGES.contains(&name.as_str()))
            {
                let value = by_name(&name).expect("it is in the catalogue").step.value(steps);
                let slot = kept.time.0.div_euclid(slot_ms);
                expected.entry((*node, name, slot)).or_default().push(value);
            }
        }
        let metrics: Vec<String> = GAUGES.iter().map(ToString::to_string).collect();
        let fresh: Vec<_> = (1..=AGENTS).map(|key| (NodeKey(key), 0)).collect();
        let asked = FleetAsked {
            level,
            metrics: &metrics,
            wanted: &|_, _| true,
            nodes: (NodeKey(0), NodeKey(u32::MAX >> 1)),
            fresh: &fresh,
            from: WallMs(i64::MIN),
            to: WallMs(i64::MAX),
            cells_max: usize::MAX,
        };
        let window = Window::new(self.state(), Arc::clone(&self.keeper.errand.word));
        for rolled in window.rolled(&asked).expect("it is read") {
            let about = rolled.measure.about().expect("known");
            let step = about.step.value(1);
            for (slot, cell) in rolled.cells {
                let place = format!("{level:?} {} of {:?} in slot {slot}", about.name, rolled.node);
                let Some(values) = expected.remove(&(rolled.node, about.name.to_owned(), slot)) else {
                    panic!("{place}: nothing was stored for {cell:?}")
                };
                let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
                let mean = values.iter().sum::<f64>() / f64::from(u32::try_from(values.len()).expect("few"));
                let is_near = |a: f64, b: f64| (a - b).abs() <= step / 1_000.0;
                assert_eq!(cell.count as usize, values.len(), "{place}: {cell:?} of {values:?}");
                assert!(is_near(cell.min, least) && is_near(cell.max, most), "{place}: {cell:?} of {values:?}");
                // A sixteenth of a step each time that it is written, and parts are put together and written anew.
                assert!((cell.mean - mean).abs() <= step / 4.0, "{place}: {cell:?} of {values:?}, {mean}");
                assert!(values.iter().any(|value| is_near(*value, cell.last)), "{place}: {cell:?} of {values:?}");
            }
        }
        assert!(expected.is_empty(), "{level:?}: {expected:?} is missing");
    }
}

/// By the names of the metrics, those that are there.
fn values(reading: &Reading, only: Option<&str>) -> Vec<(String, i64)> {
    let mut values: Vec<(String, i64)> = Vec::new();
    for (series, steps) in reading.layout.series.iter().zip(&reading.values).filter(|(_, steps)| **steps != ABSENT) {
        let name = METRICS
            .iter()
            .find(|name| by_name(name).is_some_and(|known| MetricRef::catalogued(known.id) == series.metric));
        let name = *name.expect("one of ours");
        if only.is_none_or(|only| only == name) {
            values.push((name.to_owned(), *steps));
        }
    }
    values.sort_unstable();
    values
}
