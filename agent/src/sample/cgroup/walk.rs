//! Finds the groups of containers and services below the mount points of the hierarchies.
//!
//! A container's group is not entered: what is below belongs to it. A service's is, for an engine that runs as a service
//! or for a user keeps its containers there.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::hash::BuildHasher as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use dunlin_shared::limits::{CONTAINERS_MAX, UNITS_MAX};

use super::hierarchy::Hierarchy;
use super::owner::owner_of_path;
use super::{Found, Owner, Place};
use crate::sample::source::Source;

/// Of all hierarchies together; 5,000 containers in five of them. An empty one takes 3 us to look at.
const DIRECTORIES_MAX: usize = 32_768;
/// Kubernetes has four, a container of a user within a container some ten.
const DEPTH_MAX: usize = 16;

/// What found no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::sample) struct LeftOut {
    pub(in crate::sample) containers: u32,
    /// And directories that were not looked into, whatever they are.
    pub(in crate::sample) others: u32,
}

/// In order, and how many were left out: containers take no room from services, nor the other way round.
pub(super) fn walk(source: &Source, hierarchies: &[Hierarchy]) -> (Vec<Found>, LeftOut) {
    let mut walk = Walk::default();
    for (index, hierarchy) in hierarchies.iter().enumerate() {
        walk.hierarchy(&source.path(&hierarchy.point), 1 << index);
    }
    let mut found: Vec<Found> = walk.found.into_iter().map(|(owner, places)| Found { owner, places }).collect();
    found.sort_by(|a, b| key(&a.owner).cmp(&key(&b.owner)));
    (found, LeftOut { containers: u32::try_from(walk.beyond.len()).unwrap_or(u32::MAX), others: walk.left_out })
}

fn key(owner: &Owner) -> (u8, &str) {
    match owner {
        Owner::Container { engine, id } => (*engine as u8, id),
        Owner::Unit(name) => (u8::MAX - 1, name),
        Owner::Host => (u8::MAX, ""),
    }
}

#[derive(Default)]
struct Walk {
    found: HashMap<Owner, Vec<Place>>,
    containers: usize,
    directories: usize,
    /// Containers that found no room, by a hash of their ids: each has a group in several hierarchies.
    beyond: HashSet<u64>,
    left_out: u32,
}

impl Walk {
    fn hierarchy(&mut self, point: &Path, bit: u32) {
        let mut waiting = vec![(String::new(), 0)];
        while let Some((path, depth)) = waiting.pop() {
            for name in below(&point.join(&path)) {
                self.directories += 1;
                if self.directories > DIRECTORIES_MAX {
                    self.left_out = self.left_out.saturating_add(1);
                    continue;
                }
                let child = if path.is_empty() { name } else { format!("{path}/{name}") };
                let owner = owner_of_path(&child);
                let is_container = matches!(owner, Owner::Container { .. });
                if owner != Owner::Host {
                    self.put(owner, &child, bit);
                }
                if !is_container && depth < DEPTH_MAX {
                    waiting.push((child, depth + 1));
                }
            }
        }
    }

    /// Of a service the group that is nearest to the root, which holds all others of it: it is met first.
    fn put(&mut self, owner: Owner, path: &str, bit: u32) {
        if !self.found.contains_key(&owner) {
            match &owner {
                Owner::Container { id, .. } if self.containers >= CONTAINERS_MAX as usize => {
                    self.beyond.insert(self.found.hasher().hash_one(id));
                    return;
                }
                Owner::Container { .. } => self.containers += 1,
                _ if self.found.len() - self.containers >= UNITS_MAX as usize => {
                    self.left_out = self.left_out.saturating_add(1);
                    return;
                }
                _ => {}
            }
        }
        let places = self.found.entry(owner).or_default();
        if places.iter().any(|place| place.hierarchies & bit != 0) {
            return;
        }
        match places.iter_mut().find(|place| &*place.path == path) {
            Some(place) => place.hierarchies |= bit,
            None => places.push(Place { path: path.into(), hierarchies: bit }),
        }
    }
}

/// The names of the directories in one. A name that is no text is nobody's that we know.
fn below(dir: &Path) -> Vec<String> {
    // A directory that has none inside has two links: its name and its own dot. Listing its files would be in vain.
    if fs::metadata(dir).is_ok_and(|found| found.nlink() == 2) {
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let dirs = entries.flatten().filter(is_dir).filter_map(|entry| entry.file_name().into_string().ok());
    dirs.take(DIRECTORIES_MAX).collect()
}
