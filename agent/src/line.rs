//! From a sample to bytes for the collector: the encoder, the spool and the session, tied together.
//!
//! No clock and no network: the uplink asks what to send and says what arrived. Everything between
//! is decided here, so that a simulated fleet runs the very code that an agent runs.

use std::collections::VecDeque;

use dunlin_shared::codec::{Grouper, decode_key, encode_delta, encode_key};
use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{Epoch, FrameId, Seq};
use dunlin_shared::inventory::Inventory;
use dunlin_shared::limits::{GROUP_FRAMES_MAX, PIECE_BYTES_MAX};
use dunlin_shared::range::{FrameSet, SeqRange};
use dunlin_shared::sample::{Reading, Sample};
use dunlin_shared::session::AgentSession;
use dunlin_shared::session::agent::{Event, Notice, Profile, Room, Transmit};
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::{self, CollectorControl, FrameRange, Lane, StopReason};

use crate::spool::Spool;

/// Bytes for one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    Control(Vec<u8>),
    Frame(Lane, Vec<u8>),
}

#[derive(Debug)]
pub struct Line {
    spool: Spool,
    session: AgentSession,
    grouper: Grouper,
    epoch: Epoch,
    next_seq: Seq,
    /// What the next delta builds on.
    last: Option<(FrameId, Reading)>,
    /// The last reading that each lane of this connection carried: what the collector can build on.
    chains: [Option<FrameId>; 2],
    notices: VecDeque<Notice>,
    connections: u64,
}

impl Line {
    #[must_use]
    pub fn new(profile: Profile, epoch: Epoch, spool: Spool) -> Self {
        let session = AgentSession::new(profile, epoch, left(&spool));
        Self {
            spool,
            session,
            grouper: Grouper::default(),
            epoch,
            next_seq: Seq(0),
            last: None,
            chains: [None; 2],
            notices: VecDeque::new(),
            connections: 0,
        }
    }

    /// Goes on under another epoch, between two connections: the numbers of this one stand for other frames. What was
    /// not confirmed under it is numbered anew, so that none of it is taken for what the collector holds.
    pub fn begin_epoch(&mut self, now: MonoMs, wall: WallMs, epoch: Epoch) {
        let before = self.epoch;
        let unconfirmed = self.spool.unacknowledged(before).clone();
        let mut others = left(&self.spool);
        unconfirmed.ranges().iter().for_each(|&range| others.remove_range(FrameRange { epoch: before, range }));
        self.session = AgentSession::new(self.session.profile().clone(), epoch, others);
        (self.epoch, self.next_seq) = (epoch, Seq(0));
        (self.last, self.chains) = (None, [None; 2]);
        let numbers = unconfirmed.ranges().iter().flat_map(|range| range.first.0..=range.last.0).map(Seq);
        for (at, seq) in numbers.enumerate() {
            let frame = self.spool.keyframe(FrameId { epoch: before, seq });
            self.spool.acknowledge(before, SeqRange::one(seq));
            match frame {
                Some(Frame { kind: BodyKind::Inventory, body, .. }) => {
                    self.push(now, wall, BodyKind::Inventory, body, false);
                }
                // What cannot be decoded any more was given up by the spool, which says so.
                Some(frame) => {
                    let begins = at.is_multiple_of(usize::from(GROUP_FRAMES_MAX));
                    let reading = decode_key(&frame.body);
                    reading.into_iter().for_each(|reading| self.take_reading(now, reading, begins));
                }
                None => {}
            }
        }
        self.last = None;
        self.grouper.end_group();
    }

    /// What the next Hello says of this agent.
    pub fn introduce_as(&mut self, profile: Profile) {
        self.session.introduce_as(profile);
    }

    /// Takes one tick's sample in. It is safe from now on, within the spool's size.
    pub fn take_sample(&mut self, now: MonoMs, sample: &Sample) {
        let (reading, begins) = self.grouper.lay_out(sample);
        self.take_reading(now, reading, begins);
    }

    /// Takes inventory in; it travels and is acknowledged like a frame.
    pub fn take_inventory(&mut self, now: MonoMs, wall: WallMs, inventory: &Inventory) {
        self.push(now, wall, BodyKind::Inventory, inventory.encode(), false);
    }

    pub fn connected(&mut self, now: MonoMs, wall: WallMs) {
        self.chains = [None; 2];
        self.connections += 1;
        self.tell(now, Event::Connected { wall, gaps: self.spool.gaps().to_vec() });
    }

    pub fn disconnected(&mut self, now: MonoMs) {
        self.tell(now, Event::Disconnected);
    }

