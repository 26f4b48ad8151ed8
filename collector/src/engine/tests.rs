//! Liveness and the like on virtual time, by name of behaviour.

use dunlin_shared::id::NodeId;
use dunlin_shared::range::SeqRange;
use dunlin_shared::wire::{self, StopReason};
use proptest::prelude::*;

use super::*;

const HOUR_MS: i64 = 3_600_000;

/// A log under way, and the engine that it feeds.
struct Line {
    engine: Engine,
    at: WallMs,
}

impl Line {
    fn new() -> Self {
        Self { engine: Engine::default(), at: WallMs(1_700_000_000_000) }
    }

    fn put(&mut self, event: Event) -> Vec<Effect> {
        self.put_reading(event, None)
    }

    fn put_reading(&mut self, event: Event, reading: Option<Arc<Reading>>) -> Vec<Effect> {
        let pos = self.engine.applied().next();
        self.engine.apply(pos, &Record { at: self.at, event }, reading)
    }

    fn tick(&mut self) -> Vec<Effect> {
        self.at = self.at.plus(1_000);
        self.put(Event::Tick { elapsed_ms: 1_000, paused_ms: 0 })
    }

    /// What changed state in so many seconds, and in which second of them.
    fn ticks(&mut self, seconds: usize) -> Vec<(usize, NodeKey, NodeState)> {
        let mut turns = Vec::new();
        for second in 1..=seconds {
            turns.extend(self.tick().iter().filter_map(turn).map(|(node, to)| (second, node, to)));
        }
        turns
    }

    fn state(&self, node: NodeKey) -> NodeState {
        self.engine.node(node).map_or(NodeState::Unknown, |view| view.state)
    }

    fn count(&self, state: NodeState) -> usize {
        self.engine.counts().find(|(known, _)| *known == state).map_or(0, |(_, count)| count)
    }
}

fn turn(effect: &Effect) -> Option<(NodeKey, NodeState)> {
    match effect {
        Effect::NodeState { node, to, .. } => Some((*node, *to)),
        _ => None,
    }
}

const A: NodeKey = NodeKey(0);

fn heartbeat(node: NodeKey) -> Event {
    Event::Heartbeat { node }
}

fn hello(node: NodeKey, epoch: u32, before: Option<EarlierRun>) -> Event {
    let session = SessionStart {
        node: NodeId::v7(node.0.into(), [0; 10]),
        name: "host".into(),
        agent_version: "0.1.0".into(),
        boot_id: [0; 16],
        epoch: Epoch(epoch),
        interval_ms: 10_000,
        skew_ms: 0,
        before,
    };
    Event::Hello { node, session }
}

fn frame(lane: Lane, kind: BodyKind, epoch: u32, seq: u64) -> Event {
    Event::Frame { node: A, lane, frame: Frame { id: FrameId::new(epoch, seq), kind, body: vec![1] } }
}

fn goodbye(epoch: u32, next_seq: u64) -> Event {
    let goodbye = Goodbye { epoch: Epoch(epoch), next_seq: Seq(next_seq), reason: StopReason::Stopped };
    Event::Goodbye { node: A, goodbye }
}

fn run(epoch: u32, last: u64, count: u64) -> Option<EarlierRun> {
    Some(EarlierRun { epoch: Epoch(epoch), last: Some(Seq(last)), count, ended: None })
}

fn gaps(effects: Vec<Effect>) -> Vec<GapRecorded> {
    let gap = |effect| match effect {
        Effect::GapRecorded(gap) => Some(gap),
        _ => None,
    };
    effects.into_iter().filter_map(gap).collect()
}

#[test]
fn silence_makes_suspect_after_15_s_and_down_after_30() {
    let mut line = Line::new();
    line.ticks(100);
    line.at = line.at.plus(400);
    assert_eq!(line.put(heartbeat(A)).iter().filter_map(turn).collect::<Vec<_>>(), [(A, NodeState::Up)]);
    line.at = line.at.plus(-400);
    assert_eq!(line.ticks(300), [(16, A, NodeState::Suspect), (31, A, NodeState::Down)]);
    let view = line.engine.node(A).expect("it was seen");
    assert_eq!(view.since.since(view.last_seen), 30_600);
    assert_eq!(line.put(heartbeat(A)).iter().filter_map(turn).collect::<Vec<_>>(), [(A, NodeState::Up)]);
}

