//! One session on one connection, without I/O: messages and letters in, arrivals for the writer out.
//!
//! It does one thing at a step, and goes on only when the writer took what the step before gave it;
//! so it never holds more than one arrival, and the order of what it heard is kept.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use dunlin_shared::backoff::scale;
use dunlin_shared::frame::Frame;
use dunlin_shared::id::NodeId;
use dunlin_shared::limits::{HANDSHAKE_MS, MESSAGE_BYTES_MAX, UNFINISHED_BYTES_MAX, UNFINISHED_MS};
use dunlin_shared::range::{FrameSet, SeqRange};
use dunlin_shared::session::CollectorSession;
use dunlin_shared::session::collector::{Event, Notice, Resumption};
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::{AgentControl, CloseCode, Config, Deframer, FrameRange, Held, Hello, Lane, WireError};
use tracing::{debug, error, info};

use super::claims::Claimant;
use super::lanes::{Broken, Found, Lanes};
use super::mailbox::{Letters, Mailbox, Place};
use super::renewal::Renewal;
use super::shared::{Entry, NotTaken, Shared};
use crate::authority::Certificate;
use crate::registry::KeyHash;
use crate::writer::{Arrival, Greeting, SessionId};

/// For so long after its start the collector spreads the agents that come back, over so long.
const SPREAD_FOR_MS: u64 = 60_000;
const SPREAD_OVER_MS: u64 = 2_000;
/// Who holds too much is looked at so often.
const HOARD_LOOK_MS: u64 = 250;
/// How long after its time the rest of a message is waited for.
const GRACE_MS: u64 = 2_000;
/// Agents that a stopping collector sends away come back within this time.
const RECONNECT_MS: (u64, u64) = (1_000, 5_000);

#[derive(Debug)]
pub(super) struct Talk {
    place: Place,
    pub(super) node: NodeId,
    id: SessionId,
    key: KeyHash,
    renewal: Renewal,
    session: CollectorSession,
    /// From the Hello on.
    mailbox: Option<Arc<Mailbox>>,
    control: Deframer,
    /// Since when a message is begun on it and not whole.
    control_since: Option<MonoMs>,
    /// Since when that, or what is begun on a lane, should have been whole.
    overdue_since: Option<MonoMs>,
    /// As `shared` counts it.
    held_bytes: usize,
    pub(super) lanes: Lanes,
    /// Found on a lane, and before the session for its judgement.
    judged: Option<(Lane, Frame)>,
    /// For the writer, which had no room yet.
    held: Option<Arrival>,
    /// Handed to the writer and not answered yet.
    outstanding: FrameSet,
    goodbye_pending: bool,
    /// Until it is clear who this node is.
    waiting: Option<Waiting>,
    /// To be said once the agent is welcome.
    challenge: Option<u64>,
    asks_inventory: bool,
    awaits_answer: bool,
    drain_told: bool,
    /// It was told to keep its backlog.
    is_held: bool,
}

/// A Hello that is not judged yet.
#[derive(Debug)]
struct Waiting {
    hello: Box<Hello>,
    since: MonoMs,
    /// It is judged by then.
    until: MonoMs,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Done,
    /// It needs more bytes.
    Hungry,
    /// It goes on when the writer has answered its Hello.
    Awaits,
    /// It goes on when the writer has room.
    Stuck,
}

/// Why a connection ends: a code to close with, or that the peer is gone already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Close(CloseCode),
    Gone,
}

impl Talk {
    /// A node that its certificate does not name is nobody, and says nothing.
    pub(super) fn new(place: Place, certificate: &Certificate, started_at: MonoMs, shared: &mut Shared) -> Self {
        let node = certificate.node.unwrap_or(NodeId::from_bytes([0; 16]));
        Self {
            place,
            node,
            id: shared.new_session(),
            key: KeyHash(certificate.key),
            renewal: Renewal::of(node, certificate),
            session: CollectorSession::new(started_at, node),
            mailbox: None,
            control: Deframer::default(),
            control_since: None,
            overdue_since: None,
            held_bytes: 0,
            lanes: Lanes::default(),
            judged: None,
            held: None,
            outstanding: FrameSet::new(),
            goodbye_pending: false,
            waiting: None,
            challenge: None,
            asks_inventory: false,
            awaits_answer: false,
            drain_told: false,
            is_held: false,
        }
    }

    pub(super) fn hear_control(&mut self, now: MonoMs, bytes: &[u8]) {
        self.control.push(bytes);
        self.control_since.get_or_insert(now);
    }

