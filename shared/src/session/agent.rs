//! The agent's end: what is sent on which lane, what may be forgotten, and when to be silent.
//!
//! It holds which frames are not acknowledged yet (the spool holds their bytes) and which of those
//! went out on this connection. The newest frame goes first on the live lane; everything older
//! follows on the backlog lane, oldest first, at no more than twice the live rate.

use std::collections::VecDeque;

use crate::id::{Epoch, FrameId, NodeId, Seq};
use crate::limits::{
    ACK_EVERY_LIVE, ACK_PATIENCE_MS, ASKED_MS_MAX, DRAIN_MS, EPOCHS_MAX, HEARTBEAT_MS, INTERVAL_MS_MAX,
    INTERVAL_MS_MIN, LAST_FRAMES_MAX, LISTEN_MS, WELCOME_MS,
};
use crate::range::{FrameSet, SeqRange};
use crate::time::{MonoMs, WallMs};
use crate::wire::{
    AgentControl, CloseCode, CollectorControl, Config, FrameRange, Gap, Goodbye, Hello, Lane, Spooled, StopReason,
    WIRE_VERSION_MAX, WIRE_VERSION_MIN, Welcome,
};

/// Gaps that were said and are not confirmed. A spool may have a hundred to say; with a Hello before
/// them these still fit the burst that the collector allows and the queue of the control stream.
const GAPS_UNDER_WAY_MAX: usize = 16;

/// Who this agent is; the same for all its connections.
#[derive(Clone, Debug)]
pub struct Profile {
    pub node: NodeId,
    pub name: String,
    pub agent_version: String,
    pub boot_id: [u8; 16],
    pub interval_ms: u32,
    /// Earlier runs that ended in order, while no collector was there to be told.
    pub ended: Vec<Goodbye>,
}

#[derive(Clone, Debug)]
pub enum Event {
    /// A connection stands. The gaps are all that the spool still has to report.
    Connected {
        wall: WallMs,
        gaps: Vec<Gap>,
    },
    Control(CollectorControl),
    /// The spool took a new frame in.
    Sampled(FrameId),
    /// The spool gave frames up.
    Dropped(Gap),
    /// The owner found no bytes for a frame that it was told to send.
    Missing(FrameId),
    /// The owner wants to stop.
    Stop(StopReason),
    Disconnected,
    /// Nothing but time.
    Timeout,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    Control(AgentControl),
    Frame { lane: Lane, id: FrameId },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The collector said yes; frames flow from `start_at`.
    Welcomed { collector_version: String, collector_wall: WallMs, next_authority: Vec<u8> },
    /// On the collector's disk: the spool may forget them.
    Acknowledged(FrameRange),
    /// The collector could not store something; it will be sent again.
    NotStored { retry_after_ms: u32 },
    /// Sample so often from now on.
    Interval { interval_ms: u32 },
    /// The collector goes away; come back after this.
    ReconnectAfter { ms: u32 },
    /// A new certificate for our key, for the next connection.
    Certificate { chain: Vec<Vec<u8>> },
    /// An authority that one of ours should have signed.
    Authority { der: Vec<u8> },
    /// The collector missed something of the inventory: tell it whole.
    InventoryAsked,
    /// Close the connection with this code.
    Close(CloseCode),
}

/// Which lanes can take another frame without waiting.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub live: bool,
    pub backlog: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// Hello is said; until then the collector must answer.
    Greeting {
        deadline: MonoMs,
    },
    Active {
        start_at: MonoMs,
    },
    /// The collector drains: only listen, and until then it must have closed.
    Listening {
        deadline: MonoMs,
    },
    /// We stop: until then we wait for what is under way, and for the collector's farewell.
    Stopping {
        deadline: MonoMs,
        farewell: bool,
        /// What had to wait for its turn is little enough to go out now.
        sends_rest: bool,
    },
    Closed,
}

/// A gap that the collector has not confirmed, and whether this connection has told it.
#[derive(Debug)]
struct GapReport {
    gap: Gap,
    said: bool,
}

