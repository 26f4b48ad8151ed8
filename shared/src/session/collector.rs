//! The collector's end of one connection: who may speak when, and what is acknowledged when.
//!
//! It never decides what is stored; it says what was. Acknowledgements for live frames are bundled,
//! those for backlog frames, gaps, and everything before an end go out at once.

use std::collections::VecDeque;

use super::pace::Bucket;
use crate::id::{Epoch, FrameId, NodeId};
use crate::limits::{
    ACK_EVERY_LIVE, ACK_RANGES_MAX, AGREED_INTERVAL_MS_MAX, FRAMES_PER_INTERVAL, HANDSHAKE_MS, INTERVAL_MS_MIN,
    MESSAGE_BURST, MESSAGES_PER_S,
};
use crate::range::FrameSet;
use crate::time::{MonoMs, WallMs};
use crate::wire::{
    AgentControl, CloseCode, CollectorControl, Config, FrameRange, Gap, Goodbye, Held, Hello, Lane, Nack,
    WIRE_VERSION_MAX, WIRE_VERSION_MIN, Welcome,
};

#[derive(Clone, Debug)]
pub enum Event {
    Control(AgentControl),
    /// A data stream was opened.
    Stream,
    /// A piece of a frame arrived, which is not whole yet.
    Piece,
    /// A whole frame arrived on a data stream.
    Frame {
        lane: Lane,
        id: FrameId,
    },
    /// What the collector holds of the epochs that Hello listed.
    Resumed(Resumption),
    /// These are on disk. `urgent` when they must be acknowledged at once.
    Committed {
        range: FrameRange,
        urgent: bool,
    },
    /// These could not be stored.
    NotStored {
        range: FrameRange,
        retry_after_ms: u32,
    },
    /// The agent's goodbye is on disk.
    GoodbyeCommitted,
    /// Another session says that it is this node.
    Challenge {
        nonce: u64,
    },
    /// A new certificate for this session's key.
    Certificate {
        chain: Vec<Vec<u8>>,
    },
    /// An authority to believe from now on.
    Authority {
        der: Vec<u8>,
    },
    /// Something of the node's inventory was missed.
    AskInventory,
    /// What it goes by from now on.
    Configured(Config),
    /// The collector itself goes away.
    Drain {
        reconnect_after_ms: u32,
    },
    /// Nothing but time.
    Timeout,
}

#[derive(Clone, Debug)]
pub struct Resumption {
    pub collector_version: String,
    pub held: Vec<Held>,
    pub start_after_ms: u32,
    pub config: Config,
    pub wall: WallMs,
    /// The authority that follows, signed by today's; empty when there is none.
    pub next_authority: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A good Hello: look up what is held and answer with `Resumed`.
    Greeted(Box<Hello>),
    /// The frame may be taken in.
    Accepted {
        lane: Lane,
        id: FrameId,
    },
    Heartbeat,
    Gap(Gap),
    Goodbye(Goodbye),
    /// The agent of this session is still there.
    Present {
        nonce: u64,
    },
    /// Close the connection with this code.
    Close(CloseCode),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AwaitingHello {
        deadline: MonoMs,
    },
    AwaitingHeld,
    Active,
    /// A goodbye was said by either end: acknowledge at once, take nothing new.
    Ending,
    Closed,
}

#[derive(Debug)]
pub struct CollectorSession {
    node: NodeId,
    state: State,
    epoch: Epoch,
    /// Epochs that this session may send frames of.
    epochs: Vec<Epoch>,
    committed: FrameSet,
    live_since_ack: u64,
    urgent: bool,
    refused: FrameSet,
    retry_after_ms: u32,
    bucket: Bucket,
    /// Frames, at the rate that was agreed to in the Hello.
    frames: Bucket,
    control: VecDeque<CollectorControl>,
    notices: VecDeque<Notice>,
}

