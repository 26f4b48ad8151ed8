//! A disk that is full, on a file system of its own of a few MiB.

#![expect(clippy::disallowed_methods, reason = "a test mounts a small disk, which only a program can")]

use std::path::Path;
use std::process::Command;

use super::super::{Control, ControlBatch, GapRow, Log, StoreError};
use super::{Dir, T0, all, open, record};
use crate::record::{Event, Pos, Record};
use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{Epoch, FrameId, NodeId, Seq};
use dunlin_shared::wire::Lane;

/// A tmpfs that is unmounted with the value.
pub(crate) struct Disk(Dir);

impl Disk {
    pub(crate) fn new(kib: u32) -> Self {
        let dir = Dir::new();
        let size = format!("size={kib}k");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).status();
        assert!(
            mounted.is_ok_and(|status| status.success()),
            "this test mounts a tmpfs of {kib} KiB: run it as root, where mount is permitted"
        );
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the space that is left; the file is the space to give back.
    pub(crate) fn fill(&self) -> std::path::PathBuf {
        use std::io::Write;
        let path = self.path().join("filler");
        let mut file = std::fs::File::create(&path).expect("created");
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.path()).status());
    }
}

fn big(n: u64) -> Record {
    let id = FrameId::new(1, n);
    let frame = Frame { id, kind: BodyKind::Key, body: vec![(n % 251) as u8; 2_000] };
    Record { at: T0, event: Event::Frame { node: crate::record::NodeKey(1), lane: Lane::Live, frame } }
}

/// Writes groups until the disk is full; returns how many records were committed.
fn write_until_full(log: &mut Log) -> u64 {
    let mut committed = 0;
    loop {
        let group = || {
            log.begin()?;
            for n in committed..committed + 20 {
                log.append(&big(n))?;
            }
            log.commit()
        };
        match { group }() {
            Ok(()) => committed += 20,
            Err(error) => {
                assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
                return committed;
            }
        }
        assert!(committed < 100_000, "the disk never fills");
    }
}

#[test]
fn a_full_disk_claims_nothing_and_heals_when_space_returns() {
    let disk = Disk::new(4_096);
    let dir = disk.path().join("window");
    let (mut log, _) = open(&dir, 0);
    log.rotate(T0, b"").expect("rotate");
    let filler = disk.fill();
    let committed = write_until_full(&mut log);
    let after = (log.append(&big(0)), log.commit());
    assert!(after.0.is_err() && after.1.is_err(), "what follows a failure is no transaction of its own");
    log.rollback().expect("a rollback needs no space");
    assert_eq!(all(&log).len() as u64, committed);
    assert!(log.begin().and_then(|()| log.append(&big(0))).and_then(|_| log.commit()).is_err(), "still full");
    log.rollback().expect("a rollback needs no space");
    std::fs::remove_file(filler).expect("removed");
    log.begin().expect("begin");
    let pos = log.append(&big(committed)).expect("append");
    log.commit().expect("there is space again");
    assert_eq!(pos, Pos(committed + 1));
    let expected: Vec<_> = (0..=committed).map(|n| (Pos(n + 1), big(n))).collect();
    assert_eq!(all(&log), expected);
    log.close().expect("close");
    let (log, opened) = open(&dir, committed + 1);
    assert!(opened.set_aside.is_empty());
    assert_eq!(all(&log), expected);
}

#[test]
fn a_crash_on_a_full_disk_leaves_what_was_committed() {
    let disk = Disk::new(4_096);
    let dir = disk.path().join("window");
    let (mut log, _) = open(&dir, 0);
    log.rotate(T0, b"").expect("rotate");
    let committed = write_until_full(&mut log);
    drop(log);
    let copied = super::copy(&dir);
    let (log, opened) = open(copied.path(), committed);
    assert!(opened.set_aside.is_empty() && opened.lost_after.is_none());
    assert_eq!(all(&log).len() as u64, committed);
}