#[derive(Debug)]
pub struct AgentSession {
    profile: Profile,
    epoch: Epoch,
    next_seq: Seq,
    state: State,
    unacknowledged: FrameSet,
    sent: FrameSet,
    live_due: Option<FrameId>,
    /// This run's own goodbye, until it is confirmed.
    goodbye: Option<Goodbye>,
    gaps: Vec<GapReport>,
    interval_ms: u32,
    backlog_gap_ms: u32,
    backlog_at: MonoMs,
    spoke_at: MonoMs,
    /// Since when frames are out and nothing was heard of any.
    waiting_since: Option<MonoMs>,
    control: VecDeque<AgentControl>,
    notices: VecDeque<Notice>,
}

impl AgentSession {
    /// `spooled` is what the spool brought over from earlier epochs.
    #[must_use]
    pub fn new(profile: Profile, epoch: Epoch, spooled: FrameSet) -> Self {
        let interval_ms = profile.interval_ms;
        Self {
            profile,
            epoch,
            next_seq: Seq(0),
            state: State::Idle,
            unacknowledged: spooled,
            sent: FrameSet::new(),
            live_due: None,
            goodbye: None,
            gaps: Vec::new(),
            interval_ms,
            backlog_gap_ms: 0,
            backlog_at: MonoMs(0),
            spoke_at: MonoMs(0),
            waiting_since: None,
            control: VecDeque::new(),
            notices: VecDeque::new(),
        }
    }

    pub fn handle(&mut self, now: MonoMs, event: Event) {
        match event {
            Event::Connected { wall, gaps } => self.greet(now, wall, gaps),
            Event::Control(message) => self.hear(now, message),
            Event::Sampled(id) => {
                self.next_seq = self.next_seq.max(id.seq.next());
                self.unacknowledged.insert(id);
                // A frame that still waited here is not lost: unsent, it is backlog now.
                self.live_due = Some(id);
            }
            Event::Dropped(gap) => self.give_up(gap),
            Event::Missing(id) => {
                let range = FrameRange { epoch: id.epoch, range: SeqRange::one(id.seq) };
                self.unacknowledged.remove_range(range);
                self.sent.remove_range(range);
            }
            Event::Stop(reason) => self.stop(now, reason),
            Event::Disconnected => self.forget_connection(),
            Event::Timeout => self.pass_time(now),
        }
        if self.sent.is_empty() {
            self.waiting_since = None;
        }
        if let State::Stopping { farewell: true, sends_rest, .. } = self.state {
            let awaited = if sends_rest { &self.unacknowledged } else { &self.sent };
            if awaited.is_empty() {
                self.close(CloseCode::Done);
            }
        }
    }

    pub fn poll_transmit(&mut self, now: MonoMs, room: Room) -> Option<Transmit> {
        if let Some(message) = self.control.pop_front() {
            self.spoke_at = now;
            return Some(Transmit::Control(message));
        }
        let live = room.live && self.may_send_live(now);
        if let Some(id) = self.live_due.take_if(|_| live) {
            return Some(self.send(now, Lane::Live, id));
        }
        let start_at = match self.state {
            State::Active { start_at } => start_at.max(self.backlog_at),
            State::Stopping { sends_rest: true, .. } if room.backlog && self.unsent_count() <= LAST_FRAMES_MAX => {
                return self.next_backlog().map(|id| self.send(now, Lane::Backlog, id));
            }
            _ => return None,
        };
        if !room.backlog || now < start_at {
            return None;
        }
        if let Some(at) = self.next_gap() {
            self.gaps[at].said = true;
            self.spoke_at = now;
            return Some(Transmit::Control(AgentControl::Gap(self.gaps[at].gap)));
        }
        let id = self.next_backlog()?;
        self.backlog_at = now.plus(self.backlog_pause_ms());
        Some(self.send(now, Lane::Backlog, id))
    }