#[test]
fn a_heartbeat_every_10_s_keeps_a_node_up() {
    let mut line = Line::new();
    line.put(heartbeat(A));
    for _ in 0..360 {
        assert_eq!(line.ticks(10), []);
        assert_eq!(line.put(heartbeat(A)), []);
    }
    assert_eq!((line.count(NodeState::Up), line.engine.nodes().count()), (1, 1));
}

#[test]
fn a_lost_connection_is_not_yet_a_down_node() {
    let mut line = Line::new();
    line.ticks(100);
    line.put(hello(A, 1, None));
    assert_eq!(line.put(Event::Lost { node: A }), [Effect::SessionEnded { node: A, goodbye: None }]);
    assert_eq!(line.ticks(29), [(15, A, NodeState::Suspect)]);
    line.put(hello(A, 1, None));
    assert_eq!((line.state(A), line.ticks(14)), (NodeState::Up, vec![]));
}

#[test]
fn backlog_is_life_and_never_the_latest() {
    let mut line = Line::new();
    let reading = |mono| Some(Arc::new(Reading { mono: MonoMs(mono), ..Reading::default() }));
    line.put_reading(frame(Lane::Live, BodyKind::Key, 2, 5), reading(50));
    line.ticks(10);
    line.put_reading(frame(Lane::Backlog, BodyKind::Key, 2, 9), reading(90));
    assert_eq!(line.ticks(10), []);
    assert_eq!(line.engine.latest(A).map(|reading| reading.mono), Some(MonoMs(50)));
    line.put_reading(frame(Lane::Live, BodyKind::Key, 2, 4), reading(40));
    assert_eq!(line.engine.latest(A).map(|reading| reading.mono), Some(MonoMs(50)), "an older one came late");
    line.put_reading(frame(Lane::Live, BodyKind::Delta { back: 1 }, 3, 0), reading(7));
    assert_eq!(line.engine.latest(A).map(|reading| reading.mono), Some(MonoMs(7)), "a new run");
}

#[test]
fn goodbye_is_stopped_for_good_until_the_next_run() {
    let mut line = Line::new();
    line.put(hello(A, 4, None));
    let effects = line.put(goodbye(4, 3));
    assert_eq!(effects.iter().filter_map(turn).collect::<Vec<_>>(), [(A, NodeState::Stopped)]);
    line.put(frame(Lane::Backlog, BodyKind::Key, 4, 1));
    line.put(frame(Lane::Live, BodyKind::Key, 4, 2));
    assert_eq!(line.ticks(3_600), [], "what was under way does not bring it back");
    line.put(Event::Started);
    assert_eq!((line.ticks(3_600), line.state(A)), (vec![], NodeState::Stopped));
    line.put(hello(A, 5, run(4, 2, 3)));
    assert_eq!(line.state(A), NodeState::Up);
}

#[test]
fn a_run_that_ended_with_all_its_frames_leaves_no_gap() {
    let mut line = Line::new();
    line.put(hello(A, 4, None));
    line.put(goodbye(4, 3));
    let effects = line.put(hello(A, 5, run(4, 2, 3)));
    assert!(effects.contains(&Effect::NodeRestarted { node: A, from: Epoch(4), to: Epoch(5) }));
    assert_eq!(gaps(effects), []);
    assert_eq!(gaps(line.put(hello(A, 5, None))), [], "a reconnection is no restart");
}

#[test]
fn an_agent_that_died_leaves_a_gap_of_unknown_count() {
    let mut line = Line::new();
    line.put(hello(A, 4, None));
    line.put(frame(Lane::Live, BodyKind::Key, 4, 7));
    let seen = line.at;
    line.ticks(50);
    let expected = GapRecorded {
        node: A,
        epoch: Epoch(4),
        first: Seq(8),
        last: None,
        count: None,
        from: seen,
        to: line.at,
        reason: GapReason::AgentRestart,
    };
    assert_eq!(gaps(line.put(hello(A, 5, run(4, 7, 8)))), [expected]);
}

