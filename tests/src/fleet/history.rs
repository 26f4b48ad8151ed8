//! What a collector has of nodes that sent frames for an hour, written in a second while it is stopped.
//!
//! The collector's own code decides what is stored and how; only the network and the waiting are left out. The
//! oracle says what must be there, as that of a run does.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use dunlin_collector::ingest::{Admitted, Ingest};
use dunlin_collector::record::NodeKey;
use dunlin_collector::store::{Control, Log, NodeRow, StateLock};
use dunlin_shared::codec::{Grouper, encode_delta, encode_key};
use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{Epoch, FrameId, NodeId, Seq};
use dunlin_shared::range::SeqRange;
use dunlin_shared::sample::Reading;
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::{Hello, Lane, WIRE_VERSION_MAX, WIRE_VERSION_MIN};

use super::load::{Host, Load};
use super::oracle::{Node, Oracle, Run, Tally};
use crate::pki;

/// The run that the history tells of; whoever is played afterwards begins a later one.
pub const EPOCH: Epoch = Epoch(1);

#[derive(Clone, Debug)]
pub struct History {
    /// The first so many of the fleet.
    pub nodes: usize,
    pub ticks: u64,
    pub interval_ms: u64,
    /// The time of the last tick.
    pub until: WallMs,
    pub load: Load,
    /// By how much the clock of each is ahead; those of the rest are right.
    pub ahead_ms: Vec<i64>,
}

/// One node while its past is written.
struct Past {
    key: NodeKey,
    host: Host,
    grouper: Grouper,
    last: Option<Reading>,
    phase_ms: u64,
    ahead_ms: i64,
}

/// Into a state directory whose collector has stopped. The nodes have joined it and never sent a frame.
pub fn write(state: &Path, fleet: &pki::Fleet, history: &History) -> Result<Oracle> {
    let _lock = StateLock::take(state)?;
    let begins = history.until.plus(-i64::try_from(history.ticks * history.interval_ms)?);
    let (control, opened) = Control::open(&state.join("control.db"), begins, 1)?;
    let known = control.nodes()?;
    control.close()?;
    let (mut log, found) = Log::open(&state.join("window"), begins, opened.applied_pos)?;
    let mut ingest = ingest(&log, &found.snapshot, &known)?;
    let mut pasts = Vec::with_capacity(history.nodes);
    rotate_if_due(&mut log, &mut ingest, begins)?;
    log.begin()?;
    for (index, node) in fleet.nodes.iter().enumerate().take(history.nodes) {
        let key = ingest.enlist(node.id).context("the collector has too many nodes")?;
        let ahead_ms = history.ahead_ms.get(index).copied().unwrap_or_default();
        let hello = hello(index, node.id, history.interval_ms, begins.plus(ahead_ms));
        let (hello, _) = ingest.hello(begins, key, &hello)?;
        log.append(&hello)?;
        let inventory = Frame {
            id: FrameId { epoch: EPOCH, seq: Seq(0) },
            kind: BodyKind::Inventory,
            body: history.load.inventory(index).encode(),
        };
        admit(&mut log, &mut ingest, (begins, key), inventory)?;
        let phase_ms = history.interval_ms * index as u64 / history.nodes as u64;
        let host = history.load.host(index, EPOCH);
        pasts.push(Past { key, host, grouper: Grouper::default(), last: None, phase_ms, ahead_ms });
    }
    commit(&mut log, &mut ingest)?;
    for tick in 0..history.ticks {
        let since_ms = tick * history.interval_ms;
        rotate_if_due(&mut log, &mut ingest, begins.plus(i64::try_from(since_ms)?))?;
        log.begin()?;
        for past in &mut pasts {
            let mono = MonoMs(since_ms + past.phase_ms);
            let wall = begins.plus(i64::try_from(mono.0)?);
            let frame = past.frame(tick, mono, wall.plus(past.ahead_ms));
            admit(&mut log, &mut ingest, (wall, past.key), frame)?;
        }
        commit(&mut log, &mut ingest)?;
    }
    log.close()?;
    Ok(oracle(fleet, history, begins))
}

/// Closes the journal of a collector that has stopped, as it would have at this time.
pub fn close_journal(state: &Path, at: WallMs) -> Result<()> {
    let _lock = StateLock::take(state)?;
    let (control, opened) = Control::open(&state.join("control.db"), at, 1)?;
    let known = control.nodes()?;
    control.close()?;
    let (mut log, found) = Log::open(&state.join("window"), at, opened.applied_pos)?;
    let ingest = ingest(&log, &found.snapshot, &known)?;
    log.rotate(at, &ingest.snapshot())?;
    Ok(log.close()?)
}