impl CollectorSession {
    /// `node` is whom the peer's certificate names.
    #[must_use]
    pub fn new(now: MonoMs, node: NodeId) -> Self {
        Self {
            node,
            state: State::AwaitingHello { deadline: now.plus(HANDSHAKE_MS) },
            epoch: Epoch(0),
            epochs: Vec::new(),
            committed: FrameSet::new(),
            live_since_ack: 0,
            urgent: false,
            refused: FrameSet::new(),
            retry_after_ms: 0,
            bucket: Bucket::new(now, MESSAGE_BURST, MESSAGES_PER_S),
            frames: agreed(now, 0),
            control: VecDeque::new(),
            notices: VecDeque::new(),
        }
    }

    pub fn handle(&mut self, now: MonoMs, event: Event) {
        if self.state == State::Closed {
            return;
        }
        match event {
            Event::Control(message) => self.hear(now, message),
            // Streams that come and go without a frame cost as much as messages.
            Event::Stream | Event::Piece => {
                if !self.bucket.take(now) {
                    self.close(CloseCode::Flooding);
                }
            }
            Event::Frame { lane, id } => self.take(now, lane, id),
            Event::Resumed(resumption) => self.welcome(resumption),
            Event::Committed { range, urgent } => {
                self.committed.insert_range(range);
                if !urgent {
                    self.live_since_ack = self.live_since_ack.saturating_add(range.range.count());
                }
                self.urgent |= urgent || self.state == State::Ending;
            }
            Event::NotStored { range, retry_after_ms } => {
                self.refused.insert_range(range);
                self.retry_after_ms = self.retry_after_ms.max(retry_after_ms);
            }
            Event::GoodbyeCommitted => self.control.push_back(CollectorControl::Farewell),
            Event::Challenge { nonce } => self.control.push_back(CollectorControl::Challenge { nonce }),
            Event::Certificate { chain } => self.control.push_back(CollectorControl::Certificate { chain }),
            Event::Authority { der } => self.control.push_back(CollectorControl::Authority { der }),
            Event::AskInventory => self.control.push_back(CollectorControl::AskInventory),
            Event::Configured(config) => self.control.push_back(CollectorControl::Config(config)),
            Event::Drain { reconnect_after_ms } => {
                self.control.push_back(CollectorControl::Drain { reconnect_after_ms });
                self.end();
            }
            Event::Timeout => {
                if matches!(self.state, State::AwaitingHello { deadline } if now >= deadline) {
                    self.close(CloseCode::TooSlow);
                }
            }
        }
    }

    pub fn poll_transmit(&mut self) -> Option<CollectorControl> {
        if let Some(message) = self.control.pop_front() {
            release(&mut self.control);
            return Some(message);
        }
        if !self.refused.is_empty() {
            let ranges = self.refused.take_lowest(ACK_RANGES_MAX);
            return Some(CollectorControl::Nack(Nack { ranges, retry_after_ms: self.retry_after_ms }));
        }
        self.retry_after_ms = 0;
        let due = self.urgent || self.live_since_ack >= u64::from(ACK_EVERY_LIVE);
        if !due || self.committed.is_empty() {
            self.urgent = false;
            return None;
        }
        let ranges = self.committed.take_lowest(ACK_RANGES_MAX);
        if self.committed.is_empty() {
            self.urgent = false;
            self.live_since_ack = 0;
        }
        Some(CollectorControl::Ack(ranges))
    }

    #[must_use]
    pub const fn poll_timeout(&self) -> Option<MonoMs> {
        match self.state {
            State::AwaitingHello { deadline } => Some(deadline),
            _ => None,
        }
    }

    pub fn poll_notice(&mut self) -> Option<Notice> {
        let notice = self.notices.pop_front();
        release(&mut self.notices);
        notice
    }

