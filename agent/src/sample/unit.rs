//! systemd services: what each uses, from its control group. A host without containers is seen by these just as well.
//!
//! Of a service that used no processor since the tick before nothing is read but that, five ticks of six: what did not
//! run has read and written nothing, and memory that others take from it is seen a minute later.

use std::collections::HashMap;

use dunlin_shared::inventory::{Item, Source as SourceItem, Stock};
use dunlin_shared::limits::UNITS_MAX;
use dunlin_shared::metric::Metric;
use dunlin_shared::sample::{Sample, Subject, SubjectKind};

use super::cgroup::{EVERY_TICKS, Found, Groups, NO_VERSION, Owner, Part, Usage};
use super::name::shown;
use super::process::Pass;
use super::rising::Rising;
use super::source::Source;
use super::{float, metric};
use crate::sight::{Kind, Seeing, State};

/// Services that have no group now, and go on from where they stood when they come back.
const REMEMBERED_MAX: usize = 512;
const NONE: &str = "no control groups are mounted";

#[derive(Debug, Default)]
pub(super) struct Units {
    known: HashMap<Box<str>, Known>,
    tick: u32,
    /// At the last tick.
    has: Has,
}

#[derive(Debug)]
struct Known {
    subject: Subject,
    usage: Usage,
    counters: [Rising; COUNTERS.len()],
    seen: u32,
}

type Reading = fn(&Usage) -> Option<f64>;

const COUNTERS: [(&Metric, Reading); 4] = [
    (metric("unit_cpu_seconds"), |usage| usage.cpu_seconds),
    (metric("unit_oom_kills"), |usage| usage.oom_kills),
    (metric("unit_read_bytes"), |usage| usage.read_bytes),
    (metric("unit_written_bytes"), |usage| usage.written_bytes),
];

/// What at least one service has.
#[derive(Clone, Copy, Debug, Default)]
struct Has {
    units: u32,
    cpu: bool,
    memory: bool,
    io: bool,
}

impl Units {
    pub(super) fn rows(
        &mut self,
        source: &mut Source,
        groups: &Groups,
        pass: Pass<'_>,
        sample: &mut Sample,
        stock: &mut Stock,
    ) {
        self.tick = self.tick.wrapping_add(1);
        let (mut has, mut left_out) = (Has::default(), groups.left_out().others);
        for found in groups.found() {
            let Owner::Unit(name) = &found.owner else { continue };
            if has.units == UNITS_MAX {
                left_out = left_out.saturating_add(1);
                continue;
            }
            has.units += 1;
            let turn = has.units.wrapping_add(self.tick).is_multiple_of(EVERY_TICKS);
            let Some(known) = self.known(name) else { continue };
            known.read(source, groups, found, turn);
            known.usage.tasks = known.usage.tasks.or_else(|| pass.tasks_of(&found.owner).map(float));
            known.tell(sample);
            has.cpu |= known.usage.cpu_seconds.is_some();
            has.memory |= known.usage.memory_used_bytes.is_some();
            has.io |= known.usage.read_bytes.is_some();
        }
        self.forget();
        self.has = has;
        let says = has.says(groups.version());
        let is_working = groups.version() != NO_VERSION;
        stock.put(Item::Source(SourceItem { name: "cgroups".into(), is_working, says: says.into(), left_out }));
    }

    /// What control groups tell of services, as it was at the last tick.
    pub(super) fn seeing(&self, groups: &Groups) -> Seeing {
        let version = groups.version();
        if version == NO_VERSION {
            return Seeing::new(Kind::Cgroups, State::Absent).says(NONE);
        }
        let lacks = self.has.lacks();
        if lacks.is_empty() {
            return Seeing { seen: self.has.units, of: self.has.units, ..Seeing::new(Kind::Cgroups, State::Works) }
                .says(version);
        }
        Seeing::new(Kind::Cgroups, State::Partly).says(format!("{version}: no service has numbers for {lacks}"))
    }

    fn known(&mut self, name: &str) -> Option<&mut Known> {
        let tick = self.tick;
        if !self.known.contains_key(name) {
            let subject = Subject::new(SubjectKind::Unit, &shown(name.as_bytes()))?;
            let known = Known { subject, usage: Usage::default(), counters: Default::default(), seen: tick };
            self.known.insert(name.into(), known);
        }
        let known = self.known.get_mut(name)?;
        known.seen = tick;
        Some(known)
    }

    fn forget(&mut self) {
        let tick = self.tick;
        let mut ended: Vec<u32> = self.known.values().map(|known| tick.wrapping_sub(known.seen)).collect();
        ended.retain(|&ago| ago > 0);
        if ended.len() > REMEMBERED_MAX {
            ended.sort_unstable();
            let kept = ended[REMEMBERED_MAX];
            self.known.retain(|_, known| tick.wrapping_sub(known.seen) < kept);
        }
    }
}

impl Known {
    fn read(&mut self, source: &mut Source, groups: &Groups, found: &Found, is_turn: bool) {
        let before = self.usage.cpu_seconds;
        groups.read(source, found, Part::Cpu, &mut self.usage);
        if is_turn || before.is_none() || before != self.usage.cpu_seconds {
            for part in [Part::Memory, Part::OomKills, Part::Io, Part::Tasks] {
                groups.read(source, found, part, &mut self.usage);
            }
        }
    }

    fn tell(&mut self, sample: &mut Sample) {
        for ((metric, value), rising) in COUNTERS.iter().zip(&mut self.counters) {
            if let Some(value) = value(&self.usage) {
                sample.push(&self.subject, metric, rising.follow(value));
            }
        }
        for (metric, value) in [
            (const { metric("unit_memory_used_bytes") }, self.usage.memory_used_bytes),
            (const { metric("unit_tasks") }, self.usage.tasks),
        ] {
            if let Some(value) = value {
                sample.push(&self.subject, metric, value);
            }
        }
    }
}

