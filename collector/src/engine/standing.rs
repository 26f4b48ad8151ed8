//! What the registry says of each node, and when planned downtimes run out.
//!
//! The registry decides; this only remembers what it said. A maintenance that ran out is told by an
//! effect, so that the registry forgets it too; told twice, it ends twice and changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_shared::time::WallMs;

use super::state::Standing;
use crate::record::NodeKey;

#[derive(Debug, Default)]
pub(super) struct Standings {
    /// Whoever is not admitted and nothing else.
    unusual: BTreeMap<NodeKey, Standing>,
    /// By the time at which they end.
    ends: BTreeSet<(WallMs, NodeKey)>,
}

impl Standings {
    pub(super) fn of(&self, node: NodeKey) -> Standing {
        self.unusual.get(&node).copied().unwrap_or_default()
    }

    pub(super) fn set(&mut self, node: NodeKey, standing: Standing) {
        if let Some(end) = end_of(self.of(node)) {
            self.ends.remove(&(end, node));
        }
        if let Some(end) = end_of(standing) {
            self.ends.insert((end, node));
        }
        if standing == Standing::default() {
            self.unusual.remove(&node);
        } else {
            self.unusual.insert(node, standing);
        }
    }

    /// A node whose maintenance is over by then, and how it stands without it.
    pub(super) fn next_over(&mut self, at: WallMs) -> Option<(NodeKey, Standing)> {
        let (_, node) = self.ends.first().copied().filter(|(end, _)| *end <= at)?;
        let standing = Standing { maintenance: None, ..self.of(node) };
        self.set(node, standing);
        Some((node, standing))
    }
}

fn end_of(standing: Standing) -> Option<WallMs> {
    standing.maintenance?.until
}
