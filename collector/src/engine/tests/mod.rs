//! The engine on virtual time, by name of behaviour: a log under way, the engine that it feeds, and
//! what `control.db` would hold of it.

mod alerts;
mod fleet;
mod mass;
mod records;
mod replay;
mod standing;
mod stock;

use std::collections::BTreeMap;

use dunlin_shared::id::NodeId;
use dunlin_shared::inventory::{Facts, Stock};
use dunlin_shared::time::MonoMs;
use dunlin_shared::wire::StopReason;

use dunlin_shared::rule::Rule;
use dunlin_shared::rule::file::parse;

use super::alert::{Alert, AlertChange, AlertId, AlertState};
use super::*;
use crate::record::EarlierRun;

const HOUR_MS: i64 = 3_600_000;

struct Line {
    engine: Engine,
    at: WallMs,
    rows: BTreeMap<NodeKey, Restored>,
    stocks: BTreeMap<NodeKey, Stock>,
    rules: Vec<Arc<Rule>>,
    /// What is open; who rules are told of.
    alerts: BTreeMap<AlertId, Alert>,
    watched: u32,
    ticked_at: WallMs,
}

impl Line {
    fn new() -> Self {
        Self {
            engine: Engine::default(),
            at: WallMs(1_700_000_000_000),
            rows: BTreeMap::new(),
            stocks: BTreeMap::new(),
            rules: Vec::new(),
            alerts: BTreeMap::new(),
            watched: 0,
            ticked_at: WallMs(0),
        }
    }

    /// These rules are in force, and so many nodes have ids.
    fn watch(&mut self, rules: &str, nodes: usize) {
        let rules = parse("rules.toml", rules).unwrap_or_else(|errors| panic!("{errors:?}"));
        self.rules = rules.into_iter().map(Arc::new).collect();
        self.watched = u32::try_from(nodes).expect("a small fleet");
        let effects = self.engine.set_rules(self.at, self.rules.iter().cloned());
        self.follow(&effects);
        self.introduce();
    }

    fn introduce(&mut self) {
        for node in 0..self.watched {
            let id = NodeId::v7(node.into(), [0; 10]);
            let effects = self.engine.introduce(self.at, NodeKey(node), id, &Arc::default());
            assert!(effects.is_empty(), "it has no labels");
        }
    }

    fn put(&mut self, event: Event) -> Vec<Effect> {
        self.put_reading(event, None)
    }

    fn put_reading(&mut self, event: Event, reading: Option<Arc<Reading>>) -> Vec<Effect> {
        let pos = self.engine.applied().next();
        if let Event::Tick { .. } = event {
            self.ticked_at = self.at;
        }
        let mut effects = self.engine.apply(pos, &Record { at: self.at, event }, reading);
        effects.extend(self.keep(&effects));
        self.follow(&effects);
        effects
    }

    /// As `control.db` takes what is told of stocks.
    fn keep(&mut self, effects: &[Effect]) -> Vec<Effect> {
        let mut more = Vec::new();
        for effect in effects {
            match effect {
                Effect::StockTold { node, stock, compares, is_late } => {
                    let before = self.stocks.insert(*node, (**stock).clone());
                    if let Some(before) = before.filter(|_| *compares) {
                        let happened = stock.happened_since(&before, self.at, |_| true);
                        more.extend(self.engine.happened(self.at, *node, happened, *is_late));
                    }
                }
                Effect::StockChanged { node, change, builds: true } => {
                    let stock = self.stocks.entry(*node).or_default();
                    if stock.apply((**change).clone()).is_err() {
                        more.extend(self.engine.mistrust(*node, true));
                    }
                }
                Effect::StockChanged { node, change, builds: false } => {
                    let stock = self.stocks.entry(*node).or_default();
                    for key in &change.gone {
                        stock.remove(key);
                    }
                    for item in &change.items {
                        stock.put(item.clone());
                    }
                }
                _ => {}
            }
        }
        more
    }

    fn stand(&mut self, node: NodeKey, standing: Standing) -> Vec<Effect> {
        let effects = self.engine.set_standing(self.at, node, standing);
        if self.engine.node(node).is_some() {
            self.row(node).standing = standing;
        }
        self.follow(&effects);
        effects
    }

    fn forget(&mut self, node: NodeKey) {
        let effects = self.engine.forget(self.at, node);
        self.follow(&effects);
        self.rows.remove(&node);
        self.stocks.remove(&node);
    }

    fn tick(&mut self) -> Vec<Effect> {
        self.at = self.at.plus(1_000);
        self.put(Event::Tick { elapsed_ms: 1_000, paused_ms: 0 })
    }

    /// What changed state in so many seconds, and in which second of them.
    fn ticks(&mut self, seconds: usize) -> Vec<(usize, NodeKey, NodeState)> {
        let mut turns = Vec::new();
        for second in 1..=seconds {
            turns.extend(self.tick().iter().filter_map(turn).map(|(node, to)| (second, node, to)));
        }
        turns
    }

    /// Killed and started again with what `control.db` holds.
    fn restart(&mut self) -> Vec<Effect> {
        self.reopen();
        self.put(Event::Started)
    }

