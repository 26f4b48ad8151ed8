//! What listens: TCP and UDP sockets of the host and of each container's own network, with who holds them.
//!
//! The UDP socket that the agent itself speaks from is left out: `ss` lists it, and nothing listens there.
//! Nothing here enters a network or needs a privilege; without, holders of others' sockets are not seen, and that is said.
//! Invariant: connected sockets cost nothing, and a look takes a bounded time and memory whatever listens.

pub mod diag;
pub mod listing;
mod netlink;
mod network;
mod owner;
mod published;
pub mod socket;
pub mod tables;
#[cfg(test)]
mod tests;
mod young;

use std::path::Path;

use dunlin_shared::inventory::{Item, Place, Port, Protocol, Published, Scope, Source as Seen, Stock};
use dunlin_shared::limits::PORTS_MAX;
use dunlin_shared::time::MonoMs;

use self::netlink::Trouble;
use self::network::Networks;
use self::owner::Owners;
use self::published::{Served, served};
use self::socket::{Socket, Spot, Table};
use self::tables::{Effort, Tables};
use self::young::Young;
use super::failure::{Failures, SampleError};
use super::source::Source;
use super::user::Users;
use crate::sight::{Kind, Seeing, State};

/// Dumps that are taken again because sockets came and went meanwhile; the last one counts.
const TRIES: usize = 3;
/// Tables of TCP that are read in a tick, 5 ms each on a host of 24 GiB and 0.3 on one of 2: the others wait.
const READS_MAX: u32 = 32;
/// Between two looks at the host's own tables whatever is counted in them, where netlink is refused.
const ANEW_EVERY_MS: u64 = 60_000;
const NAME: &str = "ports";
const REFUSED: &str = "no holders of others' ports; a drop-in with AmbientCapabilities= and CapabilityBoundingSet= \
                       CAP_SYS_PTRACE CAP_DAC_READ_SEARCH shows them, and lets the agent read every secret of this host";
const OTHERWISE: &str = "netlink is refused (RestrictAddressFamilies= without AF_NETLINK?) or tells no sockets (modprobe -a tcp_diag udp_diag); /proc/net is read instead";
const CUT: &str = "more UDP sockets than are looked at";
const TOO_MANY: &str = "more containers with networks of their own than are looked at in one tick";

/// What the other parts of a tick know, as far as ports ask for it.
pub(super) struct Around<'a> {
    /// Every process.
    pub(super) pids: &'a dyn Fn() -> Vec<u32>,
    /// The group that a process is counted in.
    pub(super) group_of: &'a dyn Fn(u32) -> Option<Box<str>>,
    /// The name of the container that a process is in.
    pub(super) container_of: &'a dyn Fn(u32) -> Option<Box<str>>,
    pub(super) containers: &'a [Running],
    /// What engines publish of containers that run.
    pub(super) published: &'a [(&'a str, &'a Published)],
}

/// A container that runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Running {
    pub(super) name: Box<str>,
    /// Its processes, lowest first; of many the first.
    pub(super) pids: Vec<u32>,
    /// None of its processes ran since the tick before.
    pub(super) is_at_rest: bool,
}

#[derive(Debug)]
pub(super) struct Ports {
    /// The kernel said that it will not tell: it is not asked again.
    is_refused: bool,
    young: Young,
    /// Of the host, where netlink is refused, and when they were read anew.
    tables: Tables,
    anew: Option<MonoMs>,
    networks: Networks,
    owners: Owners,
    /// At the last look.
    last: Last,
}

/// What a look found, for those who ask how well it saw.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    listed: u32,
    left_out: u32,
    is_broken: bool,
    is_beyond: bool,
}

/// What listens in one network.
#[derive(Debug)]
struct Listening {
    /// The container whose own network it is.
    network: Option<Box<str>>,
    table: Table,
}

/// What could not be seen in a tick.
#[derive(Debug, Default)]
struct Lack {
    is_broken: bool,
    left_out: u32,
}

