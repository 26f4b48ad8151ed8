//! What is known of the fleet now, and what follows from each record of the log.
//!
//! Deterministic: the same records, and the same words of the registry between them, lead to the same
//! effects. It reads no clock; time comes from the log's ticks. It keeps liveness, what hosts are, and
//! the latest reading of each node.

pub mod alert;
mod effect;
mod gap;
mod host;
mod liveness;
mod mass;
mod restored;
mod retire;
mod roster;
mod standing;
mod state;
mod stock;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{Epoch, FrameId, Seq};
use dunlin_shared::inventory::Inventory;
use dunlin_shared::sample::Reading;
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::{Goodbye, Lane};
pub use effect::Effect;
pub use gap::{GapReason, GapRecorded};
pub use host::{Change, Size};
pub use liveness::{DOWN_MS, PAUSE_AS_START_MS, SUSPECT_MS};
pub use mass::MassUnderWay;
pub use restored::Restored;
pub use retire::Retiring;
pub use state::{Admission, Cause, Liveness, Maintenance, NodeState, Standing};
pub use stock::{Noise, StockMark, StockState};
pub use watch::InventoryRows;
use watch::effects_of;

use self::alert::Alerts;
use self::host::Host;
use self::liveness::Listening;
use self::mass::{Mass, Verdict};
use self::retire::Calendar;
use self::roster::{Life, Roster};
use self::standing::Standings;
use self::stock::Told;
use crate::record::{Event, NodeKey, Pos, Record, SessionStart};

#[derive(Debug, Default)]
pub struct Engine {
    applied: Pos,
    listening: Listening,
    roster: Roster,
    mass: Mass,
    standings: Standings,
    calendar: Calendar,
    /// By key; what a tick need not look at.
    known: Vec<Known>,
    /// Of nodes that told too much; few.
    noise: BTreeMap<NodeKey, Noise>,
    alerts: Alerts,
    /// Nodes that are silent together.
    missing: usize,
    /// For how long the collector itself stood still since it started.
    paused_ms: u64,
}

/// What is said of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeView<'a> {
    pub node: NodeKey,
    pub state: NodeState,
    pub since: WallMs,
    pub last_seen: WallMs,
    pub latest: Option<&'a Arc<Reading>>,
    /// Unseen for so long that it is taken for gone.
    pub is_retired: bool,
}

#[derive(Clone, Debug, Default)]
struct Known {
    /// The newest live frame of values. What it held is gone for a node that was silent over a start.
    newest: Option<FrameId>,
    latest: Option<(FrameId, Arc<Reading>)>,
    facts: Option<FrameId>,
    /// The epoch that was closed, and the number before which it ends.
    goodbye: Option<(Epoch, Seq)>,
    /// The run of which it was told what was before it.
    told: Option<Epoch>,
    host: Option<Box<Host>>,
    stock: StockMark,
}

impl Engine {
    /// As `control.db` has it. What follows in the log is then applied, and at last `Started`.
    #[must_use]
    pub fn restore(applied: Pos, nodes: impl IntoIterator<Item = Restored>) -> Self {
        let mut engine = Self { applied, ..Self::default() };
        for restored in nodes {
            let node = restored.node;
            if engine.roster.knows(node) && engine.roster.get(node).is_none() {
                engine.standings.set(node, restored.standing);
                engine.roster.restore(node, restored.to_life());
                engine.noise.extend(restored.stock.and_then(|(_, noise)| noise).map(|noise| (node, noise)));
                *engine.known(node) = restored.into_known();
            }
        }
        engine
    }

    /// For how long it had listened at its last tick, and when that was received.
    #[must_use]
    pub fn with_ran(mut self, ran: MonoMs, at: WallMs) -> Self {
        self.listening = Listening::resumed(ran, at);
        self
    }

    /// The mass loss that was under way.
    #[must_use]
    pub fn with_mass(mut self, saved: Option<MassUnderWay>) -> Self {
        if let Some(saved) = saved {
            self.mass = Mass::resumed(saved, self.listening.now());
        }
        self
    }

    pub const fn set_retiring(&mut self, rule: Retiring) {
        self.calendar.set_rule(rule);
    }

