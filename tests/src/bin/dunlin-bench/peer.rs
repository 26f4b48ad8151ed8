//! The programs that are measured beside each other: how each is started, asked for its page, and read of its cost.
//!
//! The agent is the static one of `make agent`; the peers are Debian's. None of them ever sends anything off this host.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunlin_tests::deadline::until;
use dunlin_tests::netns::Namespace;
use dunlin_tests::pki::{Authority, node_ids};
use dunlin_tests::process::{Program, Running};
use dunlin_tests::scratch::Scratch;
use dunlin_tests::tool;

use dunlin_tests::table::Table;

pub(crate) const AGENT: &str = "dunlin-agent";
const READY: Duration = Duration::from_secs(60);

/// Where the programs run and what they may see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) scratch: &'a Scratch,
    /// From tick to tick.
    pub(crate) tick: Duration,
    /// Processes as well, where a peer leaves them out unless it is told.
    pub(crate) has_processes: bool,
}

/// A program that is measured.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) running: Running,
    binary: PathBuf,
    page: Option<Page>,
    /// Pages that did not come.
    pub(crate) missed: Cell<u32>,
}

/// Where it is asked at each tick, and what stands in the answer.
#[derive(Clone, Copy, Debug)]
struct Page {
    at: SocketAddr,
    holds: &'static str,
}

type Start = fn(Place<'_>) -> Result<Measured>;

/// Those that Debian ships, the one that knows nothing but processes last.
pub(crate) const PEERS: [Start; 3] = [node_exporter, collectd, process_exporter];

/// Starts peers. In the short form one that is not there is left out.
pub(crate) fn start(
    peers: &[Start],
    place: Place<'_>,
    (table, part): (&mut Table, &'static str),
    short: bool,
) -> Result<Vec<Measured>> {
    let mut started = Vec::new();
    for peer in peers {
        match peer(place) {
            Ok(peer) => started.push(peer),
            Err(error) if short => table.note(part, "a peer is left out", format!("{error:#}")),
            Err(error) => return Err(error.context("make bench installs the peers: tests/scripts/prepare DIR peers")),
        }
    }
    Ok(started)
}

/// Not a wait for a state: this is the length of what is measured.
pub(crate) fn play(measured: &[Measured], tick: Duration, ticks: u32) -> Result<()> {
    for _ in 0..ticks {
        std::thread::sleep(tick);
        measured.iter().try_for_each(Measured::tick)?;
    }
    Ok(())
}

impl Measured {
    /// Does what its owner does at each tick. An answer that comes too late is none, and no reason to end an hour's work.
    pub(crate) fn tick(&self) -> Result<()> {
        let Some(page) = self.page else { return Ok(()) };
        let Ok(answer) = self.running.get(page.at, "/metrics") else {
            self.missed.set(self.missed.get() + 1);
            return Ok(());
        };
        ensure!(answer.status == 200 && answer.body.contains(page.holds), "{} answers nonsense", self.name);
        Ok(())
    }

    /// Time on processors, in the kernel included, of every thread that lives, to the nanosecond; or what the kernel
    /// accounts, in ticks of 10 ms, of threads and children that ended as well, where that is more.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let pid = self.running.pid();
        let mut living_ns = 0;
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            living_ns += text.split(' ').next().context("an empty schedstat")?.parse::<u64>()?;
        }
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // Behind the name: fields 14 to 17 of the line are user and system time, and those of its children.
        let (_, rest) = stat.rsplit_once(") ").context("a stat without a name")?;
        let ticks: Vec<u64> = rest.split(' ').skip(11).take(4).map(str::parse).collect::<Result<_, _>>()?;
        let all = ticks.iter().sum::<u64>() * 1_000 / rustix::param::clock_ticks_per_second();
        Ok(Duration::from_nanos(living_ns).max(Duration::from_millis(all)))
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(crate) fn rss_mib(&self) -> Result<f64> {
        Ok(self.running.usage()?.rss_kib as f64 / 1_024.0)
    }

    /// The size of its binary; ours may have so many megabytes.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(crate) fn size(&self, (table, part): (&mut Table, &'static str), most_mb: f64) -> Result<()> {
        let binary_mb = std::fs::metadata(&self.binary)?.len() as f64 / 1e6;
        let what = format!("{}: size of the binary", self.name);
        if self.is_ours() {
            table.promise(part, &what, binary_mb, most_mb, "MB");
        } else {
            table.note(part, what, format!("{binary_mb:.1} MB, libraries apart"));
        }
        Ok(())
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.name == AGENT
    }
}

