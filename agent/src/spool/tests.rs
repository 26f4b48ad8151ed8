//! The spool's behaviour case by case, on real frames and real files; `model` has the random runs.

mod model;

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use dunlin_shared::codec::{Grouper, decode_key, encode_delta, encode_key};
use dunlin_shared::id::Seq;
use dunlin_shared::metric::by_name;
use dunlin_shared::sample::{Reading, Sample, Subject, SubjectKind};
use dunlin_shared::time::MonoMs;

use super::*;

static DIRS: AtomicU32 = AtomicU32::new(0);

/// A directory of its own for each test, removed with it.
struct TempDir(PathBuf);

/// Samples a host that changes a little with each tick, and frames what it sees.
struct Source {
    grouper: Grouper,
    before: Option<(Seq, Reading)>,
    epoch: u32,
    seq: u64,
    mounts: usize,
}

struct Made {
    frame: Frame,
    wall: WallMs,
    begins: bool,
    /// `None` for inventory.
    reading: Option<Reading>,
}

impl TempDir {
    fn new() -> Self {
        let n = DIRS.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("dunlin-spool-{}-{n}", std::process::id()));
        fs::create_dir_all(&dir).expect("a temporary directory");
        Self(dir)
    }

    /// Where the spool is to be: it makes the directory itself.
    fn spool(&self) -> PathBuf {
        self.0.join("spool")
    }

    /// In rising order by epoch and number.
    fn segments(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.spool()) else { return Vec::new() };
        let mut named: Vec<(u32, u64, PathBuf)> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let (epoch, first) = path.file_name()?.to_str()?.strip_suffix(".seg")?.split_once('-')?;
                Some((epoch.parse().ok()?, first.parse().ok()?, path))
            })
            .collect();
        named.sort();
        named.into_iter().map(|(_, _, path)| path).collect()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

impl Source {
    fn new(epoch: u32) -> Self {
        Self { grouper: Grouper::default(), before: None, epoch, seq: 0, mounts: 2 }
    }

    fn end_group(&mut self) {
        self.before = None;
        self.grouper.end_group();
    }

    fn next(&mut self) -> Made {
        let tick = self.seq;
        let wall = WallMs(1_700_000_000_000 + (tick * 10_000).cast_signed());
        let mut sample = Sample::new(MonoMs(tick * 10_000), wall);
        let load = by_name("host_load1").expect("a catalogue metric");
        sample.push(&Subject::HOST(), load, f64::from(u32::try_from(tick % 977).expect("small")) / 8.0);
        for n in 0..self.mounts {
            let subject = Subject::new(SubjectKind::Fs, &format!("/{n}")).expect("a mount point");
            let used = by_name("fs_used_bytes").expect("a catalogue metric");
            sample.push(&subject, used, (tick * tick * (n as u64 + 1)) as f64 * 4096.0);
        }
        let (reading, begins) = self.grouper.lay_out(&sample);
        let id = FrameId::new(self.epoch, self.seq);
        let (kind, body) = match &self.before {
            Some((base, before)) if !begins => {
                let back = u16::try_from(self.seq - base.0).expect("a group is short");
                (BodyKind::Delta { back }, encode_delta(before, &reading).expect("it builds on the one before"))
            }
            _ => (BodyKind::Key, encode_key(&reading)),
        };
        self.before = Some((Seq(self.seq), reading.clone()));
        self.seq += 1;
        Made { frame: Frame { id, kind, body }, wall, begins, reading: Some(reading) }
    }

    fn inventory(&mut self, bytes: usize) -> Made {
        let id = FrameId::new(self.epoch, self.seq);
        let wall = WallMs(1_700_000_000_000 + (self.seq * 10_000).cast_signed());
        self.seq += 1;
        let frame = Frame { id, kind: BodyKind::Inventory, body: vec![0xd5; bytes] };
        Made { frame, wall, begins: false, reading: None }
    }

