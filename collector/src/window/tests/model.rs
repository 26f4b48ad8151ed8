//! Random runs of the whole store against a plain map: frames in and out of order and doubled, rotations, sealing that is
//! cut off, merges, retention, starts after crashes. After every step reads answer what the map holds, each row once, and
//! nothing is missing but what retention dropped: whole files, the oldest first.
//!
//! `DUNLIN_SIM_RUNS=2000` lets it run longer, `DUNLIN_SIM_SEED=7` another way. A failure prints the steps that lead to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use dunlin_shared::id::{Epoch, Seq};
use dunlin_shared::range::SeqRange;
use dunlin_shared::wire::{Hello, Spooled};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::RngSeed;

use super::*;
use crate::ingest::Admitted;
use crate::store::bytes_of;
use crate::tuning::Tuning;
use crate::window::retain::Retention;

/// 2020-01-01 00:00:00 UTC: by the clock of whoever runs this it is long ago, so that the newest file is as old as retention
/// takes a gap for, whatever the day.
const BEGIN: i64 = 1_577_836_800_000;
const DAY_MS: u64 = 86_400_000;
/// By that all ages are more here: see `GAP_MS_MAX` of retention.
const AGED_MS: u64 = 6 * 3_600_000;
/// Beyond it an agent's own clock is not believed.
const SPOOLED_MS_MAX: i64 = 31 * 86_400_000;
const AGENTS: u32 = 3;
/// So many runs take some seconds.
const RUNS: u32 = 16;
const SEED: u64 = 26;
const GAUGES: [&str; 2] = [METRICS[1], METRICS[2]];

#[derive(Clone, Debug)]
enum Op {
    /// Ticks of all agents, each so long after the one before. What becomes of an agent's frame: by turns from these.
    Ticks {
        count: i64,
        apart_ms: i64,
        fates: Vec<Fate>,
    },
    /// Of what an agent holds back: from the oldest on, or any.
    Backlog {
        agent: u32,
        picks: Vec<Index>,
        in_order: bool,
    },
    /// Frames that are there already.
    Doubled {
        picks: Vec<Index>,
    },
    RollBack {
        agent: u32,
        picks: Vec<Index>,
    },
    RestartAgent {
        agent: u32,
    },
    Rotate,
    /// `control.db` follows.
    Apply,
    Look {
        ends_after: Option<u32>,
    },
    DropJournals {
        kept_ms: i64,
    },
    Retain {
        bytes: u64,
        full_ms: u64,
    },
    /// A start, after a clean stop or not; or after a crash in the middle of a look, before anything was removed.
    Start {
        is_clean: bool,
    },
    CrashInLook,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Sent,
    HeldBack,
    SentTwice,
}

/// An agent, as far as the store notices it.
#[derive(Debug)]
struct Agent {
    key: u32,
    epoch: u32,
    next: u64,
    /// By the wall, when its monotonic clock stood at 0.
    began: i64,
    live: Option<(FrameId, Reading)>,
    spool: BTreeMap<FrameId, Reading>,
}

/// What the map holds of a frame.
#[derive(Clone, Debug)]
struct Kept {
    pos: Pos,
    time: WallMs,
    reading: Reading,
}

type Frames = BTreeMap<(NodeKey, FrameId), Kept>;

/// Positions that reads answer from, by level.
#[derive(Clone, Debug, Default)]
struct Covered([Vec<(Pos, Pos)>; 3]);

struct World {
    dir: Dir,
    log: Option<Log>,
    ingest: Ingest,
    keeper: Keeper,
    health: Arc<Health>,
    stats: Arc<Stats>,
    tuned: crate::tuning::Tuned,
    pipeline: mpsc::Sender<Input>,
    events: mpsc::Receiver<Input>,
    agents: Vec<Agent>,
    frames: Frames,
    /// Of the transaction under way.
    fresh: Frames,
    now: i64,
    applied: Pos,
    covered: Covered,
    /// What was dropped, by level. The name of what is merged around a hole spans it.
    gone: [BTreeSet<Pos>; 3],
}

