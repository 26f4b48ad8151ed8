//! The chain of files against a plain list.

use std::path::Path;

use dunlin_shared::time::WallMs;
use proptest::prelude::*;

use super::super::{Files, Log, Reader, StateLock, StoreError};
use super::{Dir, T0, all, copy, files, open, record, write};
use crate::record::{NodeKey, Pos, Record};

#[derive(Clone, Debug)]
enum Step {
    Commit(u64),
    Rollback(u64),
    Rotate(i64),
    Reopen,
    Crash,
    Checkpoint,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u64..40).prop_map(Step::Commit),
        2 => (0u64..40).prop_map(Step::Rollback),
        2 => (-900_000i64..900_000).prop_map(Step::Rotate),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
        1 => Just(Step::Checkpoint),
    ];
    prop::collection::vec(step, 1..20)
}

/// What the log must hold, and what it was told at its newest rotation.
#[derive(Default)]
struct Model {
    records: Vec<(Pos, Record)>,
    snapshot: Vec<u8>,
    since_rotation: usize,
    drawn: u64,
}

fn take(log: &mut Log, model: &mut Model, step: &Step) {
    match step {
        Step::Commit(count) | Step::Rollback(count) => {
            let before = model.records.len();
            log.begin().expect("begin");
            for _ in 0..*count {
                model.drawn += 1;
                let record = record(model.drawn);
                let pos = log.append(&record).expect("append");
                model.records.push((pos, record));
            }
            if matches!(step, Step::Commit(_)) {
                log.commit().expect("commit");
            } else {
                log.rollback().expect("rollback");
                model.records.truncate(before);
            }
        }
        Step::Rotate(ms) => rotate(log, model, T0.plus(*ms)),
        Step::Checkpoint => log.checkpoint_if_due().expect("checkpoint"),
        Step::Reopen | Step::Crash => {}
    }
}

fn rotate(log: &mut Log, model: &mut Model, now: WallMs) {
    model.drawn += 1;
    model.snapshot = model.drawn.to_be_bytes().to_vec();
    model.since_rotation = model.records.len();
    log.rotate(now, &model.snapshot).expect("rotate");
}

/// Of each file the last ones.
fn frames_of(dir: &Path, node: NodeKey, frames_max: usize) -> Vec<(Pos, Record)> {
    let files = Files::list(dir).expect("it can be listed");
    let frames_in = |journal| {
        Reader::new(dir)
            .frames_in(&journal, node, frames_max)
            .expect("it is read")
            .expect("nothing takes it away")
            .records
    };
    files.unsealed_from(WallMs(i64::MIN)).into_iter().flat_map(frames_in).collect()
}

