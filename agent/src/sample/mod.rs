//! What the agent reads of its host. Each part returns what it got and what failed, side by side.
//!
//! The root of the file systems is given, so that recorded trees can be read like the real one. `/proc` is read directly
//! and not through sysinfo, which knows neither pressure, sockets, mounts by device nor the state of a link: with
//! 10 containers, 200 processes and 60 ports a tick takes 9 ms of a processor at 10 s, most of it the kernel's, and some
//! 12 us more a process; of 5 MiB in memory 4 are the program itself (`make bench` prints it for its host).
//! Invariant: nothing here waits longer than `fs::TICK_MS` for anything that the host may never answer.

pub mod bus;
pub mod cgroup;
pub mod container;
mod cpu;
mod disk;
pub mod facts;
mod failure;
mod fs;
mod lane;
mod load;
mod memory;
mod meter;
pub mod mount;
pub(crate) mod name;
mod net;
mod own;
pub mod port;
mod pressure;
pub mod process;
mod rising;
mod sensor;
pub mod socket;
pub mod source;
mod speed;
mod stocktaker;
#[cfg(test)]
mod tests;
mod time;
#[cfg(test)]
mod tree;
mod unit;
pub mod user;

use std::path::Path;
use std::sync::Arc;

use dunlin_shared::inventory::{Happening, Item, Stock, What};
use dunlin_shared::limits::STOCK_BYTES_MAX;
use dunlin_shared::metric::{CATALOGUE, Metric};
use dunlin_shared::sample::{Sample, Subject};
use dunlin_shared::time::{MonoMs, WallMs};

use self::cpu::Cpu;
use self::disk::Disks;
pub use self::failure::{Failure, Failures, SampleError};
use self::fs::FileSystems;
pub use self::fs::{Ask, Space};
use self::net::Nets;
use self::sensor::Sensors;
use self::source::Source;
use self::stocktaker::{Found, StockTaker};
use crate::chain::chain;
use crate::clock::Clock;
use crate::config::Collect;
use crate::sight::{Kind, Seeing, State};
use crate::stats::Stats;

/// Samples one host, tick by tick. It keeps what differences and held values need, and nothing else.
#[derive(Debug)]
pub struct Sampler {
    source: Source,
    stats: Arc<Stats>,
    cpu: Cpu,
    disks: Disks,
    nets: Nets,
    taker: StockTaker,
    /// What happened while it was too early to tell.
    held: Vec<Happening>,
    stock_bytes_max: usize,
    /// As they stood at the tick before.
    oom_kills: Option<u64>,
    file_systems: FileSystems,
    sensors: Sensors,
    clock: Clock,
    failures_total: u64,
}

/// One tick.
#[derive(Debug)]
pub struct Taken {
    pub sample: Sample,
    /// What stands on the host.
    pub stock: Stock,
    /// What was seen to happen to containers since the tick before.
    pub happened: Vec<Happening>,
    /// Of a stay that began just now: the stock is not all that is known in a moment, and not to be told.
    pub is_early: bool,
    pub failures: Vec<Failure>,
}

/// The parts of a tick that are the host's own numbers, by the names that failures use.
const HOST_PARTS: [&str; 11] =
    ["cpu", "memory", "load", "pressure", "file systems", "disks", "interfaces", "sockets", "time", "sensors", "agent"];

impl Sampler {
    #[must_use]
    pub fn new(root: &Path, clock: Clock, stats: Arc<Stats>) -> Self {
        Self::with_ask(root, clock, stats, fs::ask_of(root))
    }

    /// With other things to tell than the default.
    #[must_use]
    pub fn collecting(self, collect: Collect) -> Self {
        let taker = StockTaker::new(&self.source.path(""), self.clock, collect);
        Self { taker, ..self }
    }

    /// With no more of what stands than so many bytes.
    #[must_use]
    pub fn within(self, stock_bytes_max: usize) -> Self {
        Self { stock_bytes_max, ..self }
    }

    /// Stays: what can be followed is followed between ticks, by tasks of the runtime that ticks are taken in.
    #[must_use]
    pub fn following(mut self) -> Self {
        self.taker.follow();
        self
    }

    /// With another way to ask a file system for its space than the kernel's.
    #[must_use]
    pub fn with_ask(root: &Path, clock: Clock, stats: Arc<Stats>, ask: Ask) -> Self {
        Self {
            source: Source::new(root),
            stats,
            cpu: Cpu::default(),
            disks: Disks::default(),
            nets: Nets::new(root, clock),
            taker: StockTaker::new(root, clock, Collect::default()),
            clock,
            held: Vec::new(),
            stock_bytes_max: STOCK_BYTES_MAX,
            oom_kills: None,
            file_systems: FileSystems::new(clock, ask),
            sensors: Sensors::new(root, clock),
            failures_total: 0,
        }
    }

