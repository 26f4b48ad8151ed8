//! Control groups: whose a process is, which groups of containers and services there are, and what each of them uses.
//!
//! Versions 1, 2 and both at once. Finding the groups costs a walk, so it is done anew only when owners came or went, and
//! once a minute. A controller that a group does not have is an absent value, never a failure.

pub mod hierarchy;
pub mod owner;
pub mod parse;
mod usage;
mod walk;

use std::path::PathBuf;

use dunlin_shared::time::MonoMs;

use self::hierarchy::Hierarchy;
pub(super) use self::owner::{Owner, owner_of};
pub(super) use self::usage::{Part, Usage};
pub(super) use self::walk::LeftOut;
use super::failure::{Failures, SampleError};
use super::source::Source;

/// Of a group at rest everything is read at one tick of so many, its turn by its place.
pub(super) const EVERY_TICKS: u32 = 6;
/// What no process shows, such as a group whose processes are hidden, is found so late.
const WALK_EVERY_MS: u64 = 60_000;
/// Mounts of control groups do not change while a host runs, except where an agent is started very early.
const MOUNTS_EVERY_MS: u64 = 600_000;
/// Where there are none.
pub(super) const NO_VERSION: &str = "no control groups";
const NONE: &str = "no control groups are mounted, so that containers and services have no numbers of their own";

/// The control groups of containers and services.
#[derive(Debug, Default)]
pub(super) struct Groups {
    hierarchies: Vec<Hierarchy>,
    mounts_read: Option<MonoMs>,
    /// When, and for which generation of the owners.
    walked: Option<(MonoMs, u64)>,
    found: Vec<Found>,
    left_out: LeftOut,
}

/// The control group of one container or service, in each hierarchy that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) owner: Owner,
    places: Vec<Place>,
}

/// A path below the mount points of some hierarchies: mostly one path stands in all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    path: Box<str>,
    /// A bit for each hierarchy, in their order.
    hierarchies: u32,
}

impl Groups {
    /// Brings the list of groups up to date. `owners` changes whenever a container or service came or went.
    pub(super) fn walk(&mut self, source: &mut Source, now: MonoMs, owners: u64, failures: &mut Failures) -> &[Found] {
        let is_due = |at: Option<MonoMs>, every_ms| at.is_none_or(|at| now.since(at) >= every_ms);
        if is_due(self.mounts_read, MOUNTS_EVERY_MS) {
            self.mounts_read = Some(now);
            self.hierarchies = hierarchy::mounted(source);
            self.walked = None;
        }
        if self.hierarchies.is_empty() {
            failures.note(SampleError::Absent { path: source.path("sys/fs/cgroup"), why: NONE });
        }
        if self.walked.is_none_or(|(at, of)| of != owners || now.since(at) >= WALK_EVERY_MS) {
            self.walked = Some((now, owners));
            (self.found, self.left_out) = walk::walk(source, &self.hierarchies);
        }
        &self.found
    }

    /// Containers by engine and id, then services by name.
    pub(super) fn found(&self) -> &[Found] {
        &self.found
    }

    /// Groups beyond what is looked at.
    pub(super) const fn left_out(&self) -> LeftOut {
        self.left_out
    }

    /// Which versions there are, in words.
    pub(super) fn version(&self) -> &'static str {
        let unified = self.hierarchies.iter().any(|one| one.is_unified);
        let split = self.hierarchies.iter().any(|one| !one.is_unified && one.controllers != hierarchy::NAMES);
        if self.hierarchies.is_empty() {
            return NO_VERSION;
        }
        match (split, unified) {
            (true, true) => "control groups 1 and 2",
            (true, false) => "control groups 1",
            (false, true) => "control groups 2",
            (false, false) => "control groups 1 without a controller",
        }
    }

    /// One part of what a group uses, into `usage`. What its hierarchies do not tell is absent.
    pub(super) fn read(&self, source: &mut Source, found: &Found, part: Part, usage: &mut Usage) {
        usage.read(source, part, |controller| self.dir(found, controller));
    }

    /// Where a controller's files of a group are: in the controller's own hierarchy, or else in that of version 2.
    fn dir(&self, found: &Found, controller: u8) -> Option<(PathBuf, bool)> {
        let dir = |is_wanted: &dyn Fn(&Hierarchy) -> bool| {
            let (index, hierarchy) = self.hierarchies.iter().enumerate().find(|(_, one)| is_wanted(one))?;
            let place = found.places.iter().find(|place| place.hierarchies & (1 << index) != 0)?;
            Some((hierarchy.point.join(&*place.path), hierarchy.is_unified))
        };
        dir(&|one| one.controllers & controller != 0).or_else(|| dir(&|one| one.is_unified))
    }
}

#[cfg(test)]
mod tests;
