//! The one thread that writes the log: takes what connections handed over, commits it in groups, and
//! only then tells the connections and the pipeline.
//!
//! When the disk cannot take a group, nothing of it is claimed: agents are told to keep their frames,
//! and the pipeline still sees what happened, so that liveness goes on. A failed sync ends the thread,
//! and with it the collector.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use dunlin_shared::frame::Frame;
use dunlin_shared::id::FrameId;
use dunlin_shared::range::SeqRange;
use dunlin_shared::repeat::Repeats;
use dunlin_shared::sample::Reading;
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::{CloseCode, FrameRange, Gap, Goodbye, Held, Hello, Lane};
use serde_json::json;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::health::Health;
use crate::ingest::{Admitted, Ingest, LeftOut, Refusal};
use crate::offences::{Offences, Told};
use crate::pipeline::Input;
use crate::record::{Event, Load, NodeKey, Pos, Record};
use crate::stats::Stats;
use crate::store::{Log, NewEvent, StoreError};
use crate::uplink::mailbox::Mailbox;

/// One connection's session; newer ones have higher numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What the writer takes, in the order in which it was received.
#[derive(Debug)]
pub enum Arrival {
    Hello(Greeting),
    Frame { session: SessionId, at: WallMs, received: MonoMs, lane: Lane, frame: Frame },
    Gap { session: SessionId, at: WallMs, gap: Gap },
    Heartbeat { session: SessionId, at: WallMs },
    Goodbye { session: SessionId, at: WallMs, goodbye: Goodbye },
    LaneClosed { session: SessionId, lane: Lane },
    Ended { session: SessionId, at: WallMs },
    Tick { at: WallMs, elapsed_ms: u64, paused_ms: u64 },
}

#[derive(Debug)]
pub struct Greeting {
    pub session: SessionId,
    pub at: WallMs,
    pub hello: Box<Hello>,
    /// Takes the answer and all that follows.
    pub mailbox: Arc<Mailbox>,
}

/// A record for the pipeline; without a position when it could not be logged.
#[derive(Debug)]
pub struct Logged {
    pub pos: Option<Pos>,
    pub record: Record,
    pub reading: Option<Arc<Reading>>,
}

/// Arrivals that wait for the writer. Beyond it connections wait, and then their agents.
pub const QUEUE: usize = 4_096;
/// Groups that wait for the pipeline.
pub const LOGGED_QUEUE: usize = 64;
/// A group is committed so long after its first arrival, at most.
const GROUP_MS: u64 = 100;
/// Who looks for what went wrong a minute ago finds it as it came.
const SEALED_KEPT_MS: i64 = 600_000;
/// How the collector bears up is told with every tenth tick.
const TICKS_A_LOAD: u32 = 10;
/// An agent sends again what could not be stored after this time.
const RETRY_AFTER_MS: u32 = 5_000;

#[derive(Debug)]
pub struct Writer {
    log: Log,
    ingest: Ingest,
    sessions: HashMap<SessionId, Session>,
    newest: HashMap<NodeKey, SessionId>,
    /// By what the log was last cut: what was asked for since is due at once.
    retained: Bounds,
    pipeline: mpsc::Sender<Input>,
    keeper: SyncSender<()>,
    health: Arc<Health>,
    stats: Arc<Stats>,
    clock: Clock,
    failures: Failures,
    load: LoadSoFar,
    /// Nodes that bring too many new names, with one of them.
    namers: Offences<NodeKey, String>,
}

/// How it bore up since that was told last.
#[derive(Clone, Copy, Debug, Default)]
struct LoadSoFar {
    ticks: u32,
    commit_ms: u64,
}

/// What bounds the log, as others say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bounds {
    /// What the window holds as well.
    sealed: Pos,
    room: u64,
    is_short_of_room: bool,
}

/// Each by itself: on a full disk all of them repeat at once.
#[derive(Debug, Default)]
struct Failures {
    commit: Repeats,
    rotate: Repeats,
    fold: Repeats,
}

#[derive(Debug)]
struct Session {
    node: NodeKey,
    mailbox: Arc<Mailbox>,
    said_goodbye: bool,
}

/// What is owed once the group is committed.
#[derive(Debug)]
enum Owed {
    Frame { session: SessionId, id: FrameId, lane: Lane, received: MonoMs, duplicate: bool },
    Gap { session: SessionId, gap: Gap },
    Goodbye { session: SessionId },
}

/// One transaction's worth.
#[derive(Debug, Default)]
struct Group {
    logged: Vec<Logged>,
    owed: Vec<Owed>,
}

