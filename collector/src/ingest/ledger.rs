//! The ledger: which frames of which node are held, so that each is stored once.
//!
//! What the transaction under way adds counts as held at once and is forgotten when it is rolled
//! back; a Welcome never promises it. The same (epoch, seq) with other content can be told from a
//! duplicate for a node's newest frame alone; of all others the first one stays.

use std::collections::HashMap;

use dunlin_shared::id::{Epoch, FrameId, NodeId, Seq};
use dunlin_shared::range::{SeqRange, SeqSet};
use dunlin_shared::wire::{Gap, Held, Hello, Spooled};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Refusal;
use super::fingerprint::Fingerprint;
use super::held::{EpochHeld, Mark, NodeHeld, Ranges};
use crate::record::{EarlierRun, NODES_MAX, NodeKey};

/// Version 1 had no fingerprints.
const SNAPSHOT_VERSION: u8 = 2;

#[derive(Debug, Default)]
pub struct Ledger {
    /// By key.
    nodes: Vec<Option<NodeHeld>>,
    keys: HashMap<NodeId, NodeKey>,
    /// What the transaction under way added.
    pending: Vec<(NodeKey, Epoch, SeqRange)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SnapshotError {
    #[error("the snapshot is of version {0}, this program reads version {SNAPSHOT_VERSION}")]
    Version(u8),
    #[error("the snapshot cannot be decoded")]
    Malformed,
    #[error("the snapshot names node {0} or its key twice, or out of bounds")]
    Node(NodeId),
}

/// A node in a snapshot: the version byte, then a postcard sequence of these, then `SavedMarks`.
#[derive(Serialize, Deserialize)]
struct Saved {
    key: NodeKey,
    id: NodeId,
    newest: Option<Epoch>,
    below: Epoch,
    epochs: Vec<(Epoch, Vec<SeqRange>)>,
}

/// What follows the sequence since version 2: the fingerprints of nodes' newest frames.
type SavedMarks = Vec<(NodeKey, Epoch, Seq, Fingerprint)>;

impl Ledger {
    /// The node's key; a new node gets the next one. `None` when there are too many nodes.
    pub fn enlist(&mut self, id: NodeId) -> Option<NodeKey> {
        if let Some(key) = self.key_of(id) {
            return Some(key);
        }
        let key = NodeKey(u32::try_from(self.nodes.len()).ok()?);
        self.learn(key, id).then_some(key)
    }

    /// A pair that is known from elsewhere. Whether it agrees with what is known here.
    pub fn learn(&mut self, key: NodeKey, id: NodeId) -> bool {
        if key.0 >= NODES_MAX {
            return false;
        }
        let (by_id, by_key) = (self.key_of(id), self.id_of(key));
        if by_id.is_some() || by_key.is_some() {
            return by_id == Some(key);
        }
        let at = key.0 as usize;
        if at >= self.nodes.len() {
            // An eighth to spare, not a half: a node is to cost little.
            let missing = at + 1 - self.nodes.len();
            if missing > self.nodes.capacity() - self.nodes.len() {
                self.nodes.reserve_exact(missing + self.nodes.len() / 8);
            }
            self.nodes.resize(at + 1, None);
        }
        self.nodes[at] = Some(NodeHeld::new(id));
        self.keys.insert(id, key);
        true
    }

    #[must_use]
    pub fn key_of(&self, id: NodeId) -> Option<NodeKey> {
        self.keys.get(&id).copied()
    }

    #[must_use]
    pub fn id_of(&self, key: NodeKey) -> Option<NodeId> {
        self.node(key).map(|node| node.id)
    }

    pub fn nodes(&self) -> impl Iterator<Item = (NodeKey, NodeId)> + '_ {
        (0..).zip(&self.nodes).filter_map(|(key, node)| node.as_ref().map(|node| (NodeKey(key), node.id)))
    }

    pub(super) fn hello(
        &mut self,
        node: NodeKey,
        hello: &Hello,
        tells_holes: bool,
    ) -> Result<Option<EarlierRun>, Refusal> {
        self.node_mut(node)?.hello(hello, tells_holes)
    }

    pub(super) fn holes(&self, node: NodeKey, hello: &Hello) -> Vec<(Epoch, SeqRange)> {
        self.node(node).map(|known| known.holes(hello)).unwrap_or_default()
    }

    /// What a Welcome may say is held. Only what is committed.
    #[must_use]
    pub fn held(&self, node: NodeKey, asked: &[Spooled]) -> Vec<Held> {
        let Some(known) = self.node(node) else {
            return asked.iter().map(|asked| Held { epoch: asked.epoch, ranges: Vec::new() }).collect();
        };
        let answer = |asked: &Spooled| {
            let unsure = self.pending.iter().filter(|(key, epoch, _)| *key == node && *epoch == asked.epoch);
            known.answer(asked, unsure.map(|(_, _, range)| *range))
        };
        asked.iter().map(answer).collect()
    }

    /// Whether the frame was new.
    pub(super) fn insert(&mut self, node: NodeKey, id: FrameId, print: Fingerprint) -> Result<bool, Refusal> {
        let new = self.node_mut(node)?.insert(id, print)?;
        if new {
            self.pending.push((node, id.epoch, SeqRange::one(id.seq)));
        }
        Ok(new)
    }

    /// The parts that were missing.
    pub(super) fn insert_gap(&mut self, node: NodeKey, gap: &Gap) -> Result<Vec<SeqRange>, Refusal> {
        let missing = self.node_mut(node)?.insert_gap(gap.epoch, gap.range)?;
        self.pending.extend(missing.iter().map(|&range| (node, gap.epoch, range)));
        Ok(missing)
    }

