//! What the pipeline knows of each node beside the engine, and the picture that it publishes of all.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use dunlin_shared::id::NodeId;
use dunlin_shared::inventory::{Facts, Inventory};

use crate::engine::{self, Engine, Liveness, NodeState, Standing};
use crate::record::{NodeKey, SessionStart};
use crate::registry::{self, Labels, Member, Registry};
use crate::store::NodeRow;
use crate::view::{About, FleetView, NodeView};

/// How often an agent measures that did not say.
const TICK_MS: u64 = 10_000;

#[derive(Debug, Default)]
pub(super) struct KnownNodes {
    by_key: HashMap<NodeKey, Known>,
    keys: HashMap<NodeId, NodeKey>,
    /// What is published of each member; taken out when something of it changes.
    about: HashMap<NodeId, Arc<About>>,
    by_name: Arc<HashMap<Arc<str>, Vec<NodeId>>>,
    names_changed: bool,
}

#[derive(Debug)]
struct Known {
    id: NodeId,
    name: String,
    version: String,
    skew_ms: Option<i64>,
    interval_ms: Option<u32>,
    facts: Option<Arc<Facts>>,
}

impl KnownNodes {
    pub(super) fn restore(rows: &[NodeRow]) -> Self {
        let mut nodes = Self { names_changed: true, ..Self::default() };
        for row in rows {
            nodes.keys.insert(row.id, row.key);
            let known = Known {
                id: row.id,
                name: row.name.clone(),
                version: row.version.clone().unwrap_or_default(),
                skew_ms: row.skew_ms,
                interval_ms: row.interval_ms,
                facts: row.facts.as_ref().and_then(|(_, bytes)| facts(bytes)),
            };
            nodes.by_key.insert(row.key, known);
        }
        nodes
    }

    pub(super) fn id(&self, node: NodeKey) -> Option<NodeId> {
        self.by_key.get(&node).map(|known| known.id)
    }

    pub(super) fn key(&self, node: NodeId) -> Option<NodeKey> {
        self.keys.get(&node).copied()
    }

    /// What it calls itself; what a log line shows.
    pub(super) fn name(&self, node: NodeKey) -> &str {
        self.by_key.get(&node).map_or("?", |known| known.name.as_str())
    }