    /// When to come back with nothing but the time. A lane without room is no reason to.
    #[must_use]
    pub fn poll_timeout(&self, room: Room) -> Option<MonoMs> {
        match self.state {
            State::Idle | State::Closed => None,
            State::Greeting { deadline } | State::Stopping { deadline, .. } => Some(deadline),
            State::Listening { deadline } => Some(self.spoke_at.plus(HEARTBEAT_MS).min(deadline)),
            State::Active { start_at } => {
                let mut first = self.spoke_at.plus(HEARTBEAT_MS);
                if self.live_due.is_some() && room.live {
                    first = first.min(start_at);
                }
                if room.backlog && (self.next_backlog().is_some() || self.next_gap().is_some()) {
                    first = first.min(self.backlog_at.max(start_at));
                }
                Some(self.wedged_at().map_or(first, |at| first.min(at)))
            }
        }
    }

    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    #[must_use]
    pub const fn profile(&self) -> &Profile {
        &self.profile
    }

    /// What the next Hello says. A connection that stands keeps what it was told.
    pub fn introduce_as(&mut self, profile: Profile) {
        // What a collector asked for stays until it is asked again, or our own wish is another.
        if profile.interval_ms != self.profile.interval_ms {
            self.interval_ms = profile.interval_ms;
        }
        self.profile = profile;
    }

    /// Frames that the collector has not confirmed.
    #[must_use]
    pub const fn unacknowledged(&self) -> &FrameSet {
        &self.unacknowledged
    }

    /// The goodbyes that no collector has confirmed, this run's own included once it stops: for the
    /// next run's Hello.
    #[must_use]
    pub fn unsaid(&self) -> Vec<Goodbye> {
        self.profile.ended.iter().copied().chain(self.goodbye).collect()
    }

    #[must_use]
    pub const fn is_active(&self) -> bool {
        matches!(self.state, State::Active { .. })
    }

    fn greet(&mut self, now: MonoMs, wall: WallMs, gaps: Vec<Gap>) {
        self.forget_connection();
        self.state = State::Greeting { deadline: now.plus(WELCOME_MS) };
        // With the gaps that are not confirmed: an epoch may have nothing else, and a collector that was restored takes
        // for lost whatever is neither listed nor held.
        let mut listed = self.unacknowledged.clone();
        gaps.iter().for_each(|gap| listed.insert_range(FrameRange { epoch: gap.epoch, range: gap.range }));
        self.gaps = gaps.into_iter().map(|gap| GapReport { gap, said: false }).collect();
        let whole = |(epoch, set): (Epoch, &crate::range::SeqSet)| {
            let range = SeqRange { first: set.first()?, last: set.last()? };
            Some(Spooled { epoch, range })
        };
        let spooled: Vec<_> = listed.epochs().filter_map(whole).take(EPOCHS_MAX).collect();
        self.control.push_back(AgentControl::Hello(Hello {
            wire_min: WIRE_VERSION_MIN,
            wire_max: WIRE_VERSION_MAX,
            node: self.profile.node,
            name: self.profile.name.clone(),
            agent_version: self.profile.agent_version.clone(),
            boot_id: self.profile.boot_id,
            epoch: self.epoch,
            next_seq: self.next_seq,
            interval_ms: self.interval_ms,
            mono: now,
            wall,
            spooled,
            ended: self.profile.ended.clone(),
        }));
    }

