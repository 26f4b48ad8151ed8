//! Both ends against each other on virtual time, over a network that delays each stream by itself,
//! breaks connections, and with either end dying. A seed decides everything and is printed.

mod waits;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::agent::{self, AgentSession, Profile, Room, Transmit};
use super::collector::{self, CollectorSession, Resumption};
use crate::backoff::scale;
use crate::id::{Epoch, FrameId, NodeId, Seq};
use crate::limits::{ACK_RANGES_MAX, DRAIN_MS, HANDSHAKE_MS, HEARTBEAT_MS, WELCOME_MS};
use crate::range::{FrameSet, SeqRange, SeqSet};
use crate::time::{MonoMs, WallMs};
use crate::wire::{
    AgentControl, CloseCode, CollectorControl, Config, FrameRange, Gap, GapReason, Goodbye, Held, Hello, Lane, Spooled,
    StopReason,
};

const NODE: NodeId = NodeId::from_bytes([1; 16]);
const INTERVAL_MS: u64 = 10_000;
const STEP_MS: u64 = 50;
const ROOM: Room = Room { live: true, backlog: true };

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // SplitMix64: any seed is a good one.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn up_to(&mut self, max: u64) -> u64 {
        scale(self.next(), max)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.up_to(n - 1) == 0
    }
}

fn profile() -> Profile {
    Profile {
        node: NODE,
        name: "web-1".to_owned(),
        agent_version: "0.1.0".to_owned(),
        boot_id: [0; 16],
        interval_ms: u32::try_from(INTERVAL_MS).expect("small"),
        ended: Vec::new(),
    }
}

/// A stream: in order within itself, late by its own whim.
struct Pipe<T> {
    queue: VecDeque<(u64, T)>,
}

impl<T> Pipe<T> {
    fn new() -> Self {
        Self { queue: VecDeque::new() }
    }

    fn send(&mut self, at: u64, message: T) {
        let at = self.queue.back().map_or(at, |(last, _)| at.max(*last));
        self.queue.push_back((at, message));
    }

    fn arrive(&mut self, now: u64) -> Option<T> {
        self.queue.pop_front_if(|(at, _)| *at <= now).map(|(_, message)| message)
    }
}

struct Connection {
    session: CollectorSession,
    up: Pipe<AgentControl>,
    frames: [Pipe<(Lane, FrameId)>; 2],
    down: Pipe<CollectorControl>,
}

enum Pending {
    Frame(Lane, FrameId),
    Gap(Gap),
}

