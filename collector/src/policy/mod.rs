//! What people said of alerts, beside the rules: silences and acknowledgements.
//!
//! Pure: an order comes in with the time, and out come an answer and what is to be stored. The pipeline owns it, and reads
//! it anew from `control.db` when that could not be stored. Neither a silence nor an acknowledgement changes an alert: both
//! are said beside it, and a silence ends by the clock whether anybody looks or not.

mod decide;
mod index;
mod matchers;
mod silence;
#[cfg(test)]
mod tests;
mod weekly;
mod what;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use dunlin_shared::time::WallMs;
pub use matchers::{Facts, MATCHERS_MAX, Matchers};
pub use silence::{REASON_BYTES_MAX, Silence, SilenceEdit, SilenceId, SilenceState, SilenceWish, Standing};
pub use weekly::{Days, WINDOWS_MAX, Weekly, Window, Zone};
pub use what::{Acknowledgement, Answer, What};

use self::index::Index;
use crate::engine::alert::AlertId;
use crate::registry::{Done, Refused};

/// Above so many that changed, each alert is looked at anew: to compare it with all of those would take longer.
const TOUCHED_MAX: usize = 32;

#[derive(Debug, Default)]
pub struct Policy {
    silences: BTreeMap<SilenceId, Filed>,
    /// Of those that are not over.
    index: Index,
    acknowledged: HashMap<AlertId, Arc<Acknowledgement>>,
    /// Which silence each alert was told to be under.
    silenced: HashMap<AlertId, SilenceId>,
    /// When silences may become active or not.
    due: BTreeSet<(WallMs, SilenceId)>,
    looked: WallMs,
    /// What changed since alerts were reviewed.
    touched: BTreeSet<SilenceId>,
}

/// A silence, and how it was at a moment.
#[derive(Debug)]
struct Filed {
    silence: Arc<Silence>,
    at: WallMs,
    standing: Standing,
}

/// What an order comes to.
#[derive(Debug)]
pub struct Decision {
    pub answer: Result<Answer, Refused>,
    pub changes: Vec<Change>,
    pub events: Vec<Happened>,
    pub log: Option<Done>,
}

/// A row as it is from now on; `None` when it is there no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Silence(SilenceId, Option<Silence>),
    Acknowledged(AlertId, Option<Acknowledgement>),
}

/// For the feed, about an alert that fires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    pub kind: &'static str,
    pub alert: AlertId,
    pub why: String,
}

/// An alert that is under another silence than it was told to be, or under none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turned {
    pub alert: AlertId,
    pub from: Option<SilenceId>,
    pub to: Option<SilenceId>,
}

/// Which alerts are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reviewed {
    /// Those that something changed for; all alerts are there.
    Touched,
    /// Each of those that are there.
    All,
}

impl Policy {
    /// As `control.db` has it. What alerts are told to be under may be long ago: they are all to be reviewed.
    #[must_use]
    pub fn restore(
        now: WallMs,
        silences: impl IntoIterator<Item = (SilenceId, Silence)>,
        acknowledged: impl IntoIterator<Item = (AlertId, Acknowledgement)>,
        silenced: impl IntoIterator<Item = (AlertId, SilenceId)>,
    ) -> Self {
        let acknowledged = acknowledged.into_iter().map(|(alert, said)| (alert, Arc::new(said))).collect();
        let silenced = silenced.into_iter().collect();
        let mut policy = Self { acknowledged, silenced, looked: now, ..Self::default() };
        silences.into_iter().for_each(|(id, silence)| policy.put(now, id, Some(Arc::new(silence))));
        policy
    }

    #[must_use]
    pub fn silence(&self, id: SilenceId) -> Option<&Silence> {
        self.silences.get(&id).map(|filed| &*filed.silence)
    }

    /// By id, and so by age.
    pub fn silences(&self) -> impl Iterator<Item = (SilenceId, &Arc<Silence>)> {
        self.silences.iter().map(|(id, filed)| (*id, &filed.silence))
    }

    #[must_use]
    pub fn acknowledgement(&self, alert: AlertId) -> Option<&Arc<Acknowledgement>> {
        self.acknowledged.get(&alert)
    }

    /// Which silence the alert was told to be under.
    #[must_use]
    pub fn silenced(&self, alert: AlertId) -> Option<SilenceId> {
        self.silenced.get(&alert).copied()
    }

