//! What became of the well-behaved nodes while others flooded, as the collector's own log has it.
//!
//! Collector and agents share a clock, so that the time from a sample to the log can be read off each frame.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::Result;
use dunlin_collector::ingest::Replay;
use dunlin_collector::record::{Event, NodeKey, Pos};
use dunlin_collector::store::{Reader, StateLock, check};
use dunlin_shared::id::NodeId;
use dunlin_shared::time::WallMs;
use dunlin_shared::wire::Lane;

/// Of one stretch of time.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) frames: u64,
    /// Of nodes that were there before.
    pub(super) hellos: u64,
    pub(super) losses: u64,
    pub(super) gaps: u64,
    /// From a sample to its receipt, ascending.
    pub(super) late_ms: Vec<i64>,
}

impl Seen {
    pub(super) fn quantile(&self, of_thousand: usize) -> f64 {
        let at = (self.late_ms.len() * of_thousand / 1_000).min(self.late_ms.len().saturating_sub(1));
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of minutes")]
        self.late_ms.get(at).map_or(f64::INFINITY, |&ms| ms as f64)
    }
}

/// Reads the log of a stopped collector: each stretch of time with what was seen of these nodes.
pub(super) fn look(state: &Path, nodes: &HashSet<NodeId>, spells: &[(WallMs, WallMs)]) -> Result<Vec<Seen>> {
    let _lock = StateLock::take(state)?;
    let mut seen = vec![Seen::default(); spells.len()];
    let mut firsts = check(state)?.into_iter().filter_map(|file| file.first).peekable();
    let mut keys: HashMap<NodeKey, NodeId> = HashMap::new();
    let mut replay = Replay::default();
    for item in Reader::new(&state.join("window")).scan(Pos(0))? {
        let (pos, record) = item?;
        // A file stands alone: what its deltas build on must be in it.
        while firsts.next_if(|&first| first <= pos).is_some() {
            replay = Replay::default();
        }
        if let Event::Hello { node, session } = &record.event {
            keys.insert(*node, session.node);
        }
        let reading = replay.reading(&record).ok().flatten();
        let is_ours = record.event.node().and_then(|key| keys.get(&key)).is_some_and(|id| nodes.contains(id));
        let spell = spells.iter().position(|(from, to)| (*from..*to).contains(&record.at));
        let Some(seen) = spell.filter(|_| is_ours).map(|at| &mut seen[at]) else { continue };
        match &record.event {
            Event::Hello { .. } => seen.hellos += 1,
            Event::Lost { .. } | Event::Goodbye { .. } => seen.losses += 1,
            Event::Gap { gap, .. } => seen.gaps += gap.range.count(),
            Event::Frame { lane, .. } => {
                seen.frames += 1;
                if let (Some(reading), Lane::Live) = (reading, lane) {
                    seen.late_ms.push(record.at.since(reading.wall));
                }
            }
            _ => {}
        }
    }
    seen.iter_mut().for_each(|seen| seen.late_ms.sort_unstable());
    Ok(seen)
}
