//! Past the limit. First two and five times the frames that are promised, which a collector is to take like any others while
//! it has the time for them. Then less time than its fleet needs: a half, a fifth, and all of it again.
//!
//! Time on a processor is what runs out first on a small box, and a share of it can be taken from the real collector
//! while nothing else changes: the fleet goes on as before.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dunlin_shared::limits::INTERVAL_MS_MIN;
use dunlin_shared::time::WallMs;

use super::feed::Heard;
use super::{Alerts, Part, Proof, ProvePlan, promised, steady};
use crate::fleet::oracle::{Oracle, set_of};
use crate::fleet::unruly::Unruly;
use crate::machine::SmallBuffers;
use crate::quota::Quota;
use crate::table::Table;
use crate::topology::Direct;

const PART: &str = "overload";
/// How many times what is promised, and how many times what it has time for.
const TIMES: [u32; 2] = [2, 5];
/// An acknowledgement comes with every third frame: so many of a node may be under way though nothing waits.
const UNDER_WAY: u64 = 4;
/// The rule that tells of it waits for a minute.
const TOLD_AFTER: Duration = Duration::from_secs(90);
const RULE: &str = "collector-overloaded";
/// A fleet's backlog is paced: hundreds of frames a second, and of one node a few in a minute.
const CAUGHT_UP: Duration = Duration::from_secs(600);

/// Runs all of it; what is missed is said in the table.
pub fn overload(plan: ProvePlan, table: &mut Table) -> Result<()> {
    ensure!(plan.nodes >= 10, "a fleet has ten nodes at least");
    let _buffers = SmallBuffers::set()?;
    let least = Duration::from_millis(INTERVAL_MS_MIN);
    let plan = ProvePlan { unruly: Unruly::default(), interval: plan.interval.max(TIMES[0] * least), ..plan };
    // No agent ticks more often than it may.
    for times in TIMES.into_iter().filter(|times| plan.interval / *times >= least) {
        more_frames(ProvePlan { interval: plan.interval / times, ..plan }, times, table)?;
    }
    less_time(plan, table)
}

/// Every agent ticks so many times as often.
fn more_frames(plan: ProvePlan, times: u32, table: &mut Table) -> Result<()> {
    let network = Direct::new()?;
    network.add_island()?;
    let mut proof = Proof::start(plan, &network)?;
    table.note(PART, "nodes, series, a tick each", proof.scale());
    proof.connect()?;
    let before = proof.told();
    let part = proof.spell(&format!("{times} times the frames"), plan.share(15))?;
    let gone = proof.gone_since(before);
    let heard = proof.follower.heard();
    let alerts = Alerts { heard: &heard, began: began(&proof)? };
    let whose = format!("{times} times the frames");
    tell(table, &whose, &part, &alerts);
    steady::committed(table, &part, &whose);
    let p99_ms = alerts.times(&part).1.p99_ms;
    table.promise(PART, &format!("{whose}: from sample to feed, p99"), p99_ms, promised::ALERT_MS, "ms");
    table.never(PART, &format!("{whose}: nodes told as down or stopped"), gone);
    proof.finish(table)
}

