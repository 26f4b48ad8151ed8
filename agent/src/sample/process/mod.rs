//! Processes: one pass over `/proc/N/stat` a tick tells how many there are, which groups they form, and whose they are.
//!
//! Of a command line the program's base name is kept, and an interpreter's script; nothing else leaves `command.rs`.
//! Invariant: a tick reads one small file a process, and more only of processes that are new or whose groups are told.

pub mod command;
mod detail;
mod group;
mod owners;
mod rank;
mod reader;
mod slots;
pub mod stat;
mod table;
mod who;

use std::path::Path;

use dunlin_shared::inventory::{Group as GroupItem, Item, Source as SourceItem, Stock};
use dunlin_shared::sample::Sample;
use dunlin_shared::time::{MonoMs, WallMs};

use self::group::{Agreed, Groups};
use self::owners::{NONE, Owners};
use self::reader::Reader;
use self::table::{Counted, Table, short};
use self::who::{ANSWER_MS, Asker};
use super::cgroup::Owner;
use super::cpu::TICKS_PER_S;
use super::failure::{Failures, SampleError};
use super::source::Source;
use super::user::Users;
use super::{float, metric, put};
use crate::clock::Clock;
use crate::config::Collect;
use crate::sight::{Kind, Seeing, State};

/// There is always a first process; who does not see it would count its own alone.
const HIDDEN: &str =
    "the processes of others are hidden from the agent (hidepid, ProtectProc), so that they cannot be counted";
const HIDDEN_ITEM: &str = "processes of others are hidden from the agent by hidepid or ProtectProc=";
const IO_HIDDEN: &str = "bytes read and written by other users' processes need CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH";
const FILES_HIDDEN: &str =
    "open files and bytes read and written of other users' processes need CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH";
/// A clock that is slewed moves the boot time that follows from it by less.
const BOOT_MOVES_S: i64 = 2;

#[derive(Debug)]
pub(super) struct Processes {
    asker: Asker,
    table: Table,
    owners: Owners,
    groups: Groups,
    tick: u32,
    looked: Option<MonoMs>,
    uptime_ticks: Option<u64>,
    /// In seconds since the Unix epoch.
    boot_s: Option<i64>,
    counted: Counted,
    is_hidden: bool,
    detail: detail::Seen,
}

/// The processes as they are in this tick.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass<'a>(&'a Processes);

/// What a pass is told.
pub(super) struct Asked<'a> {
    pub(super) now: MonoMs,
    pub(super) wall: WallMs,
    pub(super) collect: &'a Collect,
    /// The name of the container with this id.
    pub(super) name_of: &'a dyn Fn(&str) -> Option<Box<str>>,
}

impl Processes {
    pub(super) fn new(root: &Path, clock: Clock) -> Self {
        Self {
            asker: Asker::of(root, clock),
            table: Table::default(),
            owners: Owners::default(),
            groups: Groups::default(),
            tick: 0,
            looked: None,
            uptime_ticks: None,
            boot_s: None,
            counted: Counted::default(),
            is_hidden: false,
            detail: detail::Seen::default(),
        }
    }

    /// Looks at every process, and ranks their groups.
    pub(super) fn look(&mut self, source: &mut Source, asked: &Asked<'_>, failures: &mut Failures) {
        let passed_s = self.looked.map(|at| float(asked.now.since(at)) / 1e3);
        let (is_first, watch) = (self.looked.is_none(), &asked.collect.watch);
        self.tick = self.tick.wrapping_add(1);
        self.read_boot(source, asked.wall);
        let Some(reader) = failures.keep(Reader::open(source)) else { return };
        match self.table.list(&reader) {
            Ok(has_first) => self.is_hidden = !has_first,
            Err(error) => return failures.note(SampleError::Unreadable { path: source.path("proc"), source: error }),
        }
        if self.is_hidden {
            failures.note(SampleError::Absent { path: source.path("proc/1"), why: HIDDEN });
        }
        self.looked = Some(asked.now);
        self.owners.begin(asked.name_of);
        self.groups.begin();
        self.counted = self.table.pass(&mut table::Pass {
            reader: &reader,
            asker: &mut self.asker,
            owners: &mut self.owners,
            groups: &mut self.groups,
            name_of: asked.name_of,
            is_grouped: asked.collect.processes,
            is_first,
            tick: self.tick,
            uptime_ticks: self.uptime_ticks,
        });
        self.note(source, failures);
        if asked.collect.processes {
            self.groups.end(passed_s, self.uptime_ticks, watch);
            let own = source.path("proc/self/fd");
            let is_counted = rustix::fs::stat(&own).is_ok_and(|own| own.st_size > 0);
            let processes = &mut self.table.processes;
            self.detail = detail::detail(&reader, processes, &mut self.groups, self.tick, is_counted);
        }
    }

