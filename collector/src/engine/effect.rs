//! What follows from a record: for `control.db`, the metrics and the log.

use dunlin_shared::id::{Epoch, FrameId, Seq};
use dunlin_shared::time::WallMs;
use dunlin_shared::wire;

use super::NodeState;
use crate::record::{NodeKey, SessionStart};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    NodeState {
        node: NodeKey,
        from: NodeState,
        to: NodeState,
        since: WallMs,
    },
    SessionStarted {
        node: NodeKey,
        info: SessionStart,
    },
    /// `None` when the connection was lost.
    SessionEnded {
        node: NodeKey,
        goodbye: Option<wire::Goodbye>,
    },
    /// The agent runs anew.
    NodeRestarted {
        node: NodeKey,
        from: Epoch,
        to: Epoch,
    },
    GapRecorded(GapRecorded),
    /// What stands on the node; as it was sent.
    FactsChanged {
        node: NodeKey,
        id: FrameId,
        bytes: Vec<u8>,
    },
}

/// Frames that will never arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapRecorded {
    pub node: NodeKey,
    pub epoch: Epoch,
    pub first: Seq,
    /// `None`, like `count`, when nobody knows how many there were.
    pub last: Option<Seq>,
    pub count: Option<u64>,
    /// By the agent's clock; by ours when the agent died.
    pub from: WallMs,
    pub to: WallMs,
    pub reason: GapReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// The agent's spool was full.
    Overflow,
    /// The agent's spool was damaged.
    Damaged,
    /// The agent died, and its memory with it.
    AgentRestart,
}

impl GapReason {
    /// In `control.db` and in `/metrics`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overflow => "overflow",
            Self::Damaged => "damaged",
            Self::AgentRestart => "agent_restart",
        }
    }
}

impl From<wire::GapReason> for GapReason {
    fn from(reason: wire::GapReason) -> Self {
        match reason {
            wire::GapReason::Overflow => Self::Overflow,
            wire::GapReason::Damaged => Self::Damaged,
        }
    }
}