impl Writer {
    #[must_use]
    pub fn new(
        log: Log,
        ingest: Ingest,
        (pipeline, keeper): (mpsc::Sender<Input>, SyncSender<()>),
        (health, stats, clock): (Arc<Health>, Arc<Stats>, Clock),
    ) -> Self {
        Self {
            log,
            ingest,
            sessions: HashMap::new(),
            newest: HashMap::new(),
            retained: Bounds::default(),
            pipeline,
            keeper,
            health,
            stats,
            clock,
            failures: Failures::default(),
            load: LoadSoFar::default(),
            namers: Offences::new(1),
        }
    }

    /// Runs until every sender is gone, then closes the log.
    pub fn run(mut self, mut queue: mpsc::Receiver<Arrival>) -> Result<(), StoreError> {
        let mut arrivals = Vec::with_capacity(QUEUE);
        while queue.blocking_recv_many(&mut arrivals, QUEUE) > 0 {
            if arrivals.len() < QUEUE / 2 {
                std::thread::sleep(Duration::from_millis(GROUP_MS));
                while arrivals.len() < QUEUE
                    && let Ok(next) = queue.try_recv()
                {
                    arrivals.push(next);
                }
            }
            self.rotate_if_due()?;
            self.take(&mut arrivals)?;
        }
        info!("the log is closed");
        self.log.close()
    }

    fn take(&mut self, arrivals: &mut Vec<Arrival>) -> Result<(), StoreError> {
        let began = self.clock.mono();
        let mut group = Group::default();
        let mut outcome = self.log.begin();
        for arrival in arrivals.drain(..) {
            let first = group.logged.len();
            self.admit(arrival, &mut group);
            self.append(&mut outcome, &mut group.logged[first..]);
        }
        match outcome.and_then(|()| self.log.commit()) {
            Ok(()) => self.committed(began, &group)?,
            Err(error) => self.not_stored(error, &mut group)?,
        }
        self.tell_namers();
        // The pipeline ends only when something failed, and then the collector ends.
        self.pipeline.blocking_send(Input::Logged(group.logged)).ok();
        Ok(())
    }

    fn tell_namers(&mut self) {
        while let Some(Told { who, times, last }) = self.namers.take_due(self.clock.mono()) {
            let Some(node) = self.ingest.ledger().id_of(who) else { continue };
            warn!(%node, values = times, example = last, "a node brings more new names than it may; they are left out");
            let body = json!({ "count": times, "example": last }).to_string();
            let event = NewEvent { at: self.clock.wall(), kind: "node.names_refused", node: Some(node), body };
            self.pipeline.blocking_send(Input::Told(event)).ok();
        }
    }

    fn append(&mut self, outcome: &mut Result<(), StoreError>, records: &mut [Logged]) {
        for logged in records {
            if outcome.is_ok() {
                *outcome = self.log.append(&logged.record).map(|pos| logged.pos = Some(pos));
            }
        }
    }

    fn committed(&mut self, began: MonoMs, group: &Group) -> Result<(), StoreError> {
        self.ingest.committed();
        self.health.stored();
        self.failures.commit.clear();
        let now = self.clock.mono();
        self.stats.commits.one();
        self.stats.commit_duration.note(now.since(began));
        self.load.commit_ms = self.load.commit_ms.max(now.since(began));
        for owed in &group.owed {
            match *owed {
                Owed::Frame { session, id, lane, received, duplicate } => {
                    self.stats.received_to_committed.note(now.since(received));
                    let counter = if duplicate { &self.stats.frames_duplicate } else { &self.stats.frames_committed };
                    counter.one();
                    // What came again was waited for: a Welcome leaves the newest frame out, to have it compared.
                    let urgent = duplicate || lane == Lane::Backlog;
                    self.tell(session, |mailbox| mailbox.committed(one(id), urgent));
                }
                Owed::Gap { session, gap } => {
                    let range = FrameRange { epoch: gap.epoch, range: gap.range };
                    self.tell(session, |mailbox| mailbox.committed(range, true));
                }
                Owed::Goodbye { session } => self.tell(session, Mailbox::goodbye_committed),
            }
        }
        let Err(error) = self.log.checkpoint_if_due() else {
            self.failures.fold.clear();
            return Ok(());
        };
        if let Some(times) = self.failures.fold.note("fold") {
            warn!(times, "the journal could not be folded yet: {error}");
        }
        passing(error)
    }

    /// Rolls back and gives everything back to the agents; fails when the process must stop.
    fn not_stored(&mut self, error: StoreError, group: &mut Group) -> Result<(), StoreError> {
        if matches!(error, StoreError::SyncFailed { .. } | StoreError::Damaged { .. }) {
            return Err(error);
        }
        self.log.rollback().or_else(passing)?;
        self.ingest.rolled_back();
        self.stats.commits_failed.one();
        if let Some(times) = self.failures.commit.note("commit") {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            error!(times, cause, "nothing is stored at the moment; agents keep their frames: {error}");
        }
        self.health.not_stored(&error.to_string());
        group.logged.iter_mut().for_each(|logged| logged.pos = None);
        for owed in &group.owed {
            match *owed {
                Owed::Frame { session, id, .. } => {
                    self.stats.frames_not_stored.one();
                    self.tell(session, |mailbox| mailbox.not_stored(one(id), RETRY_AFTER_MS));
                }
                Owed::Gap { session, gap } => {
                    let range = FrameRange { epoch: gap.epoch, range: gap.range };
                    self.tell(session, |mailbox| mailbox.not_stored(range, RETRY_AFTER_MS));
                }
                // It leaves without a farewell, and comes back with what it kept.
                Owed::Goodbye { .. } => {}
            }
        }
        Ok(())
    }

