//! The agent's way to its collector: connects, reconnects, and drives the line on real time.
//!
//! It owns the line while it runs and gives it back when it stops, with whatever was not delivered
//! still in its spool. It decides nothing that the session decides.

pub mod connect;
mod enrolling;
pub mod join;
pub mod link;
mod retry;
#[cfg(test)]
mod tests;
pub mod tls;
mod turn;

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, pending};
use std::pin::Pin;
use std::time::Duration;

use dunlin_shared::backoff::scale;
use dunlin_shared::inventory::{Facts, Happening, Stock};
use dunlin_shared::repeat::Repeats;
use dunlin_shared::sample::Sample;
use dunlin_shared::session::agent::{Notice, Profile, Room};
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::{CloseCode, FrameRange, StopReason};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;
use tracing::{debug, info, warn};

use self::connect::{ConnectError, Connector, explain};
use self::join::{Answered, JoinError};
use self::link::{Heard, Link};
use self::retry::{Pauses, Why};
use self::turn::Turns;
use crate::chain::chain;
use crate::clock::Clock;
use crate::enrol::Enrolment;
use crate::enrol::token::TokenSources;
use crate::line::Line;
use crate::spool::Spool;
use crate::told::Told;

/// Is told the collector that the uplink streams to from now on, or why it does not.
pub type Standing = dyn FnMut(Result<&str, &str>) + Send;

/// What the uplink asks of, and tells, whoever runs it.
pub struct Hooks {
    pub tick: Box<dyn FnMut(MonoMs, WallMs) -> Tick + Send>,
    /// What the host is, labels apart; `None` when it need not be looked at yet.
    pub facts: Box<dyn FnMut(MonoMs) -> Option<Facts> + Send>,
    pub acknowledged: Box<dyn FnMut(FrameRange) + Send>,
    pub standing: Box<Standing>,
    /// Called in every turn of the loop, with the line as it stands: proof that the loop turns.
    pub alive: Box<dyn FnMut(&Line) + Send>,
}

/// What one tick came to.
#[derive(Debug, Default)]
pub struct Tick {
    pub sample: Sample,
    /// None where no inventory is taken, or none yet.
    pub stock: Option<Stock>,
    pub happened: Vec<Happening>,
}

impl From<Sample> for Tick {
    fn from(sample: Sample) -> Self {
        Self { sample, ..Self::default() }
    }
}

#[derive(Debug, Clone)]
pub struct Options {
    pub collectors: Vec<String>,
    pub interval_ms: u64,
    /// The node is called what its host is called, also when that changes: from the next Hello on.
    pub follows_host_name: bool,
    /// The first delay after a failure, and the longest.
    pub backoff_ms: (u64, u64),
    /// The loop turns so often at least, where somebody watches it.
    pub turn_ms: Option<u64>,
}

impl Options {
    /// With the default back-off: prompt after a restart of the collector, and ten thousand agents
    /// spread over half a minute after a long outage.
    #[must_use]
    pub const fn new(collectors: Vec<String>, interval_ms: u64) -> Self {
        Self { collectors, interval_ms, follows_host_name: false, backoff_ms: (500, 30_000), turn_ms: None }
    }
}

/// What a configuration that was read again changes.
#[derive(Debug)]
pub struct Change {
    pub collectors: Vec<String>,
    pub name: String,
    pub follows_host_name: bool,
    pub interval_ms: u64,
    pub tokens: TokenSources,
    pub labels: BTreeMap<String, String>,
}

/// Longest wait for the peer to be told of our end.
const FLUSH_MS: u64 = 500;
const NO_ROOM: Room = Room { live: false, backlog: false };

type Attempt = Pin<Box<dyn Future<Output = Reached> + Send>>;

/// How an attempt ended.
enum Reached {
    Session(Result<Link, ConnectError>),
    Join(Result<Answered, JoinError>),
}

enum Phase {
    Waiting { until: MonoMs },
    Connecting(Attempt),
    Linked(Link),
}

