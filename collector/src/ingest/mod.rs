//! Decides, of what arrives on connections, what is appended to the journal and in which form.
//!
//! It is driven by the owner of the journal: `admit` and its like for each arrival, the records
//! appended in one transaction, then `committed` or `rolled_back`. Nothing may be acknowledged
//! before `committed`, duplicates included. Every file is self-contained: a delta is stored as it
//! came only when the frame that it builds on is in the same file.

mod chain;
mod fingerprint;
mod held;
mod layouts;
mod ledger;
mod names;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

pub use chain::Replay;
use dunlin_shared::codec::{CodecError, encode_key};
use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{Epoch, FrameId, NodeId, Seq};
use dunlin_shared::inventory::{Inventory, InventoryError};
use dunlin_shared::limits::FUTURE_MS_MAX;
use dunlin_shared::range::SeqRange;
use dunlin_shared::sample::Reading;
use dunlin_shared::time::WallMs;
use dunlin_shared::wire::{CloseCode, Gap, GapReason, Held, Hello, Lane};
pub use held::RANGES_MAX;
pub use ledger::{Ledger, SnapshotError};
use thiserror::Error;

use self::chain::Chains;
use self::names::{Cut, Names};
use crate::record::{Event, NodeKey, Record, SessionStart};

#[derive(Debug, Default)]
pub struct Ingest {
    ledger: Ledger,
    chains: Chains,
    names: Names,
    /// Of the frame that was admitted last.
    left_out: Option<LeftOut>,
    /// Hellos in the transaction under way.
    pending: Vec<(NodeKey, SessionStart)>,
    /// Those that were rolled back. What they tell is told before anything else of the node is stored.
    untold: HashMap<NodeKey, SessionStart>,
    /// While the newest file is read: its last readings.
    replay: Option<Box<Replay>>,
    /// Something that was acknowledged may be lost here.
    tells_holes: bool,
}

/// What becomes of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// Append it. The reading is what it holds; an inventory has none.
    Store { record: Record, reading: Option<Arc<Reading>> },
    /// It is held already, or is in the transaction under way. Acknowledge it after the commit.
    Duplicate(FrameId),
}

/// Values that a frame had, and that are not stored, because the node brings too many new names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub values: u64,
    /// One of the names.
    pub example: String,
}

/// Why an arrival cannot be taken. The connection it came on is to be closed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("frame {id} builds on {base}, which is not the frame before it on its stream")]
    BaseUnknown { id: FrameId, base: FrameId },
    #[error("frame {id} builds on no frame")]
    NoReading { id: FrameId },
    #[error("the body of frame {id} is refused")]
    Body { id: FrameId, source: CodecError },
    #[error("the inventory in frame {id} is refused")]
    Inventory { id: FrameId, source: InventoryError },
    #[error("epoch {} was not announced by a Hello", .epoch.0)]
    EpochUnannounced { epoch: Epoch },
    #[error("the agent is in epoch {}, but was in {} before; was it restored from a copy?", .epoch.0, .newest.0)]
    EpochBack { epoch: Epoch, newest: Epoch },
    #[error("frame {id} was sent before, with another content; was the machine set back?")]
    Rewound { id: FrameId },
    #[error("the node's frames lie scattered over more than {max} ranges")]
    Scattered { max: usize },
    #[error("the Hello of node {node} says that it is {said}")]
    WrongNode { node: NodeId, said: NodeId },
    #[error("no node has the key {}", .0.0)]
    NodeUnknown(NodeKey),
}

impl Refusal {
    #[must_use]
    pub const fn close_code(&self) -> CloseCode {
        match self {
            Self::BaseUnknown { .. } | Self::EpochUnannounced { .. } => CloseCode::Unexpected,
            Self::EpochBack { .. } | Self::Rewound { .. } => CloseCode::Rewound,
            Self::NoReading { .. } => CloseCode::Malformed,
            Self::Body { source, .. } => match source {
                CodecError::Version(_) => CloseCode::Version,
                CodecError::TooMany { .. } => CloseCode::TooLarge,
                CodecError::Truncated | CodecError::Leftover(_) | CodecError::Malformed(_) => CloseCode::Malformed,
            },
            Self::Inventory { source, .. } => match source {
                InventoryError::Malformed => CloseCode::Malformed,
                InventoryError::TooLong { .. } | InventoryError::TooMany { .. } => CloseCode::TooLarge,
            },
            Self::Scattered { .. } => CloseCode::Flooding,
            Self::WrongNode { .. } => CloseCode::WrongNode,
            Self::NodeUnknown(_) => CloseCode::Internal,
        }
    }
}

impl Refusal {
    /// Where the agent stands that was set back: to be recorded.
    #[must_use]
    pub const fn rewound(&self) -> Option<FrameId> {
        match self {
            Self::Rewound { id } => Some(*id),
            Self::EpochBack { epoch, .. } => Some(FrameId { epoch: *epoch, seq: Seq(0) }),
            _ => None,
        }
    }
}

