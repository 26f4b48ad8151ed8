//! What an agent costs its host with nothing on but the host's own numbers: memory, processor time and size, beside two
//! that Debian ships, over the same minutes. `inventory.rs` has the same with everything on.
//!
//! The agent does all its work: it samples, encodes, encrypts and sends to a collector, which runs beside it.
//! node_exporter is asked for its page at each tick; collectd reads and writes nowhere.
//! The ticks are real, of 10 s. The short form ticks each second, for seconds, and takes a peer only if it is there.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use dunlin_agent::clock::{Clock, process_cpu};
use dunlin_agent::config::Collect;
use dunlin_agent::sample::Sampler;
use dunlin_agent::stats::Stats;
use dunlin_tests::netns::Namespace;
use dunlin_tests::pki::Authority;
use dunlin_tests::scratch::Scratch;
use dunlin_tests::site::{Collector, QUIC_PORT};

use crate::peer::{self, Measured, PEERS, Place, play};
use dunlin_tests::table::Table;

const PART: &str = "agent";
const RSS_MIB: f64 = 5.0;
const CPU_MS: f64 = 40.0;
/// An agent that saw the host alone had 3.6; with engines, bus and ports in it, 4.5 is what is aimed at.
const BINARY_MB: f64 = 4.5;
const READY: Duration = Duration::from_secs(60);
/// Everything but the host's own numbers.
const OFF: [&str; 4] = ["containers", "processes", "ports", "units"];

/// Enough for a mean that does not move.
const TICKS: u32 = 200;

struct Scale {
    tick: Duration,
    /// Ticks before the first reading of processor time: handshake and first keyframe are past.
    before: u32,
    ticks: u32,
}

const FULL: Scale = Scale { tick: Duration::from_secs(10), before: 2, ticks: 18 };
const SHORT: Scale = Scale { tick: Duration::from_secs(1), before: 2, ticks: 3 };

pub(crate) fn measure(table: &mut Table, short: bool) -> Result<()> {
    let scale = if short { SHORT } else { FULL };
    let scratch = Scratch::new("cost")?;
    let namespace = Namespace::new("cost")?;
    let authority = Authority::new()?;
    let collector = Collector::start(&namespace, &authority)?;
    let place = Place { namespace: &namespace, scratch: &scratch, tick: scale.tick, has_processes: false };
    let off: Vec<String> = OFF.iter().flat_map(|part| [format!("--collect-{part}"), "false".to_owned()]).collect();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, QUIC_PORT));
    let agent = peer::agent(peer::agent_binary(short)?, place, &authority, to, &off)?;
    collector.wait_committed(2, READY)?;
    let mut measured = vec![agent];
    // Who knows processes alone has nothing to say of a host.
    measured.extend(peer::start(&PEERS[..2], place, (table, PART), short)?);
    play(&measured, scale.tick, scale.before)?;
    let before: Vec<Duration> = measured.iter().map(Measured::cpu).collect::<Result<_>>()?;
    let began = Instant::now();
    play(&measured, scale.tick, scale.ticks)?;
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    let what = format!("host stats alone, a tick each {:?}, for", scale.tick);
    table.note(PART, what, format!("{:.0} s, all at once", minutes * 60.0));
    tick_cost(table)?;
    for (one, before) in measured.iter().zip(before) {
        let cpu_ms = (one.cpu()? - before).as_secs_f64() * 1e3 / minutes;
        report(table, one, cpu_ms, short)?;
    }
    measured.iter().try_for_each(|one| one.size((table, PART), BINARY_MB))
}

fn report(table: &mut Table, one: &Measured, cpu_ms: f64, short: bool) -> Result<()> {
    let (rss, cpu) = (format!("{}: RSS", one.name), format!("{}: CPU", one.name));
    if one.is_ours() {
        table.promise(PART, &rss, one.rss_mib()?, RSS_MIB, "MiB");
    } else {
        table.note(PART, rss, format!("{:.1} MiB", one.rss_mib()?));
    }
    // The promise is for a tick of 10 s.
    if one.is_ours() && !short {
        table.promise(PART, &cpu, cpu_ms, CPU_MS, "CPU-ms a minute");
    } else {
        table.note(PART, cpu, format!("{cpu_ms:.1} CPU-ms a minute"));
    }
    Ok(())
}

/// The sampler alone, in this program: what a tick of this host costs without encoding and sending.
fn tick_cost(table: &mut Table) -> Result<()> {
    let clock = Clock::start();
    let collect = Collect { containers: false, processes: false, ports: false, units: false, ..Collect::default() };
    let mut sampler = Sampler::new(Path::new("/"), clock, Arc::new(Stats::default())).collecting(collect);
    let series = sampler.sample(clock.mono(), clock.wall()).sample.rows().len();
    let before = process_cpu();
    for _ in 0..TICKS {
        sampler.sample(clock.mono(), clock.wall());
    }
    let each = (process_cpu() - before) / TICKS;
    let what = format!("one tick of the sampler alone, {series} series");
    table.note(PART, what, format!("{} CPU-us, this build", each.as_micros()));
    Ok(())
}
