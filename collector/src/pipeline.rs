//! Feeds the engine from the log and writes what follows to `control.db`.
//!
//! It owns both. What follows from a record is committed together with the record's position, so that
//! a restart repeats nothing and leaves nothing out. While `control.db` cannot be written, changes
//! wait in memory and the log keeps what they follow from.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use dunlin_shared::repeat::Repeats;
use dunlin_shared::time::{MonoMs, WallMs};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::engine::{Effect, Engine, GapRecorded, NodeState};
use crate::health::Health;
use crate::orders::Order;
use crate::record::{Event, NodeKey, SessionStart};
use crate::registry::Refused;
use crate::stats::Stats;
use crate::store::{Control, ControlBatch, GapRow, NodeUpdate, StoreError};
use crate::view::FleetView;
use crate::writer::Logged;

/// How long the position alone may wait. It bounds what a restart replays.
const POSITION_AFTER_MS: u64 = 5_000;
/// When nodes were last seen is written so often: a restart asks them anew anyway.
const SEEN_AFTER_MS: u64 = 60_000;
/// Gaps that may wait for a disk that is full; 100 bytes each.
const GAPS_WAITING_MAX: usize = 100_000;

/// What comes to the pipeline.
#[derive(Debug)]
pub enum Input {
    /// Records of the log, in its order.
    Logged(Vec<Logged>),
    Order(Order),
}

#[derive(Debug)]
pub struct Pipeline {
    engine: Engine,
    control: Control,
    waiting: HashMap<NodeKey, NodeUpdate>,
    gaps: Vec<GapRow>,
    newcomers: Vec<(NodeKey, dunlin_shared::id::NodeId)>,
    names: HashMap<NodeKey, String>,
    written_at: MonoMs,
    seen_at: MonoMs,
    view: Arc<ArcSwap<FleetView>>,
    health: Arc<Health>,
    stats: Arc<Stats>,
    clock: Clock,
    failures: Repeats,
}

impl Pipeline {
    #[must_use]
    pub fn new(
        engine: Engine,
        control: Control,
        names: HashMap<NodeKey, String>,
        (health, stats, clock): (Arc<Health>, Arc<Stats>, Clock),
    ) -> Self {
        health.set_applied(engine.applied());
        Self {
            engine,
            control,
            waiting: HashMap::new(),
            gaps: Vec::new(),
            newcomers: Vec::new(),
            names,
            written_at: clock.mono(),
            seen_at: clock.mono(),
            view: Arc::default(),
            health,
            stats,
            clock,
            failures: Repeats::default(),
        }
    }

    #[must_use]
    pub fn view(&self) -> Arc<ArcSwap<FleetView>> {
        Arc::clone(&self.view)
    }

    /// Runs until the writer is gone, then writes what waits.
    pub fn run(mut self, mut queue: mpsc::Receiver<Input>) -> Result<(), StoreError> {
        while let Some(input) = queue.blocking_recv() {
            match input {
                Input::Logged(group) => group.into_iter().for_each(|logged| self.apply(logged)),
                Input::Order(order) => order.answer(Err(Refused::Stopping)),
            }
            self.write_if_due()?;
        }
        self.write()?;
        self.control.close()
    }

    /// One record of the log, live or replayed.
    pub fn apply(&mut self, logged: Logged) {
        let Logged { pos, record, reading } = logged;
        let at = record.at;
        let is_tick = matches!(record.event, Event::Tick { .. });
        let effects = match pos {
            Some(pos) => self.engine.apply(pos, &record, reading),
            None => self.engine.apply_unlogged(&record, reading),
        };
        for effect in effects {
            self.follow(at, effect);
        }
        if is_tick {
            self.view.store(Arc::new(FleetView { counts: self.engine.counts().collect(), ..FleetView::default() }));
        }
    }