    pub(super) const fn pass(&self) -> Pass<'_> {
        Pass(self)
    }

    /// What of the processes was seen at the last tick. `is_grouped`: their groups are wanted.
    pub(super) fn seeing(&self, is_grouped: bool) -> [Seeing; 3] {
        let processes = u32::try_from(self.counted.processes).unwrap_or(u32::MAX);
        let counted = Seeing::counted(Kind::Processes, processes, processes.saturating_add(self.counted.left_out));
        let all = match (self.is_hidden, self.counted.processes) {
            (true, _) => Seeing { state: State::Refused, ..counted },
            (_, 0) => Seeing::new(Kind::Processes, State::Failed).says("none can be read"),
            _ => counted,
        };
        let detail::Seen { asked, files_hidden, io_hidden } = self.detail;
        let of = |kind, hidden: u32| match is_grouped {
            true => Seeing::counted(kind, asked.saturating_sub(hidden), asked),
            false => Seeing::new(kind, State::Off),
        };
        [all, of(Kind::OpenFiles, files_hidden), of(Kind::ProcessIo, io_hidden)]
    }

    /// How many there are.
    pub(super) fn count(&self, sample: &mut Sample) {
        if !self.is_hidden && self.counted.processes > 0 {
            put(sample, const { metric("host_processes") }, float(self.counted.processes as u64));
            put(sample, const { metric("host_processes_zombie") }, float(self.counted.zombies));
        }
    }

    /// The groups that are told: their rows and their items.
    pub(super) fn tell(
        &self,
        source: &mut Source,
        users: &mut Users,
        sample: &mut Sample,
        stock: &mut Stock,
        failures: &mut Failures,
    ) {
        let mut left_out = self.groups.left_out().saturating_add(self.counted.left_out);
        // A group of those processes alone that may be seen would be a wrong number.
        let told = self.groups.told().filter(|_| !self.is_hidden);
        for (name, group) in told.filter_map(|number| self.groups.get(number)) {
            self.rows(group, sample);
            let (container, unit) = self.whose(group.now.owner);
            let user = match group.now.user {
                // Numbers within a container are not the host's users.
                Agreed::On(user) if container.is_some() => Some(user.to_string().into()),
                Agreed::On(user) => Some(users.name(source, user)),
                Agreed::Nobody | Agreed::Not => None,
            };
            let item = GroupItem { name: name.into(), container, unit, user };
            left_out = left_out.saturating_add(u32::from(!stock.put(Item::Group(item))));
        }
        let (is_files_hidden, is_io_hidden) = (self.detail.files_hidden > 0, self.detail.io_hidden > 0);
        let says = match (self.is_hidden, is_files_hidden, is_io_hidden) {
            (true, ..) => HIDDEN_ITEM,
            (_, true, _) => FILES_HIDDEN,
            (_, _, true) => IO_HIDDEN,
            _ => "",
        };
        for (is_hidden, file, why) in
            [(is_files_hidden, "proc/N/fd", FILES_HIDDEN), (is_io_hidden && !is_files_hidden, "proc/N/io", IO_HIDDEN)]
        {
            if is_hidden && !self.is_hidden {
                failures.note(SampleError::Absent { path: source.path(file), why });
            }
        }
        let is_working = !self.is_hidden && self.counted.processes > 0;
        stock.put(Item::Source(SourceItem { name: "processes".into(), is_working, says: says.into(), left_out }));
    }

    fn rows(&self, group: &group::Group, sample: &mut Sample) {
        let (Some(subject), now) = (&group.subject, &group.now) else { return };
        let memory = float(now.pages) * float(rustix::param::page_size() as u64);
        sample.push(subject, const { metric("process_count") }, float(now.count));
        sample.push(subject, const { metric("process_cpu_seconds") }, float(group.cpu_ticks) / TICKS_PER_S);
        sample.push(subject, const { metric("process_memory_bytes") }, memory);
        sample.push(subject, const { metric("process_threads") }, float(now.threads));
        if !now.is_files_hidden {
            sample.push(subject, const { metric("process_files_open") }, float(now.files));
        }
        if !now.is_io_hidden {
            sample.push(subject, const { metric("process_read_bytes") }, float(group.read_bytes));
            sample.push(subject, const { metric("process_written_bytes") }, float(group.written_bytes));
        }
        if let Some((boot_s, start)) = self.boot_s.zip(now.oldest_ticks) {
            let start_s = i64::try_from(start / 100).unwrap_or(i64::MAX);
            let since = u64::try_from(boot_s.saturating_add(start_s)).unwrap_or(0);
            sample.push(subject, const { metric("process_oldest_start_seconds") }, float(since));
        }
    }

    /// The container or the service that all of a group's processes are in.
    fn whose(&self, owner: Agreed) -> (Option<Box<str>>, Option<Box<str>>) {
        let Agreed::On(number) = owner else { return (None, None) };
        match self.owners.get(number) {
            (Owner::Host, _) => (None, None),
            (Owner::Unit(name), _) => (None, Some(name.clone())),
            (Owner::Container { id, .. }, owned) => {
                let name = owned.and_then(|owned| owned.name.clone());
                (Some(name.unwrap_or_else(|| short(id).into())), None)
            }
        }
    }

    fn read_boot(&mut self, source: &mut Source, wall: WallMs) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float cast saturates")]
        let ticks = source.number("proc/uptime").map(|seconds| (seconds * TICKS_PER_S) as u64);
        self.uptime_ticks = ticks;
        let up_s = ticks.and_then(|ticks| i64::try_from(ticks / 100).ok());
        let boot_s = up_s.map(|up_s| (wall.0 / 1_000).saturating_sub(up_s));
        let has_moved =
            |boot_s: &i64| self.boot_s.is_none_or(|known| known.abs_diff(*boot_s) > BOOT_MOVES_S.unsigned_abs());
        if let Some(boot_s) = boot_s.filter(has_moved) {
            self.boot_s = Some(boot_s);
        }
    }

    /// What some process did not tell; the first one names the cause.
    fn note(&self, source: &Source, failures: &mut Failures) {
        if let Some((pid, error)) = self.counted.refused.filter(|_| !self.is_hidden) {
            let path = source.path(format!("proc/{pid}/stat"));
            failures.note(SampleError::Unreadable { path, source: error.into() });
        }
        if let Some(pid) = self.counted.hung {
            failures.note(SampleError::Silent { pid, limit_ms: ANSWER_MS });
        }
        if let Some(pid) = self.counted.odd {
            let path = source.path(format!("proc/{pid}/stat"));
            failures.note(SampleError::malformed(&path, 0, "not the columns of a process"));
        }
    }
}

