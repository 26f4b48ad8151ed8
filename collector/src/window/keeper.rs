//! The thread that owns the sealed files: seals, merges, drops, and sets aside what is damaged.
//!
//! Each step makes a whole file, gives it its name, and only then takes away what that supersedes; a start after a crash
//! finds out from the names alone what is left to do. A failed sync ends the thread, and with it the collector; a full
//! disk does not: what could not be made is made later.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use dunlin_shared::repeat::Repeats;
use dunlin_shared::time::{MonoMs, WallMs};
use serde_json::json;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::merge::{Target, merge};
use super::past::PastAsked;
use super::read::{Depth, Window, verify};
use super::retain::{Held, plan};
use super::seal::seal;
use super::{Errand, Word};
use crate::clock::Clock;
use crate::health::Health;
use crate::pipeline::Input;
use crate::stats::Stats;
use crate::store::{self, ClosedJournal, Files, Level, NewEvent, SealedName, Span, StoreError};
use crate::tuning::Tuned;

/// Beyond what it is told, it looks for itself so often: whether `control.db` has followed, and whether there is room.
const LOOK_AFTER: Duration = Duration::from_secs(5);
/// Files that one merge reads side by side.
const MERGED_MAX: usize = 32;
/// Longer than any journal waits when all is well.
const WAITS_MS_MAX: i64 = 600_000;
/// Reading a whole file to mend it costs seconds of a fleet's hour.
const MEND_AGAIN_MS: u64 = 60_000;
const MET_BY_READER: &str = "a reader met damage in it";
/// Rules do not wait for the past any longer: what is not measured for five minutes is gone for them.
const PAST_MS_MAX: u64 = 60_000;
/// Behind everything that answers somebody.
const NICE: i32 = 10;

#[derive(Debug)]
pub struct Keeper {
    dir: PathBuf,
    tuned: Tuned,
    health: Arc<Health>,
    stats: Arc<Stats>,
    clock: Clock,
    /// Takes events; the log alone keeps the pipeline going.
    pipeline: mpsc::WeakSender<Input>,
    failures: Repeats,
    waits: Repeats,
    /// What is damaged could not be mended, for want of room most likely; it is not tried before.
    mends_from: Option<MonoMs>,
    /// Journals of which it was told that readers met damage in them.
    told: BTreeSet<PathBuf>,
    /// What a start owes to rules that look far back.
    past: Option<PastAsked>,
    pub(super) errand: Errand,
}

impl Keeper {
    #[must_use]
    pub fn new(
        state_dir: &Path,
        tuned: Tuned,
        (pipeline, word): (&mpsc::Sender<Input>, &Arc<Word>),
        (health, stats, clock): (Arc<Health>, Arc<Stats>, Clock),
    ) -> Self {
        Self {
            dir: state_dir.join("window"),
            tuned,
            health,
            stats,
            clock,
            pipeline: pipeline.downgrade(),
            failures: Repeats::default(),
            waits: Repeats::default(),
            mends_from: None,
            told: BTreeSet::new(),
            past: None,
            errand: Errand { word: Arc::clone(word), ..Errand::default() },
        }
    }

    /// What it reads of the window before all else.
    #[must_use]
    pub fn telling(self, past: Option<PastAsked>) -> Self {
        Self { past, ..self }
    }

