//! Damaged copies of a log. Whatever is done to the bytes: no panic, no record that was not written, and
//! no loss that is not reported.

use std::path::Path;

use proptest::prelude::*;

use super::super::connect::has_wal;
use super::super::{Log, Opened, Reader, StoreError};
use super::{Dir, T0, all, copy, files, leave_wal, open, record, write};
use crate::record::{Pos, Record};

/// Two closed files and an open one whose newest transactions are in its WAL; as after a power cut.
struct Fixture {
    dir: Dir,
    records: Vec<(Pos, Record)>,
}

impl Fixture {
    fn new() -> Self {
        let dir = Dir::new();
        let (mut log, _) = open(dir.path(), 0);
        for slot in 0..3 {
            log.rotate(T0.plus(slot * 300_000), format!("snapshot {slot}").as_bytes()).expect("rotate");
            for group in 0..8 {
                let first = u64::try_from(slot).expect("small") * 80 + group * 10;
                write(&mut log, &(first..first + 10).map(record).collect::<Vec<_>>());
            }
        }
        let records = all(&log);
        let dir = copy(dir.path());
        Self { dir, records }
    }

    fn last(&self) -> u64 {
        self.records.len() as u64
    }
}

/// What was reported, what could be read, and whether the scan met damage.
type Outcome = (Opened, Vec<(Pos, Record)>, bool);

/// Opens what is left and writes on; returns what was reported and what can be read.
fn reopen(dir: &Path, applied: u64) -> Result<Outcome, StoreError> {
    let (mut log, opened) = Log::open(dir, T0.plus(900_000), Pos(applied))?;
    let mut found = Vec::new();
    let mut damaged = false;
    for item in log.scan(Pos(0)) {
        match item {
            Ok(read) => found.push(read),
            Err(StoreError::Damaged { .. }) => damaged = true,
            Err(other) => return Err(other),
        }
    }
    if log.due(T0.plus(900_000)) {
        log.rotate(T0.plus(900_000), b"after").expect("there is space for a new file");
    }
    let next = log.next_pos();
    write(&mut log, &[record(1)]);
    assert_eq!(log.scan_newest().last().expect("a record").expect("sound"), (next, record(1)));
    log.close().expect("close");
    Ok((opened, found, damaged))
}

/// Nothing that was not written, and what is missing was said. Only the end of a WAL that nobody has applied
/// yet may be missing without a word: so it looks after a power cut.
fn judge(fixture: &Fixture, (applied, torn): (u64, bool), dir: &Path, what: &str) {
    let before: Vec<_> = files(dir, "").iter().map(|path| std::fs::read(path).expect("read")).collect();
    let (opened, found, damaged) = match reopen(dir, applied) {
        Ok(outcome) => outcome,
        Err(error) => panic!("{what}: the log does not open: {error}"),
    };
    for read in &found {
        assert!(fixture.records.contains(read), "{what}: {read:?} was never written");
    }
    assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "{what}: order");
    let said = damaged || !opened.set_aside.is_empty() || opened.lost_after.is_some();
    assert!(said || found.len() == fixture.records.len() || torn, "{what}: a silent loss");
    assert!(opened.next_pos.0 > applied, "{what}: a position is used twice");
    assert!(found.last().is_none_or(|(last, _)| *last < opened.next_pos), "{what}: a position is used twice");
    for path in &opened.set_aside {
        let kept = std::fs::read(path).expect("what is set aside is there");
        assert!(before.contains(&kept), "{what}: {} was changed", path.display());
    }
    let reader: Result<Vec<_>, _> = Reader::new(dir).scan(Pos(0)).expect("listed").collect();
    assert!(damaged || reader.is_ok(), "{what}: {reader:?}");
}

/// The database of the newest file, its WAL, and the database of a closed one.
fn target(dir: &Path, which: usize) -> std::path::PathBuf {
    let newest = files(dir, "-wal").remove(0);
    let open = std::path::PathBuf::from(newest.to_string_lossy().trim_end_matches("-wal"));
    match which {
        0 => open,
        1 => newest,
        _ => files(dir, ".db").into_iter().find(|path| *path != open).expect("a closed file"),
    }
}

#[test]
fn an_undamaged_copy_loses_nothing_and_reports_nothing() {
    let fixture = Fixture::new();
    let (opened, found, damaged) = reopen(fixture.dir.path(), fixture.last()).expect("it opens");
    assert_eq!(found, fixture.records);
    assert!(!damaged && opened.set_aside.is_empty() && opened.lost_after.is_none());
    assert_eq!(opened.snapshot, b"snapshot 2");
}

#[test]
fn a_file_of_any_length_below_its_own_is_survived_and_said() {
    let fixture = Fixture::new();
    for which in 0..3 {
        let whole = std::fs::metadata(target(fixture.dir.path(), which)).expect("there").len();
        for step in 0..24 {
            let bytes = whole * step / 24;
            let dir = copy(fixture.dir.path());
            let path = target(dir.path(), which);
            let file = std::fs::OpenOptions::new().write(true).open(&path).expect("there");
            file.set_len(bytes).expect("truncated");
            drop(file);
            judge(
                &fixture,
                (fixture.last(), false),
                dir.path(),
                &format!("file {which} cut to {bytes} of {whole} bytes"),
            );
        }
    }
}

