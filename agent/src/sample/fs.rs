//! Space and inodes of file systems. A mount that hangs costs its own rows and never the tick.
//!
//! One thread asks all of them in turn. When one does not answer, the thread is left to it and another takes the rest;
//! the mount is reported as not responding, and is asked by its own thread, which nobody waits for, until it answers in
//! time. Invariant: at most one thread a mount waits, `THREADS_MAX` in all, and a tick waits `TICK_MS` at most.
//! Below a recorded root the answers come from its file `statfs`: `MOUNT BLOCK-BYTES BLOCKS FREE AVAILABLE INODES FREE`.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dunlin_shared::sample::{Sample, Subject, SubjectKind};

use super::failure::{Failures, SampleError, more};
use super::lane::{Alive, Answered, Lane};
use super::mount::{Mount, devices, mounts};
use super::source::Source;
use super::{float, metric};
use crate::clock::Clock;
use crate::sight::{Kind, Seeing, State};

/// A local file system answers in microseconds, a network one in milliseconds.
pub(super) const ANSWER_MS: u64 = 200;
/// What a tick waits for all of them: two that hang at once are found in one tick, more in the next ones.
pub(super) const TICK_MS: u64 = 500;
/// Each takes some 20 KiB.
const THREADS_MAX: usize = 8;
/// Two thousand series, an eighth of what a node may have.
const FILE_SYSTEMS_MAX: usize = 200;
/// Engines of containers write lines of a kilobyte; this is two thousand of them and more.
const MOUNTINFO_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a file system says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    pub total_bytes: u64,
    pub free_bytes: u64,
    /// For ordinary users.
    pub available_bytes: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

/// How a file system is asked: by the kernel, from a recorded tree, or by a test.
pub type Ask = Arc<dyn Fn(&Path) -> io::Result<Space> + Send + Sync>;

type Asker = Lane<PathBuf, io::Result<Space>>;

pub(super) struct FileSystems {
    clock: Clock,
    ask: Ask,
    alive: Alive,
    /// Asks everything that has no thread of its own.
    asker: Option<Asker>,
    watched: Vec<Watched>,
    /// Of the list of mounts that `watched` is of.
    fingerprint: Option<u64>,
    /// What of the host's mounts is not in the agent's sandbox, in that list.
    covered: Option<Box<str>>,
}

#[derive(Debug)]
struct Watched {
    mount: Mount,
    subject: Subject,
    /// Since it did not answer in time.
    own: Option<Asker>,
    /// The question under way.
    asked: Option<u64>,
    outcome: Option<Outcome>,
}

/// What a tick came to for one mount.
#[derive(Debug)]
enum Outcome {
    Answered(io::Result<Space>),
    /// It took longer than it may.
    Late(io::Result<Space>),
    Hung,
    NotAsked,
    Held,
}

/// The kernel's answers, or those of a recorded tree.
pub(super) fn ask_of(root: &Path) -> Ask {
    if root == Path::new("/") {
        return Arc::new(statvfs);
    }
    let recorded = std::fs::read_to_string(root.join("statfs")).unwrap_or_default();
    let spaces: HashMap<PathBuf, Space> = recorded.lines().filter_map(recorded_space).collect();
    Arc::new(move |path| spaces.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into()))
}

impl FileSystems {
    pub(super) fn new(clock: Clock, ask: Ask) -> Self {
        Self { clock, ask, alive: Alive::default(), asker: None, watched: Vec::new(), fingerprint: None, covered: None }
    }

    /// Looks which file systems there are, and asks each.
    pub(super) fn ask(&mut self, source: &mut Source, failures: &mut Failures) {
        self.look(source, failures);
        for at in 0..self.watched.len() {
            self.watched[at].begin();
            if self.watched[at].own.is_none() {
                self.ask_one(at, failures);
            }
        }
    }

