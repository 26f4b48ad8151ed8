//! What is known of the fleet now, and what follows from each record of the log.
//!
//! Deterministic: the same records lead to the same effects. It reads no clock; time comes from the
//! log's ticks. For now it keeps liveness and the latest reading of each node.

mod effect;
mod liveness;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{Epoch, FrameId, Seq};
use dunlin_shared::sample::Reading;
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::{Gap, Goodbye, Lane};
pub use effect::{Effect, GapReason, GapRecorded};
pub use liveness::{DOWN_MS, NodeState, PAUSE_AS_START_MS, SUSPECT_MS};

use self::liveness::Listening;
use crate::record::{EarlierRun, Event, NODES_MAX, NodeKey, Pos, Record, SessionStart};

#[derive(Debug, Default)]
pub struct Engine {
    applied: Pos,
    listening: Listening,
    /// By key. Each tick passes over all of them: ten thousand are half a megabyte in order and
    /// take a tenth of a millisecond, where a queue of deadlines would be touched by every frame.
    life: Vec<Option<Life>>,
    /// By key; what a tick need not look at.
    known: Vec<Known>,
    counts: [usize; NodeState::ALL.len()],
    /// Heard since `take_seen`.
    seen: Vec<NodeKey>,
}

/// A node as `control.db` knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    pub node: NodeKey,
    pub state: NodeState,
    pub since: WallMs,
    pub last_seen: WallMs,
    /// Of its latest run, when it said one.
    pub goodbye: Option<Goodbye>,
    /// The frame that its facts came with.
    pub facts: Option<FrameId>,
}

/// What is said of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeView<'a> {
    pub node: NodeKey,
    pub state: NodeState,
    pub since: WallMs,
    pub last_seen: WallMs,
    pub latest: Option<&'a Arc<Reading>>,
}

#[derive(Clone, Debug)]
struct Life {
    heard: MonoMs,
    last_seen: WallMs,
    since: WallMs,
    state: NodeState,
    /// Whether it stands in `seen`.
    is_dirty: bool,
}

#[derive(Clone, Debug, Default)]
struct Known {
    latest: Option<(FrameId, Arc<Reading>)>,
    facts: Option<FrameId>,
    /// The epoch that was closed, and the number before which it ends.
    goodbye: Option<(Epoch, Seq)>,
}

impl Engine {
    /// As `control.db` has it. What follows in the log is then applied, and at last `Started`.
    #[must_use]
    pub fn restore(applied: Pos, nodes: impl IntoIterator<Item = Restored>) -> Self {
        let mut engine = Self { applied, ..Self::default() };
        for node in nodes {
            let Some(at) = engine.place(node.node) else { continue };
            if engine.life[at].is_some() {
                continue;
            }
            let Restored { state, since, last_seen, .. } = node;
            engine.life[at] = Some(Life { heard: MonoMs(0), last_seen, since, state, is_dirty: false });
            engine.counts[state as usize] += 1;
            engine.known[at].facts = node.facts;
            engine.known[at].goodbye = node.goodbye.map(|goodbye| (goodbye.epoch, goodbye.next_seq));
        }
        engine
    }

    /// What follows from the record. Those up to the last one applied are passed over, so that a
    /// replay may begin too early. `reading` is what a frame of values holds.
    pub fn apply(&mut self, pos: Pos, record: &Record, reading: Option<Arc<Reading>>) -> Vec<Effect> {
        if pos <= self.applied {
            return Vec::new();
        }
        self.applied = pos;
        self.apply_unlogged(record, reading)
    }