struct World {
    random: Random,
    now: u64,
    agent: AgentSession,
    epoch: u32,
    seq: u64,
    spool: BTreeSet<FrameId>,
    gaps: Vec<Gap>,
    keeps_spool_on_disk: bool,
    connection: Option<Connection>,
    retry_at: u64,
    pending: Vec<Pending>,
    disk_full: bool,
    stored: BTreeMap<FrameId, u32>,
    gapped: BTreeSet<FrameId>,
    died_with: BTreeSet<FrameId>,
    sampled: BTreeSet<FrameId>,
    backlog_sent: Vec<u64>,
    first_lane: Option<(Lane, FrameId)>,
    closes: Vec<CloseCode>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let keeps_spool_on_disk = random.one_in(2);
        Self {
            random,
            now: 1_000,
            agent: AgentSession::new(profile(), Epoch(0), FrameSet::new()),
            epoch: 0,
            seq: 0,
            spool: BTreeSet::new(),
            gaps: Vec::new(),
            keeps_spool_on_disk,
            connection: None,
            retry_at: 0,
            pending: Vec::new(),
            disk_full: false,
            stored: BTreeMap::new(),
            gapped: BTreeSet::new(),
            died_with: BTreeSet::new(),
            sampled: BTreeSet::new(),
            backlog_sent: Vec::new(),
            first_lane: None,
            closes: Vec::new(),
        }
    }

    fn tell_agent(&mut self, event: agent::Event) {
        self.agent.handle(MonoMs(self.now), event);
    }

    fn connect(&mut self) {
        let session = CollectorSession::new(MonoMs(self.now), NODE);
        let frames = [Pipe::new(), Pipe::new()];
        self.connection = Some(Connection { session, up: Pipe::new(), frames, down: Pipe::new() });
        self.first_lane = None;
        let (wall, gaps) = (WallMs(0), self.gaps.clone());
        self.tell_agent(agent::Event::Connected { wall, gaps });
    }

    fn disconnect(&mut self) {
        if self.connection.take().is_some() {
            self.tell_agent(agent::Event::Disconnected);
            self.retry_at = self.now + self.random.up_to(5_000);
        }
    }

    fn sample(&mut self) {
        let id = FrameId::new(self.epoch, self.seq);
        self.seq += 1;
        self.spool.insert(id);
        self.sampled.insert(id);
        self.tell_agent(agent::Event::Sampled(id));
    }

    /// The spool gives up its oldest frames of one epoch.
    fn overflow(&mut self) {
        let Some(&first) = self.spool.first() else {
            return;
        };
        let dropped: Vec<_> = self.spool.iter().copied().filter(|id| id.epoch == first.epoch).take(7).collect();
        let last = dropped.last().map_or(first, |&last| last);
        for id in &dropped {
            self.spool.remove(id);
        }
        let range = SeqRange { first: first.seq, last: last.seq };
        let gap = Gap { epoch: first.epoch, range, from: WallMs(0), to: WallMs(0), reason: GapReason::Overflow };
        self.gaps.push(gap);
        self.tell_agent(agent::Event::Dropped(gap));
    }

    fn restart_agent(&mut self) {
        self.disconnect();
        if !self.keeps_spool_on_disk {
            self.died_with.append(&mut self.spool);
            for gap in self.gaps.drain(..) {
                self.died_with.extend(ids(gap.epoch, gap.range));
            }
        }
        self.epoch += 1;
        self.seq = 0;
        let mut spooled = FrameSet::new();
        self.spool.iter().for_each(|&id| spooled.insert(id));
        self.agent = AgentSession::new(profile(), Epoch(self.epoch), spooled);
    }

    fn restart_collector(&mut self) {
        self.disconnect();
        self.pending.clear();
    }

    fn commit(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            let (range, urgent) = match pending {
                Pending::Frame(lane, id) => {
                    (FrameRange { epoch: id.epoch, range: SeqRange::one(id.seq) }, lane == Lane::Backlog)
                }
                Pending::Gap(gap) => (FrameRange { epoch: gap.epoch, range: gap.range }, true),
            };
            let event = if self.disk_full {
                collector::Event::NotStored { range, retry_after_ms: 2_000 }
            } else {
                match pending {
                    Pending::Frame(_, id) if !self.gapped.contains(&id) && !self.stored.contains_key(&id) => {
                        self.stored.insert(id, 1);
                    }
                    Pending::Frame(..) => {}
                    Pending::Gap(gap) => {
                        let missing = ids(gap.epoch, gap.range).filter(|id| !self.stored.contains_key(id));
                        self.gapped.extend(missing);
                    }
                }
                collector::Event::Committed { range, urgent }
            };
            if let Some(connection) = &mut self.connection {
                connection.session.handle(MonoMs(self.now), event);
            }
        }
    }

    fn held(&self, hello: &Hello) -> Vec<Held> {
        let of_epoch = |epoch: Epoch| {
            let ids = self.stored.keys().chain(&self.gapped).filter(|id| id.epoch == epoch);
            let set: SeqSet = ids.map(|id| SeqRange::one(id.seq)).collect();
            Held { epoch, ranges: set.ranges().to_vec() }
        };
        hello.spooled.iter().map(|spooled| of_epoch(spooled.epoch)).collect()
    }

    fn step(&mut self) {
        self.now += STEP_MS;
        if self.connection.is_none() && self.now >= self.retry_at {
            self.connect();
        }
        self.agent_side();
        self.collector_side();
        self.agent_hears();
        if self.now.is_multiple_of(100) {
            self.commit();
        }
    }

    fn agent_side(&mut self) {
        let now = MonoMs(self.now);
        if self.agent.poll_timeout(ROOM).is_some_and(|at| at <= now) {
            self.agent.handle(now, agent::Event::Timeout);
        }
        while let Some(transmit) = self.agent.poll_transmit(now, ROOM) {
            let late = self.now + self.random.up_to(400);
            let connection = self.connection.as_mut().expect("only a connected agent sends");
            match transmit {
                Transmit::Control(message) => connection.up.send(late, message),
                Transmit::Frame { lane, id } => {
                    assert!(self.spool.contains(&id), "{id} is sent and not in the spool");
                    self.first_lane.get_or_insert((lane, id));
                    if lane == Lane::Backlog {
                        self.backlog_sent.push(self.now);
                    }
                    connection.frames[usize::from(lane == Lane::Backlog)].send(late, (lane, id));
                }
            }
        }
        while let Some(notice) = self.agent.poll_notice() {
            match notice {
                agent::Notice::Acknowledged(FrameRange { epoch, range }) => {
                    for id in ids(epoch, range) {
                        self.spool.remove(&id);
                    }
                    let held = |id: FrameId| self.stored.contains_key(&id) || self.gapped.contains(&id);
                    assert!(ids(epoch, range).all(held), "acknowledged and not on disk");
                    self.gaps.retain(|gap| {
                        gap.epoch != epoch
                            || !ids(gap.epoch, gap.range).all(|id| range.first <= id.seq && id.seq <= range.last)
                    });
                }
                agent::Notice::Close(code) => {
                    self.closes.push(code);
                    self.disconnect();
                }
                _ => {}
            }
        }
    }

    fn collector_side(&mut self) {
        let now = MonoMs(self.now);
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        while let Some(message) = connection.up.arrive(self.now) {
            connection.session.handle(now, collector::Event::Control(message));
        }
        for pipe in &mut connection.frames {
            while let Some((lane, id)) = pipe.arrive(self.now) {
                connection.session.handle(now, collector::Event::Frame { lane, id });
            }
        }
        connection.session.handle(now, collector::Event::Timeout);
        let mut closed = None;
        while let Some(notice) = connection.session.poll_notice() {
            match notice {
                collector::Notice::Greeted(hello) => {
                    let config = Config { interval_ms: 0, backlog_gap_ms: 0 };
                    let (collector_version, held) = (String::new(), self.held(&hello));
                    let resumption = Resumption {
                        collector_version,
                        held,
                        start_after_ms: 100,
                        config,
                        wall: WallMs(0),
                        next_authority: Vec::new(),
                    };
                    connection.session.handle(now, collector::Event::Resumed(resumption));
                }
                collector::Notice::Accepted { lane, id } => self.pending.push(Pending::Frame(lane, id)),
                collector::Notice::Gap(gap) => self.pending.push(Pending::Gap(gap)),
                collector::Notice::Goodbye(_) => connection.session.handle(now, collector::Event::GoodbyeCommitted),
                collector::Notice::Heartbeat | collector::Notice::Present { .. } => {}
                collector::Notice::Close(code) => closed = Some(code),
            }
        }
        while let Some(message) = connection.session.poll_transmit() {
            if let CollectorControl::Ack(ranges) = &message {
                assert!(ranges.len() <= ACK_RANGES_MAX);
            }
            connection.down.send(self.now + self.random.up_to(400), message);
        }
        self.connection = Some(connection);
        if let Some(code) = closed {
            self.closes.push(code);
            self.disconnect();
        }
    }

    fn agent_hears(&mut self) {
        while let Some(message) = self.connection.as_mut().and_then(|connection| connection.down.arrive(self.now)) {
            self.tell_agent(agent::Event::Control(message));
        }
    }

    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            if self.now.is_multiple_of(INTERVAL_MS) {
                self.sample();
            }
            self.step();
        }
    }

    fn misfortune(&mut self) {
        match self.random.up_to(9) {
            0 => self.restart_agent(),
            1 | 2 => self.restart_collector(),
            3..=5 => self.disconnect(),
            6 => self.overflow(),
            7 => {
                self.disconnect();
                self.retry_at = self.now + self.random.up_to(600_000);
            }
            _ => self.disk_full = !self.disk_full,
        }
    }

    fn check_end(&self) {
        for id in &self.sampled {
            let fates = [self.stored.contains_key(id), self.gapped.contains(id), self.died_with.contains(id)];
            let here = (self.spool.contains(id), self.agent.unacknowledged().contains(*id), &self.gaps);
            assert!(fates.contains(&true), "{id} is nowhere; spool, session, gaps: {here:?}");
            assert!(!(fates[0] && fates[1]), "{id} is stored and said to be missing");
        }
        let odd: Vec<_> = self.closes.iter().filter(|&&code| code != CloseCode::Done).collect();
        assert!(odd.is_empty(), "honest ends closed with {odd:?}");
        let crowded = self.backlog_sent.windows(2).filter(|pair| pair[1] - pair[0] < INTERVAL_MS / 2).count();
        // A new connection may send its first backlog frame at once.
        assert!(crowded <= self.sampled.len() / 10 + 20, "{crowded} backlog frames came too fast");
    }
}

