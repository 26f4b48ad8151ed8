//! The life of one alert: pending, firing, resolved. Pure, and the only place where that is decided.
//!
//! Every alert that fired is resolved once, by whatever ends it. One that comes and goes is kept open until it is quiet,
//! so that it is told once and not each time.

use std::sync::Arc;

use dunlin_shared::rule::{Rule, Verdict};
use dunlin_shared::time::{MonoMs, WallMs};

use super::id::AlertId;
use crate::record::NodeKey;

/// What nobody measures any more is gone after so long: a container that is made anew, a process group that is not among
/// the largest for a while, or a file system that hangs is not.
pub(super) const GONE_MS: u64 = 300_000;
/// An alert that fires so often within that time comes and goes.
pub(super) const FLAPS: usize = 5;
pub(super) const FLAPS_WITHIN_MS: u64 = 3_600_000;
/// Once it does, it is over when it has been quiet for so long.
pub(super) const CALM_MS: u64 = 900_000;

/// Both clocks: the one that a person reads, and the time in which the collector listened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    pub wall: WallMs,
    pub ran: MonoMs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlertState {
    Pending,
    Firing,
    Resolved,
}

/// Why an alert was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resolution {
    Recovered,
    /// Nobody measures it any more: the container, the file system or the port is gone.
    Gone,
    /// The rule is not there any more, or not enabled.
    RuleRemoved,
    /// The rule says something else now.
    RuleChanged,
    /// The node left the fleet, or was unseen for so long that it is taken for gone.
    NodeGone,
}

/// One rule on one subject of a node, from the first moment at which it held.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    pub id: AlertId,
    pub rule: Arc<Rule>,
    /// `None` when it is about the fleet or the collector.
    pub node: Option<NodeKey>,
    pub subject: Arc<str>,
    pub state: AlertState,
    pub began: Now,
    pub fired: Option<Now>,
    pub resolved: Option<(WallMs, Resolution)>,
    /// Both sides of the rule's first comparison, as they were last.
    pub value: Option<f64>,
    pub threshold: Option<f64>,
    pub is_flapping: bool,
    /// Since when it would be over, were it not to go on for a while.
    pub(super) over: Option<MonoMs>,
    /// When it could last be judged.
    pub(super) seen: MonoMs,
    /// When it fired of late, this time included.
    pub(super) fires: Vec<MonoMs>,
}

/// What one look at an alert comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Stays,
    /// It did not hold for long enough.
    Drops,
    Fires,
    Resolves(Resolution),
}

impl Alert {
    /// As it was before a restart.
    #[must_use]
    pub fn restored(
        (id, rule, node, subject): (AlertId, Arc<Rule>, Option<NodeKey>, Arc<str>),
        (state, began, fired): (AlertState, Now, Option<Now>),
        (value, threshold, is_flapping): (Option<f64>, Option<f64>, bool),
        (fires, over): (Vec<MonoMs>, Option<MonoMs>),
    ) -> Self {
        let (seen, resolved) = (began.ran, None);
        Self {
            id,
            rule,
            node,
            subject,
            state,
            began,
            fired,
            resolved,
            value,
            threshold,
            is_flapping,
            over,
            seen,
            fires,
        }
    }

    /// When it fired of late, this time included.
    #[must_use]
    pub fn fires(&self) -> &[MonoMs] {
        &self.fires
    }

    /// Since when it would be over, were it not to go on for a while.
    #[must_use]
    pub const fn over(&self) -> Option<MonoMs> {
        self.over
    }

    /// `clear` is what the rule's own end says, where it has one. `may_fire` is false while alerts of the node are held
    /// back: it waits, and fires when it still holds then.
    pub(super) fn step(&mut self, now: MonoMs, when: Verdict, clear: Option<Verdict>, may_fire: bool) -> Step {
        if when == Verdict::Unknown {
            return self.step_unseen(now);
        }
        self.seen = now;
        match self.state {
            AlertState::Pending if when == Verdict::HoldsNot => Step::Drops,
            AlertState::Pending => {
                let is_due = now.since(self.began.ran) >= self.rule.for_ms;
                if when == Verdict::Holds && is_due && may_fire { Step::Fires } else { Step::Stays }
            }
            AlertState::Firing => {
                let is_over = when == Verdict::HoldsNot && clear.is_none_or(|clear| clear == Verdict::Holds);
                self.over = is_over.then(|| self.over.unwrap_or(now));
                let is_calm = self.over.is_some_and(|over| now.since(over) >= self.goes_on_ms());
                if is_calm { Step::Resolves(Resolution::Recovered) } else { Step::Stays }
            }
            AlertState::Resolved => Step::Stays,
        }
    }

    /// The same where there is nothing to judge.
    pub(super) fn step_unseen(&self, now: MonoMs) -> Step {
        match self.state {
            _ if now.since(self.seen) < GONE_MS => Step::Stays,
            AlertState::Pending => Step::Drops,
            AlertState::Firing => Step::Resolves(Resolution::Gone),
            AlertState::Resolved => Step::Stays,
        }
    }

    /// It fires. Whether it comes and goes from now on.
    pub(super) fn fire(&mut self, now: Now) -> bool {
        self.state = AlertState::Firing;
        self.fired = Some(now);
        self.over = None;
        self.fires.retain(|fired| now.ran.since(*fired) < FLAPS_WITHIN_MS);
        self.fires.push(now.ran);
        self.is_flapping = self.fires.len() >= FLAPS;
        self.is_flapping
    }

    /// It is over for a reason of its own.
    pub(super) fn resolve(&mut self, now: WallMs, why: Resolution) {
        self.state = AlertState::Resolved;
        self.resolved = Some((now, why));
        // Quiet for so long, it begins anew.
        if self.is_flapping {
            self.fires.clear();
        }
    }

    /// For how long it goes on firing when it is over.
    fn goes_on_ms(&self) -> u64 {
        self.rule.keep_firing_ms.max(if self.is_flapping { CALM_MS } else { 0 })
    }

    /// When it is to be looked at again though nothing is measured.
    pub(super) fn next_look(&self) -> Option<MonoMs> {
        match self.state {
            AlertState::Pending => Some(self.began.ran.plus(self.rule.for_ms)),
            AlertState::Firing => self.over.map(|over| over.plus(self.goes_on_ms())),
            AlertState::Resolved => None,
        }
    }
}

impl AlertState {
    pub const ALL: [Self; 3] = [Self::Pending, Self::Firing, Self::Resolved];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

impl Resolution {
    pub const ALL: [Self; 5] = [Self::Recovered, Self::Gone, Self::RuleRemoved, Self::RuleChanged, Self::NodeGone];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recovered => "recovered",
            Self::Gone => "gone",
            Self::RuleRemoved => "rule_removed",
            Self::RuleChanged => "rule_changed",
            Self::NodeGone => "node_gone",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|why| why.as_str() == text)
    }
}