    fn reopen(&mut self) {
        for (node, at) in self.engine.take_seen() {
            let newest = self.engine.newest(node);
            let row = self.row(node);
            (row.last_seen, row.newest) = (at, newest);
        }
        let (applied, mass, ran) = (self.engine.applied(), self.engine.mass(), self.engine.ran());
        let engine = Engine::restore(applied, self.rows.values().cloned()).with_ran(ran, self.ticked_at);
        self.engine = engine.with_mass(mass);
        drop(self.engine.set_rules(self.ticked_at, self.rules.iter().cloned()));
        for node in self.rows.keys().filter(|node| node.0 < self.watched) {
            self.engine.restore_watch(*node, NodeId::v7(node.0.into(), [0; 10]), Arc::default(), None);
        }
        for alert in self.alerts.values() {
            let row = (alert.id, Arc::clone(&alert.rule), alert.node, Arc::clone(&alert.subject));
            let shown = (alert.value, alert.threshold, alert.is_flapping);
            let life = (alert.state, alert.began, alert.fired);
            self.engine.restore_alert(Alert::restored(row, life, shown, (alert.fires().to_vec(), alert.over())));
        }
        let effects = self.engine.resume_watch(self.ticked_at);
        assert!(effects.is_empty(), "a start by itself changes nothing: {effects:?}");
        self.introduce();
    }

    fn state(&self, node: NodeKey) -> NodeState {
        self.engine.node(node).map_or(NodeState::Unknown, |view| view.state)
    }

    fn count(&self, state: NodeState) -> usize {
        self.engine.counts().find(|(known, _)| *known == state).map_or(0, |(_, count)| count)
    }

    fn follow(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::NodeState { node, since, life, .. } => {
                    let row = self.row(*node);
                    (row.life, row.since) = (*life, *since);
                    row.is_retired &= *life != Liveness::Up;
                }
                Effect::SessionStarted { node, info } => {
                    let row = self.row(*node);
                    (row.name, row.boot_id, row.goodbye) = (info.name.clone(), info.boot_id, None);
                }
                Effect::SessionEnded { node, goodbye: Some(goodbye) } => self.row(*node).goodbye = Some(*goodbye),
                Effect::FactsChanged { node, id, bytes } => self.row(*node).facts = Some((*id, bytes.clone())),
                Effect::MaintenanceOver { node } => self.row(*node).standing.maintenance = None,
                Effect::Retired { node, .. } => self.row(*node).is_retired = true,
                Effect::StockKept { node } => self.row(*node).stock = Some(self.engine.stock(*node)),
                Effect::Alert(change) => self.follow_alert(change),
                _ => {}
            }
        }
    }

    /// As the feed tells it: each fires once, and is resolved once at most.
    fn follow_alert(&mut self, change: &AlertChange) {
        match change {
            AlertChange::Pending(alert) => {
                assert!(self.alerts.insert(alert.id, alert.clone()).is_none(), "{alert:?} begins twice");
            }
            AlertChange::Fired(alert, _) => {
                let before = self.alerts.insert(alert.id, alert.clone());
                assert!(before.is_none_or(|before| before.state == AlertState::Pending), "{alert:?} fires twice");
            }
            AlertChange::Flaps(alert) | AlertChange::Turned(alert) | AlertChange::Reworded(alert) => {
                assert!(self.alerts.insert(alert.id, alert.clone()).is_some(), "{alert:?} is not open");
            }
            AlertChange::Dropped(id) => {
                let before = self.alerts.remove(id).map(|alert| alert.state);
                assert_eq!(before, Some(AlertState::Pending), "{id} is dropped");
            }
            AlertChange::Resolved(alert) => {
                let before = self.alerts.remove(&alert.id).map(|alert| alert.state);
                assert_eq!(before, Some(AlertState::Firing), "{alert:?} is resolved");
            }
        }
    }

    fn row(&mut self, node: NodeKey) -> &mut Restored {
        self.rows.entry(node).or_insert_with(|| Restored::of(node, self.at))
    }
}

fn turn(effect: &Effect) -> Option<(NodeKey, NodeState)> {
    match effect {
        Effect::NodeState { node, from, to, .. } if from != to => Some((*node, *to)),
        _ => None,
    }
}

const A: NodeKey = NodeKey(0);

fn heartbeat(node: NodeKey) -> Event {
    Event::Heartbeat { node }
}

fn hello(node: NodeKey, epoch: u32, before: Option<EarlierRun>) -> Event {
    let session = SessionStart {
        node: NodeId::v7(node.0.into(), [0; 10]),
        name: "host".into(),
        agent_version: "0.1.0".into(),
        boot_id: [0; 16],
        epoch: Epoch(epoch),
        interval_ms: 10_000,
        skew_ms: 0,
        before,
    };
    Event::Hello { node, session }
}

fn frame(lane: Lane, kind: BodyKind, epoch: u32, seq: u64) -> Event {
    let is_inventory = kind == BodyKind::Inventory;
    let body = if is_inventory { Inventory::Facts(Facts::default()).encode() } else { vec![1] };
    Event::Frame { node: A, lane, frame: Frame { id: FrameId::new(epoch, seq), kind, body } }
}

fn goodbye(epoch: u32, next_seq: u64) -> Event {
    let goodbye = Goodbye { epoch: Epoch(epoch), next_seq: Seq(next_seq), reason: StopReason::Stopped };
    Event::Goodbye { node: A, goodbye }
}

fn run(epoch: u32, last: u64, count: u64) -> Option<EarlierRun> {
    Some(EarlierRun { epoch: Epoch(epoch), last: Some(Seq(last)), count, ended: None })
}

fn gaps(effects: Vec<Effect>) -> Vec<GapRecorded> {
    let gap = |effect| match effect {
        Effect::GapRecorded(gap) => Some(gap),
        _ => None,
    };
    effects.into_iter().filter_map(gap).collect()
}
