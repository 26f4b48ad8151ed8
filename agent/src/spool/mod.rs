//! Every frame that no collector has acknowledged yet: in RAM, and on disk when that is configured.
//!
//! Invariants: a frame that was pushed is held, acknowledged, or within a gap, and one of these
//! alone. `held` is the truth of it; ring and disk only store, and may store more, because deltas
//! build on frames that are acknowledged. Groups leave whole. Nothing here reads a clock, waits, or
//! fails for the disk: what cannot be written stays in RAM, and a note says so once.

mod disk;
mod gap;
mod rekey;
mod ring;
pub mod segment;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{Epoch, FrameId};
use dunlin_shared::limits::EPOCHS_MAX;
use dunlin_shared::range::{SeqRange, SeqSet};
use dunlin_shared::time::WallMs;
use dunlin_shared::wire::{Gap, GapReason, Spooled};
use thiserror::Error;

use self::disk::Disk;
use self::gap::{Gaps, within};
use self::rekey::Rekeyed;
use self::ring::{Group, Ring};

/// The ring in RAM when nothing else is configured: hours of frames.
pub const RAM_BYTES_DEFAULT: usize = 512 * 1024;

/// Pushes between two attempts to write to a disk that failed: a minute at a 10 s tick.
const RETRY_PUSHES: u32 = 6;
/// A group that has grown so large is ended: a segment must be readable at once.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;
/// So is one that takes this part of the RAM allowed. A group leaves whole, so one that fills the ring
/// would take frames with it that the collector is about to acknowledge.
const GROUP_RAM_PART: usize = 4;
/// Notes that nobody took; what is more is not worth its memory.
const NOTES_MAX: usize = 32;

#[derive(Debug)]
pub struct Spool {
    ram_bytes_max: usize,
    ring: Ring,
    disk: Option<Disk>,
    /// Whether frames are written as they come, or only when the agent stops.
    writes_through: bool,
    /// Pushes until a disk that failed is tried again; `None` while it works.
    retry_in: Option<u32>,
    held: BTreeMap<Epoch, SeqSet>,
    gaps: Gaps,
    are_gaps_saved: bool,
    dropped: u64,
    /// The group that was read from disk last.
    loaded: Option<Group>,
    rekeyed: Rekeyed,
    notes: Vec<Note>,
}

/// What a push led to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Pushed {
    /// Frames that were given up for it; they are within a gap.
    pub dropped: u64,
    /// The group under way has ended: the next frame must be a keyframe.
    pub must_begin: bool,
}

/// What an earlier run left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    pub frames: u64,
    /// Of the files and of the gaps: a new epoch must be above it.
    pub epoch_max: Option<Epoch>,
}

/// What a person should know about the spool's files; each is said once.
#[derive(Debug, Error)]
pub enum Note {
    #[error("{path}: cannot be written; frames stay in RAM until it can be")]
    Write { path: PathBuf, source: io::Error },
    #[error("{path}: can be written again")]
    Resumed { path: PathBuf },
    #[error("{path}: cannot be read")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: damaged, {frames} frames are lost")]
    Damaged { path: PathBuf, frames: u64 },
    #[error("{path}: damaged, which frames were dropped earlier is no longer known")]
    GapsDamaged { path: PathBuf },
    #[error("{path}: not a file of the spool, left alone")]
    Foreign { path: PathBuf },
    #[error("frame {id} cannot be decoded and is given up")]
    Undecodable { id: FrameId },
    #[error("{gaps} gaps are forgotten because there were too many")]
    GapsForgotten { gaps: usize },
}

static NONE_HELD: SeqSet = SeqSet::new();

impl Spool {
    /// In RAM alone.
    #[must_use]
    pub fn new(ram_bytes_max: usize) -> Self {
        Self {
            ram_bytes_max,
            ring: Ring::default(),
            disk: None,
            writes_through: false,
            retry_in: None,
            held: BTreeMap::new(),
            gaps: Gaps::default(),
            are_gaps_saved: true,
            dropped: 0,
            loaded: None,
            rekeyed: Rekeyed::default(),
            notes: Vec::new(),
        }
    }

