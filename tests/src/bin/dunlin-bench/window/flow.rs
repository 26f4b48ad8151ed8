//! Half an hour of ten thousand nodes through commit and sealing, as fast as it goes: what the store costs.
//!
//! The bench drives the clock, so the thread that seals works beside commits that come many times as often as a fleet's:
//! what they wait for it here is more than they ever would. Making the frames is no work of the store and is not counted.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::scope;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use dunlin_collector::health::Health;
use dunlin_collector::ingest::{Admitted, Ingest};
use dunlin_collector::record::{NodeKey, Pos};
use dunlin_collector::store::{Files, Level, Log, bytes_of};
use dunlin_shared::codec::{Grouper, encode_delta, encode_key};
use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{FrameId, Seq};
use dunlin_shared::sample::{Reading, Sample};
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::Lane;
use dunlin_tests::fleet::history::{EPOCH, hello};
use dunlin_tests::fleet::load::{Host, Load};
use dunlin_tests::pki::node_ids;
use dunlin_tests::scratch::Scratch;

use super::{INTERVAL_MS, float, keeper, now};
use crate::codec::cpu_ns;
use dunlin_tests::table::Table;

pub(super) const PART: &str = "flow";
const SERIES: usize = 150;
const CORE_MAX: f64 = 0.5;
const MEMORY_MIB_MAX: f64 = 100.0;
pub(super) const COMMIT_MS_MAX: f64 = 200.0;
/// A commit takes what came within so long.
const GROUPS_A_TICK: usize = 100;

/// A node while its half hour is played.
pub(crate) struct Playing {
    pub(crate) key: NodeKey,
    pub(crate) host: Host,
    grouper: Grouper,
    last: Option<Reading>,
}

/// What it came to.
#[derive(Debug, Default)]
struct Played {
    own_ns: u64,
    keeper_ns: u64,
    commits_ms: Vec<f64>,
    grown_kib: u64,
}

pub(crate) fn measure(table: &mut Table, short: bool) -> Result<()> {
    let (nodes, ticks) = if short { (200, 70) } else { (10_000, 181) };
    let scratch = Scratch::new("flow")?;
    let played = play(scratch.path(), nodes, ticks)?;
    let sealed = Files::list(&scratch.join("window"))?;
    let files = sealed.of(Level::Full).count();
    ensure!(files >= 2, "{files} files were sealed");
    let bytes: u64 = sealed.sealed.iter().map(|name| bytes_of(name.path())).sum();
    let span_s = float((ticks - 1) * INTERVAL_MS) / 1e3;
    let samples = float(ticks - 1) * float(nodes as u64) * float(SERIES as u64);
    let core = |ns: u64| float(ns) / 1e9 / span_s;
    let mut note = |what: &str, measured: String| table.note(PART, what, measured);
    note("nodes, minutes, samples", format!("{nodes}, {:.0}, {:.0} million", span_s / 60.0, samples / 1e6));
    note("samples a second of fleet time", format!("{:.0}", samples / span_s));
    note("of a core for admission and commit", format!("{:.3}", core(played.own_ns)));
    note("of a core for sealing", format!("{:.3}", core(played.keeper_ns)));
    note("sealed files of every sample", format!("{files}, {:.1} MB with their roll-ups", float(bytes) / 1e6));
    let mut commits = played.commits_ms;
    commits.sort_unstable_by(f64::total_cmp);
    note("commit, longest", format!("{:.1} ms", commits.last().copied().unwrap_or(f64::NAN)));
    let p99 = commits.get(commits.len() * 99 / 100).copied().unwrap_or(f64::NAN);
    let all = core(played.own_ns + played.keeper_ns);
    table.promise(PART, "of a core, hundredths", all * 100.0, CORE_MAX * 100.0, "");
    table.promise(PART, "memory at its highest", float(played.grown_kib) / 1_024.0, MEMORY_MIB_MAX, "MiB");
    table.promise(PART, "commit, p99", p99, COMMIT_MS_MAX, "ms");
    Ok(())
}

