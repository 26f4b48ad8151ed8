//! What an agent costs its host: memory, processor time and size, beside two that Debian ships, over the same minutes.
//!
//! The agent is the static one of `make agent`, and does all its work: it samples, encodes, encrypts and sends to a
//! collector, which runs beside it. node_exporter is asked for its page at each tick; collectd reads and writes nowhere.
//! The ticks are real, of 10 s. The short form ticks each second, for seconds, and takes a peer only if it is there.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dunlin_agent::clock::Clock;
use dunlin_agent::sample::Sampler;
use dunlin_agent::stats::Stats;
use dunlin_tests::deadline::until;
use dunlin_tests::netns::Namespace;
use dunlin_tests::pki::{Authority, node_ids};
use dunlin_tests::process::{Program, Running};
use dunlin_tests::scratch::Scratch;
use dunlin_tests::site::{Collector, QUIC_PORT};
use dunlin_tests::tool;

use crate::table::Table;

const PART: &str = "agent";
const RSS_MIB: f64 = 5.0;
const CPU_MS: f64 = 40.0;
const BINARY_MB: f64 = 4.5;
const READY: Duration = Duration::from_secs(60);

/// Enough for a mean that does not move.
const TICKS: u32 = 200;

struct Scale {
    interval: &'static str,
    tick: Duration,
    /// Ticks before the first reading of processor time: handshake and first keyframe are past.
    before: u32,
    ticks: u32,
}

const FULL: Scale = Scale { interval: "10s", tick: Duration::from_secs(10), before: 2, ticks: 18 };
const SHORT: Scale = Scale { interval: "1s", tick: Duration::from_secs(1), before: 2, ticks: 3 };

/// A program that is measured, and what has to be done at each of its ticks.
struct Measured {
    name: &'static str,
    running: Running,
    binary: PathBuf,
    /// Where it is asked for its page.
    page: Option<SocketAddr>,
    cpu_ns: u64,
}

pub(crate) fn measure(table: &mut Table, short: bool) -> Result<()> {
    let scale = if short { SHORT } else { FULL };
    let scratch = Scratch::new("cost")?;
    let namespace = Namespace::new("cost")?;
    let authority = Authority::new()?;
    let collector = Collector::start(&namespace, &authority)?;
    let binary = agent_binary(short)?;
    let agent = start_agent(&binary, &namespace, &authority, &scratch, &scale)?;
    collector.wait_committed(2, READY)?;
    let mut measured = vec![Measured { name: "dunlin-agent", running: agent, binary, page: None, cpu_ns: 0 }];
    for start in [node_exporter, collectd] {
        match start(&scratch, &scale) {
            Ok(peer) => measured.push(peer),
            Err(error) if short => table.note(PART, "a peer is left out", format!("{error:#}")),
            Err(error) => return Err(error.context("make bench installs the peers: tests/scripts/prepare DIR peers")),
        }
    }
    play(&measured, scale.tick, scale.before)?;
    for one in &mut measured {
        one.cpu_ns = cpu_ns(one.running.pid())?;
    }
    let began = Instant::now();
    play(&measured, scale.tick, scale.ticks)?;
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    let what = format!("host stats alone, a tick each {}, for", scale.interval);
    table.note(PART, what, format!("{:.0} s, all at once", minutes * 60.0));
    tick_cost(table)?;
    for one in &measured {
        report(table, one, minutes, scale.interval, short)?;
    }
    Ok(())
}