fn less_time(plan: ProvePlan, table: &mut Table) -> Result<()> {
    let network = Direct::new()?;
    network.add_island()?;
    let mut proof = Proof::start(plan, &network)?;
    table.note(PART, "nodes, series, a tick each", proof.scale());
    proof.connect()?;
    let steady = proof.spell("steady", plan.share(10))?;
    let cores = steady.after.cpu_since(&steady.before) / steady.before.seconds_to(&steady.after);
    table.note(PART, "what it uses of a core when it may", format!("{cores:.3}"));

    let quota = Quota::of(proof.rig.collector.pid())?;
    let before = proof.told();
    let mut parts = Vec::new();
    for times in TIMES {
        quota.allow(Some(cores / f64::from(times)))?;
        let part = proof.spell(&format!("1/{times} of the time"), plan.share(20))?;
        parts.push((times, part, waiting(&proof)?));
    }
    quota.allow(None)?;
    let freed = Instant::now();
    proof.wait_connected()?;
    let back_s = freed.elapsed().as_secs_f64();
    let caught_up_s = proof.catch_up(freed)?;
    let after = proof.spell("again as before", plan.share(10))?;
    let gone = proof.gone_since(before);
    drop(quota);

    let heard = proof.follower.heard();
    let alerts = Alerts { heard: &heard, began: began(&proof)? };
    tell(table, "as it is", &steady, &alerts);
    for (times, part, (all, most)) in &parts {
        let whose = format!("1/{times} of the time that it needs");
        tell(table, &whose, part, &alerts);
        let what = format!("{whose}: frames that wait with their agents at the end, with one at most");
        table.note(PART, what, format!("{all}, {most}"));
    }
    table.promise(PART, "all of it again: every agent is back", back_s, promised::BACK_S, "s");
    table.note(PART, "the same: no frame waits any more", format!("{caught_up_s:.0} s"));
    tell(table, "then", &after, &alerts);
    table.never(PART, "nodes told as down or stopped in all of this", gone);
    table.note(PART, "alerts by rule", rules(&heard));
    if plan.share(20) >= TOLD_AFTER {
        let untold = usize::from(!heard.rules.contains_key(RULE));
        table.never(PART, &format!("{RULE} is not told"), untold);
    }
    proof.finish(table)
}

impl Proof<'_> {
    /// Until agents hold no more than what is under way.
    fn catch_up(&mut self, since: Instant) -> Result<f64> {
        loop {
            let (all, most) = waiting(self)?;
            if most <= UNDER_WAY {
                return Ok(since.elapsed().as_secs_f64());
            }
            ensure!(since.elapsed() < CAUGHT_UP, "agents hold {all} frames after {CAUGHT_UP:?}, one of them {most}");
            self.spell(&format!("{all} wait"), Duration::from_secs(1))?;
        }
    }
}

/// When the fleet's clock read 0.
fn began(proof: &Proof<'_>) -> Result<WallMs> {
    Ok(WallMs(Oracle::read(&proof.rig.oracle_file())?.run.began))
}

/// What agents have sampled and is neither acknowledged nor given up: of all, and of the one with the most.
fn waiting(proof: &Proof<'_>) -> Result<(u64, u64)> {
    let oracle = Oracle::read(&proof.rig.oracle_file())?;
    let counts = oracle.nodes.iter().map(|node| set_of(&node.pending).count());
    Ok(counts.fold((0, 0), |(sum, most), count| (sum + count, most.max(count))))
}

fn tell(table: &mut Table, whose: &str, part: &Part, alerts: &Alerts<'_>) {
    let seconds = part.before.seconds_to(&part.after);
    let frames = part.after.grown(&part.before, "dunlin_frames_committed_total") / seconds;
    let cpu = part.after.cpu_since(&part.before) / seconds;
    table.note(PART, format!("{whose}: frames committed, of a core"), format!("{frames:.0} a second, {cpu:.3}"));
    let (count, times) = alerts.times(part);
    let shown = format!("{count}: {:.0}, {:.0}, {:.0} ms", times.median_ms, times.p99_ms, times.longest_ms);
    table.note(PART, format!("{whose}: alerts, from sample to feed: median, p99, longest"), shown);
    let connected = part.after.scrape.sum("dunlin_connections", &[]);
    let accepted = part.after.grown(&part.before, "dunlin_connections_accepted_total");
    table.note(PART, format!("{whose}: connected at the end, connections made"), format!("{connected}, {accepted}"));
    let busy = part.after.scrape.sum("dunlin_busy_ratio", &[]);
    let held = part.after.scrape.sum("dunlin_backlog_held", &[]);
    table.note(PART, format!("{whose}: busy, backlog held"), format!("{busy:.2}, {held}"));
}

fn rules(heard: &Heard) -> String {
    let rules: Vec<String> = heard.rules.iter().map(|(rule, count)| format!("{rule} {count}")).collect();
    if rules.is_empty() { String::from("none") } else { rules.join(", ") }
}