fn ids(epoch: Epoch, range: SeqRange) -> impl Iterator<Item = FrameId> {
    (range.first.0..=range.last.0).map(move |seq| FrameId { epoch, seq: Seq(seq) })
}

#[test]
fn nothing_is_lost_whatever_breaks() {
    for seed in 0..60 {
        eprintln!("seed {seed}");
        let mut world = World::new(seed);
        for _ in 0..40 {
            let calm = world.random.up_to(120_000);
            world.run(calm);
            world.misfortune();
        }
        world.disk_full = false;
        world.run(4 * 3_600_000);
        world.tell_agent(agent::Event::Stop(StopReason::Stopped));
        (0..DRAIN_MS / STEP_MS + 1).for_each(|_| world.step());
        world.check_end();
        assert!(world.spool.is_empty() && world.gaps.is_empty(), "all is delivered before the end");
    }
}

#[test]
fn newest_frame_goes_first_after_an_outage_and_the_backlog_follows_at_twice_the_rate() {
    let mut world = World::new(1);
    world.retry_at = 1_000_000;
    world.run(999_000);
    let spooled = world.spool.len();
    world.run(6_000);
    assert_eq!(world.first_lane.map(|(lane, id)| (lane, id.seq.0 + 1 >= spooled as u64)), Some((Lane::Live, true)));
    let sent = world.backlog_sent.len();
    world.run(100_000);
    assert_eq!(world.backlog_sent.len() - sent, 20);
}

