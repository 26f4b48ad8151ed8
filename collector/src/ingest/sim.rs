//! Agents, a journal and its owner, all plain, around one `Ingest`: whatever happens, each frame is
//! stored once, each file reads by itself, and all that was sent is there in the end.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_shared::codec::{Grouper, decode_delta, decode_key, encode_delta, encode_key};
use dunlin_shared::id::Seq;
use dunlin_shared::metric::by_name;
use dunlin_shared::sample::{Sample, Subject, SubjectKind};
use dunlin_shared::time::MonoMs;
use dunlin_shared::wire::{GapReason, Spooled};
use proptest::prelude::*;

use super::*;

const NOW: WallMs = WallMs(1_700_000_000_000);
const NODES: usize = 3;

type Ids = BTreeSet<(usize, FrameId)>;

#[derive(Clone, Copy, Debug)]
enum Op {
    Sample,
    Inventory,
    Live,
    Backlog { pick: prop::sample::Index },
    CloseBacklog,
    Gap { frames: usize },
    Reconnect,
    RestartAgent { spool_survives: bool },
    UnknownBase,
    Commit,
    CommitUnheard,
    RollBack,
    Rotate,
    RestartCollector,
}

/// What a frame holds, as the agent knows it.
#[derive(Clone, Debug, PartialEq)]
enum Content {
    Values(Reading),
    Inventory(Vec<u8>),
}

#[derive(Default)]
struct Agent {
    epoch: u32,
    seq: u64,
    mono: u64,
    grouper: Grouper,
    spool: BTreeMap<FrameId, Content>,
    gaps: Vec<Gap>,
    live: Option<(FrameId, Reading)>,
    backlog: Option<(FrameId, Reading)>,
}

#[derive(Default)]
struct File {
    snapshot: Vec<u8>,
    records: Vec<Record>,
}

struct World {
    ingest: Ingest,
    agents: Vec<Agent>,
    /// All that was ever measured.
    truth: BTreeMap<(usize, FrameId), Content>,
    /// What agents lost with their memory, or gave up.
    given_up: Ids,
    files: Vec<File>,
    transaction: Vec<Record>,
    acks: Vec<(usize, Epoch, SeqRange)>,
}

fn key(node: usize) -> NodeKey {
    NodeKey(u32::try_from(node).expect("few nodes"))
}

fn node_id(node: usize) -> NodeId {
    NodeId::v7(node as u64, [1; 10])
}

impl World {
    fn new() -> Self {
        let mut ingest = Ingest::default();
        for node in 0..NODES {
            assert_eq!(ingest.enlist(node_id(node)), Some(key(node)));
        }
        let first = File { snapshot: ingest.snapshot(), records: Vec::new() };
        let agents = (0..NODES).map(|_| Agent { epoch: 1, ..Agent::default() }).collect();
        let mut world = Self {
            ingest,
            agents,
            truth: BTreeMap::new(),
            given_up: BTreeSet::new(),
            files: vec![first],
            transaction: Vec::new(),
            acks: Vec::new(),
        };
        (0..NODES).for_each(|node| world.reconnect(node));
        world
    }