    /// Pushes `count` frames and gives back what they were.
    fn feed(&mut self, spool: &mut Spool, count: usize) -> Vec<Made> {
        let push = |_| {
            let made = self.next();
            if spool.push(&made.frame, made.wall, made.begins).must_begin {
                self.end_group();
            }
            made
        };
        (0..count).map(push).collect()
    }
}

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange { first: Seq(first), last: Seq(last) }
}

fn held(spool: &Spool, epoch: u32) -> Vec<(u64, u64)> {
    spool.unacknowledged(Epoch(epoch)).ranges().iter().map(|range| (range.first.0, range.last.0)).collect()
}

/// Every held frame decodes to the reading that was pushed, in order and out of order.
fn assert_rekeys(spool: &mut Spool, made: &[Made]) {
    let step = 7 % made.len().max(2);
    let shuffled = (0..made.len()).map(|n| &made[(n * step.max(1)) % made.len()]);
    for made in made.iter().chain(shuffled) {
        let id = made.frame.id;
        if !spool.unacknowledged(id.epoch).contains(id.seq) {
            assert_eq!((spool.frame(id), spool.keyframe(id)), (None, None));
            continue;
        }
        assert_eq!(spool.frame(id).as_ref(), Some(&made.frame));
        let key = spool.keyframe(id).expect("a held frame can be sent");
        assert_eq!(key.id, id);
        match &made.reading {
            Some(reading) => assert_eq!((key.kind, decode_key(&key.body)), (BodyKind::Key, Ok(reading.clone()))),
            None => assert_eq!(key, made.frame),
        }
    }
}

#[test]
fn a_full_ring_drops_its_oldest_groups_and_says_exactly_what_and_when() {
    let mut spool = Spool::new(16 * 1024);
    let mut source = Source::new(1);
    let made = source.feed(&mut spool, 1_000);
    assert!(spool.len_bytes() <= 16 * 1024);
    let [gap] = spool.gaps() else { panic!("gaps that touch are one: {:?}", spool.gaps()) };
    assert_eq!((gap.reason, gap.range.first, gap.from), (GapReason::Overflow, Seq(0), made[0].wall));
    assert_eq!(gap.range.count(), spool.dropped());
    assert_eq!(gap.to, made[usize::try_from(gap.range.last.0).expect("small")].wall);
    assert_eq!(gap.range.count() % 30, 0, "whole groups");
    assert_eq!(held(&spool, 1), [(gap.range.last.0 + 1, 999)]);
    assert_rekeys(&mut spool, &made);
}

#[test]
fn what_was_acknowledged_is_in_no_gap() {
    let mut spool = Spool::new(16 * 1024);
    let mut source = Source::new(1);
    source.feed(&mut spool, 30);
    spool.acknowledge(Epoch(1), range(3, 28));
    source.feed(&mut spool, 600);
    assert_eq!(spool.gaps()[0].range, range(0, 2));
    assert_eq!(spool.gaps()[1].range.first, Seq(29));
}

#[test]
fn frames_that_are_acknowledged_as_they_come_are_never_dropped_however_large_they_are() {
    let mut spool = Spool::new(16 * 1024);
    let mut source = Source::new(1);
    source.mounts = 300;
    for seq in 0..200 {
        source.feed(&mut spool, 1);
        if seq % 3 == 2 {
            spool.acknowledge(Epoch(1), range(0, seq));
        }
    }
    assert_eq!((spool.dropped(), spool.gaps()), (0, [].as_slice()));
}

#[test]
fn a_gap_stays_until_it_is_acknowledged_like_a_frame() {
    let mut spool = Spool::new(16 * 1024);
    Source::new(1).feed(&mut spool, 1_000);
    let gap = spool.gaps()[0];
    spool.acknowledge(Epoch(2), gap.range);
    assert_eq!(spool.gaps(), [gap]);
    spool.acknowledge(Epoch(1), range(0, 9));
    assert_eq!(spool.gaps()[0].range, range(10, gap.range.last.0));
    spool.acknowledge(Epoch(1), gap.range);
    spool.acknowledge(Epoch(1), gap.range);
    assert!(spool.gaps().is_empty());
}

