//! One session on one connection, without I/O: messages and letters in, arrivals for the writer out.
//!
//! It does one thing at a step, and goes on only when the writer took what the step before gave it;
//! so it never holds more than one arrival, and the order of what it heard is kept.

use std::sync::Arc;

use dunlin_shared::backoff::scale;
use dunlin_shared::frame::Frame;
use dunlin_shared::id::NodeId;
use dunlin_shared::range::{FrameSet, SeqRange};
use dunlin_shared::session::CollectorSession;
use dunlin_shared::session::collector::{Event, Notice, Resumption};
use dunlin_shared::time::MonoMs;
use dunlin_shared::wire::{AgentControl, CloseCode, Config, Deframer, FrameRange, Held, Hello, Lane, WireError};
use tracing::{debug, info};

use super::lanes::{Broken, Found, Lanes};
use super::mailbox::{Letters, Mailbox, Place};
use super::shared::{NotTaken, Shared};
use crate::writer::{Arrival, Greeting, SessionId};

/// Backlog frames a second that the whole fleet may send: as many again as the live frames of
/// 10,000 nodes at a 10 s tick, which keeps both within 5 Mbit/s.
const BACKLOG_FRAMES_PER_S: u64 = 1_000;
/// For so long after its start the collector spreads the agents that come back, over so long.
const SPREAD_FOR_MS: u64 = 60_000;
const SPREAD_OVER_MS: u64 = 2_000;
/// Agents that a stopping collector sends away come back within this time.
const RECONNECT_MS: (u64, u64) = (1_000, 5_000);

#[derive(Debug)]
pub(super) struct Talk {
    place: Place,
    pub(super) node: NodeId,
    id: SessionId,
    session: CollectorSession,
    /// From the Hello on.
    mailbox: Option<Arc<Mailbox>>,
    control: Deframer,
    pub(super) lanes: Lanes,
    /// Found on a lane, and before the session for its judgement.
    judged: Option<(Lane, Frame)>,
    /// For the writer, which had no room yet.
    held: Option<Arrival>,
    /// Handed to the writer and not answered yet.
    outstanding: FrameSet,
    goodbye_pending: bool,
    awaits_answer: bool,
    drain_told: bool,
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
    pub(super) fn new(place: Place, node: NodeId, started_at: MonoMs, shared: &mut Shared) -> Self {
        Self {
            place,
            node,
            id: shared.new_session(),
            session: CollectorSession::new(started_at, node),
            mailbox: None,
            control: Deframer::default(),
            lanes: Lanes::default(),
            judged: None,
            held: None,
            outstanding: FrameSet::new(),
            goodbye_pending: false,
            awaits_answer: false,
            drain_told: false,
        }
    }

    pub(super) fn hear_control(&mut self, bytes: &[u8]) {
        self.control.push(bytes);
    }