#[test]
fn a_heartbeat_is_sent_only_into_silence() {
    let mut world = World::new(2);
    world.run(300_000);
    let at = world.agent.poll_timeout(ROOM).expect("a heartbeat is due some time");
    assert!(at.since(MonoMs(world.now)) <= HEARTBEAT_MS);
    world.agent.handle(at, agent::Event::Timeout);
    assert_eq!(world.agent.poll_transmit(at, ROOM), Some(Transmit::Control(AgentControl::Heartbeat)));
    assert!(world.agent.poll_timeout(ROOM).is_some_and(|next| next == at.plus(HEARTBEAT_MS)));
}

fn greeted(events: Vec<collector::Event>) -> Vec<collector::Notice> {
    let mut session = CollectorSession::new(MonoMs(0), NODE);
    let mut notices = Vec::new();
    for event in events {
        session.handle(MonoMs(10), event);
        notices.extend(std::iter::from_fn(|| session.poll_notice()));
    }
    notices
}

fn hello() -> Hello {
    let mut session = AgentSession::new(profile(), Epoch(3), FrameSet::new());
    session.handle(MonoMs(0), agent::Event::Connected { wall: WallMs(0), gaps: Vec::new() });
    match session.poll_transmit(MonoMs(0), ROOM) {
        Some(Transmit::Control(AgentControl::Hello(hello))) => hello,
        other => panic!("an agent begins with a Hello, not {other:?}"),
    }
}

