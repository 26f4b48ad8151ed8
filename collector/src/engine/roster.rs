//! Every node's liveness, and how many nodes are in each shown state.
//!
//! `turn` and `stand` are the only places where a state changes, so that counts and effects cannot
//! part from it. Whether a silent node is down is not decided here: `pass` says who is due.

use std::collections::HashSet;

use dunlin_shared::time::{MonoMs, WallMs};

use super::effect::Effect;
use super::liveness::{DOWN_MS, Listening, SUSPECT_MS};
use super::mass::{Tally, WINDOW_MS};
use super::state::{Admission, Cause, Liveness, NodeState, Standing};
use crate::record::{NODES_MAX, NodeKey};

#[derive(Debug, Default)]
pub(super) struct Roster {
    /// By key. Each tick passes over all of them: ten thousand are half a megabyte in order and take
    /// some tens of microseconds, where a queue of deadlines would be touched by every frame.
    lives: Vec<Option<Life>>,
    counts: [usize; NodeState::ALL.len()],
    /// Heard since `take_seen`.
    seen: Vec<NodeKey>,
    /// What they had under way does not bring them back. Never iterated.
    forgotten: HashSet<NodeKey>,
}

#[derive(Clone, Debug)]
pub(super) struct Life {
    /// From here on its silence counts: when it was last heard, or later where it was given more time.
    pub(super) heard: MonoMs,
    /// When its silence let a deadline pass that counts as a loss.
    fell: Option<MonoMs>,
    pub(super) last_seen: WallMs,
    /// Of the shown state.
    pub(super) since: WallMs,
    pub(super) life: Liveness,
    pub(super) shown: NodeState,
    admission: Admission,
    in_maintenance: bool,
    pub(super) is_ephemeral: bool,
    pub(super) is_retired: bool,
    /// Whether it stands in `seen`.
    is_dirty: bool,
}

impl Life {
    pub(super) fn new(life: Liveness, heard: MonoMs, last_seen: WallMs, since: WallMs) -> Self {
        Self {
            heard,
            fell: None,
            last_seen,
            since,
            life,
            shown: NodeState::shown(Admission::Admitted, false, life),
            admission: Admission::Admitted,
            in_maintenance: false,
            is_ephemeral: false,
            is_retired: false,
            is_dirty: false,
        }
    }

    pub(super) const fn with_standing(mut self, standing: Standing) -> Self {
        self.set_standing(standing);
        self.shown = self.state();
        self
    }

    /// Unseen, as far as anybody can tell.
    pub(super) const fn is_gone(&self) -> bool {
        self.is_judged() && matches!(self.life, Liveness::Down | Liveness::Stopped)
    }

    const fn set_standing(&mut self, standing: Standing) {
        self.admission = standing.admission;
        self.in_maintenance = standing.maintenance.is_some();
        self.is_ephemeral = standing.is_ephemeral;
    }

    /// What is to be shown.
    const fn state(&self) -> NodeState {
        NodeState::shown(self.admission, self.in_maintenance, self.life)
    }

    /// Whether its silence says something.
    const fn is_judged(&self) -> bool {
        self.admission.lets_in() && !self.in_maintenance
    }

    /// Silent for a deadline, and nobody was told.
    const fn is_falling(&self) -> bool {
        self.is_judged()
            && self.fell.is_some()
            && matches!(self.life, Liveness::Suspect | Liveness::Unknown | Liveness::Awaited)
    }

    const fn is_missing(&self) -> bool {
        matches!(self.life, Liveness::Missing)
    }
}

impl Roster {
    pub(super) fn restore(&mut self, node: NodeKey, life: Life) {
        let Some(place) = self.place(node) else { return };
        if self.lives[place].is_none() {
            self.counts[life.shown as usize] += 1;
            self.lives[place] = Some(life);
        }
    }

    pub(super) fn get(&self, node: NodeKey) -> Option<&Life> {
        self.lives.get(node.0 as usize)?.as_ref()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = NodeKey> + '_ {
        (0..).map(NodeKey).zip(&self.lives).filter_map(|(key, life)| life.as_ref().map(|_| key))
    }

    pub(super) const fn counts(&self) -> &[usize; NodeState::ALL.len()] {
        &self.counts
    }

