//! What the API shows of the fleet: a whole picture, made anew by the pipeline and never changed.

use std::collections::HashMap;
use std::sync::Arc;

use dunlin_shared::id::NodeId;
use dunlin_shared::inventory::Facts;
use dunlin_shared::sample::Reading;
use dunlin_shared::time::WallMs;

use crate::engine::NodeState;
use crate::record::NodeKey;
use crate::registry::{Admission, Labels, bears_all};

#[derive(Clone, Debug, Default)]
pub struct FleetView {
    /// Nodes that may send, by what is known of their life.
    pub counts: Vec<(NodeState, usize)>,
    /// By id, and so by age.
    pub nodes: Vec<NodeView>,
    /// Which ids bear a name; made anew only when a name changed.
    pub by_name: Arc<HashMap<Arc<str>, Vec<NodeId>>>,
}

#[derive(Clone, Debug)]
pub struct NodeView {
    pub id: NodeId,
    /// What changes rarely.
    pub about: Arc<About>,
    pub state: NodeState,
    pub since: WallMs,
    /// `None` for a node that enrolled and said nothing yet.
    pub last_seen: Option<WallMs>,
    pub latest: Option<Arc<Reading>>,
}

#[derive(Clone, Debug)]
pub struct About {
    /// In the log; `None` for a node that never said anything.
    pub key: Option<NodeKey>,
    pub name: Arc<str>,
    pub admission: Admission,
    pub enrolled: WallMs,
    /// Operator's over token's over agent's.
    pub labels: Labels,
    /// Labels that policy may rest on: operator's over token's.
    pub trusted_labels: Labels,
    pub facts: Option<Arc<Facts>>,
    pub version: String,
    pub skew_ms: Option<i64>,
    pub interval_ms: Option<u32>,
    pub is_ephemeral: bool,
    pub maintained_until: Option<Option<WallMs>>,
    /// Machines that may not be this node, and the name each gave.
    pub quarantined: Vec<([u8; 16], String)>,
}

/// Why a word names no single node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotOne {
    None,
    Many(Vec<NodeId>),
}

impl NodeView {
    /// Whether it bears all of these labels, whoever gave them: what a reader asks for. Limits go by `trusted_labels`.
    #[must_use]
    pub fn bears(&self, wanted: &Labels) -> bool {
        bears_all(&self.about.labels, wanted)
    }
}

impl FleetView {
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&NodeView> {
        self.nodes.binary_search_by_key(&id, |node| node.id).ok().map(|at| &self.nodes[at])
    }

    /// By id, or by a name that only one node has.
    pub fn find(&self, word: &str) -> Result<&NodeView, NotOne> {
        if let Ok(id) = word.parse() {
            return self.node(id).ok_or(NotOne::None);
        }
        match self.by_name.get(word).map(Vec::as_slice) {
            None | Some([]) => Err(NotOne::None),
            Some([one]) => self.node(*one).ok_or(NotOne::None),
            Some(many) => Err(NotOne::Many(many.to_vec())),
        }
    }
}
