//! Which session speaks for which node, and what becomes of another one that says it does. Pure.
//!
//! A machine whose agent starts anew takes over at once. Anybody else waits until the live session has
//! shown that it is there, or has not; nothing is admitted of whoever waits.

use std::collections::HashMap;

use dunlin_shared::id::{Epoch, NodeId};
use dunlin_shared::limits::CHALLENGE_MS;
use dunlin_shared::time::MonoMs;
use dunlin_shared::wire::CloseCode;

use crate::writer::SessionId;

/// A machine from its start to its end.
pub(super) type BootId = [u8; 16];

/// Two machines that take turns within this time are not one that started anew.
const ALTERNATION_MS: u64 = 3_600_000;
/// Below this many machines there is nothing to gain by forgetting some.
const SWEEP_MIN: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Claims {
    live: HashMap<NodeId, Live>,
    machines: HashMap<NodeId, Machines>,
    sweep_at: usize,
}

/// Who says that it is the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claimant {
    pub(super) session: SessionId,
    pub(super) boot_id: BootId,
    pub(super) epoch: Epoch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claimed {
    Enters(Entrance),
    /// The live session is challenged; without an answer the newcomer enters at `until`.
    Waits {
        challenged: SessionId,
        nonce: u64,
        until: MonoMs,
        /// One that waited before, and is this machine's too.
        replaced: Option<SessionId>,
    },
    Refused(CloseCode),
}

/// A session is the node's from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entrance {
    pub(super) superseded: Option<SessionId>,
    /// The live one is another than the one that was challenged; this one is now.
    pub(super) challenge: Option<u64>,
    /// Two machines take turns: this is the later one.
    pub(super) alternates: Option<BootId>,
}

/// The live session answered: whoever waits is another machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Impostor {
    pub(super) session: SessionId,
    /// `None` when it cannot be told from the live one by it.
    pub(super) boot_id: Option<BootId>,
}

#[derive(Debug)]
struct Live {
    claimant: Claimant,
    waiting: Option<Box<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    claimant: Claimant,
    nonce: u64,
    until: MonoMs,
}

/// The machine that was live last, since when, and which one was before it.
#[derive(Debug)]
struct Machines {
    last: BootId,
    since: MonoMs,
    before: Option<Box<(BootId, MonoMs)>>,
}

impl Claims {
    pub(super) fn claim(&mut self, now: MonoMs, node: NodeId, claimant: Claimant, nonce: u64) -> Claimed {
        let Some(live) = self.live.get_mut(&node) else {
            self.live.insert(node, Live { claimant, waiting: None });
            let alternates = self.entered(now, node, claimant.boot_id);
            return Claimed::Enters(Entrance { superseded: None, challenge: None, alternates });
        };
        if live.claimant.boot_id == claimant.boot_id && live.claimant.epoch < claimant.epoch {
            let superseded = Some(live.claimant.session);
            live.claimant = claimant;
            // Whoever waits has been challenging a session that is gone.
            let challenge = live.waiting.as_ref().map(|waiting| waiting.nonce);
            return Claimed::Enters(Entrance { superseded, challenge, alternates: None });
        }
        let challenged = live.claimant.session;
        match &mut live.waiting {
            // The same machine once more: what it waited for so far counts.
            Some(waiting) if waiting.claimant.boot_id == claimant.boot_id => {
                let replaced = Some(std::mem::replace(&mut waiting.claimant, claimant).session);
                Claimed::Waits { challenged, nonce: waiting.nonce, until: waiting.until, replaced }
            }
            // One at a time; it comes back when that is decided.
            Some(_) => Claimed::Refused(CloseCode::Overloaded),
            None => {
                let until = now.plus(CHALLENGE_MS);
                live.waiting = Some(Box::new(Waiting { claimant, nonce, until }));
                Claimed::Waits { challenged, nonce, until, replaced: None }
            }
        }
    }

    /// A session answers a challenge. Only the live one's answer counts, and only to the one that stands.
    pub(super) fn present(&mut self, node: NodeId, session: SessionId, nonce: u64) -> Option<Impostor> {
        let live = self.live.get_mut(&node).filter(|live| live.claimant.session == session)?;
        let waiting = live.waiting.take_if(|waiting| waiting.nonce == nonce)?;
        let Claimant { session, boot_id, .. } = waiting.claimant;
        Some(Impostor { session, boot_id: (boot_id != live.claimant.boot_id).then_some(boot_id) })
    }