    fn admit(&mut self, arrival: Arrival, group: &mut Group) {
        match arrival {
            Arrival::Hello(greeting) => self.greet(greeting, group),
            Arrival::Frame { session, at, received, lane, frame } => {
                self.admit_frame(session, (at, received), lane, frame, group);
            }
            Arrival::Gap { session, at, gap } => {
                let Some(node) = self.speaker(session, at, group) else { return };
                match self.ingest.gap(at, node, &gap) {
                    Ok(records) => {
                        self.stats.gaps.add(records.len() as u64);
                        group.logged.extend(records.into_iter().map(plain));
                        group.owed.push(Owed::Gap { session, gap });
                    }
                    Err(refusal) => self.refuse(session, &refusal),
                }
            }
            Arrival::Heartbeat { session, at } => {
                let Some(node) = self.speaker(session, at, group) else { return };
                group.logged.push(plain(Record { at, event: Event::Heartbeat { node } }));
            }
            Arrival::Goodbye { session, at, goodbye } => {
                let Some(node) = self.speaker(session, at, group) else { return };
                if let Some(open) = self.sessions.get_mut(&session) {
                    open.said_goodbye = true;
                }
                group.logged.push(plain(Record { at, event: Event::Goodbye { node, goodbye } }));
                group.owed.push(Owed::Goodbye { session });
            }
            Arrival::LaneClosed { session, lane } => {
                if let Some(node) = self.node_of(session) {
                    self.ingest.lane_closed(node, lane);
                }
            }
            Arrival::Ended { session, at } => self.end(session, at, group),
            Arrival::Tick { at, elapsed_ms, paused_ms } => {
                group.logged.push(plain(Record { at, event: Event::Tick { elapsed_ms, paused_ms } }));
                self.load.ticks += 1;
                if self.load.ticks >= TICKS_A_LOAD {
                    group.logged.push(plain(Record { at, event: Event::Load(self.take_load()) }));
                    let permille = u16::try_from(self.stats.busy_permille.value()).unwrap_or(u16::MAX);
                    group.logged.push(plain(Record { at, event: Event::Busy { permille } }));
                }
            }
        }
    }

    fn take_load(&mut self) -> Load {
        let LoadSoFar { commit_ms, .. } = std::mem::take(&mut self.load);
        Load {
            commit_ms: u32::try_from(commit_ms).unwrap_or(u32::MAX),
            refused: self.stats.frames_not_stored.value(),
            free_permille: self.log.free_permille(),
        }
    }

    fn greet(&mut self, greeting: Greeting, group: &mut Group) {
        let Greeting { session, at, hello, mailbox } = greeting;
        let Some(node) = self.ingest.enlist(hello.node) else { return mailbox.close(CloseCode::Overloaded) };
        match self.introduce(at, node, &hello, group) {
            Ok(held) => {
                self.newest.insert(node, session);
                mailbox.resumed(held);
                self.sessions.insert(session, Session { node, mailbox, said_goodbye: false });
            }
            Err(refusal) => {
                warn!(node = %hello.node, "a session is refused: {refusal}");
                group.logged.extend(rewound(at, node, &refusal));
                mailbox.close(refusal.close_code());
            }
        }
    }

    fn admit_frame(
        &mut self,
        session: SessionId,
        (at, received): (WallMs, MonoMs),
        lane: Lane,
        frame: Frame,
        group: &mut Group,
    ) {
        let Some(node) = self.speaker(session, at, group) else { return };
        let id = frame.id;
        match self.ingest.admit(at, node, lane, frame) {
            Ok(Admitted::Store { record, reading }) => {
                group.logged.push(Logged { pos: None, record, reading });
                group.owed.push(Owed::Frame { session, id, lane, received, duplicate: false });
                if let Some(LeftOut { values, example }) = self.ingest.take_left_out() {
                    self.stats.values_left_out.add(values);
                    self.namers.note(self.clock.mono(), node, values, example);
                }
            }
            Ok(Admitted::Duplicate(id)) => {
                group.owed.push(Owed::Frame { session, id, lane, received, duplicate: true });
            }
            Err(refusal) => {
                group.logged.extend(rewound(at, node, &refusal));
                self.refuse(session, &refusal);
            }
        }
    }

