//! Past the limit. First two and five times the frames that are promised, which a collector is to take like any others while
//! it has the time for them. Then less time than its fleet needs: a half, a fifth, and all of it again.
//!
//! Time on a processor is what runs out first on a small box, and a share of it can be taken from the real collector
//! while nothing else changes: the fleet goes on as before.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dunlin_shared::time::WallMs;
use serde_json::Value;

use super::feed::Heard;
use super::{Alerts, Falls, LIMIT, Part, Proof, ProvePlan, promised};
use crate::fleet::oracle::{Oracle, set_of};
use crate::fleet::verify::Report;
use crate::machine::SmallBuffers;
use crate::quota::Quota;
use crate::table::Table;
use crate::topology::Direct;

const PART: &str = "overload";
/// How many times what it has time for.
const TIMES: [u32; 2] = [2, 5];
/// An acknowledgement comes with every third frame: so many of a node may be under way though nothing waits.
const UNDER_WAY: u64 = 4;

/// What has to be told of it by then: the rule waits for a minute.
const TOLD_AFTER: Duration = Duration::from_secs(90);
const RULE: &str = "collector-overloaded";

/// Runs all of it; what is missed is said in the table.
pub fn overload(plan: ProvePlan, table: &mut Table) -> Result<()> {
    ensure!(plan.nodes > 0, "a fleet has at least one node");
    let _buffers = SmallBuffers::set()?;
    for times in TIMES {
        more_frames(ProvePlan { interval: plan.interval / times, ..plan }, times, table)?;
    }
    less_time(plan, table)
}

/// Every agent ticks so many times as often.
fn more_frames(plan: ProvePlan, times: u32, table: &mut Table) -> Result<()> {
    let network = Direct::new()?;
    let mut proof = Proof::begin(plan, &network)?;
    proof.connect()?;
    let part = proof.spell(&format!("{times} times the frames"), plan.share(20))?;
    let (report, summary, heard, began) = proof.finish()?;
    let alerts = Alerts { heard: &heard, began };
    let whose = format!("{times} times the frames");
    tell(table, &whose, &part, &alerts);
    if plan.is_promised() {
        table.promise(PART, &format!("{whose}: alerts, p99"), alerts.times(&part).1.p99_ms, promised::ALERT_MS, "ms");
        let due = plan.nodes as f64 / plan.interval.as_secs_f64() * promised::SLACK;
        let frames = part.after.grown(&part.before, "dunlin_frames_committed_total");
        let frames = frames / part.before.seconds_to(&part.after);
        table.promise_least(PART, &format!("{whose}: committed"), frames, due, "a second");
    }
    verified(table, &whose, &report, &summary);
    Ok(())
}

fn less_time(plan: ProvePlan, table: &mut Table) -> Result<()> {
    let network = Direct::new()?;
    let mut proof = Proof::begin(plan, &network)?;
    table.note(PART, "nodes, series, a tick each", proof.scale());
    proof.connect()?;
    let steady = proof.spell("steady", plan.share(20))?;
    let cores = steady.after.cpu_since(&steady.before) / steady.before.seconds_to(&steady.after);
    table.note(PART, "what it uses of a core when it may", format!("{cores:.3}"));

    let quota = Quota::of(proof.rig.collector.pid())?;
    let before = Falls::of(&proof.follower.heard());
    let mut parts = Vec::new();
    for times in TIMES {
        quota.allow(Some(cores / f64::from(times)))?;
        let part = proof.spell(&format!("1/{times} of the time"), plan.share(25))?;
        let pending = pending(&proof)?;
        parts.push((times, part, pending));
    }
    quota.allow(None)?;
    let freed = Instant::now();
    let caught_up = proof.catch_up(freed)?;
    let after = proof.spell("again as before", plan.share(10))?;
    let downs = Falls::of(&proof.follower.heard()).since(before);
    drop(quota);

    let rss_peak_mib = proof.watch.rss_peak_mib();
    let (report, summary, heard, began) = proof.finish()?;
    let alerts = Alerts { heard: &heard, began };
    tell(table, "as it is", &steady, &alerts);
    for (times, part, pending) in &parts {
        let whose = format!("1/{times} of the time that it needs");
        tell(table, &whose, part, &alerts);
        let what = format!("{whose}: frames that wait with their agents at the end, with one at most");
        table.note(PART, what, format!("{}, {}", pending.0, pending.1));
    }
    table.note(PART, "all of it again: nothing waits any more after", format!("{caught_up:.1} s"));
    tell(table, "then", &after, &alerts);
    table.promise(PART, "nodes told as down or stopped in all of this", downs, 0.0, "");
    table.promise(PART, "RSS at its highest", rss_peak_mib, promised::RSS_PEAK_MIB, "MiB");
    table.note(PART, "alerts by rule", rules(&heard));
    if plan.share(25) >= TOLD_AFTER {
        let told = heard.rules.get(RULE).copied().unwrap_or(0);
        table.promise_least(PART, &format!("{RULE} fired"), told as f64, 1.0, "");
    }
    verified(table, "in all of this", &report, &summary);
    Ok(())
}