impl Ports {
    pub(super) fn new() -> Self {
        Self {
            is_refused: false,
            young: Young::default(),
            tables: Tables::of(PORTS_MAX as usize),
            anew: None,
            networks: Networks::default(),
            owners: Owners::default(),
            last: Last::default(),
        }
    }

    /// How well ports, their holders, and the networks of containers were seen at the last look.
    pub(super) fn seeing(&self) -> [Seeing; 3] {
        let Last { listed, left_out, is_broken, is_beyond } = self.last;
        let ports = Seeing::counted(Kind::Ports, listed, listed.saturating_add(left_out));
        let ports = match (is_broken, self.is_refused) {
            (true, _) => Seeing::new(Kind::Ports, State::Failed).says("what listens cannot be read"),
            (_, true) => Seeing { state: State::Partly, ..ports }.says(OTHERWISE),
            _ => ports,
        };
        let (held, of) = self.owners.found();
        let [held, of, networks] = [held, of, self.networks.count()].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        let owners = Seeing::counted(Kind::Owners, held, of);
        // A socket of the kernel, or of another system of processes, has no holder that anybody could see.
        let state =
            if owners.state == State::Partly && !self.owners.is_refused() { State::Works } else { owners.state };
        let networks = match (is_beyond, networks) {
            (true, _) => {
                Seeing { seen: networks, of: networks, ..Seeing::new(Kind::Networks, State::Partly) }.says(TOO_MANY)
            }
            (_, 0) => Seeing::new(Kind::Networks, State::Absent),
            _ => Seeing::counted(Kind::Networks, networks, networks),
        };
        [ports, Seeing { state, ..owners }, networks]
    }

    /// Nothing is under way that the next look would tell better.
    pub(super) const fn is_settled(&self) -> bool {
        self.owners.is_settled()
    }

    pub(super) fn look(
        &mut self,
        source: &mut Source,
        now: MonoMs,
        around: &Around<'_>,
        users: &mut Users,
        stock: &mut Stock,
        failures: &mut Failures,
    ) {
        let mut lack = Lack::default();
        self.young.begin(source, now);
        let mut effort = Effort { reads: READS_MAX, is_spent: false, is_cut: false };
        let host = self.host(source, now, &mut effort, failures);
        lack.is_broken = host.is_none();
        let host = host.unwrap_or_else(|| self.tables.pour(PORTS_MAX as usize));
        self.networks.find(&source.path(""), around.containers);
        let root = source.path("");
        let is_lost = |inode| self.owners.is_lost(&root, inode);
        self.networks.look(source, now, &mut effort, &mut self.young, is_lost);
        self.young.end();
        let inside = self.networks.listening((PORTS_MAX as usize).saturating_sub(host.len()));
        let inside = inside.into_iter().map(|(owner, table)| Listening { network: Some(owner), table });
        let all: Vec<Listening> = std::iter::once(Listening { network: None, table: host }).chain(inside).collect();
        let mut inodes: Vec<u64> = all.iter().flat_map(|one| one.table.sockets()).map(|socket| socket.inode).collect();
        inodes.sort_unstable();
        self.owners.look(&source.path(""), now, &inodes, || (around.pids)());
        let own = owner::own(&source.path(""));
        let is_told = |socket: &&Socket| socket.protocol != Protocol::Udp || !own.contains(&socket.inode);
        let served = served(&all[0].table, around.published.iter().copied());
        for listening in &all {
            lack.left_out = lack.left_out.saturating_add(listening.table.left_out());
            for socket in listening.table.sockets().filter(is_told) {
                let port = self.port(source, users, socket, listening.network.as_deref(), &served, around);
                lack.left_out += u32::from(!stock.put(Item::Port(port)));
            }
        }
        for (spot, container) in &served.bare {
            lack.left_out += u32::from(!stock.put(Item::Port(bare(*spot, container))));
        }
        let listed =
            all.iter().map(|one| one.table.sockets().filter(is_told).count()).sum::<usize>() + served.bare.len();
        self.last = Last {
            listed: u32::try_from(listed).unwrap_or(u32::MAX),
            left_out: lack.left_out,
            is_broken: lack.is_broken,
            is_beyond: effort.is_spent || self.networks.is_beyond,
        };
        stock.put(Item::Source(self.seen(&lack, &effort)));
    }