#[test]
fn a_hole_in_front_of_the_last_frame_of_an_agent_that_died_lies_within_the_gap() {
    let mut line = Line::new();
    line.put(hello(A, 4, None));
    let gaps = gaps(line.put(hello(A, 5, run(4, 7, 7))));
    let found: Vec<_> = gaps.into_iter().map(|gap| (gap.first.0, gap.last, gap.count)).collect();
    assert_eq!(found, [(0, None, None)]);
}

#[test]
fn frames_that_a_goodbye_announced_and_that_never_came_are_counted() {
    let ends = |last: Option<Seq>, count| {
        let mut line = Line::new();
        line.put(hello(A, 4, None));
        line.put(goodbye(4, 10));
        let gaps = gaps(line.put(hello(A, 5, Some(EarlierRun { epoch: Epoch(4), last, count, ended: None }))));
        gaps.into_iter().map(|gap| (gap.first.0, gap.last, gap.count)).collect::<Vec<_>>()
    };
    assert_eq!(ends(Some(Seq(7)), 8), [(8, Some(Seq(9)), Some(2))]);
    assert_eq!(ends(Some(Seq(9)), 9), [(0, Some(Seq(9)), Some(1))]);
    assert_eq!(ends(Some(Seq(7)), 6), [(0, Some(Seq(9)), Some(4))]);
    assert_eq!(ends(None, 0), [(0, Some(Seq(9)), Some(10))]);
    assert_eq!(ends(Some(Seq(u64::MAX)), u64::MAX), []);
}

#[test]
fn a_goodbye_that_comes_with_the_next_hello_counts_like_one_in_time() {
    let mut line = Line::new();
    line.put(hello(A, 4, None));
    line.put(frame(Lane::Live, BodyKind::Key, 4, 7));
    let told = |last, count, ended| {
        Some(EarlierRun { epoch: Epoch(4), last: Some(Seq(last)), count, ended: Some(Seq(ended)) })
    };
    assert_eq!(gaps(line.put(hello(A, 5, told(7, 8, 8)))), [], "all of it is here or spooled");
    let mut line = Line::new();
    line.put(hello(A, 4, None));
    let found: Vec<_> = gaps(line.put(hello(A, 5, told(7, 8, 10)))).into_iter().map(|gap| gap.count).collect();
    assert_eq!(found, [Some(2)]);
}

#[test]
fn a_gap_that_the_agent_tells_is_recorded_as_it_tells_it() {
    let mut line = Line::new();
    let range = SeqRange { first: Seq(3), last: Seq(9) };
    let (from, to) = (WallMs(5), WallMs(6));
    let gap = Gap { epoch: Epoch(4), range, from, to, reason: wire::GapReason::Overflow };
    let told = gaps(line.put(Event::Gap { node: A, gap }));
    assert_eq!((told[0].count, told[0].from, told[0].reason), (Some(7), from, GapReason::Overflow));
    assert_eq!(line.state(A), NodeState::Up, "it is life");
}

#[test]
fn after_a_start_no_node_is_down_before_two_deadlines() {
    let restored = |node, state| Restored {
        node: NodeKey(node),
        state,
        since: WallMs(0),
        last_seen: WallMs(0),
        goodbye: None,
        facts: None,
    };
    let states = [NodeState::Up, NodeState::Suspect, NodeState::Down, NodeState::Up];
    let nodes = (0..).zip(states).map(|(node, state)| restored(node, state));
    let mut line = Line::new();
    line.engine = Engine::restore(Pos(77), nodes);
    assert_eq!(line.engine.applied(), Pos(77));
    let turns: Vec<_> = line.put(Event::Started).iter().filter_map(turn).collect();
    assert_eq!(turns, [0, 1, 3].map(|node| (NodeKey(node), NodeState::Unknown)));
    assert_eq!(line.ticks(20), []);
    line.put(heartbeat(NodeKey(3)));
    let turns = line.ticks(41);
    assert_eq!(
        turns,
        [
            (15, NodeKey(3), NodeState::Suspect),
            (40, NodeKey(0), NodeState::Down),
            (40, NodeKey(1), NodeState::Down),
            (40, NodeKey(3), NodeState::Down),
        ]
    );
}

