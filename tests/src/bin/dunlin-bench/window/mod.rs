//! What the window costs: an hour of a fleet that is sealed, merged and read, without a network.
//!
//! CPU time is that of one thread, for so many nodes, and what it would be of a core for ten thousand. Bytes are those of
//! whole files, by sample.

pub(crate) mod beside;
pub(crate) mod day;
pub(crate) mod flow;
mod peers;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arc_swap::ArcSwap;
use dunlin_agent::clock::Clock as AgentClock;
use dunlin_collector::block::Measure;
use dunlin_collector::clock::Clock;
use dunlin_collector::config::CollectorConfig;
use dunlin_collector::health::Health;
use dunlin_collector::record::{NodeKey, Pos};
use dunlin_collector::stats::Stats;
use dunlin_collector::store::{Files, Level, Log, Span, bytes_of};
use dunlin_collector::stretch::Taken;
use dunlin_collector::window::{Asked, Keeper, Window};
use dunlin_shared::sample::{ABSENT, Subject};
use dunlin_shared::time::WallMs;
use dunlin_tests::fleet::history::{History, write};
use dunlin_tests::fleet::load::{Load, Replay};
use dunlin_tests::pki::Fleet;
use dunlin_tests::scratch::Scratch;
use tokio::sync::mpsc;

use crate::codec::cpu_ns;
use dunlin_tests::table::Table;

const PART: &str = "window";
const RECORDINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data");
pub(crate) const INTERVAL_MS: u64 = 10_000;
/// Two slots more than an hour: it is merged when one of the next is sealed, and the last one is never closed.
const TICKS: u64 = 14 * 30 + 2;
const HOUR_TICKS: u64 = 360;
/// So many nodes are what the stores of others are measured with.
const PEER_NODES: usize = 50;
const FLEET: f64 = 10_000.0;
const HOUR_NS: f64 = 3.6e12;
/// Of a hundred samples, as `block` has it.
const BYTES_MAX: f64 = 50.0;

pub(crate) fn measure(table: &mut Table, short: bool) -> Result<()> {
    let nodes = if short { 20 } else { 500 };
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(RECORDINGS)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|end| end == "txt"));
    files.sort();
    let mut loads: Vec<(String, Load)> = vec![(String::from("made up, 150 series"), Load::made_up(1, 150))];
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let replay = Replay::read(file)?;
        let series = replay.recording.series();
        loads.push((name, Load { replay: Some(replay), ..Load::made_up(1, series) }));
    }
    for (name, load) in loads {
        let (begins, ours) = measure_load(table, &name, load.clone(), nodes)?;
        let few = nodes.min(PEER_NODES);
        peers::measure(table, &name, (&load, few), (begins, ours), short)?;
        day::of_a_node(table, &name, load, short)?;
    }
    day::of_a_fleet(table, short)
}

pub(crate) fn now() -> WallMs {
    AgentClock::start().wall()
}

/// Seals and merges what is there. What followed from it is not what is measured: all of it counts as applied. Gives the
/// CPU time that it took.
fn keep(state: &Path, until: WallMs) -> Result<u64> {
    let (log, _) = Log::open(&state.join("window"), until, Pos(0))?;
    let health = Arc::<Health>::default();
    health.set_applied(Pos(log.next_pos().0 - 1));
    log.close()?;
    let mut keeper = keeper(state, &health)?;
    let began = cpu_ns()?;
    keeper.look()?;
    Ok(cpu_ns()? - began)
}

/// When its hour began, and how many bytes a sample of that takes.
fn measure_load(table: &mut Table, name: &str, load: Load, nodes: usize) -> Result<(WallMs, f64)> {
    let scratch = Scratch::new("window")?;
    let fleet = Fleet::generate(nodes, 1)?;
    // It began when an hour did, so that there is one whole hour.
    let begins = WallMs(now().0.div_euclid(3_600_000) * 3_600_000 - 3_600_000);
    let until = begins.plus(i64::try_from(TICKS * INTERVAL_MS)?);
    let history = History { nodes, ticks: TICKS, interval_ms: INTERVAL_MS, until, load, ahead_ms: vec![] };
    write(scratch.path(), &fleet, &history)?;
    let dir = scratch.join("window");
    let (journal, _) = Files::list(&dir)?.journal_bytes(Pos(0));
    let took = keep(scratch.path(), until)?;
    let found = Files::list(&dir)?;
    let hour = found.of(Level::Full).find(|file| file.span == Span::Hour).context("an hour is merged")?;
    let window = Window::new(dir.clone(), Arc::default());
    let samples = count(&window, nodes, (begins, begins.plus(3_600_000)))?;
    ensure!(samples > 0, "nothing was sealed");
    let per_hundred = |bytes: u64| float(bytes) * 100.0 / float(samples);
    table.note(PART, format!("{name}: nodes, samples of an hour"), format!("{nodes}, {samples}"));
    let before = per_hundred(journal * HOUR_TICKS / TICKS) / 100.0;
    table.note(PART, format!("{name}: journals, bytes a sample"), format!("{before:.2}"));
    table.promise(
        PART,
        &format!("{name}: sealed, a hundred samples"),
        per_hundred(bytes_of(hour.path())),
        BYTES_MAX,
        "B",
    );
    for level in [Level::Mid, Level::Long] {
        let bytes: u64 = found.of(level).filter(|file| file.span == Span::Hour).map(|file| bytes_of(file.path())).sum();
        table.note(
            PART,
            format!("{name}: {} roll-ups, a hundred samples", level.as_str()),
            format!("{:.2} B", per_hundred(bytes)),
        );
    }
    let core = float(took) / f64::from(u32::try_from(nodes)?) * FLEET / HOUR_NS;
    table.note(PART, format!("{name}: sealing and merging, of a core for 10,000 nodes"), format!("{core:.3}"));
    Ok((begins, per_hundred(bytes_of(hour.path())) / 100.0))
}

fn keeper(state: &Path, health: &Arc<Health>) -> Result<Keeper> {
    let config = CollectorConfig::load(None, &[], &[]).map_err(|refused| anyhow::anyhow!("{refused}"))?;
    let tuned = Arc::new(ArcSwap::from_pointee(config.tuning));
    // Nobody hears what it tells; there is nothing to tell.
    let (pipeline, _) = mpsc::channel(1);
    let shared = (Arc::clone(health), Arc::<Stats>::default(), Clock::start());
    Ok(Keeper::new(state, tuned, (&pipeline, &Arc::default()), shared))
}

fn count(window: &Window, nodes: usize, (from, to): (WallMs, WallMs)) -> Result<u64> {
    let wanted = |_: &Subject, _: &Measure| true;
    let taken = Taken { wanted: &wanted, skew_ms: 0, values_max: usize::MAX };
    let mut samples = 0;
    for node in 0..u32::try_from(nodes)? {
        let asked = Asked { node: NodeKey(node), from, to, taken, frames_max: 0 };
        for stretch in window.stretches(&asked)? {
            let there = stretch.columns.iter().flat_map(|column| &column.values);
            samples += there.filter(|value| **value != ABSENT).count() as u64;
        }
    }
    Ok(samples)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
pub(crate) const fn float(n: u64) -> f64 {
    n as f64
}
