//! Orders: decided one after the other, answered once they are on disk.

use std::sync::Arc;

use dunlin_shared::id::NodeId;
use dunlin_shared::time::WallMs;
use dunlin_shared::wire::CloseCode;
use serde_json::{Map, Value};

use crate::access::{Access, Grant, hash_of};
use crate::clock::Clock;
use crate::gate::{Entry, Gate};
use crate::orders::Ticket;
use crate::policy;
use crate::registry::{
    Actor, Admission, Answer, Change, Done, Happened, Luck, Member, Refused, Registry, Revocation, Role, Token, What,
};
use crate::rules::NamedSet;
use crate::store::{NewEvent, NewLogEntry, Ordered, Revoked, StoreError};

/// Orders that are decided and not on disk yet.
#[derive(Debug, Default)]
pub(super) struct Counter {
    pub(super) ordered: Ordered,
    decided: Vec<Decided>,
    /// What people said about alerts.
    said: Vec<(Ticket<policy::Answer>, policy::Answer)>,
    /// Who asked for other rules.
    ruled: Vec<Ticket<()>>,
    evicted: Vec<(NodeId, CloseCode)>,
}

#[derive(Debug)]
struct Decided {
    /// What the collector itself asked for has none.
    ticket: Option<Ticket<Answer>>,
    answer: Answer,
    /// Whom a person shut out: it also stands in a file of its own before the answer.
    revoked: Vec<Revocation>,
}

impl Counter {
    pub(super) fn is_empty(&self) -> bool {
        self.decided.is_empty()
            && self.said.is_empty()
            && self.ruled.is_empty()
            && self.ordered.used.is_empty()
            && self.ordered.said.is_empty()
    }

    /// Decides one; what is refused is answered at once. Gives back whose picture changes.
    pub(super) fn take(
        &mut self,
        registry: &mut Registry,
        now: WallMs,
        asked: (Actor, What),
        ticket: Ticket<Answer>,
    ) -> Vec<NodeId> {
        self.decide(registry, now, asked, Some(ticket))
    }

    /// The same for what follows from the log.
    pub(super) fn take_own(&mut self, registry: &mut Registry, now: WallMs, what: What) -> Vec<NodeId> {
        self.decide(registry, now, (Actor::collector(), what), None)
    }

    /// What was decided about alerts, with what the feed tells of it.
    pub(super) fn take_said(
        &mut self,
        now: WallMs,
        actor: &Actor,
        (changes, events, log): (Vec<policy::Change>, Vec<NewEvent>, Option<Done>),
        (ticket, answer): (Ticket<policy::Answer>, policy::Answer),
    ) {
        self.ordered.said.extend(changes);
        self.ordered.events.extend(events);
        self.ordered.log.extend(log.map(|done| entry_of(now, actor, done)));
        self.said.push((ticket, answer));
    }

    /// Another set of rules, with what the feed and the log tell of it.
    pub(super) fn take_rules(
        &mut self,
        now: WallMs,
        actor: &Actor,
        (set, event, done): ((String, Option<Arc<NamedSet>>), Option<NewEvent>, Done),
        ticket: Ticket<()>,
    ) {
        self.ordered.rule_sets.push(set);
        self.ordered.events.extend(event);
        self.ordered.log.push(entry_of(now, actor, done));
        self.ruled.push(ticket);
    }

    fn decide(
        &mut self,
        registry: &mut Registry,
        now: WallMs,
        (actor, what): (Actor, What),
        ticket: Option<Ticket<Answer>>,
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
        let by_person = decision.changes.iter().filter(|_| ticket.is_some());
        let revoked = by_person.filter_map(|change| revocation(now, change)).collect();
        add(&mut self.ordered, now, &actor, (decision.changes, decision.events, decision.log));
        self.evicted.extend(decision.evicted);
        self.decided.push(Decided { ticket, answer: answered, revoked });
        changed
    }

    /// Whose rows are on disk with this.
    pub(super) fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.ordered.changes.iter().filter_map(member_of)
    }

    /// Everything is on disk: it counts from now on. An error says that the file of revocations is behind.
    pub(super) fn stored(
        &mut self,
        registry: &Registry,
        (gate, access): (&Gate, &Access),
        file: &mut Revoked,
    ) -> Result<(), StoreError> {
        let Self { ordered, decided, said, ruled, evicted } = std::mem::take(self);
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
        let kept = file.append(decided.iter().flat_map(|decided| &decided.revoked).copied());
        if matches!(kept, Err(StoreError::SyncFailed { .. })) {
            return kept;
        }
        said.into_iter().for_each(|(ticket, said)| ticket.answer(Ok(said)));
        ruled.into_iter().for_each(|ticket| ticket.answer(Ok(())));
        for Decided { ticket, answer: said, revoked } in decided {
            match &kept {
                Err(error) if !revoked.is_empty() => {
                    let why = format!("it is shut out, and would be back if control.db were lost: {error}");
                    answer(ticket, Err(Refused::NotNow(why)));
                }
                _ => answer(ticket, Ok(said)),
            }
        }
        kept
    }

    /// Nothing of it was stored; the registry is to be read anew.
    pub(super) fn not_stored(&mut self, why: &str) {
        let Self { decided, said, ruled, .. } = std::mem::take(self);
        for decided in decided {
            answer(decided.ticket, Err(Refused::NotNow(why.to_owned())));
        }
        said.into_iter().for_each(|(ticket, _)| ticket.answer(Err(Refused::NotNow(why.to_owned()))));
        ruled.into_iter().for_each(|ticket| ticket.answer(Err(Refused::NotNow(why.to_owned()))));
    }
}

/// What the uplink and the API may ask, as the registry has it.
pub(super) fn publish_all(registry: &Registry, gate: &Gate, access: &Access) {
    gate.set(registry.members().map(|(id, member)| (id, Some(entry(member)))));
    publish(registry, access);
}

/// What a decision adds to `control.db`.
pub(crate) fn add(
    ordered: &mut Ordered,
    now: WallMs,
    actor: &Actor,
    (changes, events, log): (Vec<Change>, Vec<Happened>, Option<Done>),
) {
    ordered.changes.extend(changes);
    ordered.events.extend(events.into_iter().map(|happened| event(now, &actor.name, happened)));
    ordered.log.extend(log.map(|done| entry_of(now, actor, done)));
}

fn entry_of(now: WallMs, actor: &Actor, done: Done) -> NewLogEntry {
    NewLogEntry {
        at: now,
        actor: actor.name.clone(),
        token: actor.token,
        from: actor.from.map(|from| from.to_string()).unwrap_or_default(),
        action: done.action,
        target: done.target,
        detail: done.detail,
        refused: done.refused,
        times: done.times,
    }
}

fn revocation(now: WallMs, change: &Change) -> Option<Revocation> {
    match change {
        Change::Member(node, member) if member.admission == Admission::Revoked => {
            Some(Revocation::of(now, *node, member))
        }
        Change::Member(..) | Change::Token(..) => None,
    }
}

const fn member_of(change: &Change) -> Option<NodeId> {
    match change {
        Change::Member(id, _) => Some(*id),
        Change::Token(..) => None,
    }
}

fn answer(ticket: Option<Ticket<Answer>>, answer: Result<Answer, Refused>) {
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
