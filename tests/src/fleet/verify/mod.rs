//! Compares what a stopped collector has on disk with what the agents' oracle says.
//!
//! Every frame that was acknowledged is there exactly once with the content that it was sampled with,
//! or within a gap that its agent reported; nothing is there twice, and nothing that was never sampled. What `control.db`
//! says to stand on a node is what the newest frame of it told.

mod reading;
mod told;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result};
use dunlin_collector::block;
use dunlin_collector::ingest::Replay;
use dunlin_collector::record::{Event, NodeKey, Pos, Record};
use dunlin_collector::store::{self, Block, Checked, Files, Level, Reader, Sealed, StateLock};
use dunlin_collector::window::{Apart, told_apart};
use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{Epoch, FrameId, NodeId};
use dunlin_shared::range::{SeqRange, SeqSet};
use dunlin_shared::sample::Reading;
use dunlin_shared::time::WallMs;
use dunlin_shared::wire::{Gap, GapReason};
use serde::Serialize;

use self::reading::{differs, reading_at};
use self::told::Newest;
use super::load::{Host, Load};
use super::numbering::{Content, Numbering};
use super::oracle::{Oracle, plain, set_of};
use crate::pki;

/// What a report shows of its violations.
const SHOWN: usize = 20;

/// What was found. A collector that keeps its promise has no violations.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub files: u64,
    pub records: u64,
    pub frames: u64,
    pub deltas: u64,
    /// Frames that tell what stands on a host, facts included.
    pub inventories: u64,
    /// Nodes of which `control.db` holds what stands on them, as it was told last.
    pub stocks: u64,
    /// Those of which it knows that it missed something.
    pub stocks_lost: u64,
    pub gap_records: u64,
    /// Numbers within gap records.
    pub gap_frames: u64,
    /// What the oracle knew to be acknowledged, gaps included.
    pub acknowledged: u64,
    /// Stored although no acknowledgement was heard: it was on its way.
    pub stored_unacknowledged: u64,
    pub violations: u64,
    /// The first of them.
    pub shown: Vec<String>,
}

/// What may and must be there of one node in one epoch.
#[derive(Debug)]
struct Expected {
    index: usize,
    load: Load,
    /// False for a fleet that was killed: more may have been sampled and given up than it wrote down.
    finished: bool,
    sampled: u64,
    numbering: Numbering,
    acknowledged: SeqSet,
    gaps: SeqSet,
}

#[derive(Debug, Default)]
struct Stored {
    frames: SeqSet,
    gaps: SeqSet,
    host: Option<Host>,
    /// By frame number: the agent's clock must have risen from each to the next.
    clocks: BTreeMap<u64, u64>,
}

#[derive(Debug, Default)]
struct Verifier {
    report: Report,
    expected: HashMap<(NodeId, Epoch), Expected>,
    stored: HashMap<(NodeId, Epoch), Stored>,
    newest: HashMap<NodeKey, Newest>,
    nodes: HashMap<NodeKey, NodeId>,
    /// Of whom nothing is known.
    others: HashSet<NodeId>,
}

/// Reads the whole window of a stopped collector. Several oracles are those of several runs.
pub fn verify(state: &Path, oracles: &[Oracle], fleet: &pki::Fleet) -> Result<Report> {
    verify_beside(state, oracles, fleet, &HashSet::new())
}

/// The same where others sent something as well, of which nothing is known.
pub fn verify_beside(state: &Path, oracles: &[Oracle], fleet: &pki::Fleet, others: &HashSet<NodeId>) -> Result<Report> {
    let _lock = StateLock::take(state)?;
    let mut verifier = Verifier { others: others.clone(), ..Verifier::default() };
    for oracle in oracles {
        verifier.expect(oracle, fleet)?;
    }
    let files = store::check(state)?;
    verifier.read(&state.join("window"), &files)?;
    verifier.compare();
    verifier.compare_stocks(&state.join("control.db"))?;
    Ok(verifier.report)
}

impl Report {
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.violations == 0
    }

    fn violate(&mut self, text: impl FnOnce() -> String) {
        self.violations += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(text());
        }
    }
}

