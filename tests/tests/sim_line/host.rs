//! A host: the agent's real line with a clock, a spool and a connection, and what it would lose by dying.
//! It plays the agent's shell, and judges what the line says: the newest frame first, and the backlog's pace.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dunlin_agent::line::{Line, Outgoing};
use dunlin_agent::spool::Spool;
use dunlin_shared::id::{Epoch, FrameId, NodeId, Seq};
use dunlin_shared::inventory::{Facts, Inventory};
use dunlin_shared::limits::LAST_FRAMES_MAX;
use dunlin_shared::metric::by_name;
use dunlin_shared::range::FrameSet;
use dunlin_shared::sample::{Sample, Subject, SubjectKind};
use dunlin_shared::session::agent::{Notice, Profile, Room};
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::{Deframer, FrameRange, Item, Lane, StopReason};
use dunlin_tests::random::Random;

use crate::link::{BACKLOG, CONTROL, LIVE, Link};

pub(crate) const WALL: i64 = 1_700_000_000_000;

/// What was sampled: the subject and the metric with the value that was measured, or the inventory's bytes.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Values(WallMs, Vec<(Subject, &'static str, f64)>),
    Inventory(Vec<u8>),
}

pub(crate) struct Host {
    pub(crate) id: NodeId,
    dir: PathBuf,
    disk_bytes: Option<u64>,
    ram_bytes: usize,
    pub(crate) interval_ms: u64,
    pub(crate) wall_offset_ms: i64,
    pub(crate) epoch: u32,
    next_seq: u64,
    pub(crate) agent: Option<Agent>,
    /// When an agent that is not there starts again.
    pub(crate) start_at: u64,
    pub(crate) truth: BTreeMap<FrameId, Content>,
    /// Held, or to be said as a gap, when an agent died, and gone with it.
    pub(crate) died: FrameSet,
}

pub(crate) struct Agent {
    pub(crate) line: Line,
    tick_at: u64,
    pub(crate) link: Option<usize>,
    pub(crate) retry_at: u64,
    stay_away_ms: Option<u64>,
    is_stopping: bool,
}

/// What the agent wants of the world.
pub(crate) enum Wish {
    Disconnect,
    Exit,
}

impl Host {
    pub(crate) fn new(number: usize, dir: PathBuf, random: &mut Random) -> Self {
        let on_disk = random.chance(0.35);
        let small = random.chance(0.5);
        Self {
            id: NodeId::v7(number as u64, [1; 10]),
            dir,
            disk_bytes: on_disk.then_some(if small { 6_000 } else { 1 << 20 }),
            ram_bytes: if small { 4_000 } else { 64 * 1024 },
            interval_ms: [1_000, 3_000, 10_000][usize::try_from(random.below(3)).unwrap_or(0)],
            wall_offset_ms: 0,
            epoch: 0,
            next_seq: 0,
            agent: None,
            start_at: random.below(10_000),
            truth: BTreeMap::new(),
            died: FrameSet::new(),
        }
    }

    pub(crate) fn wall(&self, now: u64) -> WallMs {
        WallMs(WALL + now.cast_signed() + self.wall_offset_ms)
    }

    pub(crate) fn start(&mut self, now: u64) {
        self.epoch += 1;
        self.next_seq = 0;
        let (spool, recovered) = Spool::open(&self.dir, self.ram_bytes, self.disk_bytes);
        assert!(recovered.epoch_max.is_none_or(|epoch| epoch.0 < self.epoch), "an epoch of the future is on disk");
        let interval_ms = u32::try_from(self.interval_ms).expect("an interval is short");
        let (name, agent_version) = (String::from("sim"), String::from("0.1.0"));
        let profile = Profile { node: self.id, name, agent_version, boot_id: [0; 16], interval_ms, ended: Vec::new() };
        // What was held when it died and is not held now died with it.
        let now_held = owed(&spool);
        for (epoch, set) in now_held.epochs() {
            set.ranges().iter().for_each(|&range| self.died.remove_range(FrameRange { epoch, range }));
        }
        let line = Line::new(profile, Epoch(self.epoch), spool);
        self.agent =
            Some(Agent { line, tick_at: now, link: None, retry_at: now, stay_away_ms: None, is_stopping: false });
        self.take_inventory(now);
    }