#[test]
fn the_group_under_way_keeps_the_frames_that_later_deltas_build_on() {
    let mut spool = Spool::new(RAM_BYTES_DEFAULT);
    let mut source = Source::new(1);
    source.feed(&mut spool, 10);
    spool.acknowledge(Epoch(1), range(0, 9));
    assert_eq!((spool.len_frames(), spool.frame(FrameId::new(1, 9))), (0, None));
    let made = source.feed(&mut spool, 30);
    assert_rekeys(&mut spool, &made);
    spool.acknowledge(Epoch(1), range(0, u64::MAX));
    source.end_group();
    let bytes = spool.len_bytes();
    source.feed(&mut spool, 1);
    spool.acknowledge(Epoch(1), range(40, 40));
    assert!(spool.len_bytes() < bytes, "closed groups are freed");
}

#[test]
fn a_group_that_alone_exceeds_the_ring_is_dropped_and_a_new_one_demanded() {
    let mut spool = Spool::new(4 * 1024);
    let mut source = Source::new(1);
    source.feed(&mut spool, 2);
    let large = source.inventory(5_000);
    assert_eq!(spool.push(&large.frame, large.wall, false), Pushed { dropped: 3, must_begin: true });
    assert_eq!((spool.gaps()[0].range, spool.len_frames()), (range(0, 2), 0));
    let orphan = source.next();
    assert!(matches!(orphan.frame.kind, BodyKind::Delta { .. }));
    assert_eq!(spool.push(&orphan.frame, orphan.wall, false), Pushed { dropped: 1, must_begin: true });
    assert_eq!(spool.gaps()[0].range, range(0, 3));
}

#[test]
fn a_stock_of_half_its_size_costs_a_ring_no_frame_and_one_beyond_it_all_of_them() {
    const RAM: usize = 512 * 1024;
    // Beside the stock stands what happened.
    for (bytes, is_kept) in [(RAM / 2 + 32 * 1024, true), (RAM + 1, false)] {
        let (mut spool, mut source) = (Spool::new(RAM), Source::new(1));
        source.feed(&mut spool, 120);
        let made = source.inventory(bytes);
        let pushed = spool.push(&made.frame, made.wall, made.begins);
        assert_eq!(
            (pushed.dropped, spool.frame(made.frame.id).is_some()),
            if is_kept { (0, true) } else { (121, false) }
        );
    }
}

#[test]
fn inventory_within_a_group_is_kept_as_it_is_and_breaks_no_chain() {
    let mut spool = Spool::new(RAM_BYTES_DEFAULT);
    let mut source = Source::new(1);
    let mut made = source.feed(&mut spool, 3);
    let inventory = source.inventory(200);
    assert_eq!(spool.push(&inventory.frame, inventory.wall, false), Pushed::default());
    made.push(inventory);
    made.extend(source.feed(&mut spool, 3));
    assert!(matches!(made[4].frame.kind, BodyKind::Delta { back: 2 }));
    assert_rekeys(&mut spool, &made);
}

#[test]
fn frames_outlive_the_process_when_there_is_a_disk_ring() {
    let dir = TempDir::new();
    let (mut spool, recovered) = Spool::open(&dir.spool(), 8 * 1024, Some(1 << 20));
    assert_eq!(recovered, Recovered::default());
    let mut made = Source::new(4).feed(&mut spool, 700);
    assert!(spool.gaps().is_empty() && spool.len_bytes() <= 8 * 1024);
    assert_rekeys(&mut spool, &made);
    drop(spool);
    let (mut spool, recovered) = Spool::open(&dir.spool(), 8 * 1024, Some(1 << 20));
    assert_eq!(recovered, Recovered { frames: 700, epoch_max: Some(Epoch(4)) });
    made.extend(Source::new(5).feed(&mut spool, 40));
    assert_rekeys(&mut spool, &made);
    let epochs: Vec<u32> = spool.spooled().iter().map(|spooled| spooled.epoch.0).collect();
    assert_eq!(epochs, [4, 5]);
    spool.acknowledge(Epoch(4), range(0, 699));
    assert_eq!(dir.segments().len(), 1, "what is acknowledged is deleted");
    assert!(spool.take_notes().is_empty());
}

