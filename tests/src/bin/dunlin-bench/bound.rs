//! What an agent costs where there is far more than it tells: 70,000 bound sockets, and 5,000 containers.
//!
//! The agent ticks each second in a network of its own, and the highest memory of its life is read, beside what its first
//! look and its ticks took, and whether they came in time; then `once` does the same as a program that ends. The containers
//! are those of an engine that is none, and the control groups of a recorded tree, for real ones would be everybody's.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dunlin_shared::inventory::{Item, Stock};
use dunlin_shared::limits::CONTAINERS_MAX;
use dunlin_tests::deadline::until;
use dunlin_tests::netns::Namespace;
use dunlin_tests::pki::{Authority, node_ids};
use dunlin_tests::process::Program;
use dunlin_tests::scratch::Scratch;
use dunlin_tests::site::{Collector, QUIC_PORT};
use dunlin_tests::tool;
use dunlin_tests::window::History;
use rustix::net::{AddressFamily, SocketType, bind, socket};

use crate::crowd;
use crate::peer::{self, Place};
use dunlin_tests::table::Table;

const PART: &str = "bounds";
/// Nobody promised a figure: the 5 MiB of an agent, and some copies of the largest inventory there may be.
const RSS_MIB: f64 = 16.0;
/// Sockets that one process holds, below what any host lets it.
const HELD: usize = 17_500;
/// Above the collector's, and below those that the kernel draws: they are told at once.
const FIRST_PORT: usize = 10_000;
const CONTAINERS: usize = 5_000;
const MOUNTS: &str = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
/// What is read of a group that is new.
const GROUP: [(&str, &str); 5] = [
    ("cpu.stat", "usage_usec 1000000\nthrottled_usec 0\n"),
    ("memory.current", "4096000\n"),
    ("memory.stat", "anon 1024000\nfile 2048000\ninactive_file 1024000\n"),
    ("memory.max", "max\n"),
    ("pids.current", "3\n"),
];
const READY: Duration = Duration::from_secs(120);
const TICK: Duration = Duration::from_secs(1);
const TICKS: usize = 10;
/// With the first look of all.
const FIRST_TICKS: usize = 5;
/// How much later a tick may be than an interval after the one before, and all of them together: a tick that waits for
/// what it looks at is later by seconds.
const LATE: f64 = 1.5;

/// Processes that hold sockets, and do nothing else.
#[derive(Debug, Default)]
struct Holders(Vec<Child>);

pub(crate) fn measure(table: &mut Table, short: bool) -> Result<()> {
    let binary = peer::agent_binary(short)?;
    let share = if short { 10 } else { 1 };
    {
        let namespace = Namespace::new("bound")?;
        let mut holders = Holders::default();
        for number in 1..=4 {
            namespace.enter(|| holders.hold(Ipv4Addr::new(127, 0, 1, number), HELD / share))??;
        }
        let beside = format!("{} bound UDP sockets", 4 * HELD / share);
        cost(table, &beside, (&binary, &[]), &namespace)?;
        once(table, &beside, Program::at(&binary).inside(&namespace), &[])?;
    }
    {
        let (namespace, scratch) = (Namespace::new("bound")?, Scratch::new("crowd")?);
        let count = CONTAINERS / share;
        let socket = crowd::listen(scratch.join("engine.sock"), count)?;
        let flags = ["--collect-sockets".to_owned(), socket.display().to_string()];
        let beside = format!("an engine of {count} containers");
        let stock = cost(table, &beside, (&binary, &flags), &namespace)?;
        // Whatever else runs on this machine is not of that engine.
        let is_ours =
            |item: &&Item| matches!(**item, Item::Container(ref container) if container.name.starts_with("crowd-"));
        let told = stock.items().filter(is_ours).count();
        let most = usize::try_from(CONTAINERS_MAX)?;
        ensure!(told == count.min(most), "{told} of {count} containers are told");
        table.note(PART, format!("{beside}: told, left out"), format!("{told}, {}", count - told));
    }
    let tree = Scratch::new("bound")?;
    let count = record(&tree, CONTAINERS / share)?;
    let words = ["--root".to_owned(), tree.path().display().to_string()];
    once(table, &format!("{count} recorded containers"), Program::at(&binary), &words)
}

/// A host that has nothing but these containers.
fn record(tree: &Scratch, count: usize) -> Result<usize> {
    fs::create_dir_all(tree.join("proc/1"))?;
    fs::write(tree.join("proc/1/mountinfo"), MOUNTS)?;
    for number in 0..count {
        let group = tree.join(&format!("sys/fs/cgroup/docker/{number:012x}{number:052x}"));
        fs::create_dir_all(&group)?;
        for (file, text) in GROUP {
            fs::write(group.join(file), text)?;
        }
    }
    Ok(count)
}

