//! How nodes are, as alerts: each that is down has one, nobody else has, and many that are lost together are one.

use std::collections::BTreeSet;

use dunlin_shared::metric::{MetricRef, by_name};
use dunlin_shared::sample::{Layout, Series, Subject};
use proptest::prelude::*;

use super::fleet::{Fleet, key, keys};
use super::replay::{Given, NODES, config, given, steps};
use super::*;

const RULES: &str = r#"
[[rule]]
name = "node-down"
when = 'node_state == down'
summary = "x"

[[rule]]
name = "node-stopped"
when = 'node_state == stopped'
for = "10m"
summary = "x"

[[rule]]
name = "mass-loss"
when = 'fleet_nodes_missing > 0'
summary = "x"
"#;

fn watched(size: usize) -> Fleet {
    let mut fleet = Fleet::new(size);
    fleet.line.watch(RULES, size);
    fleet
}

/// What was told of a rule: in which second, of which nodes, fired or resolved. Nodes of one second are together.
fn told(fleet: &Fleet, rule: &str) -> Vec<(u32, &'static str, Vec<NodeKey>)> {
    let mut told: Vec<(u32, &str, Vec<NodeKey>)> = Vec::new();
    for (second, effect) in &fleet.told {
        let Effect::Alert(change) = effect else { continue };
        let (what, alert) = match &**change {
            AlertChange::Fired(alert, _) => ("fired", alert),
            AlertChange::Resolved(alert) => ("resolved", alert),
            _ => continue,
        };
        if &*alert.rule.name != rule {
            continue;
        }
        match told.last_mut().filter(|last| last.0 == *second && last.1 == what) {
            Some(last) => last.2.extend(alert.node),
            None => told.push((*second, what, alert.node.into_iter().collect())),
        }
    }
    told.iter_mut().for_each(|told| told.2.sort_unstable());
    told
}

/// Every node that was told, once or not.
fn nodes(told: &[(u32, &str, Vec<NodeKey>)], what: &str) -> Vec<NodeKey> {
    let mut nodes: Vec<_> = told.iter().filter(|told| told.1 == what).flat_map(|told| told.2.clone()).collect();
    nodes.sort_unstable();
    nodes
}

#[test]
fn a_fifth_or_all_of_a_fleet_is_one_alert_and_when_it_is_over_the_rest_is_down_once() {
    for lost in [200, 1_000] {
        let mut fleet = watched(1_000);
        fleet.silence(0..lost, true);
        fleet.run(60);
        let mass = told(&fleet, "mass-loss");
        assert_eq!(mass.iter().map(|told| told.1).collect::<Vec<_>>(), ["fired"], "within a minute");
        fleet.run(600);
        assert_eq!(told(&fleet, "node-down"), [], "nobody is down by itself");
        fleet.silence(0..50, false);
        fleet.run(400);
        assert_eq!(told(&fleet, "mass-loss").iter().map(|told| told.1).collect::<Vec<_>>(), ["fired", "resolved"]);
        let down = told(&fleet, "node-down");
        assert_eq!((down.len(), nodes(&down, "fired")), (1, keys(50..lost)), "all at once");
        fleet.silence(50..lost, false);
        fleet.run(60);
        let down = told(&fleet, "node-down");
        assert_eq!((nodes(&down, "fired"), nodes(&down, "resolved")), (keys(50..lost), keys(50..lost)));
        assert_eq!(fleet.line.alerts.len(), 0);
    }
}

#[test]
fn the_alert_of_a_loss_is_one_through_a_restart_and_ends_whoever_was_back_before_it() {
    for back_before in [0, 5, 9] {
        let mut fleet = watched(1_000);
        fleet.silence(0..300, true);
        fleet.run(100);
        fleet.silence(0..300, false);
        // A tenth of them speaks each second, and below a twentieth of the fleet it is over by itself.
        fleet.run(back_before);
        let effects = fleet.line.restart();
        fleet.tell(effects);
        fleet.come_back();
        fleet.run(1_000);
        assert_eq!(told(&fleet, "mass-loss").iter().map(|told| told.1).collect::<Vec<_>>(), ["fired", "resolved"]);
        let down = told(&fleet, "node-down");
        assert_eq!(nodes(&down, "fired"), nodes(&down, "resolved"));
        assert_eq!(fleet.line.alerts.len(), 0);
    }
}

#[test]
fn restarts_pauses_and_a_clock_that_jumps_raise_no_alert_and_end_none() {
    let mut fleet = watched(300);
    fleet.silence(0..5, true);
    fleet.run(120);
    assert_eq!(nodes(&told(&fleet, "node-down"), "fired"), keys(0..5));
    for moved_ms in [HOUR_MS, -HOUR_MS, 0] {
        fleet.line.at = fleet.line.at.plus(moved_ms);
        fleet.run(30);
        let effects = fleet.line.restart();
        fleet.tell(effects);
        fleet.come_back();
        fleet.line.at = fleet.line.at.plus(121_000);
        let effects = fleet.line.put(Event::Tick { elapsed_ms: 121_000, paused_ms: 120_000 });
        fleet.tell(effects);
        fleet.come_back();
        fleet.run(30);
    }
    let down = told(&fleet, "node-down");
    assert_eq!((nodes(&down, "fired"), nodes(&down, "resolved")), (keys(0..5), vec![]));
    fleet.silence(0..5, false);
    fleet.run(11);
    assert_eq!(nodes(&told(&fleet, "node-down"), "resolved"), keys(0..5));
}

