//! The rows of the promises on liveness, with a fleet of 10,000 nodes.

use super::*;

/// Nodes that speak every ten seconds, a tenth of them each second.
pub(super) struct Fleet {
    pub(super) line: Line,
    is_silent: Vec<bool>,
    second: u32,
    /// All effects, with the second in which they came.
    pub(super) told: Vec<(u32, Effect)>,
}

impl Fleet {
    /// All are up for a minute and more.
    pub(super) fn new(size: usize) -> Self {
        let mut fleet = Self { line: Line::new(), is_silent: vec![false; size], second: 0, told: Vec::new() };
        fleet.line.ticks(60);
        for node in 0..size {
            fleet.line.put(heartbeat(key(node)));
        }
        fleet.run(70);
        fleet.told.clear();
        fleet.second = 0;
        fleet
    }

    pub(super) fn run(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.second += 1;
            self.speak(|node, second| node % 10 == second % 10);
            let effects = self.line.tick();
            self.tell(effects);
        }
    }

    /// All come back over a minute, as they do to a collector that was away.
    pub(super) fn come_back(&mut self) {
        let began = self.second;
        for _ in 0..58 {
            self.second += 1;
            self.speak(|node, second| {
                let passed = (second - began as usize).checked_sub(node % 58);
                passed.is_some_and(|passed| passed % 10 == 0)
            });
            let effects = self.line.tick();
            self.tell(effects);
        }
    }

    pub(super) fn tell(&mut self, effects: Vec<Effect>) {
        self.told.extend(effects.into_iter().map(|effect| (self.second, effect)));
    }

    pub(super) fn silence(&mut self, nodes: impl IntoIterator<Item = usize>, is_silent: bool) {
        nodes.into_iter().for_each(|node| self.is_silent[node] = is_silent);
    }

    /// Nodes that went down by themselves, and when.
    pub(super) fn single_downs(&self) -> Vec<(u32, NodeKey)> {
        let single = |(second, effect): &(u32, Effect)| match effect {
            Effect::NodeState { node, to: NodeState::Down, cause: Cause::Silence, .. } => Some((*second, *node)),
            _ => None,
        };
        self.told.iter().filter_map(single).collect()
    }

    /// Mass losses as they are told: when, what, and whom they list.
    pub(super) fn masses(&self) -> Vec<(u32, &'static str, Vec<NodeKey>)> {
        let mass = |(second, effect): &(u32, Effect)| {
            let (Effect::MassLoss { nodes, .. } | Effect::MassGrew { nodes } | Effect::MassOver { down: nodes, .. }) =
                effect
            else {
                return None;
            };
            Some((*second, effect.event().expect("each is an event"), nodes.clone()))
        };
        self.told.iter().filter_map(mass).collect()
    }

    /// How many events of each kind the feed would hold.
    pub(super) fn events(&self) -> BTreeMap<&'static str, usize> {
        let mut events = BTreeMap::new();
        for kind in self.told.iter().filter_map(|(_, effect)| effect.event()) {
            *events.entry(kind).or_default() += 1;
        }
        events
    }

    fn speak(&mut self, speaks: impl Fn(usize, usize) -> bool) {
        let mut effects = Vec::new();
        for node in 0..self.is_silent.len() {
            if !self.is_silent[node] && speaks(node, self.second as usize) {
                effects.extend(self.line.put(heartbeat(key(node))));
            }
        }
        self.tell(effects);
    }
}

pub(super) fn key(node: usize) -> NodeKey {
    NodeKey(u32::try_from(node).expect("a small fleet"))
}

pub(super) fn keys(nodes: impl IntoIterator<Item = usize>) -> Vec<NodeKey> {
    nodes.into_iter().map(key).collect()
}

#[test]
fn agents_that_are_killed_are_down_15_to_35_s_later_once() {
    let mut fleet = Fleet::new(10_000);
    fleet.silence(4_000..4_010, true);
    fleet.run(600);
    let downs = fleet.single_downs();
    assert!(downs.iter().all(|(second, _)| (15..=35).contains(second)), "{downs:?}");
    let mut who: Vec<_> = downs.into_iter().map(|(_, node)| node).collect();
    who.sort_unstable();
    assert_eq!(who, keys(4_000..4_010));
    assert_eq!(fleet.events(), BTreeMap::from([("node.down", 10)]));
}

#[test]
fn agents_that_say_goodbye_are_stopped_and_never_down() {
    let mut fleet = Fleet::new(10_000);
    fleet.silence(0..3_000, true);
    for node in 0..3_000 {
        let goodbye = Goodbye { epoch: Epoch(1), next_seq: Seq(3), reason: StopReason::Stopped };
        let effects = fleet.line.put(Event::Goodbye { node: key(node), goodbye });
        fleet.tell(effects);
    }
    fleet.run(1_200);
    assert_eq!(fleet.events(), BTreeMap::from([("node.stopped", 3_000)]));
    assert_eq!(fleet.line.count(NodeState::Stopped), 3_000);
}

