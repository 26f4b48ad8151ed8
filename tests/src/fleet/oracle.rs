//! What a collector must hold, as the agents themselves saw it: sampled, acknowledged, given up.
//!
//! The file is JSON lines: a `Run` first, then one `Node` a line. Frames are numbered from 0 within an
//! epoch, so `sampled` alone says which there are. It is replaced whole, so a reader never sees half of it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use dunlin_shared::id::{Epoch, NodeId, Seq};
use dunlin_shared::range::{SeqRange, SeqSet};
use dunlin_shared::time::WallMs;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::drill::Drill;
use super::load::{Load, Replay};
use super::numbering::Numbering;
use super::recording::RecordingError;

pub const FORMAT: &str = "dunlin-oracle-3";

#[derive(Debug, Error)]
pub enum OracleError {
    #[error("{}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}:{line}: not as an oracle's file is written", path.display())]
    Line { path: PathBuf, line: usize, source: Option<serde_json::Error> },
}

/// The first line: one run of a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub format: String,
    pub seed: u64,
    pub series: usize,
    pub epoch: u32,
    /// The file that every agent replayed, if it did.
    pub recording: Option<PathBuf>,
    /// Each node crossed the drill's rule at one tick of so many, if they did.
    pub drill: Option<NonZeroU64>,
    /// What the wall clock read when the fleet's own clock read 0.
    pub began: i64,
    /// False in what a killed fleet leaves: it sampled and was acknowledged more than this says.
    pub finished: bool,
}

/// Every other line: one agent in one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub node: String,
    /// Its number in the fleet.
    pub index: usize,
    pub epoch: u32,
    /// The frames 0 to `sampled - 1` were taken.
    pub sampled: u64,
    /// Those that tell what stands on the host, and at which tick; see `numbering` for all others.
    pub told: Vec<(u64, u64)>,
    /// What the collector said to hold, frames and gaps alike.
    pub acknowledged: Vec<(u64, u64)>,
    /// What the spool gave up. The collector may hold a frame of it: its acknowledgement was too late.
    pub gaps: Vec<(u64, u64)>,
    /// Neither acknowledged nor given up.
    pub pending: Vec<(u64, u64)>,
}

#[derive(Clone, Debug)]
pub struct Oracle {
    pub run: Run,
    pub nodes: Vec<Node>,
}

/// One agent's part while it runs.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub sampled: u64,
    pub numbering: Numbering,
    pub acknowledged: SeqSet,
    pub gaps: SeqSet,
}

impl Run {
    #[must_use]
    pub fn new(load: &Load, epoch: Epoch, began: WallMs, finished: bool) -> Self {
        let recording = load.replay.as_ref().map(|replay| replay.file.clone());
        let &Load { seed, series, drill, .. } = load;
        let drill = drill.map(|drill| drill.one_of);
        Self { format: FORMAT.to_owned(), seed, series, epoch: epoch.0, recording, drill, began: began.0, finished }
    }

    /// What the agents of this run sampled.
    pub fn load(&self) -> Result<Load, RecordingError> {
        let replay = self.recording.clone().map(Replay::read).transpose()?;
        let drill = self.drill.map(|one_of| Drill { one_of });
        Ok(Load { seed: self.seed, series: self.series, replay, drill })
    }
}

impl Node {
    #[must_use]
    pub fn new(id: NodeId, index: usize, epoch: Epoch, tally: &Tally) -> Self {
        Self {
            node: id.to_string(),
            index,
            epoch: epoch.0,
            sampled: tally.sampled,
            told: tally.numbering.told().to_vec(),
            acknowledged: plain(&tally.acknowledged),
            gaps: plain(&tally.gaps),
            pending: plain(&tally.pending()),
        }
    }
}