impl Verifier {
    fn expect(&mut self, oracle: &Oracle, fleet: &pki::Fleet) -> Result<()> {
        let load = oracle.run.load()?;
        for node in &oracle.nodes {
            let identity = fleet.nodes.get(node.index).filter(|known| known.id.to_string() == node.node);
            let id = identity.with_context(|| format!("node {} is not of this fleet", node.node))?.id;
            let numbering = Numbering::checked(&node.told);
            let numbering = numbering.with_context(|| format!("node {} cannot have told so", node.node))?;
            let expected = Expected {
                index: node.index,
                load: load.clone(),
                finished: oracle.run.finished,
                sampled: node.sampled,
                numbering,
                acknowledged: set_of(&node.acknowledged),
                gaps: set_of(&node.gaps),
            };
            self.report.acknowledged += expected.acknowledged.count();
            let twice = self.expected.insert((id, Epoch(node.epoch)), expected);
            anyhow::ensure!(twice.is_none(), "epoch {} of node {id} is in two oracles", node.epoch);
        }
        Ok(())
    }

    fn read(&mut self, window: &Path, files: &[Checked]) -> Result<()> {
        for file in files {
            self.report.files += 1;
            if let Some(damage) = &file.damage {
                self.report.violate(|| format!("{damage}"));
            }
        }
        self.read_names(window)?;
        self.read_sealed(window)?;
        let mut firsts = files.iter().filter_map(|file| file.first).peekable();
        let mut replay = Replay::default();
        for item in Reader::new(window).scan_unsealed()? {
            let (pos, record) = match item {
                Ok(found) => found,
                Err(damage) => {
                    self.report.violate(|| format!("{damage}"));
                    continue;
                }
            };
            // A file stands alone: what its deltas build on must be in it.
            while firsts.next_if(|&first| first <= pos).is_some() {
                replay = Replay::default();
            }
            self.take(&mut replay, pos, &record);
        }
        Ok(())
    }

    /// Who said Hello, also in a journal that is sealed: a block tells it of those alone that sent something by then.
    fn read_names(&mut self, window: &Path) -> Result<()> {
        for (_, record) in Reader::new(window).scan(Pos(0))?.flatten() {
            if let Event::Hello { node, session } = record.event {
                self.nodes.entry(node).or_insert(session.node);
            }
        }
        Ok(())
    }

    /// What is sealed already: of each node rows, and beside them what has no reading.
    fn read_sealed(&mut self, window: &Path) -> Result<()> {
        for name in Files::list(window)?.of(Level::Full) {
            self.report.files += 1;
            let file = Sealed::open(name)?.context("nobody takes files away")?;
            for block in file.blocks() {
                match block {
                    Ok(block) => self.take_block(name.first, &block),
                    Err(damage) => self.report.violate(|| format!("{damage}")),
                }
            }
        }
        Ok(())
    }

    fn take_block(&mut self, pos: Pos, block: &Block) {
        self.nodes.entry(block.node).or_insert(block.node_id);
        for apart in told_apart(block) {
            let Apart { epoch, range, is_gap } = apart;
            if is_gap {
                let gap =
                    Gap { epoch: Epoch(epoch), range, from: WallMs(0), to: WallMs(0), reason: GapReason::Overflow };
                self.take_gap(pos, block.node, &gap);
            } else {
                self.take_inventories(pos, block.node, Epoch(epoch), range);
            }
        }
        match block::decode(&block.body) {
            Err(error) => self.report.violate(|| format!("a block of node {}: {error}", block.node_id)),
            Ok(stretch) => {
                for (at, row) in stretch.rows.iter().enumerate() {
                    let id = FrameId { epoch: row.epoch, seq: row.seq };
                    let frame = Frame { id, kind: BodyKind::Key, body: Vec::new() };
                    let reading = reading_at(&stretch, at);
                    self.take_frame(pos, block.node, &frame, Some(&reading));
                }
            }
        }
    }

    fn take(&mut self, replay: &mut Replay, pos: Pos, record: &Record) {
        self.report.records += 1;
        let reading = match replay.reading(record) {
            Ok(reading) => reading,
            Err(refusal) => {
                self.report.violate(|| format!("row {}: {refusal}", pos.0));
                None
            }
        };
        match &record.event {
            Event::Hello { node, session } => {
                let before = self.nodes.insert(*node, session.node);
                if before.is_some_and(|before| before != session.node) {
                    self.report.violate(|| format!("row {}: key {} is of two nodes", pos.0, node.0));
                }
            }
            Event::Frame { node, frame, .. } => self.take_frame(pos, *node, frame, reading.as_deref()),
            Event::Gap { node, gap } => self.take_gap(pos, *node, gap),
            _ => {}
        }
    }