impl Ingest {
    /// From the snapshot of the newest file; its records follow through `observe`.
    pub fn recover(snapshot: &[u8]) -> Result<Self, SnapshotError> {
        Ok(Self { ledger: Ledger::decode(snapshot)?, ..Self::default() })
    }

    /// A record that is in the journal.
    pub fn observe(&mut self, record: &Record) {
        match &record.event {
            Event::Frame { node, frame, .. } => {
                self.ledger.observe(*node, frame.id.epoch, SeqRange::one(frame.id.seq));
                let print = if frame.kind == BodyKind::Inventory {
                    Some(fingerprint::of_body(frame))
                } else {
                    // One that cannot be read is reported by whoever replays the log.
                    let reading = self.replay.get_or_insert_default().reading(record).ok().flatten();
                    let reading = reading.filter(|reading| !names::is_cut(reading));
                    reading.map(|reading| fingerprint::of_reading(&reading))
                };
                self.ledger.observe_content(*node, frame.id, print);
            }
            Event::Gap { node, gap } => self.ledger.observe(*node, gap.epoch, gap.range),
            Event::Hello { node, session } => self.ledger.observe_hello(*node, session.node, session.epoch),
            Event::Tick { .. }
            | Event::Started
            | Event::Load(_)
            | Event::Busy { .. }
            | Event::Heartbeat { .. }
            | Event::Goodbye { .. }
            | Event::Lost { .. }
            | Event::Rewound { .. } => {}
        }
    }