    /// Which silence such an alert is under, the oldest of several.
    #[must_use]
    pub fn silence_of(&self, now: WallMs, alert: &Facts<'_>) -> Option<SilenceId> {
        let mut oldest: Option<SilenceId> = None;
        for id in self.index.candidates(alert) {
            if oldest.is_none_or(|oldest| id < oldest)
                && let Some(filed) = self.silences.get(&id)
                && filed.silence.matchers.fit(alert)
                && filed.is_active(now)
            {
                oldest = Some(id);
            }
        }
        oldest
    }

    /// When `look` is to be called next.
    #[must_use]
    pub fn next_change(&self) -> Option<WallMs> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Time passed: silences that became active or ceased to be. A clock that went back makes all of them be looked at.
    pub fn look(&mut self, now: WallMs) {
        let ids: Vec<_> = if now < self.looked {
            self.silences.keys().copied().collect()
        } else {
            self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect()
        };
        self.looked = now;
        ids.into_iter().for_each(|id| self.stand(now, id));
    }

    /// Whether alerts are to be reviewed.
    #[must_use]
    pub fn is_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// An alert fires, or is reworded: which silence it is under from now on.
    pub fn fired(&mut self, now: WallMs, alert: AlertId, facts: &Facts<'_>) -> Option<SilenceId> {
        let under = self.silence_of(now, facts);
        self.mark(alert, under);
        under
    }

    /// It does not fire any more, and nothing is said of it.
    pub fn resolved(&mut self, alert: AlertId) {
        self.mark(alert, None);
        self.acknowledged.remove(&alert);
    }

    /// Which alerts are under another silence than they were told to be; they are told so from now on.
    pub fn review<'a>(
        &mut self,
        now: WallMs,
        which: Reviewed,
        alerts: impl IntoIterator<Item = (AlertId, Facts<'a>)>,
    ) -> Vec<Turned> {
        let touched = if which == Reviewed::Touched { std::mem::take(&mut self.touched) } else { BTreeSet::new() };
        let is_all = which == Reviewed::All || touched.len() > TOUCHED_MAX;
        let mut turned = Vec::new();
        for (alert, facts) in alerts {
            let from = self.silenced(alert);
            let is_touched = |id: &SilenceId| {
                from == Some(*id) || self.silences.get(id).is_some_and(|filed| filed.silence.matchers.fit(&facts))
            };
            if !is_all && !touched.iter().any(is_touched) {
                continue;
            }
            let to = self.silence_of(now, &facts);
            if from != to {
                self.mark(alert, to);
                turned.push(Turned { alert, from, to });
            }
        }
        turned
    }

    /// Takes what is stored, and keeps which silence alerts were told to be under.
    pub fn read_anew(&mut self, stored: Self, is_firing: impl Fn(AlertId) -> bool) {
        let silenced = std::mem::take(&mut self.silenced);
        *self = Self { silenced, ..stored };
        self.acknowledged.retain(|alert, _| is_firing(*alert));
        // What is not there any more may be what an alert was told to be under.
        self.touched.extend(self.silenced.values());
    }

    fn mark(&mut self, alert: AlertId, under: Option<SilenceId>) {
        match under {
            Some(id) => self.silenced.insert(alert, id),
            None => self.silenced.remove(&alert),
        };
    }

    fn put(&mut self, now: WallMs, id: SilenceId, silence: Option<Arc<Silence>>) {
        if let Some(filed) = self.silences.remove(&id) {
            self.forget(id, &filed);
        }
        if let Some(silence) = silence {
            self.index.file(id, &silence.matchers);
            let standing = silence.standing(now);
            self.silences.insert(id, Filed { silence, at: now, standing });
            self.stand(now, id);
        }
        self.touched.insert(id);
    }

    /// How a silence is now, and when it is to be looked at again.
    fn stand(&mut self, now: WallMs, id: SilenceId) {
        let Some(mut filed) = self.silences.remove(&id) else { return };
        self.forget(id, &filed);
        let standing = filed.silence.standing(now);
        if standing.state != filed.standing.state {
            self.touched.insert(id);
        }
        filed.standing = standing;
        filed.at = now;
        self.due.extend(standing.until.map(|until| (until, id)));
        if standing.state != SilenceState::Expired {
            self.index.file(id, &filed.silence.matchers);
        }
        self.silences.insert(id, filed);
    }

    fn forget(&mut self, id: SilenceId, filed: &Filed) {
        self.index.remove(id);
        if let Some(until) = filed.standing.until {
            self.due.remove(&(until, id));
        }
    }
}

impl Filed {
    /// What was found holds for a while; whoever asks of another moment finds it anew.
    fn is_active(&self, now: WallMs) -> bool {
        if now >= self.at && self.standing.until.is_none_or(|until| now < until) {
            return self.standing.state == SilenceState::Active;
        }
        self.silence.is_active(now)
    }
}
