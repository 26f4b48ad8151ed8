//! What simulated hosts measure and what stands on them: small idle servers in the catalogue's metrics.
//!
//! Pure: the values of a tick follow from seed, node, epoch and tick alone, so that whoever reads a
//! collector's disk can tell what must stand there. Counters never fall within an epoch.

use std::path::PathBuf;
use std::sync::Arc;

use dunlin_shared::id::Epoch;
use dunlin_shared::inventory::{Facts, Happening, Inventory, Stock};
use dunlin_shared::metric::{Kind, Metric, Step, by_name};
use dunlin_shared::sample::{Sample, Subject, SubjectKind};
use dunlin_shared::time::{MonoMs, WallMs};

use super::drill::Drill;
use super::recording::{Recording, RecordingError};
use super::stock::{Household, State};
use crate::random::Random;

/// Fewer would not even be a host's own metrics.
pub const SERIES_MIN: usize = 20;
/// With more, a host would have more subjects than a node may have: almost all are process groups, of five metrics each.
pub const SERIES_MAX: usize = 10_200;

const FILE_SYSTEMS: [&str; 2] = ["/", "/var"];
const DISKS: [&str; 1] = ["vda"];
const NETS: [&str; 2] = ["eth0", "docker0"];
/// Names that nodes draw from, so that few nodes have the same layout, as in a real fleet.
const CONTAINERS: [&str; 12] = [
    "mysql",
    "neo4j",
    "elasticsearch",
    "weaviate",
    "postgres",
    "redis",
    "web",
    "worker",
    "queue",
    "gateway",
    "cron",
    "mail",
];
const PROCESSES: [&str; 16] = [
    "systemd",
    "dockerd",
    "containerd",
    "sshd",
    "mysqld",
    "java",
    "postgres",
    "redis-server",
    "nginx",
    "node",
    "python3",
    "rsyslogd",
    "chronyd",
    "cron",
    "dbus-daemon",
    "agetty",
];
const CONTAINERS_PER_NODE: usize = 2;
const CONTAINER_METRICS: [&str; 11] = [
    RUNNING,
    RESTARTS,
    "container_cpu_seconds",
    "container_memory_used_bytes",
    "container_memory_anon_bytes",
    "container_memory_file_bytes",
    "container_memory_limit_bytes",
    "container_memory_used_ratio",
    "container_read_bytes",
    "container_written_bytes",
    "container_processes",
];
const PROCESS_METRICS: [&str; 5] =
    ["process_count", "process_cpu_seconds", "process_memory_bytes", "process_threads", "process_files_open"];
/// What an engine says of a container also while it does not run.
const RUNNING: &str = "container_running";
const RESTARTS: &str = "container_restarts";
/// A host has these only with hardware or a firewall that few have.
const RARE: [&str; 3] = ["host_temperature_celsius", "host_conntrack_entries", "host_conntrack_max"];

/// A process group comes and goes: in one stretch of so many ticks of each four.
const VISITOR_STRETCH: u64 = 40;
const VISITOR: &str = "backup";

/// What every host of one fleet measures.
#[derive(Clone, Debug)]
pub struct Load {
    pub seed: u64,
    pub series: usize,
    /// Every host is this one, each at another point of it, instead of one that is made up.
    pub replay: Option<Replay>,
    /// Nodes cross a rule now and then.
    pub drill: Option<Drill>,
}

/// A recording, and where it can be found again.
#[derive(Clone, Debug)]
pub struct Replay {
    pub file: PathBuf,
    pub recording: Arc<Recording>,
}

/// One node's series in one epoch, made once.
#[derive(Clone, Debug)]
pub struct Host {
    source: Source,
    household: Household,
    who: (usize, Epoch),
    drill: Option<Drill>,
}

#[derive(Clone, Debug)]
enum Source {
    /// From this key on; 0 is the host as it was recorded.
    Recorded(Arc<Recording>, u64),
    Made(Made),
}

#[derive(Clone, Debug)]
struct Made {
    rows: Vec<Row>,
    visitor: Vec<Row>,
    phase: u64,
}

