//! Orders: decided one after the other, answered once they are on disk.

use std::sync::Arc;

use dunlin_shared::id::NodeId;
use dunlin_shared::time::WallMs;
use dunlin_shared::wire::CloseCode;
use serde_json::{Map, Value};

use crate::access::{Access, Grant, hash_of};
use crate::clock::Clock;
use crate::gate::{Entry, Gate};
use crate::orders::{Order, Ticket};
use crate::registry::{Actor, Admission, Answer, Change, Happened, Luck, Member, Refused, Registry, Role, Token, What};
use crate::store::{NewEvent, NewLogEntry, Ordered};

/// Orders that are decided and not on disk yet.
#[derive(Debug, Default)]
pub(super) struct Counter {
    pub(super) ordered: Ordered,
    /// What the collector itself asked for has no ticket.
    answers: Vec<(Option<Ticket>, Answer)>,
    evicted: Vec<(NodeId, CloseCode)>,
}

impl Counter {
    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Decides one; what is refused is answered at once. Gives back whose picture changes.
    pub(super) fn take(&mut self, registry: &mut Registry, now: WallMs, order: Order) -> Vec<NodeId> {
        let Order { actor, what, ticket } = order;
        self.decide(registry, now, (actor, what), Some(ticket))
    }

    /// The same for what follows from the log.
    pub(super) fn take_own(&mut self, registry: &mut Registry, now: WallMs, what: What) -> Vec<NodeId> {
        self.decide(registry, now, (Actor::collector(), what), None)
    }

    fn decide(
        &mut self,
        registry: &mut Registry,
        now: WallMs,
        (actor, what): (Actor, What),
        ticket: Option<Ticket>,
    ) -> Vec<NodeId> {
        let Some(luck) = luck() else {
            answer(ticket, Err(Refused::NotNow(String::from("the system gives no random numbers"))));
            return Vec::new();
        };
        let decision = registry.decide(now, &luck, &actor, what);
        let answered = match decision.answer {
            Ok(answer) => answer,
            Err(refused) => {
                answer(ticket, Err(refused));
                return Vec::new();
            }
        };
        let changed = decision.changes.iter().filter_map(member_of).collect();
        self.ordered.changes.extend(decision.changes);
        self.ordered.events.extend(decision.events.into_iter().map(|happened| event(now, &actor.name, happened)));
        self.ordered.log.extend(decision.log.map(|done| NewLogEntry {
            at: now,
            actor: actor.name.clone(),
            token: actor.token,
            from: actor.from.map(|from| from.to_string()).unwrap_or_default(),
            action: done.action,
            target: done.target,
            detail: done.detail,
        }));
        self.evicted.extend(decision.evicted);
        self.answers.push((ticket, answered));
        changed
    }

    /// Whose rows are on disk with this.
    pub(super) fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.ordered.changes.iter().filter_map(member_of)
    }

    /// Everything is on disk: it counts from now on.
    pub(super) fn stored(&mut self, registry: &Registry, gate: &Gate, access: &Access) {
        let Self { ordered, answers, evicted } = std::mem::take(self);
        let mut members = Vec::new();
        let mut tokens_changed = false;
        for change in ordered.changes {
            match change {
                Change::Member(id, member) => members.push((id, Some(entry(&member)))),
                Change::Token(..) => tokens_changed = true,
            }
        }
        gate.set(members);
        evicted.into_iter().for_each(|(node, code)| gate.evict(node, code));
        if tokens_changed {
            publish(registry, access);
        }
        answers.into_iter().for_each(|(ticket, answered)| answer(ticket, Ok(answered)));
    }

    /// Nothing of it was stored; the registry is to be read anew.
    pub(super) fn not_stored(&mut self, why: &str) {
        for (ticket, _) in std::mem::take(self).answers {
            answer(ticket, Err(Refused::NotNow(why.to_owned())));
        }
    }
}

/// What the uplink and the API may ask, as the registry has it.
pub(super) fn publish_all(registry: &Registry, gate: &Gate, access: &Access) {
    gate.set(registry.members().map(|(id, member)| (id, Some(entry(member)))));
    publish(registry, access);
}

const fn member_of(change: &Change) -> Option<NodeId> {
    match change {
        Change::Member(id, _) => Some(*id),
        Change::Token(..) => None,
    }
}

fn answer(ticket: Option<Ticket>, answer: Result<Answer, Refused>) {
    if let Some(ticket) = ticket {
        ticket.answer(answer);
    }
}

fn publish(registry: &Registry, access: &Access) {
    let grants = registry.tokens().filter(|(_, token)| !token.is_deleted && token.role != Role::Join);
    let grant = |(id, token): (_, &Token)| {
        let (name, labels) = (token.name.clone(), token.labels.clone());
        (token.secret, Arc::new(Grant { token: id, name, role: token.role, labels, expires: token.expires }))
    };
    access.publish(grants.map(grant).collect());
}

fn entry(member: &Member) -> Entry {
    Entry {
        key: member.key,
        admission: if member.is_forgotten { Admission::Revoked } else { member.admission },
        quarantined: member.quarantined.iter().map(|machine| machine.boot_id).collect(),
    }
}

fn event(at: WallMs, by: &str, happened: Happened) -> NewEvent {
    let Happened { kind, node, detail } = happened;
    let mut body: Map<_, _> = detail.into_iter().map(|(key, text)| (key.to_owned(), Value::String(text))).collect();
    body.insert(String::from("by"), Value::String(by.to_owned()));
    NewEvent { at, kind, node: Some(node), body: Value::Object(body).to_string() }
}

fn luck() -> Option<Luck> {
    let (node, secret) = (Clock::random()?, Clock::random()?);
    Some(Luck { node, secret, secret_hash: hash_of(&secret) })
}
