//! What stands on simulated hosts, and how it comes and goes: containers that crash, are stopped, deployed anew and fall
//! sick, the ports that they and the host have open, and process groups.
//!
//! Pure: what stands at a tick follows from seed, node, epoch and tick, as what is measured then does.

use std::net::{IpAddr, Ipv4Addr};

use dunlin_shared::inventory::{
    Container, ContainerState, Engine, Group, Happening, Health, Item, Place, Port, Protocol, Published, Scope, Source,
    Stock, happenings,
};
use dunlin_shared::time::WallMs;

use super::load::mix;

/// A container goes through one of six things in so many ticks; in two of them nothing happens. So a host of two, with
/// what visits it, has something to tell about once in 40 ticks: seven minutes at a tick each 10 s.
const ROUND: u64 = 200;
const CRASHED_TICKS: u64 = 2;
const STOPPED_TICKS: u64 = 6;
const SICK_TICKS: u64 = 4;
/// Of so many containers one is ended by the kernel when it crashes.
const OOM_ONE_OF: u64 = 8;
/// More groups than these would make every telling of a large host long.
const GROUPS_MAX: usize = 32;
/// When what runs since before the first tick was started, about: 2026-01-01.
const BORN: WallMs = WallMs(1_767_225_600_000);
const TICK_MS: i64 = 10_000;

/// Databases stay on loopback: what is open to everybody is an alert of its own.
const SERVICES: [(&str, u16, Ipv4Addr); 10] = [
    ("mysql", 3_306, Ipv4Addr::LOCALHOST),
    ("neo4j", 7_687, Ipv4Addr::LOCALHOST),
    ("elasticsearch", 9_200, Ipv4Addr::LOCALHOST),
    ("weaviate", 8_080, Ipv4Addr::LOCALHOST),
    ("postgres", 5_432, Ipv4Addr::LOCALHOST),
    ("redis", 6_379, Ipv4Addr::LOCALHOST),
    ("queue", 5_672, Ipv4Addr::LOCALHOST),
    ("mail", 25, Ipv4Addr::LOCALHOST),
    ("web", 80, Ipv4Addr::UNSPECIFIED),
    ("gateway", 443, Ipv4Addr::UNSPECIFIED),
];

/// Everything on one host that can be told.
#[derive(Clone, Debug)]
pub(super) struct Household {
    tenants: Vec<Tenant>,
    groups: Vec<Box<str>>,
}

#[derive(Clone, Debug)]
struct Tenant {
    name: Box<str>,
    key: u64,
    phase: u64,
    /// Where in the order of things it begins; not 0, so that counts begin with 0.
    turn: u64,
}

/// How a container is at a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) condition: Condition,
    pub(super) restarts: u32,
    version: u64,
    /// The tick of its last start; before the first one it is negative.
    started: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Well,
    Sick,
    /// Ended by itself at this tick; its engine will start it again.
    Crashed(i64),
    /// Ended because somebody asked for it.
    Stopped(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Incident {
    Crash,
    Stop,
    Deploy,
    Sickness,
    None,
}

impl Household {
    pub(super) fn new<'a>(
        key: u64,
        containers: impl IntoIterator<Item = &'a str>,
        groups: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let tenants = containers.into_iter().map(|name| {
            let key = name.bytes().fold(key, |key, byte| mix(key ^ u64::from(byte)));
            Tenant { name: name.into(), key, phase: key % ROUND, turn: 1 + mix(key) % 6 }
        });
        let groups = groups.into_iter().take(GROUPS_MAX).map(Into::into);
        Self { tenants: tenants.collect(), groups: groups.collect() }
    }

    /// The containers with how they are, in the order in which they were given.
    pub(super) fn states(&self, tick: u64) -> impl Iterator<Item = (&str, State)> {
        self.tenants.iter().map(move |tenant| (&*tenant.name, tenant.state(tick)))
    }

    /// All of it; `visitor` is a process group that is there now and then, with a port.
    pub(super) fn stock(&self, tick: u64, visitor: Option<&str>) -> Stock {
        let mut stock = Stock::default();
        let mut put = |item| {
            stock.put(item);
        };
        for tenant in &self.tenants {
            let state = tenant.state(tick);
            put(tenant.item(state));
            if let Some((port, address)) = tenant.service().filter(|_| state.is_up()) {
                put(listening(address.into(), port, Protocol::Tcp, ("docker-proxy", Some(&tenant.name))));
            }
        }
        put(listening(Ipv4Addr::UNSPECIFIED.into(), 22, Protocol::Tcp, ("sshd", None)));
        put(listening(Ipv4Addr::LOCALHOST.into(), 323, Protocol::Udp, ("chronyd", None)));
        if let Some(visitor) = visitor {
            put(listening(Ipv4Addr::LOCALHOST.into(), 873, Protocol::Tcp, (visitor, None)));
        }
        for name in self.groups.iter().map(|name| &**name).chain(visitor) {
            let (unit, user) = (Some(format!("{name}.service").into()), Some("root".into()));
            put(Item::Group(Group { name: name.into(), container: None, unit, user }));
        }
        let (name, says) = ("docker".into(), "".into());
        put(Item::Source(Source { name, is_working: true, says, left_out: 0 }));
        stock
    }

    /// What an agent sees of its engine between this tick and the one before.
    pub(super) fn happened(&self, tick: u64, at: WallMs) -> Vec<Happening> {
        let Some(before) = tick.checked_sub(1) else { return Vec::new() };
        let steps = self.tenants.iter().map(|tenant| (tenant, tenant.state(before), tenant.state(tick)));
        let steps = steps.filter(|(_, before, after)| before != after);
        steps
            .flat_map(|(tenant, before, after)| happenings(Some(&tenant.item(before)), Some(&tenant.item(after)), at))
            .collect()
    }
}