    /// Runs until whoever wakes it is gone: a journal was closed each time.
    pub fn run(mut self, wakes: &Receiver<()>) -> Result<(), StoreError> {
        self.tell_past();
        // Without the right to it, it competes like the others.
        rustix::process::setpriority_process(None, NICE).ok();
        loop {
            match wakes.recv_timeout(LOOK_AFTER) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => self.look()?,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Windows of rules go on where they were before the start. What cannot be read begins anew: no rule waits for it.
    pub fn tell_past(&mut self) {
        let (Some(asked), Some(pipeline)) = (self.past.take(), self.pipeline.upgrade()) else { return };
        let window = Window::new(self.dir.clone(), Arc::clone(&self.errand.word));
        let began = self.clock.mono();
        let passed_ms = || self.clock.mono().since(began);
        let mut tell = |past| {
            pipeline.blocking_send(Input::Past(past)).is_ok() && !self.errand.is_halted() && passed_ms() < PAST_MS_MAX
        };
        match asked.read(&window, &mut tell) {
            Ok(series) => info!(series, ms = passed_ms(), "rules that look far back know what was before the start"),
            Err(error) => warn!("rules that look far back begin anew, for what was is not read: {error}"),
        }
        // It ends only when the collector does.
        pipeline.blocking_send(Input::PastEnds).ok();
    }

    /// Does what is to be done now. What fails for want of room is tried again.
    pub fn look(&mut self) -> Result<(), StoreError> {
        self.look_at(self.clock.mono())
    }

    pub(super) fn look_at(&mut self, now: MonoMs) -> Result<(), StoreError> {
        self.errand.unread.look(now);
        self.suspect(self.errand.word.suspects())?;
        match self.work() {
            Ok(()) => self.failures.clear(),
            Err(error @ StoreError::SyncFailed { .. }) => return Err(error),
            Err(error) => {
                self.met(&error);
                self.stats.window_failures.one();
                if let Some(times) = self.failures.note("window") {
                    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    warn!(times, cause, "the window cannot be kept at the moment, and is later: {error}");
                }
            }
        }
        // Also, and above all, when nothing could be made for want of room.
        let kept = self.retain();
        let mended = self.mend();
        for done in [kept, mended] {
            match done {
                Err(error @ StoreError::SyncFailed { .. }) => return Err(error),
                Err(error) => warn!("the window cannot be tidied: {error}"),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// A sealed file is mended. A journal is not: what can be read of it is answered, sealed in its time, and the rest is set
    /// aside then; that something is missing until then is told once.
    fn suspect(&mut self, suspects: BTreeSet<PathBuf>) -> Result<(), StoreError> {
        if suspects.is_empty() {
            return Ok(());
        }
        let files = Files::list(&self.dir)?;
        self.told.retain(|path| files.is_journal(path));
        for file in suspects {
            if !files.is_journal(&file) {
                self.errand.note(&file, MET_BY_READER);
            } else if self.told.insert(file.clone()) {
                warn!(file = %file.display(), "a journal is damaged: the rest of it is answered");
                self.tell("storage.damaged", json!({ "file": name_of(&file), "reason": MET_BY_READER }));
            }
        }
        Ok(())
    }

    /// What is damaged is mended behind this; what cannot be read now may be by itself.
    fn met(&mut self, error: &StoreError) {
        match error {
            StoreError::Damaged { path, what } => self.errand.note(path, what),
            StoreError::Unavailable { path, .. } => self.errand.unread.note(path),
            _ => {}
        }
    }

    fn work(&mut self) -> Result<(), StoreError> {
        let mut files = Files::list(&self.dir)?;
        for name in std::mem::take(&mut files.superseded) {
            store::remove_sealed(&name)?;
        }
        self.seal_closed(&mut files)?;
        while self.merge_once(&Files::list(&self.dir)?)? {}
        Ok(())
    }

    /// Seals what is closed, oldest first. A journal that fails does not hold up those behind it, but nothing counts as
    /// sealed beyond it until it is sealed, or given up.
    fn seal_closed(&mut self, files: &mut Files) -> Result<(), StoreError> {
        let sealed = self.health.sealed();
        let (mut failed, mut is_waiting) = (Ok(()), false);
        // Retention may have taken what a journal was sealed to, though the journal is still there.
        for journal in files.closed().into_iter().filter(|journal| journal.last() > sealed) {
            if self.errand.is_halted() {
                return Ok(());
            }
            let missing = [Level::Full, Level::Mid].map(|level| !files.holds(level, journal.first()));
            if missing != [false, false] {
                if journal.last() > self.health.applied() {
                    break;
                }
                match self.seal(&journal, files, missing) {
                    Ok(true) => {
                        self.waits.clear();
                        *files = Files::list(&self.dir)?;
                    }
                    Ok(false) if self.errand.is_halted() => return Ok(()),
                    Ok(false) => {
                        self.complain_of_waiting(&journal);
                        self.errand.unread.note(journal.path());
                        // What follows builds on it, and it is folded soon.
                        if !self.errand.unread.is_late(journal.path()) {
                            break;
                        }
                        is_waiting = true;
                    }
                    Err(error @ StoreError::SyncFailed { .. }) => return Err(error),
                    Err(error) => {
                        self.met(&error);
                        failed = failed.and(Err(error));
                    }
                }
            }
            if failed.is_ok() && !is_waiting {
                self.health.set_sealed(journal.last());
            }
        }
        failed
    }

    /// A journal is folded seconds after it is closed, unless there is no room.
    fn complain_of_waiting(&mut self, journal: &ClosedJournal) {
        let ago_ms = self.clock.wall().since(WallMs(journal.closed_s().saturating_mul(1_000)));
        if ago_ms < WAITS_MS_MAX || self.errand.is_halted() {
            return;
        }
        if let Some(times) = self.waits.note("journal") {
            let file = journal.path().display();
            warn!(times, %file, "a journal is not folded yet, and what follows waits with it to be sealed");
        }
    }

    /// Whether it could be read. `files` tells what was sealed before it.
    fn seal(&mut self, journal: &ClosedJournal, files: &Files, missing: [bool; 2]) -> Result<bool, StoreError> {
        let began = self.clock.mono();
        let before = files.before(journal.first());
        let missing = (missing[0], missing[1]);
        let made = match seal(&self.dir, journal, &before, missing, self.clock.wall(), &mut self.errand) {
            // Nothing of it can be read: it is set aside, and what comes behind it goes on.
            Err(error) if is_about(&error, journal.path()) => {
                self.errand.pass_over(journal.path(), error)?;
                self.set_aside(journal.path())?;
                return Ok(true);
            }
            made => made?,
        };
        if self.errand.met.contains_key(journal.path()) {
            // What could be read of it is sealed; the rest may still matter to somebody.
            self.set_aside(journal.path())?;
        }
        if made.is_some() {
            self.errand.unread.made();
            self.stats.seals.one();
            self.stats.seal_duration.note(self.clock.mono().since(began));
        }
        Ok(made.is_some())
    }

    /// Whether there was something to merge.
    fn merge_once(&mut self, files: &Files) -> Result<bool, StoreError> {
        // A longer span begins to be made when everything of it is there: when the newest file lies behind it.
        for (level, from, to) in [
            (Level::Full, Span::FiveMinutes, Span::Hour),
            (Level::Mid, Span::FiveMinutes, Span::Hour),
            (Level::Mid, Span::Hour, Span::Day),
            (Level::Long, Span::Hour, Span::Day),
        ] {
            let Some((group, slot)) = mergeable(files, level, (from, to)) else { continue };
            let Some(made) = merge(&self.dir, &group, Target::longer(to, slot), self.clock.wall(), &mut self.errand)?
            else {
                return Ok(false);
            };
            self.errand.unread.made();
            self.stats.merges.one();
            for name in group.iter().filter(|name| !made.contains(name)) {
                if self.errand.met.contains_key(name.path()) {
                    self.keep_aside(name.path())?;
                }
                store::remove_sealed(name)?;
            }
            return Ok(true);
        }
        Ok(false)
    }

    fn retain(&mut self) -> Result<(), StoreError> {
        let files = Files::list(&self.dir)?;
        let now = self.clock.wall();
        let held = |name: &SealedName| Held {
            level: name.level,
            bytes: store::bytes_of(name.path()),
            ends: WallMs(name.ends_s().saturating_mul(1_000)),
            is_pending: name.level == Level::Mid
                && name.span == Span::FiveMinutes
                && !files.holds(Level::Long, name.first),
        };
        let held: Vec<Held> = files.sealed.iter().map(held).collect();
        let retention = self.tuned.load().retention;
        let (unsealed, sealed) = files.journal_bytes(self.health.sealed());
        let free = store::free_bytes(&self.dir)?;
        let taken = held.iter().map(|file| file.bytes).sum::<u64>().saturating_add(unsealed).saturating_add(sealed);
        let room = retention.room((taken, free));
        self.health.set_journal_room(room.quota(Level::Full));
        // Journals that are sealed go before anything that is nowhere else.
        self.health.set_short_of_room(free < retention.reserve((taken, free)));
        let mut plan = plan(&held, &retention, now, (unsealed, free.saturating_add(sealed)));
        if store::is_copied(&self.dir) {
            // What goes now frees nothing before the copy ends.
            plan.shed.clear();
        }
        for &at in plan.drop.iter().chain(&plan.shed) {
            store::remove_sealed(&files.sealed[at])?;
        }
        let bytes = |places: &[usize]| places.iter().map(|&at| held[at].bytes).sum::<u64>();
        if !plan.drop.is_empty() {
            info!(files = plan.drop.len(), bytes = bytes(&plan.drop), "dropped the oldest of the window");
        }
        if let (Some(&first), Some(&last)) = (plan.shed.first(), plan.shed.last()) {
            let (first, last) = (&files.sealed[first], &files.sealed[last]);
            warn!(
                files = plan.shed.len(),
                bytes = bytes(&plan.shed),
                "the disk is nearly full: shed the oldest of the window"
            );
            self.tell(
                "storage.shed",
                json!({
                    "files": plan.shed.len(), "bytes": bytes(&plan.shed),
                    "level": last.level.as_str(), "from": rfc3339(first.slot_s), "to": rfc3339(last.ends_s()),
                }),
            );
        }
        let left = Files::list(&self.dir)?;
        self.publish(&left, unsealed.saturating_add(sealed), now);
        Ok(())
    }

    /// For `/metrics`: what each level takes, and how far back it reaches.
    fn publish(&self, files: &Files, journals: u64, now: WallMs) {
        for (level, gauge) in Level::ALL.into_iter().zip(&self.stats.window) {
            let bytes: u64 = files.of(level).map(|name| store::bytes_of(name.path())).sum();
            let oldest = files.of(level).next().map(|name| WallMs(name.slot_s.saturating_mul(1_000)));
            let age_s = oldest.map_or(0, |oldest| now.since(oldest).max(0) / 1_000);
            gauge.set(bytes, age_s.cast_unsigned());
        }
        self.stats.journal_bytes.set(journals);
    }

    /// Files in which damage was met are written anew without it. What cannot be mended now is looked at again.
    fn mend(&mut self) -> Result<(), StoreError> {
        let now = self.clock.mono();
        if self.mends_from.is_some_and(|from| now < from) {
            return Ok(());
        }
        self.mends_from = None;
        let mut failed = Ok(());
        for (path, what) in std::mem::take(&mut self.errand.met) {
            match self.mend_one(&path, &what) {
                Ok(()) => {}
                Err(error @ StoreError::SyncFailed { .. }) => return Err(error),
                Err(error) => {
                    self.met(&error);
                    self.errand.note(&path, &what);
                    self.mends_from = Some(now.plus(MEND_AGAIN_MS));
                    failed = Err(error);
                }
            }
        }
        failed
    }

    /// What a file was is kept aside, and that is told, once there is a sound one in its place.
    fn mend_one(&mut self, path: &Path, what: &str) -> Result<(), StoreError> {
        let files = Files::list(&self.dir)?;
        let Some(name) = files.sealed.iter().find(|name| name.path() == path) else { return Ok(()) };
        let now = self.clock.wall();
        let damage = match verify(name, Depth::Values) {
            // It was an error of the moment.
            Ok(None) => return Ok(()),
            Ok(Some(_)) => self.write_anew(name, what, now),
            Err(StoreError::Unavailable { .. }) if self.errand.unread.is_given_up(path) => {
                self.write_anew(name, what, now)
            }
            Err(error) => Err(error),
        };
        match damage {
            Err(StoreError::Damaged { what, .. }) => {
                let aside = store::set_aside(path, now)?;
                self.damaged(&aside, &what);
                Ok(())
            }
            done => done,
        }
    }

    fn write_anew(&self, name: &SealedName, what: &str, now: WallMs) -> Result<(), StoreError> {
        let aside = store::keep_aside(name.path(), now)?;
        let (word, unread) = (Arc::clone(&self.errand.word), self.errand.unread.clone());
        let mut errand = Errand { word, unread, ..Errand::default() };
        match merge(&self.dir, std::slice::from_ref(name), Target::again(name), now, &mut errand) {
            Ok(Some(made)) => {
                // Without its earliest rows it may have another name.
                if !made.contains(name) {
                    store::remove_sealed(name)?;
                }
                self.damaged(&aside, what);
                Ok(())
            }
            // It is to stop: whoever reads the file next meets the damage again.
            Ok(None) => store::keep_no_more(&aside),
            Err(error) => {
                store::keep_no_more(&aside)?;
                Err(error)
            }
        }
    }

    fn set_aside(&mut self, path: &Path) -> Result<(), StoreError> {
        let what = self.errand.met.remove(path).unwrap_or_default();
        let aside = store::set_aside(path, self.clock.wall())?;
        self.damaged(&aside, &what);
        Ok(())
    }

    fn keep_aside(&mut self, path: &Path) -> Result<(), StoreError> {
        let what = self.errand.met.remove(path).unwrap_or_default();
        let aside = store::keep_aside(path, self.clock.wall())?;
        self.damaged(&aside, &what);
        Ok(())
    }

    fn damaged(&self, file: &Path, what: &str) {
        self.stats.files_set_aside.one();
        warn!(file = %file.display(), reason = what, "a damaged file is set aside; keep it if its data matters");
        self.tell("storage.damaged", json!({ "file": name_of(file), "reason": what }));
    }

    fn tell(&self, kind: &'static str, body: serde_json::Value) {
        let event = NewEvent { at: self.clock.wall(), kind, node: None, body: body.to_string() };
        if let Some(pipeline) = self.pipeline.upgrade() {
            // It ends only when the collector does.
            pipeline.blocking_send(Input::Told(event)).ok();
        }
    }
}

/// The oldest files that are to be one of a longer span. They follow each other: what lies between two of them would lie
/// within what is made of them, and not count any more.
fn mergeable(files: &Files, level: Level, (from, to): (Span, Span)) -> Option<(Vec<SealedName>, i64)> {
    let slot_of = |name: &SealedName| (name.span == from).then(|| to.slot_of(name.slot_s));
    // Not the largest: a clock that was years ahead for a while leaves files that say so.
    let newest = files.of(level).filter_map(slot_of).next_back()?;
    let all: Vec<&SealedName> = files.of(level).collect();
    let mut runs = all.chunk_by(|a, b| slot_of(a).is_some() && slot_of(a) == slot_of(b));
    let run = runs.find(|run| slot_of(run[0]).is_some_and(|slot| slot != newest))?;
    let group = run.iter().take(MERGED_MAX).map(|name| (*name).clone()).collect();
    Some((group, slot_of(run[0])?))
}

fn name_of(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether it is the trouble of this file and of no other.
fn is_about(error: &StoreError, file: &Path) -> bool {
    match error {
        StoreError::Damaged { path, .. } | StoreError::Unavailable { path, .. } => path == file,
        _ => false,
    }
}

fn rfc3339(at_s: i64) -> String {
    crate::shape::Moment(WallMs(at_s.saturating_mul(1_000))).to_string()
}