    /// The same for what could not be logged: liveness goes on while the disk is full. A restart
    /// forgets it.
    pub fn apply_unlogged(&mut self, record: &Record, reading: Option<Arc<Reading>>) -> Vec<Effect> {
        let mut effects = Vec::new();
        let at = record.at;
        match &record.event {
            Event::Tick { elapsed_ms, paused_ms } => {
                self.listening.tick(at, *elapsed_ms, *paused_ms);
                self.pass(at, &mut effects, |listening, life| listening.judge(life.state, life.heard));
            }
            Event::Started => self.started(at, &mut effects),
            Event::Frame { node, lane, frame } => {
                self.heard(*node, at, Some(frame.id.epoch), &mut effects);
                self.frame(*node, *lane, frame, reading, &mut effects);
            }
            Event::Hello { node, session } => self.hello(*node, at, session, &mut effects),
            Event::Heartbeat { node } => self.heard(*node, at, None, &mut effects),
            Event::Gap { node, gap } => {
                self.heard(*node, at, Some(gap.epoch), &mut effects);
                effects.push(Effect::GapRecorded(said(*node, gap)));
            }
            Event::Goodbye { node, goodbye } => self.goodbye(*node, at, *goodbye, &mut effects),
            Event::Lost { node } => effects.push(Effect::SessionEnded { node: *node, goodbye: None }),
        }
        effects
    }

    #[must_use]
    pub const fn applied(&self) -> Pos {
        self.applied
    }

    #[must_use]
    pub fn latest(&self, node: NodeKey) -> Option<&Arc<Reading>> {
        self.known.get(node.0 as usize)?.latest.as_ref().map(|(_, reading)| reading)
    }