impl Has {
    /// What no service has, which is how the host is made and will not change by itself.
    fn says(self, version: &str) -> String {
        if version == NO_VERSION {
            return NONE.to_owned();
        }
        let lacks = self.lacks();
        if lacks.is_empty() {
            return String::new();
        }
        format!(
            "{version}: no service has numbers for {lacks}; systemd's DefaultCPUAccounting=, DefaultMemoryAccounting= and DefaultIOAccounting= turn them on"
        )
    }

    fn lacks(self) -> String {
        let lacks = [("processor time", self.cpu), ("memory", self.memory), ("input and output", self.io)];
        let lacks: Vec<&str> = lacks.iter().filter(|(_, has)| !has && self.units > 0).map(|(what, _)| *what).collect();
        lacks.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use dunlin_shared::inventory::Key;
    use dunlin_shared::time::{MonoMs, WallMs};

    use super::*;
    use crate::clock::Clock;
    use crate::sample::failure::Failures;
    use crate::sample::process::Processes;
    use crate::sample::tree::{Tree, Values};

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    const NGINX: &str = "sys/fs/cgroup/system.slice/nginx.service";

    struct Host {
        tree: Tree,
        source: Source,
        groups: Groups,
        units: Units,
        tick: u64,
    }

    impl Host {
        fn new(mountinfo: &str) -> Self {
            let tree = Tree::new(&[("proc/1/mountinfo", mountinfo)]);
            let source = Source::new(tree.path());
            Self { tree, source, groups: Groups::default(), units: Units::default(), tick: 0 }
        }

        fn set(&self, file: &str, text: &str) {
            self.tree.set(&format!("{NGINX}/{file}"), text);
        }

        /// Each tick walks anew.
        fn take(&mut self) -> (Values, Box<str>) {
            let mut sample = Sample::new(MonoMs(0), WallMs(0));
            let (mut failures, mut stock) = (Failures::default(), Stock::default());
            self.tick += 1;
            self.groups.walk(&mut self.source, MonoMs(self.tick), self.tick, &mut failures);
            let processes = Processes::new(self.tree.path(), Clock::start());
            self.units.rows(&mut self.source, &self.groups, processes.pass(), &mut sample, &mut stock);
            let Some(Item::Source(said)) = stock.get(&Key::Source("cgroups".into())) else { panic!("{stock:?}") };
            (Values::of(&sample), said.says.clone())
        }
    }

    #[test]
    fn a_service_has_its_numbers_and_its_counters_go_on_when_it_starts_again() {
        let mut host = Host::new(V2);
        host.set("cpu.stat", "usage_usec 5000000\n");
        host.set("memory.current", "1048576\n");
        host.set("memory.stat", "inactive_file 65536\n");
        host.set("memory.events", "low 0\noom 1\noom_kill 1\n");
        host.set("io.stat", "8:0 rbytes=512 wbytes=1024\n");
        host.set("pids.current", "7\n");
        let (values, said) = host.take();
        let at = |values: &Values, name: &str| values.at("unit:nginx.service", name);
        assert_eq!((at(&values, "unit_cpu_seconds"), at(&values, "unit_oom_kills")), (Some(5.0), Some(1.0)));
        assert_eq!((at(&values, "unit_memory_used_bytes"), at(&values, "unit_tasks")), (Some(983_040.0), Some(7.0)));
        assert_eq!((at(&values, "unit_read_bytes"), at(&values, "unit_written_bytes")), (Some(512.0), Some(1024.0)));
        assert_eq!(&*said, "");
        host.set("cpu.stat", "usage_usec 1000000\n");
        host.set("memory.events", "oom_kill 0\n");
        let (values, _) = host.take();
        assert_eq!((at(&values, "unit_cpu_seconds"), at(&values, "unit_oom_kills")), (Some(6.0), Some(1.0)));
    }

    #[test]
    fn of_a_service_at_rest_memory_is_read_within_six_ticks() {
        let mut host = Host::new(V2);
        host.set("cpu.stat", "usage_usec 1\n");
        host.set("memory.current", "65536\n");
        host.take();
        host.set("memory.current", "131072\n");
        let told = (0..6).map(|_| host.take().0.at("unit:nginx.service", "unit_memory_used_bytes"));
        let told: Vec<_> = told.collect();
        assert_eq!((told.first(), told.last()), (Some(&Some(65_536.0)), Some(&Some(131_072.0))));
    }

    #[test]
    fn without_accounting_the_source_says_once_what_no_service_has() {
        let names = "35 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n";
        let mut host = Host::new(names);
        host.tree.set("sys/fs/cgroup/systemd/system.slice/a.service/tasks", "");
        let (values, said) = host.take();
        assert!(values.subjects("unit:").is_empty() && said.contains("memory"), "{said}");
        assert!(said.len() <= 255, "{}", said.len());
        let (_, said) = Host::new("").take();
        assert_eq!(&*said, NONE);
    }

    #[test]
    fn a_thousand_services_that_came_and_went_are_not_remembered_for_ever() {
        let mut host = Host::new(V2);
        for tick in 0..(REMEMBERED_MAX + 50) {
            let file = format!("sys/fs/cgroup/run-{tick}.service/cpu.stat");
            host.tree.set(&file, "usage_usec 1\n");
            host.take();
            std::fs::remove_dir_all(host.tree.path().join(format!("sys/fs/cgroup/run-{tick}.service"))).expect("ours");
        }
        assert_eq!(host.units.known.len(), REMEMBERED_MAX + 1);
    }
}
