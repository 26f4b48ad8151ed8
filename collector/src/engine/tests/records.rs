//! What follows from single records: silence, sessions, goodbyes, gaps and facts.

use dunlin_shared::range::SeqRange;
use dunlin_shared::wire::{self, Gap};

use super::*;
use crate::record::NODES_MAX;

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
fn a_run_that_begins_while_nothing_can_be_stored_is_told_once() {
    let mut line = Line::new();
    line.put(hello(A, 1, None));
    line.put(goodbye(1, 6));
    let is_anew = |effect: &Effect| matches!(effect, Effect::NodeRestarted { .. } | Effect::GapRecorded(_));
    let record = Record { at: line.at, event: hello(A, 2, run(1, 3, 4)) };
    assert_eq!(line.engine.apply_unlogged(&record, None).iter().filter(|effect| is_anew(effect)).count(), 2);
    assert!(!line.engine.apply_unlogged(&record, None).iter().any(is_anew), "it could not be stored again");
    assert!(!line.put(record.event).iter().any(is_anew), "and at last it is");
    assert!(line.put(hello(A, 3, run(2, 0, 1))).iter().any(is_anew), "the next run is another");
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
    let lives = [Liveness::Up, Liveness::Suspect, Liveness::Down, Liveness::Up];
    let nodes = (0..).zip(lives).map(|(node, life)| Restored { life, ..Restored::of(NodeKey(node), WallMs(0)) });
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
