//! A day in the window, read while frames come in: what a person waits for who looks at a node, or at the fleet.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use dunlin_collector::block::Measure;
use dunlin_collector::points::{Wanted, lines};
use dunlin_collector::record::{NodeKey, Pos};
use dunlin_collector::store::{Level, Log};
use dunlin_collector::stretch::Taken;
use dunlin_collector::window::{Asked, FleetAsked, Window};
use dunlin_shared::sample::Subject;
use dunlin_shared::time::WallMs;
use dunlin_tests::fleet::history::{History, write};
use dunlin_tests::fleet::load::Load;
use dunlin_tests::pki::Fleet;
use dunlin_tests::scratch::Scratch;

use super::beside::while_ingesting;
use super::{INTERVAL_MS, PART, keep, now};
use crate::journal;
use dunlin_tests::table::Table;

const DAY_MS: i64 = 86_400_000;
pub(crate) const HOUR_MS: i64 = 3_600_000;
const SERIES_MS: f64 = 20.0;
const ALL_SERIES_MS: f64 = 50.0;
const FLEET_MS: f64 = 500.0;
const RESTART_S: f64 = 10.0;
const READS: usize = 30;
/// Of a metric that every host has.
const METRIC: &str = "host_cpu_user_seconds";

/// What is read, and how long that may take.
type Wish<'a> = (&'a str, &'a (dyn Fn(&Subject, &Measure) -> bool + Sync), f64);

/// One node's day, of every sample.
pub(super) fn of_a_node(table: &mut Table, name: &str, load: Load, short: bool) -> Result<()> {
    let (nodes, hours) = if short { (4, 3) } else { (20, 24) };
    let scratch = Scratch::new("day")?;
    // Half an hour of it is not merged yet, and some minutes are not sealed.
    let until = WallMs(now().0.div_euclid(HOUR_MS) * HOUR_MS - HOUR_MS / 2);
    let ticks = u64::try_from(hours * HOUR_MS)? / INTERVAL_MS;
    fill(scratch.path(), &History { nodes, ticks, interval_ms: INTERVAL_MS, until, load, ahead_ms: vec![] })?;
    let window = Window::new(scratch.join("window"), std::sync::Arc::default());
    let (from, to) = (until.plus(-hours * HOUR_MS), until);
    let one = |_: &Subject, measure: &Measure| measure.about().is_some_and(|about| about.name == METRIC);
    let all = |_: &Subject, _: &Measure| true;
    let wanted: [Wish<'_>; 2] = [("one series", &one, SERIES_MS), ("all series", &all, ALL_SERIES_MS)];
    let ((), _) = while_ingesting(scratch.path(), || {
        for (what, wanted, most) in wanted {
            let mut times = Vec::new();
            for n in 0..READS {
                let node = NodeKey(u32::try_from(n * 7 % nodes)?);
                let taken = Taken { wanted, skew_ms: 0, values_max: usize::MAX };
                let began = Instant::now();
                let stretches = window.stretches(&Asked { node, from, to, taken, frames_max: usize::MAX })?;
                let found = lines(&stretches, &Wanted { from, to, interval_ms: 10_000, raw: false });
                times.push(began.elapsed().as_secs_f64() * 1e3);
                let points = found.iter().map(|line| line.points.len()).max().unwrap_or(0);
                ensure!(points as u64 > ticks * 9 / 10, "{points} points of {ticks} ticks were found");
            }
            let what = format!("{name}: a node's {hours} h, {what}: median");
            table.promise(PART, &what, median(times), most, "ms");
        }
        Ok(())
    })?;
    Ok(())
}

/// One metric over ten thousand nodes for a day, of hours; and how long a start on that window takes. Samples are
/// farther apart than those of a fleet: roll-ups have as many cells whatever they are made of.
pub(super) fn of_a_fleet(table: &mut Table, short: bool) -> Result<()> {
    let (nodes, hours) = if short { (200, 4) } else { (10_000, 24) };
    let scratch = Scratch::new("fleet-day")?;
    let interval_ms = 300_000;
    let until = WallMs(now().0.div_euclid(HOUR_MS) * HOUR_MS + 60_000);
    let ticks = u64::try_from(hours * HOUR_MS)? / interval_ms + 1;
    fill(scratch.path(), &History { nodes, ticks, interval_ms, until, load: Load::made_up(1, 20), ahead_ms: vec![] })?;
    let window = Window::new(scratch.join("window"), std::sync::Arc::default());
    let metrics = [String::from(METRIC)];
    let (from, to) = (until.plus(-DAY_MS), until);
    let ((), _) = while_ingesting(scratch.path(), || {
        for level in [Level::Long, Level::Mid] {
            let asked = FleetAsked {
                level,
                metrics: &metrics,
                wanted: &|_, _| true,
                nodes: (NodeKey(0), NodeKey(u32::MAX >> 1)),
                fresh: &[],
                from,
                to,
                cells_max: usize::MAX,
            };
            let mut times = Vec::new();
            let mut cells = 0;
            for _ in 0..READS / 5 {
                let began = Instant::now();
                let found = window.rolled(&asked)?;
                times.push(began.elapsed().as_secs_f64() * 1e3);
                ensure!(found.len() == nodes, "{} of {nodes} nodes were found", found.len());
                cells = found.iter().map(|rolled| rolled.cells.len()).sum();
            }
            let what = |of: &str| format!("one metric of {nodes} nodes, {hours} h, {cells} cells of {of}: median");
            match level {
                Level::Long => table.promise(PART, &what("an hour"), median(times), FLEET_MS, "ms"),
                _ => table.note(PART, what("five minutes"), format!("{:.1} ms", median(times))),
            }
        }
        Ok(())
    })?;
    let began = Instant::now();
    dunlin_collector::window::refuse_newer(&scratch.join("window"))?;
    let (mut log, _) = Log::open(&scratch.join("window"), now(), Pos(0))?;
    log.rotate(now(), &[])?;
    log.begin()?;
    log.append(&journal::frame(1)?)?;
    log.commit()?;
    table.promise(PART, "a start on that window, to its first commit", began.elapsed().as_secs_f64(), RESTART_S, "s");
    Ok(log.close()?)
}

/// Writes that past, and seals and merges it.
pub(crate) fn fill(state: &Path, history: &History) -> Result<()> {
    let fleet = Fleet::generate(history.nodes, 1)?;
    write(state, &fleet, history)?;
    keep(state, history.until)?;
    Ok(())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}