#[test]
fn a_full_disk_ring_gives_up_its_oldest_files_and_remembers_the_gap_over_a_restart() {
    let dir = TempDir::new();
    let (mut spool, _) = Spool::open(&dir.spool(), 8 * 1024, Some(64 * 1024));
    let made = Source::new(1).feed(&mut spool, 4_000);
    assert!(spool.disk_bytes() <= 64 * 1024);
    let gaps = spool.gaps().to_vec();
    assert_eq!((gaps.len(), gaps[0].range.first, gaps[0].range.count()), (1, Seq(0), spool.dropped()));
    assert_eq!((gaps[0].from, spool.len_frames() + spool.dropped()), (made[0].wall, 4_000));
    drop(spool);
    let (mut spool, _) = Spool::open(&dir.spool(), 8 * 1024, Some(64 * 1024));
    assert_eq!(spool.gaps(), gaps);
    spool.acknowledge(Epoch(1), gaps[0].range);
    drop(spool);
    let (spool, _) = Spool::open(&dir.spool(), 8 * 1024, Some(64 * 1024));
    assert!(spool.gaps().is_empty());
}

#[test]
fn a_torn_tail_is_cut_without_a_word_and_stays_cut() {
    let dir = TempDir::new();
    let (mut spool, _) = Spool::open(&dir.spool(), RAM_BYTES_DEFAULT, Some(1 << 20));
    let made = Source::new(1).feed(&mut spool, 10);
    drop(spool);
    let path = &dir.segments()[0];
    let bytes = fs::read(path).expect("the file is there");
    fs::write(path, &bytes[..bytes.len() - 5]).expect("it can be written");
    for next in 2..4 {
        let (mut spool, _) = Spool::open(&dir.spool(), RAM_BYTES_DEFAULT, Some(1 << 20));
        assert_eq!((held(&spool, 1), spool.gaps()), (vec![(0, 8)], &[][..]));
        assert!(spool.take_notes().is_empty());
        assert_rekeys(&mut spool, &made[..9]);
        Source::new(next).feed(&mut spool, 3);
    }
}

#[test]
fn damage_costs_the_frame_and_what_builds_on_it_and_is_said() {
    let dir = TempDir::new();
    let (mut spool, _) = Spool::open(&dir.spool(), RAM_BYTES_DEFAULT, Some(1 << 20));
    let made = Source::new(1).feed(&mut spool, 90);
    drop(spool);
    let path = &dir.segments()[0];
    let mut bytes = fs::read(path).expect("the file is there");
    let records = segment::scan(&bytes).records;
    bytes[records[40].body.start + 1] ^= 4;
    fs::write(path, &bytes).expect("it can be written");
    let (mut spool, _) = Spool::open(&dir.spool(), RAM_BYTES_DEFAULT, Some(1 << 20));
    assert_eq!(held(&spool, 1), [(0, 39), (60, 89)]);
    let [gap] = spool.gaps() else { panic!("one gap: {:?}", spool.gaps()) };
    assert_eq!((gap.reason, gap.range), (GapReason::Damaged, range(40, 59)));
    assert!(made[39].wall <= gap.from && gap.from <= gap.to && gap.to <= made[60].wall);
    assert!(matches!(spool.take_notes()[..], [Note::Damaged { frames: 20, .. }]));
    assert_rekeys(&mut spool, &made);
}

