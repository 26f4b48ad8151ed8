//! Process groups: what all processes of one name are and use together.
//!
//! Counters are sums of what was added from tick to tick, so that they never fall when a process ends or takes another
//! name. A group that was told and has no processes left is remembered, so that it goes on where it stood.

use dunlin_shared::sample::{Subject, SubjectKind};

use super::rank::{Candidate, Ranks};
use super::slots::Slots;
use super::stat::Stat;
use crate::sample::cpu::TICKS_PER_S;
use crate::sample::float;

/// Names at once. A process that makes up names could fill the memory otherwise.
const GROUPS_MAX: usize = 4_096;
/// Of those that were told once. Forgotten, a group begins at zero again, as after a start of the agent.
const REMEMBERED_MAX: usize = 512;
/// The time over which a group's use of processors is smoothed for its rank.
const SMOOTHED_S: f64 = 60.0;

#[derive(Debug, Default)]
pub(super) struct Groups {
    slots: Slots<str, Group>,
    ranks: Ranks,
    ticks: u64,
    left_out: u32,
}

#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) cpu_ticks: u64,
    pub(super) read_bytes: u64,
    pub(super) written_bytes: u64,
    pub(super) now: Now,
    load: f64,
    cpu_before: u64,
    pub(super) is_told: bool,
    /// It has series that somebody may hold.
    was_told: bool,
    is_watched: bool,
    /// The last tick at which it had a process.
    seen: u64,
    /// Made when it is told first.
    pub(super) subject: Option<Subject>,
}

/// What a group has in this tick.
#[derive(Clone, Debug, Default)]
pub(super) struct Now {
    pub(super) count: u64,
    pub(super) threads: u64,
    pub(super) pages: u64,
    pub(super) oldest_ticks: Option<u64>,
    pub(super) owner: Agreed,
    pub(super) user: Agreed,
    pub(super) files: u64,
    /// Of some process they cannot be told, so that a sum would be wrong.
    pub(super) is_files_hidden: bool,
    pub(super) is_io_hidden: bool,
}

/// Whether all that were asked said the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Agreed {
    #[default]
    Nobody,
    On(u32),
    Not,
}

impl Agreed {
    pub(super) const fn ask(&mut self, answer: Option<u32>) {
        *self = match (*self, answer) {
            (Self::Nobody, Some(answer)) => Self::On(answer),
            (Self::On(known), Some(answer)) if known == answer => Self::On(known),
            _ => Self::Not,
        };
    }
}

impl Group {
    pub(super) fn count(&mut self, stat: &Stat, owner: u32) {
        let now = &mut self.now;
        now.count += 1;
        now.threads = now.threads.saturating_add(stat.threads);
        now.pages = now.pages.saturating_add(stat.resident_pages);
        now.oldest_ticks = Some(now.oldest_ticks.map_or(stat.start_ticks, |oldest| oldest.min(stat.start_ticks)));
        now.owner.ask(Some(owner));
    }
}

impl Groups {
    pub(super) fn begin(&mut self) {
        self.ticks += 1;
        self.left_out = 0;
        for (_, group) in self.slots.iter_mut() {
            group.now = Now::default();
        }
    }

    /// None when there are too many.
    pub(super) fn intern(&mut self, name: &str) -> Option<u32> {
        if self.slots.len() >= GROUPS_MAX && self.slots.number(name).is_none() {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        Some(self.slots.intern(name, |name| name.into()).0)
    }

    pub(super) fn group_mut(&mut self, group: u32) -> Option<&mut Group> {
        self.slots.value_mut(group)
    }

    pub(super) fn get(&self, group: u32) -> Option<(&str, &Group)> {
        self.slots.get(group)
    }

    /// Those that are told, in the order in which they came.
    pub(super) fn told(&self) -> impl Iterator<Item = u32> {
        self.ranks.told()
    }

    pub(super) const fn left_out(&self) -> u32 {
        self.left_out
    }

    /// Everything is counted: ranks the groups, and forgets what nobody needs. `passed_s` since the tick before; at the
    /// first one, when nothing can be said of that, a group's rank is what it used since its start, `uptime_ticks` ago.
    pub(super) fn end(&mut self, passed_s: Option<f64>, uptime_ticks: Option<u64>, watch: &[String]) {
        for name in watch {
            if let Some(group) = self.intern(name).and_then(|number| self.slots.value_mut(number)) {
                group.is_watched = true;
            }
        }
        let ticks = self.ticks;
        for (_, group) in self.slots.iter_mut() {
            group.smooth(passed_s, uptime_ticks);
            if group.now.count > 0 {
                group.seen = ticks;
            }
        }
        let candidate = |(number, _, group): (u32, &str, &Group)| Candidate {
            group: number,
            // Without a process it is on its way out, however busy it was.
            load: if group.now.count > 0 { group.load } else { 0.0 },
            memory: group.now.pages,
            is_watched: group.is_watched,
        };
        let is_here = |group: &Group| group.now.count > 0 || group.is_told || group.is_watched;
        let here = self.slots.iter().filter(|(.., group)| is_here(group));
        let mut candidates: Vec<Candidate> = here.map(candidate).collect();
        self.ranks.turn(&mut candidates);
        for (_, group) in self.slots.iter_mut() {
            group.is_told = false;
        }
        for number in self.ranks.told() {
            if let Some(group) = self.slots.value_mut(number) {
                (group.is_told, group.was_told) = (true, true);
            }
        }
        self.name_subjects();
        self.forget();
    }

    fn name_subjects(&mut self) {
        for (name, group) in self.slots.iter_mut().filter(|(_, group)| group.is_told && group.subject.is_none()) {
            group.subject = Subject::new(SubjectKind::Process, name);
        }
    }

    fn forget(&mut self) {
        let is_kept = |group: &Group| group.now.count > 0 || group.is_told || group.is_watched;
        let ended: Vec<u64> =
            self.slots.iter().filter(|(.., group)| !is_kept(group) && group.was_told).map(|(.., g)| g.seen).collect();
        let mut ended = ended;
        let beyond = ended.len().saturating_sub(REMEMBERED_MAX);
        ended.sort_unstable();
        // Those that ended longest ago, and with them all of the same tick.
        let forgotten = beyond.checked_sub(1).and_then(|last| ended.get(last).copied());
        self.slots.retain(|_, _, group| {
            is_kept(group) || (group.was_told && forgotten.is_none_or(|forgotten| group.seen > forgotten))
        });
    }
}

impl Group {
    fn smooth(&mut self, passed_s: Option<f64>, uptime_ticks: Option<u64>) {
        let added = float(self.cpu_ticks - self.cpu_before) / TICKS_PER_S;
        self.cpu_before = self.cpu_ticks;
        match passed_s {
            Some(passed_s) => {
                let weight = passed_s / (passed_s + SMOOTHED_S);
                if passed_s > 0.0 {
                    self.load += (added / passed_s - self.load) * weight;
                }
            }
            None => {
                let age = uptime_ticks.zip(self.now.oldest_ticks).map(|(up, start)| up.saturating_sub(start));
                self.load = age.map_or(0.0, |age| added / (float(age) / TICKS_PER_S).max(1.0));
            }
        }
    }
}