    fn hear(&mut self, now: MonoMs, message: CollectorControl) {
        match (message, self.state) {
            (_, State::Closed) => {}
            (CollectorControl::Welcome(welcome), State::Greeting { .. }) => self.enter(now, welcome),
            (CollectorControl::Welcome(_), _) => self.close(CloseCode::Unexpected),
            (_, State::Greeting { .. }) => self.close(CloseCode::Unexpected),
            (CollectorControl::Ack(ranges), _) => {
                self.waiting_since = Some(now);
                ranges.into_iter().for_each(|range| self.forget(range))
            }
            (CollectorControl::Nack(nack), _) => {
                self.waiting_since = Some(now);
                for &refused in &nack.ranges {
                    self.sent.remove_range(refused);
                    self.gaps.iter_mut().filter(|report| meets(&report.gap, refused)).for_each(|r| r.said = false);
                }
                let retry_after_ms = nack.retry_after_ms.min(ASKED_MS_MAX);
                self.backlog_at = self.backlog_at.max(now.plus(u64::from(retry_after_ms)));
                if let State::Stopping { sends_rest, .. } = &mut self.state {
                    // What cannot be stored now is for the next run.
                    *sends_rest = false;
                }
                self.notices.push_back(Notice::NotStored { retry_after_ms });
            }
            (CollectorControl::Config(config), _) => self.configure(now, config),
            (CollectorControl::Farewell, State::Stopping { deadline, sends_rest, .. }) => {
                self.goodbye = None;
                self.state = State::Stopping { deadline, farewell: true, sends_rest };
            }
            (CollectorControl::Farewell, _) => self.close(CloseCode::Unexpected),
            (CollectorControl::Challenge { nonce }, _) => self.control.push_back(AgentControl::Present { nonce }),
            (CollectorControl::Certificate { chain }, _) => self.notices.push_back(Notice::Certificate { chain }),
            (CollectorControl::Authority { der }, _) => self.notices.push_back(Notice::Authority { der }),
            (CollectorControl::AskInventory, _) => self.notices.push_back(Notice::InventoryAsked),
            (CollectorControl::Drain { reconnect_after_ms }, state) => {
                self.notices.push_back(Notice::ReconnectAfter { ms: reconnect_after_ms.min(ASKED_MS_MAX) });
                if matches!(state, State::Active { .. }) {
                    self.state = State::Listening { deadline: now.plus(LISTEN_MS) };
                }
            }
        }
    }

    fn enter(&mut self, now: MonoMs, welcome: Welcome) {
        if !(WIRE_VERSION_MIN..=WIRE_VERSION_MAX).contains(&welcome.wire) {
            return self.close(CloseCode::Version);
        }
        for held in &welcome.held {
            for &range in &held.ranges {
                self.forget(FrameRange { epoch: held.epoch, range });
            }
        }
        self.configure(now, welcome.config);
        self.profile.ended.clear();
        self.state = State::Active { start_at: now.plus(u64::from(welcome.start_after_ms.min(ASKED_MS_MAX))) };
        self.backlog_at = now;
        let newest = self.unacknowledged.epoch(self.epoch).and_then(crate::range::SeqSet::last);
        self.live_due = newest.map(|seq| FrameId { epoch: self.epoch, seq });
        self.notices.push_back(Notice::Welcomed {
            collector_version: welcome.collector_version,
            collector_wall: welcome.wall,
            next_authority: welcome.next_authority,
        });
    }

    fn configure(&mut self, now: MonoMs, config: Config) {
        self.backlog_gap_ms = config.backlog_gap_ms.min(ASKED_MS_MAX);
        // Whoever waits for as long as it was told before need not.
        self.backlog_at = self.backlog_at.min(now.plus(self.backlog_pause_ms()));
        let asked = u64::from(config.interval_ms);
        if asked != 0 && (INTERVAL_MS_MIN..=INTERVAL_MS_MAX).contains(&asked) && config.interval_ms != self.interval_ms
        {
            self.interval_ms = config.interval_ms;
            self.notices.push_back(Notice::Interval { interval_ms: config.interval_ms });
        }
    }

    fn give_up(&mut self, gap: Gap) {
        let range = FrameRange { epoch: gap.epoch, range: gap.range };
        self.unacknowledged.remove_range(range);
        self.sent.remove_range(range);
        self.live_due.take_if(|id| id.epoch == gap.epoch && (gap.range.first..=gap.range.last).contains(&id.seq));
        if self.gaps.iter().any(|report| report.gap == gap) {
            return;
        }
        // A gap that grew takes the place of what it was.
        self.gaps.retain(|report| !covers(range, &report.gap));
        self.gaps.push(GapReport { gap, said: false });
    }

