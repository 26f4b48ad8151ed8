//! What the control groups of containers use, held from tick to tick, so that a container at rest costs a file or two.
//!
//! What did not run has read, written and opened nothing: of a container that used no processor since the tick before
//! nothing is read but that, five ticks of six. Memory that others take from it, and limits that somebody moves, are
//! seen within a minute. Invariant: nothing is held of a container that has no control group.

use std::collections::HashMap;

use super::cgroup::{EVERY_TICKS, Groups, Owner, Part, Usage};
use super::source::Source;

#[derive(Debug, Default)]
pub(super) struct Meters {
    /// By the id of the container.
    known: HashMap<Box<str>, Meter>,
    tick: u32,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    pub(super) usage: Usage,
    /// None of its processes ran since the tick before.
    pub(super) is_at_rest: bool,
    seen: u32,
}

impl Meters {
    /// Brings all of them up to date.
    pub(super) fn read(&mut self, source: &mut Source, groups: &Groups) {
        self.tick = self.tick.wrapping_add(1);
        let containers = groups.found().iter().filter_map(|found| match &found.owner {
            Owner::Container { id, .. } => Some((id, found)),
            Owner::Host | Owner::Unit(_) => None,
        });
        for (number, (id, found)) in (0_u32..).zip(containers) {
            let is_turn = number.wrapping_add(self.tick).is_multiple_of(EVERY_TICKS);
            if !self.known.contains_key(id) {
                self.known.insert(id.clone(), Meter::default());
            }
            let Some(meter) = self.known.get_mut(id) else { continue };
            let (before, is_new) = (meter.usage.cpu_seconds, meter.seen == 0);
            groups.read(source, found, Part::Cpu, &mut meter.usage);
            meter.is_at_rest = before.is_some() && before == meter.usage.cpu_seconds;
            if is_turn || is_new {
                groups.read(source, found, Part::Limits, &mut meter.usage);
            }
            if is_turn || !meter.is_at_rest {
                for part in [Part::Memory, Part::OomKills, Part::Io, Part::Tasks] {
                    groups.read(source, found, part, &mut meter.usage);
                }
            }
            meter.seen = self.tick;
        }
        let tick = self.tick;
        self.known.retain(|_, meter| meter.seen == tick);
    }

    pub(super) fn of(&self, id: &str) -> Option<&Meter> {
        self.known.get(id)
    }
}

#[cfg(test)]
mod tests {
    use dunlin_shared::time::MonoMs;

    use super::*;
    use crate::sample::failure::Failures;
    use crate::sample::tree::Tree;

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    struct Host {
        tree: Tree,
        source: Source,
        groups: Groups,
        meters: Meters,
        tick: u64,
    }

    impl Host {
        fn new() -> Self {
            let tree = Tree::new(&[("proc/1/mountinfo", V2)]);
            let source = Source::new(tree.path());
            Self { tree, source, groups: Groups::default(), meters: Meters::default(), tick: 0 }
        }

        fn set(&self, file: &str, text: &str) {
            self.tree.set(&format!("sys/fs/cgroup/system.slice/docker-{ID}.scope/{file}"), text);
        }

        fn used(&self, us: u64) {
            self.set("cpu.stat", &format!("usage_usec {us}\n"));
        }

        /// Memory in use and its limit, and whether it rests. Each tick walks anew.
        fn read(&mut self) -> Option<(Option<f64>, Option<f64>, bool)> {
            self.tick += 1;
            self.groups.walk(&mut self.source, MonoMs(self.tick), self.tick, &mut Failures::default());
            self.meters.read(&mut self.source, &self.groups);
            let meter = self.meters.of(ID)?;
            Some((meter.usage.memory_used_bytes, meter.usage.memory_limit_bytes, meter.is_at_rest))
        }
    }

    #[test]
    fn what_rests_is_read_at_its_turn_and_what_runs_at_each_tick() {
        let mut host = Host::new();
        host.used(1_000);
        host.set("memory.current", "100");
        host.set("memory.max", "1000");
        assert_eq!(host.read(), Some((Some(100.0), Some(1_000.0), false)), "all is read of what is new");
        host.set("memory.current", "200");
        assert_eq!(host.read(), Some((Some(100.0), Some(1_000.0), true)));
        host.used(2_000);
        assert_eq!(host.read(), Some((Some(200.0), Some(1_000.0), false)));
        host.set("memory.current", "300");
        host.set("memory.max", "max");
        let seen: Vec<_> = (0..EVERY_TICKS).filter_map(|_| host.read()).collect();
        assert_eq!(seen.last(), Some(&(Some(300.0), None, true)), "its turn came once in six ticks");
        assert!(seen.contains(&(Some(200.0), Some(1_000.0), true)), "{seen:?}");
    }

    #[test]
    fn without_accounting_of_processors_everything_is_read_and_what_went_is_forgotten() {
        let mut host = Host::new();
        for bytes in [100.0, 200.0] {
            host.set("memory.current", &bytes.to_string());
            assert_eq!(host.read(), Some((Some(bytes), None, false)));
        }
        let scope = host.tree.path().join(format!("sys/fs/cgroup/system.slice/docker-{ID}.scope"));
        std::fs::remove_dir_all(scope).expect("it is there");
        assert_eq!(host.read(), None);
        assert!(host.meters.known.is_empty());
    }
}