    pub(super) fn hear_lane(&mut self, at: usize, bytes: &[u8], shared: &mut Shared) -> Result<(), End> {
        match self.lanes.push(at, bytes) {
            Ok(taken) => {
                shared.stats.bytes_received.add(taken as u64);
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
            Ok(Some(body)) => Some(AgentControl::decode(body)),
            Err(error) => Some(Err(error)),
        };
        if let Some(message) = message {
            let message = message.map_err(|error| self.refuse(&error, shared))?;
            self.tell(Event::Control(message), shared);
            return Ok(Step::Done);
        }
        match self.lanes.next().map_err(|error| self.refuse(&error, shared))? {
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
        let Letters { resumed, live, urgent, not_stored, retry_after_ms, goodbye_committed, close } = letters;
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

    pub(super) fn time_passed(&mut self, shared: &Shared) {
        if self.deadline().is_some_and(|at| at <= shared.clock.mono()) {
            self.tell(Event::Timeout, shared);
        }
    }

    pub(super) const fn deadline(&self) -> Option<MonoMs> {
        self.session.poll_timeout()
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
        shared.leave(self.node, self.id);
        self.mailbox.map(|_| Arrival::Ended { session: self.id, at: shared.clock.wall() })
    }

    fn tell(&mut self, event: Event, shared: &Shared) {
        self.session.handle(shared.clock.mono(), event);
    }

    fn act(&mut self, notice: Notice, shared: &mut Shared) -> Result<(), End> {
        let (session, at) = (self.id, shared.clock.wall());
        let arrival = match notice {
            Notice::Greeted(hello) => self.greet(hello, shared),
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
            Notice::Present { .. } => return Ok(()),
            Notice::Close(code) => return Err(End::Close(code)),
        };
        self.held = Some(arrival);
        Ok(())
    }

    fn greet(&mut self, hello: Box<Hello>, shared: &mut Shared) -> Arrival {
        debug!(node = %self.node, epoch = hello.epoch.0, spooled = hello.spooled.len(), "hello");
        let mailbox = shared.enter(self.node, self.id, self.place);
        self.mailbox = Some(Arc::clone(&mailbox));
        self.awaits_answer = true;
        Arrival::Hello(Greeting { session: self.id, at: shared.clock.wall(), hello, mailbox })
    }

    fn resume(&mut self, held: Vec<Held>, shared: &Shared) {
        self.awaits_answer = false;
        let uptime_ms = shared.clock.mono().0;
        let start_after_ms =
            if uptime_ms < SPREAD_FOR_MS { scale(spread(self.node, self.id.0), SPREAD_OVER_MS) } else { 0 };
        let backlog_gap_ms = shared.open() * 1_000 / BACKLOG_FRAMES_PER_S;
        let resumption = Resumption {
            collector_version: env!("CARGO_PKG_VERSION").to_owned(),
            held,
            start_after_ms: u32::try_from(start_after_ms).unwrap_or(u32::MAX),
            config: Config { interval_ms: 0, backlog_gap_ms: u32::try_from(backlog_gap_ms).unwrap_or(u32::MAX) },
            wall: shared.clock.wall(),
            next_authority: Vec::new(),
        };
        self.tell(Event::Resumed(resumption), shared);
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
fn spread(node: NodeId, salt: u64) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&node.bytes()[8..]);
    (u64::from_le_bytes(bytes) ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use dunlin_shared::id::{Epoch, Seq};
    use dunlin_shared::time::WallMs;
    use dunlin_shared::wire::{Goodbye, StopReason, WIRE_VERSION_MAX, WIRE_VERSION_MIN};
    use tokio::sync::mpsc;

    use super::*;
    use crate::clock::Clock;

    fn node() -> NodeId {
        NodeId::from_bytes([7; 16])
    }

    fn hello() -> Vec<u8> {
        let hello = Hello {
            node: node(),
            wire_min: WIRE_VERSION_MIN,
            wire_max: WIRE_VERSION_MAX,
            name: String::from("host"),
            agent_version: String::from("0"),
            boot_id: [1; 16],
            epoch: Epoch(1),
            next_seq: Seq(0),
            interval_ms: 1_000,
            mono: MonoMs(0),
            wall: WallMs(0),
            spooled: Vec::new(),
            ended: Vec::new(),
        };
        AgentControl::Hello(hello).encode()
    }

    /// Steps until it comes to something else than progress.
    fn settle(talk: &mut Talk, shared: &mut Shared) -> Step {
        loop {
            match talk.step(shared).expect("the peer did nothing wrong") {
                Step::Done => {}
                step => return step,
            }
        }
    }

    #[test]
    fn a_talk_waits_for_the_answer_and_for_room_and_loses_nothing() {
        let (writer, mut queue) = mpsc::channel(1);
        let mut shared = Shared::new(Clock::start(), Arc::default(), writer);
        let mut talk = Talk::new(Place(0), node(), shared.clock.mono(), &mut shared);
        talk.hear_control(&hello());
        talk.hear_control(&AgentControl::Heartbeat.encode());
        talk.hear_control(&AgentControl::Heartbeat.encode());
        assert_eq!(settle(&mut talk, &mut shared), Step::Awaits);
        let Some(Arrival::Hello(greeting)) = queue.blocking_recv() else { panic!("a Hello comes first") };
        assert!(talk.say().is_none(), "it says nothing before the writer answered");
        greeting.mailbox.resumed(Vec::new());
        talk.read_letters(&shared).expect("it may stay");
        assert_eq!(settle(&mut talk, &mut shared), Step::Stuck);
        assert!(talk.say().is_some(), "the welcome");
        assert!(matches!(queue.blocking_recv(), Some(Arrival::Heartbeat { .. })));
        assert_eq!(settle(&mut talk, &mut shared), Step::Hungry);
        assert!(matches!(queue.blocking_recv(), Some(Arrival::Heartbeat { .. })));
        assert!(matches!(talk.leave(&mut shared), Some(Arrival::Ended { .. })));
    }

    #[test]
    fn whoever_waits_first_is_not_overtaken() {
        let (writer, _queue) = mpsc::channel(9);
        let mut shared = Shared::new(Clock::start(), Arc::default(), writer);
        shared.crowded = true;
        let mut talk = Talk::new(Place(0), node(), shared.clock.mono(), &mut shared);
        talk.hear_control(&hello());
        assert_eq!(settle(&mut talk, &mut shared), Step::Stuck);
        assert!(matches!(talk.take_held(), Some(Arrival::Hello(_))));
        assert_eq!(settle(&mut talk, &mut shared), Step::Awaits);
    }

    #[test]
    fn a_drain_is_told_after_the_welcome_and_waits_for_the_goodbye() {
        let (writer, _queue) = mpsc::channel(9);
        let mut shared = Shared::new(Clock::start(), Arc::default(), writer);
        let mut talk = Talk::new(Place(0), node(), shared.clock.mono(), &mut shared);
        talk.hear_control(&hello());
        let goodbye = Goodbye { epoch: Epoch(1), next_seq: Seq(0), reason: StopReason::Stopped };
        talk.hear_control(&AgentControl::Goodbye(goodbye).encode());
        assert_eq!(settle(&mut talk, &mut shared), Step::Awaits);
        talk.drain(&shared);
        assert!(!talk.is_drained(), "its Hello is not answered yet");
        let mailbox = Arc::clone(talk.mailbox.as_ref().expect("it said Hello"));
        mailbox.resumed(Vec::new());
        talk.read_letters(&shared).expect("it may stay");
        assert_eq!(settle(&mut talk, &mut shared), Step::Hungry);
        talk.drain(&shared);
        assert!(!talk.is_drained(), "its goodbye is not on disk yet");
        mailbox.goodbye_committed();
        talk.read_letters(&shared).expect("it may stay");
        assert!(talk.is_drained());
    }
}
