//! Everything together: hosts, connections and one collector, the weather, and the final account.
//! A step is a tenth of a second; what arrives in it is committed together, unless the disk is slow.

use std::collections::BTreeMap;

use dunlin_shared::frame::BodyKind;
use dunlin_shared::id::{Epoch, FrameId, NodeId, Seq};
use dunlin_shared::limits::ACK_RANGES_MAX;
use dunlin_shared::metric::by_name;
use dunlin_shared::range::FrameSet;
use dunlin_shared::sample::{ABSENT, Reading};
use dunlin_shared::session::CollectorSession;
use dunlin_shared::session::collector::{Event, Notice, Resumption};
use dunlin_shared::time::MonoMs;
use dunlin_shared::wire::{AgentControl, CloseCode, CollectorControl, Config, FrameRange, Item, Lane};
use dunlin_tests::random::Random;
use dunlin_tests::scratch::Scratch;

use crate::collector::{Collector, Owed, mono};
use crate::host::{Content, Host, Wish};
use crate::link::{BACKLOG, CONTROL, LIVE, Link};
use crate::note;

const STEP_MS: u64 = 100;
const HOUR_MS: i64 = 3_600_000;
/// Everything is delivered within this once nothing breaks any more, or something is stuck.
const SETTLE_MS: u64 = 3 * 3_600_000;

pub(crate) struct World {
    random: Random,
    now: u64,
    hosts: Vec<Host>,
    links: BTreeMap<usize, Link>,
    next_link: usize,
    collector: Collector,
    disk_full_until: u64,
    disk_slow_until: u64,
    paused_until: u64,
    partitioned: Vec<u64>,
    is_settling: bool,
    _scratch: Scratch,
}

