//! Frames that will never arrive: what an agent says of them, and what follows from its death.

use dunlin_shared::id::{Epoch, Seq};
use dunlin_shared::time::WallMs;
use dunlin_shared::wire;

use crate::record::{EarlierRun, NodeKey};

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
    /// The collector had acknowledged them, and was restored from a backup that was older, or lost a part of its log.
    Restored,
}

impl GapRecorded {
    /// As the agent tells it.
    pub(super) fn told(node: NodeKey, gap: &wire::Gap) -> Self {
        Self {
            node,
            epoch: gap.epoch,
            first: gap.range.first,
            last: Some(gap.range.last),
            count: Some(gap.range.count()),
            from: gap.from,
            to: gap.to,
            reason: gap.reason.into(),
        }
    }

    /// What the agent took with it. Nothing, when it said goodbye and every number before it is there.
    pub(super) fn lost_with(
        node: NodeKey,
        run: &EarlierRun,
        ended: Option<Seq>,
        (from, to): (WallMs, WallMs),
    ) -> Option<Self> {
        let next = run.last.map_or(Seq(0), Seq::next);
        // Behind an outage the newest goes first: what is missing may lie before the highest number.
        let first = if run.count < next.0 { Seq(0) } else { next };
        let (last, count) = match ended {
            Some(end) if run.count >= end.0 => return None,
            Some(end) => (Some(Seq(end.0 - 1)), Some(end.0 - run.count)),
            None => (None, None),
        };
        Some(Self { node, epoch: run.epoch, first, last, count, from, to, reason: GapReason::AgentRestart })
    }
}

impl GapReason {
    /// In `control.db` and in `/metrics`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overflow => "overflow",
            Self::Damaged => "damaged",
            Self::AgentRestart => "agent_restart",
            Self::Restored => "restored",
        }
    }
}

impl From<wire::GapReason> for GapReason {
    fn from(reason: wire::GapReason) -> Self {
        match reason {
            wire::GapReason::Overflow => Self::Overflow,
            wire::GapReason::Damaged => Self::Damaged,
            wire::GapReason::Restored => Self::Restored,
        }
    }
}