    /// Waits for the answers within the tick's time, and reports them.
    pub(super) fn collect(&mut self, sample: &mut Sample, failures: &mut Failures) {
        let end = self.clock.mono().plus(TICK_MS);
        while self.watched.iter().any(Watched::is_waited_for) {
            let until = self.clock.mono().plus(ANSWER_MS);
            let answered = self.asker.as_ref().and_then(|asker| asker.wait(self.clock, until.min(end)));
            match answered {
                Some(answered) => self.take(answered),
                None => self.give_up(self.clock.mono() >= end, failures),
            }
        }
        if self.watched.iter().any(|watched| matches!(watched.outcome, Some(Outcome::Held))) {
            failures.note(SampleError::Held { threads: self.alive.count() });
        }
        for watched in &self.watched {
            watched.report(sample, failures);
        }
        note_hidden(self.shut(), failures);
    }

    /// What the unit's sandbox covers, which is as it should be, and what permissions hide, which may not be.
    pub(super) fn seeing(&self) -> Vec<Seeing> {
        let covered = self.covered.as_deref().map(|says| Seeing::new(Kind::Mounts, State::Absent).says(says));
        let shut = places(self.shut()).map(|says| Seeing::new(Kind::Mounts, State::Refused).says(says));
        covered.map(|one| one.named("sandbox")).into_iter().chain(shut).collect()
    }

    fn shut(&self) -> impl Iterator<Item = &Mount> + Clone {
        self.watched.iter().filter(|watched| watched.is_hidden()).map(|watched| &watched.mount)
    }

    fn ask_one(&mut self, at: usize, failures: &mut Failures) {
        if self.asker.is_none() && self.alive.count() < THREADS_MAX {
            let ask = Arc::clone(&self.ask);
            let reply = move |path: PathBuf| ask(&path);
            let lane = Lane::start("statfs", FILE_SYSTEMS_MAX, self.clock, &self.alive, reply);
            let what = "asking file systems";
            self.asker = failures.keep(lane.map_err(|source| SampleError::Thread { what, source }));
        }
        let watched = &mut self.watched[at];
        // The last thread that may be is kept for those that hardly ever hang.
        if watched.mount.is_remote && self.alive.count() >= THREADS_MAX {
            watched.outcome = Some(Outcome::Held);
            watched.asked = None;
            return;
        }
        watched.asked = self.asker.as_mut().and_then(|asker| asker.ask(watched.mount.path.clone()));
        if watched.asked.is_none() {
            watched.outcome = Some(Outcome::NotAsked);
        }
    }

    fn take(&mut self, answered: Answered<io::Result<Space>>) {
        let of = |watched: &&mut Watched| watched.own.is_none() && watched.asked == Some(answered.number);
        if let Some(watched) = self.watched.iter_mut().find(of) {
            watched.asked = None;
            watched.outcome = Some(Outcome::Answered(answered.answer));
        }
    }

    /// Leaves the thread to the mount that it waits for, and has another ask the rest, if there is time.
    fn give_up(&mut self, is_end: bool, failures: &mut Failures) {
        let waiting = (0..self.watched.len()).filter(|&at| self.watched[at].is_waited_for());
        let Some(stuck) = waiting.min_by_key(|&at| self.watched[at].asked) else { return };
        if let Some(asker) = self.asker.take() {
            asker.take_back();
            self.watched[stuck].own = Some(asker);
        }
        self.watched[stuck].outcome = Some(Outcome::Hung);
        for at in 0..self.watched.len() {
            if !self.watched[at].is_waited_for() {
                continue;
            }
            if is_end {
                self.watched[at].asked = None;
                self.watched[at].outcome = Some(Outcome::NotAsked);
            } else {
                self.ask_one(at, failures);
            }
        }
    }

