//! The spool's directory: segment files of whole groups, and the file of gaps. Only this file does I/O.
//!
//! A segment is named `<epoch>-<first seq>.seg`, holds one epoch, and is written by one run alone.
//! A frame is one write; the file is synced when its group ends. Whatever fails leaves the segments
//! before it as they were: the group under way is cut off and a later attempt begins a new file.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use dunlin_shared::id::{Epoch, FrameId, Seq};
use dunlin_shared::range::{SeqRange, SeqSet};
use dunlin_shared::time::WallMs;
use dunlin_shared::wire::{Gap, GapReason};

use super::Note;
use super::gap::{self, Gaps};
use super::ring::Group;
use super::segment::{self, Scan};

/// A segment is closed at an eighth of the disk ring, so that a full ring gives up an eighth at
/// once, and at 128 KiB at most, because it is read whole.
const SEGMENT_BYTES_MAX: u64 = 128 * 1024;
/// A full segment and one group more: what is larger was not written here.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;
const GAPS_NAME: &str = "gaps";
const GAPS_TEMPORARY_NAME: &str = "gaps.tmp";

#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) epoch: Epoch,
    pub(super) range: SeqRange,
    pub(super) from: WallMs,
    pub(super) to: WallMs,
    bytes: u64,
}

#[derive(Debug)]
pub(super) struct Disk {
    dir: PathBuf,
    bytes_max: u64,
    /// In rising order; the last one may be under way.
    segments: VecDeque<Segment>,
    active: Option<Active>,
    bytes: u64,
    buffer: Vec<u8>,
    #[cfg(test)]
    pub(super) fault: bool,
}

#[derive(Debug)]
struct Active {
    file: File,
    /// The segment as it was before the group under way; `None` when that is its first.
    before: Option<Segment>,
    is_dir_synced: bool,
}

/// What was found in a directory.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) held: BTreeMap<Epoch, SeqSet>,
    pub(super) gaps: Gaps,
    pub(super) epoch_max: Option<Epoch>,
    pub(super) notes: Vec<Note>,
}