    /// What the journal says is stored.
    pub(super) fn observe(&mut self, node: NodeKey, epoch: Epoch, range: SeqRange) {
        if let Ok(known) = self.node_mut(node) {
            known.observe(epoch, range);
        }
    }

    /// A stored frame's content.
    pub(super) fn observe_content(&mut self, node: NodeKey, id: FrameId, print: Option<Fingerprint>) {
        if let Ok(known) = self.node_mut(node) {
            known.note(id, print);
        }
    }

    pub(super) fn observe_hello(&mut self, node: NodeKey, id: NodeId, epoch: Epoch) {
        if self.learn(node, id)
            && let Ok(known) = self.node_mut(node)
        {
            known.newest = known.newest.max(Some(epoch));
        }
    }

    pub(super) fn committed(&mut self) {
        self.pending.clear();
    }

    pub(super) fn rolled_back(&mut self) {
        for (node, epoch, range) in std::mem::take(&mut self.pending) {
            if let Ok(known) = self.node_mut(node) {
                known.remove(epoch, range);
            }
        }
    }

    /// All that is committed, as bytes for the head of a journal file. Between transactions only.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        debug_assert!(self.pending.is_empty(), "a snapshot is taken between transactions");
        let saved: Vec<Saved> =
            (0..).zip(&self.nodes).filter_map(|(key, node)| Some(save(key, node.as_ref()?))).collect();
        let mark = |(key, node): (u32, &Option<NodeHeld>)| {
            let mark = node.as_ref()?.mark;
            Some((NodeKey(key), mark.epoch, mark.seq, mark.print?))
        };
        let marks: SavedMarks = (0..).zip(&self.nodes).filter_map(mark).collect();
        postcard::to_extend(&(saved, marks), vec![SNAPSHOT_VERSION])
            .expect("plain data serialises into a growing buffer")
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let (&version, body) = bytes.split_first().ok_or(SnapshotError::Malformed)?;
        if !(1..=SNAPSHOT_VERSION).contains(&version) {
            return Err(SnapshotError::Version(version));
        }
        let malformed = |_| SnapshotError::Malformed;
        let (saved, rest): (Vec<Saved>, _) = postcard::take_from_bytes(body).map_err(malformed)?;
        let (marks, rest): (SavedMarks, _) = match version {
            1 => (Vec::new(), rest),
            _ => postcard::take_from_bytes(rest).map_err(malformed)?,
        };
        if !rest.is_empty() || !marks.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(SnapshotError::Malformed);
        }
        let mut ledger = Self::default();
        for node in saved {
            if ledger.id_of(node.key).is_some() || !ledger.learn(node.key, node.id) {
                return Err(SnapshotError::Node(node.id));
            }
            let ordered = |range: &SeqRange| range.first <= range.last;
            if !node.epochs.is_sorted_by(|a, b| a.0 < b.0) || !node.epochs.iter().flat_map(|e| &e.1).all(ordered) {
                return Err(SnapshotError::Malformed);
            }
            let (key, restored) = restore(node);
            ledger.nodes[key.0 as usize] = Some(restored);
        }
        for (key, epoch, seq, print) in marks {
            let node = ledger.node_mut(key).map_err(|_| SnapshotError::Malformed)?;
            node.mark = Mark { epoch, print: Some(print), seq };
        }
        Ok(ledger)
    }

    fn node(&self, key: NodeKey) -> Option<&NodeHeld> {
        self.nodes.get(key.0 as usize)?.as_ref()
    }

    fn node_mut(&mut self, key: NodeKey) -> Result<&mut NodeHeld, Refusal> {
        self.nodes.get_mut(key.0 as usize).and_then(Option::as_mut).ok_or(Refusal::NodeUnknown(key))
    }

    /// Bytes that the ledger holds, allocations counted with 16 bytes each for the allocator.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let heap = |bytes: usize| if bytes == 0 { 0 } else { bytes + 16 };
        let of_node = |node: &NodeHeld| {
            let many = |held: &EpochHeld| match &held.ranges {
                Ranges::Many(set) => heap(size_of::<SeqSet>()) + heap(size_of_val(set.ranges())),
                Ranges::None | Ranges::One(_) => 0,
            };
            heap(node.epochs.capacity() * size_of::<EpochHeld>()) + node.epochs.iter().map(many).sum::<usize>()
        };
        let slot = size_of::<(NodeId, NodeKey)>() + 1;
        self.nodes.capacity() * size_of::<Option<NodeHeld>>()
            + self.keys.capacity() * 8 / 7 * slot
            + self.nodes.iter().flatten().map(of_node).sum::<usize>()
    }
}

fn save(key: u32, node: &NodeHeld) -> Saved {
    let epochs = node.epochs.iter().map(|held| (held.epoch, held.ranges.as_slice().to_vec())).collect();
    Saved { key: NodeKey(key), id: node.id, newest: node.newest, below: node.below, epochs }
}

fn restore(saved: Saved) -> (NodeKey, NodeHeld) {
    let held = |(epoch, ranges): (Epoch, Vec<SeqRange>)| EpochHeld {
        epoch,
        ranges: Ranges::from_set(SeqSet::from_iter(ranges)),
    };
    let epochs = saved.epochs.into_iter().map(held).collect();
    (
        saved.key,
        NodeHeld { id: saved.id, newest: saved.newest, below: saved.below, epochs, mark: Mark::NONE, awaited: None },
    )
}