#[derive(Clone, Debug)]
struct Row {
    subject: Subject,
    metric: &'static Metric,
    shape: Shape,
    key: u64,
}

/// How a series moves, in steps of its precision.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Still {
        at: i64,
    },
    /// A gauge that wanders within `span` around `at`, slowly: a new direction every `ticks`.
    Wander {
        at: i64,
        span: i64,
        ticks: u64,
    },
    /// A counter that grows by about `rate` at each tick.
    Busy {
        from: i64,
        rate: i64,
    },
    /// A counter that grows by one every so many ticks.
    Rare {
        from: i64,
        ticks: u64,
    },
}

impl Load {
    #[must_use]
    pub const fn made_up(seed: u64, series: usize) -> Self {
        Self { seed, series, replay: None, drill: None }
    }

    /// The host that plays `node` (its number in the fleet) in `epoch`.
    #[must_use]
    pub fn host(&self, node: usize, epoch: Epoch) -> Host {
        let key = self.key(node, epoch);
        let source = match &self.replay {
            Some(replay) => Source::Recorded(Arc::clone(&replay.recording), if node == 0 { 0 } else { key }),
            None => Source::Made(self.make(key)),
        };
        let household = source.household(key);
        Host { source, household, who: (node, epoch), drill: self.drill }
    }

    /// What the first frame of a run says of the node.
    #[must_use]
    pub fn inventory(&self, node: usize) -> Inventory {
        Inventory::Facts(Facts {
            host_name: format!("fleet-{node}"),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            os: "Debian GNU/Linux 12 (bookworm)".to_owned(),
            kernel: "6.1.0-18-cloud-amd64".to_owned(),
            architecture: "x86_64".to_owned(),
            cpus: 2,
            memory_bytes: 1_932_735_283,
            boot_id: mix(self.seed ^ node as u64).to_le_bytes().repeat(2).try_into().unwrap_or_default(),
            labels: std::collections::BTreeMap::new(),
        })
    }

    const fn key(&self, node: usize, epoch: Epoch) -> u64 {
        mix(self.seed ^ mix(node as u64) ^ mix((epoch.0 as u64) << 32))
    }

    fn make(&self, key: u64) -> Made {
        let mut random = Random::new(key);
        let mut rows = Vec::with_capacity(self.series);
        let host = Subject::HOST();
        for metric in metrics_of(SubjectKind::Host).filter(|metric| !RARE.contains(&metric.name)) {
            rows.push(Row::new(host.clone(), metric, &mut random));
        }
        rows.truncate(self.series);
        for (kind, names) in
            [(SubjectKind::Fs, &FILE_SYSTEMS[..]), (SubjectKind::Disk, &DISKS), (SubjectKind::Net, &NETS)]
        {
            for name in names {
                push_all(&mut rows, self.series, kind, name, metrics_of(kind), &mut random);
            }
        }
        let first = random.below(CONTAINERS.len() as u64);
        for n in 0..CONTAINERS_PER_NODE {
            let name = CONTAINERS[wrap(first + n as u64 * 5, CONTAINERS.len())];
            push_all(&mut rows, self.series, SubjectKind::Container, name, named(&CONTAINER_METRICS), &mut random);
        }
        let first = random.below(PROCESSES.len() as u64);
        let mut n = 0;
        while rows.len() < self.series {
            let name = match n {
                0..16 => PROCESSES[wrap(first + n * 7, PROCESSES.len())].to_owned(),
                _ => format!("worker-{n}"),
            };
            push_all(&mut rows, self.series, SubjectKind::Process, &name, named(&PROCESS_METRICS), &mut random);
            n += 1;
        }
        let mut visitor = Vec::new();
        push_all(&mut visitor, usize::MAX, SubjectKind::Process, VISITOR, named(&PROCESS_METRICS), &mut random);
        Made { rows, visitor, phase: random.next_u64() % (4 * VISITOR_STRETCH) }
    }
}

impl Replay {
    pub fn read(file: PathBuf) -> Result<Self, RecordingError> {
        let recording = Arc::new(Recording::read(&file)?);
        Ok(Self { file, recording })
    }
}