impl Disk {
    pub(super) fn new(dir: &Path, bytes_max: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            bytes_max,
            segments: VecDeque::new(),
            active: None,
            bytes: 0,
            buffer: Vec::new(),
            #[cfg(test)]
            fault: false,
        }
    }

    /// Reads every segment once. What cannot be read is in the notes; nothing fails for it.
    pub(super) fn open(dir: &Path, bytes_max: u64) -> (Self, Found) {
        let mut disk = Self::new(dir, bytes_max);
        let mut found = Found::default();
        let Some(names) = disk.list(&mut found) else { return (disk, found) };
        disk.load_gaps(&mut found);
        found.epoch_max = names.last().map(|&(epoch, _)| epoch);
        for (index, &(epoch, first)) in names.iter().enumerate() {
            let until = names.get(index + 1).filter(|next| next.0 == epoch).map(|next| next.1);
            let is_newest = index + 1 == names.len();
            disk.open_segment(&mut found, epoch, first, until, is_newest);
        }
        (disk, found)
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes > self.bytes_max
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter()
    }

    /// Writes the frames of `group` that are not written yet. After an error the whole group is to
    /// be written anew.
    pub(super) fn append(&mut self, group: &mut Group) -> io::Result<()> {
        if group.written == 0
            && let Some(slot) = group.slots().first()
        {
            self.begin_group(group.epoch, slot.seq, slot.wall)?;
        }
        while !group.is_written() {
            if let Err(error) = self.append_next(group) {
                group.written = 0;
                self.abandon();
                return Err(error);
            }
            group.written += 1;
        }
        Ok(())
    }

    /// The group under way has ended: it must be on the disk itself.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.check_fault()?;
        let Some(active) = &mut self.active else { return Ok(()) };
        active.file.sync_data()?;
        if !active.is_dir_synced {
            File::open(&self.dir)?.sync_all()?;
            active.is_dir_synced = true;
        }
        Ok(())
    }

    /// Cuts the group under way off: it did not reach the disk.
    pub(super) fn abandon(&mut self) {
        let Some(active) = self.active.take() else { return };
        let Some(mut segment) = self.segments.pop_back() else { return };
        self.bytes -= segment.bytes;
        if let Some(before) = active.before {
            // When even this fails, the next scan finds the group a second time in a later file.
            active.file.set_len(before.bytes).ok();
            segment = before;
            self.bytes += segment.bytes;
            self.segments.push_back(segment);
        } else {
            fs::remove_file(self.path(segment.epoch, segment.range.first)).ok();
        }
    }

    /// The group that holds `id`; `None` when no file has it whole.
    pub(super) fn read_group(&self, id: FrameId) -> io::Result<Option<Group>> {
        let Some(segment) = self.segment_of(id) else { return Ok(None) };
        let path = self.path(id.epoch, segment.range.first);
        let bytes = read(&path, FILE_BYTES_MAX)?;
        let Scan { records, .. } = segment::scan(&bytes);
        let Ok(at) = records.binary_search_by_key(&id, |record| record.id) else { return Ok(None) };
        let start = records[..=at].iter().rposition(|record| record.begins).unwrap_or(0);
        let end = records[at + 1..].iter().position(|record| record.begins).map_or(records.len(), |n| at + 1 + n);
        let mut group = Group::new(id.epoch);
        for record in records[start..end].iter().filter(|record| record.usable) {
            group.push(record.id.seq, record.kind, record.wall, &bytes[record.body.clone()]);
        }
        group.shrink();
        Ok(Some(group).filter(|group| group.index_of(id).is_some()))
    }

    pub(super) fn segment_of(&self, id: FrameId) -> Option<&Segment> {
        let after = self.segments.partition_point(|segment| (segment.epoch, segment.range.first) <= (id.epoch, id.seq));
        let segment = self.segments.get(after.checked_sub(1)?)?;
        (segment.epoch == id.epoch && id.seq <= segment.range.last).then_some(segment)
    }

    /// For a message about the file that `id` should be in.
    pub(super) fn segment_path(&self, id: FrameId) -> PathBuf {
        self.segment_of(id).map_or_else(|| self.dir.clone(), |segment| self.path(segment.epoch, segment.range.first))
    }

    pub(super) fn oldest(&self) -> Option<&Segment> {
        self.segments.front()
    }

    pub(super) fn remove_oldest(&mut self) {
        if self.segments.len() == 1 {
            self.active = None;
        }
        if let Some(segment) = self.segments.pop_front() {
            self.forget(&segment);
        }
    }

    /// Deletes closed segments for which `keep` is false.
    pub(super) fn retain_closed(&mut self, keep: impl Fn(&Segment) -> bool) {
        let closed = self.segments.len() - usize::from(self.active.is_some());
        for index in (0..closed).rev() {
            if !keep(&self.segments[index])
                && let Some(segment) = self.segments.remove(index)
            {
                self.forget(&segment);
            }
        }
    }

    pub(super) fn save_gaps(&mut self, gaps: &Gaps) -> io::Result<()> {
        let path = self.dir.join(GAPS_NAME);
        if gaps.list().is_empty() {
            return match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        self.check_fault()?;
        create_dir(&self.dir)?;
        let temporary = self.dir.join(GAPS_TEMPORARY_NAME);
        let mut file = File::create(&temporary)?;
        file.write_all(&gaps.encode())?;
        file.sync_data()?;
        fs::rename(&temporary, &path)
    }

    fn append_next(&mut self, group: &Group) -> io::Result<()> {
        let (index, slot) = (group.written, &group.slots()[group.written]);
        self.check_fault()?;
        let (Some(active), Some(segment)) = (&mut self.active, self.segments.back_mut()) else {
            return Err(io::Error::other("the segment under way is gone"));
        };
        self.buffer.clear();
        let id = FrameId { epoch: group.epoch, seq: slot.seq };
        segment::encode(&mut self.buffer, id, slot.kind, index == 0, slot.wall, group.body(index));
        active.file.write_all(&self.buffer)?;
        let written = self.buffer.len() as u64;
        segment.bytes += written;
        self.bytes += written;
        segment.range.last = slot.seq;
        segment.to = slot.wall;
        // A keyframe may have had a megabyte.
        self.buffer.shrink_to(4096);
        Ok(())
    }

    /// Makes a place for a group, in a new file when this one is full. An error costs no group.
    fn begin_group(&mut self, epoch: Epoch, seq: Seq, wall: WallMs) -> io::Result<()> {
        self.check_fault()?;
        let full = SEGMENT_BYTES_MAX.min(self.bytes_max / 8);
        if let (Some(active), Some(segment)) = (&mut self.active, self.segments.back())
            && segment.epoch == epoch
            && segment.bytes < full
        {
            active.before = Some(segment.clone());
            return Ok(());
        }
        let synced = self.sync();
        self.active = None;
        synced?;
        if self.segments.back().is_some_and(|newest| (newest.epoch, newest.range.last) >= (epoch, seq)) {
            // An epoch that is used twice must not overwrite what the first one left.
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("epoch {} was used before", epoch.0)));
        }
        create_dir(&self.dir)?;
        let mut file = File::create(self.path(epoch, seq))?;
        file.write_all(&segment::FILE_HEAD)?;
        let bytes = segment::FILE_HEAD.len() as u64;
        self.bytes += bytes;
        self.segments.push_back(Segment { epoch, range: SeqRange::one(seq), from: wall, to: wall, bytes });
        self.active = Some(Active { file, before: None, is_dir_synced: false });
        Ok(())
    }

    fn path(&self, epoch: Epoch, first: Seq) -> PathBuf {
        self.dir.join(format!("{}-{}.seg", epoch.0, first.0))
    }

    fn forget(&mut self, segment: &Segment) {
        self.bytes -= segment.bytes;
        // A file that stays is read again at the next start, and what is in it acknowledged again.
        fs::remove_file(self.path(segment.epoch, segment.range.first)).ok();
    }

    #[cfg(test)]
    fn check_fault(&self) -> io::Result<()> {
        if self.fault { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests inject errors here")]
    const fn check_fault(&self) -> io::Result<()> {
        Ok(())
    }

    /// The segments by name, in rising order.
    fn list(&self, found: &mut Found) -> Option<Vec<(Epoch, Seq)>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(source) => {
                found.notes.push(Note::Read { path: self.dir.clone(), source });
                return None;
            }
        };
        let mut names = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name();
            match name.to_str().and_then(parse_name) {
                Some(parsed) if entry.file_type().is_ok_and(|kind| kind.is_file()) => names.push(parsed),
                _ if name == GAPS_NAME || name == GAPS_TEMPORARY_NAME => {}
                _ => found.notes.push(Note::Foreign { path: entry.path() }),
            }
        }
        names.sort_unstable();
        Some(names)
    }

    fn load_gaps(&self, found: &mut Found) {
        let path = self.dir.join(GAPS_NAME);
        match read(&path, gap::FILE_BYTES_MAX) {
            Ok(bytes) => match Gaps::decode(&bytes) {
                Some(gaps) => found.gaps = gaps,
                None => found.notes.push(Note::GapsDamaged { path }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => found.notes.push(Note::Read { path, source }),
        }
    }

    fn open_segment(&mut self, found: &mut Found, epoch: Epoch, first: Seq, until: Option<Seq>, is_newest: bool) {
        let path = self.path(epoch, first);
        let read = read(&path, FILE_BYTES_MAX);
        let scan = match &read {
            Ok(bytes) => Some(segment::scan(bytes)).filter(|scan| scan.epoch().is_none_or(|own| own == epoch)),
            Err(_) => None,
        };
        let unreadable = || Scan { tail: segment::Tail::Damaged(None), ..Scan::default() };
        let scan = scan.unwrap_or_else(unreadable);
        let is_read = read.is_ok();
        if let Err(source) = read {
            found.notes.push(Note::Read { path: path.clone(), source });
        }
        let modified = modified(&path);
        let mut frames = 0;
        for lost in scan.lost(first, until, is_newest) {
            frames += lost.range.count();
            let (from, to) = (lost.from.or(lost.to).unwrap_or(modified), lost.to.unwrap_or(modified));
            found.gaps.add(Gap { epoch, range: lost.range, from, to, reason: GapReason::Damaged });
        }
        if frames > 0 {
            found.notes.push(Note::Damaged { path: path.clone(), frames });
        }
        let mut usable = scan.usable();
        if let Some(until) = until {
            // A group that was cut off and then written again: the later file has it whole.
            usable.remove_range(SeqRange { first: until, last: Seq(u64::MAX) });
        }
        let (Some(oldest), Some(newest)) = (scan.records.first(), scan.records.last()) else {
            // A run that ended before its first frame leaves such a file. One that is damaged from
            // end to end is left to be looked at.
            if frames == 0 && is_read {
                fs::remove_file(path).ok();
            }
            return;
        };
        if scan.tail == segment::Tail::Torn && is_newest {
            // Else the next start would take what a crash left for damage.
            File::options().write(true).open(&path).and_then(|file| file.set_len(scan.good_bytes as u64)).ok();
        }
        let bytes = fs::metadata(&path).map_or(scan.good_bytes as u64, |meta| meta.len());
        self.bytes += bytes;
        let range = SeqRange { first, last: usable.last().map_or(first, |last| last.max(first)) };
        self.segments.push_back(Segment { epoch, range, from: oldest.wall, to: newest.wall, bytes });
        let held = found.held.entry(epoch).or_default();
        usable.ranges().iter().for_each(|&range| held.insert_range(range));
    }
}

/// `<epoch>-<first seq>.seg`, in exactly the form that is written here.
fn parse_name(name: &str) -> Option<(Epoch, Seq)> {
    let (epoch, first) = name.strip_suffix(".seg")?.split_once('-')?;
    let parsed = (Epoch(epoch.parse().ok()?), Seq(first.parse().ok()?));
    (format!("{}-{}.seg", parsed.0.0, parsed.1.0) == name).then_some(parsed)
}

fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

fn modified(path: &Path) -> WallMs {
    let since =
        fs::metadata(path).and_then(|meta| meta.modified()).ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    WallMs(since.and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0))
}

/// For the agent alone: what a host does is nobody else's business.
fn create_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}