impl State {
    pub(super) const fn is_up(self) -> bool {
        matches!(self.condition, Condition::Well | Condition::Sick)
    }
}

impl Tenant {
    fn state(&self, tick: u64) -> State {
        let at = tick + self.phase;
        let (round, part) = (at / ROUND, at % ROUND);
        let began = (round * ROUND).cast_signed() - self.phase.cast_signed();
        let condition = match self.incident(round) {
            Incident::Crash if part < CRASHED_TICKS => Condition::Crashed(began),
            Incident::Stop if part < STOPPED_TICKS => Condition::Stopped(began),
            Incident::Sickness if part < SICK_TICKS => Condition::Sick,
            _ => Condition::Well,
        };
        let is_crashed = matches!(condition, Condition::Crashed(_));
        let restarts = (round + self.turn) / 6 - u64::from(is_crashed);
        State {
            condition,
            restarts: u32::try_from(restarts).unwrap_or(u32::MAX),
            version: (round + self.turn + 3) / 6,
            started: self.started(at),
        }
    }

    const fn incident(&self, round: u64) -> Incident {
        match (round + self.turn) % 6 {
            0 => Incident::Crash,
            2 => Incident::Stop,
            3 => Incident::Deploy,
            5 => Incident::Sickness,
            _ => Incident::None,
        }
    }

    /// The newest start, which lies within the last six rounds or before all of them.
    fn started(&self, at: u64) -> i64 {
        let start = |round: u64| {
            let after = match self.incident(round) {
                Incident::Crash => CRASHED_TICKS,
                Incident::Stop => STOPPED_TICKS,
                Incident::Deploy => 0,
                Incident::Sickness | Incident::None => return None,
            };
            Some(round * ROUND + after).filter(|&start| start <= at)
        };
        let newest = (0..=at / ROUND).rev().take(6).find_map(start);
        let earlier = -(mix(self.key) % 100_000).cast_signed();
        newest.map_or(earlier, |start| start.cast_signed() - self.phase.cast_signed())
    }

    fn service(&self) -> Option<(u16, Ipv4Addr)> {
        SERVICES.iter().find(|(name, ..)| *name == &*self.name).map(|&(_, port, address)| (port, address))
    }

