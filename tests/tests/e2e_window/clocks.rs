//! Nodes whose wall clocks say 1970 and 2100: what they send is kept by our clock, sealed, merged and answered at the time
//! at which it came, and nothing is purged for what they say.

use dunlin_collector::shape::Node;
use dunlin_collector::store::{Files, Level};
use dunlin_shared::time::WallMs;
use dunlin_tests::fleet::history::{History, write};
use dunlin_tests::fleet::load::Load;

use super::*;

/// 2100-01-01.
const LATE: WallMs = WallMs(4_102_444_800_000);
/// A minute after a host without a battery for its clock has booted.
const EARLY: WallMs = WallMs(60_000);
const SERIES: usize = 60;

#[test]
fn what_nodes_of_1970_and_2100_sent_is_sealed_and_answered_when_it_came() {
    let rig = Rig::new(3);
    let hour = WallMs(now().0 - now().0.rem_euclid(HOUR_MS));
    let until = hour.plus(600_000).min(now().plus(-60_000));
    let load = Load::made_up(1, SERIES);
    let history = History { nodes: 3, ticks: 810, interval_ms: 10_000, until, load, ahead_ms: vec![] };
    let ahead_ms = [EARLY, LATE].map(|at| at.since(begins(&history)));
    let history = History { ahead_ms: ahead_ms.to_vec(), ..history };
    let past = write(&rig.state, &rig.fleet, &history).expect("the collector has stopped");
    let collector = rig.start();
    rig.wait_sealed(&collector);
    let from = begins(&history).plus(-60_000);
    for (node, ahead_ms) in ahead_ms.into_iter().chain([0]).enumerate() {
        let about: Node =
            rig.client().get(&format!("/api/v1/nodes/{}", rig.fleet.nodes[node].id)).expect("it is known");
        assert_eq!(about.skew_ms, Some(ahead_ms), "{about:?}");
        let phase_ms = i64::try_from(10_000 * node / 3).expect("it is short");
        for metric in ["host_load1", "host_context_switches"] {
            let sent = sent(&history, &host(&history, node), metric);
            let sent: Vec<_> = sent[0].1.iter().map(|(at, value)| (at.plus(phase_ms), *value)).collect();
            let query = [("metric", metric), ("from", &rfc3339(from)), ("counter", "value"), ("resolution", "full")];
            let found = rig.series(node, &query);
            assert_eq!(found.len(), 1, "{metric}");
            assert!(
                points(&found[0]) == sent,
                "{metric} of node {node}: {:?}, not {:?}",
                found[0].points.first(),
                sent[0]
            );
        }
        for (resolution, slots) in [("5m", 27..=29), ("1h", 3..=4)] {
            let query = [("metric", "host_context_switches"), ("from", &rfc3339(from)), ("resolution", resolution)];
            let found = rig.series(node, &query);
            let found = points(&found[0]);
            assert!(slots.contains(&found.len()), "{resolution} of node {node}: {found:?}");
            assert!(found.iter().all(|(at, _)| *at >= hour.plus(-4 * HOUR_MS) && *at <= until), "{found:?}");
        }
    }
    let files = Files::list(&rig.state.join("window")).expect("it can be listed");
    for level in Level::ALL {
        let first = files.of(level).next().unwrap_or_else(|| panic!("no {}: {files:?}", level.as_str()));
        assert_eq!(first.first.0, 1, "nothing is purged");
        assert!(
            files.of(level).all(|name| (from.0 / 1_000 - 3_600..=until.0 / 1_000).contains(&name.begins_s)),
            "{files:?}"
        );
    }
    let said = collector.log_text();
    assert!(!said.contains("dropped the oldest") && !said.contains("shed"), "{said}");
    end(collector);
    rig.verify(&[past]);
}
