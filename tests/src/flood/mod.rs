//! What bad input does to a collector and to those who are connected to it: nothing. Floods of every kind against a real
//! collector with a real fleet beside, one after the other, each in a module of its own.
//!
//! Fleet and floods have a network each. No figure counts before the collector's disk was compared with what it
//! acknowledged.

mod ground;
mod half_open;
mod initial;
mod initials;
mod names;
mod overrate;
mod rogue;
mod scene;
mod trickle;
mod witness;
mod worker;

use std::time::Duration;

use anyhow::{Result, ensure};
use dunlin_collector::shape::Event;

use self::ground::{Ground, Wires};
use self::scene::{Scene, Spell};
use self::witness::Seen;
use self::worker::Worker;
use crate::machine::SmallBuffers;
use crate::table::Table;

const PART: &str = "flood";

/// What is promised while others flood, in the units of the table.
mod promised {
    pub(super) const GROWTH_MIB: f64 = 64.0;
    pub(super) const COMMITTED_MS: f64 = 200.0;
    pub(super) const SAMPLE_TO_LOG_MS: f64 = 1_000.0;
    /// However many flood, the feed has so many lines of it: 50 of a kind at once, and 10 a minute after that.
    pub(super) const EVENTS: f64 = 70.0;
    /// What the ends of a measurement may cut off.
    pub(super) const SLACK: f64 = 0.98;
}

#[derive(Clone, Copy, Debug)]
pub struct FloodPlan {
    pub nodes: usize,
    pub interval: Duration,
    pub series: usize,
    /// How long each flood goes on.
    pub takes: Duration,
    pub initials_per_second: u64,
    pub half_open: u64,
    pub trickles: usize,
    /// On any build: what is told and what is kept counts, and no time.
    pub is_short: bool,
}

/// As promised.
pub const FULL: FloodPlan = FloodPlan {
    nodes: 2_000,
    interval: Duration::from_secs(10),
    series: 150,
    takes: Duration::from_secs(90),
    initials_per_second: 50_000,
    half_open: 20_000,
    trickles: 192,
    is_short: false,
};

/// That all of it runs and is told, on any build.
pub const SHORT: FloodPlan = FloodPlan {
    nodes: 50,
    interval: Duration::from_secs(1),
    series: 100,
    takes: Duration::from_secs(5),
    initials_per_second: 20_000,
    half_open: 1_000,
    trickles: 6,
    is_short: true,
};

