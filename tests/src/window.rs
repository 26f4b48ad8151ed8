//! The oracle: what a collector has on disk, read from outside, and whether it is all there, once.
//!
//! It believes neither program: it counts the records themselves.

use std::collections::BTreeMap;
use std::path::Path;

use dunlin_collector::record::{Event, NodeKey, Pos};
use dunlin_collector::store::{Files, Level, Reader, Span, StoreError};
use dunlin_shared::frame::BodyKind;
use dunlin_shared::id::{Epoch, NodeId, Seq};
use dunlin_shared::inventory::{Facts, Happening, Inventory, Stock};
use dunlin_shared::range::SeqSet;
use dunlin_shared::time::WallMs;
use dunlin_shared::wire::{Gap, Lane};
use thiserror::Error;

/// From one tick of a second to the next: half a second for what hangs, and half a second that a busy machine takes.
const ON_TIME_MS: i64 = 2_000;

#[derive(Debug, Error)]
pub enum WindowError {
    #[error("the window cannot be read")]
    Store(#[from] StoreError),
    #[error("frame {seq} of epoch {epoch} is there twice, at {first} and {second}")]
    Twice { epoch: u32, seq: u64, first: u64, second: u64 },
    #[error("epoch {epoch}: of the numbers up to {last} these are neither there nor in a gap: {missing:?}")]
    Missing { epoch: u32, last: u64, missing: Vec<u64> },
    #[error("epoch {epoch}: {count} numbers are both there and in a gap")]
    Both { epoch: u32, count: u64 },
    #[error("the window holds nothing of node {0}")]
    Unknown(NodeId),
}

/// A frame's place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Landed {
    pub pos: Pos,
    pub at: WallMs,
    pub lane: Lane,
    pub epoch: Epoch,
    pub seq: Seq,
    /// It holds values: a tick. What stands on the node comes in frames of its own.
    pub is_reading: bool,
}

/// What the log holds of one node, in its order.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub hellos: Vec<Pos>,
    pub frames: Vec<Landed>,
    pub gaps: Vec<(Pos, Gap)>,
    pub goodbyes: u64,
    /// As they were sent, one after the other.
    pub facts: Vec<Facts>,
    /// What stands on the node, by all that it told of it in this order.
    pub stock: Stock,
    pub happened: Vec<Happening>,
    /// Changes that built on something else than what was told before.
    pub mismatches: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Window {
    nodes: BTreeMap<NodeId, History>,
}

/// Whether every closed journal is sealed, and every hour that has ended merged.
pub fn is_sealed(state: &Path) -> Result<bool, StoreError> {
    let files = Files::list(&state.join("window"))?;
    let is_held = |level| files.closed().iter().all(|journal| files.holds(level, journal.first()));
    let newest = files.of(Level::Full).map(|name| Span::Hour.slot_of(name.slot_s)).max();
    let mut parts = files.sealed.iter().filter(|name| name.span == Span::FiveMinutes);
    let is_merged = parts.all(|name| Some(Span::Hour.slot_of(name.slot_s)) == newest);
    Ok(is_held(Level::Full) && is_held(Level::Mid) && is_merged && files.superseded.is_empty())
}

impl Window {
    pub fn read(directory: &Path) -> Result<Self, WindowError> {
        let mut keys: BTreeMap<NodeKey, NodeId> = BTreeMap::new();
        let mut nodes: BTreeMap<NodeId, History> = BTreeMap::new();
        // The newest frame overtakes older ones; what was told is told in the order of its frames.
        let mut told: BTreeMap<(NodeId, Epoch, Seq), Inventory> = BTreeMap::new();
        for record in Reader::new(directory).scan(Pos(0))? {
            let (pos, record) = record?;
            if let Event::Hello { node, session } = &record.event {
                keys.insert(*node, session.node);
            }
            // A node speaks after its Hello.
            let Some(id) = record.event.node().and_then(|key| keys.get(&key)) else { continue };
            let history = nodes.entry(*id).or_default();
            match record.event {
                Event::Hello { .. } => history.hellos.push(pos),
                Event::Frame { lane, frame, .. } => {
                    if frame.kind == BodyKind::Inventory
                        && let Ok(inventory) = Inventory::decode(&frame.body)
                    {
                        told.insert((*id, frame.id.epoch, frame.id.seq), inventory);
                    }
                    let is_reading = frame.kind != BodyKind::Inventory;
                    let (epoch, seq) = (frame.id.epoch, frame.id.seq);
                    history.frames.push(Landed { pos, at: record.at, lane, epoch, seq, is_reading });
                }
                Event::Gap { gap, .. } => history.gaps.push((pos, gap)),
                Event::Goodbye { .. } => history.goodbyes += 1,
                _ => {}
            }
        }
        for ((node, ..), inventory) in told {
            nodes.entry(node).or_default().take(inventory);
        }
        Ok(Self { nodes })
    }

