//! One order after the other: what it comes to.
//!
//! A refusal changes nothing. What is changed here counts only once the pipeline has stored it.

use std::collections::BTreeMap;

use dunlin_shared::id::NodeId;
use dunlin_shared::time::WallMs;
use dunlin_shared::wire::CloseCode;
use dunlin_shared::wire::join::JoinReason;

use super::member::{check_label, check_labels, no_node};
use super::token::NoUse;
use super::{
    Actor, Admission, Answer, Change, Decision, Done, Happened, JoinWish, KeyHash, Luck, Machine, Maintenance, Member,
    Refused, Registry, Token, TokenId, TokenWish, What,
};
use crate::shape::Moment;

/// What one order changes, while it is being carried out.
#[derive(Default)]
struct Work {
    changes: Vec<Change>,
    events: Vec<Happened>,
    log: Option<Done>,
    evicted: Vec<(NodeId, CloseCode)>,
}

impl Registry {
    pub fn decide(&mut self, now: WallMs, luck: &Luck, actor: &Actor, what: What) -> Decision {
        let mut work = Work::default();
        let answer = self.carry_out(now, luck, actor, what, &mut work);
        if answer.is_err() {
            work = Work::default();
        }
        for change in &work.changes {
            match change.clone() {
                Change::Member(id, member) => self.put_member(id, member),
                Change::Token(id, token) => self.put_token(id, token),
            }
        }
        let Work { changes, events, log, evicted } = work;
        Decision { answer, changes, events, log, evicted }
    }

    fn carry_out(
        &self,
        now: WallMs,
        luck: &Luck,
        actor: &Actor,
        what: What,
        work: &mut Work,
    ) -> Result<Answer, Refused> {
        match what {
            What::Join(wish) => return self.join(now, luck, wish, work),
            What::CreateToken(wish) => return self.create_token(now, luck, actor, wish, work),
            What::Stranger { node, key, name } => self.stranger(now, node, key, name, work)?,
            What::Quarantine { node, boot_id, name } => {
                let mut member = self.known(node)?.clone();
                // It came again before the word that it is kept out had reached the door.
                if !member.quarantined.iter().any(|machine| machine.boot_id == boot_id) {
                    work.happened("node.quarantined", node, [("name", name.clone()), ("boot_id", hex(&boot_id))]);
                    work.done("node.quarantine", node.to_string(), name.clone());
                    member.quarantine(Machine { boot_id, name, since: now });
                    work.changes.push(Change::Member(node, member));
                }
            }
            What::NoteRefused { action, target, why, times } => {
                work.log = Some(Done { refused: Some(why), times, ..Done::new(&action, target, String::new()) });
            }
            What::DeleteToken(id) => {
                let token = self.tokens.get(&id).filter(|token| !token.is_deleted);
                let mut token = token.ok_or_else(|| Refused::NotFound(format!("token {id}")))?.clone();
                token.is_deleted = true;
                work.done("token.delete", id.to_string(), token.name.clone());
                work.changes.push(Change::Token(id, token));
            }
            What::Revoke { node, why } => self.revoke(node, &why, work)?,
            What::Approve(node) => self.approve(node, work)?,
            What::ApproveAll { nodes, waits, detail } => return Ok(self.approve_all(&nodes, waits, detail, work)),
            What::Adopt(node) => self.adopt(now, node, work)?,
            What::Label { node, labels } => self.label(node, labels, work)?,
            What::Maintain { node, until, reason } => self.maintain(now, node, (until, reason), work)?,
            What::EndMaintenance(node) => {
                let mut member = self.known(node)?.clone();
                if member.maintenance.take().is_none() {
                    return Err(Refused::Conflict(format!("node {node} is not in maintenance")));
                }
                work.happened("node.maintenance_ended", node, []);
                work.done("node.end_maintenance", node.to_string(), String::new());
                work.changes.push(Change::Member(node, member));
            }
            What::Forget(node) => self.forget(node, work)?,
            What::Note { action, target } => work.done(&action, target, String::new()),
        }
        Ok(Answer::Done)
    }