    fn stop(&mut self, now: MonoMs, reason: StopReason) {
        let goodbye = Goodbye { epoch: self.epoch, next_seq: self.next_seq, reason };
        self.goodbye = Some(goodbye);
        match self.state {
            State::Active { .. } | State::Listening { .. } => {
                // A collector that is being stopped itself gets no more than what is under way.
                let sends_rest = self.is_active() && self.unsent_count() <= LAST_FRAMES_MAX;
                self.state = State::Stopping { deadline: now.plus(DRAIN_MS), farewell: false, sends_rest };
                self.control.push_back(AgentControl::Goodbye(goodbye));
            }
            State::Stopping { .. } | State::Closed => {}
            State::Idle | State::Greeting { .. } => self.close(CloseCode::Done),
        }
    }

    fn pass_time(&mut self, now: MonoMs) {
        match self.state {
            State::Greeting { deadline } | State::Listening { deadline } if now >= deadline => {
                self.close(CloseCode::TooSlow);
            }
            State::Active { .. } if self.wedged_at().is_some_and(|at| now >= at) => self.close(CloseCode::TooSlow),
            State::Stopping { deadline, .. } if now >= deadline => self.close(CloseCode::Done),
            State::Active { .. } | State::Listening { .. }
                if now >= self.spoke_at.plus(HEARTBEAT_MS) && self.control.is_empty() =>
            {
                self.control.push_back(AgentControl::Heartbeat);
            }
            _ => {}
        }
    }

    fn forget(&mut self, range: FrameRange) {
        self.unacknowledged.remove_range(range);
        self.sent.remove_range(range);
        self.gaps.retain(|report| !covers(range, &report.gap));
        self.notices.push_back(Notice::Acknowledged(range));
    }

    fn forget_connection(&mut self) {
        self.state = State::Idle;
        self.sent.clear();
        self.waiting_since = None;
        self.live_due = None;
        self.control.clear();
    }

    fn close(&mut self, code: CloseCode) {
        if self.state != State::Closed {
            self.state = State::Closed;
            self.control.clear();
            self.notices.push_back(Notice::Close(code));
        }
    }

    fn send(&mut self, now: MonoMs, lane: Lane, id: FrameId) -> Transmit {
        self.sent.insert(id);
        self.waiting_since.get_or_insert(now);
        self.spoke_at = now;
        Transmit::Frame { lane, id }
    }

    fn wedged_at(&self) -> Option<MonoMs> {
        let bundled_ms = u64::from(ACK_EVERY_LIVE) * u64::from(self.interval_ms);
        self.waiting_since.map(|since| since.plus(bundled_ms + ACK_PATIENCE_MS))
    }

    /// The newest frame goes out even while we stop, so that the last tick is not left behind.
    fn may_send_live(&self, now: MonoMs) -> bool {
        match self.state {
            State::Active { start_at } => now >= start_at,
            State::Stopping { .. } => true,
            _ => false,
        }
    }

    /// The next gap to say, unless so many are unconfirmed that more would be a flood.
    fn next_gap(&self) -> Option<usize> {
        let under_way = self.gaps.iter().filter(|report| report.said).count();
        self.gaps.iter().position(|report| !report.said).filter(|_| under_way < GAPS_UNDER_WAY_MAX)
    }

    /// The oldest frame that is not on its way and does not wait for the live lane.
    fn next_backlog(&self) -> Option<FrameId> {
        self.unacknowledged.first_not_in(&self.sent).filter(|&id| Some(id) != self.live_due)
    }

    fn unsent_count(&self) -> u64 {
        self.unacknowledged.count().saturating_sub(self.sent.count())
    }

    /// Half the interval is twice the live rate; the collector may ask for less.
    fn backlog_pause_ms(&self) -> u64 {
        u64::from(self.backlog_gap_ms.max(self.interval_ms / 2))
    }
}

/// Whether an acknowledgement of `range` confirms all of the gap.
fn covers(range: FrameRange, gap: &Gap) -> bool {
    range.epoch == gap.epoch && range.range.first <= gap.range.first && gap.range.last <= range.range.last
}

fn meets(gap: &Gap, range: FrameRange) -> bool {
    range.epoch == gap.epoch && range.range.first <= gap.range.last && gap.range.first <= range.range.last
}
