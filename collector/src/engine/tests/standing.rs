//! What the registry says of nodes, what changes of a host, and who retires.

use dunlin_shared::inventory::Facts;

use super::*;

const B: NodeKey = NodeKey(1);
const MINUTE_MS: i64 = 60_000;

fn drained(until: Option<WallMs>) -> Standing {
    Standing { maintenance: Some(Maintenance { until }), ..Standing::default() }
}

fn line() -> Line {
    let mut line = Line::new();
    line.ticks(100);
    line.put(hello(A, 1, None));
    line
}

fn events(effects: &[Effect]) -> Vec<&'static str> {
    effects.iter().filter_map(Effect::event).collect()
}

/// All that the feed tells in so many seconds.
fn feed(line: &mut Line, seconds: usize) -> Vec<(usize, &'static str)> {
    (1..=seconds).flat_map(|second| events(&line.tick()).into_iter().map(move |kind| (second, kind))).collect()
}

#[test]
fn the_silence_of_a_drained_node_says_nothing() {
    let mut line = line();
    assert_eq!(line.stand(A, drained(None)).iter().filter_map(turn).collect::<Vec<_>>(), [(A, NodeState::Maintenance)]);
    assert_eq!(line.stand(A, drained(None)), [], "said again it changes nothing");
    assert_eq!(feed(&mut line, 7_200), []);
    line.restart();
    assert_eq!(feed(&mut line, 7_200), []);
    line.put(hello(A, 2, None));
    assert_eq!((line.state(A), line.count(NodeState::Maintenance)), (NodeState::Maintenance, 1));
}

#[test]
fn a_drained_node_that_is_silent_after_its_end_is_down_after_two_deadlines() {
    let mut line = line();
    line.stand(A, drained(Some(line.at.plus(10 * MINUTE_MS))));
    assert_eq!(feed(&mut line, 900), [(600, "node.unknown"), (660, "node.down")]);
    assert_eq!(line.engine.standing(A), Standing::default());
}

#[test]
fn a_maintenance_ends_by_order_and_at_its_end_after_a_restart() {
    let mut line = line();
    line.stand(A, drained(None));
    line.ticks(100);
    assert_eq!(events(&line.stand(A, Standing::default())), ["node.unknown"]);
    assert_eq!(feed(&mut line, 100), [(60, "node.down")]);
    line.put(heartbeat(A));
    line.stand(A, drained(Some(line.at.plus(10 * MINUTE_MS))));
    line.ticks(300);
    line.restart();
    assert_eq!(feed(&mut line, 400), [(300, "node.unknown"), (360, "node.down")]);
}

#[test]
fn a_drained_node_that_speaks_is_up_at_its_end_and_one_that_stopped_is_stopped() {
    let mut line = line();
    line.stand(A, drained(None));
    line.ticks(100);
    line.put(heartbeat(A));
    line.ticks(10);
    assert_eq!(events(&line.stand(A, Standing::default())), ["node.up"]);
    assert_eq!(feed(&mut line, 60), [(20, "node.down")], "its silence counts from its last word");
    line.put(heartbeat(A));
    line.stand(A, drained(None));
    assert_eq!(events(&line.put(goodbye(1, 3))), Vec::<&str>::new());
    assert_eq!(events(&line.stand(A, Standing::default())), ["node.stopped"]);
    assert_eq!(feed(&mut line, 600), []);
}

#[test]
fn a_node_that_was_down_when_it_was_drained_is_told_anew() {
    let mut line = line();
    assert_eq!(feed(&mut line, 60), [(30, "node.down")]);
    line.stand(A, drained(None));
    line.ticks(60);
    assert_eq!(events(&line.stand(A, Standing::default())), ["node.unknown"]);
    assert_eq!(feed(&mut line, 100), [(60, "node.down")]);
}

#[test]
fn a_fleet_that_is_drained_and_does_not_come_back_is_one_loss() {
    let mut line = Line::new();
    line.ticks(100);
    (0..100).for_each(|node| drop(line.put(heartbeat(NodeKey(node)))));
    let until = Some(line.at.plus(MINUTE_MS));
    (0..50).for_each(|node| drop(line.stand(NodeKey(node), drained(until))));
    let mut told = BTreeMap::new();
    for second in 0..300 {
        (50..100).filter(|node| node % 10 == second % 10).for_each(|node| drop(line.put(heartbeat(NodeKey(node)))));
        for kind in events(&line.tick()) {
            *told.entry(kind).or_insert(0) += 1;
        }
    }
    assert_eq!(told, BTreeMap::from([("mass.loss", 1), ("node.unknown", 50)]));
}

#[test]
fn a_node_that_is_kept_out_is_not_down() {
    for (admission, shown) in [(Admission::Revoked, NodeState::Revoked), (Admission::Held, NodeState::Held)] {
        let mut line = line();
        let out = Standing { admission, ..Standing::default() };
        assert_eq!(line.stand(A, out).iter().filter_map(turn).collect::<Vec<_>>(), [(A, shown)]);
        line.put(heartbeat(A));
        assert_eq!((feed(&mut line, 600), line.state(A)), (vec![], shown));
        line.restart();
        assert_eq!((feed(&mut line, 600), line.state(A)), (vec![], shown));
        assert_eq!(events(&line.stand(A, Standing::default())), Vec::<&str>::new());
        assert_eq!(feed(&mut line, 100), [(60, "node.down")], "let in, and silent");
    }
}

