//! Whose processes are whose: containers and services by number, each with its processes in a chain.
//!
//! A number stands in each process, so that a path is read and compared once in a process's life.

use std::sync::Arc;

use dunlin_shared::inventory::Engine;

use super::slots::Slots;
use crate::sample::cgroup::Owner;

/// The end of a chain, and nobody's number.
pub(super) const NONE: u32 = u32::MAX;

const ENGINES: [Engine; 6] =
    [Engine::Docker, Engine::Podman, Engine::Containerd, Engine::Crio, Engine::Lxc, Engine::Unknown];

#[derive(Debug)]
pub(super) struct Owners {
    slots: Slots<Owner, Owned>,
    host: u32,
    /// Changes whenever a container or service came or went.
    generation: u64,
}

/// What an owner has in this tick.
#[derive(Debug, Default)]
pub(super) struct Owned {
    /// Where in the table its first process stands; meaningful after `chain`.
    pub(super) first: u32,
    pub(super) processes: u32,
    pub(super) threads: u64,
    /// Of a container: its name, as its interpreters are called by.
    pub(super) name: Option<Box<str>>,
    /// Its name is another one than at the tick before.
    pub(super) is_renamed: bool,
}

impl Default for Owners {
    fn default() -> Self {
        let mut slots = Slots::default();
        let (host, _) = slots.intern(&Owner::Host, share);
        Self { slots, host, generation: 0 }
    }
}

impl Owners {
    /// Forgets what was counted, and asks for the names of containers.
    pub(super) fn begin(&mut self, name_of: &dyn Fn(&str) -> Option<Box<str>>) {
        for (owner, owned) in self.slots.iter_mut() {
            (owned.first, owned.processes, owned.threads, owned.is_renamed) = (NONE, 0, 0, false);
            if let Owner::Container { id, .. } = owner {
                let name = name_of(id);
                owned.is_renamed = name != owned.name;
                owned.name = name;
            }
        }
    }

    pub(super) fn intern(&mut self, owner: &Owner, name_of: &dyn Fn(&str) -> Option<Box<str>>) -> u32 {
        let (number, is_new) = self.slots.intern(owner, share);
        if is_new {
            self.generation += 1;
            if let Some(owned) = self.slots.value_mut(number) {
                owned.first = NONE;
                owned.name = if let Owner::Container { id, .. } = owner { name_of(id) } else { None };
            }
        }
        number
    }

    pub(super) fn count(&mut self, number: u32, threads: u64) {
        if let Some(owned) = self.slots.value_mut(number) {
            owned.processes += 1;
            owned.threads = owned.threads.saturating_add(threads);
        }
    }

    pub(super) fn is_renamed(&self, number: u32) -> bool {
        self.slots.get(number).is_some_and(|(_, owned)| owned.is_renamed)
    }

    /// Everything is counted: who has no process left is forgotten.
    pub(super) fn end(&mut self) {
        let host = self.host;
        let gone = self.slots.retain(|number, _, owned| number == host || owned.processes > 0);
        self.generation += gone as u64;
    }

    /// Puts the process at `place` in front of its owner's chain. Returns the one behind it.
    pub(super) fn chain(&mut self, number: u32, place: u32) -> u32 {
        let Some(owned) = self.slots.value_mut(number) else { return NONE };
        std::mem::replace(&mut owned.first, place)
    }

    pub(super) fn get(&self, number: u32) -> (&Owner, Option<&Owned>) {
        self.slots.get(number).map_or((&Owner::Host, None), |(owner, owned)| (owner, Some(owned)))
    }

    pub(super) fn owned(&self, owner: &Owner) -> Option<&Owned> {
        self.slots.get(self.slots.number(owner)?).map(|(_, owned)| owned)
    }

    /// By a container's id alone: no two engines draw the same one.
    pub(super) fn container(&self, id: &str) -> Option<&Owned> {
        ENGINES.into_iter().find_map(|engine| self.owned(&Owner::Container { engine, id: id.into() }))
    }

    pub(super) const fn host(&self) -> u32 {
        self.host
    }

    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }
}

fn share(owner: &Owner) -> Arc<Owner> {
    Arc::new(owner.clone())
}