    /// Watches the mounts of the host's first process, if they are not those of the tick before.
    fn look(&mut self, source: &mut Source, failures: &mut Failures) {
        let listed = self.list(source, "proc/1/mountinfo", failures).or_else(|_| {
            let listed = self.list(source, "proc/self/mountinfo", failures)?;
            failures.note(SampleError::Absent { path: source.path("proc/1/mountinfo"), why: OWN_MOUNTS });
            Ok(listed)
        });
        let Some(Some(mut listed)) = failures.keep(listed) else { return };
        // In a sandbox a mount can be hidden, or covered by another: its numbers would be another's.
        if let Ok(text) = source.read_up_to("proc/self/mountinfo", MOUNTINFO_BYTES_MAX) {
            let seen = devices(text.bytes);
            let is_seen = |mount: &Mount| seen.get(&mount.path) == Some(&mount.device);
            self.covered = note_hidden(listed.iter().filter(|mount| !is_seen(mount)), failures);
            listed.retain(is_seen);
        }
        self.watch(listed, failures);
    }

    /// None when the list is as it was.
    fn list(
        &mut self,
        source: &mut Source,
        file: &str,
        failures: &mut Failures,
    ) -> Result<Option<Vec<Mount>>, SampleError> {
        let text = source.read_up_to(file, MOUNTINFO_BYTES_MAX)?;
        let fingerprint = Some(fingerprint(text.bytes));
        if std::mem::replace(&mut self.fingerprint, fingerprint) == fingerprint {
            return Ok(None);
        }
        let (listed, odd) = mounts(text.bytes);
        if let Some(line) = odd {
            failures.note(SampleError::malformed(&text.path, line, "no mount"));
        }
        Ok(Some(listed))
    }

    /// A mount that hangs keeps its thread across changes of the list.
    fn watch(&mut self, mut listed: Vec<Mount>, failures: &mut Failures) {
        if listed.len() > FILE_SYSTEMS_MAX {
            failures.note(SampleError::TooMany { what: "file systems", max: FILE_SYSTEMS_MAX });
            listed.truncate(FILE_SYSTEMS_MAX);
        }
        let mut before: Vec<Watched> = std::mem::take(&mut self.watched);
        for mount in listed {
            let known = before.iter().position(|old| old.own.is_some() && old.mount == mount);
            match (known, Subject::new(SubjectKind::Fs, &mount.name)) {
                (Some(at), _) => self.watched.push(before.swap_remove(at)),
                (None, Some(subject)) => {
                    self.watched.push(Watched { mount, subject, own: None, asked: None, outcome: None });
                }
                (None, None) => {}
            }
        }
    }
}

const OWN_MOUNTS: &str =
    "the mounts of the first process cannot be read; those that the agent sees itself are reported";

impl Watched {
    const fn is_waited_for(&self) -> bool {
        self.own.is_none() && self.asked.is_some()
    }

    /// What its own thread has to say; one that answers in time again is not needed any more.
    fn begin(&mut self) {
        self.outcome = None;
        let Some(own) = &mut self.own else {
            self.asked = None;
            return;
        };
        while let Some(answered) = own.poll() {
            if Some(answered.number) != self.asked {
                continue;
            }
            self.asked = None;
            if answered.took_ms <= ANSWER_MS {
                self.own = None;
                return;
            }
            self.outcome = Some(Outcome::Late(answered.answer));
        }
        match self.asked {
            None => self.asked = own.ask(self.mount.path.clone()),
            Some(_) => self.outcome = Some(Outcome::Hung),
        }
    }

    fn is_hidden(&self) -> bool {
        matches!(&self.outcome, Some(Outcome::Answered(Err(error)) | Outcome::Late(Err(error))) if is_hiding(error))
    }

