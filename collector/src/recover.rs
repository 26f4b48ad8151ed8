//! From the files to a collector that knows what it knew: before anything listens.
//!
//! The journal is the truth. The ledger comes from the newest file, the engine from `control.db` and
//! from whatever the log holds beyond it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::{Goodbye, StopReason};
use tracing::{info, warn};

use crate::backup::{self, Manifest};
use crate::clock::Clock;
use crate::engine::alert::REMEMBERED_MS;
use crate::engine::{Engine, Liveness, Restored};
use crate::health::Health;
use crate::import;
use crate::ingest::{Ingest, Replay};
use crate::pipeline::counter::add;
use crate::pipeline::{Pipeline, standing};
use crate::record::{Event, Pos, Record};
use crate::registry::{Actor, Registry};
use crate::rules::RuleBook;
use crate::stats::Stats;
use crate::store::{Control, ControlBatch, Log, NewEvent, NodeRow, Ordered, Revoked, StoreError};
use crate::window::{self, PastAsked, RolledUp};
use crate::writer::Logged;

/// The latest frame of a node is looked for among those of so long before: what a keeper leaves in journals.
const LATEST_WITHIN_MS: i64 = REMEMBERED_MS.cast_signed();
/// A new collector counts from here how long it listened, so that what it has of the time before has its place.
const RAN_FROM: MonoMs = MonoMs(7 * 24 * 3_600_000);
/// The event of the first start after a restore.
const RESTORED: &str = "collector.restored";

#[derive(Debug)]
pub struct Recovered {
    pub log: Log,
    pub ingest: Ingest,
    pub pipeline: Pipeline,
    /// What rules that look far back are to be told, by whoever keeps the window.
    pub past: Option<PastAsked>,
    /// Of `control.db`: drawn when it was made or put back.
    pub incarnation: u64,
}

/// Opens both databases and replays what is not applied yet. The caller holds the lock.
pub fn recover(
    state_dir: &Path,
    files: &RuleBook,
    (health, stats, clock): (Arc<Health>, Arc<Stats>, Clock),
) -> Result<Recovered> {
    let now = clock.wall();
    let incarnation = Clock::random().ok_or_else(|| anyhow!("the system gives no random numbers"))?;
    if import::settle(&state_dir.join("window"))? {
        info!("an import that was decided is carried out");
    }
    let (mut control, mut opened) =
        Control::open(&state_dir.join("control.db"), now, u64::from_le_bytes(incarnation) >> 1)?;
    report(&stats, &opened.set_aside, &opened.reasons);
    if let Err(error) = backup::clear(state_dir) {
        warn!("what a backup that was cut off left cannot be removed: {:#}", anyhow::Error::from(error));
    }
    opened.incarnation = put_back(state_dir, &mut control, (now, opened.incarnation))?;
    let (log, found) = Log::open(&state_dir.join("window"), now, opened.applied_pos)?;
    report(&stats, &found.set_aside, &found.reasons);
    window::refuse_newer(&state_dir.join("window"))?;
    if let Some(lost_after) = found.lost_after {
        warn!(lost_after = lost_after.0, "records of the log are lost; what followed from them is kept");
    }

    let known = control.nodes()?;
    let mut ingest = ledger(&log, &found.snapshot, &known)?;
    // After a restore, or behind a part of the log that is lost, frames were acknowledged that are not there.
    if found.lost_after.is_some() || control.newest_of(RESTORED)?.is_some() {
        ingest.expect_holes();
    }
    if opened.created {
        let nodes: Vec<_> = ingest.ledger().nodes().collect();
        control.restore_nodes(&nodes, found.highest_node, now)?;
        if !nodes.is_empty() {
            control.hold_strangers()?;
            warn!(
                nodes = nodes.len(),
                "control.db is new and the log is not: its nodes are held until somebody approves them"
            );
        }
    }
    let revoked = shut_out(state_dir, &mut control, now)?;
    let known = control.nodes()?;
    let registry = control.registry()?;
    let stocks: HashMap<_, _> = control.stocks()?.into_iter().map(|row| (row.node, (row.mark, row.noise))).collect();
    let restored = |node: &NodeRow| Restored { stock: stocks.get(&node.key).copied(), ..restored(node, &registry) };
    let (ran, ran_at) = control.ran()?;
    let ran = if ran_at.0 == 0 { RAN_FROM } else { ran };
    let engine = Engine::restore(opened.applied_pos, known.iter().map(restored)).with_ran(ran, ran_at);
    let mut engine = engine.with_mass(control.mass()?);
    let forgotten = known.iter().filter(|node| registry.member(node.id).is_some_and(|member| member.is_forgotten));
    // It opened nothing since it was forgotten.
    forgotten.for_each(|node| drop(engine.forget(now, node.key)));
    let book = Arc::new(files.with_sets(control.rule_sets()?));
    let pipeline = Pipeline::new(engine, (control, revoked), &known, (health, stats, clock))?;
    let pipeline = pipeline.with_book(Arc::clone(&book));
    let mut pipeline = pipeline.watching(book.rules.iter().cloned(), &known)?;
    let past = pipeline.past_asked();
    let rolled_up = if past.is_some() { RolledUp::list(&state_dir.join("window"))? } else { RolledUp::default() };
    remember(&log, (opened.applied_pos, ran_at), &rolled_up, &mut pipeline)?;
    let replayed = replay(&log, opened.applied_pos, &mut pipeline)?;
    info!(nodes = known.len(), replayed, applied = opened.applied_pos.0, "recovered");
    Ok(Recovered { log, ingest, pipeline, past, incarnation: opened.incarnation })
}