    fn step(&mut self, op: Op, node: usize) {
        match op {
            Op::Sample => self.sample(node),
            Op::Inventory => {
                let id = self.next_id(node);
                self.keep(node, id, Content::Inventory(vec![9, u8::try_from(id.seq.0 % 256).expect("a byte")]));
            }
            Op::Live => {
                if let Some((&id, _)) = self.agents[node].spool.last_key_value() {
                    self.send(node, Lane::Live, id);
                }
            }
            Op::Backlog { pick } => {
                let ids: Vec<_> = self.agents[node].spool.keys().copied().collect();
                if !ids.is_empty() {
                    self.send(node, Lane::Backlog, *pick.get(&ids));
                }
            }
            Op::CloseBacklog => {
                self.agents[node].backlog = None;
                self.ingest.lane_closed(key(node), Lane::Backlog);
            }
            Op::Gap { frames } => self.give_up(node, frames),
            Op::Reconnect => self.reconnect(node),
            Op::RestartAgent { spool_survives } => {
                let agent = &mut self.agents[node];
                if !spool_survives {
                    self.given_up.extend(std::mem::take(&mut agent.spool).into_keys().map(|id| (node, id)));
                    agent.gaps.clear();
                }
                agent.epoch += 1;
                agent.seq = 0;
                agent.grouper.end_group();
                self.reconnect(node);
            }
            Op::UnknownBase => {
                let id = FrameId::new(self.agents[node].epoch, 1 << 40);
                let frame = Frame { id, kind: BodyKind::Delta { back: 1 }, body: vec![1, 0, 0, 0] };
                let refused = self.ingest.admit(NOW, key(node), Lane::Live, frame).expect_err("it has no base");
                assert!(matches!(refused, Refusal::BaseUnknown { .. }), "{refused}");
                self.reconnect(node);
            }
            Op::Commit => self.commit(true),
            Op::CommitUnheard => {
                self.commit(false);
                (0..NODES).for_each(|node| self.reconnect(node));
            }
            Op::RollBack => {
                self.transaction.clear();
                self.acks.clear();
                self.ingest.rolled_back();
            }
            Op::Rotate => {
                self.commit(true);
                self.files.push(File { snapshot: self.ingest.snapshot(), records: Vec::new() });
                self.ingest.rotated();
            }
            Op::RestartCollector => self.restart(),
        }
    }

    fn next_id(&mut self, node: usize) -> FrameId {
        let agent = &mut self.agents[node];
        agent.seq += 1;
        FrameId::new(agent.epoch, agent.seq - 1)
    }

    fn keep(&mut self, node: usize, id: FrameId, content: Content) {
        self.agents[node].spool.insert(id, content.clone());
        assert_eq!(self.truth.insert((node, id), content), None, "an agent numbers each frame once");
    }

    fn sample(&mut self, node: usize) {
        let id = self.next_id(node);
        let agent = &mut self.agents[node];
        agent.mono += 10_000;
        let mut sample = Sample::new(MonoMs(agent.mono), NOW.plus(agent.mono.cast_signed()));
        let metric = by_name("fs_used_bytes").expect("a catalogue metric");
        for n in 0..1 + agent.mono / 10_000 % 7 {
            let subject = Subject::new(SubjectKind::Fs, &format!("/{n}")).expect("a mount point");
            let steps = u32::try_from(agent.mono / (n + 1) + node as u64).expect("small");
            sample.push(&subject, metric, f64::from(steps) * 4096.0);
        }
        let (reading, _) = agent.grouper.lay_out(&sample);
        self.keep(node, id, Content::Values(reading));
    }

    fn send(&mut self, node: usize, lane: Lane, id: FrameId) {
        let agent = &mut self.agents[node];
        let frame = match &agent.spool[&id] {
            Content::Inventory(body) => Frame { id, kind: BodyKind::Inventory, body: body.clone() },
            Content::Values(reading) => {
                let last = if lane == Lane::Live { &mut agent.live } else { &mut agent.backlog };
                let delta = last.as_ref().filter(|(base, _)| base.epoch == id.epoch && *base < id).and_then(
                    |(base, before)| {
                        let back = u16::try_from(id.seq.0 - base.seq.0).ok()?;
                        Some(Frame { id, kind: BodyKind::Delta { back }, body: encode_delta(before, reading)? })
                    },
                );
                *last = Some((id, reading.clone()));
                delta.unwrap_or_else(|| Frame { id, kind: BodyKind::Key, body: encode_key(reading) })
            }
        };
        self.transaction.extend(self.ingest.retell(NOW, key(node)));
        match self.ingest.admit(NOW, key(node), lane, frame).expect("an honest agent is not refused") {
            Admitted::Store { record, reading } => {
                let sent = match &self.truth[&(node, id)] {
                    Content::Values(sent) => Some(sent),
                    Content::Inventory(_) => None,
                };
                assert_eq!(reading.as_deref(), sent);
                self.transaction.push(record);
            }
            Admitted::Duplicate(again) => assert_eq!(again, id),
        }
        self.acks.push((node, id.epoch, SeqRange::one(id.seq)));
    }