fn verified(table: &mut Table, whose: &str, report: &Report, summary: &Value) {
    let frames = format!("{} stored, {} acknowledged", report.frames + report.inventories, report.acknowledged);
    table.note(PART, format!("{whose}: verified, every acknowledged frame exactly once"), frames);
    let left = format!("{}, {}", summary["pending"], summary["gaps"]);
    table.note(PART, format!("{whose}: never acknowledged, given up by an agent"), left);
}

impl Proof<'_> {
    /// Ends it, and compares what was stored; with it what was heard, and when the fleet's clock read 0.
    fn finish(self) -> Result<(Report, Value, Heard, WallMs)> {
        let Self { rig, follower, watch, .. } = self;
        watch.say("what was stored is compared with what was acknowledged");
        let began = Oracle::read(&rig.oracle_file())?.run.began;
        let (report, summary) = rig.finish()?;
        Ok((report, summary, follower.finish()?, WallMs(began)))
    }

    /// Until agents hold no more than what is under way.
    fn catch_up(&mut self, since: Instant) -> Result<f64> {
        loop {
            let (all, most) = pending(self)?;
            if most <= UNDER_WAY {
                return Ok(since.elapsed().as_secs_f64());
            }
            ensure!(since.elapsed() < LIMIT, "agents still hold {all} frames after {LIMIT:?}, one of them {most}");
            self.spell(&format!("{all} wait"), Duration::from_secs(1))?;
        }
    }
}

/// What agents have sampled and is neither acknowledged nor given up: of all, and of the one with the most.
fn pending(proof: &Proof<'_>) -> Result<(u64, u64)> {
    let oracle = Oracle::read(&proof.rig.oracle_file())?;
    let counts = oracle.nodes.iter().map(|node| set_of(&node.pending).count());
    Ok(counts.fold((0, 0), |(sum, most), count| (sum + count, most.max(count))))
}

fn tell(table: &mut Table, whose: &str, part: &Part, alerts: &Alerts<'_>) {
    let seconds = part.before.seconds_to(&part.after);
    let frames = part.after.grown(&part.before, "dunlin_frames_committed_total") / seconds;
    let cpu = part.after.cpu_since(&part.before) / seconds;
    table.note(PART, format!("{whose}: frames committed, of a core"), format!("{frames:.0} a second, {cpu:.3}"));
    let quantile =
        part.after.scrape.quantile_since(&part.before.scrape, "dunlin_received_to_committed_seconds", &[], 0.99);
    table.note(
        PART,
        format!("{whose}: received to committed, p99"),
        format!("{:.0} ms", quantile.unwrap_or(0.0) * 1e3),
    );
    let (count, times) = alerts.times(part);
    let shown = format!("{count}: {:.0}, {:.0}, {:.0} ms", times.median_ms, times.p99_ms, times.longest_ms);
    table.note(PART, format!("{whose}: alerts, from sample to feed: median, p99, longest"), shown);
    let connected = part.after.scrape.sum("dunlin_connections", &[]);
    let accepted = part.after.grown(&part.before, "dunlin_connections_accepted_total");
    table.note(PART, format!("{whose}: connected at the end, connections made"), format!("{connected}, {accepted}"));
}

fn rules(heard: &Heard) -> String {
    let rules: Vec<String> = heard.rules.iter().map(|(rule, count)| format!("{rule} {count}")).collect();
    if rules.is_empty() { String::from("none") } else { rules.join(", ") }
}