    /// The key decides: a known one gets its node again, and spends nothing.
    fn join(&self, now: WallMs, luck: &Luck, wish: JoinWish, work: &mut Work) -> Result<Answer, Refused> {
        if let Some(node) = self.by_key.get(&wish.key) {
            let member = self.known(*node)?;
            if member.admission == Admission::Revoked {
                return Err(refuse(JoinReason::RevokedNode));
            }
            return Ok(Answer::Joined { node: *node, is_approved: member.admission == Admission::Approved });
        }
        let secret = wish.token.ok_or_else(|| refuse(JoinReason::NoToken))?;
        let id = *self.by_secret.get(&secret).ok_or_else(|| refuse(JoinReason::UnknownToken))?;
        let mut token = self.tokens.get(&id).ok_or_else(|| refuse(JoinReason::UnknownToken))?.clone();
        token.spend(now).map_err(|NoUse { reason, retry_after_ms }| Refused::Join { reason, retry_after_ms })?;
        let node = NodeId::v7(now.0.unsigned_abs(), luck.node);
        let admission = if token.needs_approval { Admission::Pending } else { Admission::Approved };
        let member = Member {
            token: Some(id),
            token_labels: token.labels.clone(),
            is_ephemeral: token.is_ephemeral,
            ..Member::new(Some(wish.key), wish.name, admission, now)
        };
        let is_approved = member.admission == Admission::Approved;
        let state = member.admission.as_str().to_owned();
        work.happened("node.enrolled", node, [("name", member.name.clone()), ("admission", state)]);
        work.done("node.enrol", node.to_string(), format!("{} by token {id}", member.name));
        work.changes.extend([Change::Member(node, member), Change::Token(id, token)]);
        Ok(Answer::Joined { node, is_approved })
    }

    fn create_token(
        &self,
        now: WallMs,
        luck: &Luck,
        actor: &Actor,
        wish: TokenWish,
        work: &mut Work,
    ) -> Result<Answer, Refused> {
        let id = TokenId(self.tokens.last_key_value().map_or(1, |(last, _)| last.0 + 1));
        let token = Token::new(now, &actor.name, wish, luck.secret_hash)?;
        work.done("token.create", id.to_string(), format!("{} {}", token.role.as_str(), token.name));
        work.changes.push(Change::Token(id, token));
        Ok(Answer::Token { id, secret: luck.secret })
    }

    fn stranger(&self, now: WallMs, node: NodeId, key: KeyHash, name: String, work: &mut Work) -> Result<(), Refused> {
        if self.members.contains_key(&node) || self.by_key.contains_key(&key) {
            return Err(Refused::Conflict(format!("node {node} is known")));
        }
        if !self.holds_strangers {
            return Err(no_node(node));
        }
        work.happened("node.held", node, [("name", name.clone())]);
        work.done("node.hold", node.to_string(), name.clone());
        work.changes.push(Change::Member(node, Member::new(Some(key), name, Admission::Held, now)));
        Ok(())
    }

    fn revoke(&self, node: NodeId, why: &str, work: &mut Work) -> Result<(), Refused> {
        let mut member = self.known(node)?.clone();
        if member.admission == Admission::Revoked {
            return Err(Refused::Conflict(format!("node {node} is revoked already")));
        }
        member.admission = Admission::Revoked;
        work.happened("node.revoked", node, [("name", member.name.clone()), ("why", why.to_owned())]);
        work.done("node.revoke", node.to_string(), why.to_owned());
        work.evicted.push((node, CloseCode::Revoked));
        work.changes.push(Change::Member(node, member));
        Ok(())
    }

    fn approve(&self, node: NodeId, work: &mut Work) -> Result<(), Refused> {
        let mut member = self.known(node)?.clone();
        match member.admission {
            Admission::Pending | Admission::Held => {}
            Admission::Approved => return Err(Refused::Conflict(format!("node {node} is approved already"))),
            Admission::Revoked => {
                let way = "a revoked node comes back only with a new key and a join token";
                return Err(Refused::Conflict(format!("node {node} is revoked; {way}")));
            }
        }
        member.admission = Admission::Approved;
        work.happened("node.approved", node, [("name", member.name.clone())]);
        work.done("node.approve", node.to_string(), member.name.clone());
        work.changes.push(Change::Member(node, member));
        Ok(())
    }

