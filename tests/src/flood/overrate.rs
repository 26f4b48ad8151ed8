//! A node that measures and sends a hundred times as often as it said that it would.

use anyhow::{Context, Result};
use dunlin_collector::shape::Event;
use dunlin_shared::id::Epoch;

use super::ground::Ground;
use super::rogue::{self, Conduct};
use super::worker::Worker;
use crate::fleet::load::Load;

const TIMES: u64 = 100;
const SEED: u64 = 100;
/// Its place among the rogues, and in the load that it makes up.
const ROGUE: usize = 0;

pub(super) fn start(ground: &Ground<'_>) -> Result<Worker> {
    let node = ground.rogues.get(ROGUE).context("a node to flood with")?;
    let host = Load::made_up(SEED, ground.plan.series).host(ROGUE, Epoch(1));
    let agreed_ms = u64::try_from(ground.plan.interval.as_millis())?;
    let mut tick = 0;
    let measure = Box::new(move |mono, wall| {
        tick += 1;
        host.sample(tick, mono, wall)
    });
    let tick_ms = (agreed_ms / TIMES).max(1);
    rogue::start(ground, node, Conduct { name: "overrate", agreed_ms, tick_ms, measure })
}

/// The node, and that it was cut off for flooding.
pub(super) fn names(event: &Event, ground: &Ground<'_>) -> bool {
    let is_it = ground.rogues.get(ROGUE).is_some_and(|rogue| event.node.as_ref() == Some(&rogue.id.to_string()));
    let reason = event.more.get("reason").and_then(|reason| reason.as_str());
    is_it && event.kind == "node.cut_off" && reason == Some("flooding")
}