pub struct Uplink {
    line: Line,
    connector: Connector,
    options: Options,
    hooks: Hooks,
    clock: Clock,
    phase: Phase,
    tick_at: MonoMs,
    first_tick: bool,
    turns: Turns,
    pauses: Pauses,
    /// A drain that asked us to stay away for a while.
    stay_away_ms: Option<u64>,
    failures: Repeats,
    connections: u64,
    /// The session wants the connection closed.
    closing: Option<CloseCode>,
    /// None when the identity was given and is kept by whoever gave it.
    enrolment: Option<Enrolment>,
    changes: Option<mpsc::Receiver<Change>>,
    /// What was told of the host: said anew when it changes, and when an epoch begins within a run.
    facts: Facts,
    told: Told,
    /// Something was tried again without a pause since the last welcome.
    has_hurried: bool,
}

enum Woken {
    Stop(StopReason),
    Time,
    Reached(Reached),
    Heard(Option<Heard>),
    Changed(Option<Change>),
}

impl Uplink {
    #[must_use]
    pub fn new(line: Line, connector: Connector, options: Options, hooks: Hooks, clock: Clock) -> Self {
        let now = clock.mono();
        let first = usize::try_from(scale(clock.random(), options.collectors.len().max(1) as u64 - 1)).unwrap_or(0);
        let turns = Turns::new(options.collectors.clone(), first);
        Self {
            line,
            connector,
            pauses: Pauses::new(options.backoff_ms),
            options,
            hooks,
            clock,
            phase: Phase::Waiting { until: now },
            tick_at: now,
            first_tick: true,
            turns,
            stay_away_ms: None,
            failures: Repeats::default(),
            connections: 0,
            closing: None,
            enrolment: None,
            changes: None,
            facts: Facts::default(),
            told: Told::default(),
            has_hurried: false,
        }
    }

    /// Lets it enrol, renew and keep the identity by itself; the connector needs none then.
    #[must_use]
    pub fn enrolling(self, enrolment: Enrolment, told: Facts) -> Self {
        Self { enrolment: Some(enrolment), facts: told, ..self }
    }

    /// Lets it take changes of the configuration.
    #[must_use]
    pub fn changing(self, changes: mpsc::Receiver<Change>) -> Self {
        Self { changes: Some(changes), ..self }
    }

    /// Runs until `stop` speaks, and gives the line back.
    pub async fn run(mut self, mut stop: oneshot::Receiver<StopReason>) -> Line {
        let mut stopping = false;
        loop {
            (self.hooks.alive)(&self.line);
            self.pump();
            if stopping && !matches!(self.phase, Phase::Linked(_)) {
                return self.line;
            }
            match self.wait(&mut stop, stopping).await {
                Woken::Stop(reason) => {
                    stopping = true;
                    self.line.stop(self.clock.mono(), reason);
                }
                Woken::Time => self.pass_time(stopping),
                Woken::Reached(Reached::Session(outcome)) => self.connected(outcome),
                Woken::Reached(Reached::Join(outcome)) => self.answered(outcome),
                Woken::Heard(heard) => self.hear(heard),
                Woken::Changed(Some(change)) => self.change(change),
                Woken::Changed(None) => self.changes = None,
            }
            self.act_on_notices();
            if let Some(code) = self.closing.take() {
                if stopping {
                    self.say_goodbye(code).await;
                }
                self.unlink(code, Why::Session);
            }
        }
    }