    /// Questions that may hang are asked first, so that their answers arrive while the rest is read.
    pub fn sample(&mut self, now: MonoMs, wall: WallMs) -> Taken {
        let mut sample = Sample::new(now, wall);
        let (mut stock, mut happened) = (Stock::within(self.stock_bytes_max), Vec::new());
        let mut failures = Failures::default();
        let source = &mut self.source;
        failures.part("file systems");
        self.file_systems.ask(source, &mut failures);
        failures.part("sensors");
        self.sensors.ask();
        failures.part("cpu");
        self.cpu.sample(source, &mut sample, &mut failures);
        failures.part("memory");
        let oom_kills = memory::sample(source, &mut sample, &mut failures);
        happened.extend(killed(self.oom_kills, oom_kills, wall));
        self.oom_kills = oom_kills.or(self.oom_kills);
        failures.part("load");
        load::sample(source, &mut sample, &mut failures);
        failures.part("pressure");
        pressure::sample(source, &mut sample, &mut failures);
        failures.part("sockets");
        socket::sample(source, &mut sample, &mut failures);
        let mut found = Found { stock: &mut stock, happened: &mut happened, failures: &mut failures };
        let is_early = self.taker.take(source, &mut sample, &mut found);
        self.held.append(&mut happened);
        if !is_early {
            happened.append(&mut self.held);
        }
        failures.part("time");
        time::sample(source, wall, &mut sample, &mut failures);
        failures.part("sensors");
        self.sensors.collect(&mut sample, &mut failures);
        failures.part("disks");
        self.disks.sample(source, &mut sample, &mut failures);
        failures.part("interfaces");
        self.nets.sample(source, now, &mut sample, &mut failures);
        failures.part("file systems");
        self.file_systems.collect(&mut sample, &mut failures);
        failures.part("agent");
        self.failures_total += failures.count();
        own::sample(source, &self.stats, self.failures_total, left_out(&stock), &mut sample, &mut failures);
        Taken { sample, stock, happened, is_early, failures: failures.into_list() }
    }

    /// How well each source was seen in the tick that had these failures.
    #[must_use]
    pub fn seeing(&self, failures: &[Failure]) -> Vec<Seeing> {
        let mut all: Vec<Seeing> = HOST_PARTS.iter().map(|part| part_seen(part, failures)).collect();
        all.extend(self.file_systems.seeing());
        all.extend(self.taker.seeing());
        for one in &mut all {
            // What failed of these is told where they are told.
            let part = match one.kind {
                Kind::Processes => "processes",
                Kind::Cgroups => "units",
                Kind::Ports => "ports",
                _ => continue,
            };
            let failed = failures.iter().find(|failure| failure.part == part && !failure.error.is_absence());
            if let Some(failure) = failed.filter(|_| matches!(one.state, State::Works | State::Partly)) {
                (one.state, one.says) = (State::Failed, chain(&failure.error).into());
            }
        }
        all
    }

    /// Whatever answers in its own time has answered.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.taker.is_settled()
    }
}

/// Of one part of the host's own numbers.
fn part_seen(part: &'static str, failures: &[Failure]) -> Seeing {
    let of_part = failures.iter().filter(|failure| failure.part == part);
    let mut told: Vec<&Failure> =
        of_part.filter(|failure| !matches!(failure.error, SampleError::Hidden { .. })).collect();
    told.sort_by_key(|failure| failure.error.is_absence());
    let Some(first) = told.first() else { return Seeing::new(Kind::Part, State::Works).named(part) };
    let state = if first.error.is_absence() { State::Absent } else { State::Failed };
    let others = if told.len() > 1 { format!("; and {} more", told.len() - 1) } else { String::new() };
    Seeing::new(Kind::Part, state).named(part).says(format!("{}{others}", chain(&first.error)))
}

/// What found no room, over all sources; none where nothing is looked for.
fn left_out(stock: &Stock) -> Option<u64> {
    let of = |item: &Item| match item {
        Item::Source(source) => Some(u64::from(source.left_out)),
        _ => None,
    };
    stock.items().filter_map(of).reduce(u64::saturating_add)
}

/// Processes that the kernel killed for want of memory between two ticks.
fn killed(before: Option<u64>, now: Option<u64>, at: WallMs) -> Option<Happening> {
    let more = now?.checked_sub(before?).filter(|&more| more > 0)?;
    let count = u32::try_from(more).unwrap_or(u32::MAX);
    Some(Happening { at, key: None, what: What::HostOomKilled { count } })
}

/// A line of the catalogue, found when this program is compiled: a name that is not there does not build.
const fn metric(name: &str) -> &'static Metric {
    let mut at = 0;
    while at < CATALOGUE.len() {
        if same(CATALOGUE[at].name.as_bytes(), name.as_bytes()) {
            return &CATALOGUE[at];
        }
        at += 1;
    }
    panic!("no metric of the catalogue has this name")
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

fn put(sample: &mut Sample, metric: &'static Metric, value: f64) {
    sample.push(&Subject::HOST(), metric, value);
}

/// Counters and sizes as they are shipped.
#[expect(clippy::cast_precision_loss, reason = "beyond 2^53 the catalogue's precision is coarser anyway")]
const fn float(n: u64) -> f64 {
    n as f64
}
