//! The uplink's part in enrolment: it carries what `enrol` asks for, and hands over what was answered.
//!
//! Nothing is decided here but when to try again. Sampling goes on meanwhile, so that a node that waits for its
//! approval loses nothing that its spool can hold.

use dunlin_shared::inventory::{Facts, Inventory};
use dunlin_shared::session::agent::Profile;
use dunlin_shared::time::MonoMs;
use dunlin_shared::wire::CloseCode;
use dunlin_shared::wire::join::{JoinAnswer, JoinReason, JoinRefusal, Joined};
use quinn::ConnectionError;
use tracing::{debug, info, warn};

use super::connect::{close_code, refusal};
use super::join::{self, Answered, JoinError, advice};
use super::retry::Why;
use super::turn::Turns;
use super::{Attempt, Change, Phase, Reached, Uplink};
use crate::chain::chain;
use crate::enrol::{Ask, Step};

impl Uplink {
    pub(super) fn begin_attempt(&mut self) {
        let Some(enrolment) = &mut self.enrolment else {
            self.phase = Phase::Connecting(self.session_attempt());
            return;
        };
        match enrolment.step() {
            Step::Connect(None) => self.phase = Phase::Connecting(self.session_attempt()),
            Step::Connect(Some(identity)) => {
                if let Err(error) = self.connector.use_identity(&identity) {
                    self.fail(&chain(&error));
                    return self.retry_later(Why::Join);
                }
                let profile = Profile { node: identity.node, ..self.line.session().profile().clone() };
                self.line.introduce_as(profile);
                self.phase = Phase::Connecting(self.session_attempt());
            }
            Step::Join(ask) => self.phase = Phase::Connecting(self.join_attempt(ask)),
            Step::Wait(complaint) => {
                self.fail(&complaint);
                self.retry_later(Why::Join);
            }
        }
    }

    pub(super) fn answered(&mut self, outcome: Result<Answered, JoinError>) {
        match outcome {
            Ok(Answered { ask, answer: JoinAnswer::Joined(joined), collector }) => {
                let Some(enrolment) = &mut self.enrolment else { return };
                match enrolment.accept(&ask, &joined, &collector) {
                    Ok(()) => self.joined(&joined),
                    Err(error) => {
                        self.fail(&format!("what the collector answered to the join is not taken: {}", chain(&error)));
                        self.retry_later(Why::Join);
                    }
                }
            }
            Ok(Answered { answer: JoinAnswer::Refused(refusal), .. }) => self.join_refused(refusal),
            Err(error) => {
                self.fail(&chain(&error));
                self.retry_later(Why::Join);
            }
        }
    }

    /// Notes what the end of a connection says of the certificate, and when to come back.
    pub(super) fn heed(&mut self, error: &ConnectionError) -> Why {
        let Some(enrolment) = &mut self.enrolment else { return Why::Session };
        if refusal(error).is_some_and(|refused| enrolment.note_refused(refused)) {
            return self.at_once();
        }
        match close_code(error) {
            Some(CloseCode::Rewound) => self.rewound(),
            Some(code) => Why::of_close(code),
            None => Why::Session,
        }
    }

    /// A certificate that does not suit is ignored: the one that is there still works.
    pub(super) fn renew(&mut self, certificates: &[Vec<u8>]) {
        let Some(enrolment) = &mut self.enrolment else { return };
        match enrolment.renew(certificates) {
            Ok(()) => info!("the collector renewed the certificate of this node"),
            Err(error) => self.ignore(&format!("a certificate that the collector sent is ignored: {}", chain(&error))),
        }
    }

    pub(super) fn believe(&mut self, authority: &[u8]) {
        let (Some(enrolment), Phase::Linked(link), false) = (&mut self.enrolment, &self.phase, authority.is_empty())
        else {
            return;
        };
        match enrolment.believe(authority, &join::shown(&link.connected().connection)) {
            Ok(true) => info!("another authority is believed from the next connection on"),
            Ok(false) => {}
            Err(error) => self.ignore(&format!("an authority that the collector named is ignored: {}", chain(&error))),
        }
    }