fn resumed() -> collector::Event {
    let config = Config { interval_ms: 0, backlog_gap_ms: 0 };
    collector::Event::Resumed(Resumption {
        collector_version: String::new(),
        held: Vec::new(),
        start_after_ms: 0,
        config,
        wall: WallMs(0),
        next_authority: Vec::new(),
    })
}

#[test]
fn a_peer_that_breaks_the_protocol_is_closed_with_the_code_that_says_why() {
    let say = |hello: Hello| collector::Event::Control(AgentControl::Hello(hello));
    let frame = |epoch| collector::Event::Frame { lane: Lane::Live, id: FrameId::new(epoch, 0) };
    let stranger = Hello { node: NodeId::from_bytes([2; 16]), ..hello() };
    let future = Hello { wire_min: 90, wire_max: 99, ..hello() };
    let cases = [
        (vec![say(stranger)], CloseCode::WrongNode),
        (vec![say(future)], CloseCode::Version),
        (vec![frame(3)], CloseCode::Unexpected),
        (vec![say(hello()), frame(3)], CloseCode::Unexpected),
        (vec![say(hello()), say(hello())], CloseCode::Unexpected),
        (vec![collector::Event::Control(AgentControl::Heartbeat)], CloseCode::Unexpected),
        (vec![say(hello()), resumed(), frame(9)], CloseCode::Malformed),
    ];
    for (events, code) in cases {
        let notices = greeted(events.clone());
        assert_eq!(notices.last(), Some(&collector::Notice::Close(code)), "{events:?}");
    }
}

#[test]
fn an_agent_that_is_there_answers_a_challenge_and_hands_certificates_on() {
    let mut world = World::new(3);
    world.run(60_000);
    let now = MonoMs(world.now);
    let hear = |session: &mut AgentSession, message| session.handle(now, agent::Event::Control(message));
    while world.agent.poll_transmit(now, ROOM).is_some() {}
    hear(&mut world.agent, CollectorControl::Challenge { nonce: 7 });
    let answer = AgentControl::Present { nonce: 7 };
    assert_eq!(world.agent.poll_transmit(now, ROOM), Some(Transmit::Control(answer.clone())));
    hear(&mut world.agent, CollectorControl::Certificate { chain: vec![vec![1]] });
    assert_eq!(world.agent.poll_notice(), Some(agent::Notice::Certificate { chain: vec![vec![1]] }));
    hear(&mut world.agent, CollectorControl::Authority { der: vec![2] });
    assert_eq!(world.agent.poll_notice(), Some(agent::Notice::Authority { der: vec![2] }));
    hear(&mut world.agent, CollectorControl::AskInventory);
    assert_eq!(world.agent.poll_notice(), Some(agent::Notice::InventoryAsked));
    let heard = greeted(vec![
        collector::Event::Control(AgentControl::Hello(hello())),
        resumed(),
        collector::Event::Control(answer),
    ]);
    assert_eq!(heard.last(), Some(&collector::Notice::Present { nonce: 7 }));
}

#[test]
fn a_peer_without_a_hello_is_closed_at_its_deadline() {
    let mut session = CollectorSession::new(MonoMs(7), NODE);
    assert_eq!(session.poll_timeout(), Some(MonoMs(7 + HANDSHAKE_MS)));
    session.handle(MonoMs(7 + HANDSHAKE_MS), collector::Event::Timeout);
    assert_eq!(session.poll_notice(), Some(collector::Notice::Close(CloseCode::TooSlow)));
}

#[test]
fn a_flood_of_frames_is_closed_and_an_honest_second_is_not() {
    let mut events = vec![collector::Event::Control(AgentControl::Hello(hello())), resumed()];
    events.extend((0..200).map(|seq| collector::Event::Frame { lane: Lane::Live, id: FrameId::new(3, seq) }));
    let notices = greeted(events);
    assert_eq!(notices.last(), Some(&collector::Notice::Close(CloseCode::Flooding)));
    // Streams that hold nothing are a flood as well.
    let mut events = vec![collector::Event::Control(AgentControl::Hello(hello())), resumed()];
    events.extend((0..200).map(|_| collector::Event::Stream));
    assert_eq!(greeted(events).last(), Some(&collector::Notice::Close(CloseCode::Flooding)));
    assert!(notices.len() > 100, "the burst is allowed");
}