#[test]
fn a_collector_that_is_stopped_for_120_s_takes_nobody_for_down() {
    let mut fleet = Fleet::new(10_000);
    fleet.line.at = fleet.line.at.plus(120_400);
    let effects = fleet.line.put(Event::Tick { elapsed_ms: 120_400, paused_ms: 119_400 });
    fleet.tell(effects);
    fleet.come_back();
    fleet.run(300);
    assert_eq!(fleet.events(), BTreeMap::new());
    assert_eq!(fleet.line.count(NodeState::Up), 10_000);
}

#[test]
fn a_restart_takes_nobody_for_down_and_tells_of_nobody() {
    let mut fleet = Fleet::new(10_000);
    let effects = fleet.line.restart();
    assert_eq!(fleet.line.count(NodeState::Unknown), 10_000);
    fleet.tell(effects);
    fleet.come_back();
    fleet.run(300);
    assert_eq!(fleet.events(), BTreeMap::new());
    assert_eq!(fleet.line.count(NodeState::Up), 10_000);
}

#[test]
fn a_clock_that_moves_by_an_hour_takes_nobody_for_down() {
    for jump_ms in [HOUR_MS, -HOUR_MS] {
        let mut fleet = Fleet::new(10_000);
        fleet.line.at = fleet.line.at.plus(jump_ms);
        fleet.run(300);
        assert_eq!(fleet.events(), BTreeMap::new(), "a jump of {jump_ms} ms");
        assert_eq!(fleet.line.count(NodeState::Up), 10_000);
    }
}

#[test]
fn a_fifth_of_the_fleet_cut_off_is_one_loss_that_lists_them_within_60_s_and_no_single_down() {
    let mut fleet = Fleet::new(10_000);
    let cut = (0..10_000).filter(|node| node / 7 % 5 == 3);
    fleet.silence(cut.clone(), true);
    fleet.run(60);
    let cut = keys(cut);
    assert_eq!(fleet.events(), BTreeMap::from([("mass.loss", 1)]));
    assert_eq!(fleet.masses()[0].2, cut);
    assert_eq!(fleet.line.count(NodeState::Unknown), cut.len());
    fleet.run(1_000);
    assert_eq!(fleet.events(), BTreeMap::from([("mass.loss", 1), ("mass.over", 1)]));
    assert_eq!(fleet.masses()[1].2, cut);
    assert_eq!(fleet.line.count(NodeState::Down), cut.len());
}

#[test]
fn the_whole_fleet_cut_off_is_one_loss_and_over_when_it_is_back() {
    let mut fleet = Fleet::new(10_000);
    fleet.silence(0..10_000, true);
    fleet.run(300);
    assert_eq!(fleet.masses().len(), 1);
    assert_eq!(fleet.masses()[0].2, keys(0..10_000));
    fleet.silence(0..10_000, false);
    fleet.run(300);
    assert_eq!(fleet.events(), BTreeMap::from([("mass.loss", 1), ("mass.over", 1), ("node.up", 10_000)]));
    assert_eq!((fleet.line.count(NodeState::Up), fleet.line.engine.mass()), (10_000, None));
}

/// The delay of a message whose first datagram and whose probes are lost at random: a probe is two
/// datagrams, and the time to the next one doubles from a second on, which is slow.
fn delay_ms(random: &mut u64) -> i64 {
    let mut lost = |of: u64| {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*random >> 33).is_multiple_of(of)
    };
    let (mut delay_ms, mut probe_ms) = (0, 1_000);
    let mut is_lost = lost(10);
    while is_lost {
        delay_ms += probe_ms;
        probe_ms *= 2;
        is_lost = lost(100);
    }
    delay_ms
}

#[test]
fn an_hour_with_every_tenth_datagram_lost_takes_nobody_for_down() {
    let mut fleet = Fleet::new(10_000);
    fleet.silence(0..10_000, true);
    let mut random = 0x000d_0a1e;
    let mut arrives: Vec<Vec<usize>> = vec![Vec::new(); 3_700];
    let mut late = 0;
    for second in 0..3_600 {
        for node in (second % 10..10_000).step_by(10) {
            let delay_s = usize::try_from(delay_ms(&mut random) / 1_000).expect("it is positive");
            late += usize::from(delay_s > 0);
            if let Some(arriving) = arrives.get_mut(second + delay_s) {
                arriving.push(node);
            }
        }
        for node in std::mem::take(&mut arrives[second]) {
            let effects = fleet.line.put(heartbeat(key(node)));
            fleet.tell(effects);
        }
        let effects = fleet.line.tick();
        fleet.tell(effects);
    }
    assert!((350_000..370_000).contains(&late), "{late} of 3,600,000 messages were late");
    assert_eq!(fleet.events(), BTreeMap::new());
    assert_eq!(fleet.line.count(NodeState::Down), 0);
}
