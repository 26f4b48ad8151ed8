//! Feeds the engine from the log and writes what follows to `control.db`.
//!
//! It owns both, and the registry with them. What follows from a record is committed together with the
//! record's position, so that a restart repeats nothing and leaves nothing out. While `control.db`
//! cannot be written, changes wait in memory and the log keeps what they follow from; an order is
//! refused instead, since nothing else keeps it.

mod alerts;
pub(crate) mod counter;
mod feed;
mod happened;
mod known;
mod rules;
mod said;
mod showing;
mod standing;
mod stocks;
#[cfg(test)]
mod tests;
mod watching;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use dunlin_shared::id::NodeId;
use dunlin_shared::inventory::{self, Stock};
use dunlin_shared::repeat::Repeats;
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::Lane;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use self::alerts::OpenAlerts;
use self::counter::{Counter, publish_all};
use self::known::KnownNodes;
pub use self::known::standing;
use self::stocks::Stocks;
use crate::access::Access;
use crate::board::{AlertBoard, SilenceBoard};
use crate::clock::Clock;
use crate::engine::alert::{AlertId, Past};
use crate::engine::{Cause, Effect, Engine, GapRecorded, Liveness, NodeState};
use crate::gate::Gate;
use crate::health::Health;
use crate::orders::{Asked, Order};
use crate::policy::{Policy, SilenceId};
use crate::record::{Event, NodeKey, SessionStart};
use crate::registry::{Registry, What};
use crate::rules::RuleBook;
use crate::stats::Stats;
use crate::stock::KeptStock;
use crate::store::{Control, ControlBatch, GapRow, NewEvent, NodeRow, NodeUpdate, Revoked, StoreError};
use crate::tuning::Tuned;
use crate::view::FleetView;
use crate::writer::Logged;

/// How long the position alone may wait. It bounds what a restart replays.
const POSITION_AFTER_MS: u64 = 5_000;
/// When nodes were last seen and tokens last shown is written so often: a restart asks nodes anew anyway.
const SEEN_AFTER_MS: u64 = 60_000;
/// Gaps and events that may wait for a disk that is full; about 100 bytes each.
const WAITING_MAX: usize = 100_000;
/// The feed and the log of who did what are cut to what is kept so often; a feed that is kept for less, more often.
const DROP_AFTER_MS: u64 = 60_000;
/// How long events are kept when nobody said.
const EVENTS_KEEP_MS: u64 = 30 * 24 * 3_600_000;
/// Inputs that are taken before what they come to is written: what half the queue can hold.
const INPUTS_MAX: usize = 32;

/// What comes to the pipeline.
#[derive(Debug)]
pub enum Input {
    /// Records of the log, in its order.
    Logged(Vec<Logged>),
    Order(Order),
    /// Something happened to the collector itself, and is told in the feed.
    Told(NewEvent),
    /// What was before the start, of series that rules look far back at.
    Past(Vec<Past>),
    /// All of that was told.
    PastEnds,
}

/// What the pipeline tells everybody else.
#[derive(Debug)]
pub struct Outlets {
    pub gate: Arc<Gate>,
    pub access: Arc<Access>,
    pub view: Arc<ArcSwap<FleetView>>,
    pub board: Arc<ArcSwap<AlertBoard>>,
    pub silences: Arc<ArcSwap<SilenceBoard>>,
    pub rules: Arc<ArcSwap<RuleBook>>,
    /// The number of the newest event on disk.
    pub newest_event: watch::Sender<u64>,
}