    pub fn of(&self, node: NodeId) -> Result<&History, WindowError> {
        self.nodes.get(&node).ok_or(WindowError::Unknown(node))
    }
}

impl History {
    fn take(&mut self, inventory: Inventory) {
        match inventory {
            Inventory::Facts(facts) => self.facts.push(facts),
            Inventory::Whole(whole) => {
                self.happened.extend(whole.happened);
                self.stock = Stock::of(whole.items);
            }
            Inventory::Change(change) => {
                self.happened.extend(change.happened.iter().cloned());
                self.mismatches += u64::from(self.stock.apply(change).is_err());
            }
        }
    }

    /// Every number of every epoch, up to the highest that is there, is there once or in a gap, and not both.
    pub fn check(&self) -> Result<(), WindowError> {
        let mut seen: BTreeMap<(Epoch, Seq), Pos> = BTreeMap::new();
        let mut frames: BTreeMap<Epoch, SeqSet> = BTreeMap::new();
        for frame in &self.frames {
            if let Some(first) = seen.insert((frame.epoch, frame.seq), frame.pos) {
                let (epoch, seq) = (frame.epoch.0, frame.seq.0);
                return Err(WindowError::Twice { epoch, seq, first: first.0, second: frame.pos.0 });
            }
            frames.entry(frame.epoch).or_default().insert(frame.seq);
        }
        for (epoch, there) in frames {
            let mut gaps = SeqSet::new();
            self.gaps.iter().filter(|(_, gap)| gap.epoch == epoch).for_each(|(_, gap)| gaps.insert_range(gap.range));
            let both = there.ranges().iter().flat_map(|range| range.first.0..=range.last.0);
            let count = both.filter(|&seq| gaps.contains(Seq(seq))).count() as u64;
            if count > 0 {
                return Err(WindowError::Both { epoch: epoch.0, count });
            }
            let last = there.last().max(gaps.last()).map_or(0, |seq| seq.0);
            let is_missing = |seq: &u64| !there.contains(Seq(*seq)) && !gaps.contains(Seq(*seq));
            let missing: Vec<u64> = (0..=last).filter(is_missing).collect();
            if !missing.is_empty() {
                return Err(WindowError::Missing { epoch: epoch.0, last, missing });
            }
        }
        Ok(())
    }

    /// How many numbers are in gaps.
    #[must_use]
    pub fn gap_frames(&self) -> u64 {
        self.gaps.iter().map(|(_, gap)| gap.range.count()).sum()
    }

    /// Whether an agent that ticks every second had each tick out on time: the pauses between frames at or after this
    /// position that were too long, or that there are too few frames to say.
    pub fn on_time(&self, pos: Pos) -> Result<(), Vec<i64>> {
        let at: Vec<i64> = self.since(pos).iter().map(|frame| frame.at.0).collect();
        let late: Vec<i64> = at.windows(2).map(|two| two[1] - two[0]).filter(|&ms| ms > ON_TIME_MS).collect();
        if at.len() > 2 && late.is_empty() { Ok(()) } else { Err(late) }
    }

    /// Frames that landed at or after this position.
    #[must_use]
    pub fn since(&self, pos: Pos) -> Vec<Landed> {
        self.frames.iter().copied().filter(|frame| frame.pos >= pos).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(at_ms: &[i64]) -> History {
        let landed = |(n, &ms): (usize, &i64)| {
            let n = n as u64;
            Landed { pos: Pos(n), at: WallMs(ms), lane: Lane::Live, epoch: Epoch(1), seq: Seq(n), is_reading: true }
        };
        History { frames: at_ms.iter().enumerate().map(landed).collect(), ..History::default() }
    }

    #[test]
    fn a_tick_that_came_late_is_found_and_too_few_say_nothing() {
        assert_eq!(frames(&[0, 1_000, 2_900, 3_000]).on_time(Pos(0)), Ok(()));
        assert_eq!(frames(&[0, 1_000, 3_500, 4_000]).on_time(Pos(0)), Err(vec![2_500]));
        assert_eq!(frames(&[0, 9_000, 10_000, 11_000]).on_time(Pos(1)), Ok(()), "what was before is not asked for");
        assert_eq!(frames(&[0, 1_000]).on_time(Pos(0)), Err(Vec::new()));
    }
}