    pub(super) fn take_seen(&mut self) -> Vec<(NodeKey, WallMs)> {
        let seen = std::mem::take(&mut self.seen);
        let take = |node: NodeKey| {
            let life = self.lives.get_mut(node.0 as usize)?.as_mut()?;
            life.is_dirty = false;
            Some((node, life.last_seen))
        };
        seen.into_iter().filter_map(take).collect()
    }

    /// Whether the key can be a node's: only a damaged file can hold one that is out of bounds.
    pub(super) fn knows(&self, node: NodeKey) -> bool {
        node.0 < NODES_MAX && !self.forgotten.contains(&node)
    }

    /// A message of it came in; a node that is heard for the first time is unknown until it is turned.
    pub(super) fn alive(&mut self, node: NodeKey, heard: MonoMs, at: WallMs) -> Option<&Life> {
        let place = self.place(node)?;
        let life = self.lives[place].get_or_insert_with(|| {
            self.counts[NodeState::Unknown as usize] += 1;
            Life::new(Liveness::Unknown, heard, at, at)
        });
        life.heard = heard;
        life.last_seen = at;
        if !life.is_dirty {
            life.is_dirty = true;
            self.seen.push(node);
        }
        Some(life)
    }

    pub(super) fn turn(
        &mut self,
        node: NodeKey,
        to: Liveness,
        (at, cause): (WallMs, Cause),
        effects: &mut Vec<Effect>,
    ) {
        if let Some(Some(life)) = self.lives.get_mut(node.0 as usize) {
            turn(&mut self.counts, (node, life), to, (at, cause), effects);
        }
    }

    /// Turns all nodes that `choose` picks, and names them.
    pub(super) fn turn_all(
        &mut self,
        choose: impl Fn(&Life) -> bool,
        to: Liveness,
        (at, cause): (WallMs, Cause),
        effects: &mut Vec<Effect>,
    ) -> Vec<NodeKey> {
        let mut turned = Vec::new();
        for (key, life) in (0..).map(NodeKey).zip(&mut self.lives) {
            if let Some(life) = life.as_mut().filter(|life| choose(life)) {
                turn(&mut self.counts, (key, life), to, (at, cause), effects);
                turned.push(key);
            }
        }
        turned
    }

    /// Who was up is awaited. Without a mass loss to belong to, so is who was missing.
    pub(super) fn started(&mut self, has_mass: bool, at: WallMs, effects: &mut Vec<Effect>) {
        let choose = |life: &Life| match life.life {
            Liveness::Up | Liveness::Suspect => true,
            Liveness::Missing => !has_mass,
            _ => false,
        };
        self.turn_all(choose, Liveness::Awaited, (at, Cause::Started), effects);
    }

    /// Silence makes suspects at once; who is due to be down is named, and how all of them stand.
    pub(super) fn pass(
        &mut self,
        listening: &Listening,
        at: WallMs,
        effects: &mut Vec<Effect>,
    ) -> (Tally, Vec<NodeKey>) {
        let (mut tally, mut due) = (Tally::default(), Vec::new());
        let (now, is_settling) = (listening.now(), listening.is_settling());
        for (key, life) in (0..).map(NodeKey).zip(&mut self.lives) {
            let Some(life) = life.as_mut().filter(|life| life.is_judged()) else { continue };
            if life.life == Liveness::Up {
                if !listening.is_past(life.heard, SUSPECT_MS) {
                    tally.up += 1;
                    continue;
                }
                turn(&mut self.counts, (key, life), Liveness::Suspect, (at, Cause::Silence), effects);
            }
            match life.life {
                Liveness::Suspect | Liveness::Unknown | Liveness::Awaited => {
                    let is_due = listening.is_past(life.heard, DOWN_MS);
                    let has_fallen = is_due || (life.life == Liveness::Suspect && !is_settling);
                    life.fell = has_fallen.then(|| life.fell.unwrap_or(now));
                    tally.silent += usize::from(has_fallen);
                    if is_due {
                        due.push(key);
                    }
                }
                Liveness::Missing => tally.missing += 1,
                Liveness::Up | Liveness::Down | Liveness::Stopped => {}
            }
            tally.fell += usize::from(life.fell.is_some_and(|fell| now.since(fell) < WINDOW_MS));
        }
        (tally, due)
    }