    /// Whether the one that waits may enter, because its time is up.
    pub(super) fn expired(&mut self, now: MonoMs, node: NodeId, session: SessionId) -> Option<Entrance> {
        let live = self.live.get_mut(&node)?;
        let waiting = live.waiting.take_if(|w| w.claimant.session == session && w.until <= now)?;
        let superseded = Some(std::mem::replace(&mut live.claimant, waiting.claimant).session);
        let alternates = self.entered(now, node, waiting.claimant.boot_id);
        Some(Entrance { superseded, challenge: None, alternates })
    }

    /// A session is over. Who waited for the node enters now, if anybody did.
    pub(super) fn leave(&mut self, now: MonoMs, node: NodeId, session: SessionId) -> Option<(SessionId, Entrance)> {
        let live = self.live.get_mut(&node)?;
        live.waiting.take_if(|waiting| waiting.claimant.session == session);
        if live.claimant.session != session {
            return None;
        }
        let Some(waiting) = live.waiting.take() else {
            self.live.remove(&node);
            return None;
        };
        live.claimant = waiting.claimant;
        let alternates = self.entered(now, node, waiting.claimant.boot_id);
        Some((waiting.claimant.session, Entrance { superseded: None, challenge: None, alternates }))
    }

    /// All sessions that say they are the node.
    pub(super) fn sessions(&self, node: NodeId) -> impl Iterator<Item = SessionId> {
        let waiting = |live: &Live| live.waiting.as_ref().map(|waiting| waiting.claimant.session);
        self.live.get(&node).into_iter().flat_map(move |live| [Some(live.claimant.session), waiting(live)]).flatten()
    }

    /// Remembers which machines were live; the later of two that take turns.
    fn entered(&mut self, now: MonoMs, node: NodeId, boot_id: BootId) -> Option<BootId> {
        let Some(known) = self.machines.get_mut(&node) else {
            self.sweep(now);
            self.machines.insert(node, Machines { last: boot_id, since: now, before: None });
            return None;
        };
        if known.last == boot_id {
            return None;
        }
        let later = std::mem::replace(&mut known.last, boot_id);
        known.since = now;
        // The one before was live until the later one came.
        let before = known.before.replace(Box::new((later, now)))?;
        let returns = before.0 == boot_id && now.since(before.1) <= ALTERNATION_MS;
        returns.then_some(later)
    }