#[test]
fn a_node_may_send_at_the_rate_that_it_agreed_to_and_a_hundred_times_that_is_a_flood() {
    let until_closed = |interval_ms: u32, every_ms: u64| {
        let mut session = CollectorSession::new(MonoMs(0), NODE);
        let hello = Hello { interval_ms, ..hello() };
        session.handle(MonoMs(0), collector::Event::Control(AgentControl::Hello(hello)));
        session.handle(MonoMs(0), resumed());
        (0..20_000_u64).find(|seq| {
            let frame = collector::Event::Frame { lane: Lane::Live, id: FrameId::new(3, *seq) };
            session.handle(MonoMs(seq * every_ms), frame);
            std::iter::from_fn(|| session.poll_notice())
                .any(|notice| notice == collector::Notice::Close(CloseCode::Flooding))
        })
    };
    for interval_ms in [1_000, 10_000, 60_000, 300_000] {
        // Live, twice as much of the backlog, and inventory.
        assert_eq!(until_closed(interval_ms, u64::from(interval_ms) / 4), None, "{interval_ms}");
    }
    for interval_ms in [1_000, 10_000, 60_000] {
        let closed = until_closed(interval_ms, u64::from(interval_ms) / 100);
        assert!(closed.is_some_and(|frames| frames < 500), "{interval_ms}: {closed:?}");
    }
    assert_eq!(until_closed(60_000, 1_000), None, "one whose interval was set lower goes on under its old Hello");
}

#[test]
fn live_frames_are_acknowledged_by_threes_and_backlog_at_once() {
    let mut session = CollectorSession::new(MonoMs(0), NODE);
    session.handle(MonoMs(0), collector::Event::Control(AgentControl::Hello(hello())));
    session.handle(MonoMs(0), resumed());
    assert!(matches!(session.poll_transmit(), Some(CollectorControl::Welcome(_))));
    let committed = |session: &mut CollectorSession, seq, urgent| {
        let range = FrameRange { epoch: Epoch(3), range: SeqRange::one(Seq(seq)) };
        session.handle(MonoMs(0), collector::Event::Committed { range, urgent });
        session.poll_transmit()
    };
    assert_eq!(committed(&mut session, 10, false), None);
    assert_eq!(committed(&mut session, 11, false), None);
    let range = SeqRange { first: Seq(10), last: Seq(12) };
    assert_eq!(
        committed(&mut session, 12, false),
        Some(CollectorControl::Ack(vec![FrameRange { epoch: Epoch(3), range }]))
    );
    let one = FrameRange { epoch: Epoch(3), range: SeqRange::one(Seq(2)) };
    assert_eq!(committed(&mut session, 2, true), Some(CollectorControl::Ack(vec![one])));
    assert_eq!(session.poll_transmit(), None);
}

#[test]
fn an_agent_that_hears_nothing_gives_the_connection_up() {
    let mut session = AgentSession::new(profile(), Epoch(3), FrameSet::new());
    session.handle(MonoMs(0), agent::Event::Connected { wall: WallMs(0), gaps: Vec::new() });
    assert_eq!(session.poll_timeout(ROOM), Some(MonoMs(WELCOME_MS)));
    session.handle(MonoMs(WELCOME_MS), agent::Event::Timeout);
    assert_eq!(session.poll_notice(), Some(agent::Notice::Close(CloseCode::TooSlow)));
}

#[test]
fn a_connection_that_acknowledges_nothing_is_taken_for_wedged() {
    let mut world = World::new(3);
    world.run(50_000);
    let mut connection = world.connection.take().expect("it is connected");
    let sent_at = world.now;
    while world.closes.is_empty() {
        assert!(world.now < sent_at + 200_000, "it never gave up");
        world.connection = Some(Connection {
            session: CollectorSession::new(MonoMs(world.now), NODE),
            up: Pipe::new(),
            frames: [Pipe::new(), Pipe::new()],
            down: Pipe::new(),
        });
        if world.now.is_multiple_of(INTERVAL_MS) {
            world.sample();
        }
        world.now += STEP_MS;
        world.agent_side();
    }
    assert_eq!(world.closes, [CloseCode::TooSlow]);
    assert!(connection.session.poll_notice().is_none());
}