    /// The spool drops its oldest frames, and the agent says so until that is acknowledged.
    fn give_up(&mut self, node: usize, frames: usize) {
        let agent = &mut self.agents[node];
        let Some((&first, _)) = agent.spool.first_key_value() else { return };
        let dropped: Vec<_> =
            agent.spool.keys().take_while(|id| id.epoch == first.epoch).take(frames).copied().collect();
        let last = *dropped.last().expect("the first at least");
        agent.spool.retain(|id, _| *id > last);
        self.given_up.extend(dropped.into_iter().map(|id| (node, id)));
        let range = SeqRange { first: first.seq, last: last.seq };
        let gap = Gap { epoch: first.epoch, range, from: NOW, to: NOW, reason: GapReason::Overflow };
        agent.gaps.push(gap);
        self.say_gap(node, &gap);
    }

    fn say_gap(&mut self, node: usize, gap: &Gap) {
        let records = self.ingest.gap(NOW, key(node), gap).expect("an honest agent is not refused");
        self.transaction.extend(records);
        self.acks.push((node, gap.epoch, gap.range));
    }

    fn reconnect(&mut self, node: usize) {
        self.ingest.disconnected(key(node));
        self.acks.retain(|(acked, ..)| *acked != node);
        let agent = &mut self.agents[node];
        (agent.live, agent.backlog) = (None, None);
        let mut bounds = BTreeMap::<Epoch, SeqRange>::new();
        let dropped = agent.gaps.iter().flat_map(|gap| [(gap.epoch, gap.range.first), (gap.epoch, gap.range.last)]);
        for (epoch, seq) in agent.spool.keys().map(|id| (id.epoch, id.seq)).chain(dropped) {
            let range = bounds.entry(epoch).or_insert(SeqRange::one(seq));
            *range = SeqRange { first: range.first.min(seq), last: range.last.max(seq) };
        }
        let hello = Hello {
            wire_min: 1,
            wire_max: 1,
            node: node_id(node),
            name: String::new(),
            agent_version: String::new(),
            boot_id: [0; 16],
            epoch: Epoch(agent.epoch),
            next_seq: Seq(agent.seq),
            interval_ms: 10_000,
            mono: MonoMs(agent.mono),
            wall: NOW,
            spooled: bounds.into_iter().map(|(epoch, range)| Spooled { epoch, range }).collect(),
            ended: Vec::new(),
        };
        let (record, held) = self.ingest.hello(NOW, key(node), &hello).expect("an honest agent is not refused");
        self.transaction.push(record);
        let (stored, _) = self.on_disk();
        for (held, range) in held.iter().flat_map(|held| held.ranges.iter().map(move |range| (held, range))) {
            for seq in range.first.0..=range.last.0 {
                let id = FrameId { epoch: held.epoch, seq: Seq(seq) };
                assert!(stored.contains(&(node, id)), "frame {id} of node {node} is promised and not on disk");
                self.agents[node].spool.remove(&id);
            }
        }
        for gap in self.agents[node].gaps.clone() {
            self.say_gap(node, &gap);
        }
    }

    fn commit(&mut self, heard: bool) {
        let file = self.files.last_mut().expect("there is a file from the start");
        file.records.append(&mut self.transaction);
        self.ingest.committed();
        let (stored, _) = self.on_disk();
        for (node, epoch, range) in std::mem::take(&mut self.acks) {
            for seq in range.first.0..=range.last.0 {
                let id = FrameId { epoch, seq: Seq(seq) };
                assert!(stored.contains(&(node, id)), "frame {id} of node {node} is acknowledged and not on disk");
                if heard {
                    self.agents[node].spool.remove(&id);
                }
            }
            if heard {
                self.agents[node].gaps.retain(|gap| (gap.epoch, gap.range) != (epoch, range));
            }
        }
    }

