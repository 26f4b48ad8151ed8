//! The line under load: from a frame's arrival to its commit, and what a connection and a frame cost.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use dunlin_tests::machine::SmallBuffers;
use dunlin_tests::rig::{Look, Place, Rig};
use dunlin_tests::table::Table;

const PART: &str = "line";
const COMMIT_P99_MS: f64 = 200.0;
const CONNECTION_KIB: f64 = 36.0;
/// 1,000 are asked for. A twentieth less is what the ends of the steady minute may cut off.
const FRAMES_A_SECOND: f64 = 950.0;

struct Scale {
    agents: usize,
    interval: &'static str,
    /// Until the ramp's burst is over.
    calm: Duration,
    steady: Duration,
}

const FULL: Scale =
    Scale { agents: 2_000, interval: "2s", calm: Duration::from_secs(20), steady: Duration::from_secs(60) };
const SHORT: Scale =
    Scale { agents: 200, interval: "1s", calm: Duration::from_secs(4), steady: Duration::from_secs(8) };

pub(crate) fn measure(table: &mut Table, short: bool) -> Result<()> {
    let scale = if short { SHORT } else { FULL };
    let _buffers = SmallBuffers::set()?;
    let mut rig = Rig::start(scale.agents, Place::loopback()?)?;
    let alone = rig.look()?;
    let began = Instant::now();
    rig.play(scale.agents, scale.interval, &["--ramp", "1s"])?;
    #[expect(clippy::cast_precision_loss, reason = "thousands of agents")]
    let agents = scale.agents as f64;
    rig.wait_metric("dunlin_connections_accepted_total", agents, Duration::from_secs(60))?;
    let ramp = began.elapsed().as_secs_f64();
    // Not a wait for a state: these are the lengths of what is measured.
    std::thread::sleep(scale.calm);
    let first = rig.look()?;
    let began = Instant::now();
    std::thread::sleep(scale.steady);
    let last = rig.look()?;
    let seconds = began.elapsed().as_secs_f64();
    let connected = last.scrape.sum("dunlin_connections", &[]);
    ensure!(connected >= agents, "{connected} of {agents} agents are connected in the end");
    let (report, summary) = rig.finish()?;

    let load = format!("{agents} agents, a tick each {}, 150 series, {seconds:.0} s steady", scale.interval);
    let rate = grown(&first, &last, "frames_committed") / seconds;
    // The short form has not so many agents.
    if short {
        table.note(PART, load, format!("{rate:.0} frames/s"));
    } else {
        table.promise_least(PART, &load, rate, FRAMES_A_SECOND, "frames/s");
    }
    table.note(PART, "handshakes with client certificates, asked for within 1 s", format!("{:.0}/s", agents / ramp));
    latency(table, &first, &last);
    cost(table, &first, &last, seconds);
    memory(table, &alone, &last, agents);
    let frames = format!("{} stored, {} acknowledged", report.frames + report.inventories, report.acknowledged);
    table.note(PART, "verified: every acknowledged frame exactly once", frames);
    table.note(
        PART,
        "reconnects, duplicates",
        format!("{}, {}", summary["reconnects"], grown(&alone, &last, "frames_duplicate")),
    );
    Ok(())
}

fn latency(table: &mut Table, first: &Look, last: &Look) {
    let histogram = "dunlin_received_to_committed_seconds";
    let quantile = |q| last.scrape.quantile_since(&first.scrape, histogram, &[], q).map(|seconds| seconds * 1e3);
    if let Some(median) = quantile(0.5) {
        table.note(PART, "received to committed, median", format!("{median:.0} ms"));
    }
    // Without an observation there is no frame, which is an error elsewhere.
    table.promise(PART, "received to committed, p99", quantile(0.99).unwrap_or(f64::INFINITY), COMMIT_P99_MS, "ms");
    if let Some(commit) = last.scrape.quantile_since(&first.scrape, "dunlin_commit_seconds", &[], 0.99) {
        table.note(PART, "commit, p99", format!("{:.1} ms", commit * 1e3));
    }
}

fn cost(table: &mut Table, first: &Look, last: &Look, seconds: f64) {
    let frames = grown(first, last, "frames_committed").max(1.0);
    let cpu = (last.usage.cpu - first.usage.cpu).as_secs_f64();
    table.note(PART, "collector's CPU, user and system", format!("{:.3} cores", cpu / seconds));
    table.note(PART, "collector's CPU a frame", format!("{:.0} us", cpu * 1e6 / frames));
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53 bytes")]
    let written = (last.written_bytes - first.written_bytes) as f64;
    table.note(PART, "written a frame, journal and control.db", format!("{:.0} bytes", written / frames));
    let received = grown(first, last, "received_bytes");
    table.note(PART, "received a frame, without QUIC", format!("{:.0} bytes", received / frames));
    let commits = grown(first, last, "commits").max(1.0);
    table.note(PART, "frames a commit", format!("{:.0}", frames / commits));
}

/// All that the collector has more than before any agent came, divided by the agents: connection,
/// session, engine, last readings, buffers.
fn memory(table: &mut Table, alone: &Look, last: &Look, agents: f64) {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53 KiB")]
    let kib = |kib: u64| kib as f64;
    let before = kib(alone.usage.rss_kib);
    table.note(PART, "collector's RSS before any agent", format!("{:.1} MiB", before / 1_024.0));
    table.note(PART, "collector's RSS with all connected", format!("{:.1} MiB", kib(last.usage.rss_kib) / 1_024.0));
    table.note(PART, "collector's RSS at its highest", format!("{:.1} MiB", kib(last.usage.rss_peak_kib) / 1_024.0));
    let each = (kib(last.usage.rss_kib) - before) / agents;
    table.promise(PART, "RSS a connection, everything of a node included", each, CONNECTION_KIB, "KiB");
}

fn grown(first: &Look, last: &Look, counter: &str) -> f64 {
    let name = format!("dunlin_{counter}_total");
    last.scrape.sum(&name, &[]) - first.scrape.sum(&name, &[])
}