    pub fn hear(&mut self, now: MonoMs, message: CollectorControl) {
        self.tell(now, Event::Control(message));
    }

    pub fn pass_time(&mut self, now: MonoMs) {
        self.tell(now, Event::Timeout);
    }

    pub fn stop(&mut self, now: MonoMs, reason: StopReason) {
        self.tell(now, Event::Stop(reason));
    }

    #[must_use]
    pub fn poll_timeout(&self, room: Room) -> Option<MonoMs> {
        self.session.poll_timeout(room)
    }

    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// The next bytes to send, given which lanes can take any.
    pub fn poll_outgoing(&mut self, now: MonoMs, room: Room) -> Option<Outgoing> {
        loop {
            match self.session.poll_transmit(now, room)? {
                Transmit::Control(message) => return Some(Outgoing::Control(message.encode())),
                Transmit::Frame { lane, id } => match self.prepare(lane, id) {
                    Some(bytes) => return Some(Outgoing::Frame(lane, bytes)),
                    None => {
                        self.tell(now, Event::Missing(id));
                        self.tell_gaps(now);
                    }
                },
            }
        }
    }

    #[must_use]
    pub const fn spool(&self) -> &Spool {
        &self.spool
    }

    pub const fn spool_mut(&mut self) -> &mut Spool {
        &mut self.spool
    }

    #[must_use]
    pub const fn session(&self) -> &AgentSession {
        &self.session
    }

    /// The number that the next frame will have.
    #[must_use]
    pub const fn next_seq(&self) -> Seq {
        self.next_seq
    }

    /// Values that found no room under the limits, since the start.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.grouper.left_out()
    }

    /// Connections made since the start.
    #[must_use]
    pub const fn connections(&self) -> u64 {
        self.connections
    }

    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn take_reading(&mut self, now: MonoMs, reading: Reading, begins: bool) {
        let delta = self.last.take().filter(|_| !begins).and_then(|(base, base_reading)| {
            let back = u16::try_from(self.next_seq.0.checked_sub(base.seq.0)?).ok()?;
            Some((BodyKind::Delta { back }, encode_delta(&base_reading, &reading)?))
        });
        let begins = delta.is_none();
        let (kind, body) = delta.unwrap_or_else(|| (BodyKind::Key, encode_key(&reading)));
        let id = self.push(now, reading.wall, kind, body, begins);
        self.last = Some((id, reading));
    }

    fn push(&mut self, now: MonoMs, wall: WallMs, kind: BodyKind, body: Vec<u8>, begins: bool) -> FrameId {
        let id = FrameId { epoch: self.epoch, seq: self.next_seq };
        self.next_seq = self.next_seq.next();
        let pushed = self.spool.push(&Frame { id, kind, body }, wall, begins);
        self.tell(now, Event::Sampled(id));
        if pushed.dropped > 0 {
            self.tell_gaps(now);
        }
        if pushed.must_begin {
            self.grouper.end_group();
        }
        id
    }

    fn tell_gaps(&mut self, now: MonoMs) {
        for gap in self.spool.gaps().to_vec() {
            self.tell(now, Event::Dropped(gap));
        }
    }

    /// A delta goes out as it is only behind the frame it builds on, and in one piece; else it is
    /// made a keyframe.
    fn prepare(&mut self, lane: Lane, id: FrameId) -> Option<Vec<u8>> {
        let chain = &mut self.chains[usize::from(lane == Lane::Backlog)];
        let mut frame = self.spool.frame(id)?;
        if frame.base().is_some_and(|base| Some(base) != *chain || frame.body.len() > PIECE_BYTES_MAX) {
            frame = self.spool.keyframe(id)?;
        }
        if frame.kind != BodyKind::Inventory {
            *chain = Some(id);
        }
        wire::items(&frame)
    }

    fn tell(&mut self, now: MonoMs, event: Event) {
        self.session.handle(now, event);
        while let Some(notice) = self.session.poll_notice() {
            if let Notice::Acknowledged(acknowledged) = &notice {
                self.spool.acknowledge(acknowledged.epoch, acknowledged.range);
            }
            self.notices.push_back(notice);
        }
    }
}

/// Every frame that the spool holds.
fn left(spool: &Spool) -> FrameSet {
    let mut left = FrameSet::new();
    for spooled in spool.spooled() {
        for &range in spool.unacknowledged(spooled.epoch).ranges() {
            left.insert_range(FrameRange { epoch: spooled.epoch, range });
        }
    }
    left
}
