//! The collector's ingest under any order of hellos, frames, gaps, commits, rollbacks, files and restarts.
//! Nothing is stored twice, every file reads by itself, and a snapshot is all that a restart needs.
#![no_main]

use std::collections::BTreeSet;

use dunlin_collector::ingest::{Admitted, Ingest, Ledger, RANGES_MAX, Replay};
use dunlin_collector::record::{Event, NodeKey, Record};
use dunlin_fuzz::Input;
use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{Epoch, FrameId, NodeId, Seq};
use dunlin_shared::limits::{EPOCHS_MAX, HELD_RANGES_MAX};
use dunlin_shared::range::SeqRange;
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::{Gap, GapReason, Hello, Lane, Spooled};
use libfuzzer_sys::fuzz_target;

/// More would make runs slow and show nothing new.
const STEPS_MAX: usize = 300;
const NOW: WallMs = WallMs(1_700_000_000_000);

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    if input.bool() {
        let bytes = input.rest();
        if let Ok(ledger) = Ledger::decode(bytes) {
            // Ranges that touch become one, and the first version ended before the count of newest frames. So the
            // bytes may differ once, and never again.
            let once = ledger.encode();
            let again = Ledger::decode(&once).expect("our own snapshot").encode();
            assert!(once == again && once.len() <= bytes.len() + 1, "a snapshot is what it was");
        }
        return;
    }
    let mut world = World { ingest: Ingest::default(), files: Vec::new(), transaction: Vec::new() };
    world.files.push((world.ingest.snapshot(), Vec::new()));
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
    world.step_commit();
    world.judge();
});

struct World {
    ingest: Ingest,
    files: Vec<(Vec<u8>, Vec<Record>)>,
    transaction: Vec<Record>,
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) {
        let choice = input.byte();
        let id = NodeId::v7(u64::from(choice >> 6), [1; 10]);
        let Some(node) = self.ingest.enlist(id) else { return };
        let lane = if input.bool() { Lane::Live } else { Lane::Backlog };
        if matches!(choice & 15, 2..=9) {
            self.transaction.extend(self.ingest.retell(NOW, node));
        }
        match choice & 15 {
            0..=1 => self.hello(node, id, input),
            2..=8 => self.frame(node, lane, input),
            9 => {
                let gap =
                    Gap { epoch: epoch(input), range: range(input), from: NOW, to: NOW, reason: GapReason::Overflow };
                if let Ok(records) = self.ingest.gap(NOW, node, &gap) {
                    self.transaction.extend(records);
                }
            }
            10 | 11 => self.step_commit(),
            12 => {
                self.transaction.clear();
                self.ingest.rolled_back();
            }
            13 => {
                self.step_commit();
                self.files.push((self.ingest.snapshot(), Vec::new()));
                self.ingest.rotated();
            }
            14 => {
                self.transaction.clear();
                let (snapshot, records) = self.files.last().expect("there is one from the start");
                self.ingest = Ingest::recover(snapshot).expect("our own snapshot");
                records.iter().for_each(|record| self.ingest.observe(record));
            }
            _ if input.bool() => self.ingest.lane_closed(node, lane),
            _ => self.ingest.disconnected(node),
        }
    }

    fn hello(&mut self, node: NodeKey, id: NodeId, input: &mut Input<'_>) {
        let mut spooled: Vec<Spooled> = Vec::new();
        for _ in 0..input.below(4) {
            let next = Spooled { epoch: epoch(input), range: range(input) };
            if spooled.last().is_none_or(|last| last.epoch < next.epoch) && spooled.len() < EPOCHS_MAX {
                spooled.push(next);
            }
        }
        let hello = Hello {
            wire_min: 1,
            wire_max: 1,
            node: id,
            name: String::new(),
            agent_version: String::new(),
            boot_id: [0; 16],
            epoch: epoch(input),
            next_seq: Seq(input.number()),
            interval_ms: 10_000,
            mono: MonoMs(0),
            wall: WallMs(input.number().cast_signed()),
            spooled,
            ended: Vec::new(),
        };
        if let Ok((record, held)) = self.ingest.hello(NOW, node, &hello) {
            for (held, asked) in held.iter().zip(&hello.spooled) {
                assert!(held.epoch == asked.epoch && held.ranges.len() <= HELD_RANGES_MAX);
                let inside = |range: &SeqRange| {
                    asked.range.first <= range.first && range.first <= range.last && range.last <= asked.range.last
                };
                assert!(held.ranges.iter().all(inside), "an answer keeps to what was asked");
            }
            self.transaction.push(record);
        }
    }

    fn frame(&mut self, node: NodeKey, lane: Lane, input: &mut Input<'_>) {
        let id = FrameId { epoch: epoch(input), seq: Seq(input.number()) };
        let kind = match input.below(4) {
            0 => BodyKind::Inventory,
            1 => BodyKind::Key,
            _ => BodyKind::Delta { back: u16::from(input.byte()) },
        };
        let len = usize::from(input.byte());
        let frame = Frame { id, kind, body: input.take(len).to_vec() };
        match self.ingest.admit(NOW, node, lane, frame) {
            Ok(Admitted::Store { record, reading }) => {
                assert_eq!(reading.is_none(), kind == BodyKind::Inventory);
                self.transaction.push(record);
            }
            Ok(Admitted::Duplicate(again)) => assert_eq!(again, id),
            Err(refusal) => assert!(!refusal.to_string().is_empty()),
        }
    }

    fn step_commit(&mut self) {
        let (_, records) = self.files.last_mut().expect("there is one from the start");
        records.append(&mut self.transaction);
        self.ingest.committed();
    }

    fn judge(&self) {
        let mut stored = BTreeSet::new();
        for (_, records) in &self.files {
            let mut replay = Replay::default();
            for record in records {
                replay.reading(record).expect("a file reads by itself");
                if let Event::Frame { node, frame, .. } = &record.event {
                    assert!(stored.insert((*node, frame.id)), "{} of {node:?} is stored twice", frame.id);
                }
            }
        }
        let snapshot = self.ingest.snapshot();
        let recovered = Ingest::recover(&snapshot).expect("our own snapshot");
        assert_eq!(recovered.snapshot(), snapshot);
        // A node has 17 bytes of id, and up to 20 for each range and 5 for each epoch.
        assert!(
            snapshot.len() <= 16 + 4 * (64 + RANGES_MAX * 25 + STEPS_MAX * 25),
            "what is kept of a node is bounded"
        );
    }
}

fn epoch(input: &mut Input<'_>) -> Epoch {
    // Few and close together, but at times far away.
    Epoch((input.number() & 0xffff_ffff) as u32)
}

fn range(input: &mut Input<'_>) -> SeqRange {
    let (first, more) = (input.number(), input.number());
    SeqRange { first: Seq(first), last: Seq(first.saturating_add(more)) }
}
