//! Takes stock of what lives on the host, tick by tick: containers, processes, units and ports, in the order in which
//! each can be told what those before it found.
//!
//! Each part is switched off by the configuration. It decides nothing: the parts do.

use std::path::Path;

use dunlin_shared::inventory::{Happening, Stock};
use dunlin_shared::sample::Sample;

use super::bus::Bus;
use super::cgroup::{Groups, Owner};
use super::container::{Containers, Seen};
use super::failure::Failures;
use super::port::{Around, Ports};
use super::process::{Asked, Pass, Processes};
use super::source::Source;
use super::unit::Units;
use super::user::Users;
use crate::clock::Clock;
use crate::config::Collect;

#[derive(Debug)]
pub(super) struct StockTaker {
    collect: Collect,
    containers: Containers,
    processes: Processes,
    groups: Groups,
    units: Units,
    bus: Bus,
    ports: Ports,
    users: Users,
}

/// Where a tick's findings go.
pub(super) struct Found<'a> {
    pub(super) stock: &'a mut Stock,
    pub(super) happened: &'a mut Vec<Happening>,
    pub(super) failures: &'a mut Failures,
}

impl StockTaker {
    pub(super) fn new(root: &Path, clock: Clock, collect: Collect) -> Self {
        Self {
            containers: Containers::new(root, clock, &collect),
            processes: Processes::default(),
            groups: Groups::default(),
            units: Units::default(),
            bus: Bus::new(root, clock),
            ports: Ports::new(),
            users: Users::default(),
            collect,
        }
    }

    /// From now on engines are followed between ticks.
    pub(super) const fn follow(&mut self) {
        self.containers.follow();
    }

    pub(super) fn take(&mut self, source: &mut Source, sample: &mut Sample, found: &mut Found<'_>) {
        let (now, wall) = (sample.mono, sample.wall);
        let failures = &mut *found.failures;
        found.happened.extend(self.containers.look(now));
        self.users.look(source);
        failures.part("processes");
        let name_of = |id: &str| self.containers.name_of(id).map(Box::from);
        let asked = Asked { now, wall, collect: &self.collect, name_of: &name_of };
        self.processes.look(source, &asked, failures);
        self.processes.count(sample);
        if self.collect.processes {
            failures.part("groups");
            self.processes.tell(source, &mut self.users, sample, found.stock, failures);
        }
        let pass = self.processes.pass();
        if self.collect.containers || self.collect.units {
            failures.part("units");
            self.groups.walk(source, now, pass.generation(), failures);
        }
        if self.collect.containers {
            failures.part("containers");
            let seen = seen(&self.groups, pass, source);
            found.happened.extend(self.containers.rows(&seen, source, sample, found.stock, failures));
        }
        if self.collect.units {
            failures.part("units");
            self.units.rows(source, &self.groups, pass, sample, found.stock);
            self.bus.sample(now, sample, found.stock, failures);
        }
        if self.collect.ports {
            failures.part("ports");
            self.look_at_ports(source, sample, found);
        }
    }

    fn look_at_ports(&mut self, source: &mut Source, sample: &Sample, found: &mut Found<'_>) {
        let (pass, containers) = (self.processes.pass(), &self.containers);
        let named = |id: &str| Box::from(containers.name_of(id).unwrap_or_else(|| short(id)));
        let ids = self.groups.found().iter().filter_map(|group| match &group.owner {
            Owner::Container { id, .. } => Some(&**id),
            Owner::Host | Owner::Unit(_) => None,
        });
        let running: Vec<(Box<str>, Vec<u32>)> =
            ids.map(|id| (named(id), pass.of_container(id).take(PROCESSES_TRIED).collect())).collect();
        let running: Vec<(&str, Vec<u32>)> = running.iter().map(|(name, pids)| (&**name, pids.clone())).collect();
        let published: Vec<_> = containers.published().collect();
        let around = Around {
            pids: &|| pass.pids().collect(),
            group_of: &|pid| pass.group_of(pid).map(Box::from),
            container_of: &|pid| match pass.owner_of(pid) {
                Owner::Container { id, .. } => Some(named(id)),
                Owner::Host | Owner::Unit(_) => None,
            },
            containers: &running,
            published: &published,
        };
        self.ports.look(source, sample.mono, &around, &mut self.users, found.stock, found.failures);
    }
}

/// A process may end while its network is looked at.
const PROCESSES_TRIED: usize = 3;

/// The control groups of containers, what each uses, and its first process.
fn seen<'a>(groups: &'a Groups, pass: Pass<'_>, source: &mut Source) -> Vec<Seen<'a>> {
    let of = |group: &'a super::cgroup::Found| match &group.owner {
        Owner::Container { engine, id } => Some((*engine, &**id, groups.usage(source, group))),
        Owner::Host | Owner::Unit(_) => None,
    };
    groups
        .found()
        .iter()
        .filter_map(of)
        .map(|(engine, id, usage)| Seen { engine, id, usage, pid: pass.of_container(id).next() })
        .collect()
}

/// As an engine shortens ids: what a container is called that no engine tells.
fn short(id: &str) -> &str {
    &id[..id.floor_char_boundary(12)]
}