struct Flood {
    name: &'static str,
    what: &'static str,
    start: fn(&Ground<'_>) -> Result<Worker>,
    /// Whether the event says who does it.
    names: fn(&Event, &Ground<'_>) -> bool,
}

const FLOODS: [Flood; 5] = [
    Flood {
        name: "initials",
        what: "forged Initials from spoofed addresses",
        start: initials::start,
        names: initials::names,
    },
    Flood {
        name: "half-open",
        what: "half-open connections from one address",
        start: half_open::start,
        names: half_open::names,
    },
    Flood { name: "trickle", what: "streams of a byte a minute", start: trickle::start, names: trickle::names },
    Flood {
        name: "overrate",
        what: "frames at 100 times the agreed rate from one node",
        start: overrate::start,
        names: overrate::names,
    },
    Flood {
        name: "names",
        what: "2,000 series with random names a tick from one node",
        start: names::start,
        names: names::names,
    },
];

/// What a command line may name.
pub const NAMES: [&str; FLOODS.len()] =
    [FLOODS[0].name, FLOODS[1].name, FLOODS[2].name, FLOODS[3].name, FLOODS[4].name];

/// Plays those that are named, all where none is; what is missed is said in the table.
pub fn flood(plan: FloodPlan, named: &[String], table: &mut Table) -> Result<()> {
    ensure!(plan.nodes > 0, "a fleet has at least one node");
    let _buffers = SmallBuffers::set()?;
    let wires = Wires::new()?;
    let mut scene = Scene::start(plan, &wires)?;
    table.note(PART, "nodes, series, a tick each", format!("{}, {}, {:?}", plan.nodes, plan.series, plan.interval));
    let quiet = scene.quiet()?;
    let chosen = |flood: &&Flood| named.is_empty() || named.iter().any(|name| name == flood.name);
    let mut played = Vec::new();
    for flood in FLOODS.iter().filter(chosen) {
        played.push((flood, scene.play(flood)?));
    }
    let mut spells = vec![quiet.times];
    spells.extend(played.iter().map(|(_, spell)| spell.times));
    let finished = scene.finish(&spells);
    // What the collector itself said is worth something also where the rest cannot be known.
    let seen = finished.as_ref().map_or_else(|_| vec![Seen::default(); spells.len()], |(seen, _)| seen.clone());
    tell_quiet(table, &quiet, &seen[0]);
    for ((flood, spell), seen) in played.iter().zip(&seen[1..]) {
        tell(table, plan, (flood, spell), seen);
    }
    let (_, summary) = finished?;
    let reconnects = summary["reconnects"].as_f64().unwrap_or(f64::INFINITY);
    table.promise(PART, "in all of it: reconnects of well-behaved agents", reconnects, 0.0, "");
    table.note(PART, "the same: frames acknowledged, pending, given up", {
        format!("{}, {}, {}", summary["acknowledged"], summary["pending"], summary["gaps"])
    });
    Ok(())
}

fn tell_quiet(table: &mut Table, spell: &Spell, seen: &Seen) {
    table.note(PART, "quiet: RSS, of a core", format!("{:.1} MiB, {:.3}", spell.rss_before_mib, spell.cores));
    table.note(PART, "quiet: received to committed, p99", format!("{:.0} ms", spell.committed_ms));
    let late = format!("{:.0} ms, {:.0} ms", seen.quantile(990), seen.quantile(1_000));
    table.note(PART, "quiet: from sample to log, p99, longest", late);
}

fn tell(table: &mut Table, plan: FloodPlan, (flood, spell): (&Flood, &Spell), seen: &Seen) {
    let whose = |what: &str| format!("{}: {what}", flood.name);
    table.note(PART, whose(flood.what), spell.did.clone());
    table.promise(PART, &whose("the collector's memory grew by"), spell.growth_mib, promised::GROWTH_MIB, "MiB");
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let count = |count: u64| count as f64;
    table.promise(PART, &whose("connected agents that came anew"), count(seen.hellos), 0.0, "");
    table.promise(PART, &whose("connections of theirs that were lost"), count(seen.losses), 0.0, "");
    table.promise(PART, &whose("frames of theirs that were lost"), count(seen.gaps), 0.0, "");
    table.promise(PART, &whose("nodes told as down that were not"), count(spell.downs), 0.0, "");
    tell_times(table, plan, (flood, spell), seen);
    table.note(PART, whose("the collector's share of a core"), format!("{:.3}", spell.cores));
    table.note(PART, whose("datagrams that the kernel had no room for"), spell.kernel_drops.to_string());
    let unnamed = if spell.named.is_some() { 0.0 } else { 1.0 };
    table.promise(PART, &whose("told without naming who does it"), unnamed, 0.0, "");
    table.promise(PART, &whose("events told of it"), count(spell.told), promised::EVENTS, "");
    if let Some(named) = &spell.named {
        table.note(PART, whose("the event"), named.clone());
    }
}

fn tell_times(table: &mut Table, plan: FloodPlan, (flood, spell): (&Flood, &Spell), seen: &Seen) {
    let whose = |what: &str| format!("{}: {what}", flood.name);
    let (p99, longest) = (seen.quantile(990), seen.quantile(1_000));
    if plan.is_short {
        let times = format!("{:.0} ms, {p99:.0} ms, {longest:.0} ms", spell.committed_ms);
        return table.note(PART, whose("p99 of commits; p99 and longest from sample to log"), times);
    }
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let (due, frames) =
        (plan.nodes as f64 * spell.seconds / plan.interval.as_secs_f64() * promised::SLACK, seen.frames as f64);
    table.promise_least(PART, &whose("frames of theirs that were stored"), frames, due.floor(), "");
    table.promise(PART, &whose("received to committed, p99"), spell.committed_ms, promised::COMMITTED_MS, "ms");
    table.promise(PART, &whose("from sample to log, p99"), p99, promised::SAMPLE_TO_LOG_MS, "ms");
    let tick_ms = plan.interval.as_secs_f64() * 1e3;
    table.promise(PART, &whose("from sample to log, longest"), longest, tick_ms, "ms");
}