#[test]
fn foreign_files_are_left_alone_and_reported() {
    let dir = TempDir::new();
    fs::create_dir(dir.spool()).expect("a directory");
    for name in ["notes.txt", "01-2.seg", "1-+2.seg", "99999999999-1.seg", "1-2.seg.old"] {
        fs::write(dir.spool().join(name), "mine").expect("it can be written");
    }
    fs::create_dir(dir.spool().join("7-7.seg")).expect("a directory");
    let (mut spool, recovered) = Spool::open(&dir.spool(), RAM_BYTES_DEFAULT, Some(1 << 20));
    assert_eq!(recovered, Recovered::default());
    let notes = spool.take_notes();
    assert!(notes.len() == 6 && notes.iter().all(|note| matches!(note, Note::Foreign { .. })), "{notes:?}");
    assert_eq!(fs::read_dir(dir.spool()).expect("it is there").count(), 6);
}

#[test]
fn a_disk_that_fails_costs_nothing_that_ram_holds_and_is_noted_once() {
    let dir = TempDir::new();
    let (mut spool, _) = Spool::open(&dir.spool(), 64 * 1024, Some(1 << 20));
    let mut source = Source::new(1);
    let mut made = source.feed(&mut spool, 40);
    spool.disk.as_mut().expect("there is one").fault = true;
    made.extend(source.feed(&mut spool, 100));
    assert!(matches!(spool.take_notes()[..], [Note::Write { .. }]));
    assert!(spool.is_disk_failing() && spool.gaps().is_empty());
    assert_rekeys(&mut spool, &made);
    spool.disk.as_mut().expect("there is one").fault = false;
    made.extend(source.feed(&mut spool, 10));
    assert!(matches!(spool.take_notes()[..], [Note::Resumed { .. }]));
    drop(spool);
    let (mut spool, recovered) = Spool::open(&dir.spool(), 64 * 1024, Some(1 << 20));
    assert_eq!((recovered.frames, spool.gaps()), (150, &[][..]), "what was in RAM was written afterwards");
    assert!(spool.take_notes().is_empty());
    assert_rekeys(&mut spool, &made);
}

#[test]
fn a_state_directory_that_cannot_be_made_leaves_a_ring_in_ram() {
    let dir = TempDir::new();
    fs::write(dir.0.join("file"), "in the way").expect("it can be written");
    let (mut spool, _) = Spool::open(&dir.0.join("file/spool"), 16 * 1024, Some(1 << 20));
    let made = Source::new(1).feed(&mut spool, 1_000);
    assert_eq!(spool.take_notes().len(), 2, "reading and writing");
    assert_eq!(spool.len_frames() + spool.gaps()[0].range.count(), 1_000);
    assert_rekeys(&mut spool, &made);
    assert!(matches!(spool.park(&dir.0), Err(Note::Write { .. })));
}

#[test]
fn an_orderly_stop_without_a_disk_ring_keeps_what_is_unacknowledged() {
    let dir = TempDir::new();
    let mut spool = Spool::new(RAM_BYTES_DEFAULT);
    let mut made = Source::new(1).feed(&mut spool, 100);
    spool.acknowledge(Epoch(1), range(0, 49));
    spool.park(&dir.spool()).expect("it can be written");
    drop(spool);
    let (mut spool, recovered) = Spool::open(&dir.spool(), RAM_BYTES_DEFAULT, None);
    assert_eq!((recovered.epoch_max, held(&spool, 1)), (Some(Epoch(1)), vec![(30, 99)]));
    made.extend(Source::new(2).feed(&mut spool, 50));
    assert_rekeys(&mut spool, &made[30..]);
    spool.acknowledge(Epoch(2), range(0, 10));
    spool.park(&dir.spool()).expect("it can be written");
    drop(spool);
    let (mut spool, _) = Spool::open(&dir.spool(), RAM_BYTES_DEFAULT, None);
    assert_rekeys(&mut spool, &made[30..]);
    assert_eq!((held(&spool, 1), held(&spool, 2)), (vec![(30, 99)], vec![(0, 49)]));
    spool.acknowledge(Epoch(1), range(0, 99));
    spool.acknowledge(Epoch(2), range(0, 99));
    assert!(dir.segments().is_empty() && spool.take_notes().is_empty());
}