    /// Labels that policy may rest on.
    pub(super) fn trusted<'a>(&'a self, node: NodeId, registry: &Registry) -> Cow<'a, Labels> {
        match self.about.get(&node) {
            Some(about) => Cow::Borrowed(&about.trusted_labels),
            None => Cow::Owned(registry.member(node).map(Member::trusted_labels).unwrap_or_default()),
        }
    }

    /// Its wall clock less ours, when it said so.
    pub(super) fn skew_ms(&self, node: NodeKey) -> Option<i64> {
        self.by_key.get(&node)?.skew_ms
    }

    /// How often it measures.
    pub(super) fn tick_ms(&self, node: NodeKey) -> u64 {
        self.by_key.get(&node).and_then(|known| known.interval_ms).map_or(TICK_MS, u64::from)
    }

    /// What it told of itself.
    pub(super) fn facts(&self, node: NodeKey) -> Option<&Arc<Facts>> {
        self.by_key.get(&node)?.facts.as_ref()
    }

    /// Whether the node was new.
    pub(super) fn session_started(&mut self, node: NodeKey, info: &SessionStart) -> bool {
        let known = Known {
            id: info.node,
            name: info.name.clone(),
            version: info.agent_version.clone(),
            skew_ms: Some(info.skew_ms),
            interval_ms: Some(info.interval_ms),
            facts: None,
        };
        self.keys.insert(info.node, node);
        self.changed(info.node);
        match self.by_key.get_mut(&node) {
            Some(before) => {
                let facts = before.facts.take();
                *before = Known { facts, ..known };
                false
            }
            None => {
                self.by_key.insert(node, known);
                true
            }
        }
    }

    pub(super) fn facts_changed(&mut self, node: NodeKey, bytes: &[u8]) {
        let Some(known) = self.by_key.get_mut(&node) else { return };
        known.facts = facts(bytes);
        let id = known.id;
        self.changed(id);
    }

    pub(super) fn changed(&mut self, id: NodeId) {
        self.about.remove(&id);
        self.names_changed = true;
    }

    pub(super) fn changed_all(&mut self) {
        self.about.clear();
        self.names_changed = true;
    }

    /// Everything that the API shows. 10,000 nodes take a few milliseconds.
    pub(super) fn picture(&mut self, engine: &Engine, registry: &Registry) -> FleetView {
        let mut nodes = Vec::with_capacity(registry.members().size_hint().0);
        for (id, member) in registry.members().filter(|(_, member)| !member.is_forgotten) {
            let key = self.keys.get(&id).copied();
            let known = key.and_then(|key| self.by_key.get(&key));
            let about = self.about.entry(id).or_insert_with(|| Arc::new(about(key, known, member)));
            let life = key.and_then(|key| engine.node(key));
            if life.is_some_and(|life| life.is_retired) {
                continue;
            }
            nodes.push(NodeView {
                id,
                about: Arc::clone(about),
                state: life.map_or_else(|| unheard(member), |life| life.state),
                since: life.map_or(member.enrolled, |life| life.since),
                last_seen: life.map(|life| life.last_seen),
                latest: life.and_then(|life| life.latest.cloned()),
            });
        }
        if std::mem::take(&mut self.names_changed) {
            let mut by_name: HashMap<Arc<str>, Vec<NodeId>> = HashMap::with_capacity(nodes.len());
            for node in &nodes {
                by_name.entry(Arc::clone(&node.about.name)).or_default().push(node.id);
            }
            self.by_name = Arc::new(by_name);
        }
        FleetView { counts: engine.counts().collect(), nodes, by_name: Arc::clone(&self.by_name) }
    }
}

/// A node that enrolled and said nothing yet.
fn unheard(member: &Member) -> NodeState {
    let standing = standing(member);
    NodeState::shown(standing.admission, standing.maintenance.is_some(), Liveness::Unknown)
}

/// What the engine is told of a member.
#[must_use]
pub fn standing(member: &Member) -> Standing {
    let admission = match member.admission {
        registry::Admission::Approved if member.quarantined.is_empty() => engine::Admission::Admitted,
        registry::Admission::Approved => engine::Admission::Quarantined,
        registry::Admission::Pending => engine::Admission::Pending,
        registry::Admission::Held => engine::Admission::Held,
        registry::Admission::Revoked => engine::Admission::Revoked,
    };
    Standing { admission, maintenance: member.maintenance, is_ephemeral: member.is_ephemeral }
}

fn about(key: Option<NodeKey>, known: Option<&Known>, member: &Member) -> About {
    let facts = known.and_then(|known| known.facts.clone());
    About {
        key,
        name: known.map_or(member.name.as_str(), |known| known.name.as_str()).into(),
        admission: member.admission,
        enrolled: member.enrolled,
        labels: facts.as_ref().map_or_else(|| member.trusted_labels(), |facts| member.labels(&facts.labels)),
        trusted_labels: member.trusted_labels(),
        version: known.map(|known| known.version.clone()).unwrap_or_default(),
        skew_ms: known.and_then(|known| known.skew_ms),
        interval_ms: known.and_then(|known| known.interval_ms),
        is_ephemeral: member.is_ephemeral,
        maintained_until: member.maintenance.map(|maintenance| maintenance.until),
        quarantined: member.quarantined.iter().map(|machine| (machine.boot_id, machine.name.clone())).collect(),
        facts,
    }
}

/// Of an agent that is newer than this collector, nothing is shown that cannot be read.
fn facts(bytes: &[u8]) -> Option<Arc<Facts>> {
    match Inventory::decode(bytes) {
        Ok(Inventory::Facts(facts)) => Some(Arc::new(facts)),
        Ok(_) | Err(_) => None,
    }
}
