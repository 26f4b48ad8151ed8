//! Which networks of their own containers have, told without entering them and without privilege.
//!
//! The files of `/proc/PID/net` have inodes that belong to one network alone: two processes whose `tcp` has the same one
//! share their network. Of containers that share one, the one that had it at the tick before keeps it, so that its ports
//! do not change their names when another container of a pod starts.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Processes of a container that are asked: one of them may end meanwhile.
const TRIES: usize = 3;

/// The networks of the tick before, by the inode of their `tcp`.
#[derive(Debug, Default)]
pub(super) struct Networks {
    owners: BTreeMap<u64, Box<str>>,
}

/// One that is not the host's.
#[derive(Debug)]
pub(super) struct Network {
    /// The container that it is named after.
    pub(super) owner: Box<str>,
    /// Its `net` directory in `/proc`.
    pub(super) path: PathBuf,
}

impl Networks {
    /// Each network once, by the name of its container. `containers` are their names and processes.
    pub(super) fn look<'a>(
        &mut self,
        root: &Path,
        containers: impl Iterator<Item = (&'a str, &'a [u32])>,
    ) -> Vec<Network> {
        let Some(host) = inode(&root.join("proc/net")) else { return Vec::new() };
        let mut found: BTreeMap<u64, Network> = BTreeMap::new();
        for (name, pids) in containers {
            let look = |pid: &u32| {
                let path = root.join(format!("proc/{pid}/net"));
                inode(&path).map(|inode| (inode, path))
            };
            let Some((inode, path)) = pids.iter().take(TRIES).find_map(look) else { continue };
            if inode == host {
                continue;
            }
            let had = self.owners.get(&inode).map(|name| &**name);
            let is_first = |held: &Network| had == Some(name) || (had != Some(&*held.owner) && name < &*held.owner);
            if found.get(&inode).is_none_or(is_first) {
                found.insert(inode, Network { owner: name.into(), path });
            }
        }
        self.owners = found.iter().map(|(inode, network)| (*inode, network.owner.clone())).collect();
        let mut networks: Vec<Network> = found.into_values().collect();
        networks.sort_unstable_by(|a, b| a.owner.cmp(&b.owner));
        networks
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
        let found = networks.look(tree.path(), containers.iter().copied());
        let shown = |network: Network| {
            let path = network.path.strip_prefix(tree.path()).expect("below the root").display().to_string();
            format!("{} {path}", network.owner)
        };
        found.into_iter().map(shown).collect()
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