/// The first start after a restore begins another life, once.
fn put_back(state_dir: &Path, control: &mut Control, (now, incarnation): (WallMs, u64)) -> Result<u64> {
    let Some(marker) = backup::pending(state_dir)? else { return Ok(incarnation) };
    let drawn = marker.incarnation().context("restored.json names no incarnation; restore the backup again")?;
    if drawn != incarnation {
        let Manifest { at, position, .. } = marker.backup;
        let body = serde_json::json!({ "backup_at": at, "position": position }).to_string();
        control.begin_anew(drawn, &NewEvent { at: now, kind: RESTORED, node: None, body })?;
        warn!(backup_at = %at, position, "the state was restored from a backup; what came after it is a gap");
    }
    backup::consume(state_dir)?;
    Ok(drawn)
}

/// Whom the file of revocations names is out, whatever became of `control.db`; and whom `control.db` has
/// as revoked stands in the file.
fn shut_out(state_dir: &Path, control: &mut Control, now: WallMs) -> Result<Revoked> {
    let (mut file, found) = Revoked::open(state_dir)?;
    if found.damaged > 0 {
        let (lines, first) = (found.damaged, &found.first_damaged);
        warn!(lines, first, "lines of the file `revoked` cannot be read and are passed over");
    }
    if found.has_older {
        info!(lines = found.lines.len(), "the file `revoked` is longer than what is read of it: its newest lines");
    }
    let mut registry = control.registry()?;
    let merged = registry.merge_revoked(&found.lines);
    if !merged.changes.is_empty() {
        warn!(
            nodes = merged.events.len(),
            "control.db did not know that these nodes are revoked; the file `revoked` does"
        );
        let mut ordered = Ordered::default();
        add(&mut ordered, now, &Actor::collector(), (merged.changes, merged.events, merged.log));
        control.apply_with(&ControlBatch::default(), &ordered)?;
    }
    // Of a file that is not read whole nobody can say what it lacks.
    if !found.has_older {
        match file.append(registry.revoked(now)) {
            Err(error @ StoreError::SyncFailed { .. }) => return Err(error.into()),
            Err(error) => warn!("the file `revoked` cannot be written now, and is later: {error}"),
            Ok(()) => {}
        }
    }
    Ok(file)
}