    fn report(&self, sample: &mut Sample, failures: &mut Failures) {
        let mount = || self.mount.name.clone();
        match &self.outcome {
            Some(Outcome::Answered(Ok(space))) => self.put(space, 1.0, sample),
            Some(Outcome::Late(Ok(space))) => {
                self.put(space, 0.0, sample);
                failures.note(SampleError::Hung { mount: mount(), limit_ms: ANSWER_MS });
            }
            Some(Outcome::Answered(Err(error)) | Outcome::Late(Err(error))) => self.fail(error, sample, failures),
            Some(Outcome::Hung) => {
                sample.push(&self.subject, const { metric("fs_responding") }, 0.0);
                failures.note(SampleError::Hung { mount: mount(), limit_ms: ANSWER_MS });
            }
            Some(Outcome::NotAsked) => failures.note(SampleError::NotAsked { mount: mount() }),
            Some(Outcome::Held) | None => {}
        }
    }

    fn fail(&self, error: &io::Error, sample: &mut Sample, failures: &mut Failures) {
        if is_hiding(error) {
            return;
        }
        let mount = self.mount.name.clone();
        sample.push(&self.subject, const { metric("fs_responding") }, 0.0);
        let source = error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
        failures.note(SampleError::FileSystem { mount, source });
    }

    /// What has no size is no file system that could fill up; what has no inodes makes them as it needs them.
    fn put(&self, space: &Space, responding: f64, sample: &mut Sample) {
        if space.total_bytes == 0 {
            return;
        }
        let subject = &self.subject;
        let used = float(space.total_bytes.saturating_sub(space.free_bytes));
        let available = float(space.available_bytes);
        sample.push(subject, const { metric("fs_total_bytes") }, float(space.total_bytes));
        sample.push(subject, const { metric("fs_used_bytes") }, used);
        sample.push(subject, const { metric("fs_available_bytes") }, available);
        sample.push(subject, const { metric("fs_used_ratio") }, used / (used + available));
        if space.inodes > 0 {
            let (all, inodes_used) = (float(space.inodes), float(space.inodes.saturating_sub(space.inodes_free)));
            sample.push(subject, const { metric("fs_inodes_total") }, all);
            sample.push(subject, const { metric("fs_inodes_used") }, inodes_used);
            sample.push(subject, const { metric("fs_inodes_used_ratio") }, inodes_used / all);
        }
        sample.push(subject, const { metric("fs_read_only") }, f64::from(u8::from(self.mount.is_read_only)));
        sample.push(subject, const { metric("fs_responding") }, responding);
    }
}

impl std::fmt::Debug for FileSystems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileSystems").field("watched", &self.watched).finish_non_exhaustive()
    }
}

/// One line for all of them: an agent in a container of its own sees none of the host's.
fn note_hidden<'a>(hidden: impl Iterator<Item = &'a Mount> + Clone, failures: &mut Failures) -> Option<Box<str>> {
    let mut mounts = hidden.clone();
    let first = mounts.next()?;
    failures.note(SampleError::Hidden { mount: first.name.clone(), others: mounts.count() });
    places(hidden)
}

fn places<'a>(mut mounts: impl Iterator<Item = &'a Mount>) -> Option<Box<str>> {
    let first = mounts.next()?;
    Some(format!("{}{}", first.name, more(mounts.count())).into())
}

fn is_hiding(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}

fn statvfs(path: &Path) -> io::Result<Space> {
    let found = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(Space {
        total_bytes: bytes(found.f_blocks),
        free_bytes: bytes(found.f_bfree),
        available_bytes: bytes(found.f_bavail),
        inodes: found.f_files,
        inodes_free: found.f_ffree,
    })
}

fn recorded_space(line: &str) -> Option<(PathBuf, Space)> {
    let (path, numbers) = line.split_once(' ')?;
    let numbers: Vec<u64> = numbers.split(' ').map_while(|word| word.parse().ok()).collect();
    let [block, blocks, free, available, inodes, inodes_free] = numbers[..] else { return None };
    let bytes = |blocks: u64| blocks.saturating_mul(block);
    let (total_bytes, free_bytes, available_bytes) = (bytes(blocks), bytes(free), bytes(available));
    Some((path.into(), Space { total_bytes, free_bytes, available_bytes, inodes, inodes_free }))
}

fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests;
