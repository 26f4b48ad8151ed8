//! The collector: real sessions, ingest and engine around a journal in memory that can refuse, forget and rotate.
//! It plays the writer: what is owed is said only after the commit, and everything is checked as it is committed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use dunlin_collector::engine::alert::{Alert, AlertChange, AlertId, AlertState};
use dunlin_collector::engine::{DOWN_MS, Effect, Engine, GapReason, GapRecorded, NodeState, Restored};
use dunlin_collector::ingest::{Admitted, Ingest, Replay};
use dunlin_collector::record::{Event, NodeKey, Pos, Record};
use dunlin_shared::frame::Frame;
use dunlin_shared::id::{Epoch, FrameId, NodeId};
use dunlin_shared::range::{FrameSet, SeqRange};
use dunlin_shared::rule::Rule;
use dunlin_shared::rule::file::parse;
use dunlin_shared::sample::Reading;
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::{FrameRange, Gap, Goodbye, Held, Hello, Lane};

use crate::host::WALL;

/// What a record's receive time and the ticks may be apart, with a jump of the wall clock between them.
const SLACK_MS: u64 = 2_100;

/// What is told of how nodes are, and of values that go up and down with every frame.
const RULES: &str = r#"
[[rule]]
name = "node-down"
when = 'node_state == down'
summary = "x"

[[rule]]
name = "node-stopped"
when = 'node_state == stopped'
for = "1m"
summary = "x"

[[rule]]
name = "fs-high"
when = 'fs_used_bytes > 512MiB'
clear = '< 256MiB'
summary = "x"
"#;

pub(crate) struct Collector {
    pub(crate) ingest: Ingest,
    engine: Engine,
    pub(crate) files: Vec<File>,
    pending: Vec<Pending>,
    pub(crate) owed: Vec<Owed>,
    next_pos: Pos,
    newest: HashMap<NodeKey, usize>,
    pub(crate) wall_offset_ms: i64,
    tick_at: u64,
    control: Rows,
    /// On disk: frames and gaps of each node.
    pub(crate) journalled: HashMap<NodeId, FrameSet>,
    pub(crate) said_lost: Vec<(NodeId, GapRecorded)>,
    /// Epochs of which a Hello is on disk.
    pub(crate) heard_of: HashMap<NodeId, Vec<Epoch>>,
    ids: HashMap<NodeKey, NodeId>,
    listening_ms: u64,
    began_ms: u64,
    heard_ms: HashMap<NodeKey, u64>,
    /// The time of the record under way, as `listening_ms` and `began_ms` were then.
    judged_ms: u64,
    judged_began_ms: u64,
    pub(crate) effects_of_the_log: Vec<Effect>,
    of_the_log: Engine,
    rules: Vec<Arc<Rule>>,
    /// How many alerts fired, whatever they were about.
    pub(crate) fired: u64,
}

pub(crate) struct File {
    pub(crate) snapshot: Vec<u8>,
    pub(crate) records: Vec<(Pos, Record)>,
}

pub(crate) enum Owed {
    Frame { link: usize, id: FrameId, urgent: bool },
    Gap { link: usize, gap: Gap },
    Goodbye { link: usize },
}

/// A record of the transaction under way, and how long the collector had listened when it arrived.
struct Pending {
    record: Record,
    reading: Option<Arc<Reading>>,
    listening_ms: u64,
    began_ms: u64,
}

/// What `control.db` would hold.
#[derive(Default)]
struct Rows {
    applied: Pos,
    nodes: HashMap<NodeKey, Restored>,
    /// What is open.
    alerts: HashMap<AlertId, Alert>,
    ran: (MonoMs, WallMs),
}

impl Collector {
    pub(crate) fn new(now: u64) -> Self {
        let ingest = Ingest::default();
        let first = File { snapshot: ingest.snapshot(), records: Vec::new() };
        let rules = parse("rules.toml", RULES).unwrap_or_else(|errors| panic!("{errors:?}"));
        let rules: Vec<_> = rules.into_iter().map(Arc::new).collect();
        let mut collector = Self {
            ingest,
            engine: watching(Engine::default(), &rules),
            files: vec![first],
            pending: Vec::new(),
            owed: Vec::new(),
            next_pos: Pos(1),
            newest: HashMap::new(),
            wall_offset_ms: 0,
            tick_at: now,
            control: Rows::default(),
            journalled: HashMap::new(),
            said_lost: Vec::new(),
            heard_of: HashMap::new(),
            ids: HashMap::new(),
            listening_ms: 0,
            began_ms: 0,
            heard_ms: HashMap::new(),
            judged_ms: 0,
            judged_began_ms: 0,
            effects_of_the_log: Vec::new(),
            of_the_log: watching(Engine::default(), &rules),
            rules,
            fired: 0,
        };
        collector.push(now, Event::Started);
        collector
    }