/// What a collector that starts knows of frames.
fn ingest(log: &Log, snapshot: &[u8], known: &[NodeRow]) -> Result<Ingest> {
    let mut ingest = if snapshot.is_empty() { Ingest::default() } else { Ingest::recover(snapshot)? };
    for node in known {
        ensure!(ingest.learn(node.key, node.id), "the log and control.db number node {} differently", node.id);
    }
    for record in log.scan_newest() {
        ingest.observe(&record?.1);
    }
    Ok(ingest)
}

impl Past {
    /// Frame 0 is the inventory, and frame n the tick n - 1.
    fn frame(&mut self, tick: u64, mono: MonoMs, wall: WallMs) -> Frame {
        let (reading, begins) = self.grouper.lay_out(&self.host.sample(tick, mono, wall));
        let base = self.last.take().filter(|_| !begins);
        let delta = base.and_then(|base| encode_delta(&base, &reading));
        let (kind, body) = match delta {
            Some(body) => (BodyKind::Delta { back: 1 }, body),
            None => (BodyKind::Key, encode_key(&reading)),
        };
        self.last = Some(reading);
        Frame { id: FrameId { epoch: EPOCH, seq: Seq(tick + 1) }, kind, body }
    }
}

/// What a node of the fleet says when its first run connects.
#[must_use]
pub fn hello(index: usize, node: NodeId, interval_ms: u64, at: WallMs) -> Hello {
    Hello {
        wire_min: WIRE_VERSION_MIN,
        wire_max: WIRE_VERSION_MAX,
        node,
        name: format!("fleet-{index}"),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: *node.bytes(),
        epoch: EPOCH,
        next_seq: Seq(0),
        interval_ms: u32::try_from(interval_ms).unwrap_or(u32::MAX),
        mono: MonoMs(0),
        wall: at,
        spooled: Vec::new(),
        ended: Vec::new(),
    }
}

fn admit(log: &mut Log, ingest: &mut Ingest, (at, node): (WallMs, NodeKey), frame: Frame) -> Result<()> {
    match ingest.admit(at, node, Lane::Live, frame)? {
        Admitted::Store { record, .. } => log.append(&record)?,
        Admitted::Duplicate(id) => bail!("frame {id} is held already; the nodes must be new"),
    };
    Ok(())
}

fn commit(log: &mut Log, ingest: &mut Ingest) -> Result<()> {
    log.commit()?;
    ingest.committed();
    log.checkpoint_if_due()?;
    Ok(())
}

fn rotate_if_due(log: &mut Log, ingest: &mut Ingest, at: WallMs) -> Result<()> {
    if log.due(at) {
        log.rotate(at, &ingest.snapshot())?;
        ingest.rotated();
    }
    Ok(())
}

fn oracle(fleet: &pki::Fleet, history: &History, begins: WallMs) -> Oracle {
    let mut tally = Tally { sampled: history.ticks + 1, ..Tally::default() };
    tally.acknowledged.insert_range(SeqRange { first: Seq(0), last: Seq(history.ticks) });
    let nodes = fleet.nodes.iter().enumerate().take(history.nodes);
    let nodes = nodes.map(|(index, node)| Node::new(node.id, index, EPOCH, &tally)).collect();
    Oracle { run: Run::new(&history.load, EPOCH, begins, true), nodes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::verify::verify;
    use crate::scratch::Scratch;

    #[test]
    fn what_is_written_is_what_the_oracle_says_over_several_files() {
        let scratch = Scratch::new("history").expect("a scratch directory");
        let fleet = pki::Fleet::generate(3, 1).expect("a fleet");
        fleet.write_collector(scratch.path()).expect("its collector knows it");
        let until = WallMs(1_795_255_200_000);
        let history =
            History { nodes: 2, ticks: 90, interval_ms: 10_000, until, load: Load::made_up(1, 50), ahead_ms: vec![] };
        let oracle = write(scratch.path(), &fleet, &history).expect("the collector has stopped");
        let report = verify(scratch.path(), &[oracle], &fleet).expect("the files can be read");
        assert!(report.is_clean(), "{:?}", report.shown);
        assert_eq!((report.frames, report.inventories, report.acknowledged), (180, 2, 182));
        assert!(report.files >= 3, "a quarter of an hour in {} files", report.files);
    }
}
