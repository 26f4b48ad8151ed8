//! Rules judged on each frame of ten thousand nodes: what the engine takes with them and without, of the same records.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use dunlin_collector::engine::alert::AlertChange;
use dunlin_collector::engine::{Effect, Engine};
use dunlin_collector::ingest::{Admitted, Ingest};
use dunlin_collector::record::{Event, Pos, Record};
use dunlin_shared::rule::Rule;
use dunlin_shared::sample::Reading;
use dunlin_shared::time::WallMs;
use dunlin_shared::wire::Lane;
use dunlin_tests::pki::node_ids;

use super::{FLEET, Labels, PART, RULES, standard};
use crate::codec::cpu_ns;
use crate::window::flow::{Playing, fleet, rss_kib};
use crate::window::{INTERVAL_MS, float};
use dunlin_tests::table::Table;

const CORE_MAX: f64 = 0.1;
/// What comes within a second.
const GROUPS_A_TICK: usize = 10;
const BEGINS: WallMs = WallMs(1_700_000_000_000);

/// An engine, and the time on a processor that it took.
#[derive(Default)]
pub(super) struct Timed {
    pub(super) engine: Engine,
    pub(super) took_ns: u64,
    pub(super) fired: u64,
}

/// Nodes that send frames, and the ingest that makes records of those.
pub(super) struct Stream {
    ingest: Ingest,
    nodes: Vec<Playing>,
    tick: u64,
    pos: Pos,
}

/// How long the engine takes over one frame, rules and all.
pub(super) fn measure(table: &mut Table, short: bool) -> Result<Duration> {
    let (nodes, ticks) = if short { (200, 5) } else { (FLEET, 30) };
    let mut stream = Stream::start(nodes)?;
    let (mut bare, mut ruled) = (Timed::default(), Timed::default());
    for timed in [&mut bare, &mut ruled] {
        stream.introduce(timed, |_| Labels::default());
    }
    for _ in 0..3 {
        stream.play(&mut [&mut bare, &mut ruled])?;
    }
    let before_kib = rss_kib()?;
    ruled.set_rules(standard()?)?;
    for _ in 0..3 {
        stream.play(&mut [&mut bare, &mut ruled])?;
    }
    let state = float(rss_kib()?.saturating_sub(before_kib)) / float(nodes as u64);
    (bare.took_ns, ruled.took_ns) = (0, 0);
    for _ in 0..ticks {
        stream.play(&mut [&mut bare, &mut ruled])?;
    }
    let frames = float(ticks * nodes as u64);
    let fleet_s = float(ticks * INTERVAL_MS) / 1e3;
    let core = |ns: u64| float(ns) / 1e9 / fleet_s;
    let each = |ns: u64| format!("{:.2} us", float(ns) / 1e3 / frames);
    let mut note = |what: String, measured: String| table.note(PART, what, measured);
    note(format!("nodes, series, frames judged by {RULES} rules"), format!("{nodes}, {}, {frames}", super::SERIES));
    note(String::from("engine without rules, of a core and a frame"), both(core(bare.took_ns), &each(bare.took_ns)));
    note(format!("engine with {RULES} rules, of a core and a frame"), both(core(ruled.took_ns), &each(ruled.took_ns)));
    note(String::from("what rules keep of a node"), format!("{state:.1} KiB"));
    note(String::from("alerts that fired meanwhile"), ruled.fired.to_string());
    table.promise(
        PART,
        &format!("engine with {RULES} rules, hundredths of a core"),
        core(ruled.took_ns) * 100.0,
        CORE_MAX * 100.0,
        "",
    );
    Ok(Duration::from_nanos(ruled.took_ns / (ticks * nodes as u64)))
}

fn both(core: f64, frame: &str) -> String {
    format!("{core:.4}, {frame}")
}

impl Stream {
    pub(super) fn start(nodes: usize) -> Result<Self> {
        let mut ingest = Ingest::default();
        let nodes = fleet(&mut ingest, nodes, BEGINS)?;
        Ok(Self { ingest, nodes, tick: 0, pos: Pos(0) })
    }

    /// Who each node is, and what it is labelled with.
    pub(super) fn introduce(&self, timed: &mut Timed, labels: impl Fn(usize) -> Labels) {
        let ids = node_ids(self.nodes.len(), 1);
        for (number, (node, id)) in self.nodes.iter().zip(ids).enumerate() {
            drop(timed.engine.introduce(BEGINS, node.key, id, &labels(number)));
        }
    }

    /// One tick of every node. Each engine is given the same records; what makes them is not counted.
    pub(super) fn play(&mut self, engines: &mut [&mut Timed]) -> Result<()> {
        self.tick += 1;
        let begins = BEGINS.plus(i64::try_from(self.tick * INTERVAL_MS)?);
        let in_group = self.nodes.len().div_ceil(GROUPS_A_TICK);
        let group_ms = INTERVAL_MS / GROUPS_A_TICK as u64;
        let mut at = begins;
        for group in self.nodes.chunks_mut(in_group) {
            let mut records = Vec::with_capacity(in_group + 1);
            at = at.plus(i64::try_from(group_ms)?);
            for node in group {
                let frame = node.frame(self.tick, at);
                match self.ingest.admit(at, node.key, Lane::Live, frame)? {
                    Admitted::Store { record, reading } => records.push((record, reading)),
                    Admitted::Duplicate(id) => bail!("frame {id} is held already"),
                }
            }
            self.ingest.committed();
            records.push((Record { at, event: Event::Tick { elapsed_ms: group_ms, paused_ms: 0 } }, None));
            engines.iter_mut().try_for_each(|timed| timed.apply(self.pos, &records))?;
            self.pos = Pos(self.pos.0 + records.len() as u64);
        }
        Ok(())
    }
}

impl Timed {
    /// How long that takes.
    pub(super) fn set_rules(&mut self, rules: impl IntoIterator<Item = Arc<Rule>>) -> Result<Duration> {
        let began = cpu_ns()?;
        drop(self.engine.set_rules(BEGINS, rules));
        Ok(Duration::from_nanos(cpu_ns()? - began))
    }

    fn apply(&mut self, mut pos: Pos, records: &[(Record, Option<Arc<Reading>>)]) -> Result<()> {
        let began = cpu_ns()?;
        for (record, reading) in records {
            pos = pos.next();
            let effects = self.engine.apply(pos, record, reading.clone());
            let fires = |effect: &&Effect| matches!(effect, Effect::Alert(change) if matches!(**change, AlertChange::Fired(..)));
            self.fired += effects.iter().filter(fires).count() as u64;
        }
        self.took_ns += cpu_ns()? - began;
        Ok(())
    }
}
