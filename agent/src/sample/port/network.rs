//! Which networks of their own containers have, told without entering them and without privilege.
//!
//! The files of `/proc/PID/net` have inodes that belong to one network alone: two processes whose `tcp` has the same one
//! share their network. Of containers that share one, the one that had it at the tick before keeps it, so that its ports
//! do not change their names when another container of a pod starts.
//! What is known of a network stays here while it is there. Its tables are read when their sockets are counted otherwise,
//! when a process that was there at the last reading has ended, and when a listener is no longer held by who held it: so
//! a port that opens is seen at once, one in the place of another as well. Who may not see holders has to see one end.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use dunlin_shared::time::MonoMs;

use super::Running;
use super::socket::Table;
use super::tables::{Effort, Tables};
use super::young::Young;
use crate::sample::source::Source;

/// Networks that are told: each costs two small files a tick, 30 us.
const NETWORKS_MAX: usize = 500;
/// Sockets of one table that are kept: a container with more is not a usual one.
const KEPT_MAX: usize = 512;
/// Each of these intervals one network is read anew whatever is counted in it.
const ANEW_EVERY_MS: u64 = 60_000;
/// What rests has opened and closed nothing. A socket on a drawn port proves first that it stays, which takes two looks;
/// and now and then one looks nevertheless, for others may enter a network from outside.
const SETTLED_TICKS: u32 = 2;
const RESTING_EVERY_TICKS: u32 = 6;
/// Processes of a container that are asked: one of them may end meanwhile.
const TRIES: usize = 3;

/// By the inode of their `tcp`.
#[derive(Debug, Default)]
pub(super) struct Networks {
    known: BTreeMap<u64, Network>,
    anew: Option<MonoMs>,
    /// The one that was read anew last, and the one that was the first to wait for another tick.
    renewed: u64,
    waiting: u64,
    pub(super) is_beyond: bool,
}

/// One that is not the host's.
#[derive(Debug)]
struct Network {
    /// The container that it is named after.
    owner: Box<str>,
    /// Its `net` directory, below the root.
    path: PathBuf,
    tables: Tables,
    /// Processes in it, and those that were in it when its tables were read last; sorted.
    pids: Vec<u32>,
    pids_then: Vec<u32>,
    /// Ticks in which nothing ran that is in it.
    rested: u32,
}

impl Networks {
    /// Finds the networks there are.
    pub(super) fn find(&mut self, root: &Path, containers: &[Running]) {
        let mut found: BTreeMap<u64, Network> = BTreeMap::new();
        let host = inode(&root.join("proc/net"));
        self.is_beyond = false;
        for Running { name, pids, is_at_rest } in containers {
            let name = &**name;
            let look = |pid: &u32| {
                let path = PathBuf::from(format!("proc/{pid}/net"));
                inode(&root.join(&path)).map(|inode| (inode, path))
            };
            let Some((inode, path)) = pids.iter().take(TRIES).find_map(look) else { continue };
            if host.is_none_or(|host| host == inode) {
                continue;
            }
            if found.len() == NETWORKS_MAX && !found.contains_key(&inode) {
                self.is_beyond = true;
                continue;
            }
            let had = self.known.get(&inode).map(|known| &*known.owner);
            let is_first = |held: &Network| had == Some(name) || (had != Some(&*held.owner) && name < &*held.owner);
            let (is_named, rested) = match found.get(&inode) {
                Some(held) => (is_first(held), held.rested.min(u32::from(*is_at_rest))),
                None => (true, u32::from(*is_at_rest)),
            };
            let network = found.entry(inode).or_insert_with(|| Network::of(name, &path));
            if is_named {
                (network.owner, network.path) = (name.into(), path);
            }
            network.rested = rested;
            network.pids.extend(pids);
        }
        for (inode, network) in &mut found {
            network.pids.sort_unstable();
            if let Some(known) = self.known.remove(inode) {
                (network.tables, network.pids_then) = (known.tables, known.pids_then);
                network.rested *= known.rested.saturating_add(1);
                if network.pids_then.iter().any(|pid| network.pids.binary_search(pid).is_err()) {
                    network.tables.doubt();
                }
            }
        }
        self.known = found;
    }