    fn take_frame(&mut self, pos: Pos, key: NodeKey, frame: &Frame, reading: Option<&Reading>) {
        let Some((node, expected)) = self.known(pos, key, frame.id.epoch) else { return };
        let FrameId { epoch, seq } = frame.id;
        let name = || format!("row {}: frame {} of node {}", pos.0, frame.id, node);
        let expected = &self.expected[&expected];
        let stored = self.stored.entry((node, epoch)).or_default();
        if !stored.frames.insert(seq) {
            self.report.violate(|| format!("{} is there twice", name()));
        }
        if expected.finished && seq.0 >= expected.sampled {
            self.report.violate(|| format!("{} was never sampled", name()));
        }
        let host = stored.host.get_or_insert_with(|| expected.load.host(expected.index, epoch));
        let content = expected.numbering.content(seq.0, expected.sampled, host);
        let wrong = match (frame.kind, reading) {
            (BodyKind::Inventory, _) => {
                self.report.inventories += 1;
                self.newest.entry(key).or_default().note(pos, frame.id, content);
                told::differs(host, &expected.load.inventory(expected.index), content, &frame.body)
            }
            (kind, Some(reading)) => {
                self.report.frames += 1;
                self.report.deltas += u64::from(matches!(kind, BodyKind::Delta { .. }));
                stored.clocks.insert(seq.0, reading.mono.0);
                match content {
                    Content::Sampled(tick) => differs(host, tick, reading),
                    Content::Facts | Content::Told(_) => Some("its number is an inventory's".to_owned()),
                }
            }
            // That it cannot be decoded is said already.
            (_, None) => None,
        };
        if let Some(wrong) = wrong {
            self.report.violate(|| format!("{}: {wrong}", name()));
        }
    }

    fn take_gap(&mut self, pos: Pos, key: NodeKey, gap: &Gap) {
        let Some((node, expected)) = self.known(pos, key, gap.epoch) else { return };
        self.report.gap_records += 1;
        self.report.gap_frames += gap.range.count();
        let expected = &self.expected[&expected];
        let stored = self.stored.entry((node, gap.epoch)).or_default();
        let name = || {
            format!(
                "row {}: gap {} to {} of epoch {} of node {node}",
                pos.0, gap.range.first.0, gap.range.last.0, gap.epoch.0
            )
        };
        if !is_within(gap.range, &expected.gaps) && expected.finished {
            self.report.violate(|| format!("{} was not given up; {:?} was", name(), plain(&expected.gaps)));
        }
        let before = stored.gaps.count();
        stored.gaps.insert_range(gap.range);
        if stored.gaps.count() != before + gap.range.count() {
            self.report.violate(|| format!("{} is there twice", name()));
        }
    }

    /// The node of a key, when something is expected of it in this epoch.
    fn known(&mut self, pos: Pos, key: NodeKey, epoch: Epoch) -> Option<(NodeId, (NodeId, Epoch))> {
        let Some(&node) = self.nodes.get(&key) else {
            self.report.violate(|| format!("row {}: no Hello before it says who has key {}", pos.0, key.0));
            return None;
        };
        if self.others.contains(&node) {
            return None;
        }
        if !self.expected.contains_key(&(node, epoch)) {
            self.report.violate(|| format!("row {}: node {node} never was in epoch {}", pos.0, epoch.0));
            return None;
        }
        Some((node, (node, epoch)))
    }

    fn compare(&mut self) {
        let nothing = Stored::default();
        for ((node, epoch), expected) in &self.expected {
            let stored = self.stored.get(&(*node, *epoch)).unwrap_or(&nothing);
            let name = || format!("epoch {} of node {node}", epoch.0);
            let mut lost = expected.acknowledged.clone();
            lost.remove_all(&stored.frames);
            lost.remove_all(&stored.gaps);
            for range in lost.ranges() {
                self.report.violate(|| {
                    format!(
                        "{}: frames {} to {} were acknowledged and are not there",
                        name(),
                        range.first.0,
                        range.last.0
                    )
                });
            }
            let both: u64 = stored.gaps.iter().filter(|&seq| stored.frames.contains(seq)).map(|_| 1).sum();
            if both > 0 {
                self.report.violate(|| format!("{}: {both} frames are there and said to be lost", name()));
            }
            let mut unheard = stored.frames.clone();
            unheard.remove_all(&expected.acknowledged);
            self.report.stored_unacknowledged += unheard.count();
            let rises = stored.clocks.values().zip(stored.clocks.values().skip(1)).all(|(a, b)| a < b);
            if !rises {
                self.report.violate(|| format!("{}: its clock does not rise with its frames' numbers", name()));
            }
        }
    }
}

fn is_within(range: SeqRange, set: &SeqSet) -> bool {
    set.ranges().iter().any(|known| known.first <= range.first && range.last <= known.last)
}