#[test]
fn a_lane_without_room_does_not_wake_the_owner() {
    let mut world = World::new(4);
    world.run(50_000);
    world.sample();
    let now = MonoMs(world.now);
    let full = Room { live: false, backlog: false };
    assert_eq!(world.agent.poll_transmit(now, full), None);
    assert!(world.agent.poll_timeout(full).is_some_and(|at| at > now));
    assert!(world.agent.poll_timeout(ROOM).is_some_and(|at| at <= now));
}

#[test]
fn an_end_that_is_closed_says_nothing_more() {
    let mut agent = AgentSession::new(profile(), Epoch(1), FrameSet::new());
    agent.handle(MonoMs(0), agent::Event::Connected { wall: WallMs(0), gaps: Vec::new() });
    agent.handle(MonoMs(WELCOME_MS), agent::Event::Timeout);
    assert_eq!(agent.poll_notice(), Some(agent::Notice::Close(CloseCode::TooSlow)));
    assert_eq!(agent.poll_transmit(MonoMs(WELCOME_MS), ROOM), None, "the Hello that never went out");
    agent.handle(MonoMs(WELCOME_MS), agent::Event::Control(CollectorControl::Drain { reconnect_after_ms: 1 }));
    assert_eq!(agent.poll_notice(), None);

    let mut collector = CollectorSession::new(MonoMs(0), NODE);
    let range = FrameRange { epoch: Epoch(1), range: SeqRange::one(Seq(0)) };
    for event in [
        collector::Event::Control(AgentControl::Hello(hello())),
        resumed(),
        collector::Event::Committed { range, urgent: true },
        collector::Event::NotStored { range, retry_after_ms: 1 },
        collector::Event::Control(AgentControl::Hello(hello())),
    ] {
        collector.handle(MonoMs(0), event);
    }
    assert!(
        std::iter::from_fn(|| collector.poll_notice()).any(|n| n == collector::Notice::Close(CloseCode::Unexpected))
    );
    assert_eq!(collector.poll_transmit(), None);
}

#[test]
fn a_hundred_gaps_are_no_flood_and_are_all_said() {
    let gap = |n: u64| Gap {
        epoch: Epoch(0),
        range: SeqRange { first: Seq(10 * n), last: Seq(10 * n + 3) },
        from: WallMs(0),
        to: WallMs(0),
        reason: GapReason::Overflow,
    };
    let mut agent = AgentSession::new(profile(), Epoch(1), FrameSet::new());
    agent.handle(MonoMs(0), agent::Event::Connected { wall: WallMs(0), gaps: (0..100).map(gap).collect() });
    assert!(matches!(agent.poll_transmit(MonoMs(0), ROOM), Some(Transmit::Control(AgentControl::Hello(_)))));
    agent.handle(MonoMs(0), agent::Event::Control(welcome_of_nothing()));
    let mut said = Vec::new();
    for _ in 0..100 {
        let before = said.len();
        while let Some(transmit) = agent.poll_transmit(MonoMs(0), ROOM) {
            match transmit {
                Transmit::Control(AgentControl::Gap(gap)) => said.push(gap),
                other => panic!("{other:?} where only gaps are left"),
            }
        }
        assert!(said.len() - before <= 16, "{} at once", said.len() - before);
        let acked = said[before..].iter().map(|gap| FrameRange { epoch: gap.epoch, range: gap.range });
        agent.handle(MonoMs(0), agent::Event::Control(CollectorControl::Ack(acked.take(ACK_RANGES_MAX).collect())));
        // What one Ack cannot name follows in the next.
        let rest =
            said[before..].iter().skip(ACK_RANGES_MAX).map(|gap| FrameRange { epoch: gap.epoch, range: gap.range });
        agent.handle(MonoMs(0), agent::Event::Control(CollectorControl::Ack(rest.collect())));
    }
    assert_eq!(said, (0..100).map(gap).collect::<Vec<_>>());
}

