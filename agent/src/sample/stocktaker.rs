//! Takes stock of what lives on the host, tick by tick: containers, processes, units and ports, in the order in which
//! each can be told what those before it found.
//!
//! Each part is switched off by the configuration. It decides nothing: the parts do.

use std::path::Path;

use dunlin_shared::inventory::{Happening, Stock};
use dunlin_shared::sample::Sample;
use dunlin_shared::time::MonoMs;

use super::bus::Bus;
use super::cgroup::{Groups, Owner};
use super::container::{Containers, Seen};
use super::failure::Failures;
use super::meter::Meters;
use super::port::{Around, Ports, Running};
use super::process::{Asked, Pass, Processes};
use super::source::Source;
use super::unit::Units;
use super::user::Users;
use crate::clock::Clock;
use crate::config::Collect;
use crate::sight::{Kind, Seeing, State};

/// What stands is told so late at the latest, though an engine was not asked to the end: three of its deadlines.
const EARLY_MS: u64 = 15_000;

#[derive(Debug)]
pub(super) struct StockTaker {
    collect: Collect,
    /// When stock was taken first.
    began: Option<MonoMs>,
    follows: bool,
    containers: Containers,
    processes: Processes,
    groups: Groups,
    meters: Meters,
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
            processes: Processes::new(root, clock),
            groups: Groups::default(),
            meters: Meters::default(),
            units: Units::default(),
            bus: Bus::new(root, clock),
            ports: Ports::new(),
            users: Users::default(),
            began: None,
            follows: false,
            collect,
        }
    }

    /// From now on engines are followed between ticks.
    pub(super) const fn follow(&mut self) {
        self.containers.follow();
        self.follows = true;
    }

    /// Takes stock. Whether it is too early to tell it: what engines and a second look are to add would be told as gone
    /// by a collector that knows it from the run before.
    pub(super) fn take(&mut self, source: &mut Source, sample: &mut Sample, found: &mut Found<'_>) -> bool {
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
            self.meters.read(source, &self.groups);
            let seen = seen(&self.groups, &self.meters, pass);
            let left_out = self.groups.left_out().containers;
            found.happened.extend(self.containers.rows(&seen, left_out, source, sample, found.stock, failures));
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
        let is_first = self.began.is_none();
        let passed_ms = now.since(*self.began.get_or_insert(now));
        self.follows && (is_first || (!self.containers.is_settled() && passed_ms < EARLY_MS))
    }

    /// How well each of these sources was seen at the last tick; what is switched off is said to be.
    pub(super) fn seeing(&self) -> Vec<Seeing> {
        let Collect { containers, processes, ports, units, .. } = self.collect;
        let off = |kind| Seeing::new(kind, State::Off);
        let mut all = self.processes.seeing(processes).to_vec();
        let is_blind = all.first().is_some_and(|processes| processes.state == State::Refused);
        if containers {
            all.extend(self.containers.seeing());
        } else {
            all.push(off(Kind::Engine));
        }
        match (units, containers) {
            (true, _) => all.extend([self.units.seeing(&self.groups), self.bus.seeing()]),
            (false, true) => all.extend([self.units.seeing(&self.groups), off(Kind::Units)]),
            (false, false) => all.extend([off(Kind::Cgroups), off(Kind::Units)]),
        }
        match ports {
            true => all.extend(self.ports.seeing()),
            false => all.extend([off(Kind::Ports), off(Kind::Owners)]),
        }
        if is_blind {
            // All that is seen of them is the agent itself.
            let of_processes = |one: &&mut Seeing| matches!(one.kind, Kind::OpenFiles | Kind::ProcessIo | Kind::Owners);
            let seen = all.iter_mut().filter(of_processes).filter(|one| one.state != State::Off);
            seen.for_each(|one| one.state = State::Refused);
        }
        all
    }

    /// Whatever was asked has answered: another tick would see no other source.
    pub(super) fn is_settled(&self) -> bool {
        self.containers.is_settled() && self.bus.is_settled() && self.ports.is_settled()
    }

    fn look_at_ports(&mut self, source: &mut Source, sample: &Sample, found: &mut Found<'_>) {
        let (pass, containers) = (self.processes.pass(), &self.containers);
        let named = |id: &str| Box::from(containers.name_of(id).unwrap_or_else(|| short(id)));
        let ids = self.groups.found().iter().filter_map(|group| match &group.owner {
            Owner::Container { id, .. } => Some(&**id),
            Owner::Host | Owner::Unit(_) => None,
        });
        let running = |id: &str| Running {
            name: named(id),
            pids: pass.of_container(id).take(PROCESSES_MAX).collect(),
            is_at_rest: self.meters.of(id).is_some_and(|meter| meter.is_at_rest),
        };
        let running: Vec<Running> = ids.map(running).collect();
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

/// Of a container, that ports are told of. Its servers are older than what comes and goes.
const PROCESSES_MAX: usize = 256;

/// The control groups of containers, what each uses, and its first process.
fn seen<'a>(groups: &'a Groups, meters: &Meters, pass: Pass<'_>) -> Vec<Seen<'a>> {
    let of = |group: &'a super::cgroup::Found| match &group.owner {
        Owner::Container { engine, id } => Some((*engine, &**id, meters.of(id)?.usage)),
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

#[cfg(test)]
mod tests {
    use dunlin_shared::time::WallMs;

    use super::*;
    use crate::sample::Sampler;

    #[tokio::test]
    async fn stock_is_too_early_until_engines_were_asked_and_no_longer_than_they_may_take() {
        let sampler = || {
            let sockets = vec!["/nowhere/engine.sock".into()];
            let collect = Collect { sockets, processes: false, ports: false, units: false, ..Collect::default() };
            Sampler::new(Path::new("/"), Clock::start(), std::sync::Arc::default()).collecting(collect)
        };
        assert!(!sampler().sample(MonoMs(0), WallMs(0)).is_early, "who does not stay tells at once");
        let mut staying = sampler().following();
        // Nothing here lets the task that asks the engine run.
        let early = [0, 1, EARLY_MS - 1, EARLY_MS].map(|at| staying.sample(MonoMs(at), WallMs(0)).is_early);
        assert_eq!(early, [true, true, true, false]);
    }
}