/// Files, each with the reason why it was set aside.
fn report(stats: &Stats, files: &[std::path::PathBuf], reasons: &[String]) {
    for (file, reason) in files.iter().zip(reasons) {
        stats.files_set_aside.one();
        warn!(file = %file.display(), reason, "a damaged file is set aside; keep it if its data matters");
    }
}

fn ledger(log: &Log, snapshot: &[u8], known: &[NodeRow]) -> Result<Ingest> {
    let mut ingest = if snapshot.is_empty() {
        Ingest::default()
    } else {
        Ingest::recover(snapshot).context("the newest journal's snapshot cannot be read")?
    };
    for node in known {
        if !ingest.learn(node.key, node.id) {
            warn!(node = %node.id, key = node.key.0, "the log and control.db number this node differently; the log's number is used");
        }
    }
    for record in log.scan_newest() {
        let (_, record) = record?;
        ingest.observe(&record);
    }
    Ok(ingest)
}

/// What was measured before `applied`, as far as the log still has it: the latest of each node, and what functions over
/// time had taken in. At most a quarter of an hour of journals.
fn remember(
    log: &Log,
    (applied, applied_at): (Pos, WallMs),
    rolled_up: &RolledUp,
    pipeline: &mut Pipeline,
) -> Result<()> {
    let window_ms = i64::try_from(pipeline.longest_window_ms()).unwrap_or(i64::MAX).max(LATEST_WITHIN_MS);
    let mut readings = Replay::default();
    for record in log.scan_since(applied_at.plus(-window_ms)) {
        let (pos, record) = match record {
            Ok(found) => found,
            Err(StoreError::Damaged { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        if pos > applied {
            break;
        }
        // What cannot be read is told when it is replayed.
        let reading = readings.reading(&record).ok().flatten();
        let back_ms = applied_at.since(record.at).max(0).unsigned_abs();
        let when = (back_ms, rolled_up.holds(pos));
        pipeline.remember(when, &Logged { pos: Some(pos), record, reading });
    }
    Ok(())
}

fn replay(log: &Log, applied: Pos, pipeline: &mut Pipeline) -> Result<u64> {
    let mut readings = Replay::default();
    let mut replayed = 0;
    for record in log.scan_file_of(applied.next()) {
        let (pos, record) = match record {
            Ok(found) => found,
            Err(error @ StoreError::Damaged { .. }) => {
                warn!("a part of the log cannot be replayed: {error}");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let reading = reading(&mut readings, pos, &record);
        if pos > applied {
            replayed += 1;
            pipeline.apply(Logged { pos: Some(pos), record, reading })?;
        }
    }
    pipeline.write()?;
    Ok(replayed)
}

fn reading(readings: &mut Replay, pos: Pos, record: &Record) -> Option<Arc<dunlin_shared::sample::Reading>> {
    match readings.reading(record) {
        Ok(reading) => reading,
        Err(refusal) => {
            warn!(pos = pos.0, "a stored frame cannot be read: {refusal}");
            None
        }
    }
}

fn restored(node: &NodeRow, registry: &Registry) -> Restored {
    Restored {
        life: Liveness::parse(&node.state).unwrap_or_default(),
        goodbye: node.goodbye.map(|(epoch, next_seq)| Goodbye { epoch, next_seq, reason: StopReason::Stopped }),
        newest: node.newest,
        facts: node.facts.clone(),
        // Before its first session a node has no name of its own.
        name: if node.epoch.is_some() { node.name.clone() } else { String::new() },
        boot_id: node.boot_id.unwrap_or_default(),
        since: node.since,
        standing: registry.member(node.id).map(standing).unwrap_or_default(),
        is_retired: node.is_retired,
        ..Restored::of(node.key, node.last_seen)
    }
}

/// The first record of a run.
#[must_use]
pub const fn started(at: WallMs) -> Record {
    Record { at, event: Event::Started }
}