    /// Takes up what `dir` holds. With `disk_bytes_max` every frame is written there as it comes;
    /// without it, `dir` is written only by `park` and when a gap must outlive the run.
    #[must_use]
    pub fn open(dir: &Path, ram_bytes_max: usize, disk_bytes_max: Option<u64>) -> (Self, Recovered) {
        // Parked frames may pile up over restarts, and must not without bound.
        let bytes_max = disk_bytes_max.unwrap_or(2 * ram_bytes_max as u64);
        let (disk, mut found) = Disk::open(dir, bytes_max);
        for gap in found.gaps.list() {
            if let Some(set) = found.held.get_mut(&gap.epoch) {
                set.remove_range(gap.range);
            }
        }
        found.held.retain(|_, set| !set.is_empty());
        let epoch_max = found.epoch_max.max(found.gaps.list().last().map(|gap| gap.epoch));
        let mut spool = Self {
            disk: Some(disk),
            writes_through: disk_bytes_max.is_some(),
            held: found.held,
            gaps: found.gaps,
            are_gaps_saved: false,
            ..Self::new(ram_bytes_max)
        };
        found.notes.into_iter().for_each(|note| spool.note(note));
        spool.settle();
        let recovered = Recovered { frames: spool.len_frames(), epoch_max };
        (spool, recovered)
    }

    /// Keeps a frame; within an epoch, numbers rise. A keyframe always begins a group.
    pub fn push(&mut self, frame: &Frame, wall: WallMs, begins_group: bool) -> Pushed {
        let dropped_before = self.dropped;
        let id = frame.id;
        let open = self.ring.open_group();
        let begins = begins_group || frame.kind == BodyKind::Key || open.is_none_or(|group| group.epoch != id.epoch);
        debug_assert!(open.is_none_or(|group| (group.epoch, group.range().last) < (id.epoch, id.seq)), "numbers rise");
        let has_base =
            frame.base().is_none_or(|base| !begins && open.is_some_and(|group| group.index_of(base).is_some()));
        if !has_base || frame.body.len() > segment::BODY_BYTES_MAX {
            self.dropped += 1;
            self.add_gap(Gap {
                epoch: id.epoch,
                range: SeqRange::one(id.seq),
                from: wall,
                to: wall,
                reason: GapReason::Overflow,
            });
            self.settle();
            return Pushed { dropped: self.dropped - dropped_before, must_begin: true };
        }
        if begins {
            self.end_group();
        }
        self.ring.push(id, frame.kind, wall, &frame.body);
        self.held.entry(id.epoch).or_default().insert(id.seq);
        self.write_through();
        let group_bytes_max = GROUP_BYTES_MAX.min(self.ram_bytes_max / GROUP_RAM_PART);
        if self.ring.open_group().is_some_and(|group| group.bytes() > group_bytes_max) {
            self.end_group();
        }
        self.settle();
        Pushed { dropped: self.dropped - dropped_before, must_begin: self.ring.open_group().is_none() }
    }

    /// What is lost and not yet acknowledged as lost, in ascending order.
    #[must_use]
    pub fn gaps(&self) -> &[Gap] {
        self.gaps.list()
    }

    /// The frame as it was pushed; `None` when it is not held.
    pub fn frame(&mut self, id: FrameId) -> Option<Frame> {
        self.group_of(id)?.frame(id)
    }

    /// The frame in a form that stands alone.
    pub fn keyframe(&mut self, id: FrameId) -> Option<Frame> {
        let mut rekeyed = std::mem::take(&mut self.rekeyed);
        let group = self.group_of(id)?;
        let frame = rekeyed.keyframe(group, id);
        self.rekeyed = rekeyed;
        if frame.is_none() {
            self.note(Note::Undecodable { id });
            self.give_up(id.epoch, &SeqSet::from_iter([SeqRange::one(id.seq)]), GapReason::Damaged);
        }
        frame
    }

    /// The collector has these, or knows that they are lost. What is unknown is ignored.
    pub fn acknowledge(&mut self, epoch: Epoch, range: SeqRange) {
        if range.first > range.last {
            return;
        }
        if let Some(set) = self.held.get_mut(&epoch) {
            set.remove_range(range);
            if set.is_empty() {
                self.held.remove(&epoch);
            }
        }
        if self.gaps.acknowledge(epoch, range) {
            self.are_gaps_saved = false;
        }
        self.settle();
    }

    #[must_use]
    pub fn unacknowledged(&self, epoch: Epoch) -> &SeqSet {
        self.held.get(&epoch).unwrap_or(&NONE_HELD)
    }

    /// For a Hello: in ascending order, `EPOCHS_MAX` at most.
    #[must_use]
    pub fn spooled(&self) -> Vec<Spooled> {
        let ends = |(&epoch, set): (&Epoch, &SeqSet)| {
            Some(Spooled { epoch, range: SeqRange { first: set.first()?, last: set.last()? } })
        };
        self.held.iter().filter_map(ends).collect()
    }

    /// How many frames are held.
    #[must_use]
    pub fn len_frames(&self) -> u64 {
        self.held.values().map(SeqSet::count).fold(0, u64::saturating_add)
    }