pub(crate) struct Sums {
    pub(crate) sampled: u64,
    pub(crate) stored: u64,
    pub(crate) gapped: u64,
    pub(crate) died: u64,
    pub(crate) fired: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let scratch = Scratch::in_memory("sim").expect("a temporary directory is writable");
        let hosts: Vec<_> = (0..3).map(|n| Host::new(n, scratch.join(&n.to_string()), &mut random)).collect();
        Self {
            random,
            now: 1_000,
            partitioned: vec![0; hosts.len()],
            hosts,
            links: BTreeMap::new(),
            next_link: 0,
            collector: Collector::new(1_000),
            disk_full_until: 0,
            disk_slow_until: 0,
            paused_until: 0,
            is_settling: false,
            _scratch: scratch,
        }
    }

    pub(crate) fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            if self.random.chance(0.004) {
                self.misfortune();
            }
            self.step();
        }
    }

    /// Nothing breaks any more and nothing new is sampled: all that is left must arrive.
    pub(crate) fn settle(&mut self) {
        note(format!("{} settles", self.now));
        self.is_settling = true;
        (self.disk_full_until, self.disk_slow_until, self.paused_until) = (0, 0, 0);
        self.partitioned.fill(0);
        self.links.values_mut().for_each(|link| (link.frozen_until, link.lane_room) = (0, 4));
        let end = self.now + SETTLE_MS;
        let at_rest = |host: &Host| host.agent.as_ref().is_some_and(|agent| agent.link.is_some() && agent.is_at_rest());
        while !self.hosts.iter().all(at_rest) {
            assert!(self.now < end, "what is left never arrives");
            self.step();
        }
        self.collector.commit(true);
    }

    fn step(&mut self) {
        self.now += STEP_MS;
        for host in 0..self.hosts.len() {
            self.agent_side(host);
        }
        if self.now >= self.paused_until {
            let links: Vec<_> = self.links.keys().copied().collect();
            links.into_iter().for_each(|link| self.collector_side(link));
            self.collector.tick_if_due(self.now);
            if self.now >= self.disk_slow_until || self.random.chance(0.1) {
                self.commit();
            }
        }
        self.links.retain(|_, link| link.agent_is_there || link.session.is_some());
    }

    fn agent_side(&mut self, number: usize) {
        let (now, random) = (self.now, &mut self.random);
        let host = &mut self.hosts[number];
        if host.agent.is_none() && now >= host.start_at {
            host.start(now);
            note(format!("{now} host {number} starts epoch {}", host.epoch));
        }
        if !self.is_settling {
            host.sample_if_due(now, random);
        }
        let Some(agent) = host.agent.as_mut() else { return };
        if agent.link.is_none() && now >= agent.retry_at && now >= self.partitioned[number] {
            let id = self.next_link;
            self.next_link += 1;
            let mut link = Link::new(number, CollectorSession::new(mono(now), host.id), random);
            if self.is_settling {
                (link.delay_ms, link.lane_room) = (5, 4);
            }
            self.links.insert(id, link);
            agent.link = Some(id);
            let wall = host.wall(now);
            let gaps = host.agent.as_mut().map(|agent| {
                agent.line.connected(MonoMs(now), wall);
                agent.line.spool().gaps().len()
            });
            note(format!("{now} host {number} connects as {id}, gaps {gaps:?}"));
        }
        let id = host.agent.as_ref().and_then(|agent| agent.link);
        let mut acknowledged = Vec::new();
        if let Some(link) = id.and_then(|id| self.links.get_mut(&id)) {
            if link.has_idled(now) {
                link.leave(now, random);
                host.disconnected(now, random);
                note(format!("{now} host {number} finds its connection idle"));
            } else if !link.is_frozen(now) {
                hear(host, link, now);
            }
        }
        let id = host.agent.as_ref().and_then(|agent| agent.link);
        host.speak(now, id.and_then(|id| self.links.get_mut(&id)), random);
        let wish = host.act(now, random, &mut acknowledged);
        if let (Some(_), Some(link)) = (&wish, id.and_then(|id| self.links.get_mut(&id))) {
            link.leave(now, random);
        }
        if matches!(wish, Some(Wish::Exit)) {
            host.exit();
            host.start_at = now + random.below(60_000);
            note(format!("{now} host {number} stops"));
        }
        let stored = self.collector.journalled.get(&self.hosts[number].id);
        for range in acknowledged {
            assert!(holds(stored, range), "{range:?} of host {number} is acknowledged and not in the journal");
        }
    }

    fn collector_side(&mut self, id: usize) {
        let now = self.now;
        let Some(link) = self.links.get_mut(&id) else { return };
        let node = self.hosts[link.host].id;
        let gone = link.gone_at.is_some_and(|at| now >= at) || link.has_idled(now);
        let Some(session) = link.session.as_mut() else { return };
        if gone {
            link.session = None;
            self.collector.ended(now, id, node, false);
            return;
        }
        if session.poll_timeout().is_some_and(|at| now >= at.0) {
            session.handle(mono(now), Event::Timeout);
        }
        if !link.is_frozen(now) {
            let first = usize::try_from(self.random.below(3)).unwrap_or(0);
            for pipe in (0..3).map(|n| (first + n) % 3) {
                self.read(id, pipe, node);
            }
        }
        self.act(id, node);
        self.pump(id);
    }

    fn read(&mut self, id: usize, pipe: usize, node: NodeId) {
        let now = self.now;
        while let Some(bytes) = self.links.get_mut(&id).and_then(|link| link.up[pipe].arrive(now)) {
            let Some(link) = self.links.get_mut(&id) else { return };
            link.deframers[pipe].push(&bytes);
            loop {
                let Some(link) = self.links.get_mut(&id) else { return };
                let Some(session) = link.session.as_mut() else { return };
                let Some(body) = link.deframers[pipe].next_message().expect("an honest peer") else { break };
                if pipe == CONTROL {
                    let message = AgentControl::decode(body).expect("an honest peer");
                    session.handle(mono(now), Event::Control(message));
                    self.act(id, node);
                    continue;
                }
                let lane = if pipe == LIVE { Lane::Live } else { Lane::Backlog };
                assert!(pipe == LIVE || pipe == BACKLOG);
                let item = Item::decode(body).expect("an honest peer");
                let Some(frame) = link.assemblers[pipe].push(&item).expect("an honest peer") else {
                    session.handle(mono(now), Event::Piece);
                    continue;
                };
                session.handle(mono(now), Event::Frame { lane, id: frame.id });
                if self.act(id, node) {
                    self.collector.frame(now, id, node, lane, frame);
                }
            }
        }
    }

    /// Does what the session decided. Whether it goes on.
    fn act(&mut self, id: usize, node: NodeId) -> bool {
        let now = self.now;
        loop {
            let Some(link) = self.links.get_mut(&id) else { return false };
            let Some(session) = link.session.as_mut() else { return false };
            let Some(notice) = session.poll_notice() else { return true };
            match notice {
                Notice::Greeted(hello) => {
                    let held = self.collector.hello(now, id, &hello);
                    let wall = self.collector.wall(now);
                    session.handle(
                        mono(now),
                        Event::Resumed(Resumption {
                            collector_version: String::new(),
                            held,
                            start_after_ms: u32::try_from(self.random.below(2_000)).unwrap_or(0),
                            config: Config { interval_ms: 0, backlog_gap_ms: 3 },
                            wall,
                            next_authority: Vec::new(),
                        }),
                    );
                    let host = link.host;
                    self.supersede(id, host);
                }
                Notice::Accepted { .. } | Notice::Present { .. } => {}
                Notice::Heartbeat => self.collector.heartbeat(now, id, node),
                Notice::Gap(gap) => self.collector.gap(now, id, node, gap),
                Notice::Goodbye(goodbye) => self.collector.goodbye(now, id, node, goodbye),
                Notice::Close(code) => {
                    assert!(code == CloseCode::TooSlow, "an honest agent is closed with {code:?}");
                    self.close(id);
                    return false;
                }
            }
        }
    }

    fn supersede(&mut self, newest: usize, host: usize) {
        let before =
            self.links.iter().filter(|(id, link)| **id < newest && link.host == host && link.session.is_some());
        for id in before.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.close(id);
        }
    }

    /// The collector's end closes; the agent hears of it unless it is cut off, and then it idles.
    fn close(&mut self, id: usize) {
        let now = self.now;
        let Some(link) = self.links.get_mut(&id) else { return };
        link.session = None;
        self.collector.ended(now, id, self.hosts[link.host].id, false);
        if link.agent_is_there {
            link.agent_is_there = false;
            note(format!("{now} the collector closes {id}"));
            self.hosts[link.host].disconnected(now, &mut self.random);
        }
    }

    fn pump(&mut self, id: usize) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(session) = link.session.as_mut() else { return };
        while let Some(message) = session.poll_transmit() {
            if let CollectorControl::Ack(ranges) = &message {
                assert!(ranges.len() <= ACK_RANGES_MAX);
            }
            let at = self.now + self.random.below(link.delay_ms);
            link.down.send(at, message.encode());
        }
    }

    fn commit(&mut self) {
        let works = self.now >= self.disk_full_until;
        let owed = std::mem::take(&mut self.collector.owed);
        self.collector.commit(works);
        for owed in owed {
            let (id, event) = match owed {
                Owed::Frame { link, id, urgent } => {
                    let range = FrameRange { epoch: id.epoch, range: dunlin_shared::range::SeqRange::one(id.seq) };
                    (link, answer(range, urgent, works))
                }
                Owed::Gap { link, gap } => {
                    (link, answer(FrameRange { epoch: gap.epoch, range: gap.range }, true, works))
                }
                Owed::Goodbye { link } if works => (link, Event::GoodbyeCommitted),
                Owed::Goodbye { .. } => continue,
            };
            if let Some(session) = self.links.get_mut(&id).and_then(|link| link.session.as_mut()) {
                session.handle(mono(self.now), event);
            }
        }
        let links: Vec<_> = self.links.keys().copied().collect();
        links.into_iter().for_each(|link| self.pump(link));
    }

    fn misfortune(&mut self) {
        let now = self.now;
        let number = usize::try_from(self.random.below(self.hosts.len() as u64)).unwrap_or(0);
        let long = self.random.below(90_000);
        let what = self.random.below(16);
        match what {
            0 | 1 => self.cut(number),
            2 | 3 => self.freeze(number, now + long),
            4 => (0..self.hosts.len()).for_each(|host| self.freeze(host, now + long)),
            5 => {
                self.leave(number);
                self.hosts[number].kill();
                self.hosts[number].start_at = now + long;
            }
            6 => self.hosts[number].stop(now),
            7 | 8 => self.disk_full_until = now + long / 3,
            9 => self.disk_slow_until = now + long / 3,
            10 | 11 => {
                note(format!("{now} the collector restarts"));
                self.paused_until = now;
                let links: Vec<_> = self.links.keys().copied().collect();
                links.into_iter().for_each(|link| self.sever(link));
                self.collector.restart(now);
            }
            12 => self.collector.rotate(),
            13 => self.paused_until = now + long,
            14 => self.hosts[number].wall_offset_ms = self.hours(),
            _ => self.collector.wall_offset_ms = self.hours(),
        }
        note(format!("{now} misfortune {what} of host {number} for {long} ms"));
    }

    fn hours(&mut self) -> i64 {
        (self.random.below(9).cast_signed() - 4) * HOUR_MS
    }

    fn freeze(&mut self, host: usize, until: u64) {
        self.partitioned[host] = until;
        for link in self.links.values_mut().filter(|link| link.host == host) {
            if !link.is_frozen(self.now) {
                link.frozen_since = Some(self.now);
            }
            link.frozen_until = until;
        }
    }

    /// Both ends lose the connection; what is under way is lost but for a part.
    fn cut(&mut self, host: usize) {
        self.leave(host);
        self.hosts[host].disconnected(self.now, &mut self.random);
    }

    fn leave(&mut self, host: usize) {
        let id = self.hosts[host].agent.as_ref().and_then(|agent| agent.link);
        if let Some(link) = id.and_then(|id| self.links.get_mut(&id)) {
            link.leave(self.now, &mut self.random);
        }
    }

    /// The collector's end is gone without a word.
    fn sever(&mut self, id: usize) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.session = None;
        if link.agent_is_there {
            link.agent_is_there = false;
            self.hosts[link.host].disconnected(self.now, &mut self.random);
        }
    }

    /// Each frame that was ever sampled is stored as it was, within a gap that was said, or gone with an agent that
    /// is known to have died.
    pub(crate) fn judge(&mut self) -> Sums {
        let mut stored: BTreeMap<NodeId, FrameSet> = BTreeMap::new();
        let (hosts, collector) = (&self.hosts, &self.collector);
        collector.read_back(|node, frame, reading| {
            let host = hosts.iter().find(|host| host.id == node).expect("one of ours");
            judge_content(&host.truth[&frame.id], frame.kind, &frame.body, reading);
            stored.entry(node).or_default().insert(frame.id);
        });
        let mut sums = Sums { sampled: 0, stored: 0, gapped: 0, died: 0, fired: collector.fired };
        for (number, host) in hosts.iter().enumerate() {
            let heard_of = collector.heard_of.get(&host.id).map_or(&[][..], Vec::as_slice);
            let said: Vec<_> =
                collector.said_lost.iter().filter(|(id, _)| *id == host.id).map(|(_, gap)| gap).collect();
            for &id in host.truth.keys() {
                sums.sampled += 1;
                let is = |set: Option<&FrameSet>| set.is_some_and(|set| set.contains(id));
                if is(stored.get(&host.id)) {
                    sums.stored += 1;
                } else if is(collector.journalled.get(&host.id)) {
                    sums.gapped += 1;
                } else {
                    assert!(host.died.contains(id), "{id} of host {number} is lost without a word");
                    sums.died += 1;
                    // Nobody can say what became of a run that the collector never heard of.
                    let is_said = said.iter().any(|gap| {
                        gap.epoch == id.epoch
                            && gap.count.is_none_or(|count| {
                                count
                                    >= missing(host, id.epoch, stored.get(&host.id), collector.journalled.get(&host.id))
                            })
                    });
                    assert!(
                        is_said || !heard_of.contains(&id.epoch),
                        "the death with {id} of host {number} is not said"
                    );
                }
            }
        }
        sums
    }
}