    /// Brings what is known of them up to date, those first that had to wait. One that ends meanwhile is as it was.
    /// `is_lost` is whether a socket is no longer held by who held it.
    pub(super) fn look(
        &mut self,
        source: &mut Source,
        now: MonoMs,
        effort: &mut Effort,
        young: &mut Young,
        mut is_lost: impl FnMut(u64) -> bool,
    ) {
        let is_due = self.anew.is_none_or(|at| now.since(at) >= ANEW_EVERY_MS);
        if is_due {
            self.anew = Some(now);
            let next =
                self.known.range(self.renewed.saturating_add(1)..).chain(&self.known).map(|(inode, _)| *inode).next();
            self.renewed = next.unwrap_or_default();
        }
        let split = self.waiting;
        let (mut before, mut behind): (Vec<_>, Vec<_>) = self.known.iter_mut().partition(|(inode, _)| **inode < split);
        behind.append(&mut before);
        self.waiting = 0;
        for (inode, network) in behind {
            let is_anew = is_due && *inode == self.renewed;
            let rests = network.rested > SETTLED_TICKS && !network.rested.is_multiple_of(RESTING_EVERY_TICKS);
            if rests && !is_anew && !network.tables.is_doubted() {
                network.tables.stand(young);
                continue;
            }
            if network.tables.listeners().any(|socket| is_lost(socket.inode)) {
                network.tables.doubt();
            }
            let was_spent = effort.is_spent;
            network.tables.look(source, &network.path, is_anew, effort, young).ok();
            if network.tables.was_read() {
                network.pids_then.clone_from(&network.pids);
            }
            if effort.is_spent && !was_spent {
                self.waiting = *inode;
            }
        }
    }

    pub(super) fn count(&self) -> usize {
        self.known.len()
    }

    #[cfg(test)]
    pub(super) fn rested(&self) -> Vec<u32> {
        self.known.values().map(|network| network.rested).collect()
    }

    /// What listens in each, by the name of its container, until there are so many.
    pub(super) fn listening(&self, mut room: usize) -> Vec<(Box<str>, Table)> {
        let mut networks: Vec<&Network> = self.known.values().collect();
        networks.sort_unstable_by(|a, b| a.owner.cmp(&b.owner));
        let pour = |network: &Network| {
            let table = network.tables.pour(room);
            room -= table.len();
            (network.owner.clone(), table)
        };
        networks.into_iter().map(pour).collect()
    }
}

impl Network {
    fn of(name: &str, path: &Path) -> Self {
        let (owner, path) = (name.into(), path.to_owned());
        Self { owner, path, tables: Tables::of(KEPT_MAX), pids: Vec::new(), pids_then: Vec::new(), rested: 0 }
    }
}

fn inode(net: &Path) -> Option<u64> {
    fs::metadata(net.join("tcp")).ok().map(|metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::tree::Tree;

    fn look(networks: &mut Networks, tree: &Tree, containers: &[(&str, &[u32])]) -> Vec<String> {
        let running =
            |(name, pids): &(&str, &[u32])| Running { name: (*name).into(), pids: pids.to_vec(), is_at_rest: false };
        networks.find(tree.path(), &containers.iter().map(running).collect::<Vec<_>>());
        let mut found: Vec<_> =
            networks.known.values().map(|network| format!("{} {}", network.owner, network.path.display())).collect();
        found.sort_unstable();
        found
    }

    fn link(tree: &Tree, pid: u32, to: &str) {
        let directory = tree.path().join(format!("proc/{pid}/net"));
        fs::create_dir_all(&directory).expect("it can be made");
        std::os::unix::fs::symlink(tree.path().join(to), directory.join("tcp")).expect("it can be made");
    }

    #[test]
    fn each_network_is_told_once_and_the_hosts_is_none() {
        let tree = Tree::new(&[("proc/net/tcp", ""), ("proc/7/net/tcp", ""), ("proc/9/net/tcp", "")]);
        link(&tree, 5, "proc/net/tcp");
        link(&tree, 8, "proc/7/net/tcp");
        let containers: [(&str, &[u32]); 5] =
            [("web", &[9]), ("host", &[5]), ("pod-b", &[8]), ("pod-a", &[7]), ("gone", &[6])];
        let found = look(&mut Networks::default(), &tree, &containers);
        assert_eq!(found, ["pod-a proc/7/net", "web proc/9/net"]);
    }

    #[test]
    fn who_had_a_network_keeps_it_while_it_is_in_it() {
        let tree = Tree::new(&[("proc/net/tcp", ""), ("proc/7/net/tcp", "")]);
        link(&tree, 8, "proc/7/net/tcp");
        let mut networks = Networks::default();
        assert_eq!(look(&mut networks, &tree, &[("b", &[7])]), ["b proc/7/net"]);
        assert_eq!(look(&mut networks, &tree, &[("a", &[8]), ("b", &[7])]), ["b proc/7/net"]);
        assert_eq!(look(&mut networks, &tree, &[("b", &[7]), ("a", &[8])]), ["b proc/7/net"]);
        assert_eq!(look(&mut networks, &tree, &[("a", &[8])]), ["a proc/8/net"]);
    }

    #[test]
    fn of_a_container_whose_first_process_ended_another_is_asked() {
        let tree = Tree::new(&[("proc/net/tcp", ""), ("proc/9/net/tcp", "")]);
        let found = look(&mut Networks::default(), &tree, &[("web", &[6, 9])]);
        assert_eq!(found, ["web proc/9/net"]);
        assert!(look(&mut Networks::default(), &Tree::new(&[]), &[("web", &[9])]).is_empty());
    }
}