    fn item(&self, state: State) -> Item {
        let is_oom_killed = matches!(state.condition, Condition::Crashed(_)) && self.key.is_multiple_of(OOM_ONE_OF);
        let (exit_code, finished) = match state.condition {
            Condition::Well | Condition::Sick => (None, None),
            Condition::Crashed(tick) => (Some(if is_oom_killed { 137 } else { 1 }), Some(time(tick))),
            Condition::Stopped(tick) => (Some(0), Some(time(tick))),
        };
        let published = self.service().map(|(port, address)| Published {
            protocol: Protocol::Tcp,
            address: address.into(),
            port,
            inside: port,
        });
        Item::Container(Box::new(Container {
            name: self.name.clone(),
            id: hex(self.key ^ state.version).into(),
            engine: Engine::Docker,
            is_told: true,
            image: format!("registry.example/{}:{}", self.name, state.version).into(),
            digest: format!("sha256:{}", hex(state.version)).into(),
            state: if state.is_up() { ContainerState::Running } else { ContainerState::Exited },
            health: match state.condition {
                Condition::Well => Health::Healthy,
                Condition::Sick => Health::Unhealthy,
                Condition::Crashed(_) | Condition::Stopped(_) => Health::None,
            },
            restart_policy: "unless-stopped".into(),
            restarts: state.restarts,
            exit_code,
            is_oom_killed,
            is_stop_asked: matches!(state.condition, Condition::Stopped(_)),
            started: Some(time(state.started)),
            finished,
            published: published.into_iter().collect(),
            networks: vec!["bridge".into()],
            memory_limit_bytes: Some(1 << 29),
            compose_project: Some("shop".into()),
            compose_service: Some(self.name.clone()),
            ..Container::default()
        }))
    }
}

fn listening(address: IpAddr, port: u16, protocol: Protocol, (process, container): (&str, Option<&str>)) -> Item {
    let place = Place { network: None, protocol, address, port };
    let (process, container) = (Some(process.into()), container.map(Into::into));
    Item::Port(Port { place, scope: Scope::of(address), process, container, user: Some("root".into()) })
}

fn time(tick: i64) -> WallMs {
    BORN.plus(tick * TICK_MS)
}

/// As long as an id of Docker's.
fn hex(of: u64) -> String {
    (0..4).map(|part| format!("{:016x}", mix(of ^ mix(part)))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use dunlin_agent::told::Told;
    use dunlin_shared::inventory::Inventory;

    use super::*;

    fn household(key: u64) -> Household {
        Household::new(key, ["web", "redis", "worker"], ["sshd", "cron"])
    }

    #[test]
    fn what_is_told_of_it_tick_by_tick_is_what_stands() {
        let household = household(7);
        let (mut told, mut known, mut changes) = (Told::default(), Stock::default(), 0);
        for tick in 0..3 * ROUND {
            let visitor = (tick / 40 % 4 == 3).then_some("backup");
            let stock = household.stock(tick, visitor);
            match told.news(stock.clone(), household.happened(tick, WallMs(1)), WallMs(1)) {
                Some(Inventory::Whole(whole)) => known = Stock::of(whole.items),
                Some(Inventory::Change(change)) => {
                    changes += 1;
                    known.apply(change).expect("it builds on what was told before");
                }
                Some(Inventory::Facts(_)) | None => {}
            }
            assert_eq!(known, stock, "tick {tick}");
        }
        assert!((10..60).contains(&changes), "{changes}");
    }

    #[test]
    fn everything_that_becomes_of_containers_does() {
        let mut whats: BTreeMap<&str, u32> = BTreeMap::new();
        for key in 0..20 {
            let household = household(key);
            for tick in 0..7 * ROUND {
                for happening in household.happened(tick, WallMs(1)) {
                    *whats.entry(happening.what.as_str()).or_default() += 1;
                }
            }
        }
        let expected = [
            "container.crashed",
            "container.healthy",
            "container.image_changed",
            "container.oom_killed",
            "container.restarted",
            "container.started",
            "container.stopped",
            "container.unhealthy",
        ];
        assert_eq!(whats.keys().copied().collect::<Vec<_>>(), expected, "{whats:?}");
        assert!(whats["container.crashed"] > 4 * whats["container.oom_killed"], "{whats:?}");
    }

    #[test]
    fn hosts_differ_and_a_tick_can_be_made_again() {
        let hashes: BTreeSet<u64> = (0..50).map(|key| household(key).stock(5, None).hash().0).collect();
        assert_eq!(hashes.len(), 50);
        assert_eq!(household(3).stock(77, None), household(3).stock(77, None));
    }

    #[test]
    fn restarts_only_rise() {
        for key in 0..20 {
            let household = household(key);
            let restarts = |tick| household.states(tick).map(|(_, state)| state.restarts).collect::<Vec<_>>();
            for tick in 1..14 * ROUND {
                assert!(restarts(tick - 1).iter().zip(restarts(tick)).all(|(before, after)| *before <= after));
            }
        }
    }
}