fn op() -> impl Strategy<Value = Op> {
    let index = any::<Index>;
    let agent = || 1..=AGENTS;
    let fate = prop_oneof![6 => Just(Fate::Sent), 2 => Just(Fate::HeldBack), 1 => Just(Fate::SentTwice)];
    let apart_ms = prop_oneof![
        12 => Just(TICK_MS), 4 => Just(60_000), 4 => Just(300_000), 3 => Just(1_500_000), 1 => Just(8 * 3_600_000),
    ];
    let ticks = (1i64..12, apart_ms, prop::collection::vec(fate, 1..30));
    let bytes = prop_oneof![1 => Just(150_000), 1 => Just(500_000), 2 => Just(1 << 26)];
    let full_ms =
        prop_oneof![1 => Just(AGED_MS + 1_800_000), 1 => Just(AGED_MS + 4 * 3_600_000), 2 => Just(3_650 * DAY_MS)];
    let picks = || prop::collection::vec(index(), 1..6);
    prop_oneof![
        12 => ticks.prop_map(|(count, apart_ms, fates)| Op::Ticks { count, apart_ms, fates }),
        4 => (agent(), picks(), any::<bool>()).prop_map(|(agent, picks, in_order)| Op::Backlog { agent, picks, in_order }),
        2 => picks().prop_map(|picks| Op::Doubled { picks }),
        1 => (agent(), picks()).prop_map(|(agent, picks)| Op::RollBack { agent, picks }),
        1 => agent().prop_map(|agent| Op::RestartAgent { agent }),
        2 => Just(Op::Rotate),
        5 => Just(Op::Apply),
        6 => Just(Op::Look { ends_after: None }),
        2 => (0u32..12).prop_map(|looks| Op::Look { ends_after: Some(looks) }),
        2 => prop_oneof![Just(0), Just(600_000)].prop_map(|kept_ms| Op::DropJournals { kept_ms }),
        1 => (bytes, full_ms).prop_map(|(bytes, full_ms)| Op::Retain { bytes, full_ms }),
        1 => any::<bool>().prop_map(|is_clean| Op::Start { is_clean }),
        1 => Just(Op::CrashInLook),
    ]
}

