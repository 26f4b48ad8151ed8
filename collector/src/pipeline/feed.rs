//! Which effects stand in the feed of events, and with which words. Pure.

use dunlin_shared::id::NodeId;
use dunlin_shared::time::WallMs;
use serde_json::{Map, Value, json};

use crate::engine::{Effect, GapRecorded, NodeState};
use crate::record::NodeKey;
use crate::store::NewEvent;

pub(super) const fn node_of(effect: &Effect) -> NodeKey {
    match effect {
        Effect::NodeState { node, .. }
        | Effect::SessionStarted { node, .. }
        | Effect::SessionEnded { node, .. }
        | Effect::NodeRestarted { node, .. }
        | Effect::FactsChanged { node, .. }
        | Effect::GapRecorded(GapRecorded { node, .. }) => *node,
    }
}

pub(super) fn event(at: WallMs, node: NodeId, name: &str, effect: &Effect) -> Option<NewEvent> {
    let (kind, body) = match effect {
        Effect::NodeState { from, to, .. } => {
            let kind = match to {
                NodeState::Up => "node.up",
                NodeState::Down => "node.down",
                NodeState::Stopped => "node.stopped",
                NodeState::Unknown => "node.unknown",
                NodeState::Suspect => return None,
            };
            // After a start of the collector everybody is unknown until heard: that is no news of them.
            let is_news = !matches!((from, to), (NodeState::Unknown, NodeState::Up) | (_, NodeState::Unknown))
                && (*from, *to) != (NodeState::Suspect, NodeState::Up);
            if !is_news {
                return None;
            }
            (kind, json!({ "from": from.as_str() }))
        }
        Effect::GapRecorded(gap) => {
            let body = json!({
                "count": gap.count,
                "from": gap.from.0,
                "to": gap.to.0,
                "reason": gap.reason.as_str(),
            });
            ("node.gap", body)
        }
        Effect::SessionStarted { .. }
        | Effect::SessionEnded { .. }
        | Effect::NodeRestarted { .. }
        | Effect::FactsChanged { .. } => return None,
    };
    let mut words = Map::from_iter([(String::from("name"), Value::String(name.to_owned()))]);
    if let Value::Object(more) = body {
        words.extend(more);
    }
    Some(NewEvent { at, kind, node: Some(node), body: Value::Object(words).to_string() })
}