    pub(super) fn hear_lane(&mut self, at: usize, bytes: &[u8], shared: &mut Shared) -> Result<(), End> {
        match self.lanes.push(shared.clock.mono(), at, bytes) {
            Ok(taken) => {
                shared.stats.bytes_received.add(taken as u64);
                self.count_held(shared);
                Ok(())
            }
            Err(Broken::Wire(error)) => Err(self.refuse(&error, shared)),
            Err(Broken::Twice) => Err(End::Close(CloseCode::Unexpected)),
        }
    }

    pub(super) fn stream_opened(&mut self, shared: &Shared) {
        self.tell(Event::Stream, shared);
    }

    /// Only when the last step was hungry: then nothing is held.
    pub(super) fn lane_ended(&mut self, at: usize) {
        if let Some(lane) = self.lanes.end(at) {
            self.held = Some(Arrival::LaneClosed { session: self.id, lane });
        }
    }

    /// One thing, of everything that can be done now.
    pub(super) fn step(&mut self, shared: &mut Shared) -> Result<Step, End> {
        if let Some(held) = self.held.take() {
            match shared.hand_over(held) {
                Ok(()) => {}
                Err(NotTaken::Gone) => return Err(End::Close(CloseCode::Draining)),
                Err(NotTaken::Full(arrival)) => {
                    self.held = Some(arrival);
                    return Ok(Step::Stuck);
                }
            }
        }
        if let Some(notice) = self.session.poll_notice() {
            self.act(notice, shared)?;
            return Ok(Step::Done);
        }
        if self.awaits_answer {
            return Ok(Step::Awaits);
        }
        let message = match self.control.next_message() {
            Ok(None) => None,
            Ok(Some(body)) => {
                self.control_since = None;
                Some(AgentControl::decode(body))
            }
            Err(error) => Some(Err(error)),
        };
        if let Some(message) = message {
            let message = message.map_err(|error| self.refuse(&error, shared))?;
            self.tell(Event::Control(message), shared);
            return Ok(Step::Done);
        }
        match self.lanes.next(shared.clock.mono()).map_err(|error| self.refuse(&error, shared))? {
            None => return Ok(Step::Hungry),
            Some(Found::Piece) => self.tell(Event::Piece, shared),
            Some(Found::Frame(lane, frame)) => {
                let id = frame.id;
                self.judged = Some((lane, frame));
                self.tell(Event::Frame { lane, id }, shared);
            }
        }
        Ok(Step::Done)
    }

    /// Takes what the writer told since the last look.
    pub(super) fn read_letters(&mut self, shared: &Shared) -> Result<(), End> {
        let Some(letters) = self.mailbox.as_ref().and_then(|mailbox| mailbox.take()) else { return Ok(()) };
        let Letters {
            resumed,
            live,
            urgent,
            not_stored,
            retry_after_ms,
            goodbye_committed,
            challenge,
            entered,
            asks_inventory,
            close,
        } = letters;
        if entered {
            self.go_on(shared);
        }
        self.challenge = challenge.or(self.challenge);
        self.asks_inventory |= asks_inventory;
        if let Some(held) = resumed {
            self.resume(held, shared);
        }
        for (set, urgent) in [(&live, false), (&urgent, true)] {
            for range in ranges(set) {
                self.outstanding.remove_range(range);
                self.tell(Event::Committed { range, urgent }, shared);
            }
        }
        for range in ranges(&not_stored) {
            self.outstanding.remove_range(range);
            self.tell(Event::NotStored { range, retry_after_ms }, shared);
        }
        if goodbye_committed {
            self.goodbye_pending = false;
            self.tell(Event::GoodbyeCommitted, shared);
        }
        close.map_or(Ok(()), |code| Err(End::Close(code)))
    }

    /// The next message for the agent.
    pub(super) fn say(&mut self) -> Option<Vec<u8>> {
        self.session.poll_transmit().map(|message| message.encode())
    }

    pub(super) fn time_passed(&mut self, shared: &mut Shared) {
        let now = shared.clock.mono();
        if self.waiting.as_ref().is_some_and(|waiting| waiting.until <= now) && shared.waited(self.node, self.id) {
            self.go_on(shared);
        }
        if self.session.poll_timeout().is_some_and(|at| at <= now) {
            self.tell(Event::Timeout, shared);
        }
    }

    pub(super) fn deadline(&self, shared: &Shared) -> Option<MonoMs> {
        // Nothing announces that others hold less.
        let again = self.hoards(shared).then(|| shared.clock.mono().plus(HOARD_LOOK_MS));
        let waiting = self.waiting.as_ref().map(|waiting| waiting.until);
        // What waits for the writer or for an answer is not read, whatever there is.
        let may_read = self.held.is_none() && !self.awaits_answer;
        let due = || Some(self.unfinished_since()?.plus(UNFINISHED_MS));
        let unfinished = self.overdue_since.map(|since| since.plus(GRACE_MS)).or_else(due).filter(|_| may_read);
        [again, waiting, unfinished, self.session.poll_timeout()].into_iter().flatten().min()
    }