    /// Somebody did one thing, which is one line of the log; each node has an event, since who follows one
    /// node waits for it. Who was approved or revoked meanwhile stays as it is.
    fn approve_all(&self, nodes: &[NodeId], waits: Admission, detail: String, work: &mut Work) -> Answer {
        debug_assert!(matches!(waits, Admission::Held | Admission::Pending), "nobody else waits");
        let waiting = nodes.iter().filter_map(|node| Some((*node, self.known(*node).ok()?)));
        let waiting = waiting.filter(|(_, member)| member.admission == waits);
        for (node, member) in waiting {
            work.happened("node.approved", node, [("name", member.name.clone())]);
            work.changes.push(Change::Member(node, Member { admission: Admission::Approved, ..member.clone() }));
        }
        let count = work.changes.len();
        if count > 0 {
            work.done("node.approve", format!("{count} nodes"), detail);
        }
        Answer::Approved(count)
    }

    /// The machine that was kept out is the right one: whoever is live now is kept out instead.
    fn adopt(&self, now: WallMs, node: NodeId, work: &mut Work) -> Result<(), Refused> {
        let mut member = self.known(node)?.clone();
        if member.quarantined.is_empty() {
            return Err(Refused::Conflict(format!("no machine is kept out of node {node}")));
        }
        member.quarantined.clear();
        if let Some((boot_id, name)) = self.live.get(&node) {
            member.quarantine(Machine { boot_id: *boot_id, name: name.clone(), since: now });
        }
        work.happened("node.adopted", node, [("name", member.name.clone())]);
        work.done("node.adopt", node.to_string(), member.name.clone());
        work.evicted.push((node, CloseCode::Quarantined));
        work.changes.push(Change::Member(node, member));
        Ok(())
    }

    fn label(&self, node: NodeId, labels: BTreeMap<String, Option<String>>, work: &mut Work) -> Result<(), Refused> {
        let mut member = self.known(node)?.clone();
        for (key, value) in &labels {
            check_label(key, value.as_deref().unwrap_or_default())?;
            match value {
                Some(value) => member.operator_labels.insert(key.clone(), value.clone()),
                None => member.operator_labels.remove(key),
            };
        }
        check_labels(&member.operator_labels)?;
        let said = |(key, value): (&String, &Option<String>)| match value {
            Some(value) => format!("{key}={value}"),
            None => format!("{key}-"),
        };
        work.done("node.label", node.to_string(), labels.iter().map(said).collect::<Vec<_>>().join(" "));
        work.changes.push(Change::Member(node, member));
        Ok(())
    }

    fn maintain(
        &self,
        now: WallMs,
        node: NodeId,
        (until, reason): (Option<WallMs>, String),
        work: &mut Work,
    ) -> Result<(), Refused> {
        let mut member = self.known(node)?.clone();
        if until.is_some_and(|until| until <= now) {
            return Err(Refused::Invalid(String::from("the maintenance would be over at once")));
        }
        member.maintenance = Some(Maintenance { until });
        let until = until.map(|until| Moment(until).to_string());
        let mut detail = vec![("name", member.name.clone())];
        detail.extend(until.clone().map(|until| ("until", until)));
        let mut said = until.map_or(String::from("until it is ended"), |until| format!("until {until}"));
        if !reason.is_empty() {
            said = format!("{said}: {reason}");
            detail.push(("reason", reason));
        }
        work.events.push(Happened { kind: "node.maintenance", node, detail });
        work.done("node.maintain", node.to_string(), said);
        work.changes.push(Change::Member(node, member));
        Ok(())
    }

    fn forget(&self, node: NodeId, work: &mut Work) -> Result<(), Refused> {
        let mut member = self.known(node)?.clone();
        member.admission = Admission::Revoked;
        member.is_forgotten = true;
        work.happened("node.forgotten", node, [("name", member.name.clone())]);
        work.done("node.forget", node.to_string(), member.name.clone());
        work.evicted.push((node, CloseCode::Revoked));
        work.changes.push(Change::Member(node, member));
        Ok(())
    }

    fn known(&self, node: NodeId) -> Result<&Member, Refused> {
        self.members.get(&node).filter(|member| !member.is_forgotten).ok_or_else(|| no_node(node))
    }
}

impl Work {
    fn happened<const N: usize>(&mut self, kind: &'static str, node: NodeId, detail: [(&'static str, String); N]) {
        self.events.push(Happened { kind, node, detail: detail.into() });
    }

    fn done(&mut self, action: &str, target: String, detail: String) {
        self.log = Some(Done::new(action, target, detail));
    }
}

const fn refuse(reason: JoinReason) -> Refused {
    Refused::Join { reason, retry_after_ms: 0 }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