/// What stands on the host, as the collector heard it.
fn cost(table: &mut Table, beside: &str, (binary, flags): (&Path, &[String]), namespace: &Namespace) -> Result<Stock> {
    let scratch = Scratch::new("bound")?;
    let authority = Authority::new()?;
    let collector = Collector::start(namespace, &authority)?;
    let place = Place { namespace, scratch: &scratch, tick: TICK, has_processes: true };
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, QUIC_PORT));
    let agent = peer::agent(binary.to_owned(), place, &authority, to, flags)?;
    wait_ticks(&collector, FIRST_TICKS)?;
    let (first, began) = (agent.cpu()?, Instant::now());
    let history = wait_ticks(&collector, FIRST_TICKS + TICKS)?;
    let ticks = began.elapsed().div_duration_f64(TICK).max(1.0);
    let each_ms = (agent.cpu()? - first).as_secs_f64() * 1e3 / ticks;
    let usage = agent.running.usage()?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let peak_mib = usage.rss_peak_kib as f64 / 1_024.0;
    table.promise(PART, &format!("{beside}: RSS of the agent at its highest"), peak_mib, RSS_MIB, "MiB");
    in_time(table, beside, &history);
    table.note(PART, format!("{beside}: first five ticks"), format!("{:.0} CPU-ms", first.as_secs_f64() * 1e3));
    table.note(PART, format!("{beside}: a tick"), format!("{each_ms:.1} CPU-ms"));
    Ok(history.stock)
}

/// Waits until so many ticks are on disk. What stands on the host comes in frames that are none.
fn wait_ticks(collector: &Collector<'_>, count: usize) -> Result<History> {
    let mut frames = count;
    loop {
        collector.wait_committed(frames as u64, READY)?;
        let history = collector.window()?.of(node_ids(1, 0)[0])?.clone();
        let ticks = history.frames.iter().filter(|frame| frame.is_reading).count();
        if ticks >= count {
            return Ok(history);
        }
        frames += count - ticks;
    }
}

/// By the times at which they came to the collector.
#[expect(clippy::cast_precision_loss, reason = "some seconds")]
fn in_time(table: &mut Table, beside: &str, history: &History) {
    let came: Vec<_> = history.frames.iter().filter(|frame| frame.is_reading).map(|frame| frame.at).collect();
    let waits: Vec<f64> = came.windows(2).map(|pair| (pair[1].0 - pair[0].0) as f64 / 1e3).collect();
    let (all, longest) = (waits.iter().sum(), waits.iter().copied().fold(0.0, f64::max));
    let intervals = waits.len() as f64 * TICK.as_secs_f64();
    table.promise(PART, &format!("{beside}: {} ticks after the first took", waits.len()), all, LATE * intervals, "s");
    let what = format!("{beside}: from a tick to the next at most");
    table.promise(PART, &what, longest, LATE * TICK.as_secs_f64(), "s");
}

/// Memory is looked at until the end: what it prints is held whole before.
fn once(table: &mut Table, beside: &str, agent: Program, words: &[String]) -> Result<()> {
    let (mut peak_kib, began) = (0, Instant::now());
    let mut running = agent.args(["once", "--json"]).args(words).start()?;
    until("the end of once", READY, || match running.usage() {
        Ok(usage) => {
            peak_kib = peak_kib.max(usage.rss_peak_kib);
            None
        }
        Err(_) => Some(()),
    })?;
    let took = began.elapsed();
    ensure!(running.wait_exit(READY)?.success(), "once failed: {}", running.log_text());
    let said: serde_json::Value = serde_json::from_str(&running.log_text()).context("once --json")?;
    let left_out = |source: &serde_json::Value| source["left_out"].as_u64().filter(|&left_out| left_out > 0);
    let sources = said["sources"].as_array().context("once tells its sources")?;
    let left_out: Vec<String> = sources
        .iter()
        .filter_map(|source| Some(format!("{} {}", left_out(source)?, source["name"].as_str()?)))
        .collect();
    table.note(PART, format!("{beside}: once, RSS at its highest"), format!("{peak_kib} KiB in {took:.1?}"));
    table.note(PART, format!("{beside}: once, left out"), left_out.join(", "));
    Ok(())
}

impl Holders {
    /// What is open when a program starts, and is not closed on it, is the program's as well.
    fn hold(&mut self, from: Ipv4Addr, count: usize) -> Result<()> {
        let bound = |number: usize| -> Result<OwnedFd> {
            let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
            bind(&socket, &SocketAddr::from((from, u16::try_from(FIRST_PORT + number)?)))?;
            Ok(socket)
        };
        let _sockets: Vec<OwnedFd> = (0..count).map(bound).collect::<Result<_>>().context("sockets")?;
        let mut holder = tool::command("sleep")?;
        self.0.push(holder.arg("infinity").stdin(Stdio::null()).stdout(Stdio::null()).spawn()?);
        Ok(())
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        for holder in &mut self.0 {
            if let Err(error) = holder.kill().and_then(|()| holder.wait()) {
                tracing::warn!(%error, "a process that holds sockets stays behind");
            }
        }
    }
}
