//! The processes of the host as they are, brought up to date by one pass over `/proc/N/stat`.
//!
//! Who a process is, is read once for each (pid, start), and again when it takes another name, as at the start of another
//! program. Invariant: the table is sorted by pid, and holds no thread of the kernel.

use rustix::io::Errno;

use super::command::called;
use super::detail::Detail;
use super::group::Groups;
use super::owners::{NONE, Owners};
use super::reader::Reader;
use super::stat::{NAME_BYTES, Stat, user};
use crate::sample::cgroup::{Owner, owner_of};
use crate::sample::name::shown;

/// More than a host of the fleet runs; 4 MiB. Beyond it processes are counted and nothing else.
const PROCESSES_MAX: usize = 32_768;
/// A thread of the kernel seldom ends, and a pid comes back late: each is looked at so often, and else counted.
const KERNEL_EVERY_TICKS: u32 = 6;
/// A service has put off its privileges by then.
const SETTLED_TICKS: u64 = 10 * 100;
/// Users asked for in one tick, 20 us each.
const USERS_MAX: usize = 256;
/// Names of classes stand behind a class path, which may be long.
const TEXT_BYTES: usize = 32 * 1024;
/// 52 numbers and a name.
const STAT_BYTES: usize = 2 * 1024;
const CGROUP_BYTES: usize = 4 * 1024;
const STATUS_BYTES: usize = 4 * 1024;
/// What stands in front of a container's name where nobody tells one.
const ID_SHOWN: usize = 12;

#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// None for what ended before it was seen, and where there are too many groups.
    pub(super) group: Option<u32>,
    pub(super) owner: u32,
    pub(super) user: Option<u32>,
    /// The place of the next process of its owner.
    pub(super) next: u32,
    pub(super) is_ended: bool,
    name: [u8; NAME_BYTES],
    start_ticks: u64,
    pub(super) cpu_ticks: u64,
    /// As its `stat` has it.
    pub(super) resident_pages: u64,
    threads: u64,
    pub(super) detail: Detail,
}

#[derive(Debug)]
pub(super) struct Table {
    pub(super) processes: Vec<Process>,
    /// Met in this pass.
    met: Vec<Process>,
    pids: Vec<u32>,
    kernel: Vec<u32>,
    text: Vec<u8>,
    /// Processes that are kept.
    pub(super) max: usize,
}

/// What one pass counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    pub(super) processes: usize,
    pub(super) zombies: u64,
    pub(super) left_out: u32,
    /// A process whose line makes no sense.
    pub(super) odd: Option<u32>,
    /// A process that may not be read, or not now.
    pub(super) refused: Option<(u32, Errno)>,
}

/// What a pass needs besides the table.
pub(super) struct Pass<'a> {
    pub(super) reader: &'a Reader,
    pub(super) owners: &'a mut Owners,
    pub(super) groups: &'a mut Groups,
    pub(super) name_of: &'a dyn Fn(&str) -> Option<Box<str>>,
    /// Process groups are wanted.
    pub(super) is_grouped: bool,
    pub(super) is_first: bool,
    pub(super) tick: u32,
    pub(super) uptime_ticks: Option<u64>,
}

impl Default for Table {
    fn default() -> Self {
        let text = vec![0; TEXT_BYTES];
        Self { processes: Vec::new(), met: Vec::new(), pids: Vec::new(), kernel: Vec::new(), text, max: PROCESSES_MAX }
    }
}

impl Table {
    pub(super) fn find(&self, pid: u32) -> Option<&Process> {
        let at = self.processes.binary_search_by_key(&pid, |process| process.pid).ok()?;
        self.processes.get(at)
    }

    /// Lists the processes; whether the host's first one is among them.
    pub(super) fn list(&mut self, reader: &Reader) -> std::io::Result<bool> {
        reader.pids(&mut self.pids)?;
        Ok(self.pids.first() == Some(&1))
    }