    /// What was begun must be whole in time, and sooner where all together hold too much of it.
    pub(super) fn is_in_time(&mut self, shared: &mut Shared) -> Result<(), End> {
        self.count_held(shared);
        if self.control_since.is_some() && self.control.held_bytes() == 0 {
            self.control_since = None;
        }
        let within_ms = if self.hoards(shared) { HANDSHAKE_MS } else { UNFINISHED_MS };
        let now = shared.clock.mono();
        let may_read = self.held.is_none() && !self.awaits_answer;
        if !may_read || self.unfinished_since().is_none_or(|since| now < since.plus(within_ms)) {
            self.overdue_since = None;
            return Ok(());
        }
        // A collector that stood still itself finds the rest a moment later.
        let overdue_since = *self.overdue_since.get_or_insert(now);
        if now < overdue_since.plus(GRACE_MS) { Ok(()) } else { Err(End::Close(CloseCode::TooSlow)) }
    }

    /// It holds more than a message, and all together hold too much: until that is over nothing is read of its lanes.
    pub(super) const fn hoards(&self, shared: &Shared) -> bool {
        shared.unfinished_bytes > UNFINISHED_BYTES_MAX && self.held_bytes > MESSAGE_BYTES_MAX
    }

    fn count_held(&mut self, shared: &mut Shared) {
        let held_bytes = self.lanes.held_bytes();
        shared.unfinished_bytes = shared.unfinished_bytes - self.held_bytes + held_bytes;
        self.held_bytes = held_bytes;
    }

    fn unfinished_since(&self) -> Option<MonoMs> {
        [self.control_since, self.lanes.unfinished_since()].into_iter().flatten().min()
    }

    /// What an agent that is welcome has to know, apart from its frames.
    pub(super) fn keep_up(&mut self, shared: &mut Shared) {
        if self.awaits_answer || self.mailbox.is_none() {
            return;
        }
        if let Some(nonce) = self.challenge.take() {
            self.tell(Event::Challenge { nonce }, shared);
        }
        if std::mem::take(&mut self.asks_inventory) {
            self.tell(Event::AskInventory, shared);
        }
        if self.is_held != shared.strain.is_behind() {
            let config = self.paced(shared);
            self.tell(Event::Configured(config), shared);
        }
        if self.renewal.has_turned(shared.authority.turns()) {
            let is_news = !self.renewal.was_told(shared.authority.turns());
            if let Some(der) = shared.authority.next_authority().filter(|_| is_news) {
                self.tell(Event::Authority { der }, shared);
            }
            if shared.authority.pin().is_some() && !shared.authority.is_active(self.renewal.issuer()) {
                self.renewal.issuer_is_gone();
            }
        }
        let now = shared.clock.wall();
        if self.renewal.is_due(now) && shared.authority.pin().is_some() && shared.may_sign() {
            self.renew(now, shared);
        }
    }

    /// Tells the agent once that the collector goes away; a Hello is answered first.
    pub(super) fn drain(&mut self, shared: &Shared) {
        if self.drain_told || self.awaits_answer {
            return;
        }
        self.drain_told = true;
        let (least, most) = RECONNECT_MS;
        let ms = least + scale(spread(self.node, self.id.0), most - least);
        self.tell(Event::Drain { reconnect_after_ms: u32::try_from(ms).unwrap_or(u32::MAX) }, shared);
    }

    /// Everything that it handed over is answered, and it knows that it has to go.
    pub(super) fn is_drained(&self) -> bool {
        self.drain_told && self.held.is_none() && self.outstanding.is_empty() && !self.goodbye_pending
    }

    /// Room for the one arrival that waits.
    pub(super) fn take_held(&mut self) -> Option<Arrival> {
        self.held.take()
    }

    /// The connection is over. What the writer still has to hear; what was held is sent again by the
    /// agent, because nobody acknowledged it.
    pub(super) fn leave(self, shared: &mut Shared) -> Option<Arrival> {
        shared.unfinished_bytes -= self.held_bytes;
        shared.leave(self.node, self.id);
        self.mailbox.map(|_| Arrival::Ended { session: self.id, at: shared.clock.wall() })
    }

    fn tell(&mut self, event: Event, shared: &Shared) {
        self.session.handle(shared.clock.mono(), event);
    }