    /// The transaction under way is lost; the rest comes back from the newest file.
    fn restart(&mut self) {
        self.transaction.clear();
        self.acks.clear();
        let file = self.files.last().expect("there is a file from the start");
        self.ingest = Ingest::recover(&file.snapshot).expect("our own snapshot");
        file.records.iter().for_each(|record| self.ingest.observe(record));
        (0..NODES).for_each(|node| self.reconnect(node));
    }

    /// What is accounted for on disk, and which of it is frames.
    fn on_disk(&self) -> (Ids, Ids) {
        let (mut all, mut frames) = (Ids::new(), Ids::new());
        for record in self.files.iter().flat_map(|file| &file.records) {
            match &record.event {
                Event::Frame { node, frame, .. } => {
                    assert!(all.insert((node.0 as usize, frame.id)), "{} of {node:?} is stored twice", frame.id);
                    frames.insert((node.0 as usize, frame.id));
                }
                Event::Gap { node, gap } => {
                    for seq in gap.range.first.0..=gap.range.last.0 {
                        let id = FrameId { epoch: gap.epoch, seq: Seq(seq) };
                        assert!(all.insert((node.0 as usize, id)), "{id} of {node:?} is stored and said to be lost");
                    }
                }
                _ => {}
            }
        }
        (all, frames)
    }

    /// Reads each file by itself, with nothing but the codec, and by `Replay`.
    fn check_files(&self) {
        for file in &self.files {
            let mut known = BTreeMap::<(usize, FrameId), Reading>::new();
            let mut replay = Replay::default();
            for record in &file.records {
                let replayed = replay.reading(record).expect("a file reads by itself");
                let Event::Frame { node, frame, .. } = &record.event else { continue };
                let node = node.0 as usize;
                let content = match (frame.kind, frame.base()) {
                    (BodyKind::Inventory, _) => Content::Inventory(frame.body.clone()),
                    (_, None) => Content::Values(decode_key(&frame.body).expect("well formed")),
                    (_, Some(base)) => {
                        let base = known.get(&(node, base)).expect("the base precedes it in the same file");
                        Content::Values(decode_delta(base, &frame.body).expect("well formed"))
                    }
                };
                assert_eq!(content, self.truth[&(node, frame.id)], "{} of node {node} is what was sent", frame.id);
                if let Content::Values(reading) = content {
                    assert_eq!(replayed.as_deref(), Some(&reading));
                    known.insert((node, frame.id), reading);
                }
            }
        }
    }

    /// Everybody delivers what is left.
    fn settle(&mut self) {
        for node in 0..NODES {
            let left: Vec<_> = self.agents[node].spool.keys().copied().collect();
            left.into_iter().for_each(|id| self.send(node, Lane::Backlog, id));
            for gap in self.agents[node].gaps.clone() {
                self.say_gap(node, &gap);
            }
        }
        self.commit(true);
        let (_, frames) = self.on_disk();
        for key in self.truth.keys() {
            assert!(frames.contains(key) || self.given_up.contains(key), "{key:?} is lost");
        }
        assert!(self.agents.iter().all(|agent| agent.spool.is_empty() && agent.gaps.is_empty()));
    }
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => Just(Op::Sample),
        1 => Just(Op::Inventory),
        8 => Just(Op::Live),
        8 => any::<prop::sample::Index>().prop_map(|pick| Op::Backlog { pick }),
        1 => Just(Op::CloseBacklog),
        1 => (1usize..4).prop_map(|frames| Op::Gap { frames }),
        1 => Just(Op::Reconnect),
        1 => any::<bool>().prop_map(|spool_survives| Op::RestartAgent { spool_survives }),
        1 => Just(Op::UnknownBase),
        4 => Just(Op::Commit),
        1 => Just(Op::CommitUnheard),
        2 => Just(Op::RollBack),
        2 => Just(Op::Rotate),
        1 => Just(Op::RestartCollector),
    ]
}

proptest! {
    #[test]
    fn each_frame_is_stored_once_in_files_that_read_by_themselves(
        ops in prop::collection::vec((op(), 0..NODES), 1..160),
    ) {
        let mut world = World::new();
        for (op, node) in ops {
            world.step(op, node);
        }
        world.settle();
        world.check_files();
    }
}