fn play(state: &Path, nodes: usize, ticks: u64) -> Result<Played> {
    let begins = WallMs(now().0.div_euclid(300_000) * 300_000 - i64::try_from(ticks * INTERVAL_MS)?);
    let (mut log, _) = Log::open(&state.join("window"), begins, Pos(0))?;
    let mut ingest = Ingest::default();
    let mut playing = fleet(&mut ingest, nodes, begins)?;
    let before_kib = rss_kib()?;
    let health = Arc::<Health>::default();
    let (wake, wakes) = sync_channel::<()>(1);
    let mut keeper = keeper(state, &health)?;
    let mut played = Played::default();
    played.keeper_ns = scope(|scope| {
        let keeping = scope.spawn(move || {
            while wakes.recv().is_ok() {
                keeper.look()?;
            }
            keeper.look()?;
            cpu_ns()
        });
        for tick in 1..ticks {
            let at = begins.plus(i64::try_from(tick * INTERVAL_MS)?);
            if log.due(at) {
                let began = cpu_ns()?;
                log.rotate(at, &ingest.snapshot())?;
                ingest.rotated();
                log.checkpoint_if_due()?;
                played.own_ns += cpu_ns()? - began;
                wake.try_send(()).ok();
            }
            for group in playing.chunks_mut(nodes / GROUPS_A_TICK) {
                let frames = group.iter_mut().map(|node| (node.key, node.frame(tick, at))).collect();
                let (began, waited) = (cpu_ns()?, Instant::now());
                commit(&mut log, &mut ingest, at, frames)?;
                played.commits_ms.push(waited.elapsed().as_secs_f64() * 1e3);
                log.checkpoint_if_due()?;
                played.own_ns += cpu_ns()? - began;
            }
            health.set_applied(Pos(log.next_pos().0 - 1));
            log.drop_sealed(health.sealed(), 600_000, at)?;
            played.grown_kib = played.grown_kib.max(rss_kib()?.saturating_sub(before_kib));
        }
        drop(wake);
        keeping.join().map_err(|_| anyhow!("the thread that seals panicked"))?
    })?;
    played.grown_kib = played.grown_kib.max(rss_kib()?.saturating_sub(before_kib));
    log.close()?;
    Ok(played)
}

/// Nodes that have said Hello and sent a frame: what making frames takes, and what is kept of each node to decode the
/// next, is there before the store does anything.
pub(crate) fn fleet(ingest: &mut Ingest, nodes: usize, at: WallMs) -> Result<Vec<Playing>> {
    let load = Load::made_up(1, SERIES);
    let mut playing = Vec::with_capacity(nodes);
    for (index, id) in node_ids(nodes, 1).into_iter().enumerate() {
        let key = ingest.enlist(id).context("the collector has too many nodes")?;
        ingest.hello(at, key, &hello(index, id, INTERVAL_MS, at))?;
        let mut node = Playing::new(key, load.host(index, EPOCH));
        let first = node.frame(0, at);
        ingest.admit(at, key, Lane::Live, first)?;
        playing.push(node);
    }
    ingest.committed();
    Ok(playing)
}

fn commit(log: &mut Log, ingest: &mut Ingest, at: WallMs, frames: Vec<(NodeKey, Frame)>) -> Result<()> {
    log.begin()?;
    for (node, frame) in frames {
        match ingest.admit(at, node, Lane::Live, frame)? {
            Admitted::Store { record, .. } => log.append(&record)?,
            Admitted::Duplicate(id) => bail!("frame {id} is held already"),
        };
    }
    log.commit()?;
    ingest.committed();
    Ok(())
}

impl Playing {
    pub(crate) fn new(key: NodeKey, host: Host) -> Self {
        Self { key, host, grouper: Grouper::default(), last: None }
    }

    pub(crate) fn frame(&mut self, tick: u64, wall: WallMs) -> Frame {
        let sample = self.host.sample(tick, MonoMs(tick * INTERVAL_MS), wall);
        self.frame_of(tick, &sample)
    }

    pub(crate) fn frame_of(&mut self, tick: u64, sample: &Sample) -> Frame {
        let (reading, begins) = self.grouper.lay_out(sample);
        let delta = self.last.take().filter(|_| !begins).and_then(|base| encode_delta(&base, &reading));
        let (kind, body) = match delta {
            Some(body) => (BodyKind::Delta { back: 1 }, body),
            None => (BodyKind::Key, encode_key(&reading)),
        };
        self.last = Some(reading);
        Frame { id: FrameId { epoch: EPOCH, seq: Seq(tick) }, kind, body }
    }
}

pub(crate) fn rss_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in /proc/self/status")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