#[derive(Debug)]
pub struct Pipeline {
    engine: Engine,
    registry: Registry,
    policy: Policy,
    control: Control,
    revoked: Revoked,
    known: KnownNodes,
    counter: Counter,
    waiting: HashMap<NodeKey, NodeUpdate>,
    stocks: Stocks,
    alerts: OpenAlerts,
    /// Which silence alerts are told to be under, and are not on disk to be.
    silenced: HashMap<AlertId, Option<SilenceId>>,
    silences_changed: bool,
    /// Rules that are ordered and not on disk.
    ordered_book: Option<Arc<RuleBook>>,
    /// Receive time of the newest tick.
    ran_at: WallMs,
    /// Something that waits follows from words beside the log.
    is_beside: bool,
    gaps: Vec<GapRow>,
    events: Vec<NewEvent>,
    newcomers: Vec<(NodeKey, NodeId)>,
    /// Some order changed what is shown.
    view_changed: bool,
    written_at: MonoMs,
    seen_at: MonoMs,
    used_at: MonoMs,
    dropped_at: MonoMs,
    outlets: Outlets,
    health: Arc<Health>,
    stats: Arc<Stats>,
    clock: Clock,
    failures: Repeats,
    /// Of the file of revocations.
    behind: Repeats,
    /// The last write failed: what waits is not written before its time.
    is_put_off: bool,
    tuned: Option<Tuned>,
}

impl Pipeline {
    /// `rows` are the nodes as `control` has them.
    pub fn new(
        engine: Engine,
        (control, revoked): (Control, Revoked),
        rows: &[NodeRow],
        (health, stats, clock): (Arc<Health>, Arc<Stats>, Clock),
    ) -> Result<Self, StoreError> {
        health.set_applied(engine.applied());
        let mut registry = control.registry()?;
        // What it called itself when it joined may be long ago.
        rows.iter().filter(|row| row.epoch.is_some()).for_each(|row| registry.named(row.id, &row.name));
        let outlets = Outlets {
            gate: Arc::default(),
            access: Arc::default(),
            view: Arc::default(),
            board: Arc::default(),
            silences: Arc::default(),
            rules: Arc::default(),
            newest_event: watch::Sender::new(control.newest_event()?),
        };
        publish_all(&registry, &outlets.gate, &outlets.access);
        Ok(Self {
            engine,
            registry,
            policy: control.policy(clock.wall())?,
            control,
            revoked,
            known: KnownNodes::restore(rows),
            counter: Counter::default(),
            waiting: HashMap::new(),
            stocks: Stocks::default(),
            alerts: OpenAlerts::default(),
            silenced: HashMap::new(),
            silences_changed: true,
            ordered_book: None,
            ran_at: WallMs(0),
            is_beside: false,
            gaps: Vec::new(),
            events: Vec::new(),
            newcomers: Vec::new(),
            view_changed: true,
            written_at: clock.mono(),
            seen_at: clock.mono(),
            used_at: clock.mono(),
            dropped_at: clock.mono(),
            outlets,
            health,
            stats,
            clock,
            failures: Repeats::default(),
            behind: Repeats::default(),
            is_put_off: false,
            tuned: None,
        })
    }

    /// What it is tuned by from the next tick on.
    #[must_use]
    pub fn tuned_by(self, tuned: Tuned) -> Self {
        Self { tuned: Some(tuned), ..self }
    }

    #[must_use]
    pub const fn outlets(&self) -> &Outlets {
        &self.outlets
    }

    /// Runs until the writer and everybody who may order is gone, then writes what waits.
    pub fn run(mut self, mut queue: mpsc::Receiver<Input>) -> Result<(), StoreError> {
        self.look_at_silences();
        self.show();
        let mut inputs = Vec::with_capacity(INPUTS_MAX);
        while queue.blocking_recv_many(&mut inputs, INPUTS_MAX) > 0 {
            for input in inputs.drain(..) {
                match input {
                    Input::Logged(group) => group.into_iter().try_for_each(|logged| self.apply(logged))?,
                    Input::Order(order) => self.carry_out(order),
                    Input::Told(event) => self.tell(event),
                    Input::Past(past) => self.take_past(&past),
                    Input::PastEnds => self.engine.end_past(),
                }
            }
            self.look_at_silences();
            self.write_if_due()?;
            if std::mem::take(&mut self.view_changed) {
                self.show();
            }
        }
        self.note_used();
        self.note_seen();
        self.write()?;
        self.control.close()
    }