    pub(crate) fn wall(&self, now: u64) -> WallMs {
        WallMs(WALL + now.cast_signed() + self.wall_offset_ms)
    }

    fn push(&mut self, now: u64, event: Event) {
        self.take(now, Record { at: self.wall(now), event }, None);
    }

    fn take(&mut self, now: u64, record: Record, reading: Option<Arc<Reading>>) {
        let (listening_ms, began_ms) = (self.listening(now), self.began_ms);
        self.pending.push(Pending { record, reading, listening_ms, began_ms });
    }

    pub(crate) fn hello(&mut self, now: u64, link: usize, hello: &Hello) -> Vec<Held> {
        let node = self.ingest.enlist(hello.node).expect("few nodes");
        let known = self.ids.insert(node, hello.node);
        assert!(known.is_none_or(|known| known == hello.node), "a key that was given twice");
        self.retell(now, node);
        let at = self.wall(now);
        let (record, held) = self.ingest.hello(at, node, hello).expect("an honest agent is not refused");
        self.take(now, record, None);
        self.newest.insert(node, link);
        held
    }

    pub(crate) fn frame(&mut self, now: u64, link: usize, id: NodeId, lane: Lane, frame: Frame) {
        let Some(node) = self.speaker(now, link, id) else { return };
        let frame_id = frame.id;
        let at = self.wall(now);
        let duplicate = match self.ingest.admit(at, node, lane, frame).expect("an honest agent is not refused") {
            Admitted::Store { record, reading } => {
                self.take(now, record, reading);
                false
            }
            Admitted::Duplicate(_) => true,
        };
        self.owed.push(Owed::Frame { link, id: frame_id, urgent: duplicate || lane == Lane::Backlog });
    }

    pub(crate) fn gap(&mut self, now: u64, link: usize, id: NodeId, gap: Gap) {
        let Some(node) = self.speaker(now, link, id) else { return };
        let at = self.wall(now);
        let records = self.ingest.gap(at, node, &gap).expect("an honest agent is not refused");
        records.into_iter().for_each(|record| self.take(now, record, None));
        self.owed.push(Owed::Gap { link, gap });
    }

    pub(crate) fn heartbeat(&mut self, now: u64, link: usize, id: NodeId) {
        if let Some(node) = self.speaker(now, link, id) {
            self.push(now, Event::Heartbeat { node });
        }
    }

    pub(crate) fn goodbye(&mut self, now: u64, link: usize, id: NodeId, goodbye: Goodbye) {
        if let Some(node) = self.speaker(now, link, id) {
            self.push(now, Event::Goodbye { node, goodbye });
            self.owed.push(Owed::Goodbye { link });
        }
    }

    pub(crate) fn ended(&mut self, now: u64, link: usize, id: NodeId, said_goodbye: bool) {
        let Some(node) = self.ingest.ledger().key_of(id) else { return };
        if self.newest.get(&node) == Some(&link) {
            self.newest.remove(&node);
            self.ingest.disconnected(node);
            if !said_goodbye {
                self.push(now, Event::Lost { node });
            }
        }
    }

    /// The newest session of a node is the one that counts.
    fn speaker(&mut self, now: u64, link: usize, id: NodeId) -> Option<NodeKey> {
        let node = self.ingest.ledger().key_of(id)?;
        (self.newest.get(&node) == Some(&link)).then_some(())?;
        self.retell(now, node);
        Some(node)
    }

    fn retell(&mut self, now: u64, node: NodeKey) {
        let at = self.wall(now);
        if let Some(record) = self.ingest.retell(at, node) {
            self.take(now, record, None);
        }
    }

    /// Time in which it could listen.
    fn listening(&self, now: u64) -> u64 {
        self.listening_ms + (now - self.tick_at).min(1_000)
    }

    pub(crate) fn tick_if_due(&mut self, now: u64) {
        let elapsed_ms = now - self.tick_at;
        if elapsed_ms < 1_000 {
            return;
        }
        let late_ms = elapsed_ms - 1_000;
        let paused_ms = if late_ms > 500 { late_ms } else { 0 };
        self.listening_ms += elapsed_ms - paused_ms;
        self.tick_at = now;
        if paused_ms >= DOWN_MS / 2 {
            self.began_ms = self.listening_ms;
        }
        self.push(now, Event::Tick { elapsed_ms, paused_ms });
    }

