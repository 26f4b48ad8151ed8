//! The store against plain models, damaged copies of its own files, and disks that are full.

mod chain;
mod control;
mod damage;
pub(crate) mod full;
mod stock;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{Epoch, FrameId, NodeId, Seq};
use dunlin_shared::range::SeqRange;
use dunlin_shared::time::WallMs;
use dunlin_shared::wire::{Gap, GapReason, Goodbye, Lane, StopReason};

use super::{Log, Opened};
use crate::record::{Event, Load, NodeKey, Pos, Record, SessionStart};

/// 2026-11-21 10:00:00 UTC, the beginning of a slot.
pub(in crate::store) const T0: WallMs = WallMs(1_795_255_200_000);

/// A directory of its own, removed with the value.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        Self::within(&std::env::temp_dir())
    }

    /// Where a sync costs nothing, if there is such a place: for thousands of steps of which none is about the disk.
    pub(crate) fn in_memory() -> Self {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Self::within(memory) } else { Self::new() }
    }

    fn within(dir: &Path) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("dunlin-store-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the temporary directory can be written");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// What somebody else does to a database, as it could not happen through us.
pub(crate) fn execute(path: &Path, sql: &str) {
    let connection = rusqlite::Connection::open(path).expect("it opens");
    connection.execute_batch(sql).expect("it is executed");
}

/// A database as a writer leaves it that could not fold its WAL.
pub(crate) fn leave_wal(path: &Path) {
    let connection = super::connect::writer(path).expect("it opens");
    connection.execute_batch("CREATE TABLE other (n INTEGER)").expect("it is written");
    drop(connection);
    assert!(super::connect::has_wal(path));
}

/// A record of one of all kinds, different for each `n`.
fn record(n: u64) -> Record {
    let node = NodeKey(u32::try_from(n % 7).expect("below 7") + 1);
    let body: Vec<u8> = (0..n * 37 % 300).map(|i| (n.wrapping_mul(31).wrapping_add(i) % 251) as u8).collect();
    let frame = |kind| Event::Frame {
        node,
        lane: if n.is_multiple_of(2) { Lane::Live } else { Lane::Backlog },
        frame: Frame { id: FrameId::new(3, u64::MAX - n), kind, body: body.clone() },
    };
    let event = match n % 11 {
        0 => Event::Tick { elapsed_ms: 1_000 + n, paused_ms: n },
        1 => Event::Hello { node, session: session(n) },
        2 => Event::Heartbeat { node },
        3 => Event::Gap { node, gap: gap(n) },
        4 => Event::Goodbye {
            node,
            goodbye: Goodbye { epoch: Epoch(3), next_seq: Seq(n), reason: StopReason::Restarting },
        },
        5 if n.is_multiple_of(2) => Event::Rewound { node, epoch: Epoch(3), seq: Seq(n) },
        5 => Event::Lost { node },
        6 if n.is_multiple_of(2) => {
            Event::Load(Load { commit_ms: 7, refused: n, free_permille: n.is_multiple_of(4).then_some(500) })
        }
        6 if n.is_multiple_of(3) => Event::Busy { permille: 970 },
        6 => Event::Started,
        7 => frame(BodyKind::Inventory),
        8 => frame(BodyKind::Delta { back: 29 }),
        _ => frame(BodyKind::Key),
    };
    Record { at: T0.plus(i64::try_from(n).expect("small")), event }
}

pub(in crate::store) fn session(n: u64) -> SessionStart {
    SessionStart {
        node: NodeId::v7(n, [7; 10]),
        name: format!("host-{n}"),
        agent_version: "0.1.0".to_owned(),
        boot_id: [9; 16],
        epoch: Epoch(3),
        interval_ms: 10_000,
        skew_ms: -5,
        before: None,
    }
}

fn gap(n: u64) -> Gap {
    let range = SeqRange { first: Seq(n), last: Seq(n + 5) };
    Gap { epoch: Epoch(3), range, from: T0, to: T0.plus(50_000), reason: GapReason::Overflow }
}

/// Appends `records` in one transaction.
pub(in crate::store) fn write(log: &mut Log, records: &[Record]) {
    log.begin().expect("begin");
    for record in records {
        log.append(record).expect("append");
    }
    log.commit().expect("commit");
}

pub(in crate::store) fn open(dir: &Path, applied: u64) -> (Log, Opened) {
    Log::open(dir, T0, Pos(applied)).expect("the log opens")
}

/// Everything that a log returns; damage is a failure of the test.
fn all(log: &Log) -> Vec<(Pos, Record)> {
    log.scan(Pos(0)).map(|item| item.expect("the log is sound")).collect()
}

fn files(dir: &Path, end: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("the directory can be listed");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(end));
    paths.sort();
    paths
}

/// As a machine that stops now would leave it.
fn copy(from: &Path) -> Dir {
    let to = Dir::new();
    for path in files(from, "") {
        let name = path.file_name().expect("a file has a name");
        // The shared memory of the WAL does not outlive a machine.
        if !name.to_string_lossy().ends_with("-shm") {
            std::fs::copy(&path, to.path().join(name)).expect("copied");
        }
    }
    to
}
