//! What the agent reads of its host. Each part returns what it got and what failed, side by side.
//!
//! The root of the file systems is given, so that recorded trees can be read like the real one. `/proc` is read directly
//! and not through sysinfo, which knows neither pressure, sockets, mounts by device nor the state of a link: a tick of
//! 100 series takes 0.4 ms of a processor and 1.4 ms beside 2,000 processes (`make bench` prints it for its host).
//! Invariant: nothing here waits longer than `fs::TICK_MS` for anything that the host may never answer.

mod census;
mod cgroup;
mod container;
mod cpu;
mod disk;
pub mod facts;
mod failure;
mod fs;
mod lane;
mod load;
mod memory;
mod mount;
mod name;
mod net;
mod own;
mod pressure;
mod sensor;
mod socket;
mod source;
#[cfg(test)]
mod tests;
mod time;
#[cfg(test)]
mod tree;

use std::path::Path;
use std::sync::Arc;

use dunlin_shared::inventory::{Happening, Stock};
use dunlin_shared::metric::{CATALOGUE, Metric};
use dunlin_shared::sample::{Sample, Subject};
use dunlin_shared::time::{MonoMs, WallMs};

use self::census::Census;
use self::container::Containers;
use self::cpu::Cpu;
use self::disk::Disks;
pub use self::failure::{Failure, Failures, SampleError};
use self::fs::FileSystems;
pub use self::fs::{Ask, Space};
use self::net::Nets;
use self::sensor::Sensors;
use self::source::Source;
use crate::clock::Clock;
use crate::config::Collect;
use crate::stats::Stats;

/// Samples one host, tick by tick. It keeps what differences and held values need, and nothing else.
#[derive(Debug)]
pub struct Sampler {
    source: Source,
    stats: Arc<Stats>,
    cpu: Cpu,
    disks: Disks,
    nets: Nets,
    census: Census,
    file_systems: FileSystems,
    sensors: Sensors,
    containers: Containers,
    clock: Clock,
    collect: Collect,
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
    pub failures: Vec<Failure>,
}

/// The parts of a tick, by the names that failures and `check` use.
pub const PARTS: [&str; 13] = [
    "cpu",
    "memory",
    "load",
    "pressure",
    "file systems",
    "disks",
    "interfaces",
    "sockets",
    "processes",
    "containers",
    "time",
    "sensors",
    "agent",
];

impl Sampler {
    #[must_use]
    pub fn new(root: &Path, clock: Clock, stats: Arc<Stats>) -> Self {
        Self::with_ask(root, clock, stats, fs::ask_of(root))
    }

    /// With other things to tell than the default.
    #[must_use]
    pub fn collecting(self, collect: Collect) -> Self {
        let containers = Containers::new(&self.source.path(""), self.clock, &collect);
        Self { collect, containers, ..self }
    }

    /// Stays: what can be followed is followed between ticks, by tasks of the runtime that ticks are taken in.
    #[must_use]
    pub fn following(mut self) -> Self {
        self.containers.follow();
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
            nets: Nets::default(),
            census: Census::default(),
            file_systems: FileSystems::new(clock, ask),
            sensors: Sensors::new(root, clock),
            containers: Containers::new(root, clock, &Collect::default()),
            clock,
            collect: Collect::default(),
            failures_total: 0,
        }
    }

    /// Questions that may hang are asked first, so that their answers arrive while the rest is read.
    pub fn sample(&mut self, now: MonoMs, wall: WallMs) -> Taken {
        let mut sample = Sample::new(now, wall);
        let mut stock = Stock::default();
        let mut happened = self.containers.look(now);
        let mut failures = Failures::default();
        let source = &mut self.source;
        failures.part("file systems");
        self.file_systems.ask(source, &mut failures);
        failures.part("sensors");
        self.sensors.ask();
        failures.part("cpu");
        self.cpu.sample(source, &mut sample, &mut failures);
        failures.part("memory");
        memory::sample(source, &mut sample, &mut failures);
        failures.part("load");
        load::sample(source, &mut sample, &mut failures);
        failures.part("pressure");
        pressure::sample(source, &mut sample, &mut failures);
        failures.part("sockets");
        socket::sample(source, &mut sample, &mut failures);
        failures.part("processes");
        self.census.sample(source, now, &mut sample, &mut failures);
        failures.part("time");
        time::sample(source, wall, &mut sample, &mut failures);
        failures.part("sensors");
        self.sensors.collect(&mut sample, &mut failures);
        failures.part("disks");
        self.disks.sample(source, &mut sample, &mut failures);
        failures.part("interfaces");
        self.nets.sample(source, now, &mut sample, &mut failures);
        failures.part("containers");
        happened.extend(self.containers.rows(&[], source, &mut sample, &mut stock, &mut failures));
        failures.part("file systems");
        self.file_systems.collect(&mut sample, &mut failures);
        failures.part("agent");
        self.failures_total += failures.count();
        own::sample(source, &self.stats, self.failures_total, &mut sample, &mut failures);
        Taken { sample, stock, happened, failures: failures.into_list() }
    }
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