#[test]
fn a_hello_lists_gaps_that_are_not_confirmed_beside_what_is_spooled() {
    let gap = |epoch, first, last| Gap {
        epoch: Epoch(epoch),
        range: SeqRange { first: Seq(first), last: Seq(last) },
        from: WallMs(0),
        to: WallMs(0),
        reason: GapReason::Overflow,
    };
    let mut agent = AgentSession::new(profile(), Epoch(3), FrameSet::new());
    for seq in 7..9 {
        agent.handle(MonoMs(0), agent::Event::Sampled(FrameId::new(3, seq)));
    }
    let gaps = vec![gap(1, 4, 6), gap(3, 0, 5)];
    agent.handle(MonoMs(0), agent::Event::Connected { wall: WallMs(0), gaps });
    let Some(Transmit::Control(AgentControl::Hello(hello))) = agent.poll_transmit(MonoMs(0), ROOM) else {
        panic!("a Hello comes first")
    };
    let listed =
        |epoch, first, last| Spooled { epoch: Epoch(epoch), range: SeqRange { first: Seq(first), last: Seq(last) } };
    assert_eq!(
        hello.spooled,
        [listed(1, 4, 6), listed(3, 0, 8)],
        "a gap that is not told yet is not taken for lost here"
    );
}

fn welcome_of_nothing() -> CollectorControl {
    welcome_after(0, 0)
}

fn welcome_after(start_after_ms: u32, backlog_gap_ms: u32) -> CollectorControl {
    CollectorControl::Welcome(crate::wire::Welcome {
        wire: 1,
        collector_version: String::new(),
        held: Vec::new(),
        start_after_ms,
        config: Config { interval_ms: 0, backlog_gap_ms },
        wall: WallMs(0),
        next_authority: Vec::new(),
    })
}

#[test]
fn a_goodbye_that_nobody_confirmed_is_told_by_the_next_run() {
    let mut first = AgentSession::new(profile(), Epoch(4), FrameSet::new());
    first.handle(MonoMs(0), agent::Event::Sampled(FrameId::new(4, 0)));
    assert_eq!(first.unsaid(), []);
    first.handle(MonoMs(1), agent::Event::Stop(StopReason::Stopped));
    let goodbye = Goodbye { epoch: Epoch(4), next_seq: Seq(1), reason: StopReason::Stopped };
    assert_eq!(first.unsaid(), [goodbye]);

    let mut next = AgentSession::new(Profile { ended: first.unsaid(), ..profile() }, Epoch(5), FrameSet::new());
    next.handle(MonoMs(0), agent::Event::Connected { wall: WallMs(0), gaps: Vec::new() });
    match next.poll_transmit(MonoMs(0), ROOM) {
        Some(Transmit::Control(AgentControl::Hello(hello))) => assert_eq!(hello.ended, [goodbye]),
        other => panic!("an agent begins with a Hello, not {other:?}"),
    }
    next.handle(MonoMs(1), agent::Event::Control(welcome_of_nothing()));
    assert_eq!(next.unsaid(), [], "it is told");
}

#[test]
fn an_agent_that_became_another_node_says_so_in_its_next_hello() {
    let mut agent = AgentSession::new(profile(), Epoch(1), FrameSet::new());
    let changed =
        Profile { node: NodeId::from_bytes([9; 16]), name: String::from("later"), interval_ms: 5_000, ..profile() };
    agent.introduce_as(changed.clone());
    agent.handle(MonoMs(0), agent::Event::Connected { wall: WallMs(0), gaps: Vec::new() });
    let room = Room { live: true, backlog: true };
    let Some(Transmit::Control(AgentControl::Hello(hello))) = agent.poll_transmit(MonoMs(0), room) else {
        panic!("a Hello comes first")
    };
    assert_eq!((hello.node, hello.name.as_str(), hello.interval_ms), (changed.node, "later", 5_000));
    assert_eq!(agent.profile().node, changed.node);
}