    async fn wait(&mut self, stop: &mut oneshot::Receiver<StopReason>, stopping: bool) -> Woken {
        let at = self.clock.instant(self.next_timer(stopping));
        let event = async {
            match &mut self.phase {
                Phase::Waiting { .. } => pending().await,
                Phase::Connecting(attempt) => Woken::Reached(attempt.await),
                Phase::Linked(link) => Woken::Heard(link.next().await),
            }
        };
        let changed = async {
            match &mut self.changes {
                Some(changes) => changes.recv().await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            reason = stop, if !stopping => Woken::Stop(reason.unwrap_or(StopReason::Stopped)),
            event = event => event,
            change = changed, if !stopping => Woken::Changed(change),
            () = sleep_until(at) => Woken::Time,
        }
    }

    fn next_timer(&self, stopping: bool) -> MonoMs {
        let turn_ms = self.options.turn_ms.unwrap_or(self.options.interval_ms);
        let mut first = self.clock.mono().plus(turn_ms);
        if !stopping {
            first = first.min(self.tick_at);
        }
        if let Some(at) = self.line.poll_timeout(self.room()) {
            first = first.min(at);
        }
        if let Phase::Waiting { until } = self.phase {
            first = first.min(until);
        }
        first
    }

    fn pass_time(&mut self, stopping: bool) {
        let now = self.clock.mono();
        if now >= self.tick_at && !stopping {
            self.tick(now);
        }
        if self.line.poll_timeout(self.room()).is_some_and(|at| now >= at) {
            self.line.pass_time(now);
        }
        if matches!(self.phase, Phase::Waiting { until } if now >= until) {
            self.begin_attempt();
        }
    }

    /// The first tick comes at once, the second at a random phase, so that hosts that boot together
    /// do not tick together; ticks that were missed are not made up for.
    fn tick(&mut self, now: MonoMs) {
        if let Some(facts) = (self.hooks.facts)(now) {
            if self.options.follows_host_name && facts.host_name != self.facts.host_name {
                let profile = self.line.session().profile().clone();
                self.line.introduce_as(Profile { name: facts.host_name.clone(), ..profile });
            }
            let labels = self.facts.labels.clone();
            self.tell_facts(now, Facts { labels, ..facts });
        }
        let wall = self.clock.wall();
        let tick = (self.hooks.tick)(now, wall);
        if let Some(news) = tick.stock.and_then(|stock| self.told.news(stock, tick.happened, wall)) {
            self.line.take_inventory(now, wall, &news);
            // Before the sample takes its place as the newest: what changed goes out at once.
            self.pump();
        }
        self.line.take_sample(now, &tick.sample);
        log_notes(self.line.spool_mut());
        let interval_ms = self.options.interval_ms;
        self.tick_at = if std::mem::take(&mut self.first_tick) {
            now.plus(1 + scale(self.clock.random(), interval_ms - 1))
        } else {
            let late_ms = now.since(self.tick_at);
            self.tick_at.plus(interval_ms * (1 + late_ms / interval_ms))
        };
    }

    fn session_attempt(&self) -> Attempt {
        let collector = self.turns.now().to_owned();
        let connector = self.connector.clone();
        let attempt = async move {
            let connected = connector.connect(&collector).await?;
            let address = connected.address;
            Link::open(connected).await.map_err(|source| ConnectError::Handshake { collector, address, source })
        };
        Box::pin(async { Reached::Session(attempt.await) })
    }

    fn connected(&mut self, outcome: Result<Link, ConnectError>) {
        match outcome {
            Ok(link) => {
                debug!(address = %link.connected().address, "connected");
                self.phase = Phase::Linked(link);
                self.line.connected(self.clock.mono(), self.clock.wall());
            }
            Err(error) => {
                let why = match &error {
                    ConnectError::Handshake { source, .. } => self.heed(source),
                    _ => Why::Session,
                };
                self.fail(&chain(&error));
                self.retry_later(why);
            }
        }
    }

    fn hear(&mut self, heard: Option<Heard>) {
        let now = self.clock.mono();
        match heard {
            None => {}
            Some(Heard::Message(message)) => self.line.hear(now, message),
            Some(Heard::Nonsense(what)) => {
                self.fail(&format!("the collector broke the protocol: {what}"));
                self.unlink(CloseCode::Malformed, Why::Session);
            }
            Some(Heard::Ended(error)) => {
                let why = self.heed(&error);
                self.fail(&explain(&error));
                self.unlink(CloseCode::Done, why);
            }
        }
    }

    /// Hands over what there is to send, and acts on what the session decided.
    fn pump(&mut self) {
        let now = self.clock.mono();
        while let Some(outgoing) = self.line.poll_outgoing(now, self.room()) {
            if let Phase::Linked(link) = &self.phase
                && !link.send(outgoing)
            {
                self.fail("the connection takes no more messages");
                self.unlink(CloseCode::Internal, Why::Session);
            }
        }
    }

    fn room(&self) -> Room {
        match &self.phase {
            Phase::Linked(link) => link.room(),
            Phase::Waiting { .. } | Phase::Connecting(_) => NO_ROOM,
        }
    }

    fn act_on_notices(&mut self) {
        while let Some(notice) = self.line.poll_notice() {
            self.act(notice);
        }
    }

    fn act(&mut self, notice: Notice) {
        match notice {
            Notice::Welcomed { collector_version, collector_wall, next_authority } => {
                let skew_ms = self.clock.wall().since(collector_wall);
                self.connections += 1;
                let waiting = self.line.session().unacknowledged().count();
                info!(
                    collector_version,
                    skew_ms,
                    waiting,
                    connections = self.connections,
                    "streaming to the collector"
                );
                (self.hooks.standing)(Ok(self.turns.now()));
                self.pauses.reset();
                self.failures.clear();
                self.has_hurried = false;
                if let Some(enrolment) = &mut self.enrolment {
                    enrolment.note_welcome();
                }
                self.believe(&next_authority);
            }
            Notice::Acknowledged(range) => (self.hooks.acknowledged)(range),
            Notice::NotStored { retry_after_ms } => {
                if let Some(times) = self.failures.note("not stored") {
                    warn!(retry_after_ms, times, "the collector cannot store at the moment; frames stay in the spool");
                }
            }
            Notice::Interval { interval_ms } => self.options.interval_ms = u64::from(interval_ms),
            Notice::ReconnectAfter { ms } => {
                info!(reconnect_after_ms = ms, "the collector is being stopped");
                self.stay_away_ms = Some(u64::from(ms));
            }
            Notice::Certificate { chain } => self.renew(&chain),
            Notice::Authority { der } => self.believe(&der),
            Notice::InventoryAsked => self.told.forget(),
            Notice::Close(code) => {
                if code != CloseCode::Done {
                    self.fail(&format!("gave the connection up: {}", code.as_str()));
                }
                self.closing = Some(code);
            }
        }
    }

    /// Only an end waits until the peer was told; a reconnect need not.
    async fn say_goodbye(&mut self, code: CloseCode) {
        if let Phase::Linked(link) = &self.phase {
            link.close(code);
            let flush = Duration::from_millis(FLUSH_MS);
            if tokio::time::timeout(flush, link.flushed()).await.is_err() {
                debug!("the collector may not have heard that the connection is closed");
            }
        }
    }

    fn unlink(&mut self, code: CloseCode, why: Why) {
        let Phase::Linked(link) = &self.phase else { return };
        link.close(code);
        self.line.disconnected(self.clock.mono());
        self.retry_later(why);
    }

    /// With the next collector: one that wants to be left alone is waited for only where there is no other.
    fn retry_later(&mut self, why: Why) {
        let why = self.stay_away_ms.take().map_or(why, |ms| Why::Drained { ms });
        let now = self.clock.mono();
        let pause_ms = self.pauses.next_ms(why, self.clock.random());
        let until = self.turns.pass(now, why.away_ms()).max(now).plus(pause_ms);
        self.phase = Phase::Waiting { until };
    }

    fn fail(&mut self, what: &str) {
        (self.hooks.standing)(Err(what));
        if let Some(times) = self.failures.note(what) {
            warn!(times, "not connected: {what}");
        }
    }
}

impl fmt::Debug for Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uplink").field("line", &self.line).field("options", &self.options).finish_non_exhaustive()
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").finish_non_exhaustive()
    }
}

/// Says what happened to the spool's files since the last call. The spool itself says each thing once.
pub fn log_notes(spool: &mut Spool) {
    spool.take_notes().iter().for_each(|note| warn!("spool: {}", chain(note)));
}
