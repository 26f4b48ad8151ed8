//! What the journal holds: one record for each thing that happened, in the order it was received.
//!
//! The journal is the log. Whatever the engine decides follows from these records alone, so replaying
//! them leads to the same decisions.

use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{Epoch, FrameId, NodeId, Seq};
use dunlin_shared::time::WallMs;
use dunlin_shared::wire::{Gap, Goodbye, Lane};
use serde::{Deserialize, Serialize};

/// Keys are given from 0 upwards and tables are indexed by them: a damaged file may not make them
/// huge. A hundred times the fleet that is promised.
pub const NODES_MAX: u32 = 1 << 20;

/// A node's number within this collector: what rows carry in place of sixteen bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeKey(pub u32);

/// A record's place in the log. Rises by one from record to record, across files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pos(pub u64);

/// One thing that happened, with the time at which the collector received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub at: WallMs,
    pub event: Event,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The collector's own clock, so that deadlines replay: milliseconds since the tick before it
    /// on the monotonic clock, and how many of them the collector itself stood still.
    Tick {
        elapsed_ms: u64,
        paused_ms: u64,
    },
    /// The collector started; whatever was connected is not.
    Started,
    /// A frame as it is stored: a delta only when its base is in the same file.
    Frame {
        node: NodeKey,
        lane: Lane,
        frame: Frame,
    },
    /// A session began.
    Hello {
        node: NodeKey,
        session: SessionStart,
    },
    Heartbeat {
        node: NodeKey,
    },
    Gap {
        node: NodeKey,
        gap: Gap,
    },
    Goodbye {
        node: NodeKey,
        goodbye: Goodbye,
    },
    /// The connection ended without a goodbye.
    Lost {
        node: NodeKey,
    },
    /// The agent was refused: it stood here, and was further before.
    Rewound {
        node: NodeKey,
        epoch: Epoch,
        seq: Seq,
    },
    /// How the collector itself bears up, each ten seconds.
    Load(Load),
    /// With each of those: of the ten seconds before, thousandths in which connections left no rest.
    Busy {
        permille: u16,
    },
}

/// What of the collector rules may ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// The longest that a commit of the log took since the last of these.
    pub commit_ms: u32,
    /// Frames given back since the start.
    pub refused: u64,
    /// What is free where the state lies, in thousandths; `None` where nobody can say.
    pub free_permille: Option<u16>,
}

/// What of a Hello is worth keeping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStart {
    pub node: NodeId,
    pub name: String,
    pub agent_version: String,
    pub boot_id: [u8; 16],
    pub epoch: Epoch,
    pub interval_ms: u32,
    /// The agent's wall clock less ours.
    pub skew_ms: i64,
    /// The run before this one, when this is the first session of a new run.
    pub before: Option<EarlierRun>,
}

/// What is left of the run of an agent when the next one begins: held here, or still in its spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierRun {
    pub epoch: Epoch,
    /// The highest number; `None` when there is nothing of it.
    pub last: Option<Seq>,
    /// How many numbers: all of them from 0, when it is one more than `last`.
    pub count: u64,
    /// The number before which the agent itself says that it ended, when it ended in order.
    pub ended: Option<Seq>,
}

impl Pos {
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Event {
    /// Whom the record is about; `None` for the collector itself.
    #[must_use]
    pub const fn node(&self) -> Option<NodeKey> {
        match self {
            Self::Tick { .. } | Self::Started | Self::Load(_) | Self::Busy { .. } => None,
            Self::Frame { node, .. }
            | Self::Hello { node, .. }
            | Self::Heartbeat { node }
            | Self::Gap { node, .. }
            | Self::Goodbye { node, .. }
            | Self::Lost { node }
            | Self::Rewound { node, .. } => Some(*node),
        }
    }

    /// The frame's id, when it is one.
    #[must_use]
    pub const fn frame_id(&self) -> Option<FrameId> {
        match self {
            Self::Frame { frame: Frame { id, .. }, .. } => Some(*id),
            _ => None,
        }
    }

    /// Whether it is a delta, which needs its base beside it.
    #[must_use]
    pub const fn is_delta(&self) -> bool {
        matches!(self, Self::Frame { frame: Frame { kind: BodyKind::Delta { .. }, .. }, .. })
    }
}
