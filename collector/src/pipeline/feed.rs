//! Which effects stand in the feed of events, and with which words. Pure.

use dunlin_shared::id::NodeId;
use dunlin_shared::time::WallMs;
use serde_json::{Map, Value, json};

use super::happened::words;
use super::known::KnownNodes;
use crate::engine::{Change, Effect, GapRecorded, Size};
use crate::record::NodeKey;
use crate::shape::Moment;
use crate::store::NewEvent;

pub(super) fn event(at: WallMs, known: &KnownNodes, effect: &Effect) -> Option<NewEvent> {
    let kind = effect.event()?;
    let ids = |nodes: &[NodeKey]| nodes.iter().filter_map(|node| known.id(*node)).map(text).collect::<Vec<_>>();
    let (node, body) = match effect {
        Effect::NodeState { node, from, .. } => (Some(*node), json!({ "from": from.as_str() })),
        Effect::GapRecorded(gap) => (Some(gap.node), lost(gap)),
        Effect::NodeChanged { node, change } => (Some(*node), changed(change)),
        Effect::MassLoss { nodes, of, since } => {
            (None, json!({ "count": nodes.len(), "of": of, "since": time(*since), "nodes": ids(nodes) }))
        }
        Effect::MassGrew { nodes } => (None, json!({ "count": nodes.len(), "nodes": ids(nodes) })),
        Effect::MassOver { down, since } => {
            (None, json!({ "count": down.len(), "since": time(*since), "down": ids(down) }))
        }
        Effect::Retired { node, last_seen, .. } => (Some(*node), json!({ "last_seen": time(*last_seen) })),
        Effect::Happened { node, happening, is_late } => {
            (Some(*node), words(happening, known.skew_ms(*node).unwrap_or(0), *is_late))
        }
        Effect::Noisy { node, count } => (Some(*node), json!({ "count": count })),
        Effect::NodeRewound { node, epoch, seq } => (Some(*node), json!({ "epoch": epoch.0, "seq": seq.0 })),
        Effect::SessionStarted { .. }
        | Effect::SessionEnded { .. }
        | Effect::NodeRestarted { .. }
        | Effect::FactsChanged { .. }
        | Effect::StockTold { .. }
        | Effect::StockChanged { .. }
        | Effect::StockKept { .. }
        | Effect::InventoryAsked { .. }
        | Effect::MaintenanceOver { .. }
        // It has words of its own.
        | Effect::Alert(_) => return None,
    };
    let mut said = Map::new();
    let id = match node {
        // What cannot be named stands in no feed.
        Some(node) => {
            said.insert(String::from("name"), Value::String(known.name(node).to_owned()));
            Some(known.id(node)?)
        }
        None => None,
    };
    if let Value::Object(more) = body {
        said.extend(more);
    }
    Some(NewEvent { at, kind, node: id, body: Value::Object(said).to_string() })
}

/// What somebody tells who does not know what the node is called.
pub(super) fn named(event: NewEvent, name: &str) -> NewEvent {
    let Ok(Value::Object(mut body)) = serde_json::from_str(&event.body) else { return event };
    body.entry("name").or_insert_with(|| Value::String(name.to_owned()));
    NewEvent { body: Value::Object(body).to_string(), ..event }
}

fn lost(gap: &GapRecorded) -> Value {
    json!({ "count": gap.count, "from": time(gap.from), "to": time(gap.to), "reason": gap.reason.as_str() })
}

fn changed(change: &Change) -> Value {
    let size = |size: &Size| json!({ "cpus": size.cpus, "memory_bytes": size.memory_bytes });
    match change {
        Change::Rebooted { from, to } => json!({ "from": hex(from), "to": hex(to) }),
        Change::Renamed { from, to } | Change::Kernel { from, to } => json!({ "from": from, "to": to }),
        Change::Resized { from, to } => json!({ "from": size(from), "to": size(to) }),
    }
}

/// As the API writes every time.
fn time(at: WallMs) -> String {
    Moment(at).to_string()
}

fn text(id: NodeId) -> String {
    id.to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