#[test]
fn a_node_whose_clone_is_in_quarantine_is_judged_like_any_other() {
    let mut line = line();
    let quarantined = Standing { admission: Admission::Quarantined, ..Standing::default() };
    assert_eq!(events(&line.stand(A, quarantined)), Vec::<&str>::new());
    assert_eq!(line.state(A), NodeState::Quarantined);
    assert_eq!(feed(&mut line, 100), [(30, "node.down")]);
    assert_eq!(line.state(A), NodeState::Down);
    assert_eq!(events(&line.put(heartbeat(A))), ["node.up"]);
    assert_eq!(line.state(A), NodeState::Quarantined);
    assert_eq!(events(&line.stand(A, Standing::default())), Vec::<&str>::new());
    assert_eq!(line.state(A), NodeState::Up);
}

#[test]
fn a_node_that_waits_for_approval_is_counted_before_it_was_heard() {
    let mut line = line();
    line.stand(B, Standing { admission: Admission::Pending, ..Standing::default() });
    assert_eq!((line.state(B), line.count(NodeState::Pending)), (NodeState::Pending, 1));
    line.stand(B, Standing::default());
    assert_eq!(line.state(B), NodeState::Unknown);
    assert_eq!(events(&line.put(heartbeat(B))), ["node.up"]);
}

#[test]
fn a_node_that_is_forgotten_leaves_nothing_and_what_it_had_under_way_is_passed_over() {
    let mut line = line();
    line.put(hello(B, 1, None));
    line.stand(A, drained(Some(line.at)));
    line.forget(A);
    assert_eq!(line.put(heartbeat(A)), []);
    assert_eq!(line.put(hello(A, 2, None)), []);
    assert_eq!(line.stand(A, Standing::default()), []);
    line.ticks(100);
    assert_eq!((line.engine.nodes().count(), line.engine.counts().map(|(_, count)| count).sum()), (1, 1));
    assert_eq!(line.engine.take_seen().iter().map(|(node, _)| *node).collect::<Vec<_>>(), [B]);
}

fn inventory(seq: u64, facts: Facts) -> Event {
    let body = Inventory::Facts(facts).encode();
    Event::Frame {
        node: A,
        lane: Lane::Live,
        frame: Frame { id: FrameId::new(1, seq), kind: BodyKind::Inventory, body },
    }
}

#[test]
fn changes_of_a_host_are_told_with_before_and_after_across_a_restart() {
    let mut line = line();
    let facts = |kernel: &str, cpus| Facts {
        host_name: "host".into(),
        kernel: kernel.into(),
        cpus,
        memory_bytes: 1 << 31,
        ..Facts::default()
    };
    assert_eq!(events(&line.put(inventory(0, facts("6.1", 2)))), Vec::<&str>::new(), "the first are no change");
    line.restart();
    let change = |effects: Vec<Effect>| {
        effects.into_iter().find_map(|effect| match effect {
            Effect::NodeChanged { node: A, change } => Some(change),
            _ => None,
        })
    };
    let size = |cpus| Size { cpus, memory_bytes: 1 << 31 };
    let resized = Change::Resized { from: size(2), to: size(4) };
    assert_eq!(change(line.put(inventory(5, facts("6.1", 4)))), Some(resized));
    let kernel = Change::Kernel { from: "6.1".into(), to: "6.2".into() };
    assert_eq!(change(line.put(inventory(6, facts("6.2", 4)))), Some(kernel));
    assert_eq!(change(line.put(inventory(3, facts("6.0", 1)))), None, "the backlog brings older ones");
    line.restart();
    let Event::Hello { node, mut session } = hello(A, 2, None) else { unreachable!() };
    (session.boot_id, session.name) = ([9; 16], "other".into());
    let effects = line.put(Event::Hello { node, session: session.clone() });
    assert_eq!(events(&effects), ["node.renamed"], "nothing was known of the boot before");
    session.boot_id = [8; 16];
    line.restart();
    let rebooted = Change::Rebooted { from: [9; 16], to: [8; 16] };
    assert_eq!(change(line.put(Event::Hello { node, session })), Some(rebooted));
}

/// Who retired, and after how many hours.
fn retired(line: &mut Line, hours: i64) -> Vec<(i64, NodeKey)> {
    let mut retired = Vec::new();
    for minute in 1..=hours * 60 {
        for _ in 0..6 {
            line.at = line.at.plus(10_000);
            for effect in line.put(Event::Tick { elapsed_ms: 10_000, paused_ms: 0 }) {
                if let Effect::Retired { node, .. } = effect {
                    retired.push((minute / 60, node));
                }
            }
        }
    }
    retired
}

#[test]
fn nodes_that_are_unseen_for_long_retire_once_and_ephemeral_ones_sooner() {
    let mut line = line();
    let rule = Retiring { after_ms: 48 * HOUR_MS.unsigned_abs(), ephemeral_after_ms: 2 * HOUR_MS.unsigned_abs() };
    line.engine.set_retiring(rule);
    line.put(heartbeat(B));
    line.stand(B, Standing { is_ephemeral: true, ..Standing::default() });
    line.put(heartbeat(NodeKey(2)));
    line.stand(NodeKey(2), drained(None));
    assert_eq!(retired(&mut line, 100), [(2, B), (48, A)]);
    line.restart();
    line.engine.set_retiring(rule);
    assert_eq!(retired(&mut line, 100), [], "it was told");
    line.put(heartbeat(A));
    assert_eq!(retired(&mut line, 100), [(48, A)]);
}

#[test]
fn neither_a_jump_of_the_clock_nor_a_collector_that_was_away_retires_anybody_at_once() {
    let month_ms = 31 * 24 * HOUR_MS;
    let mut line = line();
    line.ticks(600);
    line.at = line.at.plus(month_ms);
    assert_eq!(retired(&mut line, 2), []);
    line.at = line.at.plus(-month_ms);
    line.restart();
    line.at = line.at.plus(month_ms);
    line.restart();
    let retired = retired(&mut line, 3);
    assert_eq!(retired, [(1, A)], "an hour to come back");
}