    /// Writes everything that waits, with the position it follows from.
    pub fn write(&mut self) -> Result<(), StoreError> {
        let now = self.clock.mono();
        self.written_at = now;
        if now.since(self.seen_at) >= SEEN_AFTER_MS {
            self.seen_at = now;
            for (node, at) in self.engine.take_seen() {
                self.update(node).last_seen = Some(at);
            }
        }
        let batch = ControlBatch {
            applied_pos: self.engine.applied(),
            nodes: self.waiting.values().cloned().collect(),
            gaps: self.gaps.clone(),
            events: Vec::new(),
        };
        let written = self.add_newcomers().and_then(|()| self.control.apply(&batch));
        match written {
            Ok(applied) => {
                if applied {
                    self.waiting.clear();
                    self.gaps.clear();
                    self.health.set_applied(batch.applied_pos);
                }
                self.failures.clear();
                self.control.checkpoint_if_due().or_else(|error| self.put_off(error))
            }
            Err(error) => self.put_off(error),
        }
    }

    fn write_if_due(&mut self) -> Result<(), StoreError> {
        let changed = !(self.waiting.is_empty() && self.gaps.is_empty() && self.newcomers.is_empty());
        let late = self.clock.mono().since(self.written_at) >= POSITION_AFTER_MS;
        if changed || late { self.write() } else { Ok(()) }
    }

    fn add_newcomers(&mut self) -> Result<(), StoreError> {
        if !self.newcomers.is_empty() {
            self.control.restore_nodes(&self.newcomers, None, self.clock.wall())?;
            self.newcomers.clear();
        }
        Ok(())
    }

    fn put_off(&mut self, error: StoreError) -> Result<(), StoreError> {
        if matches!(error, StoreError::SyncFailed { .. } | StoreError::Damaged { .. }) {
            return Err(error);
        }
        if let Some(times) = self.failures.note("control") {
            error!(times, waiting = self.waiting.len(), "changes wait in memory: {error}");
        }
        let over = self.gaps.len().saturating_sub(GAPS_WAITING_MAX);
        self.gaps.drain(..over);
        self.stats.effects_dropped.add(over as u64);
        Ok(())
    }

    fn follow(&mut self, at: WallMs, effect: Effect) {
        match effect {
            Effect::NodeState { node, from, to, since } => {
                let name = self.name(node);
                let (from, state) = (from.as_str(), to.as_str());
                if to == NodeState::Down {
                    warn!(node = name, from, "node is {state}");
                } else {
                    info!(node = name, from, "node is {state}");
                }
                self.update(node).state = Some((to.as_str().to_owned(), since));
            }
            Effect::SessionStarted { node, info } => self.session_started(node, info),
            Effect::SessionEnded { node, goodbye } => {
                if let Some(goodbye) = goodbye {
                    self.update(node).goodbye = Some((goodbye.epoch, goodbye.next_seq));
                }
            }
            Effect::NodeRestarted { node, from, to } => {
                info!(node = self.name(node), from = from.0, to = to.0, "agent runs anew");
            }
            Effect::GapRecorded(gap) => self.gap(at, gap),
            Effect::FactsChanged { node, id, bytes } => self.update(node).facts = Some((id, bytes)),
        }
    }

    fn session_started(&mut self, node: NodeKey, info: SessionStart) {
        if self.names.insert(node, info.name.clone()).is_none() {
            self.newcomers.push((node, info.node));
        }
        let update = self.update(node);
        update.name = Some(info.name);
        update.epoch = Some(info.epoch);
        update.version = Some(info.agent_version);
        update.boot_id = Some(info.boot_id);
        update.interval_ms = Some(info.interval_ms);
        update.skew_ms = Some(info.skew_ms);
    }

    fn gap(&mut self, at: WallMs, gap: GapRecorded) {
        let (count, reason) = (gap.count, gap.reason.as_str());
        let span_s = gap.to.since(gap.from) / 1_000;
        warn!(node = self.name(gap.node), count, span_s, reason, "frames are lost for good");
        self.gaps.push(GapRow {
            node: gap.node,
            epoch: gap.epoch,
            first: gap.first,
            last: gap.last,
            count: gap.count,
            from: gap.from,
            to: gap.to,
            reason: reason.to_owned(),
            at,
        });
    }

    fn update(&mut self, node: NodeKey) -> &mut NodeUpdate {
        self.waiting.entry(node).or_insert_with(|| NodeUpdate::of(node))
    }

    fn name(&self, node: NodeKey) -> &str {
        self.names.get(&node).map_or("?", String::as_str)
    }
}
