//! What a tick of the engine costs with a whole fleet, and what it keeps of a node.

use anyhow::{Context, Result, ensure};
use dunlin_collector::engine::{Effect, Engine, NodeState};
use dunlin_collector::record::{Event, NodeKey, Record, SessionStart};
use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{Epoch, FrameId, NodeId};
use dunlin_shared::inventory::{Facts, Inventory};
use dunlin_shared::time::WallMs;
use dunlin_shared::wire::Lane;

use crate::codec::{cpu_ns, micros};
use dunlin_tests::table::Table;

const PART: &str = "engine";
const NODES: u32 = 10_000;
/// So many that what the allocator keeps for itself does not count.
const NODES_FOR_MEMORY: u32 = 100_000;
/// A millisecond each: nobody falls silent in between.
const TICKS: u32 = 2_000;
const AT: WallMs = WallMs(1_700_000_000_000);

pub(crate) fn measure(table: &mut Table) -> Result<()> {
    let before = resident_bytes()?;
    let large = fleet(NODES_FOR_MEMORY);
    let bytes = resident_bytes()?.saturating_sub(before) / u64::from(NODES_FOR_MEMORY);
    ensure!(large.nodes().count() == NODES_FOR_MEMORY as usize, "nodes are missing");
    drop(large);

    let mut engine = fleet(NODES);
    let up = passes(&mut engine)?;
    let began = cpu_ns()?;
    let effects = silence(&mut engine);
    let lost = cpu_ns()? - began;
    let told = effects.iter().find_map(|effect| match effect {
        Effect::MassLoss { nodes, .. } => Some(nodes.len()),
        _ => None,
    });
    ensure!(told == Some(NODES as usize), "the loss of all is not told: {told:?}");
    let held = passes(&mut engine)?;

    table.note(PART, format!("CPU of a tick, {NODES} nodes up"), format!("{:.0} us", micros(up)));
    table.note(PART, format!("CPU of a tick, {NODES} nodes held by a mass loss"), format!("{:.0} us", micros(held)));
    let what = format!("CPU of the minute in which {NODES} nodes are lost");
    table.note(PART, what, format!("{:.1} ms", micros(lost) / 1e3));
    table.note(PART, "memory of a node, its readings apart", format!("{bytes} bytes"));
    Ok(())
}

/// All have said Hello and what they are, and the start is long past.
fn fleet(nodes: u32) -> Engine {
    let mut engine = Engine::default();
    silence(&mut engine);
    for n in 0..nodes {
        let node = NodeKey(n);
        put(&mut engine, hello(node));
        let name = format!("host-{n:05}.example.net");
        let facts = Facts {
            host_name: name,
            kernel: "6.1.0-28-cloud-amd64".to_owned(),
            cpus: 2,
            memory_bytes: 1 << 31,
            ..Facts::default()
        };
        let frame = Frame { id: FrameId::new(1, 0), kind: BodyKind::Inventory, body: Inventory::Facts(facts).encode() };
        put(&mut engine, Event::Frame { node, lane: Lane::Live, frame });
    }
    engine.take_seen();
    engine
}

/// The mean of many ticks in which nothing changes.
fn passes(engine: &mut Engine) -> Result<u64> {
    let up = |engine: &Engine| engine.counts().find(|(state, _)| *state == NodeState::Up);
    let before = up(engine);
    let began = cpu_ns()?;
    for _ in 0..TICKS {
        let effects = put(engine, Event::Tick { elapsed_ms: 1, paused_ms: 0 });
        ensure!(effects.is_empty(), "something changed: {effects:?}");
    }
    let passed = cpu_ns()? - began;
    ensure!(up(engine) == before, "somebody fell silent");
    Ok(passed / u64::from(TICKS))
}

/// What follows from a minute in which nobody speaks.
fn silence(engine: &mut Engine) -> Vec<Effect> {
    let tick = |_| put(engine, Event::Tick { elapsed_ms: 1_000, paused_ms: 0 });
    (0..60).flat_map(tick).collect()
}

fn put(engine: &mut Engine, event: Event) -> Vec<Effect> {
    engine.apply_unlogged(&Record { at: AT, event }, None)
}

fn hello(node: NodeKey) -> Event {
    let session = SessionStart {
        node: NodeId::v7(node.0.into(), [0; 10]),
        name: format!("host-{:05}.example.net", node.0),
        agent_version: "0.1.0".to_owned(),
        boot_id: [1; 16],
        epoch: Epoch(1),
        interval_ms: 10_000,
        skew_ms: 0,
        before: None,
    };
    Event::Hello { node, session }
}

fn resident_bytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split_whitespace().nth(1).context("a short statm")?.parse()?;
    Ok(pages * 4_096)
}