    /// Gone at once, with what was in memory.
    pub(crate) fn kill(&mut self) {
        if let Some(agent) = self.agent.take() {
            add(&mut self.died, &owed(agent.line.spool()));
        }
    }

    /// A clean end: what is left is parked.
    pub(crate) fn exit(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.line.spool_mut().park(&self.dir).expect("the temporary directory is writable");
            add(&mut self.died, &owed(agent.line.spool()));
        }
    }

    pub(crate) fn stop(&mut self, now: u64) {
        if let Some(agent) = self.agent.as_mut() {
            agent.is_stopping = true;
            agent.line.stop(MonoMs(now), StopReason::Stopped);
        }
    }

    fn take_inventory(&mut self, now: u64) {
        let wall = self.wall(now);
        let facts = Facts { host_name: format!("sim {now}"), ..Facts::default() };
        let inventory = Inventory::Facts(facts);
        self.remember(Content::Inventory(inventory.encode()));
        if let Some(agent) = self.agent.as_mut() {
            agent.line.take_inventory(MonoMs(now), wall, &inventory);
        }
    }

    fn remember(&mut self, content: Content) {
        let id = FrameId { epoch: Epoch(self.epoch), seq: Seq(self.next_seq) };
        self.next_seq += 1;
        assert!(self.truth.insert(id, content).is_none(), "an agent numbers each frame once");
    }

    pub(crate) fn sample_if_due(&mut self, now: u64, random: &mut Random) {
        let Some(agent) = self.agent.as_mut().filter(|agent| now >= agent.tick_at && !agent.is_stopping) else {
            return;
        };
        agent.tick_at = now + self.interval_ms;
        let (wall, mut values) = (self.wall(now), Vec::new());
        let mut sample = Sample::new(MonoMs(now), wall);
        let most = if random.chance(0.1) { 12 } else { 3 };
        let mounts = 1 + random.below(most);
        for mount in 0..mounts {
            let subject = Subject::new(SubjectKind::Fs, &format!("/{mount}")).expect("a mount point");
            let metric = by_name("fs_used_bytes").expect("a catalogue metric");
            let value = f64::from(u32::try_from(random.below(1 << 30)).expect("below 2^32"));
            sample.push(&subject, metric, value);
            values.push((subject, metric.name, value));
        }
        self.remember(Content::Values(wall, values));
        if let Some(agent) = self.agent.as_mut() {
            agent.line.take_sample(MonoMs(now), &sample);
        }
        if random.chance(0.02) {
            self.take_inventory(now);
        }
    }

    /// Time passes, and what there is to say is put on the wire.
    pub(crate) fn speak(&mut self, now: u64, link: Option<&mut Link>, random: &mut Random) {
        let (epoch, interval_ms) = (Epoch(self.epoch), self.interval_ms);
        let Some(agent) = self.agent.as_mut() else { return };
        if agent.line.poll_timeout(Room { live: true, backlog: true }).is_some_and(|at| now >= at.0) {
            agent.line.pass_time(MonoMs(now));
        }
        let Some(link) = link else {
            let none = agent.line.poll_outgoing(MonoMs(now), Room { live: false, backlog: false });
            assert!(none.is_none(), "an agent without a connection says nothing");
            return;
        };
        loop {
            let free = |pipe: usize| link.up[pipe].len() < link.lane_room;
            let room = Room { live: free(LIVE), backlog: free(BACKLOG) };
            let newest = agent.line.session().unacknowledged().epoch(epoch).and_then(|set| set.last());
            let Some(outgoing) = agent.line.poll_outgoing(MonoMs(now), room) else { break };
            let (pipe, bytes) = match outgoing {
                Outgoing::Control(bytes) => (CONTROL, bytes),
                Outgoing::Frame(Lane::Live, bytes) => {
                    if !link.sent_first {
                        assert_eq!(
                            Some(first_id(&bytes)),
                            newest.map(|seq| FrameId { epoch, seq }),
                            "the newest goes first"
                        );
                    }
                    link.sent_first = true;
                    (LIVE, bytes)
                }
                Outgoing::Frame(Lane::Backlog, bytes) => {
                    assert!(
                        link.sent_first || !room.live || newest.is_none(),
                        "the backlog waits for the newest frame"
                    );
                    link.last_frames += u64::from(agent.is_stopping);
                    assert!(link.last_frames <= LAST_FRAMES_MAX, "more than a few frames at its end");
                    let early = link.backlog_at.is_some_and(|at| now < at + interval_ms / 2) && !agent.is_stopping;
                    assert!(!early, "a backlog frame {} ms after the one before", now - link.backlog_at.unwrap_or(0));
                    link.backlog_at = Some(now);
                    link.sent_first = true;
                    (BACKLOG, bytes)
                }
            };
            let at = now + random.below(link.delay_ms);
            link.up[pipe].send(at, bytes);
        }
    }

    /// What the line decided, and what the shell must do for it.
    pub(crate) fn act(&mut self, now: u64, random: &mut Random, acknowledged: &mut Vec<FrameRange>) -> Option<Wish> {
        let agent = self.agent.as_mut()?;
        let mut wish = None;
        while let Some(notice) = agent.line.poll_notice() {
            match notice {
                Notice::Acknowledged(range) => acknowledged.push(range),
                Notice::ReconnectAfter { ms } => agent.stay_away_ms = Some(u64::from(ms)),
                Notice::Close(_) if agent.is_stopping => wish = Some(Wish::Exit),
                Notice::Close(_) => wish = Some(Wish::Disconnect),
                Notice::Welcomed { .. }
                | Notice::NotStored { .. }
                | Notice::Interval { .. }
                | Notice::Certificate { .. }
                | Notice::Authority { .. }
                | Notice::InventoryAsked => {}
            }
        }
        if let Some(Wish::Disconnect) = wish {
            self.disconnected(now, random);
        }
        wish
    }

    pub(crate) fn disconnected(&mut self, now: u64, random: &mut Random) {
        if let Some(agent) = self.agent.as_mut() {
            agent.link = None;
            agent.line.disconnected(MonoMs(now));
            agent.retry_at = now + agent.stay_away_ms.take().unwrap_or_else(|| 100 + random.below(8_000));
        }
    }
}

impl Agent {
    pub(crate) fn is_at_rest(&self) -> bool {
        self.line.spool().len_frames() == 0 && self.line.spool().gaps().is_empty()
    }
}

/// Everything that the spool still owes the collector, frames and gaps alike.
fn owed(spool: &Spool) -> FrameSet {
    let mut set = FrameSet::new();
    for spooled in spool.spooled() {
        let held = spool.unacknowledged(spooled.epoch).ranges().iter();
        held.for_each(|&range| set.insert_range(FrameRange { epoch: spooled.epoch, range }));
    }
    spool.gaps().iter().for_each(|gap| set.insert_range(FrameRange { epoch: gap.epoch, range: gap.range }));
    set
}

fn add(set: &mut FrameSet, more: &FrameSet) {
    for (epoch, ranges) in more.epochs() {
        ranges.ranges().iter().for_each(|&range| set.insert_range(FrameRange { epoch, range }));
    }
}

fn first_id(bytes: &[u8]) -> FrameId {
    let mut deframer = Deframer::default();
    deframer.push(bytes);
    let body = deframer.next_message().expect("our own bytes").expect("a whole message");
    Item::decode(body).expect("our own item").id()
}