#[cfg_attr(not(test), expect(dead_code, reason = "containers and ports are to ask it"))]
impl<'a> Pass<'a> {
    /// The name of the process's group.
    pub(super) fn group_of(self, pid: u32) -> Option<&'a str> {
        let group = self.0.table.find(pid)?.group?;
        self.0.groups.get(group).map(|(name, _)| name)
    }

    /// The host, for what it does not know.
    pub(super) fn owner_of(self, pid: u32) -> &'a Owner {
        let number = self.0.table.find(pid).map_or(self.0.owners.host(), |process| process.owner);
        self.0.owners.get(number).0
    }

    /// The processes of a container, lowest first.
    pub(super) fn of_container(self, id: &str) -> impl Iterator<Item = u32> + 'a {
        self.chained(self.0.owners.container(id).map_or(NONE, |owned| owned.first))
    }

    /// All of them, lowest first, threads of the kernel apart.
    pub(super) fn pids(self) -> impl Iterator<Item = u32> + 'a {
        self.0.table.processes.iter().map(|process| process.pid)
    }

    /// The effective user; not known in a process's first ten seconds, in which services put off their privileges.
    pub(super) fn user_of(self, pid: u32) -> Option<u32> {
        self.0.table.find(pid)?.user
    }

    /// Processes and threads of an owner.
    pub(super) fn tasks_of(self, owner: &Owner) -> Option<u64> {
        self.0.owners.owned(owner).map(|owned| owned.threads)
    }

    /// Changes whenever a container or a service came or went.
    pub(super) const fn generation(self) -> u64 {
        self.0.owners.generation()
    }

    fn chained(self, first: u32) -> impl Iterator<Item = u32> + 'a {
        let processes = &self.0.table.processes;
        let mut at = first;
        std::iter::from_fn(move || {
            let process = processes.get(at as usize)?;
            at = process.next;
            Some(process.pid)
        })
    }
}

#[cfg(test)]
mod tests;