    /// What the frames take of RAM.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.ring.bytes() + self.loaded.as_ref().map_or(0, Group::bytes)
    }

    /// What the spool's files take.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.disk.as_ref().map_or(0, Disk::bytes)
    }

    /// Frames that this run gave up.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether frames should be written as they come, and cannot be.
    #[must_use]
    pub const fn is_disk_failing(&self) -> bool {
        self.retry_in.is_some()
    }

    /// What happened to the files since the last call.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Writes what is held in RAM alone to `dir`, for the next run. The agent is about to stop.
    pub fn park(&mut self, dir: &Path) -> Result<(), Note> {
        let disk = self.disk.get_or_insert_with(|| Disk::new(dir, 2 * self.ram_bytes_max as u64));
        let held = &self.held;
        let mut write = || {
            let groups = self.ring.groups_mut();
            for group in groups.filter(|group| is_held(held, group.epoch, group.range())) {
                disk.append(group)?;
            }
            disk.sync()?;
            disk.save_gaps(&self.gaps)
        };
        if let Err(source) = write() {
            return Err(Note::Write { path: disk.dir().to_owned(), source });
        }
        self.are_gaps_saved = true;
        self.retry_in = None;
        self.settle();
        Ok(())
    }

    /// The group of a held frame, from RAM or from disk. What cannot be read is given up.
    fn group_of(&mut self, id: FrameId) -> Option<&Group> {
        if !self.unacknowledged(id.epoch).contains(id.seq) {
            return None;
        }
        if self.ring.group_of(id).is_some() {
            return self.ring.group_of(id);
        }
        if self.loaded.as_ref().is_none_or(|group| group.index_of(id).is_none()) {
            self.loaded = None;
            let disk = self.disk.as_ref()?;
            let read = disk.read_group(id);
            let path = disk.segment_path(id);
            let range = disk.segment_of(id).map_or(SeqRange::one(id.seq), |segment| segment.range);
            let mut lost = SeqSet::from_iter([SeqRange::one(id.seq)]);
            match read {
                Ok(Some(group)) => self.loaded = Some(group),
                Ok(None) => {
                    self.note(Note::Damaged { path, frames: 1 });
                    self.give_up(id.epoch, &lost, GapReason::Damaged);
                }
                Err(source) => {
                    lost = self.held_within(id.epoch, range);
                    for group in self.ring.groups().filter(|group| group.epoch == id.epoch) {
                        lost.remove_range(group.range());
                    }
                    self.note(Note::Read { path, source });
                    self.give_up(id.epoch, &lost, GapReason::Damaged);
                }
            }
        }
        self.loaded.as_ref()
    }

    fn end_group(&mut self) {
        let was_open = self.ring.open_group().is_some();
        self.ring.close();
        if was_open && self.writes_through && self.retry_in.is_none() {
            self.write(|disk, ring| {
                let result = disk.sync();
                if result.is_err() {
                    // What was written since the last sync may be gone from the page cache as well.
                    disk.abandon();
                    if let Some(group) = ring.groups_mut().last() {
                        group.written = 0;
                    }
                }
                result
            });
        }
    }

    /// Brings everything back within its bounds, RAM and disk alike. Called after every change.
    fn settle(&mut self) {
        self.save_gaps();
        self.free();
        self.shrink_disk();
        self.shrink_ram();
        while self.held.len() > EPOCHS_MAX {
            let Some((&epoch, set)) = self.held.first_key_value() else { break };
            let set = set.clone();
            self.give_up(epoch, &set, GapReason::Overflow);
        }
        let merged = self.gaps.bound(&mut self.held);
        if merged != gap::Merged::default() {
            self.are_gaps_saved = false;
            self.dropped += merged.frames;
        }
        if merged.forgotten > 0 {
            self.note(Note::GapsForgotten { gaps: merged.forgotten });
        }
        // Gaps are on disk before the files that they speak of are deleted.
        self.save_gaps();
        self.free();
    }

    /// Lets go of groups and files of which nothing is held.
    fn free(&mut self) {
        let held = &self.held;
        self.ring.retain_closed(|group| is_held(held, group.epoch, group.range()));
        if let Some(disk) = self.disk.as_mut().filter(|_| self.are_gaps_saved) {
            disk.retain_closed(|segment| is_held(held, segment.epoch, segment.range));
        }
        self.loaded.take_if(|group| !is_held(held, group.epoch, group.range()));
        self.rekeyed.forget_unless(|epoch, range| is_held(held, epoch, range));
    }

    /// Gives the oldest files up while there are more bytes than allowed, in RAM as well.
    fn shrink_disk(&mut self) {
        while let Some(oldest) = self.disk.as_ref().filter(|disk| disk.is_full()).and_then(Disk::oldest).cloned() {
            let lost = self.held_within(oldest.epoch, oldest.range);
            self.give_up(oldest.epoch, &lost, GapReason::Overflow);
            self.save_gaps();
            self.ring.remove_within(oldest.epoch, oldest.range);
            if let Some(disk) = &mut self.disk {
                disk.remove_oldest();
            }
        }
    }

    /// Lets the oldest groups go from RAM; for good those that the disk has not.
    fn shrink_ram(&mut self) {
        while self.ring.bytes() > self.ram_bytes_max {
            let Some(oldest) = self.ring.oldest() else { break };
            let (epoch, range, is_written) = (oldest.epoch, oldest.range(), oldest.is_written());
            if !is_written {
                let lost = self.held_within(epoch, range);
                self.give_up(epoch, &lost, GapReason::Overflow);
            } else if self.ring.open_group().is_some_and(|group| group.range() == range && group.epoch == epoch) {
                // It must be on the disk itself before RAM forgets it, which may fail.
                self.end_group();
                continue;
            }
            self.ring.pop_oldest();
        }
    }

    fn write_through(&mut self) {
        match &mut self.retry_in {
            Some(pushes @ 1..) => *pushes -= 1,
            _ if self.writes_through => {
                self.write(|disk, ring| ring.groups_mut().try_for_each(|group| disk.append(group)));
            }
            _ => {}
        }
    }

    fn save_gaps(&mut self) {
        if !self.are_gaps_saved && self.disk.is_some() && self.retry_in.is_none_or(|pushes| pushes == 0) {
            let gaps = std::mem::take(&mut self.gaps);
            self.are_gaps_saved = self.write(|disk, _| disk.save_gaps(&gaps));
            self.gaps = gaps;
        }
    }

    /// Whether it went well. The first of several failures is noted, and the success after them.
    fn write(&mut self, op: impl FnOnce(&mut Disk, &mut Ring) -> io::Result<()>) -> bool {
        let Some(disk) = &mut self.disk else { return false };
        let path = disk.dir().to_owned();
        let result = op(disk, &mut self.ring);
        // A file can be deleted on a full disk: what matters is that the frames are written.
        let is_behind = self.writes_through && !self.ring.groups().all(Group::is_written);
        match result {
            Ok(()) if is_behind => true,
            Ok(()) => {
                if self.retry_in.take().is_some() {
                    self.note(Note::Resumed { path });
                }
                true
            }
            Err(source) => {
                if self.retry_in.replace(RETRY_PUSHES).is_none() {
                    self.note(Note::Write { path, source });
                }
                false
            }
        }
    }

    fn held_within(&self, epoch: Epoch, range: SeqRange) -> SeqSet {
        within(self.unacknowledged(epoch), range).collect()
    }

    /// Makes a gap of `lost`, which is held.
    fn give_up(&mut self, epoch: Epoch, lost: &SeqSet, reason: GapReason) {
        for &range in lost.ranges() {
            let (from, to) = self.times(epoch, range);
            self.add_gap(Gap { epoch, range, from, to, reason });
        }
        self.dropped += lost.count();
        if let Some(set) = self.held.get_mut(&epoch) {
            set.remove_all(lost);
            if set.is_empty() {
                self.held.remove(&epoch);
            }
        }
    }

    fn add_gap(&mut self, gap: Gap) {
        self.gaps.add(gap);
        self.are_gaps_saved = false;
    }

    /// When the first and the last of these frames were taken; of files only the ends are known.
    fn times(&self, epoch: Epoch, range: SeqRange) -> (WallMs, WallMs) {
        let groups = self.ring.groups().chain(&self.loaded).filter(|group| group.epoch == epoch);
        let in_ram = groups.filter_map(|group| group.times(range));
        let segments = self.disk.iter().flat_map(Disk::segments).filter(|segment| {
            segment.epoch == epoch && segment.range.first <= range.last && range.first <= segment.range.last
        });
        let on_disk = segments.map(|segment| (segment.from, segment.to));
        let both = |a: (WallMs, WallMs), b: (WallMs, WallMs)| (a.0.min(b.0), a.1.max(b.1));
        in_ram.reduce(both).or_else(|| on_disk.reduce(both)).unwrap_or_default()
    }

    fn note(&mut self, note: Note) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(note);
        }
    }
}

fn is_held(held: &BTreeMap<Epoch, SeqSet>, epoch: Epoch, range: SeqRange) -> bool {
    held.get(&epoch).is_some_and(|set| within(set, range).next().is_some())
}