    /// For the head of the next file. Between transactions only.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        self.ledger.encode()
    }

    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The node's key; a new node gets the next one. `None` when there are too many nodes.
    pub fn enlist(&mut self, id: NodeId) -> Option<NodeKey> {
        self.ledger.enlist(id)
    }

    /// A pair that `control.db` knows. Whether it agrees with what the journal says.
    pub fn learn(&mut self, key: NodeKey, id: NodeId) -> bool {
        self.ledger.learn(key, id)
    }

    /// A session begins: the record to append, and what a Welcome says is held. Whatever the node's
    /// connection before it had in memory is dropped.
    pub fn hello(&mut self, now: WallMs, node: NodeKey, hello: &Hello) -> Result<(Record, Vec<Held>), Refusal> {
        self.replay = None;
        let left = self.ledger.hello(node, hello, self.tells_holes)?;
        let before = left.or_else(|| self.untold.remove(&node)?.before);
        self.chains.disconnected(node);
        let session = SessionStart {
            node: hello.node,
            name: hello.name.clone(),
            agent_version: hello.agent_version.clone(),
            boot_id: hello.boot_id,
            epoch: hello.epoch,
            interval_ms: hello.interval_ms,
            skew_ms: hello.wall.since(now),
            before,
        };
        Ok((self.tell(now, node, session), self.ledger.held(node, &hello.spooled)))
    }

    /// What was acknowledged may not be here: every Hello tells what is missing. Not the first one alone, since that may
    /// list frames on both sides of a hole, which the next one does not.
    pub const fn expect_holes(&mut self) {
        self.tells_holes = true;
    }

    /// Behind `hello`: what the agent has had acknowledged and is lost here, as gaps. They count as held from now on.
    pub fn holes(&mut self, now: WallMs, node: NodeKey, hello: &Hello) -> Result<Vec<Record>, Refusal> {
        if !self.tells_holes {
            return Ok(Vec::new());
        }
        let mut records = Vec::new();
        for (epoch, range) in self.ledger.holes(node, hello) {
            // Of an earlier run nobody knows when it was: before this one.
            let taken = |seq: Seq| {
                let seq = if epoch == hello.epoch { seq.0 } else { 0 };
                let ago_ms = hello.next_seq.0.saturating_sub(seq).saturating_mul(u64::from(hello.interval_ms));
                hello.wall.plus(i64::try_from(ago_ms).map_or(i64::MIN, |ago_ms| -ago_ms))
            };
            let reason = GapReason::Restored;
            let gap = Gap { epoch, range, from: taken(range.first), to: taken(range.last), reason };
            records.extend(self.gap(now, node, &gap)?);
        }
        Ok(records)
    }

    /// The node's Hello that was rolled back. It goes before anything else of the node, its next
    /// Hello included: without it the journal would not say whose key that is.
    pub fn retell(&mut self, now: WallMs, node: NodeKey) -> Option<Record> {
        let session = self.untold.remove(&node)?;
        Some(self.tell(now, node, session))
    }

    pub fn admit(&mut self, now: WallMs, node: NodeKey, lane: Lane, frame: Frame) -> Result<Admitted, Refusal> {
        let id = frame.id;
        self.left_out = None;
        let (frame, reading) = if frame.kind == BodyKind::Inventory {
            check_inventory(&frame)?;
            if !self.ledger.insert(node, id, fingerprint::of_body(&frame))? {
                return Ok(Admitted::Duplicate(id));
            }
            (frame, None)
        } else {
            // A duplicate is decoded too: the frame after it builds on it.
            let reading = self.chains.decode(node, lane, &frame)?;
            let new = self.ledger.insert(node, id, fingerprint::of_reading(&reading))?;
            if let Some(cut) = new.then(|| self.names.judge(now, node, lane, &reading)).flatten() {
                // What follows builds on what was sent, and not on what is left of it.
                self.chains.advance(node, lane, id, &reading, false);
                return Ok(self.store_cut(now, (node, lane, id), cut));
            }
            let standing = new.then(|| self.chains.standing(node, lane, frame, &reading));
            self.chains.advance(node, lane, id, &reading, new);
            let Some(frame) = standing else { return Ok(Admitted::Duplicate(id)) };
            (frame, Some(reading))
        };
        Ok(Admitted::Store { record: Record { at: now, event: Event::Frame { node, lane, frame } }, reading })
    }

    /// What was left out of the frame that was admitted last.
    pub fn take_left_out(&mut self) -> Option<LeftOut> {
        self.left_out.take()
    }

    fn store_cut(&mut self, now: WallMs, (node, lane, id): (NodeKey, Lane, FrameId), cut: Cut) -> Admitted {
        let Cut { reading, values, example } = cut;
        self.left_out = Some(LeftOut { values, example });
        let frame = Frame { id, kind: BodyKind::Key, body: encode_key(&reading) };
        Admitted::Store {
            record: Record { at: now, event: Event::Frame { node, lane, frame } },
            reading: Some(reading),
        }
    }

    /// The records of what was missing: none when all of it is held. Acknowledge the whole range.
    pub fn gap(&mut self, now: WallMs, node: NodeKey, gap: &Gap) -> Result<Vec<Record>, Refusal> {
        let missing = self.ledger.insert_gap(node, gap)?;
        let record = |range| Record { at: now, event: Event::Gap { node, gap: part_of(gap, range) } };
        Ok(missing.into_iter().map(record).collect())
    }

    /// A data stream ended.
    pub fn lane_closed(&mut self, node: NodeKey, lane: Lane) {
        self.chains.lane_closed(node, lane);
    }

    pub fn disconnected(&mut self, node: NodeKey) {
        self.chains.disconnected(node);
    }

    /// The next record goes to a new file. Between transactions only.
    pub fn rotated(&mut self) {
        self.chains.rotated();
    }

    pub fn committed(&mut self) {
        self.ledger.committed();
        self.chains.committed();
        self.pending.clear();
    }

    /// What was admitted since the last commit is not stored: none of it may be acknowledged.
    pub fn rolled_back(&mut self) {
        self.ledger.rolled_back();
        self.chains.rolled_back();
        for (node, mut session) in self.pending.drain(..) {
            session.before = session.before.or_else(|| self.untold.get(&node)?.before);
            self.untold.insert(node, session);
        }
    }

    fn tell(&mut self, at: WallMs, node: NodeKey, session: SessionStart) -> Record {
        self.pending.push((node, session.clone()));
        Record { at, event: Event::Hello { node, session } }
    }
}

/// When a reading was taken: by the agent's clock, unless that is far in the future.
#[must_use]
pub fn taken_at(reading: &Reading, received: WallMs) -> WallMs {
    if reading.wall.since(received) > FUTURE_MS_MAX { received } else { reading.wall }
}

/// A piece of a gap. Ticks are even, so its ends lie as far in the time as they lie in the numbers.
fn part_of(gap: &Gap, range: SeqRange) -> Gap {
    let steps = i128::from(gap.range.last.0 - gap.range.first.0).max(1);
    let span_ms = i128::from(gap.to.since(gap.from));
    let taken = |seq: Seq| {
        let passed_ms = span_ms * i128::from(seq.0 - gap.range.first.0) / steps;
        gap.from.plus(i64::try_from(passed_ms).unwrap_or(0))
    };
    Gap {
        range,
        from: taken(range.first),
        to: if range.last == gap.range.last { gap.to } else { taken(range.last) },
        ..*gap
    }
}

/// What cannot be read may be of a later version and is kept; what breaks a limit is not.
fn check_inventory(frame: &Frame) -> Result<(), Refusal> {
    match Inventory::decode(&frame.body) {
        Ok(_) | Err(InventoryError::Malformed) => Ok(()),
        Err(source @ (InventoryError::TooLong { .. } | InventoryError::TooMany { .. })) => {
            Err(Refusal::Inventory { id: frame.id, source })
        }
    }
}