    /// One record of the log, live or replayed. What waits is written when it is much; else with the next `write`.
    pub fn apply(&mut self, logged: Logged) -> Result<(), StoreError> {
        let Logged { pos, record, reading } = logged;
        let at = record.at;
        if matches!(record.event, Event::Tick { .. }) {
            self.view_changed = true;
            self.ran_at = at;
            if let Some(tuned) = &self.tuned {
                self.engine.set_retiring(tuned.load().retiring);
            }
        }
        let effects = match pos {
            Some(pos) => self.engine.apply(pos, &record, reading),
            None => self.engine.apply_unlogged(&record, reading),
        };
        for effect in effects {
            self.follow(at, effect);
        }
        if self.stocks.is_large() && !self.is_put_off { self.write() } else { Ok(()) }
    }

    /// A record that is applied already, as far as functions over time remember it: `back_ms` before the position.
    pub fn remember(&mut self, (back_ms, is_rolled_up): (u64, bool), logged: &Logged) {
        if let (Event::Frame { node, lane: Lane::Live, frame }, Some(reading)) = (&logged.record.event, &logged.reading)
        {
            let ran = MonoMs(self.engine.ran().0.saturating_sub(back_ms));
            self.engine.remember(ran, *node, (frame.id, is_rolled_up), reading);
        }
    }

    /// Writes everything that waits, with the position it follows from.
    pub fn write(&mut self) -> Result<(), StoreError> {
        let now = self.clock.mono();
        self.written_at = now;
        if now.since(self.seen_at) >= SEEN_AFTER_MS {
            self.note_seen();
        }
        if now.since(self.used_at) >= SEEN_AFTER_MS {
            self.note_used();
        }
        let batch = ControlBatch {
            applied_pos: self.engine.applied(),
            nodes: self.waiting.values().cloned().collect(),
            stocks: self.stocks.updates(&self.engine),
            gaps: self.gaps.clone(),
            events: self.events.clone(),
            mass: self.engine.mass(),
            alerts: self.alerts.updates(),
            silenced: self.silenced.iter().map(|(alert, under)| (*alert, *under)).collect(),
            ran: (self.engine.ran(), self.ran_at),
            is_beside: self.is_beside,
        };
        let written = self.add_newcomers().and_then(|()| self.control.apply_with(&batch, &self.counter.ordered));
        match written {
            Ok(applied) => self.stored(&batch, applied),
            Err(error) => self.put_off(error),
        }
    }

    fn stored(&mut self, batch: &ControlBatch, applied: bool) -> Result<(), StoreError> {
        if applied {
            self.waiting.clear();
            self.stocks.stored();
            self.alerts.stored();
            self.is_beside = false;
            self.silenced.clear();
            self.gaps.clear();
            self.events.clear();
            self.health.set_applied(batch.applied_pos);
        }
        self.failures.clear();
        self.is_put_off = false;
        // Whoever hears of an alert finds it as it was told.
        if self.alerts.is_changed() {
            self.show_alerts();
        }
        if applied && !batch.events.is_empty() || !self.counter.ordered.events.is_empty() {
            self.outlets.newest_event.send_replace(self.control.newest_event()?);
        }
        if !self.counter.is_empty() {
            self.let_stand();
            self.rules_stored();
            self.review_silences();
            // Whoever is answered sees what was asked for.
            self.show();
            self.view_changed = false;
            let published = (&*self.outlets.gate, &*self.outlets.access);
            let kept = self.counter.stored(&self.registry, published, &mut self.revoked);
            self.kept_apart(kept)?;
        }
        let kept = self.revoked.append([]);
        self.kept_apart(kept)?;
        let now = self.clock.mono();
        let keep_ms = self.tuned.as_ref().map_or(EVENTS_KEEP_MS, |tuned| tuned.load().events_keep_ms);
        if now.since(self.dropped_at) >= DROP_AFTER_MS.min(keep_ms / 2) {
            self.dropped_at = now;
            self.drop_silences();
            self.control.drop_oldest(self.clock.wall(), keep_ms).or_else(|error| self.put_off(error))?;
        }
        self.control.checkpoint_if_due().or_else(|error| self.put_off(error))
    }