    /// Of the network that the agent is in. Below a recorded root nothing but files is read.
    fn host(
        &mut self,
        source: &mut Source,
        now: MonoMs,
        effort: &mut Effort,
        failures: &mut Failures,
    ) -> Option<Table> {
        if source.path("") == Path::new("/") && !self.is_refused {
            match self.asked() {
                Ok(table) => return Some(table),
                Err(Trouble::Refused) => self.is_refused = true,
                Err(Trouble::Failed(source)) => failures.note(SampleError::Netlink { source }),
            }
        }
        self.young.restart();
        let is_anew = self.anew.is_none_or(|at| now.since(at) >= ANEW_EVERY_MS);
        if is_anew {
            self.anew = Some(now);
        }
        let outcome = self.tables.look(source, Path::new("proc/net"), is_anew, effort, &mut self.young);
        failures.keep(outcome)?;
        Some(self.tables.pour(PORTS_MAX as usize))
    }

    fn asked(&mut self) -> Result<Table, Trouble> {
        for _ in 1..TRIES {
            let (table, is_interrupted) = self.ask()?;
            if !is_interrupted {
                return Ok(table);
            }
        }
        self.ask().map(|(table, _)| table)
    }

    fn ask(&mut self) -> Result<(Table, bool), Trouble> {
        self.young.restart();
        let mut table = Table::of(PORTS_MAX as usize);
        let is_interrupted = netlink::listeners(|socket| self.young.sift(socket, &mut table))?;
        Ok((table, is_interrupted))
    }

    fn port(
        &mut self,
        source: &mut Source,
        users: &mut Users,
        socket: &Socket,
        network: Option<&str>,
        served: &Served<'_>,
        around: &Around<'_>,
    ) -> Port {
        let holder = self.owners.pid(socket.inode);
        let container = holder.and_then(|pid| (around.container_of)(pid));
        let user = match container.as_deref().or(network) {
            // Numbers within a container are not the host's users.
            Some(_) => socket.uid.to_string().into(),
            None => users.name(source, socket.uid),
        };
        let served = || served.proxied.get(&socket.spot()).filter(|_| network.is_none());
        let scope = match Scope::of(socket.address) {
            // From outside it is reached only where it is published, and that is a port of the host.
            Scope::Any if network.is_some() => Scope::Private,
            scope => scope,
        };
        Port {
            place: place(network, socket.spot()),
            scope,
            process: holder.and_then(|pid| (around.group_of)(pid)),
            container: container.or_else(|| network.or_else(|| served().copied()).map(Box::from)),
            user: Some(user),
        }
    }

    fn seen(&self, lack: &Lack, effort: &Effort) -> Seen {
        let says = [
            (self.owners.is_refused(), REFUSED),
            (effort.is_cut, CUT),
            (effort.is_spent || self.networks.is_beyond, TOO_MANY),
            (self.is_refused, OTHERWISE),
        ];
        let says = says.into_iter().find_map(|(is_so, text)| is_so.then_some(text)).unwrap_or_default();
        Seen { name: NAME.into(), is_working: !lack.is_broken, says: says.into(), left_out: lack.left_out }
    }
}

fn place(network: Option<&str>, (protocol, port, address): Spot) -> Place {
    Place { network: network.map(Box::from), protocol, address, port }
}

/// A published port that no socket serves.
fn bare(spot: Spot, container: &str) -> Port {
    let place = place(None, spot);
    Port { scope: Scope::of(place.address), place, process: None, container: Some(container.into()), user: None }
}

impl std::fmt::Debug for Around<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Around")
            .field("containers", &self.containers)
            .field("published", &self.published)
            .finish_non_exhaustive()
    }
}