/// Not a wait for a state: this is the length of what is measured.
fn play(measured: &[Measured], tick: Duration, ticks: u32) -> Result<()> {
    for _ in 0..ticks {
        std::thread::sleep(tick);
        for (one, page) in measured.iter().filter_map(|one| Some((one, one.page?))) {
            let answer = one.running.get(page, "/metrics")?;
            ensure!(answer.status == 200 && answer.body.contains("node_load1"), "{} answers nonsense", one.name);
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn report(table: &mut Table, one: &Measured, minutes: f64, interval: &str, short: bool) -> Result<()> {
    let cpu_ms = (cpu_ns(one.running.pid())? - one.cpu_ns) as f64 / 1e6 / minutes;
    let rss_mib = one.running.usage()?.rss_kib as f64 / 1_024.0;
    let binary_mb = std::fs::metadata(&one.binary)?.len() as f64 / 1e6;
    let (rss, cpu) = (format!("{}: RSS", one.name), format!("{}: CPU, a tick each {interval}", one.name));
    let binary = format!("{}: size of the binary", one.name);
    if one.name == "dunlin-agent" {
        table.promise(PART, &rss, rss_mib, RSS_MIB, "MiB");
        // The promise is for a tick of 10 s.
        if short {
            table.note(PART, cpu, format!("{cpu_ms:.1} CPU-ms a minute"));
        } else {
            table.promise(PART, &cpu, cpu_ms, CPU_MS, "CPU-ms a minute");
        }
        table.promise(PART, &binary, binary_mb, BINARY_MB, "MB");
    } else {
        table.note(PART, rss, format!("{rss_mib:.1} MiB"));
        table.note(PART, cpu, format!("{cpu_ms:.1} CPU-ms a minute"));
        table.note(PART, binary, format!("{binary_mb:.1} MB, libraries apart"));
    }
    Ok(())
}

/// The sampler alone, in this program: what a tick of this host costs without encoding and sending.
fn tick_cost(table: &mut Table) -> Result<()> {
    let clock = Clock::start();
    let mut sampler = Sampler::new(Path::new("/"), clock, Arc::new(Stats::default()));
    let series = sampler.sample(clock.mono(), clock.wall()).sample.rows().len();
    let before = cpu_ns(std::process::id().cast_signed())?;
    for _ in 0..TICKS {
        sampler.sample(clock.mono(), clock.wall());
    }
    let each_us = (cpu_ns(std::process::id().cast_signed())? - before) / u64::from(TICKS) / 1_000;
    let what = format!("one tick of the sampler alone, {series} series");
    table.note(PART, what, format!("{each_us} CPU-us, this build"));
    Ok(())
}

/// What `make agent` builds, beside the directory of this program's profile. The short form takes any build.
fn agent_binary(short: bool) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(2).context("this program lies in TARGET/PROFILE")?;
    let shipped = target.join(format!("{}-unknown-linux-gnu/agent/dunlin-agent", std::env::consts::ARCH));
    let any = own.with_file_name("dunlin-agent");
    let found = if short && !shipped.is_file() { any } else { shipped };
    ensure!(found.is_file(), "{} is not built; run: make agent", found.display());
    Ok(found)
}

fn start_agent(
    binary: &Path,
    namespace: &Namespace,
    authority: &Authority,
    scratch: &Scratch,
    scale: &Scale,
) -> Result<Running> {
    let node = authority.node(node_ids(1, 0)[0])?;
    node.identity().write(&scratch.join("state"), authority.ca_der(), "node")?;
    let program = Program::at(binary).inside(namespace).log(scratch.join("agent.log")).arg("run");
    let program = program.arg("--state-dir").arg(scratch.join("state")).args(["--interval", scale.interval]);
    Ok(program.args(["--collectors", &format!("127.0.0.1:{QUIC_PORT}")]).start()?)
}

fn node_exporter(scratch: &Scratch, _: &Scale) -> Result<Measured> {
    let binary = tool::find("prometheus-node-exporter")?;
    let page = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let program = Program::at(&binary).log(scratch.join("node-exporter.log"));
    let running = program.arg(format!("--web.listen-address={page}")).start()?;
    until("its first page", READY, || running.get(page, "/metrics").ok())?;
    Ok(Measured { name: "prometheus-node-exporter", running, binary, page: Some(page), cpu_ns: 0 })
}

/// The same parts of a host as the agent's, and nothing that goes out.
fn collectd(scratch: &Scratch, scale: &Scale) -> Result<Measured> {
    let binary = tool::find("collectd")?;
    let plugins = ["cpu", "memory", "load", "df", "disk", "interface", "swap"];
    let load: String = plugins.iter().map(|plugin| format!("LoadPlugin {plugin}\n")).collect();
    let file = scratch.join("collectd.conf");
    let (base, seconds) = (scratch.path().display(), scale.tick.as_secs());
    let types = "TypesDB \"/usr/share/collectd/types.db\"";
    std::fs::write(&file, format!("BaseDir \"{base}\"\nInterval {seconds}\nFQDNLookup false\n{types}\n{load}"))?;
    let program = Program::at(&binary).log(scratch.join("collectd.log")).arg("-f").arg("-C").arg(file);
    let running = program.arg("-P").arg(scratch.join("collectd.pid")).start()?;
    Ok(Measured { name: "collectd", running, binary, page: None, cpu_ns: 0 })
}

/// Time on a processor of every thread that lives, to the nanosecond: the account in `stat` has ticks of 10 ms.
fn cpu_ns(pid: i32) -> Result<u64> {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        sum += text.split(' ').next().context("an empty schedstat")?.parse::<u64>()?;
    }
    Ok(sum)
}