    #[must_use]
    pub fn node(&self, node: NodeKey) -> Option<NodeView<'_>> {
        let life = self.life.get(node.0 as usize)?.as_ref()?;
        let Life { state, since, last_seen, .. } = *life;
        Some(NodeView { node, state, since, last_seen, latest: self.latest(node) })
    }

    /// By key.
    pub fn nodes(&self) -> impl Iterator<Item = NodeView<'_>> {
        (0..).zip(&self.life).filter_map(|(key, _)| self.node(NodeKey(key)))
    }

    /// How many nodes are in each state.
    pub fn counts(&self) -> impl Iterator<Item = (NodeState, usize)> + '_ {
        NodeState::ALL.into_iter().zip(self.counts)
    }

    /// Nodes heard since the last call, and when.
    pub fn take_seen(&mut self) -> Vec<(NodeKey, WallMs)> {
        let seen = std::mem::take(&mut self.seen);
        let take = |node: NodeKey| {
            let life = self.life.get_mut(node.0 as usize)?.as_mut()?;
            life.is_dirty = false;
            Some((node, life.last_seen))
        };
        seen.into_iter().filter_map(take).collect()
    }

    /// Nobody is connected any more. Who was is unknown until heard, or until its deadline.
    fn started(&mut self, at: WallMs, effects: &mut Vec<Effect>) {
        self.listening.started();
        self.pass(at, effects, |_, life| match life.state {
            NodeState::Up | NodeState::Suspect => NodeState::Unknown,
            other => other,
        });
    }

    /// Brings every node into the state that `judge` gives it, by key.
    fn pass(&mut self, at: WallMs, effects: &mut Vec<Effect>, judge: impl Fn(&Listening, &Life) -> NodeState) {
        for (key, life) in (0..).zip(&mut self.life) {
            let Some(life) = life else { continue };
            let to = judge(&self.listening, life);
            if to != life.state {
                let from = std::mem::replace(&mut life.state, to);
                life.since = at;
                self.counts[from as usize] -= 1;
                self.counts[to as usize] += 1;
                effects.push(Effect::NodeState { node: NodeKey(key), from, to, since: at });
            }
        }
    }

    /// Any message is life. Only one of a later run brings back a node that said goodbye: what it
    /// had under way may arrive after that.
    fn heard(&mut self, node: NodeKey, at: WallMs, epoch: Option<Epoch>, effects: &mut Vec<Effect>) {
        let Some(place) = self.place(node) else { return };
        let ended = self.known[place].goodbye.map(|(epoch, _)| epoch);
        let life = self.alive(node, place, at);
        if life.state != NodeState::Stopped || epoch.is_some_and(|epoch| ended.is_none_or(|ended| epoch > ended)) {
            self.turn(node, place, at, NodeState::Up, effects);
        }
    }

    fn hello(&mut self, node: NodeKey, at: WallMs, session: &SessionStart, effects: &mut Vec<Effect>) {
        let Some(place) = self.place(node) else { return };
        let last_seen = self.life[place].as_ref().map_or(at, |life| life.last_seen);
        self.alive(node, place, at);
        self.turn(node, place, at, NodeState::Up, effects);
        effects.push(Effect::SessionStarted { node, info: session.clone() });
        if let Some(run) = session.before {
            effects.push(Effect::NodeRestarted { node, from: run.epoch, to: session.epoch });
            let ended = self.known[place].goodbye.filter(|(epoch, _)| *epoch == run.epoch).map(|(_, seq)| seq);
            let ended = ended.or(run.ended);
            effects.extend(lost_with(node, &run, ended, last_seen, at).map(Effect::GapRecorded));
        }
        self.known[place].goodbye = None;
    }

    fn goodbye(&mut self, node: NodeKey, at: WallMs, goodbye: Goodbye, effects: &mut Vec<Effect>) {
        let Some(place) = self.place(node) else { return };
        self.alive(node, place, at);
        self.turn(node, place, at, NodeState::Stopped, effects);
        self.known[place].goodbye = Some((goodbye.epoch, goodbye.next_seq));
        effects.push(Effect::SessionEnded { node, goodbye: Some(goodbye) });
    }

    fn frame(
        &mut self,
        node: NodeKey,
        lane: Lane,
        frame: &Frame,
        reading: Option<Arc<Reading>>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(place) = self.place(node) else { return };
        let known = &mut self.known[place];
        if frame.kind == BodyKind::Inventory {
            if known.facts.is_none_or(|before| before < frame.id) {
                known.facts = Some(frame.id);
                effects.push(Effect::FactsChanged { node, id: frame.id, bytes: frame.body.clone() });
            }
        } else if lane == Lane::Live
            && let Some(reading) = reading
            && known.latest.as_ref().is_none_or(|(before, _)| *before < frame.id)
        {
            known.latest = Some((frame.id, reading));
        }
    }

    /// `None` for a key that only a damaged file can hold.
    fn place(&mut self, node: NodeKey) -> Option<usize> {
        let place = (node.0 < NODES_MAX).then_some(node.0 as usize)?;
        if place >= self.life.len() {
            self.life.resize(place + 1, None);
            self.known.resize(place + 1, Known::default());
        }
        Some(place)
    }

    fn alive(&mut self, node: NodeKey, place: usize, at: WallMs) -> &Life {
        let heard = self.listening.at(at);
        let life = self.life[place].get_or_insert_with(|| {
            self.counts[NodeState::Unknown as usize] += 1;
            Life { heard, last_seen: at, since: at, state: NodeState::Unknown, is_dirty: false }
        });
        life.heard = heard;
        life.last_seen = at;
        if !life.is_dirty {
            life.is_dirty = true;
            self.seen.push(node);
        }
        life
    }

    fn turn(&mut self, node: NodeKey, place: usize, at: WallMs, to: NodeState, effects: &mut Vec<Effect>) {
        let Some(life) = self.life[place].as_mut() else { return };
        if life.state != to {
            let from = std::mem::replace(&mut life.state, to);
            life.since = at;
            self.counts[from as usize] -= 1;
            self.counts[to as usize] += 1;
            effects.push(Effect::NodeState { node, from, to, since: at });
        }
    }
}

fn said(node: NodeKey, gap: &Gap) -> GapRecorded {
    GapRecorded {
        node,
        epoch: gap.epoch,
        first: gap.range.first,
        last: Some(gap.range.last),
        count: Some(gap.range.count()),
        from: gap.from,
        to: gap.to,
        reason: gap.reason.into(),
    }
}

/// What the agent took with it. Nothing, when it said goodbye and every number before it is there.
fn lost_with(
    node: NodeKey,
    run: &EarlierRun,
    ended: Option<Seq>,
    last_seen: WallMs,
    at: WallMs,
) -> Option<GapRecorded> {
    let next = run.last.map_or(Seq(0), Seq::next);
    // Behind an outage the newest goes first: what is missing may lie before the highest number.
    let first = if run.count < next.0 { Seq(0) } else { next };
    let (last, count) = match ended {
        Some(end) if run.count >= end.0 => return None,
        Some(end) => (Some(Seq(end.0 - 1)), Some(end.0 - run.count)),
        None => (None, None),
    };
    Some(GapRecorded {
        node,
        epoch: run.epoch,
        first,
        last,
        count,
        from: last_seen,
        to: at,
        reason: GapReason::AgentRestart,
    })
}