fn check(log: &Log, model: &Model, dir: &Path) {
    assert_eq!(all(log), model.records);
    let newest: Vec<_> = log.scan_newest().map(|item| item.expect("sound")).collect();
    assert_eq!(newest, model.records[model.since_rotation..]);
    assert!(model.records.windows(2).all(|pair| pair[0].0.next() == pair[1].0));
    let from = Pos(model.records.len() as u64 / 2);
    let later: Vec<_> = log.scan(from).map(|item| item.expect("sound")).collect();
    assert_eq!(later, model.records.iter().filter(|(pos, _)| *pos >= from).cloned().collect::<Vec<_>>());
    for node in 1..=7 {
        let frames = frames_of(dir, NodeKey(node), usize::MAX);
        let theirs = |record: &Record| record.event.frame_id().is_some() && record.event.node() == Some(NodeKey(node));
        let expected: Vec<_> = model.records.iter().filter(|(_, record)| theirs(record)).cloned().collect();
        assert_eq!(frames, expected, "node {node}");
        let newest: Vec<_> =
            model.records[model.since_rotation..].iter().filter(|(_, record)| theirs(record)).cloned().collect();
        let last = frames_of(dir, NodeKey(node), 3);
        assert!(last.ends_with(&newest[newest.len().saturating_sub(3)..]), "node {node}");
        let last = model.records[model.since_rotation..].iter().rev().find(|(_, record)| theirs(record));
        assert_eq!(log.last_of(NodeKey(node)), last.map(|(pos, _)| *pos));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_log_holds_what_was_committed_and_nothing_else(steps in steps()) {
        let mut dir = Dir::new();
        let mut model = Model::default();
        let (mut log, opened) = open(dir.path(), 0);
        prop_assert!(opened.set_aside.is_empty() && log.due(T0));
        rotate(&mut log, &mut model, T0);
        for step in &steps {
            take(&mut log, &mut model, step);
            if matches!(step, Step::Crash | Step::Reopen) {
                if matches!(step, Step::Crash) {
                    // The machine stops within a transaction.
                    log.begin().expect("begin");
                    log.append(&record(0)).expect("append");
                    dir = copy(dir.path());
                } else {
                    log.close().expect("close");
                }
                let again = open(dir.path(), model.records.len() as u64);
                log = again.0;
                prop_assert_eq!(&again.1.snapshot, &model.snapshot);
                prop_assert!(again.1.set_aside.is_empty() && again.1.lost_after.is_none());
                prop_assert!(!log.due(T0) || log.due(T0.plus(1)), "only the clock asks for a rotation");
            }
        }
        check(&log, &model, dir.path());
    }
}

#[test]
fn a_failed_append_leaves_positions_and_links_as_they_were() {
    let dir = Dir::new();
    let (mut log, _) = open(dir.path(), 0);
    log.rotate(T0, b"").expect("rotate");
    write(&mut log, &[record(9), record(10)]);
    let linked = log.last_of(NodeKey(3));
    log.begin().expect("begin");
    log.append(&record(9)).expect("append");
    let mut foreign = record(9);
    if let crate::record::Event::Frame { node, .. } = &mut foreign.event {
        *node = NodeKey(u32::MAX);
    }
    assert!(matches!(log.append(&foreign), Err(StoreError::Other { .. })));
    log.rollback().expect("rollback");
    assert_eq!((log.next_pos(), log.last_of(NodeKey(3))), (Pos(3), linked));
    write(&mut log, &[record(20)]);
    assert_eq!(all(&log).len(), 3);
}

#[test]
fn a_clock_that_goes_back_neither_reorders_files_nor_rotates_all_the_time() {
    let dir = Dir::new();
    let (mut log, _) = open(dir.path(), 0);
    log.rotate(T0.plus(3_600_000), b"").expect("rotate");
    write(&mut log, &[record(1)]);
    assert!(!log.due(T0.plus(3_599_990)), "a step back by milliseconds");
    assert!(log.due(T0), "back by an hour");
    log.rotate(T0, b"").expect("rotate");
    assert!(!log.due(T0.plus(1)) && !log.due(T0.plus(299_999)) && log.due(T0.plus(300_000)));
    write(&mut log, &[record(2)]);
    let slots: Vec<_> = files(dir.path(), ".db");
    assert!(slots.iter().all(|path| path.to_string_lossy().contains("journal-1795258800-")), "{slots:?}");
    log.close().expect("close");
    let (log, _) = open(dir.path(), 0);
    assert_eq!(all(&log).into_iter().map(|(pos, _)| pos.0).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn retention_drops_whole_files_oldest_first_and_none_that_is_to_be_applied() {
    let dir = Dir::new();
    let (mut log, _) = open(dir.path(), 0);
    for i in 0..5 {
        log.rotate(T0.plus(i * 300_000), b"").expect("rotate");
        write(&mut log, &(0..10).map(record).collect::<Vec<_>>());
    }
    let none = log.drop_oldest_beyond(0, Pos(9)).expect("drop");
    assert_eq!(none.files, 0, "the first file has a record that is not applied");
    assert_eq!(log.drop_oldest_beyond(u64::MAX, Pos(50)).expect("drop").files, 0, "there is room");
    let one = log.drop_oldest_beyond(log.size_bytes() - 1, Pos(50)).expect("drop");
    assert_eq!((one.files, one.earliest), (1, Some(Pos(11))), "no more than it must");
    let rest = log.drop_oldest_beyond(0, Pos(50)).expect("drop");
    assert_eq!((rest.files, rest.earliest), (3, Some(Pos(41))), "the newest stays");
    assert!(rest.bytes > 0 && log.size_bytes() > 0);
    assert_eq!(all(&log).len(), 10);
    assert_eq!(files(dir.path(), "").iter().filter(|path| path.to_string_lossy().contains("-wal")).count(), 1);
}

#[test]
fn a_second_process_finds_the_state_directory_locked() {
    let dir = Dir::new();
    let lock = StateLock::take(dir.path()).expect("free");
    let second = StateLock::take(dir.path()).expect_err("held");
    assert!(matches!(&second, StoreError::Locked { process: Some(id), .. } if *id == std::process::id()));
    assert!(second.to_string().starts_with(&dir.path().display().to_string()), "{second}");
    drop(lock);
    StateLock::take(dir.path()).expect("free again");
}

#[test]
fn a_log_of_a_newer_program_is_refused_and_untouched() {
    let dir = Dir::new();
    let (mut log, _) = open(dir.path(), 0);
    log.rotate(T0, b"").expect("rotate");
    log.close().expect("close");
    let path = files(dir.path(), ".db").remove(0);
    let connection = rusqlite::Connection::open(&path).expect("opens");
    connection.execute_batch("UPDATE meta SET format = 7; PRAGMA user_version = 7;").expect("written");
    drop(connection);
    let error = Log::open(dir.path(), T0, Pos(0)).expect_err("newer");
    assert!(matches!(error, StoreError::Newer { found: 7, known: 1, .. }), "{error}");
    assert!(path.exists());
}

#[test]
fn positions_that_were_applied_are_never_used_again() {
    let dir = Dir::new();
    let (mut log, opened) = open(dir.path(), 500);
    assert_eq!((opened.next_pos, opened.lost_after), (Pos(501), Some(Pos(0))));
    log.rotate(T0, b"").expect("rotate");
    write(&mut log, &[record(1)]);
    log.close().expect("close");
    let (log, opened) = open(dir.path(), 501);
    assert_eq!((opened.next_pos, opened.lost_after), (Pos(502), None));
    assert_eq!(all(&log).len(), 1);
}