#[test]
fn garbage_in_the_newest_file_leaves_the_snapshot_of_the_one_before() {
    let fixture = Fixture::new();
    let dir = copy(fixture.dir.path());
    std::fs::write(target(dir.path(), 0), [0xa5; 9_000]).expect("written");
    let (opened, found, _) = reopen(dir.path(), 0).expect("it opens");
    assert_eq!(found, fixture.records[..160]);
    assert_eq!((opened.snapshot.as_slice(), opened.set_aside.len()), (b"snapshot 1".as_slice(), 1));
    let name = opened.set_aside[0].to_string_lossy().into_owned();
    assert!(name.contains(".db.damaged-1795256100000"), "{name}");
    let wal = std::path::PathBuf::from(format!("{name}-wal"));
    assert!(wal.exists(), "the WAL stays with its database");
    assert_eq!(opened.lost_after, Some(Pos(160)));
    assert!(opened.next_pos.0 > 160 + 80, "no position of the damaged file is used again");
    let (again, _, _) = reopen(dir.path(), 0).expect("it opens");
    assert!(again.set_aside.is_empty(), "reported once");
}

#[test]
fn a_schema_that_rots_is_reported_by_the_scan_and_the_other_files_go_on() {
    let fixture = Fixture::new();
    let dir = copy(fixture.dir.path());
    let path = target(dir.path(), 2);
    let mut bytes = std::fs::read(&path).expect("read");
    let column = bytes.windows(4).position(|word| word == b"lane").expect("the schema is in the first page");
    bytes[column] = b'm';
    std::fs::write(&path, &bytes).expect("written");
    let (opened, found, damaged) = reopen(dir.path(), fixture.last()).expect("it opens");
    assert!(damaged && opened.set_aside.is_empty(), "a file that is not needed is not read at start");
    assert_eq!(found, fixture.records[80..]);
}

#[test]
fn a_half_made_file_is_removed_and_made_again() {
    let fixture = Fixture::new();
    let dir = copy(fixture.dir.path());
    std::fs::write(dir.path().join("journal-1795256100-241.db.new"), b"half").expect("written");
    let (opened, found, _) = reopen(dir.path(), 0).expect("it opens");
    assert!(opened.set_aside.is_empty());
    assert_eq!(found, fixture.records);
    assert!(files(dir.path(), ".new").is_empty());
}

#[test]
fn a_wal_that_is_broken_within_its_synced_part_is_copied_and_reported() {
    let fixture = Fixture::new();
    let dir = copy(fixture.dir.path());
    let path = target(dir.path(), 1);
    let mut bytes = std::fs::read(&path).expect("read");
    // The second frame: several commits follow it.
    bytes[32 + 24 + 4096 + 24 + 700] ^= 1;
    std::fs::write(&path, &bytes).expect("written");
    let (opened, found, _) = reopen(dir.path(), 0).expect("it opens");
    assert!(found.len() < fixture.records.len() && found.len() >= 160);
    assert_eq!(opened.lost_after, Some(Pos(found.len() as u64)), "without help of the applied position");
    assert_eq!(std::fs::read(&opened.set_aside[0]).expect("kept"), bytes);
    let (again, _, _) = reopen(dir.path(), 0).expect("it opens");
    assert!(again.set_aside.is_empty() && again.lost_after.is_none(), "reported once");
}

#[test]
fn one_wal_that_cannot_be_folded_holds_up_neither_the_others_nor_the_file_that_is_written() {
    let fixture = Fixture::new();
    let dir = fixture.dir.path();
    let journals = files(dir, ".db");
    journals[..2].iter().for_each(|path| leave_wal(path));
    let (mut log, _) = open(dir, fixture.last());
    let kept = dir.join("kept");
    std::fs::rename(&journals[1], &kept).expect("renamed");
    std::fs::create_dir(&journals[1]).expect("made");
    assert!(matches!(log.checkpoint_if_due(), Err(StoreError::Unavailable { .. })));
    assert!(log.checkpoint_if_due().is_err(), "it is tried again");
    assert!(!has_wal(&journals[0]), "and the other had its turn");
    std::fs::remove_dir(&journals[1]).expect("removed");
    std::fs::rename(&kept, &journals[1]).expect("renamed");
    log.checkpoint_if_due().expect("nothing is in the way");
    assert!(!has_wal(&journals[1]));
    assert_eq!(all(&log), fixture.records);
}

#[test]
fn the_torn_end_of_a_wal_is_a_power_cut_and_no_damage() {
    let fixture = Fixture::new();
    let dir = copy(fixture.dir.path());
    let path = target(dir.path(), 1);
    let bytes = std::fs::read(&path).expect("read");
    std::fs::write(&path, &bytes[..bytes.len() - 100]).expect("written");
    let (opened, found, _) = reopen(dir.path(), 230).expect("it opens");
    assert_eq!(found, fixture.records[..230], "the last transaction was never acknowledged");
    assert!(opened.set_aside.is_empty() && opened.lost_after.is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bits_are_survived_and_said(
        which in 0usize..3,
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..4),
        early in any::<bool>(),
    ) {
        // Made once: what is damaged is a copy.
        static FIXTURE: std::sync::OnceLock<Fixture> = std::sync::OnceLock::new();
        let fixture = FIXTURE.get_or_init(Fixture::new);
        let dir = copy(fixture.dir.path());
        let path = target(dir.path(), which);
        let mut bytes = std::fs::read(&path).expect("read");
        let mut places = Vec::new();
        for (place, bit) in &flips {
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
            places.push((place, *bit));
        }
        std::fs::write(&path, &bytes).expect("written");
        let applied = if early { 0 } else { fixture.last() };
        judge(fixture, (applied, early && which == 1), dir.path(), &format!("{} flipped at {places:?}", path.display()));
    }
}