    /// One transaction: everything that waits, or nothing of it.
    pub(crate) fn commit(&mut self, works: bool) {
        let pending = std::mem::take(&mut self.pending);
        if works {
            self.ingest.committed();
        } else {
            self.ingest.rolled_back();
        }
        for Pending { record, reading, listening_ms, began_ms } in pending {
            (self.judged_ms, self.judged_began_ms) = (listening_ms, began_ms);
            if let Some(node) = record.event.node().filter(|_| !matches!(record.event, Event::Lost { .. })) {
                self.heard_ms.insert(node, listening_ms);
            }
            if works {
                let pos = self.next_pos;
                self.next_pos = pos.next();
                self.account(&record);
                self.effects_of_the_log.extend(self.of_the_log.apply(pos, &record, reading.clone()));
                let effects = self.engine.apply(pos, &record, reading);
                self.follow(&record, effects);
                self.files.last_mut().expect("there is a file from the start").records.push((pos, record));
                self.control.applied = pos;
            } else {
                let effects = self.engine.apply_unlogged(&record, reading);
                self.follow(&record, effects);
            }
        }
    }

    /// Exactly once: no number is stored, or said to be lost, that was before.
    fn account(&mut self, record: &Record) {
        let (node, added) = match &record.event {
            Event::Frame { node, frame, .. } => (*node, one(frame.id)),
            Event::Gap { node, gap } => (*node, FrameRange { epoch: gap.epoch, range: gap.range }),
            Event::Hello { session, .. } => {
                self.heard_of.entry(session.node).or_default().push(session.epoch);
                return;
            }
            _ => return,
        };
        let set = self.journalled.entry(self.ids[&node]).or_default();
        let before = set.count();
        set.insert_range(added);
        assert_eq!(set.count(), before + added.range.count(), "{added:?} of {node:?} is journalled twice");
    }