/// What `make agent` builds, beside the directory of this program's profile. The short form takes any build.
pub(crate) fn agent_binary(short: bool) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(2).context("this program lies in TARGET/PROFILE")?;
    let shipped = target.join(format!("{}-unknown-linux-gnu/agent/dunlin-agent", std::env::consts::ARCH));
    let any = own.with_file_name("dunlin-agent");
    let found = if short && !shipped.is_file() { any } else { shipped };
    ensure!(found.is_file(), "{} is not built; run: make agent", found.display());
    Ok(found)
}

/// An agent with these further flags.
pub(crate) fn agent(
    binary: PathBuf,
    place: Place<'_>,
    authority: &Authority,
    collector: SocketAddr,
    flags: &[String],
) -> Result<Measured> {
    let node = authority.node(node_ids(1, 0)[0])?;
    let state = place.scratch.join("state");
    node.identity().write(&state, authority.ca_der(), "node")?;
    let program = Program::at(&binary).inside(place.namespace).log(place.scratch.join("agent.log")).arg("run");
    let program = program.arg("--state-dir").arg(state).args(["--interval", &format!("{}s", place.tick.as_secs())]);
    let running = program.args(["--collectors", &collector.to_string()]).args(flags).start()?;
    Ok(Measured { name: AGENT, running, binary, page: None, missed: Cell::new(0) })
}

fn node_exporter(place: Place<'_>) -> Result<Measured> {
    let page = Page { at: loopback(9_100), holds: "node_load1" };
    let processes: &[&str] = if place.has_processes { &["--collector.processes"] } else { &[] };
    exporter("prometheus-node-exporter", place, page, |program| program.args(processes))
}

/// Each process in a group by its name, as we do, and what it does not do by itself is left at that.
fn process_exporter(place: Place<'_>) -> Result<Measured> {
    let file = place.scratch.join("process-exporter.yml");
    std::fs::write(&file, "process_names:\n  - name: \"{{.ExeBase}}\"\n    cmdline:\n    - '.+'\n")?;
    let page = Page { at: loopback(9_256), holds: "namedprocess_namegroup_num_procs" };
    let flags = ["--threads=false", "--gather-smaps=false"];
    exporter("prometheus-process-exporter", place, page, |program| program.arg("--config.path").arg(file).args(flags))
}

fn exporter(
    name: &'static str,
    place: Place<'_>,
    page: Page,
    with: impl FnOnce(Program) -> Program,
) -> Result<Measured> {
    let binary = tool::find(name)?;
    let program = Program::at(&binary).inside(place.namespace).log(place.scratch.join(name));
    let running = with(program.arg(format!("--web.listen-address={}", page.at))).start()?;
    let is_up = || running.get(page.at, "/metrics").ok();
    until("its first page", READY, is_up).with_context(|| format!("{name}: {}", running.log_text()))?;
    Ok(Measured { name, running, binary, page: Some(page), missed: Cell::new(0) })
}

/// The same parts of a host as the agent's. It reads, and writes nowhere.
fn collectd(place: Place<'_>) -> Result<Measured> {
    let binary = tool::find("collectd")?;
    let mut plugins = vec!["cpu", "memory", "load", "df", "disk", "interface", "swap"];
    let mut matches = "";
    if place.has_processes {
        plugins.push("processes");
        matches = "<Plugin processes>\n  ProcessMatch \"all\" \".*\"\n</Plugin>\n";
    }
    let load: String = plugins.iter().map(|plugin| format!("LoadPlugin {plugin}\n")).collect();
    let file = place.scratch.join("collectd.conf");
    let (base, seconds) = (place.scratch.path().display(), place.tick.as_secs());
    let types = "TypesDB \"/usr/share/collectd/types.db\"";
    std::fs::write(
        &file,
        format!("BaseDir \"{base}\"\nInterval {seconds}\nFQDNLookup false\n{types}\n{load}{matches}"),
    )?;
    let program = Program::at(&binary).inside(place.namespace).log(place.scratch.join("collectd.log"));
    let running = program.arg("-f").arg("-C").arg(file).arg("-P").arg(place.scratch.join("collectd.pid")).start()?;
    Ok(Measured { name: "collectd", running, binary, page: None, missed: Cell::new(0) })
}

/// Each run has a network of its own, so that the usual ports are free.
const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}