impl World {
    fn new() -> Self {
        let dir = Dir::in_memory();
        let tuning = CollectorConfig::load(None, &[], &[]).expect("good").tuning;
        let tuned = Arc::new(ArcSwap::from_pointee(tuning));
        let (pipeline, events) = mpsc::channel(64);
        let (health, stats) = (Arc::<Health>::default(), Arc::<Stats>::default());
        let shared = (Arc::clone(&health), Arc::clone(&stats), Clock::start());
        let keeper = Keeper::new(dir.path(), Arc::clone(&tuned), (&pipeline, &Arc::default()), shared);
        let mut agents: Vec<Agent> = Vec::new();
        agents.extend((1..=AGENTS).map(|key| Agent {
            key,
            epoch: 0,
            next: 0,
            began: 0,
            live: None,
            spool: BTreeMap::new(),
        }));
        let mut world = Self {
            dir,
            log: None,
            ingest: Ingest::default(),
            keeper,
            health,
            stats,
            tuned,
            pipeline,
            events,
            agents,
            frames: Frames::new(),
            fresh: Frames::new(),
            now: BEGIN,
            applied: Pos(0),
            covered: Covered::default(),
            gone: Default::default(),
        };
        world.retain(1 << 26, 3_650 * DAY_MS);
        world.start();
        (0..AGENTS).for_each(|agent| world.restart_agent(agent as usize));
        world
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("window")
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().expect("it is open between steps")
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Ticks { count, apart_ms, fates } => {
                let mut fates = fates.iter().cycle();
                for _ in 0..*count {
                    self.now += apart_ms;
                    self.transact(|world| {
                        for agent in 0..world.agents.len() {
                            world.tick(agent, *fates.next().expect("there is one, and they come again"));
                        }
                    });
                }
            }
            Op::Backlog { agent, picks, in_order } => {
                self.transact(|world| world.backlog(*agent as usize - 1, picks, *in_order))
            }
            Op::Doubled { picks } => self.transact(|world| world.double(picks)),
            Op::RollBack { agent, picks } => self.roll_back(*agent as usize - 1, picks),
            Op::RestartAgent { agent } => self.restart_agent(*agent as usize - 1),
            Op::Rotate => self.rotate(),
            Op::Apply => self.applied = Pos(self.log().next_pos().0 - 1),
            Op::Look { ends_after } => self.look(*ends_after),
            Op::DropJournals { kept_ms } => self.drop_journals(*kept_ms),
            Op::Retain { bytes, full_ms } => self.retain(*bytes, *full_ms),
            Op::Start { is_clean } => {
                let log = self.log.take().expect("it is open between steps");
                if *is_clean {
                    log.close().expect("it is closed");
                }
                self.start();
            }
            Op::CrashInLook => self.crash_in_look(),
        }
        self.health.set_applied(self.applied);
    }

    /// What the files hold is all that is known from here on.
    fn start(&mut self) {
        self.log = None;
        let (log, opened) = Log::open(&self.state(), WallMs(self.now), self.applied).expect("it opens");
        assert!(opened.set_aside.is_empty() && opened.lost_after.is_none_or(|_| self.frames.is_empty()), "{opened:?}");
        self.ingest = if opened.snapshot.is_empty() {
            Ingest::default()
        } else {
            Ingest::recover(&opened.snapshot).expect("ours")
        };
        for key in 1..=AGENTS {
            assert!(self.ingest.learn(NodeKey(key), node_id(key)));
        }
        log.scan_newest().for_each(|record| self.ingest.observe(&record.expect("it is sound").1));
        self.log = Some(log);
        self.health = Arc::default();
        let shared = (Arc::clone(&self.health), Arc::clone(&self.stats), Clock::start());
        let (tuned, dir) = (Arc::clone(&self.tuned), self.dir.path());
        self.keeper = Keeper::new(dir, tuned, (&self.pipeline, &Arc::default()), shared);
        for agent in 0..self.agents.len() {
            self.agents[agent].live = None;
            if self.agents[agent].epoch > 0 {
                self.transact(|world| world.greet(agent));
            }
        }
    }

    fn transact(&mut self, what: impl FnOnce(&mut Self)) {
        if self.log.as_ref().is_some_and(|log| log.due(WallMs(self.now))) {
            self.rotate();
        }
        self.log().begin().expect("begin");
        what(self);
        self.log().commit().expect("commit");
        self.ingest.committed();
        self.frames.append(&mut self.fresh);
        self.log().checkpoint_if_due().expect("folded");
    }

    fn rotate(&mut self) {
        let (now, snapshot) = (WallMs(self.now), self.ingest.snapshot());
        self.log().rotate(now, &snapshot).expect("rotate");
        self.ingest.rotated();
    }

    fn restart_agent(&mut self, agent: usize) {
        let now = self.now;
        let restarted = &mut self.agents[agent];
        (restarted.epoch, restarted.next, restarted.began, restarted.live) =
            (restarted.epoch + 1, 0, now - 77_000, None);
        self.transact(|world| world.greet(agent));
    }

    fn greet(&mut self, agent: usize) {
        let Agent { key, epoch, next, spool, .. } = &self.agents[agent];
        let mut spooled: Vec<Spooled> = Vec::new();
        for id in spool.keys() {
            match spooled.last_mut() {
                Some(last) if last.epoch == id.epoch => last.range.last = id.seq,
                _ => spooled.push(Spooled { epoch: id.epoch, range: SeqRange::one(id.seq) }),
            }
        }
        let hello = Hello {
            wire_min: 1,
            wire_max: 1,
            node: node_id(*key),
            name: format!("host-{key}"),
            agent_version: String::from("0.1.0"),
            boot_id: [1; 16],
            epoch: Epoch(*epoch),
            next_seq: Seq(*next),
            interval_ms: 10_000,
            mono: MonoMs(0),
            wall: WallMs(self.now),
            spooled,
            ended: Vec::new(),
        };
        let (record, _) = self.ingest.hello(WallMs(self.now), NodeKey(*key), &hello).expect("it is let in");
        self.log().append(&record).expect("append");
    }

    fn tick(&mut self, agent: usize, fate: Fate) {
        let now = self.now;
        let ticking = &mut self.agents[agent];
        let id = FrameId::new(ticking.epoch, ticking.next);
        ticking.next += 1;
        let reading = measured(ticking, id, now);
        if matches!(fate, Fate::HeldBack) {
            ticking.spool.insert(id, reading);
            return;
        }
        let base = ticking.live.take().filter(|(base, _)| *base == FrameId::new(id.epoch.0, id.seq.0.wrapping_sub(1)));
        let delta = base.and_then(|(_, base)| encode_delta(&base, &reading));
        let (kind, body) = match delta {
            Some(body) => (BodyKind::Delta { back: 1 }, body),
            None => (BodyKind::Key, encode_key(&reading)),
        };
        ticking.live = Some((id, reading.clone()));
        assert!(self.admit(agent, Lane::Live, Frame { id, kind, body }, &reading), "{id} is new");
        if matches!(fate, Fate::SentTwice) {
            assert!(!self.admit(agent, Lane::Backlog, key_frame(id, &reading), &reading), "{id} is there");
        }
    }

    fn backlog(&mut self, agent: usize, picks: &[Index], in_order: bool) {
        for pick in picks {
            let spool = &mut self.agents[agent].spool;
            let place = if in_order { 0 } else { pick.index(spool.len().max(1)) };
            let Some(id) = spool.keys().nth(place).copied() else { return };
            let reading = spool.remove(&id).expect("it is there");
            assert!(self.admit(agent, Lane::Backlog, key_frame(id, &reading), &reading), "{id} is new");
        }
    }

    /// Also of what retention dropped: that it was there is known for good.
    fn double(&mut self, picks: &[Index]) {
        for pick in picks {
            let Some(((node, id), kept)) = self.frames.iter().nth(pick.index(self.frames.len().max(1))) else { return };
            let (agent, id, reading) = (node.0 as usize - 1, *id, kept.reading.clone());
            assert!(!self.admit(agent, Lane::Backlog, key_frame(id, &reading), &reading), "{id} is there");
        }
    }

    /// Whether it is new.
    fn admit(&mut self, agent: usize, lane: Lane, frame: Frame, reading: &Reading) -> bool {
        let (node, id) = (NodeKey(self.agents[agent].key), frame.id);
        match self.ingest.admit(WallMs(self.now), node, lane, frame).expect("it is let in") {
            Admitted::Duplicate(_) => false,
            Admitted::Store { record, .. } => {
                let pos = self.log().append(&record).expect("append");
                let is_believed = self.now - reading.wall.0 <= SPOOLED_MS_MAX;
                let time = if is_believed { reading.wall } else { WallMs(self.now) };
                let kept = Kept { pos, time, reading: reading.clone() };
                assert!(self.fresh.insert((node, id), kept).is_none() && !self.frames.contains_key(&(node, id)));
                true
            }
        }
    }

    /// What could not be stored is in the spool as before.
    fn roll_back(&mut self, agent: usize, picks: &[Index]) {
        if self.log.as_ref().is_some_and(|log| log.due(WallMs(self.now))) {
            self.rotate();
        }
        let spool = self.agents[agent].spool.clone();
        self.log().begin().expect("begin");
        self.backlog(agent, picks, false);
        self.log().rollback().expect("rolled back");
        self.ingest.rolled_back();
        self.fresh.clear();
        self.agents[agent].spool = spool;
    }

    fn look(&mut self, ends_after: Option<u32>) {
        self.health.set_applied(self.applied);
        self.keeper.errand.ends_after.set(ends_after);
        self.keeper.look().expect("nothing fails");
        self.keeper.errand.ends_after.set(None);
    }

    /// As if it had ended after the last name was given and before anything was removed.
    fn crash_in_look(&mut self) {
        let aside = self.dir.path().join("aside");
        fs::create_dir(&aside).expect("made");
        let files = Files::list(&self.state()).expect("listed");
        let names: Vec<_> =
            files.sealed.iter().chain(&files.superseded).map(|name| name.path().to_path_buf()).collect();
        let beside = |path: &Path| aside.join(path.file_name().expect("a file"));
        names.iter().for_each(|path| fs::hard_link(path, beside(path)).expect("linked"));
        self.look(None);
        for path in names.iter().filter(|path| !path.exists()) {
            fs::rename(beside(path), path).expect("renamed");
        }
        fs::remove_dir_all(&aside).expect("removed");
        self.start();
    }

    fn drop_journals(&mut self, kept_ms: i64) {
        let (applied, sealed, room) = (self.applied, self.health.sealed(), self.health.journal_room());
        let now = WallMs(self.now);
        self.log().drop_sealed(sealed.min(applied), kept_ms, now).expect("dropped");
        self.log().drop_oldest_beyond(room, applied).expect("dropped");
    }

    fn retain(&self, bytes: u64, full_ms: u64) {
        let ages = (3_650 * DAY_MS, 3_650 * DAY_MS);
        let retention = Retention { bytes: Some(bytes), full_ms, mid_ms: ages.0, long_ms: ages.1 };
        self.tuned.store(Arc::new(Tuning { retention, ..*self.tuned.load_full() }));
    }
}