    fn end(&mut self, session: SessionId, at: WallMs, group: &mut Group) {
        let Some(open) = self.sessions.remove(&session) else { return };
        if self.newest.get(&open.node) == Some(&session) {
            self.newest.remove(&open.node);
            self.ingest.disconnected(open.node);
            if !open.said_goodbye {
                group.logged.push(plain(Record { at, event: Event::Lost { node: open.node } }));
            }
        }
    }

    fn rotate_if_due(&mut self) -> Result<(), StoreError> {
        let now = self.clock.wall();
        if !self.log.due(now) {
            let bounds = self.bounds();
            return if bounds == self.retained { Ok(()) } else { self.retain(now, bounds) };
        }
        let rotated = self.log.rotate(now, &self.ingest.snapshot());
        match rotated {
            Ok(()) => {
                self.failures.rotate.clear();
                self.ingest.rotated();
            }
            Err(error) => {
                let shown = error.to_string();
                passing(error)?;
                if let Some(times) = self.failures.rotate.note("rotate") {
                    warn!(times, "no new journal file can be begun, the one before goes on: {shown}");
                }
                return Ok(());
            }
        }
        // Whoever seals what was closed is busy when there is no room here, and looks again by itself.
        self.keeper.try_send(()).ok();
        self.retain(now, self.bounds())
    }

    fn bounds(&self) -> Bounds {
        // What `control.db` does not hold yet is replayed from journals.
        let sealed = self.health.sealed().min(self.health.applied());
        let is_short_of_room = self.health.is_short_of_room();
        Bounds { sealed, room: self.health.journal_room(), is_short_of_room }
    }

    /// What is sealed goes after a while; of the rest the oldest, when it cannot be sealed and has no room either. Age is
    /// no reason: what is not sealed is nowhere else.
    fn retain(&mut self, now: WallMs, bounds: Bounds) -> Result<(), StoreError> {
        self.retained = bounds;
        let kept_ms = if bounds.is_short_of_room { 0 } else { SEALED_KEPT_MS };
        self.log.drop_sealed(bounds.sealed, kept_ms, now).map_or_else(passing, |_| Ok(()))?;
        match self.log.drop_oldest_beyond(bounds.room, self.health.applied()) {
            Ok(dropped) if dropped.files > 0 => {
                info!(files = dropped.files, bytes = dropped.bytes, "dropped the oldest of the log")
            }
            Ok(_) => {}
            Err(error) => passing(error)?,
        }
        Ok(())
    }

    fn introduce(&mut self, at: WallMs, node: NodeKey, hello: &Hello, group: &mut Group) -> Result<Vec<Held>, Refusal> {
        group.logged.extend(self.ingest.retell(at, node).map(plain));
        let (record, held) = self.ingest.hello(at, node, hello)?;
        group.logged.push(plain(record));
        let holes = self.ingest.holes(at, node, hello)?;
        self.stats.gaps.add(holes.len() as u64);
        group.logged.extend(holes.into_iter().map(plain));
        Ok(held)
    }

    /// The node of a session that says something, introduced anew when its Hello could not be stored.
    fn speaker(&mut self, session: SessionId, at: WallMs, group: &mut Group) -> Option<NodeKey> {
        let node = self.node_of(session)?;
        group.logged.extend(self.ingest.retell(at, node).map(plain));
        Some(node)
    }

    /// The node of a session that still counts: frames of one that was superseded are not taken.
    fn node_of(&self, session: SessionId) -> Option<NodeKey> {
        let node = self.sessions.get(&session)?.node;
        (self.newest.get(&node) == Some(&session)).then_some(node)
    }

    fn refuse(&self, session: SessionId, refusal: &Refusal) {
        info!(session = session.0, "a frame is refused: {refusal}");
        self.tell(session, |mailbox| mailbox.close(refusal.close_code()));
    }

    fn tell(&self, session: SessionId, what: impl FnOnce(&Mailbox)) {
        if let Some(open) = self.sessions.get(&session) {
            what(&open.mailbox);
        }
    }
}

const fn plain(record: Record) -> Logged {
    Logged { pos: None, record, reading: None }
}

fn rewound(at: WallMs, node: NodeKey, refusal: &Refusal) -> Option<Logged> {
    let FrameId { epoch, seq } = refusal.rewound()?;
    Some(plain(Record { at, event: Event::Rewound { node, epoch, seq } }))
}

const fn one(id: FrameId) -> FrameRange {
    FrameRange { epoch: id.epoch, range: SeqRange::one(id.seq) }
}

/// Lets through what may be better the next time.
fn passing(error: StoreError) -> Result<(), StoreError> {
    match error {
        StoreError::SyncFailed { .. } | StoreError::Damaged { .. } => Err(error),
        _ => Ok(()),
    }
}
