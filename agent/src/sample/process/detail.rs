//! Open files, bytes read and written and exact memory of the processes whose groups are told, which cost a system call
//! or seven each.
//!
//! Since Linux 6.2 `stat` tells resident memory without what each processor has not yet added: some hundred KiB of each
//! process on two processors, many MiB on a hundred. `statm` adds it all up, and is what `ps` says.
//! What did not run has neither opened nor read anything, so a process is asked when it used a processor, and else each
//! `EVERY_TICKS` ticks, its turn by its number. Of what the agent may not see it asks once in a process's life.

use rustix::io::Errno;

use super::group::Groups;
use super::reader::Reader;
use super::stat::{io, resident};
use super::table::Process;

const EVERY_TICKS: u32 = 6;
/// Processes asked in one tick, 20 us each; the others have their turn in the next ones.
const ASKED_MAX: usize = 256;
const IO_BYTES: usize = 512;
/// Seven numbers.
const STATM_BYTES: usize = 160;

/// What is known of one process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Detail {
    io: Io,
    files: Files,
    /// What it had used of processors when it was asked.
    asked: Option<u64>,
    /// What `statm` had more of resident pages than `stat`.
    more_pages: i64,
}

#[derive(Clone, Copy, Debug, Default)]
enum Io {
    /// It ran before its group was told: what it did until it is asked is not counted.
    #[default]
    Unknown,
    /// It began while its group was told: everything counts.
    New,
    Known {
        read: u64,
        written: u64,
    },
    Hidden,
}

#[derive(Clone, Copy, Debug, Default)]
enum Files {
    #[default]
    Unknown,
    Known(u64),
    Hidden,
}

/// What was seen in one tick.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Processes that were asked at some time.
    pub(super) asked: u32,
    pub(super) io_hidden: u32,
    pub(super) files_hidden: u32,
}

impl Detail {
    /// Of a process that began while its group was told: all that it does counts.
    pub(super) const fn of_new() -> Self {
        Self { io: Io::New, files: Files::Unknown, asked: None, more_pages: 0 }
    }

    fn is_due(&self, pid: u32, tick: u32, cpu_ticks: u64) -> bool {
        self.asked.is_none_or(|used| used != cpu_ticks || tick.wrapping_add(pid).is_multiple_of(EVERY_TICKS))
    }
}

/// Asks those whose turn it is, and adds up what is known. `is_counted`: the kernel counts open files for everybody.
pub(super) fn detail(
    reader: &Reader,
    processes: &mut [Process],
    groups: &mut Groups,
    tick: u32,
    is_counted: bool,
) -> Seen {
    let (mut seen, mut left) = (Seen::default(), ASKED_MAX);
    // Who begins changes from tick to tick, so that nobody waits for ever behind those that are always busy.
    let first = if processes.is_empty() { 0 } else { (tick as usize).wrapping_mul(ASKED_MAX) % processes.len() };
    let (front, back) = processes.split_at_mut(first);
    for process in back.iter_mut().chain(front) {
        let Some(group) = process.group.and_then(|group| groups.group_mut(group)).filter(|group| group.is_told) else {
            continue;
        };
        if process.is_ended {
            continue;
        }
        if left > 0 && process.detail.is_due(process.pid, tick, process.cpu_ticks) {
            left -= 1;
            let (read, written) = ask(reader, process, tick, is_counted);
            group.read_bytes = group.read_bytes.saturating_add(read);
            group.written_bytes = group.written_bytes.saturating_add(written);
        }
        seen.asked += u32::from(process.detail.asked.is_some());
        group.now.pages = group.now.pages.saturating_add_signed(process.detail.more_pages);
        match process.detail.files {
            Files::Known(files) => group.now.files = group.now.files.saturating_add(files),
            Files::Unknown => group.now.is_files_hidden = true,
            Files::Hidden => {
                group.now.is_files_hidden = true;
                seen.files_hidden += 1;
            }
        }
        match process.detail.io {
            Io::Known { .. } => {}
            Io::Hidden => {
                group.now.is_io_hidden = true;
                seen.io_hidden += 1;
            }
            // Asked in vain: a kernel that does not account it has no such file.
            Io::Unknown | Io::New => group.now.is_io_hidden |= process.detail.asked.is_some(),
        }
    }
    seen
}

/// What it read and wrote since it was asked before.
fn ask(reader: &Reader, process: &mut Process, tick: u32, is_counted: bool) -> (u64, u64) {
    let more_pages = more_pages(reader, process);
    let detail = &mut process.detail;
    detail.more_pages = more_pages.unwrap_or(detail.more_pages);
    detail.asked = Some(process.cpu_ticks);
    // Counting names is dear where there are many: then only in its turn.
    let is_turn = is_counted || tick.wrapping_add(process.pid).is_multiple_of(EVERY_TICKS);
    if matches!(detail.files, Files::Unknown) || (is_turn && !matches!(detail.files, Files::Hidden)) {
        match reader.files_open(process.pid, is_counted) {
            Ok(files) => detail.files = Files::Known(files),
            Err(error) if is_refused(error) => detail.files = Files::Hidden,
            // It ended just now.
            Err(_) => {}
        }
    }
    if matches!(detail.io, Io::Hidden) {
        return (0, 0);
    }
    let mut buffer = [0; IO_BYTES];
    match reader.read(process.pid, "io", &mut buffer).map(io) {
        Ok(Some((read, written))) => {
            let before = match std::mem::replace(&mut detail.io, Io::Known { read, written }) {
                Io::Known { read, written } => (read, written),
                Io::New => (0, 0),
                Io::Unknown | Io::Hidden => (read, written),
            };
            (read.saturating_sub(before.0), written.saturating_sub(before.1))
        }
        Err(error) if is_refused(error) => {
            detail.io = Io::Hidden;
            (0, 0)
        }
        Ok(None) | Err(_) => (0, 0),
    }
}

/// None where it ended just now.
fn more_pages(reader: &Reader, process: &Process) -> Option<i64> {
    let mut buffer = [0; STATM_BYTES];
    let line = reader.read(process.pid, "statm", &mut buffer).ok()?;
    let exact = resident(line).and_then(|pages| i64::try_from(pages).ok())?;
    Some(exact.saturating_sub(i64::try_from(process.resident_pages).unwrap_or(exact)))
}

fn is_refused(error: Errno) -> bool {
    error == Errno::ACCESS || error == Errno::PERM
}