    fn write_if_due(&mut self) -> Result<(), StoreError> {
        let is_quiet = self.waiting.is_empty()
            && self.stocks.is_empty()
            && self.alerts.is_empty()
            && self.silenced.is_empty()
            && self.gaps.is_empty()
            && self.events.is_empty()
            && self.newcomers.is_empty()
            && self.counter.is_empty();
        let late = self.clock.mono().since(self.written_at) >= POSITION_AFTER_MS;
        if !is_quiet || late { self.write() } else { Ok(()) }
    }

    fn add_newcomers(&mut self) -> Result<(), StoreError> {
        if !self.newcomers.is_empty() {
            self.control.restore_nodes(&self.newcomers, None, self.clock.wall())?;
            self.newcomers.clear();
        }
        Ok(())
    }

    /// What is not in the file of revocations yet waits in memory, and stands in `control.db`.
    fn kept_apart(&mut self, kept: Result<(), StoreError>) -> Result<(), StoreError> {
        match kept {
            Ok(()) => self.behind.clear(),
            Err(error @ StoreError::SyncFailed { .. }) => return Err(error),
            Err(error) => {
                if let Some(times) = self.behind.note("revoked") {
                    error!(times, "the file of revocations is behind: {error}");
                }
            }
        }
        Ok(())
    }

    fn put_off(&mut self, error: StoreError) -> Result<(), StoreError> {
        if matches!(error, StoreError::SyncFailed { .. } | StoreError::Damaged { .. }) {
            return Err(error);
        }
        self.is_put_off = true;
        if let Some(times) = self.failures.note("control") {
            error!(times, waiting = self.waiting.len(), "changes wait in memory: {error}");
        }
        if !self.counter.is_empty() {
            self.counter.not_stored(&error.to_string());
            self.registry.read_anew(self.control.registry()?);
            self.unsay()?;
            self.ordered_book = None;
            self.known.changed_all();
            self.view_changed = true;
        }
        let over = self.gaps.len().saturating_sub(WAITING_MAX);
        self.gaps.drain(..over);
        let events_over = self.events.len().saturating_sub(WAITING_MAX);
        self.events.drain(..events_over);
        let alerts_over = self.alerts.drop_beyond(WAITING_MAX);
        self.stats.effects_dropped.add((over + events_over + alerts_over) as u64);
        Ok(())
    }

    /// Which nodes were heard since they were noted last, and up to which frame.
    fn note_seen(&mut self) {
        self.seen_at = self.clock.mono();
        for (node, at) in self.engine.take_seen() {
            let newest = self.engine.newest(node);
            let update = self.update(node);
            (update.last_seen, update.newest) = (Some(at), newest);
        }
    }

    /// Which tokens were shown since they were noted last.
    fn note_used(&mut self) {
        self.used_at = self.clock.mono();
        let used = self.outlets.access.all_used().into_iter();
        let is_news = |(id, at): &(_, _)| self.registry.token(*id).is_some_and(|token| token.last_used < Some(*at));
        let news: Vec<_> = used.filter(is_news).collect();
        news.iter().for_each(|(id, at)| self.registry.used(*id, *at));
        self.counter.ordered.used.extend(news);
    }

    /// Something to tell that follows from no record.
    fn tell(&mut self, event: NewEvent) {
        self.is_beside = true;
        let known = event.node.and_then(|id| self.known.key(id)).map(|node| self.known.name(node));
        // One that has not said Hello yet is called what it was when it joined.
        let joined = || Some(self.registry.member(event.node?)?.name.as_str());
        let name = known.or_else(joined).map(str::to_owned);
        self.events.push(match name {
            Some(name) => feed::named(event, &name),
            None => event,
        });
    }

