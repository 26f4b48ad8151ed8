//! What follows from a record: for `control.db`, the feed, the metrics and the log.

use dunlin_shared::id::{Epoch, FrameId, Seq};
use dunlin_shared::inventory::{self, Happening, Stock};
use dunlin_shared::time::WallMs;
use dunlin_shared::wire;

use super::alert::AlertChange;
use super::gap::GapRecorded;
use super::host::Change;
use super::state::{Cause, Liveness, NodeState};
use crate::record::{NodeKey, SessionStart};

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// What is shown of a node, or what is known of its liveness behind that: then `from` is `to`.
    NodeState {
        node: NodeKey,
        from: NodeState,
        to: NodeState,
        /// Of the shown state.
        since: WallMs,
        /// For `control.db`, with `since`.
        life: Liveness,
        cause: Cause,
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
    /// Its machine was set back: the agent sends anew what it sent before.
    NodeRewound {
        node: NodeKey,
        epoch: Epoch,
        seq: Seq,
    },
    GapRecorded(GapRecorded),
    /// What stands on the node; as it was sent.
    FactsChanged {
        node: NodeKey,
        id: FrameId,
        bytes: Vec<u8>,
    },
    NodeChanged {
        node: NodeKey,
        change: Change,
    },
    /// All that stands on it. `compares` when what happened since the stock before is to be found, and told to
    /// `Engine::happened`.
    StockTold {
        node: NodeKey,
        stock: Box<Stock>,
        compares: bool,
        is_late: bool,
    },
    /// What else stands on it. Where it does not build on what is held, that is to come as near to it as it can.
    StockChanged {
        node: NodeKey,
        change: Box<inventory::Change>,
        builds: bool,
    },
    /// `Engine::stock` says something else, for `control.db`.
    StockKept {
        node: NodeKey,
    },
    /// Something happened on a node. `is_late` when it comes behind an outage.
    Happened {
        node: NodeKey,
        happening: Box<Happening>,
        is_late: bool,
    },
    /// So many more things happened on it than are told.
    Noisy {
        node: NodeKey,
        count: u32,
    },
    /// Something of its inventory was missed: it is to tell the whole.
    InventoryAsked {
        node: NodeKey,
    },
    /// So many nodes fell silent at once that it is one loss; these are unknown, `of` were up before.
    MassLoss {
        nodes: Vec<NodeKey>,
        of: usize,
        since: WallMs,
    },
    /// More of them, while it lasts.
    MassGrew {
        nodes: Vec<NodeKey>,
    },
    /// It is over. These were not heard again and are down; whoever else belonged to it is not.
    MassOver {
        down: Vec<NodeKey>,
        since: WallMs,
    },
    /// Planned downtime ran out; the registry is to forget it.
    MaintenanceOver {
        node: NodeKey,
    },
    /// Unseen for so long that it may be taken for gone; told once until it is heard again.
    Retired {
        node: NodeKey,
        last_seen: WallMs,
        is_ephemeral: bool,
    },
    /// What became of an alert.
    Alert(Box<AlertChange>),
}

impl Effect {
    /// The kind of event by which the feed tells it; `None` for what is only kept.
    #[must_use]
    pub const fn event(&self) -> Option<&'static str> {
        match self {
            Self::NodeState { from, to, cause, .. } => turned(*from, *to, *cause),
            Self::GapRecorded(_) => Some("node.gap"),
            Self::NodeChanged { change, .. } => Some(change.kind()),
            Self::MassLoss { .. } => Some("mass.loss"),
            Self::MassGrew { .. } => Some("mass.grew"),
            Self::MassOver { .. } => Some("mass.over"),
            Self::Retired { .. } => Some("node.retired"),
            Self::NodeRewound { .. } => Some("node.rewound"),
            Self::Happened { happening, .. } => Some(happening.what.as_str()),
            Self::Noisy { .. } => Some("node.noisy"),
            Self::Alert(change) => change.event(),
            Self::SessionStarted { .. }
            | Self::SessionEnded { .. }
            | Self::NodeRestarted { .. }
            | Self::FactsChanged { .. }
            | Self::StockTold { .. }
            | Self::StockChanged { .. }
            | Self::StockKept { .. }
            | Self::InventoryAsked { .. }
            | Self::MaintenanceOver { .. } => None,
        }
    }
}

/// A restart of the collector and a mass loss are told once and not for each node; so is what an
/// operator did. Suspicion is no event, and neither is its end.
const fn turned(from: NodeState, to: NodeState, cause: Cause) -> Option<&'static str> {
    if from as u8 == to as u8 || matches!(cause, Cause::Started | Cause::Resumed | Cause::Mass) {
        return None;
    }
    match (from, to) {
        (NodeState::Suspect | NodeState::Quarantined, NodeState::Up) => None,
        (NodeState::Pending | NodeState::Held | NodeState::Revoked, NodeState::Unknown) => None,
        (_, NodeState::Quarantined) if matches!(cause, Cause::Heard) => Some("node.up"),
        (_, NodeState::Up) => Some("node.up"),
        (_, NodeState::Down) => Some("node.down"),
        (_, NodeState::Stopped) => Some("node.stopped"),
        (_, NodeState::Unknown) => Some("node.unknown"),
        _ => None,
    }
}