#[test]
fn a_rotation_on_a_full_disk_leaves_the_old_file_in_use() {
    let disk = Disk::new(4_096);
    let dir = disk.path().join("window");
    let (mut log, _) = open(&dir, 0);
    let filler = disk.fill();
    let error = log.rotate(T0, &[1; 100_000]).expect_err("full");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(log.due(T0) && log.begin().is_err(), "there is no file to write yet");
    std::fs::remove_file(&filler).expect("removed");
    log.rotate(T0, b"first").expect("there is space again");
    super::write(&mut log, &[record(9)]);
    disk.fill();
    assert!(log.rotate(T0.plus(300_000), &[1; 100_000]).is_err());
    assert!(log.due(T0.plus(300_000)));
    std::fs::remove_file(&filler).expect("removed");
    super::write(&mut log, &[record(10)]);
    assert_eq!(super::files(&dir, ".db").len(), 1);
    assert!(super::files(&dir, ".new").is_empty(), "nothing half-made is left");
    log.rotate(T0.plus(300_000), b"second").expect("there is space again");
    super::write(&mut log, &[record(11)]);
    assert_eq!(all(&log), [(Pos(1), record(9)), (Pos(2), record(10)), (Pos(3), record(11))]);
}

#[test]
fn a_wal_that_cannot_be_folded_at_rotation_is_folded_later() {
    let disk = Disk::new(4_096);
    let dir = disk.path().join("window");
    let (mut log, _) = open(&dir, 0);
    log.rotate(T0, b"").expect("rotate");
    for group in 0..20 {
        super::write(&mut log, &(group * 20..group * 20 + 20).map(big).collect::<Vec<_>>());
    }
    let filler = disk.fill();
    // Room for a new file and its shared memory, and not for the fold.
    let space = std::fs::OpenOptions::new().write(true).open(&filler).expect("open");
    let bytes = space.metadata().expect("there").len();
    space.set_len(bytes - 120 * 1024).expect("shrunk");
    drop(space);
    log.rotate(T0.plus(300_000), b"").expect("the new file fits");
    assert_eq!(all(&log).len(), 400, "the old file is read with its WAL");
    assert!(matches!(log.checkpoint_if_due(), Err(StoreError::Unavailable { .. })));
    std::fs::remove_file(filler).expect("removed");
    log.checkpoint_if_due().expect("folded");
    assert_eq!(all(&log).len(), 400);
    log.close().expect("close");
    assert!(super::files(&dir, "-wal").is_empty());
}

#[test]
fn control_applies_nothing_of_a_batch_that_does_not_fit() {
    let disk = Disk::new(2_048);
    let path = disk.path().join("control.db");
    let (mut control, _) = Control::open(&path, T0, 1).expect("it opens");
    let node = control.ensure_node(NodeId::v7(1, [1; 10]), "a", T0).expect("added");
    let filler = disk.fill();
    let gap = |n| GapRow {
        node,
        epoch: Epoch(1),
        first: Seq(n),
        last: None,
        count: None,
        from: T0,
        to: T0,
        reason: "x".repeat(500),
        at: T0,
    };
    let batch = ControlBatch { applied_pos: Pos(5), gaps: (0..2_000).map(gap).collect(), ..ControlBatch::default() };
    let error = control.apply(&batch).expect_err("full");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert_eq!((control.applied_pos().expect("read"), control.gaps(node).expect("read").len()), (Pos(0), 0));
    std::fs::remove_file(filler).expect("removed");
    let smaller = ControlBatch { gaps: vec![gap(1)], ..batch };
    assert!(control.apply(&smaller).expect("there is space again"));
    assert_eq!(control.gaps(node).expect("read").len(), 1);
}

#[test]
fn a_read_only_file_system_is_said_at_open() {
    let disk = Disk::new(2_048);
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(disk.path()).status();
    assert!(remounted.is_ok_and(|status| status.success()), "a tmpfs can be remounted by root");
    let error = Log::open(&disk.path().join("window"), T0, Pos(0)).expect_err("read-only");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    let error = Control::open(&disk.path().join("control.db"), T0, 1).expect_err("read-only");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains("control.db"), "{error}");
}