    fn follow(&mut self, record: &Record, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::NodeState { node, to, since, life, .. } => {
                    if to == NodeState::Down {
                        let left = self.due(node).saturating_sub(self.judged_ms);
                        assert!(left <= SLACK_MS, "{node:?} is down {left} ms before its deadline");
                    }
                    let row = self.control.nodes.entry(node).or_insert_with(|| Restored::of(node, since));
                    (row.life, row.since) = (life, since);
                }
                Effect::SessionEnded { node, goodbye: Some(goodbye) } => {
                    let row = self.control.nodes.entry(node).or_insert_with(|| Restored::of(node, record.at));
                    row.goodbye = Some(goodbye);
                }
                Effect::GapRecorded(gap) if gap.reason == GapReason::AgentRestart => {
                    self.said_lost.push((self.ids[&gap.node], gap));
                }
                Effect::Alert(change) => self.tell(&change),
                _ => {}
            }
        }
        for (rule, state) in [("node-down", NodeState::Down), ("node-stopped", NodeState::Stopped)] {
            let is_of = |alert: &&Alert| &*alert.rule.name == rule;
            let told: BTreeMap<_, _> =
                self.control.alerts.values().filter(is_of).map(|alert| (alert.node, alert.is_flapping)).collect();
            let shown: BTreeSet<_> =
                self.engine.nodes().filter(|view| view.state == state).map(|view| Some(view.node)).collect();
            // One that comes and goes stays for a while.
            let is_right = |(node, is_flapping): (&Option<NodeKey>, &bool)| *is_flapping || shown.contains(node);
            let is_all = shown.iter().all(|node| told.contains_key(node)) && told.iter().all(is_right);
            assert!(is_all, "{rule} is told of {told:?} and true of {shown:?}");
        }
        if matches!(record.event, Event::Tick { .. }) {
            self.control.ran = (self.engine.ran(), record.at);
            for view in self.engine.nodes().filter(|view| view.state == NodeState::Up) {
                let due = self.due(view.node);
                assert!(self.judged_ms <= due + SLACK_MS, "{:?} is up and long silent", view.node);
            }
        }
    }

    /// Each alert fires once, and is resolved once at most, whatever broke in between.
    fn tell(&mut self, change: &AlertChange) {
        let open = &mut self.control.alerts;
        match change {
            AlertChange::Pending(alert) => {
                assert!(open.insert(alert.id, alert.clone()).is_none(), "{alert:?} begins twice");
            }
            AlertChange::Fired(alert, _) => {
                self.fired += 1;
                let before = open.insert(alert.id, alert.clone()).map(|alert| alert.state);
                assert!(before.is_none_or(|state| state == AlertState::Pending), "{alert:?} fires twice");
            }
            AlertChange::Flaps(alert) | AlertChange::Turned(alert) | AlertChange::Reworded(alert) => {
                assert!(open.insert(alert.id, alert.clone()).is_some(), "{alert:?} is not open");
            }
            AlertChange::Dropped(id) => {
                assert_eq!(open.remove(id).map(|alert| alert.state), Some(AlertState::Pending), "{id} is dropped");
            }
            AlertChange::Resolved(alert) => {
                let before = open.remove(&alert.id).map(|alert| alert.state);
                assert_eq!(before, Some(AlertState::Firing), "{alert:?} is resolved");
            }
        }
    }

    /// When a node that was last heard of so long ago is to be down.
    fn due(&self, node: NodeKey) -> u64 {
        (self.heard_ms[&node] + DOWN_MS).max(self.judged_began_ms + 2 * DOWN_MS)
    }

    pub(crate) fn rotate(&mut self) {
        if self.pending.is_empty() {
            self.files.push(File { snapshot: self.ingest.snapshot(), records: Vec::new() });
            self.ingest.rotated();
        }
    }

    /// Killed and started again: what was not committed is gone, the rest comes from the files.
    pub(crate) fn restart(&mut self, now: u64) {
        self.pending.clear();
        self.owed.clear();
        self.newest.clear();
        let file = self.files.last().expect("there is a file from the start");
        self.ingest = Ingest::recover(&file.snapshot).expect("our own snapshot");
        file.records.iter().for_each(|(_, record)| self.ingest.observe(record));
        let keys: Vec<_> = self.ids.iter().map(|(&key, &id)| (key, id)).collect();
        for (key, id) in keys {
            // A node whose only Hello was never stored is forgotten, and may get another key.
            if self.ingest.ledger().key_of(id) != Some(key) {
                assert!(
                    self.journalled.get(&id).is_none_or(FrameSet::is_empty),
                    "the journal forgot whose key {key:?} is"
                );
                self.ids.remove(&key);
                self.control.nodes.remove(&key);
                self.control.alerts.retain(|_, alert| alert.node != Some(key));
                self.heard_ms.remove(&key);
            }
        }
        self.reopen();
        self.heard_ms.values_mut().for_each(|heard| *heard = 0);
        (self.listening_ms, self.began_ms, self.tick_at) = (0, 0, now);
        self.push(now, Event::Started);
    }

    /// The engine as `control.db` has it.
    fn reopen(&mut self) {
        let Rows { applied, nodes, alerts, ran } = &self.control;
        let engine = Engine::restore(*applied, nodes.values().cloned()).with_ran(ran.0, ran.1);
        let mut engine = watching(engine, &self.rules);
        for node in nodes.keys() {
            engine.restore_watch(*node, self.ids[node], Arc::default(), None);
        }
        for alert in alerts.values() {
            let row = (alert.id, Arc::clone(&alert.rule), alert.node, Arc::clone(&alert.subject));
            let shown = (alert.value, alert.threshold, alert.is_flapping);
            let life = (alert.state, alert.began, alert.fired);
            engine.restore_alert(Alert::restored(row, life, shown, (alert.fires().to_vec(), alert.over())));
        }
        let effects = engine.resume_watch(ran.1);
        assert!(effects.is_empty(), "a start by itself changes nothing: {effects:?}");
        self.engine = engine;
    }

    /// Each file reads by itself, and the whole log leads to the same effects again.
    pub(crate) fn read_back(&self, mut judge: impl FnMut(NodeId, &Frame, Option<&Reading>)) {
        let (mut engine, mut effects) = (watching(Engine::default(), &self.rules), Vec::new());
        for file in &self.files {
            let mut replay = Replay::default();
            for (pos, record) in &file.records {
                let reading = replay.reading(record).expect("a file reads by itself");
                if let Event::Frame { node, frame, .. } = &record.event {
                    judge(self.ids[node], frame, reading.as_deref());
                }
                effects.extend(engine.apply(*pos, record, reading));
            }
        }
        assert_eq!(effects, self.effects_of_the_log, "a replay leads to the same effects");
        for view in engine.nodes() {
            assert_eq!(Some(view), self.of_the_log.node(view.node), "and to the same fleet");
        }
    }
}

fn watching(mut engine: Engine, rules: &[Arc<Rule>]) -> Engine {
    drop(engine.set_rules(WallMs(0), rules.iter().cloned()));
    engine
}

const fn one(id: FrameId) -> FrameRange {
    FrameRange { epoch: id.epoch, range: SeqRange::one(id.seq) }
}

/// Nothing but the time, for a session.
pub(crate) const fn mono(now: u64) -> MonoMs {
    MonoMs(now)
}