    pub(super) fn pass(&mut self, pass: &mut Pass<'_>) -> Counted {
        let mut counted = Counted { processes: self.pids.len(), ..Counted::default() };
        let pids = std::mem::take(&mut self.pids);
        let known_kernel = std::mem::take(&mut self.kernel);
        let (mut kernel, mut at, mut kept) = (known_kernel.iter().copied().peekable(), 0, 0);
        for &pid in &pids {
            while kernel.next_if(|&known| known < pid).is_some() {}
            if kernel.peek() == Some(&pid) && !pass.tick.wrapping_add(pid).is_multiple_of(KERNEL_EVERY_TICKS) {
                self.kernel.push(pid);
                continue;
            }
            while self.processes.get(at).is_some_and(|known| known.pid < pid) {
                at += 1;
            }
            let known = self.processes.get(at).filter(|known| known.pid == pid).map(|_| at);
            if self.look(pid, known, pass, &mut counted)
                && let Some(known) = known
            {
                self.processes.swap(kept, known);
                kept += 1;
            }
        }
        self.processes.truncate(kept);
        self.processes.append(&mut self.met);
        self.processes.sort_by_key(|process| process.pid);
        self.pids = pids;
        self.ask_users(pass);
        self.chain(pass.owners);
        counted
    }

    /// Whether the known process is still the same one. A new one is put aside.
    fn look(&mut self, pid: u32, known: Option<usize>, pass: &mut Pass<'_>, counted: &mut Counted) -> bool {
        let line = match pass.reader.read(pid, "stat", &mut self.text[..STAT_BYTES]) {
            Ok(line) => line,
            Err(error) => {
                let has_ended = matches!(error, Errno::NOENT | Errno::SRCH | Errno::NOTDIR);
                if !has_ended {
                    counted.refused = counted.refused.or(Some((pid, error)));
                    self.stay(known, pass, counted);
                }
                return !has_ended;
            }
        };
        let Some(stat) = Stat::parse(line) else {
            // A process that ended while it was read has an empty line.
            if line.is_empty() {
                return false;
            }
            counted.odd = counted.odd.or(Some(pid));
            self.stay(known, pass, counted);
            return true;
        };
        if stat.is_kernel {
            self.kernel.push(pid);
            return false;
        }
        counted.zombies += u64::from(stat.is_ended());
        if let Some(known) = known.filter(|&at| self.processes[at].start_ticks == stat.start_ticks) {
            self.go_on(known, &stat, pass);
            return true;
        }
        if self.met.len() + self.processes.len() < self.max {
            let process = self.meet(pid, &stat, pass);
            self.met.push(process);
        } else {
            counted.left_out = counted.left_out.saturating_add(1);
        }
        false
    }

    /// It is there and does not tell: it counts as it was, or its group would be smaller by it for a tick.
    fn stay(&mut self, known: Option<usize>, pass: &mut Pass<'_>, counted: &mut Counted) {
        let Some(process) = known.and_then(|at| self.processes.get_mut(at)) else { return };
        let stat = process.as_it_was();
        counted.zombies += u64::from(stat.is_ended());
        count(process, &stat, pass);
    }

    fn go_on(&mut self, at: usize, stat: &Stat, pass: &mut Pass<'_>) {
        let process = &self.processes[at];
        if !stat.is_ended() && (process.name != stat.name || pass.owners.is_renamed(process.owner)) {
            let (owner, group) = self.identify(process.pid, stat, pass);
            let process = &mut self.processes[at];
            (process.name, process.owner, process.group, process.user) = (stat.name, owner, group, None);
        }
        count(&mut self.processes[at], stat, pass);
    }

    fn meet(&mut self, pid: u32, stat: &Stat, pass: &mut Pass<'_>) -> Process {
        // What ended has neither a command line nor a control group left.
        let (owner, group) = if stat.is_ended() { (pass.owners.host(), None) } else { self.identify(pid, stat, pass) };
        let is_told = group.and_then(|group| pass.groups.get(group)).is_some_and(|(_, group)| group.is_told);
        let detail = if is_told && !pass.is_first { Detail::of_new() } else { Detail::default() };
        let mut process = Process {
            pid,
            group,
            owner,
            user: None,
            next: NONE,
            is_ended: false,
            name: stat.name,
            start_ticks: stat.start_ticks,
            cpu_ticks: 0,
            resident_pages: 0,
            threads: 0,
            detail,
        };
        count(&mut process, stat, pass);
        process
    }