    /// Holds all that are silent, and names them.
    pub(super) fn hold(&mut self, at: WallMs, effects: &mut Vec<Effect>) -> Vec<NodeKey> {
        self.turn_all(Life::is_falling, Liveness::Missing, (at, Cause::Mass), effects)
    }

    /// Those that are held are down, and named.
    pub(super) fn give_up(&mut self, at: WallMs, effects: &mut Vec<Effect>) -> Vec<NodeKey> {
        self.turn_all(Life::is_missing, Liveness::Down, (at, Cause::Mass), effects)
    }

    /// What the registry says of a node. Whoever is judged anew and is not heard gets two deadlines.
    pub(super) fn stand(
        &mut self,
        node: NodeKey,
        standing: Standing,
        (listening, at): (&Listening, WallMs),
        effects: &mut Vec<Effect>,
    ) {
        let Some(place) = self.place(node) else { return };
        let life = self.lives[place].get_or_insert_with(|| {
            self.counts[NodeState::Unknown as usize] += 1;
            Life::new(Liveness::Unknown, listening.with_two_deadlines(), at, at)
        });
        let (was_judged, before) = (life.is_judged(), life.life);
        life.set_standing(standing);
        let is_heard = life.life == Liveness::Up && !listening.is_past(life.heard, SUSPECT_MS);
        if !was_judged && life.is_judged() && life.life != Liveness::Stopped && !is_heard {
            (life.life, life.heard, life.fell) = (Liveness::Unknown, listening.with_two_deadlines(), None);
        } else if was_judged && !life.is_judged() {
            life.fell = None;
            if matches!(life.life, Liveness::Suspect | Liveness::Awaited | Liveness::Missing) {
                life.life = Liveness::Unknown;
            }
        }
        if life.life != before || life.state() != life.shown {
            show(&mut self.counts, (node, life), (at, Cause::Standing), effects);
        }
    }

    /// As if it had never been; nothing brings the key back.
    pub(super) fn forget(&mut self, node: NodeKey) {
        if node.0 < NODES_MAX {
            self.forgotten.insert(node);
        }
        if let Some(life) = self.lives.get_mut(node.0 as usize).and_then(Option::take) {
            self.counts[life.shown as usize] -= 1;
        }
    }

    /// Those of whom `choose` says so retire, once until they are heard again.
    pub(super) fn retire(&mut self, choose: impl Fn(&Life) -> bool, effects: &mut Vec<Effect>) {
        for (node, life) in (0..).map(NodeKey).zip(&mut self.lives) {
            if let Some(life) = life.as_mut().filter(|life| !life.is_retired && choose(life)) {
                life.is_retired = true;
                effects.push(Effect::Retired { node, last_seen: life.last_seen, is_ephemeral: life.is_ephemeral });
            }
        }
    }

    fn place(&mut self, node: NodeKey) -> Option<usize> {
        let place = self.knows(node).then_some(node.0 as usize)?;
        if place >= self.lives.len() {
            self.lives.resize(place + 1, None);
        }
        Some(place)
    }
}

fn turn(
    counts: &mut [usize],
    (node, life): (NodeKey, &mut Life),
    to: Liveness,
    (at, cause): (WallMs, Cause),
    effects: &mut Vec<Effect>,
) {
    if life.life == to {
        return;
    }
    life.life = to;
    life.is_retired &= to != Liveness::Up;
    // Who went down in a mass loss is accounted for, and is no part of the next one.
    if cause == Cause::Mass || !matches!(to, Liveness::Suspect | Liveness::Down) {
        life.fell = None;
    }
    show(counts, (node, life), (at, cause), effects);
}

fn show(
    counts: &mut [usize],
    (node, life): (NodeKey, &mut Life),
    (at, cause): (WallMs, Cause),
    effects: &mut Vec<Effect>,
) {
    let to = life.state();
    let from = std::mem::replace(&mut life.shown, to);
    if from != to {
        life.since = at;
        counts[from as usize] -= 1;
        counts[to as usize] += 1;
    }
    effects.push(Effect::NodeState { node, from, to, since: life.since, life: life.life, cause });
}
