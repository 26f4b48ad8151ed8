//! The processes of the host as they are, brought up to date by one pass over `/proc/N/stat`.
//!
//! Who a process is, is asked (`who.rs`) once for each (pid, start), and again when it takes another name, as at the start
//! of another program. Invariant: the table is sorted by pid, and holds no thread of the kernel.

use rustix::io::Errno;

use super::detail::Detail;
use super::group::Groups;
use super::owners::{NONE, Owners};
use super::reader::Reader;
use super::stat::{NAME_BYTES, Stat, trimmed, user};
use super::who::{Asker, Question, Who};
use crate::sample::cgroup::Owner;
use crate::sample::name::shown;

/// More than a host of the fleet runs; 4 MiB. Beyond it processes are counted and nothing else.
const PROCESSES_MAX: usize = 32_768;
/// A thread of the kernel seldom ends, and a pid comes back late: each is looked at so often, and else counted.
const KERNEL_EVERY_TICKS: u32 = 6;
/// A service has put off its privileges by then.
const SETTLED_TICKS: u64 = 10 * 100;
/// Users asked for in one tick, 20 us each.
const USERS_MAX: usize = 256;
/// 52 numbers and a name.
const STAT_BYTES: usize = 2 * 1024;
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
    /// It told who it is.
    is_known: bool,
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
    /// Those of which this pass has to find out who they are; what they use is counted after that.
    asked: Vec<Asked>,
    /// Processes that are kept.
    pub(super) max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    pid: u32,
    stat: Stat,
    is_new: bool,
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
    /// A process that does not say who it is.
    pub(super) hung: Option<u32>,
}

/// What a pass needs besides the table.
pub(super) struct Pass<'a> {
    pub(super) reader: &'a Reader,
    pub(super) asker: &'a mut Asker,
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
        Self {
            processes: Vec::new(),
            met: Vec::new(),
            pids: Vec::new(),
            kernel: Vec::new(),
            text: vec![0; STAT_BYTES.max(STATUS_BYTES)],
            asked: Vec::new(),
            max: PROCESSES_MAX,
        }
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
        self.identify(pass);
        counted.hung = pass.asker.hung();
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
        let process = &mut self.processes[at];
        let is_other = process.name != stat.name || !process.is_known || pass.owners.is_renamed(process.owner);
        if is_other && !stat.is_ended() {
            self.asked.push(Asked { pid: process.pid, stat: *stat, is_new: false });
        } else {
            count(process, stat, pass);
        }
    }

    fn meet(&mut self, pid: u32, stat: &Stat, pass: &mut Pass<'_>) -> Process {
        let mut process = Process {
            pid,
            group: None,
            owner: pass.owners.host(),
            user: None,
            next: NONE,
            is_ended: false,
            is_known: false,
            name: stat.name,
            start_ticks: stat.start_ticks,
            cpu_ticks: 0,
            resident_pages: 0,
            threads: 0,
            detail: Detail::default(),
        };
        // What ended has neither a command line nor a control group left.
        if stat.is_ended() {
            count(&mut process, stat, pass);
        } else {
            self.asked.push(Asked { pid, stat: *stat, is_new: true });
        }
        process
    }

    /// Whose those are that this pass has met, and their groups; what does not answer has the kernel's name.
    fn identify(&mut self, pass: &mut Pass<'_>) {
        let asked = std::mem::take(&mut self.asked);
        let is_grouped = pass.is_grouped;
        let question = |one: &Asked| Question { pid: one.pid, name: one.stat.name, is_grouped };
        let questions: Vec<Question> = asked.iter().map(question).collect();
        let mut answers: Vec<Option<(u32, Option<u32>)>> = vec![None; asked.len()];
        let (owners, groups, name_of) = (&mut *pass.owners, &mut *pass.groups, pass.name_of);
        pass.asker.ask(&questions, &mut |at, who| answers[at] = Some(place(&who, owners, groups, name_of)));
        for (one, answer) in asked.iter().zip(answers) {
            let Ok(at) = self.processes.binary_search_by_key(&one.pid, |process| process.pid) else { continue };
            let process = &mut self.processes[at];
            process.is_known = answer.is_some();
            (process.owner, process.group) = answer.unwrap_or_else(|| {
                let name = shown(trimmed(&one.stat.name));
                (process.owner, if is_grouped { pass.groups.intern(&name) } else { None })
            });
            let is_told =
                process.group.and_then(|group| pass.groups.get(group)).is_some_and(|(_, group)| group.is_told);
            if !one.is_new {
                (process.name, process.user) = (one.stat.name, None);
            } else if is_told && !pass.is_first {
                process.detail = Detail::of_new();
            }
            count(process, &one.stat, pass);
        }
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

/// The owner's number, and the group's.
fn place(
    who: &Who,
    owners: &mut Owners,
    groups: &mut Groups,
    name_of: &dyn Fn(&str) -> Option<Box<str>>,
) -> (u32, Option<u32>) {
    let number = owners.intern(&who.owner, name_of);
    let Some(called) = &who.called else { return (number, None) };
    let of_owner = who.is_interpreter.then(|| owner_name(&who.owner, number, owners)).flatten();
    (number, groups.intern(of_owner.as_deref().unwrap_or(called)))
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