#[test]
fn a_goodbye_is_told_after_ten_minutes_whatever_happens_to_the_collector_meanwhile() {
    let mut fleet = watched(100);
    fleet.silence([7], true);
    let goodbye = Goodbye { epoch: Epoch(1), next_seq: Seq(3), reason: StopReason::Stopped };
    let effects = fleet.line.put(Event::Goodbye { node: key(7), goodbye });
    fleet.tell(effects);
    for _ in 0..4 {
        fleet.run(100);
        let effects = fleet.line.restart();
        fleet.tell(effects);
    }
    fleet.run(199);
    assert_eq!(told(&fleet, "node-stopped"), []);
    fleet.run(2);
    assert_eq!(nodes(&told(&fleet, "node-stopped"), "fired"), [key(7)]);
    assert_eq!(told(&fleet, "node-down"), []);
}

#[test]
fn an_older_frame_that_comes_first_after_a_restart_says_nothing_of_now() {
    let metric = by_name("host_memory_used_ratio").expect("in the catalogue");
    let layout = Arc::new(Layout {
        subjects: vec![Subject::HOST()],
        series: vec![Series { subject: 0, metric: MetricRef::catalogued(metric.id) }],
        ..Layout::default()
    });
    let reading = |ratio: f64| {
        let values = vec![metric.step.quantise(ratio).expect("a ratio")];
        Arc::new(Reading { mono: MonoMs(0), wall: WallMs(0), layout: Arc::clone(&layout), values })
    };
    let told = |effects: Vec<Effect>| effects.iter().filter(|effect| matches!(effect, Effect::Alert(_))).count();
    let mut line = Line::new();
    line.watch("[[rule]]\nname = \"memory\"\nwhen = 'host_memory_used_ratio > 90%'\nsummary = \"x\"\n", 1);
    line.put(hello(A, 1, None));
    let live = |seq| frame(Lane::Live, BodyKind::Key, 1, seq);
    let fired = line.put_reading(live(5), Some(reading(0.95)));
    assert_eq!(told(fired), 1);
    let ran = line.engine.ran();
    line.reopen();
    line.engine.remember(ran, A, (FrameId::new(1, 5), false), &reading(0.95));
    line.put(Event::Started);
    let older = line.put_reading(live(3), Some(reading(0.5)));
    assert_eq!(told(older), 0, "it was so before");
    let newer = line.put_reading(live(6), Some(reading(0.5)));
    assert_eq!(told(newer), 1);
}

#[test]
fn what_no_frame_begins_is_named_by_the_newest_that_there_was_also_behind_a_start() {
    let names = |starts: bool| {
        let mut line = Line::new();
        line.watch("", 1);
        line.put(hello(A, 1, None));
        let reading =
            Arc::new(Reading { mono: MonoMs(0), wall: WallMs(0), layout: Arc::default(), values: Vec::new() });
        line.put_reading(frame(Lane::Live, BodyKind::Key, 1, 5), Some(reading));
        line.ticks(100);
        if starts {
            // Nothing is remembered: it is too long ago.
            line.restart();
        }
        line.ticks(1_000);
        line.watch(RULES, 1);
        line.engine.alerts().open().map(|alert| (alert.rule.name.clone(), alert.id)).collect::<Vec<_>>()
    };
    assert_eq!(names(false).len(), 1);
    assert_eq!(names(false), names(true));
}

/// Nodes that have an alert of a rule, pending ones among them, and those of which it comes and goes.
fn open(line: &Line, rule: &str) -> (BTreeSet<NodeKey>, BTreeSet<NodeKey>) {
    let open = line.engine.alerts().open().filter(|alert| &*alert.rule.name == rule);
    let (flapping, open): (Vec<_>, Vec<_>) = open.partition(|alert| alert.is_flapping);
    let nodes = |alerts: Vec<&Alert>| alerts.iter().filter_map(|alert| alert.node).collect();
    (nodes(open), nodes(flapping))
}

/// Whether just these have an alert. One that comes and goes stays for a while.
fn is_told(line: &Line, rule: &str, state: NodeState) -> bool {
    let shown = line.engine.nodes().filter(|view| view.state == state && !view.is_retired).map(|view| view.node);
    let (shown, (open, flapping)) = (shown.collect::<BTreeSet<_>>(), open(line, rule));
    open.is_subset(&shown) && shown.iter().all(|node| open.contains(node) || flapping.contains(node))
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn whoever_is_down_has_one_alert_and_nobody_else(steps in steps(true)) {
        let mut line = Line::new();
        line.watch(RULES, NODES as usize);
        for given in given(&steps) {
            if matches!(&given, Given::Record(Record { event: Event::Started, .. })) {
                line.reopen();
            }
            line.give(&given);
            prop_assert!(is_told(&line, "node-down", NodeState::Down));
            prop_assert!(is_told(&line, "node-stopped", NodeState::Stopped));
            let mass = line.engine.alerts().open().find(|alert| &*alert.rule.name == "mass-loss");
            prop_assert!(mass.is_some() || line.engine.mass().is_none());
            prop_assert!(mass.is_none_or(|mass| mass.is_flapping) || line.engine.mass().is_some());
            let known: BTreeSet<_> = line.alerts.keys().copied().collect();
            let open: BTreeSet<_> = line.engine.alerts().open().map(|alert| alert.id).collect();
            prop_assert_eq!(known, open, "rows are what is open");
        }
    }
}