    fn act(&mut self, notice: Notice, shared: &mut Shared) -> Result<(), End> {
        let (session, at) = (self.id, shared.clock.wall());
        let arrival = match notice {
            Notice::Greeted(hello) => return self.greet(hello, shared),
            Notice::Accepted { .. } => {
                let Some((lane, frame)) = self.judged.take() else { return Ok(()) };
                shared.stats.frames_received.one();
                self.outstanding.insert(frame.id);
                Arrival::Frame { session, at, received: shared.clock.mono(), lane, frame }
            }
            Notice::Heartbeat => Arrival::Heartbeat { session, at },
            Notice::Gap(gap) => {
                self.outstanding.insert_range(FrameRange { epoch: gap.epoch, range: gap.range });
                Arrival::Gap { session, at, gap }
            }
            Notice::Goodbye(goodbye) => {
                self.goodbye_pending = true;
                Arrival::Goodbye { session, at, goodbye }
            }
            Notice::Present { nonce } => {
                shared.present(self.node, self.id, nonce);
                return Ok(());
            }
            Notice::Close(code) => return Err(End::Close(code)),
        };
        self.held = Some(arrival);
        Ok(())
    }

    fn greet(&mut self, hello: Box<Hello>, shared: &mut Shared) -> Result<(), End> {
        debug!(node = %self.node, epoch = hello.epoch.0, spooled = hello.spooled.len(), "hello");
        let claimant = Claimant { session: self.id, boot_id: hello.boot_id, epoch: hello.epoch };
        self.awaits_answer = true;
        match shared.enter(self.node, self.key, claimant, (self.place, &hello.name)) {
            Entry::Refused(code) => return Err(End::Close(code)),
            Entry::Enters(mailbox) => self.introduce(hello, mailbox, shared),
            Entry::Waits(mailbox, until) => {
                self.mailbox = Some(mailbox);
                self.waiting = Some(Waiting { hello, since: shared.clock.mono(), until });
            }
        }
        Ok(())
    }

    /// It is this node, and not the other one. Its clock went on while it waited: it is compared with ours as of now.
    fn go_on(&mut self, shared: &Shared) {
        if let (Some(Waiting { mut hello, since, .. }), Some(mailbox)) = (self.waiting.take(), self.mailbox.clone()) {
            let waited_ms = i64::try_from(shared.clock.mono().since(since)).unwrap_or(0);
            hello.wall = hello.wall.plus(waited_ms);
            self.introduce(hello, mailbox, shared);
        }
    }

    fn introduce(&mut self, hello: Box<Hello>, mailbox: Arc<Mailbox>, shared: &Shared) {
        self.mailbox = Some(Arc::clone(&mailbox));
        self.held = Some(Arrival::Hello(Greeting { session: self.id, at: shared.clock.wall(), hello, mailbox }));
    }

    fn renew(&mut self, now: WallMs, shared: &mut Shared) {
        let Some(key) = &self.renewal.key else { return };
        match shared.authority.sign(self.node, key, now) {
            Ok(chain) => {
                shared.stats.certificates_renewed.one();
                debug!(node = %self.node, "renewed a certificate");
                self.tell(Event::Certificate { chain }, shared);
            }
            Err(failed) => {
                if let Some(times) = shared.note_failure("sign") {
                    error!(times, "a node's certificate could not be made: {failed}");
                }
            }
        }
        // Whatever came of it: the next connection brings the one that the agent has then.
        self.renewal.renewed(self.node, now);
    }

    fn resume(&mut self, held: Vec<Held>, shared: &Shared) {
        self.awaits_answer = false;
        self.renewal.told(shared.authority.turns());
        let uptime_ms = shared.clock.mono().0;
        let start_after_ms =
            if uptime_ms < SPREAD_FOR_MS { scale(spread(self.node, self.id.0), SPREAD_OVER_MS) } else { 0 };
        let resumption = Resumption {
            collector_version: env!("CARGO_PKG_VERSION").to_owned(),
            held,
            start_after_ms: u32::try_from(start_after_ms).unwrap_or(u32::MAX),
            config: self.paced(shared),
            wall: shared.clock.wall(),
            next_authority: shared.authority.next_authority().unwrap_or_default(),
        };
        self.tell(Event::Resumed(resumption), shared);
    }

    /// How fast it may send what it has kept, as it is told now.
    fn paced(&mut self, shared: &Shared) -> Config {
        self.is_held = shared.strain.is_behind();
        Config { interval_ms: 0, backlog_gap_ms: shared.strain.backlog_gap_ms(shared.open()) }
    }

    fn refuse(&self, error: &WireError, shared: &mut Shared) -> End {
        if let Some(times) = shared.note_failure("wire") {
            info!(times, node = %self.node, "a peer broke the protocol: {error}");
        }
        End::Close(error.close_code())
    }
}

fn ranges(set: &FrameSet) -> impl Iterator<Item = FrameRange> {
    set.epochs().flat_map(|(epoch, set)| set.ranges().iter().map(move |&range: &SeqRange| FrameRange { epoch, range }))
}

/// A number that spreads nodes evenly; not a secret.
pub(super) fn spread(node: NodeId, salt: u64) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&node.bytes()[8..]);
    (u64::from_le_bytes(bytes) ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