    fn hear(&mut self, now: MonoMs, message: AgentControl) {
        if !self.bucket.take(now) {
            return self.close(CloseCode::Flooding);
        }
        match (message, self.state) {
            (AgentControl::Hello(hello), State::AwaitingHello { .. }) => self.greet(now, hello),
            (AgentControl::Hello(_), _) | (_, State::AwaitingHello { .. }) => self.close(CloseCode::Unexpected),
            (AgentControl::Present { nonce }, _) => self.notices.push_back(Notice::Present { nonce }),
            (AgentControl::Heartbeat, _) => self.notices.push_back(Notice::Heartbeat),
            (AgentControl::Gap(gap), _) => {
                if self.epochs.contains(&gap.epoch) || gap.epoch < self.epoch {
                    self.notices.push_back(Notice::Gap(gap));
                } else {
                    self.close(CloseCode::Malformed);
                }
            }
            (AgentControl::Goodbye(goodbye), _) => {
                if goodbye.epoch != self.epoch {
                    return self.close(CloseCode::Malformed);
                }
                self.end();
                self.notices.push_back(Notice::Goodbye(goodbye));
            }
        }
    }

    fn greet(&mut self, now: MonoMs, hello: Hello) {
        if hello.node != self.node {
            return self.close(CloseCode::WrongNode);
        }
        if hello.wire_max < WIRE_VERSION_MIN || hello.wire_min > WIRE_VERSION_MAX {
            return self.close(CloseCode::Version);
        }
        let ended_later = hello.ended.iter().any(|goodbye| goodbye.epoch >= hello.epoch);
        if ended_later || hello.spooled.iter().any(|spooled| spooled.epoch > hello.epoch) {
            return self.close(CloseCode::Malformed);
        }
        self.epoch = hello.epoch;
        self.frames = agreed(now, hello.interval_ms);
        self.epochs = hello.spooled.iter().map(|spooled| spooled.epoch).chain([hello.epoch]).collect();
        self.state = State::AwaitingHeld;
        self.notices.push_back(Notice::Greeted(Box::new(hello)));
    }

    fn welcome(&mut self, resumption: Resumption) {
        if self.state != State::AwaitingHeld {
            return;
        }
        self.state = State::Active;
        self.control.push_back(CollectorControl::Welcome(Welcome {
            wire: WIRE_VERSION_MAX,
            collector_version: resumption.collector_version,
            held: resumption.held,
            start_after_ms: resumption.start_after_ms,
            config: resumption.config,
            wall: resumption.wall,
            next_authority: resumption.next_authority,
        }));
    }

    fn take(&mut self, now: MonoMs, lane: Lane, id: FrameId) {
        if !self.bucket.take(now) || !self.frames.take(now) {
            return self.close(CloseCode::Flooding);
        }
        match self.state {
            // Frames that crossed with our Drain are taken and acknowledged like any other.
            State::Active | State::Ending if self.epochs.contains(&id.epoch) => {
                self.notices.push_back(Notice::Accepted { lane, id });
            }
            State::Active | State::Ending => self.close(CloseCode::Malformed),
            _ => self.close(CloseCode::Unexpected),
        }
    }

    fn end(&mut self) {
        if self.state == State::Active {
            self.state = State::Ending;
        }
        self.urgent = true;
    }

    /// From here on it is silent: what was committed meanwhile is acknowledged on the next connection.
    fn close(&mut self, code: CloseCode) {
        self.state = State::Closed;
        self.control.clear();
        self.committed.clear();
        self.refused.clear();
        self.notices.push_back(Notice::Close(code));
    }
}

/// What an agent that measures so often may send. One that says something odd gets what the fastest gets.
fn agreed(now: MonoMs, interval_ms: u32) -> Bucket {
    let least = u32::try_from(INTERVAL_MS_MIN).unwrap_or(AGREED_INTERVAL_MS_MAX);
    Bucket::per(now, MESSAGE_BURST, FRAMES_PER_INTERVAL, interval_ms.clamp(least, AGREED_INTERVAL_MS_MAX))
}

/// Ten thousand sessions at rest should not each keep room for messages.
fn release<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() {
        *queue = VecDeque::new();
    }
}
