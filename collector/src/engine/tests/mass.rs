//! Mass losses: where they begin, whom they hold, how they end, and what a restart makes of them.

use super::fleet::{Fleet, key, keys};
use super::*;

const LOSS: &str = "mass.loss";
const GREW: &str = "mass.grew";
const OVER: &str = "mass.over";

/// What was told and how many nodes it listed.
fn told(fleet: &Fleet) -> Vec<(&'static str, usize)> {
    fleet.masses().into_iter().map(|(_, what, nodes)| (what, nodes.len())).collect()
}

#[test]
fn nineteen_of_a_hundred_and_a_fleet_below_twenty_are_told_one_by_one() {
    for (size, lost) in [(100, 19), (19, 19), (1, 1), (10_000, 1_000)] {
        let mut fleet = Fleet::new(size);
        fleet.silence(0..lost, true);
        fleet.run(1_200);
        assert_eq!(fleet.events(), BTreeMap::from([("node.down", lost)]), "{lost} of {size}");
    }
}

#[test]
fn twenty_of_a_hundred_are_one_loss() {
    let mut fleet = Fleet::new(100);
    fleet.silence(0..20, true);
    fleet.run(1_200);
    assert_eq!(told(&fleet), [(LOSS, 20), (OVER, 20)]);
    assert_eq!(fleet.single_downs(), []);
}

#[test]
fn nodes_that_trickle_away_one_a_second_are_told_one_by_one() {
    let mut fleet = Fleet::new(10_000);
    for node in 0..900 {
        fleet.silence([node], true);
        fleet.run(1);
    }
    fleet.run(60);
    assert_eq!(fleet.events(), BTreeMap::from([("node.down", 900)]));
}

#[test]
fn a_trickle_that_is_a_tenth_within_a_minute_becomes_a_loss_without_those_that_are_down_already() {
    let mut fleet = Fleet::new(300);
    for node in 0..100 {
        fleet.silence([node], true);
        fleet.run(1);
    }
    fleet.run(1_200);
    let single: Vec<_> = fleet.single_downs().into_iter().map(|(_, node)| node).collect();
    let mut all = single.clone();
    fleet.masses().into_iter().filter(|(_, what, _)| *what == OVER).for_each(|(_, _, down)| all.extend(down));
    all.sort_unstable();
    assert_eq!(all, keys(0..100), "each is down once");
    assert!((1..40).contains(&single.len()), "{}", single.len());
}

#[test]
fn a_blip_that_is_over_before_it_is_told_is_not_told() {
    let mut fleet = Fleet::new(1_000);
    fleet.silence(0..300, true);
    fleet.run(10);
    assert!(fleet.line.count(NodeState::Suspect) > 100);
    fleet.silence(0..300, false);
    fleet.run(300);
    assert_eq!(fleet.events(), BTreeMap::new());
}

#[test]
fn a_loss_ends_when_fewer_than_a_twentieth_stay_silent_and_they_are_down_together() {
    let mut fleet = Fleet::new(1_000);
    fleet.silence(0..300, true);
    fleet.run(100);
    fleet.silence(50..300, false);
    fleet.run(60);
    assert_eq!(told(&fleet), [(LOSS, 300)], "a twentieth is silent");
    fleet.silence([49], false);
    fleet.run(30);
    assert_eq!(told(&fleet), [(LOSS, 300), (OVER, 49)]);
    assert_eq!(fleet.masses()[1].2, keys(0..49));
    assert_eq!(fleet.events().get("node.up"), Some(&251));
}

#[test]
fn nobody_is_down_who_speaks_at_its_next_tick_however_long_the_cut_was() {
    for seconds in 1..=90 {
        let mut fleet = Fleet::new(500);
        fleet.run(20);
        fleet.silence(0..100, true);
        fleet.run(seconds);
        fleet.silence(0..100, false);
        fleet.run(120);
        let down: Vec<_> =
            fleet.masses().into_iter().filter(|(_, what, _)| *what == OVER).map(|(.., down)| down).collect();
        assert!(down.iter().all(Vec::is_empty), "a cut of {seconds} s: {down:?}");
        assert_eq!(fleet.single_downs(), [], "a cut of {seconds} s");
    }
}

#[test]
fn a_second_wave_joins_the_loss_and_is_down_with_it() {
    let mut fleet = Fleet::new(1_000);
    fleet.silence(0..200, true);
    fleet.run(300);
    fleet.silence(200..500, true);
    fleet.run(100);
    let joined: Vec<_> = fleet.masses()[1..]
        .iter()
        .flat_map(|(_, what, nodes)| {
            assert_eq!(*what, GREW);
            nodes.clone()
        })
        .collect();
    assert_eq!(joined.len(), 300);
    fleet.run(1_000);
    let (_, what, down) = fleet.masses().pop().expect("it is over");
    assert_eq!((what, down), (OVER, keys(0..500)));
    assert_eq!(fleet.single_downs(), []);
}

#[test]
fn a_second_wave_at_the_very_end_is_the_next_loss() {
    let mut fleet = Fleet::new(1_000);
    fleet.silence(0..200, true);
    fleet.run(30 + 900 - 22);
    fleet.silence(200..500, true);
    fleet.run(1_200);
    let mut down = Vec::new();
    let mut whats = Vec::new();
    for (_, what, nodes) in fleet.masses() {
        whats.push(what);
        if what == OVER {
            down.extend(nodes);
        }
    }
    down.sort_unstable();
    assert_eq!((whats.as_slice(), down), ([LOSS, OVER, LOSS, OVER].as_slice(), keys(0..500)));
    assert_eq!(fleet.single_downs(), []);
}