    /// Whose it is, and its group.
    fn identify(&mut self, pid: u32, stat: &Stat, pass: &mut Pass<'_>) -> (u32, Option<u32>) {
        let text = pass.reader.read(pid, "cgroup", &mut self.text[..CGROUP_BYTES]).unwrap_or_default();
        let owner = owner_of(&String::from_utf8_lossy(text));
        let number = pass.owners.intern(&owner, pass.name_of);
        if !pass.is_grouped {
            return (number, None);
        }
        let line = pass.reader.read(pid, "cmdline", &mut self.text).unwrap_or_default();
        let called = called(line, &stat.name);
        let of_owner = called.is_interpreter.then(|| owner_name(&owner, number, pass.owners)).flatten();
        let name = of_owner.unwrap_or_else(|| shown(called.script.unwrap_or(called.program)));
        (number, pass.groups.intern(&name))
    }

    fn ask_users(&mut self, pass: &mut Pass<'_>) {
        let is_settled = |process: &Process| {
            let age = pass.uptime_ticks.map(|up| up.saturating_sub(process.start_ticks));
            process.user.is_none()
                && process.group.is_some()
                && !process.is_ended
                && age.is_none_or(|age| age >= SETTLED_TICKS)
        };
        for process in self.processes.iter_mut().filter(|process| is_settled(process)).take(USERS_MAX) {
            let text = pass.reader.read(process.pid, "status", &mut self.text[..STATUS_BYTES]);
            process.user = text.ok().and_then(user);
        }
        for process in self.processes.iter().filter(|process| !process.is_ended) {
            if let Some(group) = process.group.and_then(|group| pass.groups.group_mut(group)) {
                group.now.user.ask(process.user);
            }
        }
    }

    fn chain(&mut self, owners: &mut Owners) {
        owners.end();
        for (place, process) in self.processes.iter_mut().enumerate().rev() {
            let place = u32::try_from(place).unwrap_or(NONE);
            process.next = owners.chain(process.owner, place);
        }
    }
}

impl Process {
    /// At the tick before.
    const fn as_it_was(&self) -> Stat {
        Stat {
            name: self.name,
            state: if self.is_ended { b'Z' } else { b'S' },
            is_kernel: false,
            cpu_ticks: self.cpu_ticks,
            threads: self.threads,
            start_ticks: self.start_ticks,
            resident_pages: self.resident_pages,
        }
    }
}

/// Adds what a process is and used since the tick before to its group and its owner.
fn count(process: &mut Process, stat: &Stat, pass: &mut Pass<'_>) {
    let used = stat.cpu_ticks.saturating_sub(process.cpu_ticks);
    process.cpu_ticks = process.cpu_ticks.max(stat.cpu_ticks);
    process.is_ended = stat.is_ended();
    (process.resident_pages, process.threads) = (stat.resident_pages, stat.threads);
    pass.owners.count(process.owner, if process.is_ended { 0 } else { stat.threads });
    let Some(group) = process.group.and_then(|group| pass.groups.group_mut(group)) else { return };
    group.cpu_ticks = group.cpu_ticks.saturating_add(used);
    if !process.is_ended {
        group.count(stat, process.owner);
    }
}

/// What an interpreter is called by, where it belongs to somebody.
fn owner_name(owner: &Owner, number: u32, owners: &Owners) -> Option<String> {
    match owner {
        Owner::Host => None,
        // The manager of a user's session: everything that this user runs is below it.
        Owner::Unit(name) if name.starts_with("user@") => None,
        Owner::Unit(name) => Some(shown(name.strip_suffix(".service").unwrap_or(name).as_bytes())),
        Owner::Container { id, .. } => {
            let told = owners.get(number).1.and_then(|owned| owned.name.as_deref());
            Some(shown(told.unwrap_or_else(|| short(id)).as_bytes()))
        }
    }
}

/// An id as people know it.
pub(super) fn short(id: &str) -> &str {
    id.get(..ID_SHOWN).filter(|_| id.len() == 64).unwrap_or(id)
}