fn hear(host: &mut Host, link: &mut Link, now: u64) {
    while let Some(bytes) = link.down.arrive(now) {
        link.heard.push(&bytes);
        while let Some(body) = link.heard.next_message().expect("an honest peer") {
            let message = CollectorControl::decode(body).expect("an honest peer");
            if let Some(agent) = host.agent.as_mut() {
                agent.line.hear(MonoMs(now), message);
            }
        }
    }
}

const fn answer(range: FrameRange, urgent: bool, works: bool) -> Event {
    if works { Event::Committed { range, urgent } } else { Event::NotStored { range, retry_after_ms: 5_000 } }
}

fn holds(set: Option<&FrameSet>, range: FrameRange) -> bool {
    let known = set.and_then(|set| set.epoch(range.epoch));
    known.is_some_and(|known| known.ranges().iter().any(|r| r.first <= range.range.first && range.range.last <= r.last))
}

/// How many frames of a run are neither stored nor said to be lost.
fn missing(host: &Host, epoch: Epoch, stored: Option<&FrameSet>, journalled: Option<&FrameSet>) -> u64 {
    let first = FrameId { epoch, seq: Seq(0) };
    let last = FrameId { epoch, seq: Seq(u64::MAX) };
    let lost = |id: FrameId| ![stored, journalled].into_iter().flatten().any(|set| set.contains(id));
    host.truth.range(first..=last).filter(|(id, _)| lost(**id)).count() as u64
}

fn judge_content(truth: &Content, kind: BodyKind, body: &[u8], reading: Option<&Reading>) {
    match truth {
        Content::Inventory(bytes) => {
            assert!(kind == BodyKind::Inventory && body == bytes, "the inventory is what it was")
        }
        Content::Values(wall, values) => {
            let reading = reading.expect("a frame of values has a reading");
            assert_eq!(reading.wall, *wall);
            let present = reading.values.iter().filter(|&&value| value != ABSENT).count();
            assert_eq!(present, values.len(), "no value more and none less");
            for (subject, metric, value) in values {
                let read = reading.value(subject, metric).expect("it was sampled");
                let step = by_name(metric).expect("a catalogue metric").step.value(1);
                assert!((read - value).abs() <= step / 2.0, "{subject} was {value} and is {read}");
            }
        }
    }
}