#[test]
fn a_node_that_comes_back_and_falls_again_is_held_again() {
    let mut fleet = Fleet::new(1_000);
    fleet.silence(0..200, true);
    fleet.run(100);
    fleet.silence([7], false);
    fleet.run(20);
    assert_eq!(fleet.line.state(key(7)), NodeState::Up);
    fleet.silence([7], true);
    fleet.run(60);
    assert_eq!(fleet.line.state(key(7)), NodeState::Unknown);
    assert_eq!(fleet.masses()[1].2, [key(7)]);
    fleet.run(1_000);
    assert_eq!(fleet.masses()[2].2, keys(0..200));
    assert_eq!(fleet.single_downs(), []);
}

#[test]
fn nodes_that_flap_are_down_each_time_and_no_loss() {
    let mut fleet = Fleet::new(200);
    for _ in 0..10 {
        fleet.silence(0..5, true);
        fleet.run(50);
        fleet.silence(0..5, false);
        fleet.run(20);
    }
    assert_eq!(fleet.events(), BTreeMap::from([("node.down", 50), ("node.up", 50)]));
}

#[test]
fn what_is_down_for_long_is_no_part_of_what_a_loss_is_measured_against() {
    let mut fleet = Fleet::new(1_000);
    for node in 0..800 {
        fleet.silence([node], true);
        fleet.run(2);
    }
    fleet.run(1_200);
    let before = fleet.masses().len();
    fleet.silence(800..821, true);
    fleet.run(60);
    assert_eq!(told(&fleet)[before..], [(LOSS, 21)]);
}

#[test]
fn nodes_that_a_restart_misses_are_one_loss() {
    let mut fleet = Fleet::new(10_000);
    fleet.silence(0..2_000, true);
    let effects = fleet.line.restart();
    fleet.tell(effects);
    fleet.come_back();
    assert_eq!(fleet.masses(), []);
    fleet.run(1_000);
    assert_eq!(told(&fleet), [(LOSS, 2_000), (OVER, 2_000)]);
    assert_eq!(fleet.events().len(), 2);
    let few = |lost| {
        let mut fleet = Fleet::new(1_000);
        fleet.silence(0..lost, true);
        let effects = fleet.line.restart();
        fleet.tell(effects);
        fleet.come_back();
        fleet.run(1_000);
        fleet.events()
    };
    assert_eq!(few(50), BTreeMap::from([("node.down", 50)]));
}

#[test]
fn a_loss_outlives_a_restart_and_is_told_once() {
    let mut fleet = Fleet::new(1_000);
    fleet.silence(0..200, true);
    fleet.run(300);
    for _ in 0..3 {
        let effects = fleet.line.restart();
        fleet.tell(effects);
        fleet.come_back();
        fleet.run(20);
    }
    assert_eq!(told(&fleet), [(LOSS, 200)]);
    fleet.silence(300..400, true);
    let effects = fleet.line.restart();
    fleet.tell(effects);
    fleet.come_back();
    fleet.run(400);
    let (second, what, down) = fleet.masses().pop().expect("it is over");
    assert_eq!((what, down), (OVER, keys((0..200).chain(300..400))), "with those that fell meanwhile");
    assert!((900..960).contains(&second), "after a quarter of an hour: {second}");
    assert_eq!(fleet.single_downs(), []);
}

#[test]
fn what_was_gathered_before_a_restart_or_a_long_pause_is_counted_anew() {
    for pauses in [false, true] {
        let mut fleet = Fleet::new(1_000);
        fleet.silence(0..200, true);
        fleet.run(20);
        let effects = if pauses {
            fleet.line.at = fleet.line.at.plus(121_000);
            fleet.line.put(Event::Tick { elapsed_ms: 121_000, paused_ms: 120_000 })
        } else {
            fleet.line.restart()
        };
        fleet.tell(effects);
        fleet.silence(0..200, false);
        fleet.come_back();
        fleet.run(300);
        assert_eq!(fleet.events(), BTreeMap::new());
    }
}

#[test]
fn agents_that_die_while_the_collector_is_stopped_are_one_loss() {
    let mut fleet = Fleet::new(1_000);
    fleet.silence(0..200, true);
    fleet.line.at = fleet.line.at.plus(121_000);
    let effects = fleet.line.put(Event::Tick { elapsed_ms: 121_000, paused_ms: 120_000 });
    fleet.tell(effects);
    fleet.come_back();
    fleet.run(1_000);
    assert_eq!(told(&fleet), [(LOSS, 200), (OVER, 200)]);
    assert_eq!(fleet.events().len(), 2);
}

#[test]
fn a_node_of_a_loss_that_stops_or_is_drained_or_forgotten_is_not_down_with_it() {
    let mut fleet = Fleet::new(1_000);
    fleet.silence(0..200, true);
    fleet.run(100);
    let goodbye = Goodbye { epoch: Epoch(1), next_seq: Seq(3), reason: StopReason::Stopped };
    fleet.line.put(Event::Goodbye { node: key(0), goodbye });
    fleet.line.stand(key(1), Standing { maintenance: Some(Maintenance::default()), ..Standing::default() });
    fleet.line.forget(key(2));
    fleet.run(1_000);
    assert_eq!(fleet.masses().pop().expect("it is over").2, keys(3..200));
    assert_eq!([0, 1].map(|node| fleet.line.state(key(node))), [NodeState::Stopped, NodeState::Maintenance]);
    assert_eq!(fleet.line.engine.node(key(2)), None);
}