impl Host {
    /// Everything this host measures at a tick. The clocks are the only part that is not made up.
    #[must_use]
    pub fn sample(&self, tick: u64, mono: MonoMs, wall: WallMs) -> Sample {
        let mut sample = Sample::new(mono, wall);
        let states: Vec<(&str, State)> = self.household.states(tick).collect();
        self.source.each(tick, |subject, metric, steps| {
            let state = (subject.kind == SubjectKind::Container)
                .then(|| states.iter().find(|(name, _)| *name == subject.name()))
                .flatten();
            let steps = match state {
                Some((_, state)) => counted(*state, metric, steps),
                None => Some(steps),
            };
            if let Some(steps) = steps {
                sample.push(subject, metric, metric.step.value(steps));
            }
        });
        if let Some(drill) = self.drill {
            drill.push(&mut sample, self.who, tick);
        }
        sample
    }

    /// Everything that stands on it at a tick.
    #[must_use]
    pub fn stock(&self, tick: u64) -> Stock {
        self.household.stock(tick, self.source.visitor(tick))
    }

    /// What happened to its containers since the tick before.
    #[must_use]
    pub fn happened(&self, tick: u64, at: WallMs) -> Vec<Happening> {
        self.household.happened(tick, at)
    }
}

impl Source {
    fn each(&self, tick: u64, mut take: impl FnMut(&Subject, &'static Metric, i64)) {
        match self {
            Self::Recorded(recording, key) => recording.each(tick, *key, take),
            Self::Made(made) => {
                let visitor = made.visitor.iter().filter(|_| made.visits(tick));
                made.rows.iter().chain(visitor).for_each(|row| take(&row.subject, row.metric, row.steps(tick)));
            }
        }
    }

    fn visitor(&self, tick: u64) -> Option<&'static str> {
        match self {
            Self::Recorded(..) => None,
            Self::Made(made) => made.visits(tick).then_some(VISITOR),
        }
    }

    fn household(&self, key: u64) -> Household {
        let subjects: Vec<&Subject> = match self {
            Self::Recorded(recording, _) => recording.subjects().collect(),
            Self::Made(made) => made.rows.iter().map(|row| &row.subject).collect(),
        };
        let names = |kind| {
            let mut names: Vec<&str> = subjects.iter().filter(|one| one.kind == kind).map(|one| one.name()).collect();
            names.dedup();
            names
        };
        Household::new(key, names(SubjectKind::Container), names(SubjectKind::Process))
    }
}

impl Made {
    const fn visits(&self, tick: u64) -> bool {
        ((tick + self.phase) / VISITOR_STRETCH) % 4 == 3
    }
}

/// What is measured of a container: what its control group says is there only while it runs.
fn counted(state: State, metric: &Metric, steps: i64) -> Option<i64> {
    match metric.name {
        RUNNING => Some(i64::from(state.is_up())),
        RESTARTS => Some(i64::from(state.restarts)),
        _ => state.is_up().then_some(steps),
    }
}

impl Row {
    fn new(subject: Subject, metric: &'static Metric, random: &mut Random) -> Self {
        Self { subject, metric, shape: shape_of(metric, random), key: random.next_u64() }
    }

    fn steps(&self, tick: u64) -> i64 {
        let at_tick = |n: u64| mix(self.key ^ n);
        let within = |random: u64, bound: i64| (random % bound.max(1).unsigned_abs()).cast_signed();
        match self.shape {
            Shape::Still { at } => at,
            Shape::Wander { at, span, ticks } => {
                let (turn, part) = (tick / ticks, (tick % ticks).cast_signed());
                let (from, to) = (within(at_tick(turn), span), within(at_tick(turn + 1), span));
                at + from + (to - from) * part / ticks.cast_signed()
            }
            // The wobble is below the rate, so that the sum never falls.
            Shape::Busy { from, rate } => from + tick.cast_signed() * rate + within(at_tick(tick), rate),
            Shape::Rare { from, ticks } => from + ((tick + self.key % ticks) / ticks).cast_signed(),
        }
    }
}