#[test]
fn collector_stopped_for_120_s_takes_none_of_10_000_nodes_for_down() {
    let mut line = Line::new();
    line.ticks(100);
    for second in 0..10 {
        (0..1_000).for_each(|n| drop(line.put(heartbeat(NodeKey(second * 1_000 + n)))));
        line.tick();
    }
    line.at = line.at.plus(120_400);
    assert_eq!(line.put(Event::Tick { elapsed_ms: 120_400, paused_ms: 119_400 }), []);
    let mut turns = Vec::new();
    for second in 0..58 {
        for n in 0..173 {
            let node = NodeKey(second * 173 + n);
            turns.extend(line.put(heartbeat(node)).iter().filter_map(turn));
        }
        turns.extend(line.tick().iter().filter_map(turn));
    }
    assert!(turns.iter().all(|(_, to)| *to != NodeState::Down), "all came back within a minute");
    assert_eq!(line.count(NodeState::Down), 0);
}

#[test]
fn a_short_pause_extends_a_deadline_by_as_long() {
    let mut line = Line::new();
    line.ticks(100);
    line.put(heartbeat(A));
    line.ticks(14);
    line.at = line.at.plus(11_000);
    assert_eq!(line.put(Event::Tick { elapsed_ms: 11_000, paused_ms: 10_500 }), []);
    assert_eq!(line.ticks(20), [(1, A, NodeState::Suspect), (16, A, NodeState::Down)]);
}

#[test]
fn the_wall_clock_moving_by_an_hour_takes_nobody_down_and_hides_nobody() {
    for jump_ms in [HOUR_MS, -HOUR_MS] {
        let mut line = Line::new();
        let dead = NodeKey(100);
        line.ticks(100);
        (0..=100).for_each(|n| drop(line.put(heartbeat(NodeKey(n)))));
        line.at = line.at.plus(jump_ms);
        let died_after = NodeKey(101);
        line.put(heartbeat(died_after));
        let mut turns = Vec::new();
        for second in 1..=60 {
            (0..100).filter(|n| n % 10 == second % 10).for_each(|n| drop(line.put(heartbeat(NodeKey(n)))));
            turns.extend(line.tick().iter().filter_map(turn).map(|(node, to)| (second, node, to)));
        }
        let of = |node| turns.iter().filter(|turn| turn.1 == node).map(|turn| (turn.0, turn.2)).collect::<Vec<_>>();
        assert_eq!(of(dead), [(15, NodeState::Suspect), (30, NodeState::Down)], "a jump of {jump_ms} ms");
        let second = if jump_ms > 0 { 1 } else { 0 };
        assert_eq!(of(died_after), [(15 + second, NodeState::Suspect), (30 + second, NodeState::Down)]);
        assert_eq!(turns.len(), 4, "nobody else");
    }
}

#[test]
fn facts_change_once_and_never_back() {
    let mut line = Line::new();
    let facts = |line: &mut Line, lane, epoch, seq| {
        let effects = line.put(frame(lane, BodyKind::Inventory, epoch, seq));
        effects.into_iter().any(|effect| matches!(effect, Effect::FactsChanged { .. }))
    };
    assert!(facts(&mut line, Lane::Live, 2, 5));
    assert!(!facts(&mut line, Lane::Backlog, 2, 1), "the backlog brings older ones");
    assert!(facts(&mut line, Lane::Backlog, 2, 6));
    assert!(facts(&mut line, Lane::Live, 3, 0));
}

#[test]
fn what_was_seen_is_handed_out_once() {
    let mut line = Line::new();
    line.put(heartbeat(A));
    line.at = line.at.plus(5);
    line.put(heartbeat(A));
    line.put(heartbeat(NodeKey(7)));
    assert_eq!(line.engine.take_seen(), [(A, line.at), (NodeKey(7), line.at)]);
    assert_eq!(line.engine.take_seen(), []);
    assert_eq!(line.engine.nodes().map(|view| view.node).collect::<Vec<_>>(), [A, NodeKey(7)]);
}

#[test]
fn a_key_out_of_bounds_is_passed_over() {
    let mut line = Line::new();
    assert_eq!(line.put(heartbeat(NodeKey(NODES_MAX))), []);
    assert_eq!(line.put(hello(NodeKey(u32::MAX), 1, None)), []);
    assert_eq!(line.engine.nodes().count(), 0);
}