impl Tally {
    /// The frames below `before` that are neither acknowledged nor given up.
    #[must_use]
    pub fn pending_before(&self, before: u64) -> SeqSet {
        let mut pending = SeqSet::new();
        if let Some(last) = before.min(self.sampled).checked_sub(1) {
            pending.insert_range(SeqRange { first: Seq(0), last: Seq(last) });
        }
        pending.remove_all(&self.acknowledged);
        pending.remove_all(&self.gaps);
        pending
    }

    #[must_use]
    pub fn pending(&self) -> SeqSet {
        self.pending_before(u64::MAX)
    }
}

impl Oracle {
    /// Writes beside `path` and renames, so that a kill leaves the file before this one.
    pub fn write(&self, path: &Path) -> Result<(), OracleError> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".tmp");
        let beside = PathBuf::from(beside);
        self.write_to(&beside).map_err(|source| OracleError::File { path: beside.clone(), source })?;
        fs::rename(&beside, path).map_err(|source| OracleError::File { path: path.to_owned(), source })
    }

    pub fn read(path: &Path) -> Result<Self, OracleError> {
        let file_error = |source| OracleError::File { path: path.to_owned(), source };
        let mut lines = BufReader::new(File::open(path).map_err(file_error)?).lines().enumerate();
        let wrong = |line, source| OracleError::Line { path: path.to_owned(), line: line + 1, source };
        let (_, first) = lines.next().ok_or_else(|| wrong(0, None))?;
        let run: Run = serde_json::from_str(&first.map_err(file_error)?).map_err(|error| wrong(0, Some(error)))?;
        if run.format != FORMAT {
            return Err(wrong(0, None));
        }
        let mut nodes = Vec::new();
        for (number, line) in lines {
            let node = serde_json::from_str(&line.map_err(file_error)?);
            nodes.push(node.map_err(|error| wrong(number, Some(error)))?);
        }
        Ok(Self { run, nodes })
    }

    fn write_to(&self, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        serde_json::to_writer(&mut file, &self.run)?;
        file.write_all(b"\n")?;
        for node in &self.nodes {
            serde_json::to_writer(&mut file, node)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    }
}

/// Ranges as they stand in the file.
#[must_use]
pub fn plain(set: &SeqSet) -> Vec<(u64, u64)> {
    set.ranges().iter().map(|range| (range.first.0, range.last.0)).collect()
}

/// Ranges of the file as a set; a range whose ends are in the wrong order is nothing.
#[must_use]
pub fn set_of(ranges: &[(u64, u64)]) -> SeqSet {
    ranges.iter().filter_map(|&(first, last)| SeqRange::checked(Seq(first), Seq(last))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn what_was_written_is_read_back() {
        let scratch = Scratch::new("oracle").expect("a scratch directory");
        let path = scratch.join("oracle.jsonl");
        let mut tally = Tally { sampled: 10, ..Tally::default() };
        tally.acknowledged.insert_range(SeqRange { first: Seq(0), last: Seq(4) });
        tally.gaps.insert(Seq(6));
        let id = crate::pki::node_ids(1, 1)[0];
        let oracle = Oracle {
            run: Run::new(&Load::made_up(3, 150), Epoch(2), WallMs(5), true),
            nodes: vec![Node::new(id, 0, Epoch(2), &tally)],
        };
        oracle.write(&path).expect("it can be written");
        let read = Oracle::read(&path).expect("it can be read");
        assert_eq!((read.run, &read.nodes), (oracle.run, &oracle.nodes));
        assert_eq!(read.nodes[0].pending, [(5, 5), (7, 9)]);
        assert_eq!(plain(&tally.pending_before(6)), [(5, 5)]);
        assert_eq!(set_of(&read.nodes[0].acknowledged), tally.acknowledged);
    }

    #[test]
    fn a_file_of_something_else_is_refused_by_its_line() {
        let scratch = Scratch::new("oracle").expect("a scratch directory");
        let path = scratch.join("oracle.jsonl");
        fs::write(&path, "{}\n").expect("a file");
        assert!(matches!(Oracle::read(&path), Err(OracleError::Line { line: 1, .. })));
    }
}