fn key_frame(id: FrameId, reading: &Reading) -> Frame {
    Frame { id, kind: BodyKind::Key, body: encode_key(reading) }
}

/// What an agent measures; every other run of it has a card more.
fn measured(agent: &Agent, id: FrameId, now: i64) -> Reading {
    let tick = i64::try_from(id.seq.0).expect("small");
    let whole = reading(agent.key, tick + i64::from(id.epoch.0) * 1_000);
    let count = if id.epoch.0.is_multiple_of(2) { 3 } else { 4 };
    let series = whole.layout.series[..count].to_vec();
    let layout = Arc::new(Layout { series, ..Layout::clone(&whole.layout) });
    let mono = MonoMs((now - agent.began).cast_unsigned());
    Reading { mono, wall: WallMs(now), layout, values: whole.values[..count].to_vec() }
}

mod judge;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: setting("DUNLIN_SIM_RUNS").map_or(RUNS, |runs| u32::try_from(runs).unwrap_or(u32::MAX)),
        rng_seed: RngSeed::Fixed(setting("DUNLIN_SIM_SEED").unwrap_or(SEED)),
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn reads_answer_what_was_stored_whatever_happens_to_the_files(ops in prop::collection::vec(op(), 10..60)) {
        let mut world = World::new();
        for op in &ops {
            let before = world.before();
            world.apply(op);
            world.judge(op, &before);
        }
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a whole number, not {text:?}")))
}
