//! One connection: streams that are each in order and late by their own whim, until it breaks.
//! What a break leaves of a stream is a prefix; nothing arrives twice or out of its place on one connection.

use std::collections::VecDeque;

use dunlin_shared::session::CollectorSession;
use dunlin_shared::wire::{Assembler, Deframer};
use dunlin_tests::random::Random;

/// Without a packet for so long, either end gives the connection up.
pub(crate) const IDLE_MS: u64 = 30_000;

#[derive(Debug, Default)]
pub(crate) struct Pipe {
    queue: VecDeque<(u64, Vec<u8>)>,
}

/// The streams from an agent, in the order of `Link::up`.
pub(crate) const CONTROL: usize = 0;
pub(crate) const LIVE: usize = 1;
pub(crate) const BACKLOG: usize = 2;

pub(crate) struct Link {
    pub(crate) host: usize,
    pub(crate) up: [Pipe; 3],
    pub(crate) down: Pipe,
    /// The collector's end; `None` when it has gone.
    pub(crate) session: Option<CollectorSession>,
    pub(crate) deframers: [Deframer; 3],
    pub(crate) assemblers: [Assembler; 3],
    pub(crate) heard: Deframer,
    pub(crate) agent_is_there: bool,
    /// When the collector notices that the agent's end is gone.
    pub(crate) gone_at: Option<u64>,
    pub(crate) frozen_until: u64,
    pub(crate) frozen_since: Option<u64>,
    pub(crate) delay_ms: u64,
    /// No frame is taken while so many wait.
    pub(crate) lane_room: usize,
    pub(crate) sent_first: bool,
    pub(crate) backlog_at: Option<u64>,
    /// Backlog frames of an agent that stops, which waits for no turn.
    pub(crate) last_frames: u64,
}

impl Pipe {
    pub(crate) fn send(&mut self, at: u64, bytes: Vec<u8>) {
        let at = self.queue.back().map_or(at, |(last, _)| at.max(*last));
        self.queue.push_back((at, bytes));
    }

    pub(crate) fn arrive(&mut self, now: u64) -> Option<Vec<u8>> {
        self.queue.pop_front_if(|(at, _)| *at <= now).map(|(_, bytes)| bytes)
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// A part of what is under way still arrives, the rest never does.
    pub(crate) fn cut(&mut self, random: &mut Random) {
        let kept = random.below(self.queue.len() as u64 + 1);
        self.queue.truncate(usize::try_from(kept).unwrap_or(0));
    }
}

impl Link {
    pub(crate) fn new(host: usize, session: CollectorSession, random: &mut Random) -> Self {
        let delay_ms = [5, 60, 900, 4_000][usize::try_from(random.below(4)).unwrap_or(0)];
        Self {
            host,
            up: Default::default(),
            down: Pipe::default(),
            session: Some(session),
            deframers: Default::default(),
            assemblers: Default::default(),
            heard: Deframer::default(),
            agent_is_there: true,
            gone_at: None,
            frozen_until: 0,
            frozen_since: None,
            delay_ms,
            lane_room: if random.chance(0.2) { 1 } else { 4 },
            last_frames: 0,
            sent_first: false,
            backlog_at: None,
        }
    }

    pub(crate) fn is_frozen(&self, now: u64) -> bool {
        now < self.frozen_until
    }

    pub(crate) fn has_idled(&self, now: u64) -> bool {
        self.is_frozen(now) && self.frozen_since.is_some_and(|since| now >= since + IDLE_MS)
    }

    /// The agent's end is gone. The collector reads what still arrives, and notices later.
    pub(crate) fn leave(&mut self, now: u64, random: &mut Random) {
        if self.agent_is_there {
            self.agent_is_there = false;
            self.gone_at = Some(now + random.below(IDLE_MS));
            self.up.iter_mut().for_each(|pipe| pipe.cut(random));
        }
    }
}