/// Which metrics move on an idle host, and how far, by what they measure.
fn shape_of(metric: &Metric, random: &mut Random) -> Shape {
    let from = (random.next_u64() % 100_000).cast_signed();
    let name = metric.name;
    if metric.kind == Kind::Counter {
        return match name {
            "disk_read_bytes" | "disk_reads" | "disk_queue_seconds" | "host_cpu_iowait_seconds" => {
                Shape::Busy { from, rate: 3 }
            }
            "host_pressure_cpu_some_seconds" | "host_pressure_io_some_seconds" => Shape::Busy { from, rate: 40 },
            "container_cpu_seconds" => Shape::Busy { from, rate: 12 },
            "host_cpu_idle_seconds" => Shape::Busy { from, rate: 1_900 },
            "host_cpu_user_seconds" | "host_cpu_system_seconds" | "host_context_switches" => {
                Shape::Busy { from, rate: 8 }
            }
            "net_received_bytes" | "net_sent_bytes" => Shape::Busy { from, rate: 4_000 },
            "net_received_packets" | "net_sent_packets" | "host_interrupts" => Shape::Busy { from, rate: 9 },
            "disk_written_bytes" | "container_written_bytes" => Shape::Busy { from, rate: 30 },
            "disk_writes" | "disk_write_wait_seconds" | "disk_busy_seconds" | "host_forks" => {
                Shape::Busy { from, rate: 4 }
            }
            "process_cpu_seconds" => Shape::Rare { from, ticks: 1 + random.below(5) },
            _ => Shape::Rare { from: from % 100, ticks: 200 + random.below(20_000) },
        };
    }
    let ticks = 1 + random.below(6);
    match (name, metric.step) {
        ("host_memory_total_bytes" | "host_memory_shared_bytes" | "host_cpu_cores" | "host_files_max", _)
        | ("host_swap_total_bytes" | "host_swap_used_bytes" | "host_time_synced", _) => {
            Shape::Still { at: from % 1_000 }
        }
        (_, _) if name.contains("total") || name.contains("limit") => Shape::Still { at: from },
        (_, Step::Each(65_536)) => Shape::Wander { at: from % 10_000, span: 90, ticks },
        (_, Step::Each(1)) => Shape::Wander { at: from % 300, span: 3, ticks },
        (_, Step::Per(100)) => Shape::Wander { at: from % 40, span: 12, ticks },
        _ => Shape::Wander { at: from % 700, span: 2, ticks: 30 },
    }
}

fn push_all(
    rows: &mut Vec<Row>,
    most: usize,
    kind: SubjectKind,
    name: &str,
    metrics: impl Iterator<Item = &'static Metric>,
    random: &mut Random,
) {
    let subject = Subject::new(kind, name).expect("the names of this table are short and not empty");
    for metric in metrics {
        if rows.len() >= most {
            return;
        }
        rows.push(Row::new(subject.clone(), metric, random));
    }
}

fn metrics_of(kind: SubjectKind) -> impl Iterator<Item = &'static Metric> {
    dunlin_shared::metric::CATALOGUE.iter().filter(move |metric| metric.subject == kind)
}

fn named(names: &'static [&'static str]) -> impl Iterator<Item = &'static Metric> {
    names.iter().map(|name| by_name(name).expect("the names of this table are in the catalogue"))
}

fn wrap(n: u64, len: usize) -> usize {
    usize::try_from(n % len as u64).unwrap_or(0)
}

