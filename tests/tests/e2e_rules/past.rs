//! What rules would have said of a past that is known to the last sample.

use std::time::SystemTime;

use dunlin_collector::shape::RulePreview;
use dunlin_shared::id::Epoch;
use dunlin_shared::metric::{MetricId, by_id};
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_tests::fleet::history::{History, write};
use dunlin_tests::fleet::load::Load;

use super::*;

const INTERVAL_MS: u64 = 10_000;
const TICKS: u64 = 720;
const METRIC: &str = "host_load1";
/// One that fires more often comes and goes, and is kept open for a while.
const FIRES_MAX: usize = 4;

/// What the first host measured, a tick each.
fn measured(history: &History) -> Vec<(WallMs, f64)> {
    let host = history.load.host(0, Epoch(1));
    let begins = history.until.plus(-i64::try_from(TICKS * INTERVAL_MS).expect("short"));
    let value = |tick: u64| {
        let at = begins.plus(i64::try_from(tick * INTERVAL_MS).expect("short"));
        let sample = host.sample(tick, MonoMs(0), at);
        let named = |number: u16| by_id(MetricId(number)).filter(|metric| metric.name == METRIC);
        let (metric, steps) =
            sample.rows().iter().find_map(|(_, number, steps)| Some((named(number.raw())?, *steps)))?;
        Some((at, metric.step.value(steps)))
    };
    (0..TICKS).filter_map(value).collect()
}

/// When it had been above the threshold for so long, and the first tick after that at which it was not.
fn above(measured: &[(WallMs, f64)], threshold: f64, for_ms: i64) -> Vec<(WallMs, Option<WallMs>)> {
    let mut spans: Vec<(WallMs, Option<WallMs>)> = Vec::new();
    let (mut began, mut fires) = (None, false);
    for (at, value) in measured {
        if *value > threshold {
            let began = *began.get_or_insert(*at);
            if !fires && at.since(began) >= for_ms {
                fires = true;
                spans.push((*at, None));
            }
        } else {
            began = None;
            if std::mem::take(&mut fires) {
                spans.last_mut().expect("it fired").1 = Some(*at);
            }
        }
    }
    spans
}

/// A threshold and a time for which there are some spans, and not so many that it comes and goes.
fn seldom(measured: &[(WallMs, f64)]) -> (f64, i64) {
    let mut values: Vec<f64> = measured.iter().map(|(_, value)| *value).collect();
    values.sort_unstable_by(|a, b| b.total_cmp(a));
    values.dedup();
    let choices = [0, 1, 2, 3, 6, 12, 18, 30]
        .into_iter()
        .flat_map(|minutes| values.iter().map(move |threshold| (*threshold, minutes * 60_000)));
    let mut few =
        choices.filter(|(threshold, for_ms)| (2..=FIRES_MAX).contains(&above(measured, *threshold, *for_ms).len()));
    few.next().expect("a value that is seldom exceeded for so long")
}

#[test]
fn a_preview_finds_the_times_at_which_a_metric_was_above_before_it_is_sealed_and_after() {
    let rig = Rig::new(3);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later than 1970");
    let until = WallMs(i64::try_from(since.as_millis()).expect("it fits for long") - 60_000);
    let load = Load::made_up(1, 40);
    let history = History { nodes: 3, ticks: TICKS, interval_ms: INTERVAL_MS, until, load, ahead_ms: vec![] };
    write(&rig.scratch.join("state"), &rig.fleet, &history).expect("the collector has stopped");
    let measured = measured(&history);
    assert!(measured.len() > 700, "{} ticks", measured.len());
    let (threshold, for_ms) = seldom(&measured);
    let expected = above(&measured, threshold, for_ms);

    let collector = rig.start();
    let when = format!("when = '{METRIC} > {threshold}'\nfor = \"{for_ms}ms\"");
    let rule = format!("[[rule]]\nname = \"busy\"\n{when}\nsummary = \"{{node}} {{value}}\"\n");
    let down = "[[rule]]\nname = \"down\"\nwhen = 'node_state == down'\nsummary = \"s\"\n";
    let file = rig.write("new.toml", &format!("{rule}{down}"));
    let look = || {
        let json =
            rig.dunlin(&["-o", "json", "rules", "preview", &file, "--from", "3h", "--limit", "10000"]).well().json();
        let found: RulePreview = serde_json::from_value(json).expect("it is a preview");
        let ours = found.items.iter().filter(|item| item.name == "fleet-0");
        let ours: Vec<_> = ours.map(|item| (item.fired.0, item.resolved.map(|at| at.0))).collect();
        (found, ours)
    };
    let (found, ours) = look();
    assert_eq!(ours, expected, "above {threshold} for {for_ms} ms\n{}", collector.log_text());
    assert_eq!((found.nodes, found.rules[0].alerts), (3, found.items.len()));
    assert!(found.rules[1].not_previewed.as_deref().is_some_and(|why| why.contains("node_state")), "{found:?}");
    assert!(found.items.iter().all(|item| item.value.is_some_and(|value| value > threshold)), "{found:?}");
    let sealed =
        || dunlin_tests::window::is_sealed(&rig.scratch.join("state")).expect("it can be listed").then_some(());
    super::until("all is sealed", LIMIT, sealed).unwrap_or_else(|error| panic!("{error}: {}", collector.log_text()));
    assert_eq!(look().1, expected, "what is sealed says the same");

    let table = rig.dunlin(&["rules", "preview", &file, "--from", "3h"]).well().out;
    assert!(table.contains("down was not previewed: node_state is known to the collector alone"), "{table}");
    assert!(table.contains("fleet-0") && table.starts_with("FIRED"), "{table}");
    let none = rig.dunlin(&["rules", "preview", &file, "--label", "role=none"]).well().out;
    assert!(none.contains("\n0 nodes, "), "{none}");
    end(collector);
}