    /// What follows from the record. Those up to the last one applied are passed over, so that a
    /// replay may begin too early. `reading` is what a frame of values holds.
    pub fn apply(&mut self, pos: Pos, record: &Record, reading: Option<Arc<Reading>>) -> Vec<Effect> {
        if pos <= self.applied {
            return Vec::new();
        }
        self.applied = pos;
        self.take(record, reading, true)
    }

    /// The same for what could not be logged: liveness goes on while the disk is full. A restart
    /// forgets it.
    pub fn apply_unlogged(&mut self, record: &Record, reading: Option<Arc<Reading>>) -> Vec<Effect> {
        self.take(record, reading, false)
    }

    /// What the registry says of a node, whole; said again it changes nothing. A node that the
    /// registry admits and that is silent is down after two deadlines.
    pub fn set_standing(&mut self, at: WallMs, node: NodeKey, standing: Standing) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.roster.knows(node) {
            self.standings.set(node, standing);
            self.roster.stand(node, standing, (&self.listening, at), &mut effects);
            self.watch_states(at, &mut effects);
        }
        effects
    }

    /// The node leaves for good: its key is never given again, and what it had under way is passed over.
    pub fn forget(&mut self, at: WallMs, node: NodeKey) -> Vec<Effect> {
        self.standings.set(node, Standing::default());
        self.roster.forget(node);
        self.noise.remove(&node);
        if let Some(known) = self.known.get_mut(node.0 as usize) {
            *known = Known::default();
        }
        let changes = self.alerts.forget(self.now(at), node);
        effects_of(changes)
    }

    #[must_use]
    pub const fn applied(&self) -> Pos {
        self.applied
    }

    /// For `control.db`, with each position: what `with_mass` takes.
    #[must_use]
    pub const fn mass(&self) -> Option<MassUnderWay> {
        self.mass.under_way(self.listening.now())
    }

    #[must_use]
    pub fn latest(&self, node: NodeKey) -> Option<&Arc<Reading>> {
        self.known.get(node.0 as usize)?.latest.as_ref().map(|(_, reading)| reading)
    }

    /// The frame of values that was measured last, of those that came live.
    #[must_use]
    pub fn newest(&self, node: NodeKey) -> Option<FrameId> {
        self.known.get(node.0 as usize)?.newest
    }

    #[must_use]
    pub fn standing(&self, node: NodeKey) -> Standing {
        self.standings.of(node)
    }

    #[must_use]
    pub fn node(&self, node: NodeKey) -> Option<NodeView<'_>> {
        let Life { shown, since, last_seen, is_retired, .. } = *self.roster.get(node)?;
        Some(NodeView { node, state: shown, since, last_seen, latest: self.latest(node), is_retired })
    }

    /// By key.
    pub fn nodes(&self) -> impl Iterator<Item = NodeView<'_>> {
        self.roster.keys().filter_map(|node| self.node(node))
    }

    /// How many nodes are in each state.
    pub fn counts(&self) -> impl Iterator<Item = (NodeState, usize)> + '_ {
        NodeState::ALL.into_iter().zip(*self.roster.counts())
    }

    /// Nodes heard since the last call, and when.
    pub fn take_seen(&mut self) -> Vec<(NodeKey, WallMs)> {
        self.roster.take_seen()
    }

    fn take(&mut self, record: &Record, reading: Option<Arc<Reading>>, is_logged: bool) -> Vec<Effect> {
        let mut effects = Vec::new();
        let at = record.at;
        if record.event.node().is_some_and(|node| !self.roster.knows(node)) {
            return effects;
        }
        match &record.event {
            Event::Tick { elapsed_ms, paused_ms } => {
                self.paused_ms = self.paused_ms.saturating_add(*paused_ms);
                self.tick(at, (*elapsed_ms, *paused_ms), &mut effects);
            }
            Event::Load(load) => self.watch_load(at, *load, &mut effects),
            Event::Busy { permille } => self.watch_busy(at, *permille, &mut effects),
            Event::Started => self.started(at, &mut effects),
            Event::Frame { node, lane, frame } => {
                self.heard(*node, at, Some(frame.id.epoch), &mut effects);
                match frame.kind {
                    BodyKind::Inventory => self.inventory(*node, (at, *lane, is_logged), frame, &mut effects),
                    BodyKind::Key | BodyKind::Delta { .. } => {
                        // How it is comes first: what a node that was down sends is judged as of one that is up.
                        self.watch_states(at, &mut effects);
                        self.read(*node, (at, *lane), frame.id, reading, &mut effects);
                        return effects;
                    }
                }
            }
            Event::Hello { node, session } => self.hello(*node, at, session, &mut effects),
            Event::Heartbeat { node } => self.heard(*node, at, None, &mut effects),
            Event::Gap { node, gap } => {
                self.heard(*node, at, Some(gap.epoch), &mut effects);
                effects.push(Effect::GapRecorded(GapRecorded::told(*node, gap)));
            }
            Event::Goodbye { node, goodbye } => self.goodbye(*node, at, *goodbye, &mut effects),
            Event::Lost { node } => effects.push(Effect::SessionEnded { node: *node, goodbye: None }),
            Event::Rewound { node, epoch, seq } => {
                effects.push(Effect::NodeRewound { node: *node, epoch: *epoch, seq: *seq });
            }
        }
        self.watch_states(at, &mut effects);
        if let Event::Tick { .. } = record.event {
            self.watch_tick(at, &mut effects);
        }
        effects
    }

    fn tick(&mut self, at: WallMs, (elapsed_ms, paused_ms): (u64, u64), effects: &mut Vec<Effect>) {
        self.listening.tick(at, elapsed_ms, paused_ms);
        while let Some((node, standing)) = self.standings.next_over(at) {
            effects.push(Effect::MaintenanceOver { node });
            self.roster.stand(node, standing, (&self.listening, at), effects);
        }
        self.judge(at, effects);
        if self.calendar.tick(at, elapsed_ms, self.listening.now()) {
            self.roster.retire(|life| self.calendar.retires(&self.listening, life), effects);
        }
        self.tell_noise(at, effects);
    }

    /// Who is silent is suspect, then down: by itself, or with the many that fell silent with it.
    fn judge(&mut self, at: WallMs, effects: &mut Vec<Effect>) {
        let (tally, due) = self.roster.pass(&self.listening, at, effects);
        match self.mass.judge((self.listening.now(), at), self.listening.is_settling(), tally) {
            Verdict::Wait => {}
            Verdict::Single => {
                for node in due {
                    self.roster.turn(node, Liveness::Down, (at, Cause::Silence), effects);
                }
            }
            Verdict::Begin { of, since } => {
                let nodes = self.roster.hold(at, effects);
                effects.push(Effect::MassLoss { nodes, of, since });
            }
            Verdict::Join if due.is_empty() => {}
            Verdict::Join => {
                for &node in &due {
                    self.roster.turn(node, Liveness::Missing, (at, Cause::Mass), effects);
                }
                effects.push(Effect::MassGrew { nodes: due });
            }
            Verdict::End { since } => {
                for &node in &due {
                    self.roster.turn(node, Liveness::Down, (at, Cause::Mass), effects);
                }
                let mut down = due;
                down.extend(self.roster.give_up(at, effects));
                down.sort_unstable();
                effects.push(Effect::MassOver { down, since });
            }
        }
    }

    /// Nobody is connected any more. Who was is unknown until heard, or until its deadline.
    fn started(&mut self, at: WallMs, effects: &mut Vec<Effect>) {
        self.listening.started();
        self.mass.started();
        self.calendar.started(at, self.listening.now());
        self.roster.started(self.mass().is_some(), at, effects);
        self.stocks_started();
    }

    /// Any message is life. Only one of a later run brings back a node that said goodbye: what it
    /// had under way may arrive after that.
    fn heard(&mut self, node: NodeKey, at: WallMs, epoch: Option<Epoch>, effects: &mut Vec<Effect>) {
        let ended = self.known(node).goodbye.map(|(epoch, _)| epoch);
        let Some(life) = self.roster.alive(node, self.listening.at(at), at) else { return };
        let is_back = epoch.is_some_and(|epoch| ended.is_none_or(|ended| epoch > ended));
        if life.life != Liveness::Stopped || is_back {
            let cause = if life.life == Liveness::Awaited { Cause::Resumed } else { Cause::Heard };
            self.roster.turn(node, Liveness::Up, (at, cause), effects);
        }
    }

    fn hello(&mut self, node: NodeKey, at: WallMs, session: &SessionStart, effects: &mut Vec<Effect>) {
        let before = self.roster.get(node).map(|life| life.last_seen);
        let last_seen = before.unwrap_or(at);
        let ended = self.known(node).goodbye.take();
        // Before all that follows: it says who the node is.
        effects.push(Effect::SessionStarted { node, info: session.clone() });
        self.alerts.identify(node, session.node);
        self.heard(node, at, Some(session.epoch), effects);
        let changes = self.known(node).host().greeted(&session.name, session.boot_id);
        effects.extend(changes.into_iter().map(|change| Effect::NodeChanged { node, change }));
        // A Hello that could not be stored comes again until it is, before whatever the node says.
        let is_told = self.known(node).told.replace(session.epoch) == Some(session.epoch);
        if let Some(run) = session.before.filter(|_| !is_told) {
            effects.push(Effect::NodeRestarted { node, from: run.epoch, to: session.epoch });
            let ended = ended.filter(|(epoch, _)| *epoch == run.epoch).map(|(_, seq)| seq).or(run.ended);
            effects.extend(GapRecorded::lost_with(node, &run, ended, (last_seen, at)).map(Effect::GapRecorded));
        }
        self.stock_greeted(node, session, before.is_some(), effects);
        self.watch_skew(node, at, session.skew_ms, effects);
    }

    fn goodbye(&mut self, node: NodeKey, at: WallMs, goodbye: Goodbye, effects: &mut Vec<Effect>) {
        if self.roster.alive(node, self.listening.at(at), at).is_some() {
            self.roster.turn(node, Liveness::Stopped, (at, Cause::Goodbye), effects);
            self.known(node).goodbye = Some((goodbye.epoch, goodbye.next_seq));
            effects.push(Effect::SessionEnded { node, goodbye: Some(goodbye) });
        }
    }

    /// What was not logged is sent again, and its items are taken then. Facts say the same however often.
    fn inventory(
        &mut self,
        node: NodeKey,
        (at, lane, is_logged): (WallMs, Lane, bool),
        frame: &Frame,
        effects: &mut Vec<Effect>,
    ) {
        // What a later version sends and this one cannot read is kept in the log, and is no change.
        let Ok(inventory) = Inventory::decode(&frame.body) else { return };
        let Inventory::Facts(facts) = inventory else {
            if is_logged {
                let told = Told { at, id: frame.id, is_late: lane == Lane::Backlog };
                self.stock_told(node, told, inventory, effects);
            }
            return;
        };
        let known = self.known(node);
        if known.facts.is_none_or(|before| before < frame.id) {
            known.facts = Some(frame.id);
            effects.push(Effect::FactsChanged { node, id: frame.id, bytes: frame.body.clone() });
            let changes = known.host().described(&facts);
            effects.extend(changes.into_iter().map(|change| Effect::NodeChanged { node, change }));
        }
    }

    fn read(
        &mut self,
        node: NodeKey,
        (at, lane): (WallMs, Lane),
        id: FrameId,
        reading: Option<Arc<Reading>>,
        effects: &mut Vec<Effect>,
    ) {
        let known = self.known(node);
        if lane == Lane::Live
            && let Some(reading) = reading
            && known.newest.is_none_or(|before| before < id)
        {
            (known.newest, known.latest) = (Some(id), Some((id, Arc::clone(&reading))));
            let now = self.now(at);
            effects.extend(effects_of(self.alerts.frame(now, node, id, &reading)));
        }
    }

    /// Of a key that the roster knows, and that is within bounds therefore.
    fn known(&mut self, node: NodeKey) -> &mut Known {
        let place = node.0 as usize;
        if place >= self.known.len() {
            self.known.resize(place + 1, Known::default());
        }
        &mut self.known[place]
    }
}

impl Known {
    fn host(&mut self) -> &mut Host {
        self.host.get_or_insert_default()
    }
}