    fn carry_out(&mut self, order: Order) {
        let Order { actor, asked } = order;
        match asked {
            Asked::Policy(what, ticket) => self.say(&actor, what, ticket),
            Asked::Rules(order, ticket) => self.order_rules(&actor, *order, ticket),
            Asked::Registry(what, ticket) => {
                for id in self.counter.take(&mut self.registry, self.clock.wall(), (actor, what), ticket) {
                    self.known.changed(id);
                }
            }
        }
    }

    /// Tells the engine what the registry now says of the nodes that orders changed.
    fn let_stand(&mut self) {
        let changed: Vec<_> = self.counter.members().collect();
        changed.into_iter().for_each(|id| self.stand(id));
    }

    fn stand(&mut self, id: NodeId) {
        let (Some(node), Some(member)) = (self.known.key(id), self.registry.member(id).cloned()) else { return };
        if member.is_forgotten {
            self.stocks.forget(node);
            let at = self.clock.wall();
            return self.follow_all(at, |engine| engine.forget(at, node));
        }
        let at = self.clock.wall();
        self.introduce(at, node, id);
        for effect in self.engine.set_standing(at, node, standing(&member)) {
            self.follow(at, effect);
        }
        self.review_node(node);
    }

    fn follow(&mut self, at: WallMs, effect: Effect) {
        self.events.extend(feed::event(at, &self.known, &effect));
        match effect {
            Effect::NodeState { node, from, to, since, life, cause } => {
                let update = self.update(node);
                update.state = Some((life.as_str().to_owned(), since));
                if life == Liveness::Up {
                    update.is_retired = Some(false);
                }
                self.turned(node, (from, to), cause);
            }
            Effect::SessionStarted { node, info } => {
                self.session_started(node, info);
                self.introduce_key(at, node);
            }
            Effect::SessionEnded { node, goodbye } => {
                if let Some(goodbye) = goodbye {
                    self.update(node).goodbye = Some((goodbye.epoch, goodbye.next_seq));
                }
            }
            Effect::NodeRestarted { node, from, to } => {
                info!(node = self.known.name(node), from = from.0, to = to.0, "agent runs anew");
            }
            Effect::NodeRewound { node, epoch, seq } => {
                warn!(node = self.known.name(node), epoch = epoch.0, seq = seq.0, "the machine was set back");
            }
            Effect::GapRecorded(gap) => self.gap(at, gap),
            Effect::FactsChanged { node, id, bytes } => {
                self.known.facts_changed(node, &bytes);
                self.update(node).facts = Some((id, bytes));
                self.introduce_key(at, node);
            }
            Effect::StockTold { node, stock, compares, is_late } => {
                self.stock_told(at, node, *stock, (compares, is_late))
            }
            Effect::StockChanged { node, change, builds } => self.stock_changed(at, node, *change, builds),
            Effect::StockKept { node } => self.stocks.note(node),
            Effect::Happened { .. } => {}
            Effect::Noisy { node, count } => {
                warn!(node = self.known.name(node), count, "more happened than is told");
            }
            Effect::InventoryAsked { node } => {
                if let Some(id) = self.known.id(node) {
                    self.outlets.gate.ask_inventory(id);
                }
            }
            Effect::NodeChanged { node, change } => info!(node = self.known.name(node), "{}", change.kind()),
            Effect::MassLoss { nodes, of, .. } => warn!(nodes = nodes.len(), of, "many nodes fell silent at once"),
            Effect::MassGrew { nodes } => warn!(nodes = nodes.len(), "more nodes fell silent"),
            Effect::MassOver { down, .. } => warn!(down = down.len(), "the mass loss is over"),
            Effect::MaintenanceOver { node } => {
                info!(node = self.known.name(node), "the planned downtime is over");
                self.decide(node, What::EndMaintenance);
            }
            Effect::Alert(change) => self.alert(at, &change),
            Effect::Retired { node, is_ephemeral, .. } => {
                info!(node = self.known.name(node), "unseen for so long that it retires");
                self.update(node).is_retired = Some(true);
                if is_ephemeral {
                    self.decide(node, What::Forget);
                }
            }
        }
    }