    fn sweep(&mut self, now: MonoMs) {
        if self.machines.len() >= self.sweep_at.max(SWEEP_MIN) {
            let live = &self.live;
            self.machines.retain(|node, known| live.contains_key(node) || now.since(known.since) <= ALTERNATION_MS);
            self.sweep_at = self.machines.len() * 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId::from_bytes([7; 16]);
    const A: BootId = [1; 16];
    const B: BootId = [2; 16];
    const C: BootId = [3; 16];

    fn claimant(session: u64, boot_id: BootId, epoch: u32) -> Claimant {
        Claimant { session: SessionId(session), boot_id, epoch: Epoch(epoch) }
    }

    fn enters(superseded: Option<u64>, challenge: Option<u64>, alternates: Option<BootId>) -> Claimed {
        Claimed::Enters(Entrance { superseded: superseded.map(SessionId), challenge, alternates })
    }

    fn waits(challenged: u64, nonce: u64, until: u64, replaced: Option<u64>) -> Claimed {
        let (challenged, replaced) = (SessionId(challenged), replaced.map(SessionId));
        Claimed::Waits { challenged, nonce, until: MonoMs(until), replaced }
    }

    /// One live session of machine A, in epoch 5.
    fn live() -> Claims {
        let mut claims = Claims::default();
        assert_eq!(claims.claim(MonoMs(0), NODE, claimant(1, A, 5), 0), enters(None, None, None));
        claims
    }

    #[test]
    fn an_agent_that_started_anew_on_its_machine_takes_over_at_once() {
        let mut claims = live();
        assert_eq!(claims.claim(MonoMs(1), NODE, claimant(2, A, 6), 0), enters(Some(1), None, None));
        assert_eq!(claims.leave(MonoMs(2), NODE, SessionId(1)), None, "the one before takes nobody with it");
        assert_eq!(claims.sessions(NODE).collect::<Vec<_>>(), [SessionId(2)]);
    }

    #[test]
    fn another_machine_is_found_out_when_the_live_one_answers() {
        let mut claims = live();
        assert_eq!(claims.claim(MonoMs(1), NODE, claimant(2, B, 6), 9), waits(1, 9, 1 + CHALLENGE_MS, None));
        assert_eq!(claims.present(NODE, SessionId(1), 8), None, "the answer to another question");
        assert_eq!(claims.present(NODE, SessionId(2), 9), None, "nobody speaks for the live one");
        assert_eq!(claims.present(NODE, SessionId(1), 9), Some(Impostor { session: SessionId(2), boot_id: Some(B) }));
        assert_eq!(claims.expired(MonoMs(99_999), NODE, SessionId(2)), None, "it does not enter later");
        assert_eq!(claims.sessions(NODE).collect::<Vec<_>>(), [SessionId(1)]);
    }

    #[test]
    fn a_twin_that_has_the_same_boot_id_does_not_shut_out_the_live_one() {
        let mut claims = live();
        assert_eq!(claims.claim(MonoMs(1), NODE, claimant(2, A, 5), 9), waits(1, 9, 1 + CHALLENGE_MS, None));
        assert_eq!(claims.present(NODE, SessionId(1), 9), Some(Impostor { session: SessionId(2), boot_id: None }));
    }

    #[test]
    fn without_an_answer_the_newcomer_takes_over_when_the_time_is_up() {
        let mut claims = live();
        claims.claim(MonoMs(0), NODE, claimant(2, A, 5), 9);
        assert_eq!(claims.expired(MonoMs(CHALLENGE_MS - 1), NODE, SessionId(2)), None);
        let entrance = claims.expired(MonoMs(CHALLENGE_MS), NODE, SessionId(2)).expect("it waited long enough");
        assert_eq!(entrance.superseded, Some(SessionId(1)));
        assert_eq!(claims.present(NODE, SessionId(1), 9), None, "too late");
    }

    #[test]
    fn when_the_live_session_ends_whoever_waits_enters() {
        let mut claims = live();
        claims.claim(MonoMs(0), NODE, claimant(2, B, 6), 9);
        let (session, entrance) = claims.leave(MonoMs(3), NODE, SessionId(1)).expect("it waited");
        assert_eq!((session, entrance.superseded), (SessionId(2), None));
        assert_eq!(claims.leave(MonoMs(4), NODE, SessionId(2)), None);
        assert_eq!(claims.sessions(NODE).count(), 0);
    }

    #[test]
    fn a_newcomer_that_gives_up_is_forgotten() {
        let mut claims = live();
        claims.claim(MonoMs(0), NODE, claimant(2, B, 6), 9);
        assert_eq!(claims.leave(MonoMs(1), NODE, SessionId(2)), None);
        assert_eq!(claims.present(NODE, SessionId(1), 9), None);
        assert_eq!(claims.leave(MonoMs(2), NODE, SessionId(1)), None);
    }

    #[test]
    fn one_machine_waits_at_a_time_and_may_come_again() {
        let mut claims = live();
        claims.claim(MonoMs(0), NODE, claimant(2, B, 6), 9);
        assert_eq!(claims.claim(MonoMs(5), NODE, claimant(3, B, 6), 8), waits(1, 9, CHALLENGE_MS, Some(2)));
        let refused = Claimed::Refused(CloseCode::Overloaded);
        assert_eq!(claims.claim(MonoMs(6), NODE, claimant(4, C, 6), 7), refused);
        assert_eq!(claims.claim(MonoMs(7), NODE, claimant(5, A, 6), 7), enters(Some(1), Some(9), None), "a new start");
        assert_eq!(claims.present(NODE, SessionId(5), 9).map(|found| found.session), Some(SessionId(3)));
    }

    #[test]
    fn machines_that_take_turns_within_an_hour_are_told_apart() {
        let turn = |claims: &mut Claims, at: u64, session: u64, boot_id| {
            let claimed = claims.claim(MonoMs(at), NODE, claimant(session, boot_id, 1), 0);
            claims.leave(MonoMs(at + 1), NODE, SessionId(session));
            claimed
        };
        let mut claims = Claims::default();
        for (at, session, boot_id) in [(0, 1, A), (10, 2, A), (20, 3, B), (30, 4, C)] {
            assert_eq!(turn(&mut claims, at, session, boot_id), enters(None, None, None), "a machine that is booted");
        }
        assert_eq!(turn(&mut claims, 40, 5, B), enters(None, None, Some(C)));
        let late = 41 + ALTERNATION_MS;
        assert_eq!(turn(&mut claims, late, 6, C), enters(None, None, None), "the hour is over");
    }
}