#[test]
fn more_epochs_than_a_hello_may_list_are_given_up_from_the_oldest() {
    let mut spool = Spool::new(RAM_BYTES_DEFAULT);
    for epoch in 1..=70 {
        Source::new(epoch).feed(&mut spool, 3);
    }
    let spooled = spool.spooled();
    assert_eq!((spooled.len(), spooled[0].epoch), (EPOCHS_MAX, Epoch(7)));
    assert_eq!((spool.gaps().len(), spool.gaps()[5].epoch, spool.dropped()), (6, Epoch(6), 18));
}

#[test]
fn a_file_that_vanishes_under_a_running_agent_becomes_a_gap() {
    let dir = TempDir::new();
    let (mut spool, _) = Spool::open(&dir.spool(), 4 * 1024, Some(1 << 20));
    let made = Source::new(1).feed(&mut spool, 600);
    fs::remove_file(&dir.segments()[0]).expect("the file is there");
    assert_eq!(spool.frame(made[0].frame.id), None);
    let gap = spool.gaps()[0];
    assert_eq!((gap.reason, gap.range.first), (GapReason::Damaged, Seq(0)));
    assert_eq!(gap.range.count() + spool.len_frames(), 600);
    assert!(matches!(spool.take_notes()[..], [Note::Read { .. }]));
    assert_rekeys(&mut spool, &made);
}

#[test]
fn an_epoch_that_is_used_twice_overwrites_no_file() {
    let dir = TempDir::new();
    let (mut spool, _) = Spool::open(&dir.spool(), RAM_BYTES_DEFAULT, Some(1 << 20));
    Source::new(3).feed(&mut spool, 5);
    drop(spool);
    let before = fs::read(&dir.segments()[0]).expect("the file is there");
    for epoch in [3, 2] {
        let (mut spool, _) = Spool::open(&dir.spool(), RAM_BYTES_DEFAULT, Some(1 << 20));
        Source::new(epoch).feed(&mut spool, 3);
        assert!(matches!(spool.take_notes()[..], [Note::Write { .. }]));
        assert_eq!(dir.segments().len(), 1);
        assert_eq!(fs::read(&dir.segments()[0]).expect("the file is there"), before);
    }
}

#[test]
fn a_group_that_two_files_have_belongs_to_the_later_one() {
    let dir = TempDir::new();
    let (mut spool, _) = Spool::open(&dir.spool(), RAM_BYTES_DEFAULT, Some(1 << 20));
    let made = Source::new(1).feed(&mut spool, 60);
    drop(spool);
    let bytes = fs::read(&dir.segments()[0]).expect("the file is there");
    let second = segment::scan(&bytes).records[30].body.start - segment::HEAD_BYTES;
    let later = [&segment::FILE_HEAD[..], &bytes[second..]].concat();
    fs::write(dir.spool().join("1-30.seg"), later).expect("it can be written");
    fs::write(&dir.segments()[0], &bytes[..bytes.len() - 70]).expect("it can be written");
    let (mut spool, _) = Spool::open(&dir.spool(), RAM_BYTES_DEFAULT, Some(1 << 20));
    assert!(spool.take_notes().is_empty());
    assert_eq!((held(&spool, 1), spool.gaps()), (vec![(0, 59)], &[][..]));
    assert_rekeys(&mut spool, &made);
    spool.acknowledge(Epoch(1), range(0, 29));
    assert_eq!(dir.segments(), [dir.spool().join("1-30.seg")]);
}
