//! One order after the other: what it comes to.
//!
//! A refusal changes nothing. What is changed here counts only once the pipeline has stored it.

use std::cmp::Reverse;
use std::sync::Arc;

use dunlin_shared::time::WallMs;

use super::silence::check_text;
use super::{
    Acknowledgement, Answer, Change, Decision, Happened, Policy, Silence, SilenceEdit, SilenceId, SilenceState,
    SilenceWish, What,
};
use crate::engine::alert::AlertId;
use crate::registry::{Actor, Done, Refused};
use crate::shape::Moment;

/// Silences that are not over.
pub(super) const SILENCES_MAX: usize = 10_000;
/// Those that are over are kept for the record for so long, and so many of them.
const KEPT_MS: i64 = 90 * 24 * 3_600_000;
pub(super) const KEPT: usize = 1_000;

/// What one order changes, while it is being carried out.
#[derive(Default)]
struct Work {
    changes: Vec<Change>,
    events: Vec<Happened>,
    log: Option<Done>,
}

impl Policy {
    /// `is_firing` says of which alerts anything may be said.
    pub fn decide(&mut self, now: WallMs, actor: &Actor, what: What, is_firing: impl Fn(AlertId) -> bool) -> Decision {
        let mut work = Work::default();
        let answer = self.carry_out(now, actor, what, &is_firing, &mut work);
        if answer.is_err() {
            work = Work::default();
        }
        self.change(now, &work.changes);
        let Work { changes, events, log } = work;
        Decision { answer, changes, events, log }
    }

    /// What is over for long leaves. The newest stays: its id says which is the next.
    pub fn drop_oldest(&mut self, now: WallMs) -> Vec<Change> {
        let newest = self.silences.last_key_value().map(|(id, _)| *id);
        let over = self.silences.iter().filter(|(_, filed)| filed.silence.standing(now).state == SilenceState::Expired);
        let mut over: Vec<_> = over.map(|(id, filed)| (Reverse(filed.silence.end), *id)).collect();
        over.sort_unstable();
        let is_old = |(at, (Reverse(end), _)): &(usize, (Reverse<Option<WallMs>>, SilenceId))| {
            *at >= KEPT || end.is_some_and(|end| now.since(end) > KEPT_MS)
        };
        let old = over.into_iter().enumerate().filter(is_old).map(|(_, (_, id))| id);
        let changes: Vec<_> = old.filter(|id| Some(*id) != newest).map(|id| Change::Silence(id, None)).collect();
        self.change(now, &changes);
        changes
    }

    fn change(&mut self, now: WallMs, changes: &[Change]) {
        for change in changes.iter().cloned() {
            match change {
                Change::Silence(id, silence) => self.put(now, id, silence.map(Arc::new)),
                Change::Acknowledged(alert, Some(said)) => drop(self.acknowledged.insert(alert, Arc::new(said))),
                Change::Acknowledged(alert, None) => drop(self.acknowledged.remove(&alert)),
            }
        }
    }

    fn carry_out(
        &self,
        now: WallMs,
        actor: &Actor,
        what: What,
        is_firing: &dyn Fn(AlertId) -> bool,
        work: &mut Work,
    ) -> Result<Answer, Refused> {
        match what {
            What::Silence(wish) => return self.create(now, actor, wish, work),
            What::Edit { silence, edit } => self.edit(now, silence, edit, work)?,
            What::Expire(id) => {
                let silence =
                    Silence { end: Some(now), ended_by: Some(actor.name.clone()), ..self.lasting(now, id)?.clone() };
                work.done("silence.expire", id.to_string(), silence.matchers.to_string());
                work.changes.push(Change::Silence(id, Some(silence)));
            }
            What::Acknowledge { alert, why } => {
                check_text("why", &why)?;
                if !is_firing(alert) {
                    return Err(Refused::Conflict(format!(
                        "alert {alert} does not fire; only one that fires is acknowledged"
                    )));
                }
                if let Some(said) = self.acknowledged.get(&alert) {
                    return Err(Refused::Conflict(format!("alert {alert} is acknowledged already, by {}", said.by)));
                }
                work.done("alert.acknowledge", alert.to_string(), why.clone());
                work.acknowledge(now, actor, alert, why);
            }
            What::AcknowledgeAll { alerts, why, chosen } => {
                return self.acknowledge_all((now, actor), alerts, why, chosen, is_firing, work);
            }
            What::Unacknowledge(alert) => {
                if !self.acknowledged.contains_key(&alert) {
                    return Err(Refused::Conflict(format!("alert {alert} is not acknowledged")));
                }
                work.done("alert.unacknowledge", alert.to_string(), String::new());
                work.events.push(Happened { kind: "alert.unacknowledged", alert, why: String::new() });
                work.changes.push(Change::Acknowledged(alert, None));
            }
        }
        Ok(Answer::Done)
    }