    /// Takes over what can change while the agent runs. What Hello says is said anew, on a new connection.
    pub(super) fn change(&mut self, change: Change) {
        let now = self.clock.mono();
        let profile = self.line.session().profile();
        let interval_ms = u32::try_from(change.interval_ms).unwrap_or(u32::MAX);
        let is_new_hello = profile.name != change.name
            || u64::from(profile.interval_ms) != change.interval_ms
            || self.turns.names() != change.collectors;
        if is_new_hello {
            self.line.introduce_as(Profile { name: change.name, interval_ms, ..profile.clone() });
            self.options.interval_ms = change.interval_ms;
            if self.turns.names() != change.collectors {
                self.turns = Turns::new(change.collectors, 0);
            }
            self.tick_at = self.tick_at.min(now.plus(change.interval_ms));
        }
        self.options.follows_host_name = change.follows_host_name;
        self.tell_facts(now, Facts { labels: change.labels, ..self.facts.clone() });
        if let Some(enrolment) = &mut self.enrolment {
            enrolment.look_for_tokens_in(change.tokens);
        }
        // Whatever was in the way may be mended: what fails again is said again.
        self.pauses.reset();
        self.failures.clear();
        match self.phase {
            Phase::Linked(_) if is_new_hello => self.unlink(CloseCode::Done, Why::Now),
            Phase::Linked(_) => {}
            Phase::Connecting(_) | Phase::Waiting { .. } => self.phase = Phase::Waiting { until: now },
        }
    }

    fn join_attempt(&self, ask: Box<Ask>) -> Attempt {
        let collector = self.turns.now().to_owned();
        let connector = self.connector.clone();
        let profile = self.line.session().profile().clone();
        debug!(collector, has_token = ask.token.is_some(), "asks to join");
        Box::pin(async move { Reached::Join(join::join(&connector, &collector, ask, &profile).await) })
    }

    fn joined(&mut self, joined: &Joined) {
        info!(node = %joined.node, "enrolled: the collector gave this node its certificate");
        if !joined.is_approved {
            warn!("this node waits for approval; somebody must approve it on the collector");
        }
        self.phase = Phase::Waiting { until: self.clock.mono() };
    }

    fn join_refused(&mut self, refusal: JoinRefusal) {
        let mut line = advice(refusal.reason).to_owned();
        if refusal.reason == JoinReason::NoToken
            && let Some(enrolment) = &self.enrolment
        {
            line = format!("{line}; {}", enrolment.advice());
        }
        self.fail(&line);
        self.retry_later(Why::of_refusal(&refusal));
    }

    /// What this run numbered was numbered before, by a later state of this machine. It goes on under a new epoch.
    fn rewound(&mut self) -> Why {
        let Some(enrolment) = &self.enrolment else { return Why::Session };
        let Some(epoch) = enrolment.raise_epoch(self.line.epoch(), self.clock.wall()) else { return Why::Join };
        // The line may change its epoch only between two connections.
        let now = self.clock.mono();
        self.line.disconnected(now);
        let wall = self.clock.wall();
        self.line.begin_epoch(now, wall, epoch);
        self.line.take_inventory(now, wall, &Inventory::Facts(self.facts.clone()));
        self.told.forget();
        info!(epoch = epoch.0, "goes on under a new epoch");
        self.at_once()
    }

    /// Only what is news goes out.
    pub(super) fn tell_facts(&mut self, now: MonoMs, facts: Facts) {
        if facts != self.facts {
            self.line.take_inventory(now, self.clock.wall(), &Inventory::Facts(facts.clone()));
            self.facts = facts;
        }
    }

    /// Once until the next welcome, so that nobody goes in a circle.
    const fn at_once(&mut self) -> Why {
        if std::mem::replace(&mut self.has_hurried, true) { Why::Session } else { Why::Now }
    }

    fn ignore(&mut self, what: &str) {
        if let Some(times) = self.failures.note(what) {
            warn!(times, "{what}");
        }
    }
}