/// SplitMix64's finaliser, by one step of the generator.
pub(super) const fn mix(n: u64) -> u64 {
    Random::new(n).next_u64()
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    const LOAD: Load = Load::made_up(1, 150);

    fn sample(host: &Host, tick: u64) -> Sample {
        host.sample(tick, MonoMs(tick * 10_000), WallMs(0))
    }

    #[test]
    fn a_host_has_the_series_that_were_asked_for_and_each_once() {
        for series in [20, 150, 400] {
            for node in 0..20 {
                let host = Load::made_up(1, series).host(node, Epoch(1));
                let is_whole = |tick: &u64| {
                    host.source.visitor(*tick).is_none() && host.household.states(*tick).all(|(_, state)| state.is_up())
                };
                let whole =
                    (0..4 * VISITOR_STRETCH).find(is_whole).expect("something is wrong now and then, not always");
                let first = sample(&host, whole);
                let places: HashSet<_> = first.rows().iter().map(|(subject, metric, _)| (subject, metric)).collect();
                assert_eq!((first.rows().len(), places.len()), (series, series), "node {node}");
            }
        }
    }

    #[test]
    fn counters_never_fall_and_a_tick_changes_a_few_series() {
        let host = LOAD.host(7, Epoch(3));
        let mut last: HashMap<_, i64> = HashMap::new();
        let (mut changed, mut sizes) = (0_usize, HashSet::new());
        for tick in 0..400 {
            let sample = sample(&host, tick);
            sizes.insert(sample.rows().len());
            for (subject, metric, steps) in sample.rows() {
                let before = last.insert((subject.clone(), *metric), *steps);
                let known = dunlin_shared::metric::by_id(dunlin_shared::metric::MetricId(metric.raw()));
                if known.is_some_and(|metric| metric.kind == Kind::Counter) {
                    assert!(before.is_none_or(|before| before <= *steps), "{subject} {tick}");
                }
                changed += usize::from(before.is_some_and(|before| before != *steps));
            }
        }
        assert!((15 * 400..100 * 400).contains(&changed), "{} a tick", changed / 400);
        assert!(sizes.len() >= 2, "a process group comes and goes");
    }

    #[test]
    fn a_container_that_does_not_run_is_measured_by_what_its_engine_says_alone() {
        let (mut down, mut up) = (0, 0);
        for node in 0..5 {
            let host = Load::made_up(1, 400).host(node, Epoch(1));
            let is_down = |tick: &u64| host.household.states(*tick).any(|(_, state)| !state.is_up());
            let tick = (0..).find(is_down).expect("everything happens to it in time");
            let sample = sample(&host, tick);
            for (name, state) in host.household.states(tick) {
                let rows = sample.rows().iter().filter(|(subject, ..)| subject.name() == name);
                let rows: Vec<_> = rows.filter(|(subject, ..)| subject.kind == SubjectKind::Container).collect();
                assert_eq!(rows.len(), if state.is_up() { CONTAINER_METRICS.len() } else { 2 }, "{name}");
                *if state.is_up() { &mut up } else { &mut down } += 1;
            }
        }
        assert!(down >= 5 && up > 0, "{up} run and {down} do not");
    }

    #[test]
    fn a_recorded_host_is_played_by_each_node_at_another_point_and_by_the_first_as_it_was() {
        let text = "dunlin-recording-1 4\nhost host_load1 1/100 5 1 -2 7\nnet:eth0 net_received_bytes 1 100 10x3\n";
        let recording = Arc::new(Recording::parse(text).expect("it is valid"));
        let replay = Replay { file: PathBuf::new(), recording: Arc::clone(&recording) };
        let load = Load { replay: Some(replay), ..LOAD };
        let rows = |node, tick| sample(&load.host(node, Epoch(1)), tick).rows().to_vec();
        assert_eq!(rows(0, 2), recording.sample(2, MonoMs(0), WallMs(0)).rows());
        let others: HashSet<Vec<i64>> =
            (0..20).map(|node| rows(node, 2).iter().map(|(.., steps)| *steps).collect()).collect();
        assert!(others.len() > 10, "{others:?}");
        assert_eq!(rows(7, 2), rows(7, 2));
        assert_eq!(rows(7, 6)[1].2 - rows(7, 2)[1].2, 40, "a counter goes on as it was recorded");
    }

    #[test]
    fn nodes_and_epochs_differ_and_a_tick_can_be_made_again() {
        let rows = |node, epoch| sample(&LOAD.host(node, Epoch(epoch)), 5).rows().to_vec();
        assert_eq!(rows(1, 1), rows(1, 1));
        assert_ne!(rows(1, 1), rows(2, 1));
        assert_ne!(rows(1, 1), rows(1, 2));
    }
}