    /// What happened between two stocks follows from what is on disk, and so from the log as all else does.
    fn stock_told(&mut self, at: WallMs, node: NodeKey, stock: Stock, (compares, is_late): (bool, bool)) {
        let before = self.kept_stock(node);
        let happened = match &before {
            Some(before) if compares => before.happened_until(&stock, at),
            _ => Vec::new(),
        };
        let kept = KeptStock::told(before.as_ref(), stock, at);
        self.keep_stock(node, &kept);
        self.stands(at, node, &kept);
        for effect in self.engine.happened(at, node, happened, is_late) {
            self.follow(at, effect);
        }
    }

    fn stock_changed(&mut self, at: WallMs, node: NodeKey, change: inventory::Change, builds: bool) {
        let kept = self.kept_stock(node).map(|mut kept| {
            let is_good = kept.apply(change, at).is_ok();
            self.keep_stock(node, &kept);
            self.stands(at, node, &kept);
            is_good
        });
        if builds && kept != Some(true) {
            for effect in self.engine.mistrust(node, true) {
                self.follow(at, effect);
            }
        }
    }

    /// What cannot be read is as if it were not there; the next write says whether the file is damaged.
    fn kept_stock(&mut self, node: NodeKey) -> Option<KeptStock> {
        match self.stocks.load(node, &self.control) {
            Ok(kept) => kept,
            Err(error) => {
                if let Some(times) = self.failures.note("stock") {
                    error!(times, node = self.known.name(node), "what stands on a node cannot be read: {error}");
                }
                None
            }
        }
    }

    fn keep_stock(&mut self, node: NodeKey, kept: &KeptStock) {
        if !self.stocks.put(node, kept) {
            self.stats.effects_dropped.one();
            // Asked now, there would be no room for the answer either: the next change asks.
            drop(self.engine.mistrust(node, false));
            self.stocks.note(node);
        }
    }

    /// What follows from the log and is the registry's to decide. Refused is only what is so already.
    fn decide(&mut self, node: NodeKey, what: impl FnOnce(NodeId) -> What) {
        let Some(id) = self.known.id(node) else { return };
        for id in self.counter.take_own(&mut self.registry, self.clock.wall(), what(id)) {
            self.known.changed(id);
        }
    }

    /// A mass loss and a start are logged once and not for each node.
    fn turned(&self, node: NodeKey, (from, to): (NodeState, NodeState), cause: Cause) {
        let name = self.known.name(node);
        let (from, state) = (from.as_str(), to.as_str());
        if from == state || matches!(cause, Cause::Mass | Cause::Started | Cause::Resumed) {
            return;
        }
        if to == NodeState::Down {
            warn!(node = name, from, "node is {state}");
        } else {
            info!(node = name, from, "node is {state}");
        }
    }

    fn session_started(&mut self, node: NodeKey, info: SessionStart) {
        if self.known.session_started(node, &info) {
            self.newcomers.push((node, info.node));
            self.stand(info.node);
        }
        self.registry.seen(info.node, info.boot_id, &info.name);
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
        warn!(node = self.known.name(gap.node), count, span_s, reason, "frames are lost for good");
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

    fn show(&mut self) {
        self.outlets.view.store(Arc::new(self.known.picture(&self.engine, &self.registry)));
        self.alerts.changed();
        self.show_alerts();
        self.show_silences();
    }

    fn show_alerts(&mut self) {
        let before = self.outlets.board.load();
        if let Some(board) = self.alerts.board(&before, (&self.engine, &self.known, &self.policy)) {
            self.outlets.board.store(Arc::new(board));
        }
    }

    fn update(&mut self, node: NodeKey) -> &mut NodeUpdate {
        self.waiting.entry(node).or_insert_with(|| NodeUpdate::of(node))
    }
}