/// An event, and by how much the wall clock moves before it.
fn event() -> impl Strategy<Value = (Event, i64)> {
    let node = || (0u32..4).prop_map(NodeKey);
    let event = prop_oneof![
        40 => Just(Event::Tick { elapsed_ms: 5_000, paused_ms: 0 }),
        1 => (0u64..20_000).prop_map(|paused_ms| Event::Tick { elapsed_ms: paused_ms + 700, paused_ms }),
        1 => any::<(u64, u64)>().prop_map(|(elapsed_ms, paused_ms)| Event::Tick { elapsed_ms: elapsed_ms % 9_000, paused_ms }),
        1 => Just(Event::Started),
        2 => node().prop_map(heartbeat),
        1 => node().prop_map(|node| Event::Lost { node }),
        1 => (node(), 0u32..5, 0u64..9).prop_map(|(node, epoch, n)| hello(node, epoch, (n > 4).then(|| run(epoch, n, n)).flatten())),
        1 => (0u32..5, 0u64..9).prop_map(|(epoch, seq)| goodbye(epoch, seq)),
        3 => (any::<bool>(), 0u32..5, 0u64..50).prop_map(|(live, epoch, seq)| {
            frame(if live { Lane::Live } else { Lane::Backlog }, BodyKind::Key, epoch, seq)
        }),
    ];
    let jump = prop_oneof![8 => 0i64..1_500, 1 => Just(HOUR_MS), 1 => Just(-HOUR_MS), 1 => any::<i64>()];
    (event, jump)
}

proptest! {
    #[test]
    fn the_same_log_leads_to_the_same_effects(events in prop::collection::vec(event(), 0..300), cut: prop::sample::Index) {
        let mut at = WallMs(1_700_000_000_000);
        let mut log = Vec::new();
        for (event, moved_ms) in events {
            at = at.plus(moved_ms);
            log.push(Record { at, event });
        }
        let replay = |engine: &mut Engine, from: usize| -> Vec<Vec<Effect>> {
            (1 + from as u64..).zip(&log[from..]).map(|(pos, record)| engine.apply(Pos(pos), record, None)).collect()
        };
        let (mut first, mut second) = (Engine::default(), Engine::default());
        prop_assert_eq!(replay(&mut first, 0), replay(&mut second, 0));
        for effects in replay(&mut second, cut.index(log.len() + 1)) {
            prop_assert_eq!(effects, vec![], "a replay that begins too early changes nothing");
        }
        for (state, count) in first.counts() {
            prop_assert_eq!(first.nodes().filter(|view| view.state == state).count(), count);
        }
    }

    #[test]
    fn down_is_whoever_was_silent_for_30_s_of_listening_and_nobody_else(events in prop::collection::vec(event(), 0..400)) {
        let mut line = Line::new();
        let mut silent_ms = [u64::MAX; 4];
        let mut since_start_ms = 0u64;
        for (event, moved_ms) in events {
            line.at = line.at.plus(moved_ms);
            match &event {
                Event::Tick { elapsed_ms, paused_ms } => {
                    let listened_ms = elapsed_ms.saturating_sub(*paused_ms);
                    silent_ms.iter_mut().for_each(|silent| *silent = silent.saturating_add(listened_ms));
                    since_start_ms = if *paused_ms >= PAUSE_AS_START_MS { 0 } else { since_start_ms + listened_ms };
                }
                Event::Started => since_start_ms = 0,
                Event::Lost { .. } => {}
                other => silent_ms[other.node().map_or(0, |node| node.0 as usize)] = 0,
            }
            let before: Vec<_> = (0..4).map(|node| line.state(NodeKey(node))).collect();
            for (node, to) in line.put(event).iter().filter_map(turn) {
                let silent = silent_ms[node.0 as usize];
                if to == NodeState::Down {
                    prop_assert!(silent >= DOWN_MS && since_start_ms >= 2 * DOWN_MS, "{node:?}: {silent} ms");
                    prop_assert_ne!(before[node.0 as usize], NodeState::Stopped);
                }
            }
            for (node, silent) in silent_ms.iter().enumerate() {
                let state = line.state(NodeKey(u32::try_from(node).expect("few nodes")));
                let overdue = *silent >= DOWN_MS + 1_000 && since_start_ms >= 2 * DOWN_MS;
                prop_assert!(!overdue || !matches!(state, NodeState::Up | NodeState::Suspect), "{node} is {state:?}");
            }
        }
    }
}