    fn create(&self, now: WallMs, actor: &Actor, wish: SilenceWish, work: &mut Work) -> Result<Answer, Refused> {
        let silence = Silence::new(now, &actor.name, wish)?;
        let is_over = |id: &SilenceId| self.lasting(now, *id).is_err();
        if self.silences.len() >= SILENCES_MAX && self.silences.keys().filter(|id| !is_over(id)).count() >= SILENCES_MAX
        {
            let what = format!("there are {SILENCES_MAX} silences already; expire what is not needed any more");
            return Err(Refused::Conflict(what));
        }
        let id = SilenceId(self.silences.last_key_value().map_or(1, |(last, _)| last.0 + 1));
        work.done("silence.create", id.to_string(), format!("{} {}", silence.matchers, lasts(&silence)));
        work.changes.push(Change::Silence(id, Some(silence)));
        Ok(Answer::Silenced(id))
    }

    fn edit(&self, now: WallMs, id: SilenceId, edit: SilenceEdit, work: &mut Work) -> Result<(), Refused> {
        let silence = self.lasting(now, id)?.edited(now, edit)?;
        work.done("silence.edit", id.to_string(), format!("{} {}", silence.matchers, lasts(&silence)));
        work.changes.push(Change::Silence(id, Some(silence)));
        Ok(())
    }

    /// Somebody did one thing, which is one line of the log; each alert has an event. What fires no more, or was
    /// acknowledged meanwhile, stays as it is.
    fn acknowledge_all(
        &self,
        (now, actor): (WallMs, &Actor),
        mut alerts: Vec<AlertId>,
        why: String,
        chosen: String,
        is_firing: &dyn Fn(AlertId) -> bool,
        work: &mut Work,
    ) -> Result<Answer, Refused> {
        check_text("why", &why)?;
        alerts.sort_unstable();
        alerts.dedup();
        alerts.retain(|alert| is_firing(*alert) && !self.acknowledged.contains_key(alert));
        let count = alerts.len();
        if count > 0 {
            let detail = if why.is_empty() { chosen } else { format!("{chosen}: {why}") };
            work.done("alert.acknowledge", format!("{count} alerts"), detail);
        }
        alerts.into_iter().for_each(|alert| work.acknowledge(now, actor, alert, why.clone()));
        Ok(Answer::Acknowledged(count))
    }

    /// One that is not over.
    fn lasting(&self, now: WallMs, id: SilenceId) -> Result<&Silence, Refused> {
        let filed = self.silences.get(&id).ok_or_else(|| Refused::NotFound(format!("silence {id}")))?;
        if filed.silence.standing(now).state == SilenceState::Expired {
            return Err(Refused::Conflict(format!("silence {id} is over; make a new one")));
        }
        Ok(&filed.silence)
    }
}

impl Work {
    fn done(&mut self, action: &str, target: String, detail: String) {
        self.log = Some(Done::new(action, target, detail));
    }

    fn acknowledge(&mut self, now: WallMs, actor: &Actor, alert: AlertId, why: String) {
        self.events.push(Happened { kind: "alert.acknowledged", alert, why: why.clone() });
        let said = Acknowledgement { by: actor.name.clone(), at: now, why };
        self.changes.push(Change::Acknowledged(alert, Some(said)));
    }
}

/// For the log.
fn lasts(silence: &Silence) -> String {
    let weekly = silence.weekly.as_ref().map(|weekly| format!("in {weekly}, "));
    let until = silence.end.map_or(String::from("until it is ended"), |end| format!("until {}", Moment(end)));
    format!("{}{until}: {}", weekly.unwrap_or_default(), silence.reason)
}
